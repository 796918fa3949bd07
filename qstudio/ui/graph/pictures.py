"""The whole graph as a picture, whatever part of it is seen."""

from __future__ import annotations

from PySide6.QtCore import QBuffer, QPoint, QPointF, QRect, QSize
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from qstudio.ui.graph.drawing import Drawing
from qstudio.ui.graph.painter import GraphPainter
from qstudio.ui.theme import theme

LARGEST = 8000
"""Pixels of the longer side; larger graphs are scaled down to it."""


def whole_picture(drawing: Drawing) -> QImage:
    """Return the graph twice as large as at zoom 1."""
    size, scale = _measures(drawing, 2.0)
    image = QImage(size, QImage.Format.Format_ARGB32_Premultiplied)
    painter = QPainter(image)
    _draw(painter, drawing, size, scale)
    painter.end()
    return image


def whole_svg(drawing: Drawing, title: str) -> bytes:
    """Return the graph at zoom 1 as an SVG document."""
    size, scale = _measures(drawing, 1.0)
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setTitle(title)
    generator.setSize(size)
    generator.setViewBox(QRect(QPoint(), size))
    painter = QPainter(generator)
    _draw(painter, drawing, size, scale)
    painter.end()
    return bytes(buffer.data().data())


def _measures(drawing: Drawing, wanted: float) -> tuple[QSize, float]:
    bounds = drawing.bounds()
    scale = min(wanted, LARGEST / max(bounds.width(), bounds.height()))
    return QSize(max(round(bounds.width() * scale), 1), max(round(bounds.height() * scale), 1)), scale


def _draw(painter: QPainter, drawing: Drawing, size: QSize, scale: float) -> None:
    bounds = drawing.bounds()
    painter.fillRect(QRect(QPoint(), size), QColor(theme().palette.surface))
    GraphPainter().paint(painter, drawing, bounds, scale, QPointF(-bounds.left() * scale, -bounds.top() * scale))
