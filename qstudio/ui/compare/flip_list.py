"""The list of samples whose answer changed, with thumbnails of those that are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QIcon, QImage, QKeyEvent, QPixmap, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QAbstractItemView, QTableView, QWidget

from qstudio.core.flips import KINDS, Flips
from qstudio.ui.compare.text_table import Index, Role, dress
from qstudio.ui.data.colormap import is_picture, to_image
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

THUMB_PX = 32
KIND_WORDS = {
    "to_wrong": "right to wrong",
    "to_right": "wrong to right",
    "other_wrong": "wrong to wrong",
    "changed": "changed",
}
KIND_COLORS = {"to_wrong": "worse", "to_right": "better", "other_wrong": "watch", "changed": ""}
KIND_SIGNS = {"to_wrong": "▼", "to_right": "▲", "other_wrong": "◆", "changed": "◆"}

COLUMNS: tuple[tuple[str, str, str, bool], ...] = (
    (
        "Sample",
        "Place in the evaluation split; Enter or click shows it layer by layer, with the present recipe.",
        "100,000",
        False,
    ),
    ("Change", "▼ right to wrong, ▲ wrong to right, ◆ one wrong class to another.", "▼ wrong to wrong", False),
    ("Label", "The true class.", "Label MM", False),
    ("Before", "Class in B: the float network, or the other run.", "Before MM", False),
    ("After", "Class in run A.", "After MM", False),
    (
        "Margin before",
        "Probability of the first class minus that of the second, 0 to 1. Small margins flip easily: noise, not bias.",
        "Margin before MM",
        True,
    ),
    ("Margin after", "The same in run A. A large margin on a wrong answer is worth a look.", "Margin after", True),
)
SAMPLE, CHANGE, LABEL, BEFORE, AFTER, MARGIN_BEFORE, MARGIN_AFTER = range(len(COLUMNS))


class FlipModel(QAbstractTableModel):
    """The flips that the filter lets through, in the chosen order."""

    def __init__(self, sample: Callable[[int], NDArray[Any] | None]) -> None:
        """`sample` returns a sample as stored, None where it is not there (yet)."""
        super().__init__()
        self._sample = sample
        self._icons: dict[int, QIcon] = {}
        self.flips: Flips | None = None
        self.kind = ""
        self.cell: tuple[int, int] | None = None
        self.places: NDArray[np.int64] = np.zeros(0, np.int64)
        """Positions in the flips, as they stand."""
        self._sort: tuple[int, Qt.SortOrder] = (MARGIN_BEFORE, Qt.SortOrder.DescendingOrder)

    def set_flips(self, flips: Flips | None, kind: str = "") -> None:
        """Show other flips: of one kind only, or all (empty)."""
        self.beginResetModel()
        self.flips, self.kind, self.cell = flips, kind, None
        self.places = self._arranged()
        self.endResetModel()

    def set_filter(self, kind: str, cell: tuple[int, int] | None) -> None:
        """Show one kind only (empty = all), and only what adds to a cell of the confusion difference (None = all)."""
        self.beginResetModel()
        self.kind, self.cell = kind, cell
        self.places = self._arranged()
        self.endResetModel()

    def _arranged(self) -> NDArray[np.int64]:
        flips = self.flips
        if flips is None:
            return np.zeros(0, np.int64)
        shown = np.ones(len(flips.indices), bool)
        if self.kind:
            shown &= flips.kinds == KINDS.index(self.kind)
        if self.cell is not None:
            row, column = self.cell
            if flips.labelled:
                shown &= (flips.labels == row) & ((flips.before == column) | (flips.after == column))
            else:
                shown &= (flips.before == row) & (flips.after == column)
        places = np.flatnonzero(shown)
        column, order = self._sort
        if column < 0:
            return places
        keys = self._keys(flips, column)[places].astype(np.float64)
        return places[np.argsort(-keys if order is Qt.SortOrder.DescendingOrder else keys, kind="stable")]

    @staticmethod
    def _keys(flips: Flips, column: int) -> NDArray[Any]:
        labels = flips.labels if len(flips.labels) else np.zeros(len(flips.indices), np.int64)
        keys: tuple[NDArray[Any], ...] = (
            flips.indices,
            flips.kinds,
            labels,
            flips.before,
            flips.after,
            flips.before_margins,
            flips.after_margins,
        )
        return keys[column]

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; -1 is the order of the samples."""
        self._sort = (column, order)
        self.layoutAboutToBeChanged.emit()
        self.places = self._arranged()
        self.layoutChanged.emit()

    def index_at(self, row: int) -> int:
        """Return the sample in a row."""
        assert self.flips is not None, "there are rows"
        return int(self.flips.indices[self.places[row]])

    def forget_icons(self) -> None:
        """Forget all thumbnails."""
        self._icons.clear()

    def tell_icons(self) -> None:
        """Paint thumbnails that have arrived."""
        if len(self.places):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.places) - 1, 0), [Role.DecorationRole])

    def _icon(self, index: int) -> QIcon | None:
        known = self._icons.get(index)
        if known is not None:
            return known
        stored = self._sample(index)
        if stored is None:
            return None
        icon = QIcon(QPixmap.fromImage(thumbnail(stored)))
        self._icons[index] = icon
        return icon

    def rowCount(self, parent: Index | None = None) -> int:
        """Return the number of samples that are shown."""
        return 0 if parent is not None and parent.isValid() else len(self.places)

    def columnCount(self, parent: Index | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def text(self, row: int, column: int) -> str:
        """Return what a cell says."""
        flips = self.flips
        assert flips is not None, "there are rows"
        place = int(self.places[row])
        if column == SAMPLE:
            return f"{int(flips.indices[place]):,}"
        if column == CHANGE:
            kind = KINDS[int(flips.kinds[place])]
            return f"{KIND_SIGNS[kind]} {tr(KIND_WORDS[kind])}"
        if column == LABEL:
            return flips.name_of(int(flips.labels[place])) if len(flips.labels) else "–"
        if column in (BEFORE, AFTER):
            return flips.name_of(int((flips.before if column == BEFORE else flips.after)[place]))
        return f"{float((flips.before_margins if column == MARGIN_BEFORE else flips.after_margins)[place]):.3f}"

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        """Return what a role asks of a cell."""
        flips = self.flips
        if not index.isValid() or flips is None:
            return None
        row, column = index.row(), index.column()
        if role == Role.DisplayRole:
            return self.text(row, column)
        if role == Role.DecorationRole and column == SAMPLE:
            return self._icon(self.index_at(row))
        if role == Role.ForegroundRole and column == CHANGE:
            name = KIND_COLORS[KINDS[int(flips.kinds[self.places[row]])]]
            return QColor(getattr(theme().palette, name)) if name else None
        if role == Role.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if COLUMNS[column][3] else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        if role == Role.ToolTipRole:
            return tr(COLUMNS[column][1])
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:
        """Return title and meaning of a column."""
        if orientation is not Qt.Orientation.Horizontal:
            return None
        title, told, _, right = COLUMNS[section]
        if role == Role.DisplayRole:
            return tr(title)
        if role == Role.ToolTipRole:
            return tr(told)
        if role == Role.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None


def thumbnail(stored: NDArray[Any]) -> QImage:
    """Return a sample as a small image: photographs as they are, everything else in viridis over its own range."""
    picture = is_picture(stored)
    low, high = (0.0, 255.0) if picture else (float(np.min(stored)), float(np.max(stored)))
    image = to_image(stored, low, high, picture)
    edge = 2 * THUMB_PX
    return image.scaled(edge, edge, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.FastTransformation)


class FlipList(QTableView):
    """A row for each sample that changed; asks for the samples that are seen, and for no others."""

    sample_chosen = Signal(int)
    """Place of the sample that was clicked, or on which Enter was pressed."""
    samples_seen = Signal(object)
    """Places of the samples in view."""

    def __init__(self, sample: Callable[[int], NDArray[Any] | None], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.flips = FlipModel(sample)
        self.setModel(self.flips)
        self.setAccessibleName(tr("Samples that changed"))
        dress(self)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = self.horizontalHeader()
        header.setStretchLastSection(True)
        header.setSortIndicator(MARGIN_BEFORE, Qt.SortOrder.DescendingOrder)
        header.sortIndicatorChanged.connect(self.flips.sort)
        self.clicked.connect(self._on_clicked)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(30)
        self._later.timeout.connect(self._on_later)
        self.verticalScrollBar().valueChanged.connect(self._on_moved)
        self.flips.modelReset.connect(self._on_moved)
        self.flips.layoutChanged.connect(self._on_moved)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()

    def _on_theme_changed(self, _palette: object = None) -> None:
        metrics = self.fontMetrics()
        thumb = theme().px(THUMB_PX)
        self.setIconSize(QSize(thumb, thumb))
        self.verticalHeader().setDefaultSectionSize(max(thumb + 4, metrics.height() + 6))
        for number, (title, _, widest, _) in enumerate(COLUMNS):
            widest_px = max(metrics.horizontalAdvance(text) for text in (widest, tr(title) + "  "))
            self.setColumnWidth(number, widest_px + theme().px(12) + (thumb if number == SAMPLE else 0))

    def _on_moved(self, *_: object) -> None:
        self._later.start()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Ask for what comes into view."""
        super().resizeEvent(event)
        self._later.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Ask for what is in view."""
        super().showEvent(event)
        self._later.start()

    def rows_seen(self) -> range:
        """Return the rows in view."""
        if not self.flips.rowCount():
            return range(0)
        first = max(self.rowAt(0), 0)
        last = self.rowAt(self.viewport().height() - 1)
        return range(first, (last if last >= 0 else self.flips.rowCount() - 1) + 1)

    def _on_later(self) -> None:
        rows = self.rows_seen()
        if self.isVisible() and len(rows):
            self.samples_seen.emit(tuple(self.flips.index_at(row) for row in rows))

    def _on_clicked(self, index: QModelIndex) -> None:
        self.sample_chosen.emit(self.flips.index_at(index.row()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Show the current sample with Enter."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self._on_clicked(self.currentIndex())
            return
        super().keyPressEvent(event)
