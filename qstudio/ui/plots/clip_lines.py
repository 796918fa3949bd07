"""Lines of the histogram that can be dragged or taken: clip edges, and the ranges of the calibrators."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal

from qstudio.ui.theme import Palette, theme

GRIP_PX = 7
"""Pixels to each side at which a line can be taken."""


class _GrippedLine(pg.InfiniteLine):  # type: ignore[misc]
    """A vertical line with a hit area wider than its pen."""

    def widen(self) -> None:
        """Make room for the mouse; markers are the only thing that widens pyqtgraph's lines."""
        self._maxMarkerSize: float = max([GRIP_PX, *(size / 2 for _, _, size in self.markers)])
        self.viewTransformChanged()


class ClipLine(_GrippedLine):
    """One edge of the clip range."""

    def __init__(self) -> None:
        super().__init__(angle=90, movable=True)
        self.setZValue(30)
        self.setCursor(Qt.CursorShape.SizeHorCursor)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        self.setPen(pg.mkPen(palette.text, width=1.6))
        self.setHoverPen(pg.mkPen(palette.accent, width=2.6))
        self.clearMarkers()
        self.addMarker("<|>", position=0.5, size=theme().px(9))
        self.widen()


class GhostLine(_GrippedLine):
    """Where a calibrator would put an edge: hover tells, double-click takes it."""

    taken = Signal(object)
    """Id of the calibration that was double-clicked."""

    def __init__(self) -> None:
        super().__init__(angle=90, movable=False)
        self.calibration = ""
        self.setZValue(20)
        self.setVisible(False)
        self.widen()

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        color = palette.color("muted")
        color.setAlpha(150)
        self.setPen(pg.mkPen(color, width=1, style=Qt.PenStyle.DashLine))
        self.setHoverPen(pg.mkPen(palette.accent, width=2, style=Qt.PenStyle.DashLine))

    def hoverEvent(self, ev: Any) -> None:
        """Light up under the mouse; the tooltip tells the rest."""
        self.setMouseHover(not ev.isExit())

    def mouseClickEvent(self, ev: Any) -> None:
        """Take the calibrator on a double-click."""
        if ev.button() == Qt.MouseButton.LeftButton and ev.double():
            ev.accept()
            self.taken.emit(self.calibration)
