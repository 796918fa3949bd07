"""All findings as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from qstudio.core.findings.finding import Finding
from qstudio.session.findings import Applied
from qstudio.ui.findings.finding_view import MARKS, ROLES, help_words, measured_words
from qstudio.ui.text import NO_VALUE, tr
from qstudio.ui.theme import theme

COLUMNS = (
    ("", "How much it matters: three marks 6 dB or more (a bit), two 3 dB or more, one less"),
    ("layer", "Where it was found; empty = the whole model"),
    ("finding", "What was seen"),
    ("predicted", "What applying it is predicted to bring; ~ = estimated. Good: 6 dB is one bit"),
    ("measured", "What applying it has brought: SQNR of the weight, and points on the preview samples"),
)
MARK, LAYER, WORDS, PREDICTED, MEASURED = range(5)


@dataclass(frozen=True)
class Row:
    """A finding and what became of it."""

    finding: Finding
    applied: Applied | None = None
    dismissed: bool = False


class FindingsModel(QAbstractTableModel):
    """Applied findings first, then open ones, then dismissed ones where they are shown."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: tuple[Row, ...] = ()

    def set_rows(self, rows: tuple[Row, ...]) -> None:
        """Show other rows; a row whose finding only has new figures stays where it is."""
        same = [row.finding.key for row in rows] == [row.finding.key for row in self.rows]
        if same and len(rows):
            self.rows = rows
            self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, len(COLUMNS) - 1))
            return
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of findings."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a column's title or its explanation."""
        if orientation is Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return tr(COLUMNS[section][0])
            if role == Qt.ItemDataRole.ToolTipRole:
                return tr(COLUMNS[section][1])
        return None

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, alignment, colour or tooltip of a cell."""
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self.text(row, column)
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleDescriptionRole):
            return f"{row.finding.summary}\n{row.finding.action}\n{help_words(row.finding)}"
        if role == Qt.ItemDataRole.TextAlignmentRole and column in (PREDICTED, MEASURED):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ForegroundRole:
            if row.dismissed or (row.applied is not None and column != MARK):
                return theme().palette.color("muted")
            if column == MARK:
                return theme().palette.color("better" if row.applied is not None else ROLES[row.finding.severity])
        return None

    @staticmethod
    def text(row: Row, column: int) -> str:
        """Return what a cell says."""
        finding = row.finding
        if column == MARK:
            return tr("applied") if row.applied is not None else MARKS[finding.severity]
        if column == LAYER:
            more = f" +{finding.others}" if finding.others else ""
            return f"{finding.layer or tr('model')}{more}"
        if column == WORDS:
            return finding.summary
        if column == PREDICTED:
            return finding.gain.text() if finding.gain is not None else NO_VALUE
        return measured_words(row.applied) if row.applied is not None else ""
