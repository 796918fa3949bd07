"""What a crash must not take: everything is written once more, and what became of it is said in words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qstudio.session.session import Session

PATIENCE_S = 2.0
"""Longest wait for the thread that writes statistics."""

LAST_OPTION = "--last"
"""Of the program: go on with the work without a project that was closed last."""


@dataclass(frozen=True)
class Kept:
    """What became of the work."""

    safe: bool
    """Whether nothing would be lost if the program ended now."""
    text: str
    """The same in one or two sentences."""
    arguments: tuple[str, ...] = ()
    """What the program is started with to go on with it."""


def keep_work(session: Session) -> Kept:
    """Write what has not been written yet and say where it is. Raises nothing: it is called after a fault."""
    try:
        session.project.recorder.save()
        session.project.recorder.flush(PATIENCE_S)
        return _found(session)
    except Exception as error:  # whatever it is, it must be said instead of hiding the fault that came before
        return Kept(False, f"Your work could not be saved ({error or type(error).__name__}).")


def _found(session: Session) -> Kept:
    project, model = session.project, session.model
    opened = project.recorder.opened
    edits, runs = max(len(session.history.edits) - 1, 0), len(session.runs)
    what = f"{edits} {'edit' if edits == 1 else 'edits'} and {runs} {'run' if runs == 1 else 'runs'}"
    again = (model.path,) if model is not None else ()
    if model is None and not runs and opened is None:
        return Kept(True, "No model was open: there is nothing to lose.")
    if not project.path and not project.has_own_work:
        return Kept(True, "Nothing had been changed: there is nothing to lose.", again)
    if project.trouble:
        return Kept(False, f"Your work could not be saved ({project.trouble}): {what} are only in memory.", again)
    if opened is None:
        return Kept(
            False, f"Work without a project is not saved, as the preferences say: {what} are only in memory.", again
        )
    if project.path and not (project.read_only and project.has_own_work):
        name = os.path.basename(project.path)
        return Kept(True, f"Your work is saved: {what} are in {name}. Restart opens it again.", (project.path,))
    return Kept(True, f"Your work is saved: {what}. Restart goes on with it.", (LAST_OPTION,))
