"""The whole graph in a corner, with the part that is seen; dragging moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from PySide6.QtWidgets import QWidget

from qstudio.ui.graph.colors import PLAIN, viridis
from qstudio.ui.graph.drawing import NODE_HEIGHT, NODE_WIDTH, Drawing
from qstudio.ui.text import tr
from qstudio.ui.theme import mix, theme

if TYPE_CHECKING:
    from qstudio.ui.graph.canvas import GraphCanvas

WIDTH, HEIGHT = 84, 168


class Minimap(QWidget):
    """A map of the drawing; long networks are squeezed so that their whole depth is seen."""

    centred = Signal(QPointF)
    """Point of the drawing that is wanted in the middle."""

    def __init__(self, canvas: GraphCanvas) -> None:
        super().__init__(canvas)
        self._canvas = canvas
        self._drawing: Drawing | None = None
        self._picture: QPixmap | None = None
        self.setAccessibleName(tr("Map of the graph"))
        self.setToolTip(tr("The whole graph; the frame is what you see. Drag it to move."))
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.hide()

    def sizeHint(self) -> QSize:
        """Return a narrow upright size: networks are deep."""
        return QSize(theme().px(WIDTH), theme().px(HEIGHT))

    def show_drawing(self, drawing: Drawing | None) -> None:
        """Map another drawing."""
        self._drawing = drawing
        self.refresh()

    def refresh(self) -> None:
        """Paint the nodes anew; their colours have changed."""
        self._picture = None
        self.update()

    def _factors(self) -> tuple[float, float, float, float]:
        """Return pixels for one unit across and down, and where the drawing's origin lies."""
        assert self._drawing is not None
        bounds = self._drawing.bounds()
        across, down = (self.width() - 6) / bounds.width(), (self.height() - 6) / bounds.height()
        # Nothing is stretched beyond its own shape: a graph narrower than the map stands in its middle.
        across, down = min(across, 3 * down * max(1.0, bounds.height() / 4000)), min(down, 3 * across)
        left = (self.width() - bounds.width() * across) / 2 - bounds.left() * across
        top = (self.height() - bounds.height() * down) / 2 - bounds.top() * down
        return across, down, left, top

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the map from its picture, and the frame."""
        painter = QPainter(self)
        if self._drawing is None:
            return
        if self._picture is None:
            self._picture = self._draw()
        painter.drawPixmap(0, 0, self._picture)
        across, down, left, top = self._factors()
        seen = self._canvas.seen()
        frame = QRectF(
            seen.left() * across + left, seen.top() * down + top, seen.width() * across, seen.height() * down
        )
        frame = frame.intersected(QRectF(self.rect()).adjusted(1, 1, -2, -2))
        if frame.height() < 4:
            frame.adjust(0, frame.height() / 2 - 2, 0, 2 - frame.height() / 2)
        accent = QColor(theme().palette.accent)
        painter.setPen(QPen(accent, 1.5))
        accent.setAlpha(40)
        painter.setBrush(accent)
        painter.drawRect(frame)
        painter.end()

    def _draw(self) -> QPixmap:
        assert self._drawing is not None
        ratio, palette = self.devicePixelRatioF(), theme().palette
        picture = QPixmap(self.size() * ratio)
        picture.setDevicePixelRatio(ratio)
        picture.fill(QColor(palette.background))
        painter = QPainter(picture)
        across, down, left, top = self._factors()
        drawing = self._drawing
        width, height = max(NODE_WIDTH * across, 1.0), max(NODE_HEIGHT * down, 1.0)
        painter.setPen(Qt.PenStyle.NoPen)
        xs, ys = drawing.left * across + left, drawing.top * down + top
        plain = mix(palette.muted, palette.background, 0.45)
        for color in np.unique(drawing.colors).tolist():
            painter.setBrush(plain if color == PLAIN else viridis()[color])
            chosen = np.flatnonzero(drawing.colors == color)
            places = zip(xs[chosen].tolist(), ys[chosen].tolist(), strict=True)
            painter.drawRects([QRectF(x, y, width, height) for x, y in places])
        painter.setBrush(QColor(palette.accent))
        for node in np.flatnonzero(drawing.selected | drawing.touched).tolist():
            painter.drawRect(QRectF(1, float(ys[node]) - 1, 4, max(height, 2) + 2))
        painter.setPen(QPen(QColor(palette.line), 1))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()
        return picture

    # ---- the mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Move what is seen to the pointer."""
        self._center(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Move what is seen with the pointer."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._center(event)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Treat a second press as a press."""
        self._center(event)

    def _center(self, event: QMouseEvent) -> None:
        if self._drawing is not None and event.buttons() & Qt.MouseButton.LeftButton:
            across, down, left, top = self._factors()
            point = event.position()
            self.centred.emit(QPointF((point.x() - left) / across, (point.y() - top) / down))
        event.accept()
