"""The layer table as a Qt model: sorted and filtered here, cells made when they are first seen."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QColor

from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.session.session import Session
from qstudio.ui.table.cells import Cell, CellMaker
from qstudio.ui.table.choices import not_applicable, set_field, targets
from qstudio.ui.table.columns import COLUMN_IDS, COLUMNS
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

Index = QModelIndex | QPersistentModelIndex
Role = Qt.ItemDataRole
READ_ONLY = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
EDITABLE = READ_ONLY | Qt.ItemFlag.ItemIsEditable
PAYLOAD = Role.UserRole
"""What a delegate paints: see `Cell.payload`."""


class LayerModel(QAbstractTableModel):
    """Rows are layers in the chosen order; a cell is made once and kept until what it shows has changed."""

    reordered = Signal()
    """The rows stand elsewhere (sorted, filtered, another model): selections have to be set again."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._maker = CellMaker(session)
        self._layers: tuple[LayerInfo, ...] = ()
        self._order: NDArray[np.intp] = np.arange(0)
        self._row_of: dict[str, int] = {}
        self._cells: dict[tuple[str, int], Cell] = {}
        self._recipe = session.recipe
        self._text = ""
        self._regex = False
        self._type = ""
        self._sort: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)
        self.filter_error = ""
        """What is wrong with the filter text, in words; empty when nothing is."""

    # ---- content

    def load(self) -> None:
        """Show the session's model."""
        self._layers = self._session.model.layers if self._session.model else ()
        self._recipe = self._session.recipe
        self._arrange()

    def refresh_recipe(self, recipe: Recipe) -> None:
        """Forget the cells of layers whose settings may have changed."""
        before, self._recipe = self._recipe, recipe
        self._maker.forget_sizes()
        if before.default != recipe.default or before.rules != recipe.rules:
            self._cells.clear()
        else:
            changed = {name for name, _ in set(before.overrides) ^ set(recipe.overrides)}
            share = COLUMN_IDS.index("share")
            self._cells = {key: cell for key, cell in self._cells.items() if key[0] not in changed and key[1] != share}
        self._repaint()

    def refresh_columns(self, *names: str) -> None:
        """Forget the cells of some columns."""
        columns = {COLUMN_IDS.index(name) for name in names}
        self._cells = {key: cell for key, cell in self._cells.items() if key[1] not in columns}
        self._repaint()

    def refresh_cell(self, layer: str, name: str) -> None:
        """Forget one cell."""
        column = COLUMN_IDS.index(name)
        self._cells.pop((layer, column), None)
        row = self._row_of.get(layer)
        if row is not None:
            index = self.index(row, column)
            self.dataChanged.emit(index, index)

    def refresh(self) -> None:
        """Forget all cells."""
        self._cells.clear()
        self._repaint()

    def _repaint(self) -> None:
        if len(self._order):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._order) - 1, len(COLUMNS) - 1))

    # ---- order

    def set_filter(self, text: str, regex: bool, type_name: str) -> None:
        """Show the layers of one operator type ("" = all) whose name holds the text or matches the expression."""
        self._text, self._regex, self._type = text, regex, type_name
        self._arrange()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; -1 is the order of the model."""
        self._sort = (column, order)
        self._arrange()

    def _arrange(self) -> None:
        self.beginResetModel()
        self._cells.clear()
        self._maker.forget_sizes()
        rows = np.flatnonzero(self._mask())
        column, direction = self._sort
        if column >= 0 and rows.size:
            rows = rows[self._sorted([self._layers[i] for i in rows], column, direction)]
        self._order = rows
        self._row_of = {self._layers[i].name: row for row, i in enumerate(rows)}
        self.endResetModel()
        self.reordered.emit()

    def _mask(self) -> NDArray[np.bool_]:
        self.filter_error = ""
        mask = np.ones(len(self._layers), bool)
        if self._type:
            mask &= np.array([layer.op_type == self._type for layer in self._layers], bool)
        text = self._text.strip()
        if not text:
            return mask
        if not self._regex:
            needle = text.casefold()
            mask &= np.array([needle in f"{layer.name} {layer.op_type}".casefold() for layer in self._layers], bool)
            return mask
        try:
            pattern = re.compile(text, re.IGNORECASE)
        except re.error as error:
            self.filter_error = f"{tr('This is not a regular expression')}: {error}"
            return mask
        mask &= np.array([pattern.search(layer.name) is not None for layer in self._layers], bool)
        return mask

    def _sorted(self, layers: list[LayerInfo], column: int, direction: Qt.SortOrder) -> NDArray[np.intp]:
        """Return the stable order of the layers; cells without a value come last either way."""
        keys = [self._maker.make(layer, COLUMNS[column]).sort_key for layer in layers]
        if any(isinstance(key, str) for key in keys):
            texts = np.array([key if isinstance(key, str) else "\uffff" for key in keys])
            ranks = np.unique(texts, return_inverse=True)[1].astype(np.float64)
            ranks[texts == "\uffff"] = np.nan
        else:
            ranks = np.array(keys, np.float64)
        if direction is Qt.SortOrder.DescendingOrder:
            ranks = -ranks
        return np.argsort(ranks, kind="stable")

    def layer_at(self, row: int) -> LayerInfo:
        """Return the layer in a row."""
        return self._layers[int(self._order[row])]

    def row_of(self, layer: str) -> int | None:
        """Return the row of a layer; None when it is filtered out."""
        return self._row_of.get(layer)

    @property
    def layer_count(self) -> int:
        """Number of layers, filtered out or not."""
        return len(self._layers)

    @property
    def types(self) -> tuple[str, ...]:
        """The operator types of the model, sorted."""
        return tuple(sorted({layer.op_type for layer in self._layers}))

    # ---- Qt

    def rowCount(self, parent: Index | None = None) -> int:
        """Return the number of rows shown."""
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: Index | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def cell(self, row: int, column: int) -> Cell:
        """Return a cell, made on first sight."""
        layer = self.layer_at(row)
        key = (layer.name, column)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = self._maker.make(layer, COLUMNS[column])
        return found

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        """Return what a role asks of a cell."""
        if not index.isValid():
            return None
        if role == Role.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if COLUMNS[index.column()].right else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        cell = self.cell(index.row(), index.column())
        if role == Role.DisplayRole:
            return cell.text
        if role == PAYLOAD:
            return cell.payload
        if role == Role.FontRole:
            return theme().font("normal", bold=True) if cell.bold else None
        if role == Role.ForegroundRole:
            if cell.muted:
                return QColor(theme().palette.muted)
            return QColor(getattr(theme().palette, cell.color)) if cell.color else None
        if role == Role.ToolTipRole:
            return cell.tooltip or cell.text
        if role == Role.AccessibleTextRole:
            return f"{self.layer_at(index.row()).name}, {COLUMNS[index.column()].title}: {cell.text or cell.tooltip}"
        if role == Role.EditRole and COLUMNS[index.column()].field:
            return getattr(self._session.settings(self.layer_at(index.row()).name), COLUMNS[index.column()].field)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:
        """Return title, explanation and alignment of a column."""
        if orientation is not Qt.Orientation.Horizontal:
            return None
        column = COLUMNS[section]
        if role == Role.DisplayRole:
            return tr(column.title)
        if role == Role.ToolTipRole:
            return tr(column.help)
        if role == Role.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column.right else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        """Return whether a cell can be selected and edited."""
        column = COLUMNS[index.column()]
        if not column.field or not_applicable(self.layer_at(index.row()), column.field):
            return READ_ONLY
        return EDITABLE

    def setData(self, index: Index, value: Any, role: int = Role.EditRole) -> bool:
        """Set a field on the layer, or on the whole selection when the layer is part of it."""
        column = COLUMNS[index.column()]
        if role != Role.EditRole or not column.field:
            return False
        layer = self.layer_at(index.row()).name
        return set_field(self._session, targets(self._session, layer), column.field, value)

    # ---- out

    def as_text(self, rows: list[int], columns: list[int], separator: str) -> str:
        """Return rows as lines with a header, fields quoted where they must be."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=separator, lineterminator="\n")
        writer.writerow([COLUMNS[column].title for column in columns])
        for row in rows:
            writer.writerow([self.cell(row, column).text for column in columns])
        return out.getvalue()
