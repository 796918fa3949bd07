"""The log drawer: what the engine processes print."""

from __future__ import annotations

from PySide6.QtGui import QFontDatabase
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from qstudio.ui.bridge import SessionBridge
from qstudio.ui.text import tr

LINES_KEPT = 5000


class LogDrawer(QPlainTextEdit):
    """Lines in the order they came; old ones go."""

    def __init__(self, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setReadOnly(True)
        self.setMaximumBlockCount(LINES_KEPT)
        self.setAccessibleName(tr("Log"))
        self.setToolTip(tr("What the engine processes print, newest last"))
        self.setPlaceholderText(tr("Nothing has been logged yet"))
        self.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        bridge.log_added.connect(self.add)

    def add(self, line: str) -> None:
        """Append one line."""
        self.appendPlainText(line.rstrip("\n"))
