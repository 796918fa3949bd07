"""The confusion difference: which classes are answered more or less often than before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetrics, QHelpEvent, QKeyEvent, QMouseEvent, QPainter, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from qstudio.core.flips import Flips, most_changed
from qstudio.ui.plots.painted import Painted, ink_on, viridis
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import tr
from qstudio.ui.theme import mix, theme

MOST_CLASSES = 40
"""Classes shown; of more, those that changed most."""
CELL_PX = (16, 44)
"""Smallest and largest edge of a cell."""
NAME_PX = 90
"""Most room for names of classes."""
FAINTEST = 0.18
"""Share of the full colour that a difference of one gets at least."""


class ConfusionMap(Painted):
    """Rows are labels, columns are answers: orange is worse, green is better, signs say how many.

    Without labels, rows are the classes before and columns those after. Click filters by a cell, Escape shows all.
    """

    cell_selected = Signal(object)
    """(row's class, column's class), or None for all."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Confusion difference"), parent)
        self.flips: Flips | None = None
        self.shown: NDArray[np.int64] = np.zeros(0, np.int64)
        """The classes that are shown, ascending."""
        self.selected: tuple[int, int] | None = None
        self._largest = 1
        self.setToolTip(
            tr(
                "How often each class is answered for each label, now minus before. On the diagonal more is better, "
                "beside it fewer. All zero is good."
            )
        )

    def set_flips(self, flips: Flips | None, message: str = "") -> None:
        """Show a difference; `message` stands instead where there is none."""
        self.flips = flips
        self.selected = None
        if flips is not None:
            self.shown = most_changed(flips.confusion, MOST_CLASSES)
            self._largest = max(int(np.abs(flips.confusion).max(initial=0)), 1)
            if not len(flips.indices):
                message = tr("No answer changed on {n} samples.").format(n=f"{flips.samples:,}")
        self.set_message(message)

    @property
    def caption(self) -> str:
        """What is shown of how many classes, in words."""
        if self.flips is None:
            return ""
        classes = len(self.flips.confusion)
        if classes > len(self.shown):
            return tr("the {n} of {k} classes that changed most").format(n=len(self.shown), k=f"{classes:,}")
        return tr("{k} classes").format(k=classes)

    # ---- geometry

    def _names_px(self) -> int:
        metrics = QFontMetrics(theme().font("small"))
        names = (self.flips.name_of(int(k)) for k in self.shown) if self.flips is not None else ()
        longest = max((metrics.horizontalAdvance(name) for name in names), default=0)
        return min(longest + theme().px(12), theme().px(NAME_PX))

    def _cell_px(self, size: QSize) -> int:
        names, lines = self._names_px(), self._lines_px()
        room = min(size.width() - names - lines, size.height() - names - lines)
        return min(max(room // max(len(self.shown), 1), theme().px(CELL_PX[0])), theme().px(CELL_PX[1]))

    def _lines_px(self) -> int:
        return theme().px(20)

    def whole_size(self) -> QSize:
        """Return the size of all cells with their headings."""
        view = self.viewport().size()
        edge = self._names_px() + self._lines_px() + self._cell_px(view) * len(self.shown)
        return QSize(max(edge, view.width()), max(edge, view.height()))

    def _cell_at(self, position: QPoint) -> tuple[int, int] | None:
        """Return (row's class, column's class) at a point of the viewport."""
        cell, start = self._cell_px(self.viewport().size()), self._names_px() + self._lines_px()
        column, row = ((v - start) // cell for v in (position.x() + self.offset_x, position.y() + self.offset_y))
        if self.message or not (0 <= row < len(self.shown) and 0 <= column < len(self.shown)):
            return None
        return int(self.shown[row]), int(self.shown[column])

    # ---- painting

    def _color(self, row: int, column: int, value: int) -> QColor:
        palette = theme().palette
        assert self.flips is not None, "there are cells"
        share = FAINTEST + (1 - FAINTEST) * abs(value) / self._largest
        if not self.flips.labelled:
            return viridis(share)
        better = (value > 0) == (row == column)
        return mix(palette.surface, palette.better if better else palette.worse, share)

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint cells, names and what rows and columns are."""
        flips = self.flips
        if flips is None or not len(self.shown):
            return
        palette = theme().palette
        painter.setFont(theme().font("small"))
        metrics = painter.fontMetrics()
        names, lines = self._names_px(), self._lines_px()
        cell, start = self._cell_px(self.viewport().size()), names + lines
        table = flips.confusion[np.ix_(self.shown, self.shown)]
        grid = QPen(palette.color("line"))
        chosen = np.zeros(table.shape, bool)
        if self.selected is not None:
            chosen = (self.shown[:, None] == self.selected[0]) & (self.shown[None, :] == self.selected[1])
        for row, column in np.argwhere((table != 0) | np.eye(len(table), dtype=bool) | chosen).tolist():
            box = QRect(start + column * cell, start + row * cell, cell - 1, cell - 1)
            if not box.intersects(seen):
                continue
            value = int(table[row, column])
            ground = self._color(row, column, value) if value else QColor(palette.surface)
            painter.fillRect(box, ground)
            if row == column:
                painter.setPen(grid)
                painter.drawRect(box)
            text = f"{value:+d}" if value else ""
            if text and metrics.horizontalAdvance(text) <= cell - 2 and metrics.height() <= cell:
                painter.setPen(ink_on(ground))
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
            if chosen[row, column]:
                painter.setPen(QPen(palette.color("accent"), 2))
                painter.drawRect(box.adjusted(1, 1, -1, -1))
        self._paint_names(painter, cell, start)
        painter.setPen(palette.color("muted"))
        above, left = (tr("answer"), tr("label")) if flips.labelled else (tr("after"), tr("before"))
        painter.drawText(QRect(start, 0, size.width() - start, lines), Qt.AlignmentFlag.AlignVCenter, f"{above} →")
        painter.drawText(QRect(theme().px(4), names, start, lines), Qt.AlignmentFlag.AlignVCenter, f"{left} ↓")

    def _paint_names(self, painter: QPainter, cell: int, start: int) -> None:
        assert self.flips is not None, "there are names"
        metrics = painter.fontMetrics()
        painter.setPen(theme().palette.color("muted"))
        room = self._names_px() - theme().px(4)
        pieces = [metrics.elidedText(self.flips.name_of(int(k)), Qt.TextElideMode.ElideRight, room) for k in self.shown]
        flat = max(metrics.horizontalAdvance(text) for text in pieces) <= cell - 2
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for number, text in enumerate(pieces):
            painter.drawText(QRect(0, start + number * cell, start - theme().px(6), cell), right, text)
            if flat:
                box = QRect(start + number * cell, start - self._lines_px(), cell, self._lines_px())
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
                continue
            painter.save()
            painter.translate(start + number * cell, start - theme().px(4))
            painter.rotate(-90)
            painter.drawText(QRect(0, 0, room, cell), Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)
            painter.restore()

    # ---- the person

    def _told(self, row: int, column: int) -> str:
        assert self.flips is not None, "there are cells"
        value = int(self.flips.confusion[row, column])
        names = {"label": self.flips.name_of(row), "answer": self.flips.name_of(column)}
        if not self.flips.labelled:
            return tr("{label} became {answer} on {n} samples").format(n=value, **names)
        words = tr("more often") if value > 0 else tr("less often")
        if not value:
            return tr("{label} is answered as {answer} as often as before").format(**names)
        return tr("{label} is answered as {answer} on {n} samples {words}").format(n=abs(value), words=words, **names)

    def select(self, cell: tuple[int, int] | None) -> None:
        """Mark a cell (None: all) and tell of it; the same cell again is all."""
        self.selected = None if cell == self.selected else cell
        self.viewport().update()
        self.cell_selected.emit(self.selected)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Filter by the cell under the mouse."""
        if event.button() == Qt.MouseButton.LeftButton and not self.message:
            self.select(self._cell_at(event.position().toPoint()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move the marked cell with the arrows; Escape shows all."""
        steps = {
            Qt.Key.Key_Up: (-1, 0),
            Qt.Key.Key_Down: (1, 0),
            Qt.Key.Key_Left: (0, -1),
            Qt.Key.Key_Right: (0, 1),
        }
        step = steps.get(Qt.Key(event.key()))
        if event.key() == Qt.Key.Key_Escape and self.selected is not None:
            self.select(None)
        elif step is not None and len(self.shown) and not self.message:
            places = {int(k): n for n, k in enumerate(self.shown)}
            at = [places[k] for k in self.selected] if self.selected is not None else [0, 0]
            if self.selected is not None:
                at = [min(max(a + s, 0), len(self.shown) - 1) for a, s in zip(at, step, strict=True)]
            cell = (int(self.shown[at[0]]), int(self.shown[at[1]]))
            if cell != self.selected:
                self.select(cell)
        else:
            super().keyPressEvent(event)

    def viewportEvent(self, event: QEvent) -> bool:
        """Tell in a tooltip what is under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            cell = self._cell_at(event.pos())
            QToolTip.showText(event.globalPos(), self.toolTip() if cell is None else self._told(*cell), self)
            return True
        return bool(super().viewportEvent(event))

    def columns(self) -> tuple[Column, ...]:
        """Return every cell that is not zero, of all classes."""
        if self.flips is None:
            return ()
        rows, columns = np.nonzero(self.flips.confusion)
        heads = (tr("label"), tr("answer")) if self.flips.labelled else (tr("before"), tr("after"))
        return (
            (heads[0], [self.flips.name_of(int(k)) for k in rows]),
            (heads[1], [self.flips.name_of(int(k)) for k in columns]),
            (tr("difference"), self.flips.confusion[rows, columns]),
        )
