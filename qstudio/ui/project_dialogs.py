"""Dialogs of a project: its model is missing, what is put inside, its note. None blocks the window."""

from __future__ import annotations

import os
from collections.abc import Mapping

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from qstudio.session.project_files import ModelCheck
from qstudio.session.store.embedding import Embedded, Piece
from qstudio.session.store.state import ModelPlace
from qstudio.ui.text import format_bytes, tr
from qstudio.ui.theme import theme

MODEL_FILTER = "Models (*.onnx *.pt2);;All files (*)"


class ProjectDialog(QDialog):
    """A heading, a text, and buttons at the bottom."""

    def __init__(self, title: str, heading: str, text: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(title)
        self.setModal(False)
        self.setMinimumWidth(theme().px(520))
        head = QLabel(heading)
        head.setFont(theme().font("normal", bold=True))
        head.setWordWrap(True)
        self.text = QLabel(text)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.buttons = QDialogButtonBox()
        self.column = QVBoxLayout(self)
        self.column.setSpacing(12)
        self.column.addWidget(head)
        self.column.addWidget(self.text)
        self.column.addWidget(self.buttons)

    def add_button(self, text: str, role: QDialogButtonBox.ButtonRole, tooltip: str, look: str = "flat") -> QPushButton:
        """Add a button and return it; the one to take has the look "primary"."""
        button = QPushButton(tr(text))
        button.setProperty("role", look)
        button.setToolTip(tr(tooltip))
        self.buttons.addButton(button, role)
        return button

    def fit(self) -> None:
        """Grow to the height that its texts need at this width: wrapped labels do not ask for it themselves."""
        self.column.activate()
        self.resize(self.width(), max(self.height(), self.column.totalHeightForWidth(self.width())))


class MissingModelDialog(ProjectDialog):
    """Asks where the model is now, and says whether a file is the same."""

    chosen = Signal(str)
    """A file to check."""
    accepted_anyway = Signal(str)
    """A file to open although it is another one."""
    looked_at = Signal()
    """The results are looked at without the model."""

    def __init__(self, place: ModelPlace, parent: QWidget) -> None:
        text = tr("It was at {path}. Runs and history are here; choose the file to go on with them.")
        super().__init__(
            tr("Find the model"),
            tr("{name} is not where it was").format(name=os.path.basename(place.path)),
            text.format(path=place.path),
            parent,
        )
        self._place = place
        self._checked = ""
        self.status = QLabel()
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setWordWrap(True)
        self.status.setAccessibleName(tr("What the chosen file is"))
        self.status.hide()
        self.column.insertWidget(2, self.status)
        roles = QDialogButtonBox.ButtonRole
        self.choose = self.add_button(
            "Choose the file…", roles.ActionRole, "Its content is compared with the model's", "primary"
        )
        self.anyway = self.add_button(
            "Open it all the same",
            roles.ActionRole,
            "The history begins anew with this model; the runs so far are kept",
        )
        self.anyway.hide()
        self.look = self.add_button(
            "Look at the results only", roles.RejectRole, "Runs, charts and the history, without the model"
        )
        self.choose.clicked.connect(self._on_choose)
        self.anyway.clicked.connect(self._on_anyway)
        self.rejected.connect(self.looked_at)
        self.look.clicked.connect(self.reject)

    def _on_choose(self) -> None:
        dialog = QFileDialog(self, tr("Find the model"), os.path.dirname(self._place.path))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setNameFilter(MODEL_FILTER)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self.check)
        dialog.open()

    def check(self, path: str) -> None:
        """Have a file compared with the model."""
        self.status.setText(tr("{name} is being read…").format(name=os.path.basename(path)))
        self.status.show()
        self.anyway.hide()
        self.fit()
        self.chosen.emit(path)

    def show_check(self, found: ModelCheck) -> None:
        """Say what the file is; the model itself is opened by whoever asked, and the dialog goes."""
        if found.same:
            self.accept()
            return
        self._checked = found.path
        words = tr("{name} is another file: its content is not that of the project's model (SHA-256 {hash}…).")
        name = os.path.basename(found.path)
        self.status.setText(found.error or words.format(name=name, hash=self._place.sha256[:12]))
        self.anyway.setVisible(not found.error)
        self.fit()

    def _on_anyway(self) -> None:
        self.accepted_anyway.emit(self._checked)
        self.accept()


class EmbedDialog(ProjectDialog):
    """Says how large model and data are before they are put into the project."""

    wanted = Signal()
    removal_wanted = Signal()

    def __init__(self, pieces: Mapping[str, tuple[Piece, ...]], inside: tuple[Embedded, ...], parent: QWidget) -> None:
        lines = [
            f"{tr(role.capitalize())}: {len(files):,} {tr('files') if len(files) != 1 else tr('file')}, "
            f"{format_bytes(sum(piece.size_bytes for piece in files))}"
            for role, files in pieces.items()
        ]
        if "data" not in pieces:
            lines.append(tr("Data: built in, nothing to put in"))
        for item in inside:
            words = tr("Inside now: {role} {name}, {size}")
            lines.append(words.format(role=tr(item.role), name=item.main, size=format_bytes(item.size_bytes)))
        super().__init__(
            tr("Model and data in the project"),
            tr("One file to hand out: whoever opens the project needs nothing else"),
            "\n".join(lines),
            parent,
        )
        total = sum(piece.size_bytes for files in pieces.values() for piece in files)
        roles = QDialogButtonBox.ButtonRole
        put = self.add_button(
            tr("Put in ({size})").format(size=format_bytes(total)),
            roles.AcceptRole,
            "The project's file grows by this; the files themselves stay where they are",
            "primary",
        )
        put.clicked.connect(self.wanted)
        put.clicked.connect(self.accept)
        if inside:
            take = self.add_button("Take out", roles.DestructiveRole, "The project then needs them where they are")
            take.clicked.connect(self.removal_wanted)
            take.clicked.connect(self.accept)
        self.add_button("Cancel", roles.RejectRole, "Change nothing").clicked.connect(self.reject)


class NoteDialog(ProjectDialog):
    """A text about the project."""

    changed = Signal(str)

    def __init__(self, title: str, text: str, parent: QWidget) -> None:
        super().__init__(title, title, tr("Kept in the project as you type."), parent)
        self.edit = QPlainTextEdit(text)
        self.edit.setAccessibleName(title)
        self.edit.setToolTip(tr("What this is about, for yourself and whoever opens the project"))
        self.edit.setMinimumHeight(theme().px(160))
        self.column.insertWidget(2, self.edit)
        self.edit.textChanged.connect(self._on_text)
        close = self.add_button("Close", QDialogButtonBox.ButtonRole.RejectRole, "Everything is saved")
        close.clicked.connect(self.reject)

    def _on_text(self) -> None:
        self.changed.emit(self.edit.toPlainText())
