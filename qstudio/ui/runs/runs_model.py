"""The runs as a Qt model: one row for each run, updated while it runs."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor

from qstudio.engine.messages import JobState
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.runs.figures import (
    best_metrics,
    drop,
    drop_interval,
    drop_words,
    latency_words,
    metrics_text,
    parity_words,
    same_recipe,
)
from qstudio.ui.runs.methods import training_words
from qstudio.ui.runs.run_columns import COLUMNS, RunColumn, notes_of
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

Index = QModelIndex | QPersistentModelIndex
Role = Qt.ItemDataRole


def _nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


class RunsModel(QAbstractTableModel):
    """The session's runs in the chosen order."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._runs: list[Run] = []
        self._sort: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)
        self.update_runs()

    def update_runs(self) -> None:
        """Take over the session's runs; rows stay where they are while a run reports progress."""
        runs = {run.id: run for run in self._session.runs}
        if set(runs) == {run.id for run in self._runs}:
            self._runs = [runs[run.id] for run in self._runs]
            self.refresh()
        else:
            self.beginResetModel()
            self._runs = self._arranged(list(self._session.runs))
            self.endResetModel()

    def refresh(self) -> None:
        """Repaint everything; the recipe has changed."""
        if self._runs:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._runs) - 1, len(COLUMNS) - 1))

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; -1 is the order in which the runs were started."""
        self._sort = (column, order)
        self.layoutAboutToBeChanged.emit()
        self._runs = self._arranged(list(self._session.runs))
        self.layoutChanged.emit()

    def _arranged(self, runs: list[Run]) -> list[Run]:
        column, order = self._sort
        if column < 0:
            return runs
        keys = np.array([_nan(COLUMNS[column].key(run)) for run in runs])
        if order is Qt.SortOrder.DescendingOrder:
            keys = -keys
        return [runs[i] for i in np.argsort(keys, kind="stable")]

    def run_at(self, row: int) -> Run:
        """Return the run in a row."""
        return self._runs[row]

    def row_of(self, number: int | None) -> int | None:
        """Return the row of a run; None when there is none."""
        return next((row for row, run in enumerate(self._runs) if run.id == number), None)

    def rowCount(self, parent: Index | None = None) -> int:
        """Return the number of runs."""
        return 0 if parent is not None and parent.isValid() else len(self._runs)

    def columnCount(self, parent: Index | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        """Return what a role asks of a cell."""
        if not index.isValid():
            return None
        column, run = COLUMNS[index.column()], self._runs[index.row()]
        if role == Role.DisplayRole:
            if column.id == "recipe":
                return tr("current") if same_recipe(self._session, run) else tr("other")
            return column.text(run)
        if role == Role.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column.right else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        if role == Role.ForegroundRole:
            return self._color(column.id, run)
        if role == Role.FontRole:
            pair = run.result.latency_ms if run.result else None
            faster = pair is not None and pair.exported.median < pair.float.median
            return theme().font("normal", bold=True) if column.id == "exported_ms" and faster else None
        if role in (Role.ToolTipRole, Role.AccessibleTextRole):
            return self._told(column, run)
        return None

    def _color(self, column: str, run: Run) -> QColor | None:
        palette = theme().palette
        if column == "drop":
            value, half = drop(run.result), drop_interval(best_metrics(run.result))
            if value is not None and half is not None and abs(value) > half:
                return QColor(palette.worse if value < 0 else palette.better)
        if column == "state" and run.state in (JobState.FAILED, JobState.KILLED):
            return QColor(palette.worse)
        if column == "recipe" and not same_recipe(self._session, run):
            return QColor(palette.muted)
        return None

    def _told(self, column: RunColumn, run: Run) -> str:
        result = run.result
        extra = ""
        if column.id in ("float", "simulated", "exported") and result is not None:
            extra = metrics_text(getattr(result, column.id))
        elif column.id in ("drop", "agreement"):
            extra = drop_words(result)
        elif column.id in ("unfused", "fused", "lsb"):
            extra = parity_words(result.parity if result else None)
        elif column.id in ("float_ms", "exported_ms", "spread", "threads"):
            extra = latency_words(result.latency_ms if result else None)
        elif column.id in ("state", "notes"):
            extra = notes_of(run)
        elif column.id == "method":
            extra = training_words(run)
        elif column.id == "recipe":
            extra = tr("Double-click restores this run's recipe")
        return "\n".join(part for part in (tr(column.help), extra) if part)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:
        """Return title, meaning and alignment of a column."""
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

    def as_text(self, separator: str) -> str:
        """Return all runs as lines with a header."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=separator, lineterminator="\n")
        writer.writerow([column.title for column in COLUMNS])
        for row in range(len(self._runs)):
            writer.writerow([self.data(self.index(row, column)) for column in range(len(COLUMNS))])
        return out.getvalue()
