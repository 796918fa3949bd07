"""A table of texts: sorted by keys, copied as tab-separated text, saved as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QColor, QContextMenuEvent, QKeyEvent, QKeySequence, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QFrame,
    QMenu,
    QTableView,
    QWidget,
)

from qstudio.ui.saving import saved_text
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

Index = QModelIndex | QPersistentModelIndex
Role = Qt.ItemDataRole
LEAST_PX, MOST_PX = 80, 240
"""What the first column takes where there is little room."""


@dataclass(frozen=True)
class TextColumn:
    """One column."""

    title: str
    help: str
    """What it is, its unit, and what is a good value."""
    widest: str
    """A text as wide as the column has to be."""
    right: bool = False


@dataclass(frozen=True)
class TextRow:
    """One row."""

    texts: tuple[str, ...]
    keys: tuple[float | str | None, ...] = ()
    """What columns are sorted by; empty = their texts."""
    help: str = ""
    """Tooltip of the row."""
    colors: tuple[str, ...] = ()
    """Colour names of the palette, one a column; "" for the text's own."""
    id: str = ""
    """What the row is about."""

    def key(self, column: int) -> float | str | None:
        """Return what a column is sorted by."""
        return self.keys[column] if self.keys else self.texts[column]


class TextModel(QAbstractTableModel):
    """Rows in the chosen order."""

    def __init__(self, columns: tuple[TextColumn, ...]) -> None:
        super().__init__()
        self._columns = columns
        self._given: tuple[TextRow, ...] = ()
        self.rows: list[TextRow] = []
        """As they stand."""
        self._sort: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)

    def set_columns(self, columns: tuple[TextColumn, ...]) -> None:
        """Show other columns; their number stays."""
        if columns != self._columns:
            self._columns = columns
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, len(columns) - 1)

    @property
    def headings(self) -> tuple[TextColumn, ...]:
        """The columns."""
        return self._columns

    def set_rows(self, rows: Sequence[TextRow]) -> None:
        """Show these rows, sorted as before."""
        self.beginResetModel()
        self._given = tuple(rows)
        self.rows = self._arranged()
        self.endResetModel()

    def _arranged(self) -> list[TextRow]:
        column, order = self._sort
        if column < 0:
            return list(self._given)
        places = sorted_places([row.key(column) for row in self._given], order)
        return [self._given[place] for place in places]

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; -1 is the order in which the rows were given."""
        self._sort = (column, order)
        self.layoutAboutToBeChanged.emit()
        self.rows = self._arranged()
        self.layoutChanged.emit()

    def rowCount(self, parent: Index | None = None) -> int:
        """Return the number of rows."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        """Return what a role asks of a cell."""
        if not index.isValid():
            return None
        row, column = self.rows[index.row()], index.column()
        if role == Role.DisplayRole:
            return row.texts[column]
        if role == Role.TextAlignmentRole:
            return _side(self._columns[column])
        if role == Role.ForegroundRole:
            name = row.colors[column] if row.colors else ""
            return QColor(getattr(theme().palette, name)) if name else None
        if role == Role.ToolTipRole:
            return "\n".join(part for part in (row.help or row.texts[column], tr(self._columns[column].help)) if part)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:
        """Return title, meaning and alignment of a column."""
        if orientation is not Qt.Orientation.Horizontal:
            return None
        column = self._columns[section]
        if role == Role.DisplayRole:
            return tr(column.title)
        if role == Role.ToolTipRole:
            return tr(column.help)
        return _side(column) if role == Role.TextAlignmentRole else None


def _side(column: TextColumn) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column.right else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter


def sorted_places(keys: Sequence[float | str | None], order: Qt.SortOrder) -> NDArray[np.int64]:
    """Return the order of rows by their keys, equal ones as they stood, None and NaN last."""
    if any(isinstance(key, str) for key in keys):
        texts = np.array([str(key if key is not None else "") for key in keys])
        _, ranks = np.unique(texts, return_inverse=True)
        values = ranks.astype(np.float64)
    else:
        values = np.array([math.nan if key is None else key for key in keys], np.float64)
    if order is Qt.SortOrder.DescendingOrder:
        values = -values
    return np.argsort(values, kind="stable")


class TextTable(QTableView):
    """Shows a `TextModel`; Ctrl+C copies the selected rows (all when none is selected)."""

    rows_selected = Signal(object)
    """Ids of the selected rows, in the order in which they stand."""
    notice_posted = Signal(object)

    def __init__(self, name: str, columns: tuple[TextColumn, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.rows = TextModel(columns)
        self.setModel(self.rows)
        self.setAccessibleName(name)
        dress(self)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of layers differ at both ends
        header = self.horizontalHeader()
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.sortIndicatorChanged.connect(self.rows.sort)
        self.selectionModel().selectionChanged.connect(self._on_selection_changed)
        self.rows.modelReset.connect(self._fit_first)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()

    def _on_theme_changed(self, _palette: object = None) -> None:
        metrics = self.fontMetrics()
        self.verticalHeader().setDefaultSectionSize(max(theme().px(24), metrics.height() + 6))
        for number, column in enumerate(self.rows.headings):
            widest = max(metrics.horizontalAdvance(text) for text in (column.widest, tr(column.title) + "  "))
            self.setColumnWidth(number, widest + theme().px(14))
        self._fit_first()

    def _fit_first(self) -> None:
        """Give the first column what the others leave, and room for its longest text where they leave too little."""
        longest = max((row.texts[0] for row in self.rows.rows), key=len, default="")
        needed = self.fontMetrics().horizontalAdvance(f"{longest}  ") + theme().px(10)
        others = sum(self.columnWidth(number) for number in range(1, self.rows.columnCount()))
        least = min(max(needed, theme().px(LEAST_PX)), theme().px(MOST_PX))
        self.setColumnWidth(0, max(least, self.viewport().width() - others))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Take in another width."""
        super().resizeEvent(event)
        self._fit_first()

    def _on_selection_changed(self, *_: object) -> None:
        self.rows_selected.emit(self.selected_ids())

    def selected_ids(self) -> tuple[str, ...]:
        """Return the ids of the selected rows, each once."""
        numbers = sorted(index.row() for index in self.selectionModel().selectedRows())
        return tuple(dict.fromkeys(self.rows.rows[number].id for number in numbers))

    def as_text(self, separator: str, selected_only: bool = False) -> str:
        """Return rows as lines with a heading."""
        numbers: Sequence[int] = range(len(self.rows.rows))
        if selected_only:
            numbers = sorted(index.row() for index in self.selectionModel().selectedRows())
        out = io.StringIO()
        writer = csv.writer(out, delimiter=separator, lineterminator="\n")
        writer.writerow([tr(column.title) for column in self.rows.headings])
        writer.writerows(self.rows.rows[number].texts for number in numbers)
        return out.getvalue()

    def copy(self) -> None:
        """Put the selected rows (all when none is selected) on the clipboard as tab-separated text."""
        QApplication.clipboard().setText(self.as_text("\t", self.selectionModel().hasSelection()))

    def save(self, path: str) -> None:
        """Write all rows as CSV; the outcome is posted as a notice."""
        self.notice_posted.emit(saved_text(path, self.as_text(",")))

    def _ask_save(self) -> None:
        proposal = self.name.lower().replace(" ", "-") + ".csv"
        path, _ = QFileDialog.getSaveFileName(self, tr("Save table as CSV"), proposal, "CSV (*.csv)")
        if path:
            self.save(path if Path(path).suffix else f"{path}.csv")

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Copy with Ctrl+C."""
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
            return
        super().keyPressEvent(event)

    def menu(self) -> QMenu:
        """Return the context menu."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(tr("Copy as tab-separated text"), self.copy)
        menu.addAction(tr("Save table as CSV…"), self._ask_save)
        return menu

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Open the menu."""
        self.menu().popup(event.globalPos())
        event.accept()


def dress(view: QTableView) -> None:
    """Give a table the calm look of all tables: whole rows, no grid, sortable headings."""
    view.setFrameShape(QFrame.Shape.NoFrame)
    view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    view.setShowGrid(False)
    view.setWordWrap(False)
    view.setTabKeyNavigation(False)
    view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
    view.verticalHeader().hide()
    header = view.horizontalHeader()
    header.setHighlightSections(False)
    header.setSectionsClickable(True)
    header.setSortIndicatorShown(True)
