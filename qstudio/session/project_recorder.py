"""Writes what happens in a session into a file, as it happens."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import qstudio
from qstudio.core.errors import UserError
from qstudio.core.statistics import SiteStatistics
from qstudio.session.options import Notice
from qstudio.session.project_notes import ProjectNotes
from qstudio.session.project_opening import Opened, begin_autosave, put_away
from qstudio.session.project_statistics import KEPT_KEYS, activations_key, fits_weights, weights_key
from qstudio.session.store.project_file import ProjectFile, read_statistics, remove_files, words_of
from qstudio.session.store.state import DataPlace, Facts, ModelPlace, ProjectState
from qstudio.session.store.writer import Outcome, Task, Writer, checkpoint, store_statistics

if TYPE_CHECKING:
    from qstudio.session.session import Session

SAVES_BETWEEN_CHECKPOINTS = 1000
"""Transactions after which the writer's thread brings the log, about 20 MB by then, into the file. The first write
after it waits for the disk, 20 ms where all others take one."""


class Recorder:
    """Writes every edit and every state of a run before the call that made it returns, in one transaction.

    Only what differs from what was written last is written: what failed to be written (a full disk) is part of the
    next try without being kept anywhere else than in the session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.autosave_root = ""
        """Folder for work without a project; empty = such work is only in memory."""
        self.wake: Callable[[], None] = _nothing
        """Called from the writer's thread when `take_in` has something to do."""
        self.on_trouble: Callable[[], None] = _nothing
        """Called when writing begins to fail, and when it works again."""
        self.trouble = ""
        """Why the last write failed; empty when everything is written."""
        self.notes = ProjectNotes(self.save, session.run)
        self.opened: Opened | None = None
        self.model: ModelPlace | None = None
        """Of the model opened last, also while it is not found."""
        self.data: DataPlace | None = None
        self.awaited: ProjectState | None = None
        """What the file holds, until its model is open."""
        self.paused = False
        """While a file is being shown."""
        self._writer: Writer | None = None
        self._statistics: tuple[str, ...] = ()
        self._saves = 0
        self._read: dict[str, dict[str, SiteStatistics]] = {}
        """Statistics that were read while the model was being opened, by key."""
        session.recipe_changed.connect(self._on_work)
        session.runs_changed.connect(self._on_work)
        session.run_selected.connect(self._on_work)
        session.options_changed.connect(self._on_work)
        session.training_changed.connect(self._on_work)
        session.selection_changed.connect(self._on_work)
        session.statistics_changed.connect(self.keep_statistics)

    # ---- the file

    def take(self, opened: Opened) -> None:
        """Write into this file from now on."""
        self.opened, self.trouble, self._saves = opened, "", 0
        self._statistics, self._read = opened.state.facts.statistics, {}
        self._begin_writer(opened.file.path)

    def end(self, keep: bool) -> None:
        """Let go of the file; `keep` it as the last one where it is work without a project."""
        if self._writer is not None:
            self._writer.close()
        if self.opened is not None:
            put_away(self.opened, self.autosave_root, keep)
        self.opened = self._writer = None

    @property
    def what(self) -> str:
        """What is saved, for a sentence."""
        opened = self.opened
        return os.path.basename(opened.path) if opened and opened.path and not opened.read_only else "Your work"

    # ---- saving

    def _on_work(self, _value: object) -> None:
        self.save()

    def save(self) -> None:
        """Write what has changed; trouble is told once and kept in `trouble`. It is tried again at every call."""
        idle = self.opened is None and not (self.autosave_root and self._session.model is not None)
        if self.paused or idle:
            return
        try:
            changed = self._file().save(self._state())
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return
        if self.trouble:
            self.trouble = ""
            self._session.notice_posted.emit(Notice("info", f"{self.what} is saved again; nothing was lost."))
            self.on_trouble()
        self._saves += changed
        if self._saves >= SAVES_BETWEEN_CHECKPOINTS:
            self._saves = 0
            self.put(checkpoint, self._on_written)

    def _file(self) -> ProjectFile:
        """Return the file to write; one that is gone from its place is made again."""
        if self.opened is None:
            self.take(begin_autosave(self.autosave_root))
            for kind in ("weights", "activations"):
                self.keep_statistics(kind)
        assert self.opened is not None
        path = self.opened.file.path
        if not os.path.exists(path):
            if self._writer is not None:
                self._writer.close()
            self.opened.file.close()
            remove_files(path)
            self._statistics = ()
            self.opened = replace(self.opened, file=ProjectFile.create(path))
            self._begin_writer(path)
        return self.opened.file

    def _state(self) -> ProjectState:
        session = self._session
        copy = self.opened if self.opened is not None and self.opened.read_only else None
        facts = Facts(
            model=self.model,
            data=self.data,
            options=session.options,
            training=session.training,
            at=session.history.at,
            note=self.notes.text,
            selection=session.selection if self.awaited is None else self.awaited.facts.selection,
            selected_run=session.selected_run,
            perspective=self.notes.perspective,
            layout=self.notes.layout,
            program=qstudio.__version__,
            origin=copy.path if copy is not None else "",
            known=copy.state.facts.known if copy is not None else None,
            statistics=self._statistics,
        )
        history = session.history
        return ProjectState(
            facts, history.edits, history.line, session.runs, session.timeline.run_edits, self.notes.marks
        )

    def _fail(self, error: Exception) -> None:
        first, self.trouble = not self.trouble, words_of(error)
        if first:
            text = f"{self.what} cannot be saved ({self.trouble}). It goes on in memory, and saving is tried again."
            self._session.notice_posted.emit(Notice("error", text))
            self.on_trouble()

    # ---- the writer's thread

    def _begin_writer(self, path: str) -> None:
        self._writer = Writer(path, lambda: self.wake())

    def put(self, task: Task, then: Callable[[Outcome], None]) -> None:
        """Have the writer's thread do something with the file; `then` is called by `take_in`."""
        if self._writer is not None:
            self._writer.put(task, then)

    @property
    def stopping(self) -> bool:
        """Whether the writer's thread is asked to end."""
        return self._writer is None or self._writer.stopping

    def take_in(self) -> None:
        """Tell what the writer's thread has done."""
        if self._writer is not None:
            self._writer.take()

    def flush(self, timeout_s: float) -> bool:
        """Wait for the writer's thread; return whether it has done everything."""
        writer = self._writer
        while writer is not None and writer is self._writer and writer.busy:
            if not writer.take(timeout_s):
                return False
        return True

    def _on_written(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._fail(outcome.error)

    # ---- statistics

    def keep_statistics(self, kind: str) -> None:
        """Write the statistics that are complete ("weights" or "activations"), unless they are in the file."""
        session, model = self._session, self._session.model
        if self.opened is None or model is None or self.paused:
            return
        if kind == "weights" and fits_weights(session.weight_statistics, model):
            key, sites = weights_key(model), session.weight_statistics
        elif kind == "activations" and session.activation_statistics and session.dataset is not None:
            key, sites = activations_key(model, session.dataset, session.options), session.activation_statistics
        else:
            return
        if not key or key in self._statistics:
            return
        self._statistics = (key, *self._statistics)[:KEPT_KEYS]

        def then(outcome: Outcome) -> None:
            if outcome.error is not None:
                self._statistics = tuple(known for known in self._statistics if known != key)
            self._on_written(outcome)

        self.put(store_statistics(key, sites.values(), self._statistics), then)
        self.save()

    def read_ahead(self) -> None:
        """Read the statistics while the model is being opened: those of a large model take 100 ms."""
        if self.opened is None or not self._statistics:
            return
        keys, path = self._statistics, self.opened.file.path

        def read(connection: sqlite3.Connection) -> dict[str, dict[str, SiteStatistics]]:
            return {key: read_statistics(connection, key, path) for key in keys}

        def then(outcome: Outcome) -> None:
            self._read = outcome.value or {}  # what cannot be read is measured again

        self.put(read, then)

    def kept_statistics(self, key: str) -> dict[str, SiteStatistics]:
        """Return statistics that were kept; none where they are damaged, as they are measured again then."""
        if not key or self.opened is None or key not in self._statistics:
            return {}
        self.take_in()
        if key in self._read:
            return self._read.pop(key)
        try:
            return self.opened.file.statistics(key)
        except (UserError, sqlite3.Error):
            return {}


def _nothing() -> None:
    return
