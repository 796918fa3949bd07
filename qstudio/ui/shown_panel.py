"""A panel that works only while it can be seen."""

from __future__ import annotations

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QWidget


class ShownPanel(QWidget):
    """Notes that it is stale while it is hidden, and catches up when it is shown; subclasses say how in `refresh`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_stale = True

    def refresh(self) -> None:
        """Show what is now; called while the panel can be seen."""

    def mark_stale(self, _value: object = None) -> None:
        """Catch up now, or when the panel is shown."""
        self._is_stale = True
        if self.isVisible():
            self._catch_up()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what has changed meanwhile."""
        super().showEvent(event)
        if self._is_stale:
            self._catch_up()

    def _catch_up(self) -> None:
        self._is_stale = False
        self.refresh()
