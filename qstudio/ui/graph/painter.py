"""Painting a drawing: only what is seen, and only as much of it as can be read at the present zoom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPen, QStaticText, QTransform

from qstudio.session.graph_view import BLOCK
from qstudio.ui.graph.colors import PLAIN, STEPS, inks, viridis
from qstudio.ui.graph.drawing import FRAME_TOP, NODE_HEIGHT, NODE_WIDTH, Drawing
from qstudio.ui.theme import mix, theme

TEXT_ZOOM = 0.6
"""All text from this zoom on."""
VALUE_ZOOM = 0.3
"""Only the figure from this zoom on, larger; nothing but colour below it."""
EDGE_WIDTHS = (1.2, 2.0, 3.2, 4.8, 7.0)
"""Pixels at zoom 1 of each class of edges."""
TITLE_PX, SMALL_PX, VALUE_PX = 12.5, 11.5, 21.0
PADDING = 8.0
MOST_TEXTS = 6000
"""Laid-out texts that are kept."""


@dataclass(frozen=True)
class _Fonts:
    title: QFont
    small: QFont
    bold: QFont
    value: QFont


class GraphPainter:
    """Paints drawings; keeps laid-out texts, which cost more than painting them."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str, int], tuple[QStaticText, float, float]] = {}
        self._fonts: tuple[float, _Fonts] | None = None
        self.forget()

    def forget(self) -> None:
        """Take over the colours and fonts of the theme."""
        palette = theme().palette
        self._texts.clear()
        self._fonts = None
        self._surface = QColor(palette.surface)
        self._node = mix(palette.background, palette.surface, 0.3)
        self._frame = mix(palette.surface, palette.background, 0.85)
        self._frame_edge = QColor(palette.line)
        self._edge = mix(palette.muted, palette.surface, 0.35)
        self._outline = mix(palette.muted, palette.surface, 0.3)
        self._text = QColor(palette.text)
        self._muted = QColor(palette.muted)
        self._accent = QColor(palette.accent)

    # ---- everything

    def paint(self, painter: QPainter, drawing: Drawing, area: QRectF, scale: float, origin: QPointF) -> None:
        """Paint what of a drawing meets `area` (on its plane).

        Args:
            painter: On the device; its transform is the identity.
            drawing: What is shown.
            area: Seen part of the plane.
            scale: Device pixels for one unit of the plane.
            origin: Where the plane's origin lies on the device.
        """
        frame = area.adjusted(-8, -8, 8, 8)
        self._paint_frames(painter, drawing, frame, scale, origin)
        self._paint_edges(painter, drawing, frame, scale, origin)
        nodes = drawing.nodes_in(frame)
        if scale < VALUE_ZOOM:
            self._paint_far(painter, drawing, nodes, scale, origin)
        else:
            self._paint_near(painter, drawing, nodes, scale, origin)

    # ---- frames and edges

    def _paint_frames(self, painter: QPainter, drawing: Drawing, area: QRectF, scale: float, origin: QPointF) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, scale >= VALUE_ZOOM)
        for frame in drawing.frames:
            if not frame.rect.intersects(area):
                continue
            rect = _on_device(frame.rect, scale, origin)
            painter.setPen(QPen(self._frame_edge, 1))
            painter.setBrush(self._frame)
            painter.drawRoundedRect(rect, 6 * scale, 6 * scale)
            if scale >= TEXT_ZOOM:
                painter.setPen(self._muted)
                painter.setFont(self._fonts_at(scale).small)
                room = frame.rect.width() - 2 * PADDING
                text, _, height = self._text_of(f"▾ {frame.block.title}", "small", room, scale)
                y = rect.top() + (FRAME_TOP * scale - height) / 2
                painter.drawStaticText(QPointF(rect.left() + PADDING * scale, y), text)

    def _paint_edges(self, painter: QPainter, drawing: Drawing, area: QRectF, scale: float, origin: QPointF) -> None:
        edges = drawing.edges_in(area)
        near = scale >= VALUE_ZOOM
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, near)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setTransform(QTransform(scale, 0, 0, scale, origin.x(), origin.y()))
        for number, width in enumerate(EDGE_WIDTHS):
            chosen = edges[drawing.widths[edges] == number].tolist()
            if not chosen:
                continue
            pen = QPen(self._edge, max(width * scale, 1.0))
            pen.setCosmetic(True)
            pen.setCapStyle(Qt.PenCapStyle.FlatCap)
            painter.setPen(pen)
            if near:
                for edge in chosen:
                    painter.drawPath(drawing.path(edge))
            else:
                lines: list[QLineF] = []
                for edge in chosen:
                    lines += drawing.lines(edge)
                painter.drawLines(lines)
        painter.resetTransform()

    # ---- nodes

    def _paint_far(self, painter: QPainter, drawing: Drawing, nodes: np.ndarray, scale: float, origin: QPointF) -> None:
        """Paint plain rectangles, all of one colour at once."""
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.setTransform(QTransform(scale, 0, 0, scale, origin.x(), origin.y()))
        outline = QPen(self._outline, 1)
        outline.setCosmetic(True)
        colors = drawing.colors[nodes]
        for color in np.unique(colors).tolist():
            painter.setPen(outline if color == PLAIN else Qt.PenStyle.NoPen)
            painter.setBrush(self._node if color == PLAIN else viridis()[color])
            painter.drawRects([drawing.rect(node) for node in nodes[colors == color].tolist()])
        pen = QPen(self._accent, 2)
        pen.setCosmetic(True)
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        marked = nodes[drawing.selected[nodes] | drawing.touched[nodes]]
        painter.drawRects([drawing.rect(node) for node in marked.tolist()])
        painter.resetTransform()

    def _paint_near(
        self, painter: QPainter, drawing: Drawing, nodes: np.ndarray, scale: float, origin: QPointF
    ) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        plain_pen, ring = QPen(self._outline, 1), QPen(self._accent, max(3.0 * scale, 2.0))
        dashes = QPen(self._accent, max(2.0 * scale, 1.5), Qt.PenStyle.DashLine)
        fills = [*viridis(), self._node]
        ink = [*inks(), self._text]
        fonts = self._fonts_at(scale)
        radius = 5 * scale
        width, height = NODE_WIDTH * scale, NODE_HEIGHT * scale
        lefts = (drawing.left[nodes] * scale + origin.x()).tolist()
        tops = (drawing.top[nodes] * scale + origin.y()).tolist()
        colors = drawing.colors[nodes].tolist()
        for node, x, y, color in zip(nodes.tolist(), lefts, tops, colors, strict=True):
            rect = QRectF(x, y, width, height)
            item = drawing.view.items[node]
            color = STEPS if color == PLAIN else color
            painter.setPen(plain_pen)
            if item.type == BLOCK:
                painter.setBrush(self._node)
                painter.drawRoundedRect(rect.translated(4 * scale, 4 * scale), radius, radius)
            painter.setBrush(fills[color])
            painter.drawRoundedRect(rect, radius, radius)
            if drawing.selected[node] or drawing.touched[node]:
                painter.setPen(ring if drawing.selected[node] else dashes)
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRoundedRect(rect.adjusted(-2, -2, 2, 2), radius + 2, radius + 2)
            painter.setPen(ink[color])
            if scale >= TEXT_ZOOM:
                self._paint_words(painter, drawing, node, x, y, scale, fonts)
            else:
                self._paint_value(painter, drawing, node, x, y, scale, fonts)

    def _paint_words(
        self, painter: QPainter, drawing: Drawing, node: int, x: float, y: float, scale: float, fonts: _Fonts
    ) -> None:
        """Paint name above; type, bits and figure below."""
        item, look = drawing.view.items[node], drawing.looks[node]
        inner = NODE_WIDTH - 2 * PADDING
        left, right = x + PADDING * scale, x + (NODE_WIDTH - PADDING) * scale
        sign = "▸ " if item.type == BLOCK else ""
        painter.setFont(fonts.title)
        text, _, height = self._text_of(f"{sign}{item.title}", "title", inner, scale)
        painter.drawStaticText(QPointF(left, y + 4 * scale), text)
        base = y + (NODE_HEIGHT - 4) * scale
        room = inner
        painter.setFont(fonts.small)
        if look.value:
            text, width, height = self._text_of(look.value, "small", inner, scale)
            painter.drawStaticText(QPointF(right - width, base - height), text)
            room -= width / scale + 6
        for words, bold in ((look.activation, look.activation_set), (look.weight, look.weight_set)):
            if words:
                painter.setFont(fonts.bold if bold else fonts.small)
                text, width, height = self._text_of(words, "bold" if bold else "small", inner, scale)
                room -= width / scale + 4
                if room > 0:
                    painter.drawStaticText(QPointF(left + room * scale + 4 * scale, base - height), text)
        if room > 24:
            painter.setFont(fonts.small)
            kind = item.detail if item.type == BLOCK else item.type
            text, _, height = self._text_of(kind, "small", room - 4, scale)
            painter.drawStaticText(QPointF(left, base - height), text)

    def _paint_value(
        self, painter: QPainter, drawing: Drawing, node: int, x: float, y: float, scale: float, fonts: _Fonts
    ) -> None:
        """Paint the figure alone, or the bits where there is none."""
        look = drawing.looks[node]
        words = look.value or f"{look.weight} {look.activation}".strip() or drawing.view.items[node].type
        painter.setFont(fonts.value)
        text, width, height = self._text_of(words, "value", NODE_WIDTH - 8, scale)
        place = QPointF(x + (NODE_WIDTH * scale - width) / 2, y + (NODE_HEIGHT * scale - height) / 2)
        painter.drawStaticText(place, text)

    # ---- texts

    def _fonts_at(self, scale: float) -> _Fonts:
        if self._fonts is None or self._fonts[0] != scale:
            self._texts.clear()

            def font(pixels: float, bold: bool = False) -> QFont:
                made = theme().font("normal", bold)
                made.setPixelSize(max(round(pixels * scale), 1))
                made.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
                if bold:
                    made.setWeight(QFont.Weight.Bold)
                return made

            self._fonts = (
                scale,
                _Fonts(font(TITLE_PX), font(SMALL_PX), font(SMALL_PX, True), font(VALUE_PX)),
            )
        return self._fonts[1]

    def _text_of(self, words: str, kind: str, room: float, scale: float) -> tuple[QStaticText, float, float]:
        """Return text cut to its room (on the plane), and its width and height on the device."""
        fonts = self._fonts_at(scale)
        key = (words, kind, round(room))
        found = self._texts.get(key)
        if found is None:
            if len(self._texts) > MOST_TEXTS:
                self._texts.clear()
            font = getattr(fonts, kind)
            metrics = QFontMetricsF(font)
            # The end of a name tells layers of one block apart.
            side = Qt.TextElideMode.ElideLeft if kind == "title" else Qt.TextElideMode.ElideRight
            text = QStaticText(metrics.elidedText(words, side, room * scale))
            text.setTextFormat(Qt.TextFormat.PlainText)
            text.prepare(QTransform(), font)
            size = text.size()
            found = self._texts[key] = (text, size.width(), size.height())
        return found


def _on_device(rect: QRectF, scale: float, origin: QPointF) -> QRectF:
    return QRectF(
        rect.left() * scale + origin.x(), rect.top() * scale + origin.y(), rect.width() * scale, rect.height() * scale
    )
