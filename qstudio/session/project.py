"""The project: a file that holds what is done in a session; opened, saved under a name, found again after a crash."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

from qstudio.core.errors import UserError
from qstudio.session import project_opening as opening
from qstudio.session.clearing import clear, tell_everything
from qstudio.session.events import Event
from qstudio.session.options import Notice
from qstudio.session.project_files import ProjectFiles
from qstudio.session.project_notes import ProjectNotes
from qstudio.session.project_places import place_of_data, place_of_model, with_suffix
from qstudio.session.project_recorder import Recorder
from qstudio.session.store.project_file import EMPTY
from qstudio.session.store.state import ProjectState

if TYPE_CHECKING:
    from qstudio.session.session import Session

CLOSING_PATIENCE_S = 1.0
"""How long closing waits for statistics that are being written; they would only be measured again."""


class Project:
    """Where a session's work is kept: in a file of its own, or in an autosave while it has none.

    Every edit and every state of a run is in the file before the call that made it returns (see `Recorder`).
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.recorder = Recorder(session)
        self.recorder.on_trouble = self._tell_changed
        self.changed: Event[Project] = Event()
        """Another file, another reason why it is not written, or what is embedded."""
        self.files = ProjectFiles(session, self.recorder, self._tell_changed)
        self._known = (1, 0)
        """Edits and runs that are in another file too."""

    # ---- what it is

    @property
    def notes(self) -> ProjectNotes:
        """What a person noted: a text, pinned runs, texts of runs."""
        return self.recorder.notes

    @property
    def path(self) -> str:
        """The project's file; empty while it has none."""
        return self.recorder.opened.path if self.recorder.opened else ""

    @property
    def name(self) -> str:
        """Name of the file without folder and ending; empty while there is none."""
        return os.path.splitext(os.path.basename(self.path))[0]

    @property
    def read_only(self) -> str:
        """Why the project's file is not written, in words; empty when it is."""
        return self.recorder.opened.read_only if self.recorder.opened else ""

    @property
    def trouble(self) -> str:
        """Why the last change could not be written; empty when everything is."""
        return self.recorder.trouble

    @property
    def blocked(self) -> str:
        """Why no other project can be opened now, in words; empty when one can."""
        if self._session.running is not None:
            return "A run is in progress: cancel it first"
        return "A model is being opened" if self._session.opening else ""

    @property
    def has_own_work(self) -> bool:
        """Whether something was done that is in no other file."""
        return self._known != (len(self._session.history.edits), len(self._session.runs))

    # ---- opening and closing

    def new(self) -> None:
        """Begin with nothing; what there is has been saved.

        Raises:
            UserError: A run is in progress.
        """
        self._check_free()
        self._leave()
        self._show(replace(EMPTY, facts=replace(EMPTY.facts, options=self._session.default_options)))

    def open(self, path: str | os.PathLike[str]) -> None:
        """Open a project: its history, runs, options and notes at once, its model and data as soon as they are read.

        Where it cannot be written (another window has it, its folder is read-only), work goes on in a copy, and
        `read_only` says why.

        Raises:
            UserError: It is no project, is damaged, a newer version wrote it, or a run is in progress.
        """
        self._check_free()
        name = os.path.abspath(path)
        if name == self.path and not self.read_only:
            return
        opened = opening.open_project(name, self.recorder.autosave_root)
        self._leave()
        self.recorder.take(opened)
        if opened.read_only:
            text = f"{os.path.basename(name)} is open for reading only: {opened.read_only}."
            self._tell("warning", f"{text} What you change goes into a copy.", ("save_project_as", "Save as…"))
        elif opened.crashed:
            self._tell("info", f"{os.path.basename(name)} was not closed in order: its last state is restored.")
        self._show(opened.state)

    def recover(self) -> bool:
        """Restore the newest work that a crash left without a project; return whether there was any.

        Raises:
            UserError: A run is in progress.
        """
        self._check_free()
        return self._recover(opening.recoverable(self.recorder.autosave_root), "QStudio was not closed in order")

    def recover_last(self) -> bool:
        """Restore the work without a project that was closed last; return whether there was any.

        Raises:
            UserError: A run is in progress, or it cannot be read.
        """
        self._check_free()
        again = opening.begin_again(self.recorder.autosave_root)
        return self._recover((again,) if again else (), "Work without a project")

    def _recover(self, paths: tuple[str, ...], why: str) -> bool:
        for path in paths:
            try:
                opened = opening.recover(path)
            except (UserError, sqlite3.Error, OSError) as error:
                self._tell("warning", f"{path} could not be restored: {error}")
                continue
            if opened is None:
                continue
            self._leave()
            self.recorder.take(opened)
            origin = opened.state.facts.origin
            of = f" of {os.path.basename(origin)}" if origin else ""
            self._tell("info", f"{why}: the last state{of} is restored.", ("new_project", "Start empty"))
            self._show(opened.state)
            self._known = (0, 0)
            return True
        return False

    def save_as(self, path: str | os.PathLike[str]) -> None:
        """Write everything into a file and go on in it; a file that is there is replaced.

        Raises:
            UserError: It cannot be written, or another window has it open.
        """
        name, recorder = with_suffix(os.path.abspath(path)), self.recorder
        recorder.save()
        if name == self.path and not self.read_only:
            return
        recorder.flush(CLOSING_PATIENCE_S)
        saved = opening.save_copy(recorder.opened.file if recorder.opened else None, name)
        recorder.end(keep=False)
        recorder.take(saved)
        if recorder.model is not None:
            recorder.model = place_of_model(recorder.model.path, recorder.model.sha256, recorder.model.name, name)
        if recorder.data is not None:
            recorder.data = place_of_data(recorder.data.spec, recorder.data.spec.source, recorder.data.sha256, name)
        recorder.save()
        for kind in ("weights", "activations"):
            recorder.keep_statistics(kind)
        self._tell_changed()

    def save(self) -> None:
        """Try again to write what could not be written."""
        self.recorder.save()

    def close(self) -> None:
        """Write what is left and let go of the file; work without a project is kept as the last one."""
        self._leave()

    def _check_free(self) -> None:
        if self.blocked:
            raise UserError(self.blocked[:1].lower() + self.blocked[1:])

    def _leave(self) -> None:
        if self.recorder.opened is not None:
            self.recorder.save()
            self.recorder.flush(CLOSING_PATIENCE_S)
            self.recorder.end(keep=self.has_own_work)

    def _show(self, state: ProjectState) -> None:
        """Show what a file holds; the model is opened where it is found."""
        session, recorder, facts = self._session, self.recorder, state.facts
        recorder.paused = True
        try:
            clear(session)
            recorder.model, recorder.data, recorder.awaited = facts.model, facts.data, None
            if state.line:
                session.history.load(state.edits.values(), state.line, facts.at)
                session.saved_recipe = session.recipe
            session.options, session.training = facts.options, facts.training
            session.timeline.load(state.run_edits)
            self.notes.load(facts, state.marks)
            tell_everything(session, state.runs, facts.selected_run)
            if facts.model is not None:
                recorder.awaited = state
        finally:
            recorder.paused = False
        self._known = (len(session.history.edits), len(session.runs))
        recorder.save()
        self._tell_changed()
        if facts.model is not None:
            recorder.read_ahead()
            self.files.find()

    def _tell_changed(self) -> None:
        self.changed.emit(self)

    def _tell(self, level: str, text: str, action: tuple[str, str] | None = None) -> None:
        self._session.notice_posted.emit(Notice(level, text, action=action))
