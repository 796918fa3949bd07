"""A heat map of rows and columns with a scale, and bars of one column beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPoint, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QHelpEvent,
    QKeyEvent,
    QLinearGradient,
    QMouseEvent,
    QPainter,
    QPen,
)
from PySide6.QtWidgets import QToolTip, QWidget

from qstudio.ui.plots.painted import Painted, ink_on, viridis
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme

ROW_PX = 22
NAME_SHARE = 0.3
"""Largest share of the width that names take."""
CELL_PX = (30, 84)
"""Narrowest and widest cell."""
BAR_PX = 80
"""Least room for the bars."""


@dataclass(frozen=True)
class HeatRow:
    """One row."""

    name: str
    values: tuple[float | None, ...]
    """For each column; None where there is no such cell or it is not known yet."""
    texts: tuple[str, ...]
    """Shown in the cells where they fit."""
    bar: float | None = None
    """Of the chosen column, 0 and more; bars are as long as they are large."""
    extra: str = ""
    """Of the column of words before the bars."""
    mark: int | None = None
    """The column that holds now; its cell is underlined."""


@dataclass(frozen=True)
class HeatScale:
    """How values become colours: bright is what matters."""

    low: float = 0.0
    high: float = 1.0
    """The ends of the values."""
    log: bool = False
    """Whether colours are spaced by the logarithm."""
    falls: bool = False
    """Whether the lowest value is bright."""
    title: str = ""
    """What the colours mean, with the unit."""
    text: Callable[[float], str] = str
    """The words for a value."""

    def share(self, value: float) -> float:
        """Return where a value stands, 0 (dark) to 1 (bright)."""
        if self.log:
            floor = max(self.low, 1e-300)
            low, high, at = math.log(floor), math.log(max(self.high, floor)), math.log(max(value, floor))
        else:
            low, high, at = self.low, self.high, value
        share = (at - low) / (high - low) if high > low else 0.0
        share = min(max(share, 0.0), 1.0)
        return 1.0 - share if self.falls else share


class HeatMap(Painted):
    """Rows of cells: click selects, double-click takes, arrows move, Enter takes."""

    cell_selected = Signal(str, int)
    """Row's name and column; the column is -1 where the name or the bar was clicked."""
    cell_taken = Signal(str, int)
    """Row's name and column of the cell that was double-clicked."""
    column_selected = Signal(int)
    """The column whose heading was clicked."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, parent)
        self.rows: tuple[HeatRow, ...] = ()
        self.columns_shown: tuple[str, ...] = ()
        self.scale = HeatScale()
        self.extra_title = ""
        self.bar_title = ""
        self.faded = False
        """Whether the figures no longer hold: the rows are painted pale."""
        self.column = 0
        """The column that bars are of."""
        self.selected: frozenset[str] = frozenset()
        self.current = ""
        """The row that keys move from."""
        self.column_help: tuple[str, ...] = ()
        self._name_px: int | None = None
        """Width of the longest name; None until it is measured anew."""
        self._longest_bar = 0.0
        self.cell_help: Callable[[str, int], str] = lambda _name, _column: ""

    # ---- content

    def set_rows(
        self,
        rows: tuple[HeatRow, ...],
        columns: tuple[str, ...],
        scale: HeatScale,
        *,
        column: int = 0,
        extra_title: str = "",
        bar_title: str = "",
    ) -> None:
        """Show these rows.

        Args:
            rows: In the order in which they stand.
            columns: Headings.
            scale: How values become colours.
            column: The one that bars are of.
            extra_title: Heading of the words before the bars; empty = there are none.
            bar_title: What the bars mean, with the unit.
        """
        self.rows, self.columns_shown, self.scale = rows, columns, scale
        self._name_px = None
        self._longest_bar = max((row.bar for row in rows if row.bar is not None), default=0.0)
        self.column, self.extra_title, self.bar_title = column, extra_title, bar_title
        self.refresh()

    def set_selected(self, names: tuple[str, ...]) -> None:
        """Mark rows; the first is scrolled into view where it is another one than before."""
        self.selected = frozenset(names)
        if names and names[0] != self.current:
            self.current = names[0]
            self._reveal(self.current)
        self.viewport().update()

    def _reveal(self, name: str) -> None:
        place = next((n for n, row in enumerate(self.rows) if row.name == name), None)
        if place is None:
            return
        top = self._row_px * place
        room = self.viewport().height() - self._head_px - self._foot_px
        bar = self.verticalScrollBar()
        bar.setValue(min(max(bar.value(), top + self._row_px - room), top))

    def _on_theme_changed(self, palette: Palette) -> None:
        self._name_px = None
        super()._on_theme_changed(palette)

    # ---- geometry

    @property
    def _row_px(self) -> int:
        return theme().px(ROW_PX)

    @property
    def _head_px(self) -> int:
        return theme().px(ROW_PX)

    @property
    def _foot_px(self) -> int:
        return theme().px(34)

    def whole_size(self) -> QSize:
        """Return the size at the viewport's width."""
        height = self._head_px + self._row_px * len(self.rows) + self._foot_px
        return QSize(self.viewport().width(), height)

    def _places(self, width: int) -> tuple[int, int, int, int]:
        """Return x where cells start, a cell's width, x where extra words start, and x where bars start."""
        if self._name_px is None:
            metrics = QFontMetrics(theme().font("small"))
            longest = max((metrics.horizontalAdvance(row.name) for row in self.rows), default=0)
            self._name_px = longest + theme().px(22)
        names = min(self._name_px, round(NAME_SHARE * width))
        extra = theme().px(72) if self.extra_title else 0
        count = max(len(self.columns_shown), 1)
        room = width - names - extra - theme().px(BAR_PX)
        cell = min(max(room // count, theme().px(CELL_PX[0])), theme().px(CELL_PX[1]))
        return names, cell, names + count * cell, names + count * cell + extra

    def _at(self, position: QPoint) -> tuple[int, int]:
        """Return (row, column) at a point of the viewport; -1 where there is none, row -2 in the headings."""
        x, y = position.x(), position.y()
        start, cell, end, _ = self._places(self.viewport().width())
        column = (x - start) // cell if start <= x < end else -1
        if y < self._head_px:
            return -2, column
        if y >= self.viewport().height() - self._foot_px:
            return -1, -1
        row = (y - self._head_px + self.offset_y) // self._row_px
        return (row if row < len(self.rows) else -1), column

    # ---- painting

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint headings, the rows that are seen, and the scale."""
        palette, small = theme().palette, theme().font("small")
        painter.setFont(small)
        places = self._places(size.width())
        first = max((seen.top()) // self._row_px, 0)
        last = min(seen.bottom() // self._row_px + 1, len(self.rows))
        painter.setOpacity(0.4 if self.faded else 1.0)
        for number in range(first, last):
            rect = QRect(0, self._head_px + number * self._row_px, size.width(), self._row_px)
            self._paint_row(painter, rect, self.rows[number], places, self._longest_bar, palette)
        painter.setOpacity(1.0)
        self._paint_head(painter, QRect(0, seen.top(), size.width(), self._head_px), places, palette)
        foot = QRect(0, seen.bottom() + 1 - self._foot_px, size.width(), self._foot_px)
        self._paint_scale(painter, foot, palette)

    def _paint_row(
        self,
        painter: QPainter,
        rect: QRect,
        row: HeatRow,
        places: tuple[int, int, int, int],
        longest: float,
        palette: Palette,
    ) -> None:
        start, cell, extra, bars = places
        metrics = painter.fontMetrics()
        is_selected = row.name in self.selected
        painter.setPen(palette.color("text" if is_selected else "muted"))
        pad = theme().px(8)
        name = metrics.elidedText(row.name, Qt.TextElideMode.ElideMiddle, start - 2 * pad)
        painter.drawText(rect.adjusted(pad, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, name)
        for number, value in enumerate(row.values):
            box = QRect(start + number * cell, rect.top(), cell - 1, rect.height() - 1)
            if value is None:
                continue
            ground = viridis(self.scale.share(value)) if math.isfinite(value) else viridis(0.0)
            painter.fillRect(box, ground)
            if metrics.horizontalAdvance(row.texts[number]) <= cell - 4:
                painter.setPen(ink_on(ground))
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, row.texts[number])
            if number == row.mark:
                line = theme().px(2)
                painter.fillRect(QRect(box.left() + 4, box.bottom() - line, box.width() - 8, line), ink_on(ground))
        if row.extra:
            painter.setPen(palette.color("muted"))
            place = QRect(extra, rect.top(), bars - extra - pad, rect.height())
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, row.extra)
        if row.bar is not None and longest > 0:
            room = rect.width() - bars - 2 * pad
            length = max(round(room * row.bar / longest), 1 if row.bar > 0 else 0)
            half = rect.height() // 4
            painter.fillRect(QRect(bars + pad, rect.top() + half, length, rect.height() - 2 * half), palette.quantized)
        if is_selected:
            painter.setPen(QPen(palette.color("accent"), 2))
            painter.drawRect(QRectF(rect).adjusted(1, 0, -1, -1))

    def _paint_head(self, painter: QPainter, rect: QRect, places: tuple[int, int, int, int], palette: Palette) -> None:
        start, cell, extra, bars = places
        painter.fillRect(rect, QColor(palette.surface))
        bold = QFont(painter.font())
        bold.setWeight(QFont.Weight.DemiBold)
        for number, title in enumerate(self.columns_shown):
            box = QRect(start + number * cell, rect.top(), cell - 1, rect.height())
            chosen = number == self.column
            painter.setFont(bold if chosen else theme().font("small"))
            painter.setPen(palette.color("text" if chosen else "muted"))
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, title)
            if chosen:
                painter.fillRect(QRect(box.left(), box.bottom() - 1, box.width(), 2), QColor(palette.accent))
        painter.setFont(theme().font("small"))
        painter.setPen(palette.color("muted"))
        pad = theme().px(8)
        if self.extra_title:
            place = QRect(extra, rect.top(), bars - extra - pad, rect.height())
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, self.extra_title)
        place = QRect(bars + pad, rect.top(), rect.width() - bars - pad, rect.height())
        title = painter.fontMetrics().elidedText(self.bar_title, Qt.TextElideMode.ElideRight, place.width())
        painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, title)

    def _paint_scale(self, painter: QPainter, rect: QRect, palette: Palette) -> None:
        painter.fillRect(rect, QColor(palette.surface))
        scale, pad = self.scale, theme().px(8)
        if not scale.title:
            return
        ends = (scale.high, scale.low) if scale.falls else (scale.low, scale.high)
        dark, bright = scale.text(ends[0]), scale.text(ends[1])
        metrics = painter.fontMetrics()
        left = pad + metrics.horizontalAdvance(dark) + pad
        bar = QRect(left, rect.center().y() - theme().px(5), theme().px(120), theme().px(10))
        gradient = QLinearGradient(bar.topLeft(), bar.topRight())
        for step in range(9):
            gradient.setColorAt(step / 8, viridis(step / 8))
        painter.fillRect(bar, gradient)
        painter.setPen(palette.color("muted"))
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(rect.adjusted(pad, 0, 0, 0), middle, dark)
        spacing = tr("logarithmic") if scale.log else tr("linear")
        words = f"{bright}   {scale.title} (viridis, {spacing})"
        place = rect.adjusted(bar.right() + pad, 0, -pad, 0)
        painter.drawText(place, middle, metrics.elidedText(words, Qt.TextElideMode.ElideRight, place.width()))

    # ---- the person

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select what is under the mouse."""
        if event.button() != Qt.MouseButton.LeftButton or self.message:
            return
        row, column = self._at(event.position().toPoint())
        if row == -2 and column >= 0:
            self.column_selected.emit(column)
        elif row >= 0:
            self.current = self.rows[row].name
            self.cell_selected.emit(self.current, column)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Take the cell under the mouse."""
        row, column = self._at(event.position().toPoint())
        if row >= 0 and column >= 0 and not self.message and event.button() == Qt.MouseButton.LeftButton:
            self.cell_taken.emit(self.rows[row].name, column)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move with the arrows, take with Enter."""
        names = [row.name for row in self.rows]
        at = names.index(self.current) if self.current in names else -1
        key = event.key()
        if names and key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            step = 1 if key == Qt.Key.Key_Down else -1
            self.current = names[min(max(at + step, 0), len(names) - 1)]
            self._reveal(self.current)
            self.cell_selected.emit(self.current, self.column)
        elif self.columns_shown and key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            step = 1 if key == Qt.Key.Key_Right else -1
            self.column_selected.emit(min(max(self.column + step, 0), len(self.columns_shown) - 1))
        elif at >= 0 and key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.cell_taken.emit(self.current, self.column)
        else:
            super().keyPressEvent(event)

    def viewportEvent(self, event: QEvent) -> bool:
        """Tell in a tooltip what is under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            row, column = self._at(event.pos())
            words = self.toolTip()
            if row >= 0:
                words = self.cell_help(self.rows[row].name, column) or words
            elif row == -2 and 0 <= column < len(self.column_help):
                words = self.column_help[column]
            QToolTip.showText(event.globalPos(), words, self)
            return True
        return bool(super().viewportEvent(event))

    def columns(self) -> tuple[Column, ...]:
        """Return names, values and bars as columns of a table."""
        cells = tuple(
            (title, ["" if row.values[n] is None else row.values[n] for row in self.rows])
            for n, title in enumerate(self.columns_shown)
        )
        extra = ((self.extra_title, [row.extra for row in self.rows]),) if self.extra_title else ()
        bars = ((self.bar_title, ["" if row.bar is None else row.bar for row in self.rows]),)
        return ((tr("layer"), [row.name for row in self.rows]), *cells, *extra, *bars)
