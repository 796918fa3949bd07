"""The cheat sheet of keys and the page about the program; neither blocks the window."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QKeySequence
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from qstudio import __version__
from qstudio.core.results import Device
from qstudio.ui.actions import Actions
from qstudio.ui.environment import details_text, device_lines, int8_meaning, machine, versions
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

MORE_KEYS: tuple[tuple[str, str], ...] = (
    ("↑ ↓ PgUp PgDn", "Move through the layers"),
    ("Shift+↑ ↓, Ctrl+click", "Select several layers"),
    ("Return, F2, double-click", "Edit the cell"),
    ("Double-click on a run", "Restore its recipe"),
    ("Return, Delete on findings", "Apply what is selected, set it aside"),
)
"""Keys that belong to widgets and stand in no action."""


class Sheet(QDialog):
    """A page of text lines beside the window."""

    def __init__(self, title: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(title)
        self.setModal(False)
        self._page = QWidget()
        self._grid = QGridLayout(self._page)
        self._grid.setHorizontalSpacing(24)
        self._grid.setVerticalSpacing(6)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(self._page)
        self._buttons = QDialogButtonBox()
        # Not the standard button: its icon comes from the style and is black on the dark theme too.
        close = QPushButton(tr("Close"))
        close.setToolTip(tr("Close this page (Esc)"))
        self._buttons.addButton(close, QDialogButtonBox.ButtonRole.RejectRole)
        self._buttons.rejected.connect(self.close)
        layout = QVBoxLayout(self)
        layout.addWidget(area)
        layout.addWidget(self._buttons)
        self.resize(theme().px(560), min(theme().px(640), parent.height() - 60))

    def add_heading(self, text: str) -> None:
        """Add a heading."""
        label = QLabel(text)
        label.setFont(theme().font("normal", bold=True))
        self._grid.addWidget(label, self._grid.rowCount(), 0, 1, 2)

    def add_line(self, left: str, right: str) -> None:
        """Add a line of two columns."""
        row = self._grid.rowCount()
        first, second = QLabel(left), QLabel(right)
        first.setProperty("role", "muted")
        second.setWordWrap(True)
        second.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._grid.addWidget(first, row, 0)
        self._grid.addWidget(second, row, 1)

    def add_wide(self, text: str) -> None:
        """Add a text over both columns."""
        label = QLabel(text)
        label.setWordWrap(True)
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._grid.addWidget(label, self._grid.rowCount(), 0, 1, 2)

    def add_copy(self, told: str, text: str) -> None:
        """Add a button that copies a text."""
        self.copy_button = QPushButton(tr("Copy"))
        self.copy_button.setToolTip(told)
        self.copy_button.setAccessibleName(told)
        self._buttons.addButton(self.copy_button, QDialogButtonBox.ButtonRole.ActionRole)

        def copy() -> None:
            QGuiApplication.clipboard().setText(text)

        self.copy_button.clicked.connect(copy)

    def finish(self) -> None:
        """Push the lines to the top and show the sheet."""
        self._grid.setColumnStretch(1, 1)
        self._grid.setRowStretch(self._grid.rowCount(), 1)
        self.show()


def show_cheat_sheet(actions: Actions, parent: QWidget) -> Sheet:
    """Show every key of the window, made from the actions."""
    sheet = Sheet(tr("Keys"), parent)
    heading = ""
    for action in actions.all():
        if not action.shortcuts():
            continue
        if action.spec.menu != heading:
            heading = action.spec.menu
            sheet.add_heading(" ".join(tr(part) for part in heading.split("/")))
        keys = "   ".join(key.toString(QKeySequence.SequenceFormat.NativeText) for key in action.shortcuts())
        sheet.add_line(keys, tr(action.spec.text).rstrip("…"))
    sheet.add_heading(tr("Tables and charts"))
    for keys, text in MORE_KEYS:
        sheet.add_line(tr(keys), tr(text))
    sheet.finish()
    return sheet


def show_about(parent: QWidget, devices: tuple[Device, ...] = ()) -> Sheet:
    """Show what the program is, its licence, and everything it runs on.

    Args:
        parent: The window.
        devices: What the engine has found; empty while it has not said.
    """
    sheet = Sheet(tr("About QStudio"), parent)
    sheet.add_heading(f"QStudio {__version__}")
    sheet.add_wide(tr("Open a trained network, choose how each layer is quantized, and read what it costs."))
    sheet.add_wide(tr("No network access, no telemetry."))
    sheet.add_heading(tr("Licence"))
    sheet.add_wide(
        tr(
            "Apache License 2.0: use, change and pass on, also in products; keep the notice and the licence; no "
            "warranty. The text is in the file LICENSE and at apache.org/licenses/LICENSE-2.0."
        )
    )
    sheet.add_heading(tr("Versions"))
    for what, value in versions():
        sheet.add_line(what, value)
    sheet.add_heading(tr("Machine"))
    for what, value in machine():
        sheet.add_line(tr(what), value)
    sheet.add_heading(tr("Speed of int8 here"))
    for what, value in int8_meaning() or (("", tr("No instruction set that speeds up int8 was found.")),):
        sheet.add_line(what, value)
    if devices:
        sheet.add_heading(tr("Devices"))
        for what, value in device_lines(devices):
            sheet.add_line(what, value)
    sheet.add_copy(tr("Copy versions, system and devices as text"), details_text(devices))
    sheet.finish()
    return sheet
