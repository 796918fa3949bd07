"""The history of a session as a tree: every edit, what it was made from, and the runs made with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qstudio.session.events import Event
from qstudio.session.options import Run

if TYPE_CHECKING:
    from qstudio.session.session import Session


@dataclass(frozen=True)
class TimelineNode:
    """An edit as a panel draws it."""

    id: int
    parent: int | None
    """The edit it was made from; None where a history begins (a model was opened)."""
    label: str
    """What was done; empty or the model's name at a beginning."""
    run_ids: tuple[int, ...]
    """Numbers of the runs started with its recipe, in the order they were started."""
    is_current: bool
    """Whether its recipe is the one that stands."""
    time: float
    """When it was made: seconds since the epoch."""


class Timeline:
    """Listens to a session's edits and runs; which edit a run came from is noted when the run starts.

    An old recipe that is restored (`Session.restore_run`, `restore`) leads back to the edit it stood at: what is
    edited next branches off there. Edits that were undone and overwritten stay as branches.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._run_edits: dict[int, int | None] = {}
        self.changed: Event[int] = Event()
        """Id of the edit that is current now; ask `nodes` for the rest."""
        session.recipe_changed.connect(lambda _recipe: self.changed.emit(self.current))
        session.runs_changed.connect(self._on_runs)

    @property
    def current(self) -> int:
        """Id of the edit whose recipe stands."""
        return self._session.history.current

    @property
    def nodes(self) -> tuple[TimelineNode, ...]:
        """All edits, oldest first; a parent always comes before what was made from it."""
        runs: dict[int, list[int]] = {}
        for run, edit in self._run_edits.items():
            if edit is not None:
                runs.setdefault(edit, []).append(run)
        current = self.current
        return tuple(
            TimelineNode(edit.id, edit.parent, edit.label, tuple(runs.get(edit.id, ())), edit.id == current, edit.time)
            for edit in self._session.history.edits.values()
        )

    @property
    def run_edits(self) -> Mapping[int, int | None]:
        """The edit that each run came from, by the run's number; None where it is not known."""
        return self._run_edits

    def edit_of(self, run: int) -> int | None:
        """Return the edit that a run was made with; None where that is not known."""
        return self._run_edits.get(run)

    def restore(self, edit: int) -> None:
        """Make the recipe of an edit the current one, as one undoable step (KeyError when there is none)."""
        found = self._session.history.edits[edit]
        self._session.edit(f"Restore {found.label or 'the beginning'}", found.recipe, source=edit)

    def load(self, run_edits: Mapping[int, int | None]) -> None:
        """Take over which edits the runs came from, from a project file; call it before the runs are told of."""
        known = self._session.history.edits
        self._run_edits = {run: edit if edit in known else None for run, edit in run_edits.items()}
        for edit in self._run_edits.values():
            if edit is not None:
                self._session.history.hold(edit)
        self.changed.emit(self.current)

    def _on_runs(self, runs: tuple[Run, ...]) -> None:
        history = self._session.history
        new = [run for run in runs if run.id not in self._run_edits]
        for run in new:
            edit = self.current
            if run.request is not None and run.request.recipe != history.recipe:
                edit = history.branch("Search", run.request.recipe)  # a search found it and ran it
            self._run_edits[run.id] = edit
            history.hold(edit)
        if new:
            self.changed.emit(self.current)
