"""All layers as narrow bars of a sample's SQNR, with a mark where its class flips."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QBrush, QHelpEvent, QKeyEvent, QMouseEvent, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QToolTip, QWidget

from qstudio.ui.plots.painted import Painted
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import format_db, tr
from qstudio.ui.theme import Palette, theme

HEAD_PX = 18
LEFT_PX = 34
FLOOR_DB = 10.0
"""The scale ends here at the least, so that little noise looks little."""


@dataclass(frozen=True)
class StripLayer:
    """One layer."""

    name: str
    sqnr_db: float
    changed: bool = False
    """Whether the class is another one once everything up to this layer is quantized."""


class LayerStrip(Painted):
    """A bar for each layer: click or arrows select."""

    layer_selected = Signal(str)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, parent)
        self.layers: tuple[StripLayer, ...] = ()
        self.flips_at = ""
        self.current = ""
        self.faded = False

    def set_layers(self, layers: tuple[StripLayer, ...], flips_at: str, faded: bool = False) -> None:
        """Show these, in topological order.

        Args:
            layers: All of the network.
            flips_at: Name of the layer from which on the class stays the quantized one; empty for none.
            faded: Whether the figures are of something that has changed since.
        """
        self.layers, self.flips_at, self.faded = layers, flips_at, faded
        words = f"{tr('The class flips at')} {flips_at}" if flips_at else ""
        self.setAccessibleDescription(words)
        self.refresh()

    def set_current(self, name: str) -> None:
        """Mark the layer that is looked at."""
        if name != self.current:
            self.current = name
            self.viewport().update()

    def words(self, layer: StripLayer) -> str:
        """Return what there is to say of a layer, in one line."""
        text = f"{layer.name}: {format_db(layer.sqnr_db)}"
        if layer.name == self.flips_at:
            return f"{text}; {tr('from here on the class is the quantized one')}"
        return f"{text}; {tr('quantized up to here, the class is another one')}" if layer.changed else text

    @property
    def _top_db(self) -> float:
        finite = [layer.sqnr_db for layer in self.layers if math.isfinite(layer.sqnr_db)]
        return max([*finite, FLOOR_DB])

    def _plot(self, size: QSize) -> QRectF:
        head, left = theme().px(HEAD_PX), theme().px(LEFT_PX)
        return QRectF(left, head, max(size.width() - left - 4, 1), max(size.height() - head - 4, 1))

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint scale, bars and marks."""
        palette = theme().palette
        painter.setFont(theme().font("small"))
        plot, top = self._plot(size), self._top_db
        self._paint_scale(painter, plot, top, palette)
        if not self.layers:
            return
        painter.setOpacity(0.4 if self.faded else 1.0)
        step = plot.width() / len(self.layers)
        for number, layer in enumerate(self.layers):
            box = QRectF(plot.left() + number * step, plot.top(), step, plot.height())
            self._paint_bar(painter, box, layer, top, palette)
        painter.setOpacity(1.0)
        self._paint_title(painter, QRectF(0, 0, size.width(), plot.top()), palette)

    def _paint_bar(self, painter: QPainter, box: QRectF, layer: StripLayer, top: float, palette: Palette) -> None:
        inner = box.adjusted(0, 0, -1 if box.width() >= 3 else 0, 0)
        if layer.name == self.current:
            ground = palette.color("accent")
            ground.setAlpha(60)
            painter.fillRect(inner, ground)
        exact = math.isinf(layer.sqnr_db) and layer.sqnr_db > 0
        share = 1.0 if exact else min(max(layer.sqnr_db / top, 0.0), 1.0) if math.isfinite(layer.sqnr_db) else 0.0
        bar = QRectF(inner.left(), inner.bottom() - share * inner.height(), inner.width(), share * inner.height())
        if exact:  # nothing differs: no bar is long enough
            painter.setPen(QPen(palette.color("quantized"), 1, Qt.PenStyle.DotLine))
            painter.drawRect(bar.adjusted(0, 0, -1, -1))
        else:
            painter.fillRect(bar, palette.color("worse" if layer.changed else "quantized"))
            if layer.changed:  # never by colour alone
                painter.fillRect(bar, QBrush(palette.color("surface"), Qt.BrushStyle.BDiagPattern))
        if layer.changed:  # seen below the lowest bar too
            painter.fillRect(QRectF(inner.left(), box.bottom() + 1, inner.width(), 3), palette.color("worse"))
        if layer.name == self.flips_at:
            x, side = inner.left(), theme().px(5)
            painter.setPen(QPen(palette.color("worse"), 2))
            painter.drawLine(QPointF(x, box.top()), QPointF(x, box.bottom()))
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(palette.color("worse"))
            painter.drawPolygon(
                QPolygonF(
                    [
                        QPointF(x - side, box.top() - side),
                        QPointF(x + side, box.top() - side),
                        QPointF(x, box.top() + side),
                    ]
                )
            )
            painter.setBrush(Qt.BrushStyle.NoBrush)

    def _paint_scale(self, painter: QPainter, plot: QRectF, top: float, palette: Palette) -> None:
        painter.setPen(QPen(palette.color("line"), 1))
        painter.drawLine(plot.bottomLeft(), plot.bottomRight())
        painter.setPen(palette.color("muted"))
        height = painter.fontMetrics().height()
        for value, y in ((top, plot.top()), (0.0, plot.bottom() - height)):
            box = QRectF(0, y, plot.left() - 4, height)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{value:.0f}")

    def _paint_title(self, painter: QPainter, rect: QRectF, palette: Palette) -> None:
        painter.setPen(palette.color("muted"))
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(rect, middle, tr("SQNR of this sample, dB"))
        if self.flips_at:
            painter.setPen(palette.color("worse"))
            left = painter.fontMetrics().horizontalAdvance(tr("SQNR of this sample, dB")) + theme().px(16)
            words = f"▼ {tr('class flips at')} {self.flips_at}"
            room = rect.adjusted(left, 0, 0, 0)
            words = painter.fontMetrics().elidedText(words, Qt.TextElideMode.ElideMiddle, max(int(room.width()), 0))
            painter.drawText(room, middle | Qt.AlignmentFlag.AlignRight, words)

    # ---- the person

    def layer_at(self, position: QPoint) -> StripLayer | None:
        """Return the layer under a point of the viewport; None beside the bars."""
        plot = self._plot(self.viewport().size())
        if not self.layers or not plot.left() <= position.x() <= plot.right() or self.message:
            return None
        place = int((position.x() - plot.left()) / plot.width() * len(self.layers))
        return self.layers[min(place, len(self.layers) - 1)]

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select the layer under the mouse."""
        layer = self.layer_at(event.position().toPoint())
        if layer is not None and event.button() == Qt.MouseButton.LeftButton:
            self.layer_selected.emit(layer.name)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End what a press began; it is nobody else's."""
        event.accept()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Select the layer before or after with the arrows."""
        names = [layer.name for layer in self.layers]
        if names and event.key() in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            at = names.index(self.current) if self.current in names else -1
            step = 1 if event.key() == Qt.Key.Key_Right else -1
            self.layer_selected.emit(names[min(max(at + step, 0), len(names) - 1)])
        else:
            super().keyPressEvent(event)

    def viewportEvent(self, event: QEvent) -> bool:
        """Tell in a tooltip which layer is under the mouse, elsewhere what the figure is."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            layer = self.layer_at(event.pos())
            QToolTip.showText(event.globalPos(), self.words(layer) if layer is not None else self.toolTip(), self)
            return True
        return bool(super().viewportEvent(event))

    def columns(self) -> tuple[Column, ...]:
        """Return the layers with their figures."""
        return (
            (tr("layer"), [layer.name for layer in self.layers]),
            ("SQNR, dB", [layer.sqnr_db for layer in self.layers]),
            (tr("class changed"), [int(layer.changed) for layer in self.layers]),
        )
