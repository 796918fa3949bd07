"""The whole graph as a picture, whatever part of it is seen."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QBuffer, QPoint, QPointF, QRect, QRectF, QSize
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from qstudio.ui.graph.drawing import Drawing
from qstudio.ui.graph.painter import GraphPainter
from qstudio.ui.theme import theme

KEY_WIDTH, KEY_HEIGHT = 420.0, 64.0
"""Room for the key of the colours, at zoom 1."""
LARGEST = 8000
"""Pixels of the longer side; larger graphs are scaled down to it."""


Key = Callable[[QPainter, QRectF, float], None]
"""Draws the key of the colours into an area; the last number is the zoom."""


def whole_picture(drawing: Drawing, key: Key) -> QImage:
    """Return the graph and the key of its colours, twice as large as at zoom 1."""
    size, scale = _measures(drawing, 2.0)
    image = QImage(size, QImage.Format.Format_ARGB32_Premultiplied)
    painter = QPainter(image)
    _draw(painter, drawing, key, size, scale)
    painter.end()
    return image


def whole_svg(drawing: Drawing, key: Key, title: str) -> bytes:
    """Return the graph and the key of its colours at zoom 1 as an SVG document."""
    size, scale = _measures(drawing, 1.0)
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setTitle(title)
    generator.setSize(size)
    generator.setViewBox(QRect(QPoint(), size))
    painter = QPainter(generator)
    _draw(painter, drawing, key, size, scale)
    painter.end()
    return bytes(buffer.data().data())


def _whole(drawing: Drawing) -> QRectF:
    """Return what is drawn: the graph, and above it the key, which needs some width."""
    bounds = drawing.bounds()
    side = max(KEY_WIDTH - bounds.width(), 0.0) / 2
    return bounds.adjusted(-side, -KEY_HEIGHT, side, 0)


def _measures(drawing: Drawing, wanted: float) -> tuple[QSize, float]:
    whole = _whole(drawing)
    scale = min(wanted, LARGEST / max(whole.width(), whole.height()))
    return QSize(max(round(whole.width() * scale), 1), max(round(whole.height() * scale), 1)), scale


def _draw(painter: QPainter, drawing: Drawing, key: Key, size: QSize, scale: float) -> None:
    whole = _whole(drawing)
    painter.fillRect(QRect(QPoint(), size), QColor(theme().palette.surface))
    GraphPainter().paint(painter, drawing, whole, scale, QPointF(-whole.left() * scale, -whole.top() * scale))
    left = (size.width() - KEY_WIDTH * scale) / 2
    key(painter, QRectF(left, 0, KEY_WIDTH * scale, KEY_HEIGHT * scale).adjusted(16, 4, -16, -4), scale)
