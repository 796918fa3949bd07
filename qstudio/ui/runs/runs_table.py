"""The table of runs."""

from __future__ import annotations

from PySide6.QtCore import QItemSelectionModel, QModelIndex, Qt
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.runs.run_columns import COLUMN_IDS, COLUMNS
from qstudio.ui.runs.runs_model import RunsModel
from qstudio.ui.text import tr
from qstudio.ui.theme import theme


class RunsTable(QTableView):
    """A row for each run; click selects it everywhere, double-click or Return restores its recipe."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._following = False
        self.runs = RunsModel(session)
        self.setModel(self.runs)
        self.setAccessibleName(tr("Runs"))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setStretchLastSection(True)
        header.sortIndicatorChanged.connect(self.runs.sort)
        self.doubleClicked.connect(self._on_double_clicked)
        self.selectionModel().currentRowChanged.connect(self._on_current_changed)
        self.runs.modelReset.connect(self._follow)
        self.runs.layoutChanged.connect(self._follow)
        bridge.runs_changed.connect(self._on_runs_changed)
        bridge.run_selected.connect(self._on_run_selected)
        bridge.recipe_changed.connect(self._on_recipe_changed)
        bridge.dataset_changed.connect(self._on_recipe_changed)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()
        self._follow()

    def _on_theme_changed(self, _palette: object = None) -> None:
        metrics = self.fontMetrics()
        self.verticalHeader().setDefaultSectionSize(max(theme().px(28), metrics.height() + 8))
        for number, column in enumerate(COLUMNS):
            widest = max(metrics.horizontalAdvance(text) for text in (column.widest, column.title))
            self.setColumnWidth(number, widest + theme().px(18))

    def _on_runs_changed(self, _runs: object) -> None:
        self.runs.update_runs()

    def _on_recipe_changed(self, _recipe: object) -> None:
        self.runs.refresh()

    def _on_run_selected(self, _number: object) -> None:
        self._follow()

    def _follow(self) -> None:
        """Select the session's selected run; nothing is told back."""
        row = self.runs.row_of(self._session.selected_run)
        self._following = True
        try:
            if row is None:
                self.clearSelection()
                self.selectionModel().setCurrentIndex(QModelIndex(), QItemSelectionModel.SelectionFlag.Clear)
            elif row != self.currentIndex().row() or not self.selectionModel().hasSelection():
                self.selectRow(row)
                self.scrollTo(self.runs.index(row, 0))
        finally:
            self._following = False

    def _on_current_changed(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if not self._following and current.isValid():
            self._session.select_run(self.runs.run_at(current.row()).id)

    def _on_double_clicked(self, index: QModelIndex) -> None:
        self._session.restore_run(self.runs.run_at(index.row()).id)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Take the focus without selecting a run: Qt makes the first row current when a disabled button lets it go."""
        self._following = True
        try:
            super().focusInEvent(event)
        finally:
            self._following = False

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Restore the recipe of the current run with Return."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self._on_double_clicked(self.currentIndex())
            return
        super().keyPressEvent(event)

    def column_of(self, name: str) -> int:
        """Return the number of a column."""
        return COLUMN_IDS.index(name)
