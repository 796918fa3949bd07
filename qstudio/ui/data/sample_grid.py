"""A grid of samples: as stored beside as the network sees them, label and float prediction below."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtWidgets import QListView, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from qstudio.engine.messages import SamplePage
from qstudio.ui.data.colormap import is_picture, to_image
from qstudio.ui.text import NO_VALUE, format_percent, format_value, tr
from qstudio.ui.theme import theme

Index = QModelIndex | QPersistentModelIndex
PICTURE_PX = 72
MARGIN_PX = 8


class SampleModel(QAbstractListModel):
    """The samples of one page; images are made once."""

    def __init__(self) -> None:
        super().__init__()
        self._page: SamplePage | None = None
        self._images: list[tuple[QImage, QImage]] = []

    def show_page(self, page: SamplePage | None) -> None:
        """Show a page of samples; all network inputs share one colour range, so that a wrong scale is seen."""
        self.beginResetModel()
        self._page = page
        self._images = []
        if page is not None and page.network:
            low = min(float(np.min(x)) for x in page.network)
            high = max(float(np.max(x)) for x in page.network)
            for stored, network in zip(page.stored, page.network, strict=True):
                picture = is_picture(stored)
                first, last = (0.0, 255.0) if picture else (float(np.min(stored)), float(np.max(stored)))
                self._images.append((to_image(stored, first, last, picture), to_image(network, low, high, picture)))
        self.endResetModel()

    def rowCount(self, parent: Index | None = None) -> int:
        """Return the number of samples."""
        return 0 if self._page is None or (parent is not None and parent.isValid()) else len(self._page.indices)

    def is_wrong(self, row: int) -> bool:
        """Return whether the float model gets a sample wrong."""
        page = self._page
        return page is not None and page.labels[row] is not None and page.labels[row] != page.predictions[row]

    def index_of(self, row: int) -> int | None:
        """Return the place of a row's sample in the evaluation split; None where there is none."""
        return self._page.indices[row] if self._page is not None and row < len(self._page.indices) else None

    def name_of(self, number: int | None) -> str:
        """Return a class by name, else by number."""
        if number is None or self._page is None:
            return NO_VALUE
        names = self._page.class_names
        return names[number] if 0 <= number < len(names) else str(number)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the words for a sample, or its two images."""
        page = self._page
        if page is None or not index.isValid():
            return None
        row = index.row()
        label, guess = page.labels[row], page.predictions[row]
        if role == Qt.ItemDataRole.UserRole:
            return self._images[row]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            if label is None:
                return f"→ {self.name_of(guess)}"
            return f"{'✗' if self.is_wrong(row) else '✓'} {self.name_of(label)} → {self.name_of(guess)}"
        if role == Qt.ItemDataRole.ToolTipRole:
            network = page.network[row]
            lines = [
                f"{tr('Sample')} {page.indices[row]}",
                f"{tr('label')} {self.name_of(label)}, {tr('float predicts')} {self.name_of(guess)}",
                f"{tr('as stored')}: {page.stored[row].dtype} {'x'.join(map(str, page.stored[row].shape))}",
                f"{tr('as the network sees it')}: {network.dtype} {'x'.join(map(str, network.shape))}, "
                f"{format_value(float(network.min()))} .. {format_value(float(network.max()))}",
            ]
            confidence = page.confidences[row]
            if confidence is not None:
                lines[1] += f" ({format_percent(100 * confidence, digits=1)})"
            lines.append(tr("Double-click follows it through the layers"))
            return "\n".join(lines)
        return None


class SampleDelegate(QStyledItemDelegate):
    """Paints one sample."""

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        """Return the size of a tile: two pictures and a line of text."""
        picture, margin = theme().px(PICTURE_PX), theme().px(MARGIN_PX)
        return QSize(2 * picture + 3 * margin, picture + 3 * margin + option.fontMetrics.height())

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """Paint both pictures and the line; a wrong prediction by sign and colour."""
        palette = theme().palette
        picture, margin = theme().px(PICTURE_PX), theme().px(MARGIN_PX)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, option.palette.highlight())
        stored, network = index.data(Qt.ItemDataRole.UserRole)
        corner = option.rect.topLeft()
        for number, image in enumerate((stored, network)):
            area = QRect(corner.x() + margin + number * (picture + margin), corner.y() + margin, picture, picture)
            size = image.size().scaled(area.size(), Qt.AspectRatioMode.KeepAspectRatio)
            spot = QRect(0, 0, max(size.width(), 6), max(size.height(), 6))
            spot.moveCenter(area.center())
            painter.fillRect(area, QColor(palette.background))
            painter.drawImage(spot, image)
        text = index.data(Qt.ItemDataRole.DisplayRole)
        wrong = text.startswith("✗")
        painter.setPen(QColor(palette.worse if wrong else palette.text))
        line = QRect(
            corner.x() + margin,
            corner.y() + 2 * margin + picture,
            option.rect.width() - 2 * margin,
            option.fontMetrics.height(),
        )
        elided = option.fontMetrics.elidedText(text, Qt.TextElideMode.ElideRight, line.width())
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, elided)


class SampleGrid(QListView):
    """The samples of a page as tiles; one that is double-clicked, or taken with Return, is told of."""

    sample_taken = Signal(object)
    """Place of a sample in the evaluation split."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.samples = SampleModel()
        self.setModel(self.samples)
        self._delegate = SampleDelegate(self)
        self.setItemDelegate(self._delegate)
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setUniformItemSizes(True)
        self.setSpacing(theme().px(4))
        self.setAccessibleName(tr("Samples"))
        self.activated.connect(self._on_activated)

    def _on_activated(self, index: QModelIndex) -> None:
        sample = self.samples.index_of(index.row())
        if sample is not None:
            self.sample_taken.emit(sample)
