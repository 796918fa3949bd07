"""Latencies as bars with their spread: float, exported, and the simulation, which is not to be deployed."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPoint, QRect, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QFontMetrics, QHelpEvent, QPainter, QPen, QPolygon
from PySide6.QtWidgets import QToolTip, QWidget

from qstudio.ui.plots.painted import Painted
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import format_ms, tr
from qstudio.ui.theme import theme

ROW_PX = 34
NAME_SHARE = 0.34
"""Largest share of the width that names take."""


@dataclass(frozen=True)
class LatencyBar:
    """One bar; milliseconds of one inference."""

    name: str
    median: float
    p10: float | None
    """None where only the median is known."""
    p90: float | None
    color: str
    """Colour of the palette."""
    deployable: bool = True
    """Whether the network could be used so; others are hatched, and cut where they leave the scale."""
    help: str = ""


class LatencyBars(Painted):
    """Horizontal bars to one scale, whiskers from p10 to p90, the median in words."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Latency"), parent)
        self.bars: tuple[LatencyBar, ...] = ()
        self.setToolTip(
            tr(
                "Time of one inference, measured here, in milliseconds; shorter is better. Whiskers: nine tenths of "
                "the inferences took longer than p10, one tenth longer than p90."
            )
        )

    def set_bars(self, bars: tuple[LatencyBar, ...], message: str = "") -> None:
        """Show these bars from top to bottom; `message` stands instead where there are none."""
        self.bars = bars
        self.set_message("" if bars else message or tr("Latency was not measured."))

    @property
    def end_ms(self) -> float:
        """Where the scale ends: past the longest bar of what can be deployed."""
        kept = [bar for bar in self.bars if bar.deployable] or list(self.bars)
        return 1.08 * max((max(bar.median, bar.p90 or 0.0) for bar in kept), default=1.0) or 1.0

    def whole_size(self) -> QSize:
        """Return the size of all bars at the viewport's width."""
        return QSize(self.viewport().width(), theme().px(ROW_PX) * len(self.bars) + theme().px(8))

    def sizeHint(self) -> QSize:
        """Return room for all bars."""
        return QSize(theme().px(400), theme().px(ROW_PX) * max(len(self.bars), 3) + theme().px(12))

    def minimumSizeHint(self) -> QSize:
        """Return room for all bars: they are few."""
        return QSize(theme().px(200), theme().px(ROW_PX) * max(len(self.bars), 2) + theme().px(12))

    def _start(self, width: int) -> int:
        metrics = QFontMetrics(theme().font("normal"))
        longest = max((metrics.horizontalAdvance(bar.name) for bar in self.bars), default=0)
        return min(longest + theme().px(20), round(NAME_SHARE * width))

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint every bar with its name, whiskers and figure."""
        palette = theme().palette
        painter.setFont(theme().font("normal"))
        metrics = painter.fontMetrics()
        start, row = self._start(size.width()), theme().px(ROW_PX)
        texts = [self._text(bar) for bar in self.bars]
        words = max((metrics.horizontalAdvance(text) for text in texts), default=0) + theme().px(16)
        room, end = max(size.width() - start - words, theme().px(40)), self.end_ms
        middle = Qt.AlignmentFlag.AlignVCenter
        for number, (bar, text) in enumerate(zip(self.bars, texts, strict=True)):
            rect = QRect(0, theme().px(4) + number * row, size.width(), row)
            if not rect.intersects(seen):
                continue
            painter.setPen(palette.color("text" if bar.deployable else "muted"))
            name = metrics.elidedText(bar.name, Qt.TextElideMode.ElideRight, start - theme().px(16))
            painter.drawText(rect.adjusted(theme().px(8), 0, 0, 0), middle, name)
            length = max(round(room * min(bar.median / end, 1.0)), 1)
            box = QRect(start, rect.top() + row // 4, length, row // 2)
            color = palette.color(bar.color)
            style = Qt.BrushStyle.SolidPattern if bar.deployable else Qt.BrushStyle.BDiagPattern
            painter.fillRect(box, QBrush(color, style))
            painter.setPen(QPen(color))
            painter.drawRect(box.adjusted(0, 0, -1, -1))
            if bar.median > end:
                self._paint_cut(painter, box)
            edge = length
            if bar.p10 is not None and bar.p90 is not None and bar.median <= end:
                low, high = (start + round(room * min(v / end, 1.0)) for v in (bar.p10, bar.p90))
                self._paint_whiskers(painter, low, high, box)
                edge = max(edge, high - start)
            painter.setPen(palette.color("text" if bar.deployable else "muted"))
            painter.drawText(rect.adjusted(start + edge + theme().px(8), 0, 0, 0), middle, text)

    @staticmethod
    def _text(bar: LatencyBar) -> str:
        return format_ms(bar.median) if bar.deployable else f"{format_ms(bar.median)}, {tr('not deployable')}"

    @staticmethod
    def _paint_cut(painter: QPainter, box: QRect) -> None:
        """Paint a gap through a bar that is longer than the scale."""
        x, step = box.right() - theme().px(24), theme().px(6)
        gap = QPolygon(
            [
                QPoint(x, box.bottom() + 2),
                QPoint(x + step, box.top() - 2),
                QPoint(x + 2 * step, box.top() - 2),
                QPoint(x + step, box.bottom() + 2),
            ]
        )
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme().palette.surface))
        painter.drawPolygon(gap)
        painter.setBrush(Qt.BrushStyle.NoBrush)

    @staticmethod
    def _paint_whiskers(painter: QPainter, low: int, high: int, box: QRect) -> None:
        painter.setPen(QPen(theme().palette.color("text"), 1))
        y, half = box.center().y(), box.height() // 4
        painter.drawLine(low, y, high, y)
        for x in (low, high):
            painter.drawLine(x, y - half, x, y + half)

    def viewportEvent(self, event: QEvent) -> bool:
        """Tell in a tooltip what a bar is."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            number = (event.pos().y() + self.offset_y - theme().px(4)) // theme().px(ROW_PX)
            words = self.toolTip()
            if 0 <= number < len(self.bars) and not self.message:
                bar = self.bars[number]
                spread = "" if bar.p10 is None else f", p10..p90 {format_ms(bar.p10, False)}..{format_ms(bar.p90)}"
                words = "\n".join(p for p in (f"{bar.name}: {format_ms(bar.median)}{spread}", bar.help, words) if p)
            QToolTip.showText(event.globalPos(), words, self)
            return True
        return bool(super().viewportEvent(event))

    def columns(self) -> tuple[Column, ...]:
        """Return names and figures."""
        return (
            (tr("model"), [bar.name for bar in self.bars]),
            (tr("median, ms"), [bar.median for bar in self.bars]),
            (tr("p10, ms"), ["" if bar.p10 is None else bar.p10 for bar in self.bars]),
            (tr("p90, ms"), ["" if bar.p90 is None else bar.p90 for bar in self.bars]),
        )
