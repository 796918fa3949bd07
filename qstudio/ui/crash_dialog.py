"""What is shown when the window cannot be relied on any more: where the work is, and how to go on."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFontDatabase, QGuiApplication
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from qstudio.core.results import Device
from qstudio.session.kept_work import Kept
from qstudio.ui.environment import details_text
from qstudio.ui.text import tr
from qstudio.ui.theme import theme


class CrashDialog(QDialog):
    """Says what became of the work; Copy details, Restart, Quit, and Go on where there is a window.

    Args:
        kept: What became of the work.
        fault: The traceback.
        devices: What the engine has found, for the details.
        parent: The window; None for a fault while starting.
    """

    restart_wanted = Signal()
    quit_wanted = Signal()

    def __init__(self, kept: Kept, fault: str, devices: tuple[Device, ...] = (), parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._devices = devices
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, parent is not None)
        self.setWindowModality(Qt.WindowModality.ApplicationModal)
        starting = parent is None
        self.setWindowTitle("QStudio")
        head = QLabel(tr("QStudio could not start") if starting else tr("The window no longer works as it should"))
        head.setFont(theme().font("large", bold=True))
        head.setWordWrap(True)
        self.saved = QLabel(kept.text)
        self.saved.setFont(theme().font("normal", bold=True))
        if not kept.safe:
            self.saved.setProperty("role", "worse")
        why = QLabel(
            tr("A fault of ours stopped it. Restart, or quit and send us the details.")
            if starting
            else tr(
                "Several faults of ours came at once. Restart is the safe way. Go on only to save or copy something "
                "first. The details tell us what happened; they may name your files and layers."
            )
        )
        for label in (self.saved, why):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.details = QPlainTextEdit(fault.rstrip())
        self.details.setReadOnly(True)
        self.details.setTabChangesFocus(True)
        self.details.setAccessibleName(tr("Details"))
        self.details.setToolTip(tr("Where the fault happened, the last line says what it was"))
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSizeF(theme().font("small").pointSizeF())
        self.details.setFont(font)
        self.details.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.buttons = QDialogButtonBox()
        roles = QDialogButtonBox.ButtonRole
        self.copy = self._button("Copy details", roles.ActionRole, "Copy the fault with versions, system and devices")
        self.quit = self._button("Quit", roles.DestructiveRole, "End the program; what is saved stays saved")
        self.restart = self._button("Restart", roles.AcceptRole, "End the program and start it with the same work")
        self.restart.setProperty("role", "primary")
        self.restart.setDefault(True)
        self.go_on: QPushButton | None = None
        if not starting:
            self.go_on = self._button("Go on", roles.RejectRole, "Close this and use the window as it is (Esc)")
            self.go_on.clicked.connect(self.reject)
        self.copy.clicked.connect(self._on_copy)
        self.quit.clicked.connect(self._on_quit)
        self.restart.clicked.connect(self._on_restart)
        layout = QVBoxLayout(self)
        layout.setSpacing(theme().px(8))
        for widget in (head, self.saved, why):
            layout.addWidget(widget)
        layout.addWidget(self.details, 1)
        layout.addWidget(self.buttons)
        room = self.screen().availableGeometry()
        width = min(theme().px(640), room.width() - 40)
        height = min(layout.totalHeightForWidth(width) + theme().px(40), room.height() - 80)
        self.resize(width, max(height, min(theme().px(360), room.height() - 80)))
        self.restart.setFocus()

    def _button(self, text: str, role: QDialogButtonBox.ButtonRole, told: str) -> QPushButton:
        button = QPushButton(tr(text))
        button.setToolTip(tr(told))
        button.setAutoDefault(False)
        self.buttons.addButton(button, role)
        return button

    def add_fault(self, fault: str) -> None:
        """Add a fault that came while this was shown."""
        self.details.appendPlainText(fault.rstrip())

    def _on_copy(self) -> None:
        text = f"{details_text(self._devices)}\n\n{self.details.toPlainText()}\n"
        QGuiApplication.clipboard().setText(text)

    def _on_quit(self) -> None:
        self.quit_wanted.emit()
        self.reject()

    def _on_restart(self) -> None:
        self.restart_wanted.emit()
        self.accept()
