"""Projects in the window: new, open, save as, what is missing, what cannot be written, how the window is arranged."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, cast

from PySide6.QtCore import QByteArray, QObject, QSettings, Qt, QTimer, Signal
from PySide6.QtWidgets import QFileDialog

from qstudio.core.errors import UserError
from qstudio.session.options import Notice
from qstudio.session.project_files import ModelCheck
from qstudio.session.project_opening import has_last, recoverable
from qstudio.session.project_places import SUFFIX
from qstudio.session.session import Session
from qstudio.session.store.state import ModelPlace
from qstudio.ui.settings import add_recent_file
from qstudio.ui.text import tr

if TYPE_CHECKING:
    from qstudio.ui.bridge import SessionBridge
    from qstudio.ui.main_window import MainWindow
    from qstudio.ui.project_dialogs import MissingModelDialog

PROJECT_FILTER = f"QStudio projects (*{SUFFIX})"
TICK_MS = 3000
"""How often what could not be written is tried again, and a changed arrangement of the window is kept."""


class LayoutStore:
    """Takes the place of the settings file while the workspace writes or reads its sizes."""

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self.values = dict(values or {})

    def setValue(self, key: str, value: object) -> None:
        """Keep a value: bytes as base64, texts with a mark before them."""
        if isinstance(value, QByteArray):
            self.values[key] = base64.b64encode(value.data()).decode()
        else:
            self.values[key] = f"={value}"

    def value(self, key: str, default: object = None) -> object:
        """Return what was kept; the default where there is nothing, or nothing readable."""
        text = self.values.get(key)
        if text is None:
            return default
        if text.startswith("="):
            return text[1:]
        try:
            return QByteArray(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            return default


class ProjectCommands(QObject):
    """The person's commands about projects. No dialog here is modal to the program."""

    opened = Signal(str)
    """A project that was opened or saved under a name: it belongs to the recent files."""
    _woken = Signal()

    def __init__(self, session: Session, window: MainWindow) -> None:
        super().__init__(window)
        self.session = session
        self.window = window
        self._missing: MissingModelDialog | None = None
        self._shown = ""
        self.has_crashed = False
        """Whether a crash has left work without a project that was not restored."""
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._on_tick)
        self._woken.connect(self._on_woken, Qt.ConnectionType.QueuedConnection)
        session.project.recorder.wake = self._woken.emit

    def follow(self, bridge: SessionBridge) -> None:
        """Follow the session; called once the window is assembled."""
        bridge.project_changed.connect(self._on_changed)
        bridge.model_missing.connect(self._on_model_missing)
        bridge.model_checked.connect(self._on_model_checked)
        bridge.model_changed.connect(self._on_model_changed)

    def close(self) -> None:
        """Keep how the window is arranged; the writer's thread tells nobody any more."""
        self._timer.stop()
        self._keep_layout()
        self.session.project.recorder.wake = _nothing

    def _on_woken(self) -> None:
        self.session.project.recorder.take_in()

    def _on_tick(self) -> None:
        project = self.session.project
        if project.trouble:
            project.save()
        self._keep_layout()

    def _tell(self, error: UserError) -> None:
        self.session.notice_posted.emit(Notice("error", error.sentence()))

    # ---- opening and saving

    def new(self) -> None:
        """Begin with nothing."""
        try:
            self._keep_layout()
            self.session.project.new()
        except UserError as error:
            self._tell(error)
            return
        self.window.show_welcome()

    def ask_open(self) -> None:
        """Ask for a project file."""
        dialog = self._dialog(tr("Open project"))
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self.open)
        dialog.open()

    def open(self, path: str) -> None:
        """Open a project."""
        try:
            self._keep_layout()
            self.session.project.open(path)
        except UserError as error:
            self._tell(error)
            return
        self._show_opened()

    def recover(self) -> bool:
        """Restore what a crash left; return whether there was anything."""
        try:
            found = self.session.project.recover()
        except UserError as error:
            self._tell(error)
            return False
        self.has_crashed = False
        if found:
            self._show_opened()
        return found

    def begin(self, path: str) -> None:
        """Open the project the program was started with; without one restore what a crash left."""
        if path:
            self.open(path)
        else:
            self.recover()
        if not self.session.opening and not self.session.runs:
            self.window.show_welcome()

    def find_crashed(self) -> bool:
        """Return whether a crash has left work without a project."""
        self.has_crashed = bool(recoverable(self.session.project.recorder.autosave_root))
        return self.has_crashed

    def offer_recovery(self) -> None:
        """Say that a crash left something, where the person asked for something else."""
        if self.find_crashed():
            text = tr("QStudio was not closed in order; what was open without a project is kept.")
            self.session.notice_posted.emit(Notice("warning", text, action=("restore_crashed", tr("Restore"))))

    @property
    def has_last(self) -> bool:
        """Whether there is work without a project that was closed last."""
        return has_last(self.session.project.recorder.autosave_root)

    def restore_last(self) -> None:
        """Go on with the work without a project that was closed last."""
        try:
            found = self.session.project.recover_last()
        except UserError as error:
            self._tell(error)
            return
        if found:
            self._show_opened()

    def _show_opened(self) -> None:
        project = self.session.project
        layout = project.notes.layout
        if layout:
            self.window.workspace.load(cast("QSettings", LayoutStore(layout)))
        if self.session.opening or self.session.model is not None or self.session.runs:
            self.window.show_perspective(project.notes.perspective or ("tune" if self.session.runs else "explore"))
        else:
            self.window.show_welcome()

    def ask_save_as(self) -> None:
        """Ask where to save the project."""
        dialog = self._dialog(tr("Save project as"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(SUFFIX[1:])
        model = self.session.model
        name = self.session.project.name or (os.path.splitext(model.name)[0] if model else tr("project"))
        dialog.selectFile(f"{name}{SUFFIX}")
        dialog.fileSelected.connect(self.save_as)
        dialog.open()

    def save_as(self, path: str) -> None:
        """Save the project under a name."""
        try:
            self.session.project.save_as(path)
        except UserError as error:
            self._tell(error)
            return
        self._keep_layout()
        saved = self.session.project.path
        words = tr("{name} holds everything now, and is written with every edit.")
        self.session.notice_posted.emit(Notice("info", words.format(name=os.path.basename(saved))))

    def _dialog(self, title: str) -> QFileDialog:
        dialog = QFileDialog(self.window, title)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setNameFilter(PROJECT_FILTER)
        return dialog

    # ---- following the project

    @property
    def title(self) -> str:
        """What stands in the window's title."""
        project, model = self.session.project, self.session.model
        name = project.name + (f" ({tr('read only')})" if project.read_only else "")
        return " – ".join(part for part in (name, model.name if model else "", "QStudio") if part)

    def _on_model_changed(self, _model: object) -> None:
        self.window.setWindowTitle(self.title)

    def _on_changed(self, _project: object) -> None:
        project = self.session.project
        self.window.setWindowTitle(self.title)
        if project.path and project.path != self._shown:
            add_recent_file(project.path)
            self.opened.emit(project.path)
        self._shown = project.path
        if project.path or project.trouble:
            self._timer.start()
        else:
            self._timer.stop()
        self.window.refresh_actions()

    def _keep_layout(self) -> None:
        if not self.session.project.path or not self.window.perspective:
            return
        store = LayoutStore()
        self.window.workspace.save(cast("QSettings", store))
        self.session.project.notes.set_layout(self.window.perspective, store.values)

    # ---- a model that is not where it was

    def _on_model_missing(self, place: ModelPlace) -> None:
        from qstudio.ui.project_dialogs import MissingModelDialog

        self._missing = dialog = MissingModelDialog(place, self.window)
        dialog.chosen.connect(self.session.project.files.locate_model)
        dialog.accepted_anyway.connect(self.window.commands.open_model)
        dialog.looked_at.connect(self._on_looked_at)
        dialog.finished.connect(self._on_missing_closed)
        dialog.open()

    def _on_missing_closed(self, _result: int) -> None:
        self._missing = None

    def _on_looked_at(self) -> None:
        if self.session.runs:
            self.window.show_perspective("tune")

    def _on_model_checked(self, found: ModelCheck) -> None:
        if self._missing is None:
            return
        self._missing.show_check(found)
        if found.same:
            self.window.commands.open_model(found.path)

    # ---- notes, pins, what is inside

    def ask_note(self) -> None:
        """Show the project's note."""
        from qstudio.ui.project_dialogs import NoteDialog

        notes = self.session.project.notes
        dialog = NoteDialog(tr("Note about the project"), notes.text, self.window)
        dialog.changed.connect(notes.set_text)
        dialog.open()

    def ask_run_note(self) -> None:
        """Show the note of the selected run."""
        from qstudio.ui.project_dialogs import NoteDialog

        notes, number = self.session.project.notes, self.session.selected_run
        if number is None:
            return
        title = tr("Note about {run}").format(run=self.session.run(number).title)
        dialog = NoteDialog(title, notes.mark(number).note, self.window)
        dialog.setProperty("run", number)
        dialog.changed.connect(self._on_run_note)
        dialog.open()

    def _on_run_note(self, text: str) -> None:
        dialog = self.sender()
        if dialog is not None and any(run.id == dialog.property("run") for run in self.session.runs):
            self.session.project.notes.set_run_text(int(dialog.property("run")), text)

    def toggle_pin(self) -> None:
        """Make the selected run a baseline, or one no more."""
        notes, run = self.session.project.notes, self.session.selected_run
        if run is not None:
            notes.pin(run, run not in notes.pinned)

    def ask_embed(self) -> None:
        """Show how large model and data are, and put them into the project when that is wanted."""
        from qstudio.ui.project_dialogs import EmbedDialog

        files = self.session.project.files
        try:
            dialog = EmbedDialog(files.pieces(), files.embedded, self.window)
        except UserError as error:
            self._tell(error)
            return
        dialog.wanted.connect(self._on_embed)
        dialog.removal_wanted.connect(files.remove_embedded)
        dialog.open()

    def _on_embed(self) -> None:
        try:
            self.session.project.files.embed()
        except UserError as error:
            self._tell(error)


def _nothing() -> None:
    return
