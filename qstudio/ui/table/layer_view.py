"""The table widget: selection as everywhere else, columns that fit, editing by key, menu and cell."""

from __future__ import annotations

import os

from PySide6.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, QPoint, QRect, Qt, Signal
from PySide6.QtGui import QColor, QContextMenuEvent, QKeyEvent, QPainter, QPaintEvent, QPixmap, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QMenu, QTableView, QWidget

from qstudio.session.session import Session
from qstudio.ui.table.choices import FIELD_TITLES, choices, not_applicable, reset, set_field, set_float
from qstudio.ui.table.columns import COLUMN_IDS, COLUMNS
from qstudio.ui.table.delegates import ChoiceDelegate
from qstudio.ui.table.layer_model import LayerModel
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

MENU_FIELDS = (
    "weight_bits",
    "activation_bits",
    "weight_symmetric",
    "activation_symmetric",
    "weight_granularity",
    "weight_calibration",
    "activation_calibration",
    "pruning",
)


MOST_ROWS = 160
"""Pictures of rows that are kept: 213 KB each at a width of 1,900 pixels."""


class LayerView(QTableView):
    """Shows a LayerModel and keeps its selection and the session's the same."""

    columns_changed = Signal()
    """The person chose other columns."""

    def __init__(self, session: Session, model: LayerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._model = model
        self._following = False
        self._chosen: tuple[str, ...] | None = None
        self._widths: dict[str, int] = {}
        self._rows: dict[tuple[str, bool], QPixmap] = {}
        self._shape: object = None
        """What the pictures of rows were made for: width, resolution, columns."""
        self.setModel(model)
        self.setAccessibleName(tr("Layers"))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        triggers = QAbstractItemView.EditTrigger
        self.setEditTriggers(triggers.DoubleClicked | triggers.EditKeyPressed)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setSortingEnabled(False)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTabKeyNavigation(False)
        self._cells = ChoiceDelegate(model, self)
        self.setItemDelegate(self._cells)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setHighlightSections(False)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.sortIndicatorChanged.connect(model.sort)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(self._on_header_menu)
        model.dataChanged.connect(self._on_data_changed)
        model.modelReset.connect(self._rows.clear)
        model.reordered.connect(self.follow_selection)
        self.selectionModel().selectionChanged.connect(self._on_selected)
        self.selectionModel().currentChanged.connect(self._on_current)
        self.restyle()

    # ---- look

    def restyle(self) -> None:
        """Take over colours, font and zoom."""
        self._cells.forget()
        self._rows.clear()
        metrics = self.fontMetrics()
        self.verticalHeader().setDefaultSectionSize(max(theme().px(28), metrics.height() + 8))
        for number, column in enumerate(COLUMNS):
            widest = max(metrics.horizontalAdvance(text) for text in (column.widest, column.title))
            self._widths[column.id] = widest + theme().px(18)
            self.setColumnWidth(number, self._widths[column.id])
        self._fit_name()
        self.fit_columns()

    def forget_pictures(self) -> None:
        """Drop the painted histograms; other weights are shown."""
        self._cells.forget()
        self._rows.clear()
        self._fit_name()
        self.fit_columns()

    def _fit_name(self) -> None:
        """Make the first column as wide as the longest name, within reason."""
        names = [layer.name for layer in self._session.model.layers] if self._session.model else []
        longest = max(names, key=len, default=COLUMNS[0].widest)
        width = self.fontMetrics().horizontalAdvance(longest) + theme().px(36)
        self._widths["layer"] = min(max(width, theme().px(96)), theme().px(280))
        self.setColumnWidth(0, self._widths["layer"])

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show as many columns as fit, the important ones first, unless the person has chosen."""
        super().resizeEvent(event)
        self.fit_columns()

    def fit_columns(self) -> None:
        """Show the columns the person chose, or those that fit by priority."""
        if self._chosen is not None:
            shown = set(self._chosen)
        else:
            shown, room = set(), self.viewport().width()
            for column in sorted(COLUMNS, key=lambda column: column.priority):
                width = self._widths[column.id]
                if column.priority and room < width:
                    break
                shown.add(column.id)
                room -= width
            self._spread(room, shown)
        for number, column in enumerate(COLUMNS):
            hidden = column.id not in shown
            if self.isColumnHidden(number) != hidden:
                self.setColumnHidden(number, hidden)

    def _spread(self, room: int, shown: set[str]) -> None:
        """Give what is left of the width to the names, and to the bars where there are any."""
        to_name = min(max(room, 0), theme().px(160) if "share" in shown else room)
        for name, more in (("layer", max(to_name, 0)), ("share", max(room - to_name, 0))):
            width = self._widths[name] + more
            if self.columnWidth(COLUMN_IDS.index(name)) != width:
                self.setColumnWidth(COLUMN_IDS.index(name), width)

    @property
    def shown_columns(self) -> tuple[str, ...]:
        """Ids of the columns that are shown, from left to right."""
        header = self.horizontalHeader()
        order = [header.logicalIndex(visual) for visual in range(len(COLUMNS))]
        return tuple(COLUMNS[number].id for number in order if not self.isColumnHidden(number))

    @property
    def chosen_columns(self) -> tuple[str, ...] | None:
        """Columns the person chose; None while they fit themselves."""
        return self._chosen

    def choose_columns(self, columns: tuple[str, ...] | None) -> None:
        """Show these columns; None = those that fit."""
        self._chosen = None if columns is None else tuple(id_ for id_ in COLUMN_IDS if id_ in {*columns, "layer"})
        self.fit_columns()
        self.columns_changed.emit()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the rows, or say why there are none.

        From pictures of rows: through QTableView's own loop, which asks the model and makes an option for every cell,
        36 rows of 15 columns cost 30 ms a frame.
        """
        if self._model.rowCount():
            self._paint_rows(event.rect())
            return
        if self._session.opening:
            words = f"{tr('Opening')} {os.path.basename(self._session.opening)}…"
        elif self._session.model is None:
            words = tr("No model is open")
        else:
            words = tr("No layer fits the filter")
        painter = QPainter(self.viewport())
        painter.setPen(QColor(theme().palette.muted))
        painter.drawText(self.viewport().rect(), Qt.AlignmentFlag.AlignCenter, words)
        painter.end()

    def _paint_rows(self, area: QRect) -> None:
        first, last = self.rowAt(max(area.top(), 0)), self.rowAt(area.bottom())
        if first < 0:
            return
        last = self._model.rowCount() - 1 if last < 0 else last
        header, width = self.horizontalHeader(), self.viewport().width()
        columns = []
        for number in (header.logicalIndex(visual) for visual in range(len(COLUMNS))):
            left, room = self.columnViewportPosition(number), self.columnWidth(number)
            if not self.isColumnHidden(number) and left < width and left + room > 0:
                columns.append((number, left, room))
        painter = QPainter(self.viewport())
        shape = (width, self.devicePixelRatioF(), tuple(columns))
        if shape != self._shape:
            self._shape = shape
            self._rows.clear()
        chosen, root = self.selectionModel(), QModelIndex()
        for row in range(first, last + 1):
            selected = chosen.isRowSelected(row, root)
            key = (self._model.layer_at(row).name, selected)
            picture = self._rows.get(key)
            if picture is None:
                picture = self._rows[key] = self._draw_row(row, selected, columns)
                if len(self._rows) > MOST_ROWS:
                    del self._rows[next(iter(self._rows))]
            painter.drawPixmap(0, self.rowViewportPosition(row), picture)
        current = self.currentIndex()
        if self.hasFocus() and current.isValid():
            painter.setPen(QColor(theme().palette.accent))
            painter.drawRect(self.visualRect(current).adjusted(1, 1, -2, -2))
        painter.end()

    def _draw_row(self, row: int, selected: bool, columns: list[tuple[int, int, int]]) -> QPixmap:
        """Return a row as a picture: scrolling then moves pictures instead of texts."""
        ratio, height = self.devicePixelRatioF(), self.rowHeight(row)
        picture = QPixmap(round(self.viewport().width() * ratio), round(height * ratio))
        picture.setDevicePixelRatio(ratio)
        palette = self.palette()
        picture.fill(palette.highlight().color() if selected else palette.base().color())
        painter = QPainter(picture)
        for number, left, width in columns:
            self._cells.paint_cell(painter, QRect(left, 0, width, height), row, number, selected)
        painter.end()
        return picture

    def _on_data_changed(self, first: QModelIndex, last: QModelIndex) -> None:
        """Drop the pictures of rows that show something else now."""
        if last.row() - first.row() > 8:
            self._rows.clear()
            return
        for row in range(first.row(), last.row() + 1):
            name = self._model.layer_at(row).name
            self._rows.pop((name, False), None)
            self._rows.pop((name, True), None)

    # ---- selection

    def follow_selection(self) -> None:
        """Select the session's selection; nothing is told back."""
        rows = [row for name in self._session.selection if (row := self._model.row_of(name)) is not None]
        selection = QItemSelection()
        last = len(COLUMNS) - 1
        for row in rows:
            selection.select(self._model.index(row, 0), self._model.index(row, last))
        self._following = True
        try:
            self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
            if rows:
                current = self.currentIndex()
                column = max(current.column(), 0)
                index = self._model.index(rows[0], column)
                self.selectionModel().setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
                self.scrollTo(index)
        finally:
            self._following = False

    def _on_selected(self, _selected: QItemSelection, _deselected: QItemSelection) -> None:
        self._tell_selection()

    def _on_current(self, _current: QModelIndex, _previous: QModelIndex) -> None:
        if len(self._session.selection) > 1:
            self._tell_selection()

    def _tell_selection(self) -> None:
        if self._following:
            return
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        current = self.currentIndex().row()
        if current in rows:
            rows.remove(current)
            rows.insert(0, current)
        self._following = True
        try:
            self._session.select([self._model.layer_at(row).name for row in rows])
        finally:
            self._following = False

    @property
    def following(self) -> bool:
        """Whether the selection is being carried over just now."""
        return self._following

    # ---- editing

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Open the cell's editor with Return too."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            index = self.currentIndex()
            if index.isValid() and self._model.flags(index) & Qt.ItemFlag.ItemIsEditable:
                self.edit(index)
                return
        super().keyPressEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Offer every field for the selected layers."""
        if self._session.selection:
            menu = self.edit_menu()
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            menu.popup(event.globalPos())

    def edit_menu(self) -> QMenu:
        """Return a menu that edits the selected layers."""
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.triggered.connect(self._on_edit_chosen)
        model = self._session.model
        layers = [model.layer(name) for name in self._session.selection] if model else []
        for field in MENU_FIELDS:
            sub = menu.addMenu(tr(FIELD_TITLES[field]).capitalize())
            sub.setToolTipsVisible(True)
            reasons = [not_applicable(layer, field) for layer in layers]
            if all(reasons):
                sub.setEnabled(False)
                sub.menuAction().setToolTip(reasons[0] if reasons else "")
            present = {getattr(self._session.settings(layer.name), field) for layer in layers}
            for choice in choices(field):
                action = sub.addAction(choice.text)
                action.setCheckable(True)
                action.setChecked(present == {choice.value})
                action.setData((field, choice.value))
        menu.addSeparator()
        menu.addAction(tr("Leave in float")).setData(("float", None))
        menu.addAction(tr("Reset to inherited")).setData(("reset", None))
        menu.addAction(tr("Select all layers of this type")).setData(("type", None))
        return menu

    def _on_edit_chosen(self, action: object) -> None:
        field, value = action.data()  # type: ignore[attr-defined]
        layers = self._session.selection
        if field == "float":
            set_float(self._session, layers)
        elif field == "reset":
            reset(self._session, layers)
        elif field == "type" and self._session.model is not None:
            types = {self._session.model.layer(name).op_type for name in layers}
            self._session.select([layer.name for layer in self._session.model.layers if layer.op_type in types])
        elif field:
            set_field(self._session, layers, field, value)

    # ---- columns

    def _on_header_menu(self, position: QPoint) -> None:
        menu = self.column_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.horizontalHeader().mapToGlobal(position))

    def column_menu(self) -> QMenu:
        """Return a menu that shows and hides columns."""
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.triggered.connect(self._on_column_chosen)
        for column in COLUMNS[1:]:
            action = menu.addAction(tr(column.title))
            action.setCheckable(True)
            action.setChecked(column.id in self.shown_columns)
            action.setToolTip(tr(column.help))
            action.setData(column.id)
        menu.addSeparator()
        fitting = menu.addAction(tr("As many as fit"))
        fitting.setCheckable(True)
        fitting.setChecked(self._chosen is None)
        fitting.setToolTip(tr("Show the important columns first and as many as there is room for"))
        return menu

    def _on_column_chosen(self, action: object) -> None:
        column = action.data()  # type: ignore[attr-defined]
        if column is None:
            self.choose_columns(None)
            return
        shown = set(self.shown_columns)
        self.choose_columns(tuple(shown ^ {column}))

    # ---- out

    def selected_rows(self) -> list[int]:
        """Return the selected rows from top to bottom."""
        return sorted(index.row() for index in self.selectionModel().selectedRows())

    def as_text(self, separator: str, selected_only: bool) -> str:
        """Return what is shown as lines with a header; pictures are left out."""
        columns = [COLUMN_IDS.index(id_) for id_ in self.shown_columns if id_ != "histogram"]
        rows = self.selected_rows() if selected_only else list(range(self._model.rowCount()))
        return self._model.as_text(rows, columns, separator)
