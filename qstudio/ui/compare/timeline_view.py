"""The timeline: runs as dots, branches as lanes, newest on top."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QSize, Qt, Signal
from PySide6.QtGui import QHelpEvent, QKeyEvent, QMouseEvent, QPainter, QPainterPath, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from qstudio.ui.compare.timeline_rows import TimelineRow
from qstudio.ui.plots.painted import Painted
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, mix, theme

ROW_PX = 26
LANE_PX = 16
MOST_LANES = 12
"""Lanes beyond it share the last one."""


@dataclass(frozen=True)
class RunWords:
    """What the timeline says about a run."""

    title: str
    method: str
    accuracy: str
    detail: str
    trained: bool
    finished: bool


class TimelineView(Painted):
    """Click selects run A, Ctrl+click run B, double-click or Enter restores the recipe; arrows go up and down."""

    run_selected = Signal(object)
    """Number of run A."""
    reference_selected = Signal(object)
    """Number of run B."""
    restored = Signal(object)
    """The TimelineRow whose recipe is wanted."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Timeline"), parent)
        self.rows: tuple[TimelineRow, ...] = ()
        self._words: dict[int, RunWords] = {}
        self.first: int | None = None
        self.second: int | None = None
        self.at = -1
        """Row that the arrow keys move from."""
        self.setToolTip(
            tr(
                "Runs from newest to oldest; where an older recipe was restored and edited, a branch leads on. Click: "
                "run A, Ctrl+click: run B, double-click: restore the recipe."
            )
        )

    def set_rows(self, rows: tuple[TimelineRow, ...], words: dict[int, RunWords], message: str = "") -> None:
        """Show these rows; `message` stands instead where there are none."""
        self.rows, self._words = rows, words
        self.at = min(self.at, len(rows) - 1)
        self.set_message("" if rows else message)

    def set_selected(self, first: int | None, second: int | None) -> None:
        """Mark runs A and B; A is scrolled into view where it is another one than before."""
        if first != self.first:
            place = next((n for n, row in enumerate(self.rows) if row.run is not None and row.run == first), None)
            if place is not None:
                self.at = place
                self._reveal(place)
        self.first, self.second = first, second
        self.viewport().update()

    def _reveal(self, place: int) -> None:
        row, bar, room = theme().px(ROW_PX), self.verticalScrollBar(), self.viewport().height()
        bar.setValue(min(max(bar.value(), (place + 1) * row - room), place * row))

    # ---- geometry

    def whole_size(self) -> QSize:
        """Return the size of all rows at the viewport's width."""
        return QSize(self.viewport().width(), theme().px(ROW_PX) * len(self.rows) + theme().px(4))

    def _lanes(self) -> int:
        return min(max((row.lane for row in self.rows), default=0), MOST_LANES - 1) + 1

    def _dot(self, number: int) -> QPointF:
        lane = min(self.rows[number].lane, MOST_LANES - 1)
        return QPointF(theme().px(14) + lane * theme().px(LANE_PX), (number + 0.5) * theme().px(ROW_PX))

    def _row_at(self, position: QPoint) -> int:
        number = (position.y() + self.offset_y) // theme().px(ROW_PX)
        return number if 0 <= number < len(self.rows) and not self.message else -1

    # ---- painting

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint lines between rows, then dots and words of the rows that are seen."""
        palette, row = theme().palette, theme().px(ROW_PX)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        first, last = max(seen.top() // row, 0), min(seen.bottom() // row + 1, len(self.rows))
        for number, item in enumerate(self.rows):
            if item.parent is not None and number < last and item.parent >= first:
                self._paint_line(painter, number, item, palette)
        start = theme().px(22) + self._lanes() * theme().px(LANE_PX)
        for number in range(first, last):
            self._paint_row(painter, number, QRect(0, number * row, size.width(), row), start, palette)

    def _paint_line(self, painter: QPainter, number: int, item: TimelineRow, palette: Palette) -> None:
        assert item.parent is not None, "only rows with a parent have a line"
        top, bottom = self._dot(number), self._dot(item.parent)
        style = Qt.PenStyle.DotLine if item.skipped else Qt.PenStyle.SolidLine
        painter.setPen(QPen(mix(palette.line, palette.muted, 0.5), 1.6, style))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        path = QPainterPath(top)
        turn = bottom.y() - theme().px(ROW_PX)
        path.lineTo(QPointF(top.x(), max(turn, top.y())))
        path.cubicTo(QPointF(top.x(), bottom.y() - 4), QPointF(bottom.x(), max(turn, top.y()) + 4), bottom)
        painter.drawPath(path)

    def _paint_row(self, painter: QPainter, number: int, rect: QRect, start: int, palette: Palette) -> None:
        item = self.rows[number]
        words = self._words.get(item.run) if item.run is not None else None
        is_first, is_second = (item.run is not None and item.run == run for run in (self.first, self.second))
        if is_first or (number == self.at and self.hasFocus()):
            painter.fillRect(rect, mix(palette.surface, palette.accent, 0.16 if is_first else 0.07))
        self._paint_dot(painter, self._dot(number), item, words, palette)
        middle = Qt.AlignmentFlag.AlignVCenter
        right = rect.right() - theme().px(8)
        painter.setFont(theme().font("normal", bold=is_first))
        painter.setPen(palette.color("text"))
        if words is None:
            painter.setFont(theme().font("small"))
            painter.setPen(palette.color("muted"))
            text = item.label or tr("beginning")
            if item.is_current:
                text = f"{text} ({tr('current recipe')})"
        else:
            marks = "".join(f"{letter} " for letter, on in (("A", is_first), ("B", is_second)) if on)
            text = f"{marks}{words.title}, {words.method}"
            painter.drawText(
                QRect(start, rect.top(), right - start, rect.height()),
                middle | Qt.AlignmentFlag.AlignRight,
                words.accuracy,
            )
            right -= painter.fontMetrics().horizontalAdvance(words.accuracy) + theme().px(10)
        text = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, right - start)
        painter.drawText(QRect(start, rect.top(), right - start, rect.height()), middle, text)

    @staticmethod
    def _paint_dot(painter: QPainter, at: QPointF, item: TimelineRow, words: RunWords | None, palette: Palette) -> None:
        radius = theme().px(5 if words is not None else 3)
        color = palette.color("quantized" if words is not None else "muted")
        if item.is_current:
            painter.setPen(QPen(palette.color("accent"), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(at, radius + 3, radius + 3)
        painter.setPen(QPen(color, 1.6))
        painter.setBrush(color if words is None or words.finished else palette.color("surface"))
        if words is not None and words.trained:
            corners = ((0, -1), (1, 0), (0, 1), (-1, 0))
            painter.drawPolygon([QPointF(at.x() + x * 1.3 * radius, at.y() + y * 1.3 * radius) for x, y in corners])
        else:
            painter.drawEllipse(at, radius, radius)

    # ---- the person

    def _choose(self, number: int, as_second: bool) -> None:
        self.at = number
        run = self.rows[number].run
        if run is not None:
            (self.reference_selected if as_second else self.run_selected).emit(run)
        self.viewport().update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select the run under the mouse as A, with Ctrl as B."""
        number = self._row_at(event.position().toPoint())
        if number >= 0 and event.button() == Qt.MouseButton.LeftButton:
            self._choose(number, bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Restore the recipe under the mouse."""
        number = self._row_at(event.position().toPoint())
        if number >= 0 and event.button() == Qt.MouseButton.LeftButton:
            self.restored.emit(self.rows[number])

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move with the arrows (with Ctrl: B), restore with Enter."""
        key, as_second = event.key(), bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        if self.rows and key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            number = min(max(self.at + (1 if key == Qt.Key.Key_Down else -1), 0), len(self.rows) - 1)
            self._reveal(number)
            self._choose(number, as_second)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and 0 <= self.at < len(self.rows):
            self.restored.emit(self.rows[self.at])
        else:
            super().keyPressEvent(event)

    def viewportEvent(self, event: QEvent) -> bool:
        """Tell in a tooltip what is under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            number = self._row_at(event.pos())
            QToolTip.showText(event.globalPos(), self.told(number) if number >= 0 else self.toolTip(), self)
            return True
        return bool(super().viewportEvent(event))

    def told(self, number: int) -> str:
        """Return what a row is, in words."""
        item = self.rows[number]
        words = self._words.get(item.run) if item.run is not None else None
        edit = f"{tr('recipe')}: {item.label}" if item.label else ""
        skipped = tr("{n} edits in between were not run").format(n=item.skipped) if item.skipped else ""
        return "\n".join(part for part in (words.detail if words else "", edit, skipped) if part) or self.toolTip()

    def columns(self) -> tuple[Column, ...]:
        """Return the rows: run, method, accuracy, edit, lane."""
        words = [self._words.get(row.run) if row.run is not None else None for row in self.rows]
        return (
            (tr("run"), ["" if row.run is None else row.run for row in self.rows]),
            (tr("method"), [w.method if w else "" for w in words]),
            (tr("accuracy"), [w.accuracy if w else "" for w in words]),
            (tr("edit"), [row.label for row in self.rows]),
            (tr("lane"), [row.lane for row in self.rows]),
        )
