"""How cells are painted and edited: bars, small histograms, marks, combo boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractItemModel, QEvent, QModelIndex, QObject, QPersistentModelIndex, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPixmap, QPolygonF
from PySide6.QtWidgets import QComboBox, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from qstudio.ui.table.choices import choices, value_text
from qstudio.ui.table.columns import COLUMNS
from qstudio.ui.table.layer_model import PAYLOAD
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

Index = QModelIndex | QPersistentModelIndex


MARKED = ("layer", "weight_sqnr", "output_sqnr")
"""Columns whose text carries a mark."""


class ChoiceDelegate(QStyledItemDelegate):
    """Edits a field with a combo box that opens at once."""

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: Index) -> QWidget:
        """Return a combo box with what the field can be set to."""
        field = COLUMNS[index.column()].field
        box = QComboBox(parent)
        box.setAccessibleName(tr(COLUMNS[index.column()].title))
        box.setToolTip(tr(COLUMNS[index.column()].help))
        current = index.data(Qt.ItemDataRole.EditRole)
        values = [choice.value for choice in choices(field)]
        if current not in values:
            values.append(current)
        for value in values:
            box.addItem(value_text(field, value), value)
        box.setCurrentIndex(values.index(current))
        box.activated.connect(self._on_activated)
        box.installEventFilter(self)
        return box

    def eventFilter(self, editor: QObject, event: QEvent) -> bool:
        """Open the list as soon as the editor stands, so that one double-click and one click choose."""
        if event.type() == QEvent.Type.Show and isinstance(editor, QComboBox):
            editor.showPopup()
        return super().eventFilter(editor, event)

    def _on_activated(self, _index: int) -> None:
        box = self.sender()
        if isinstance(box, QComboBox):
            self.commitData.emit(box)
            self.closeEditor.emit(box)

    def setEditorData(self, editor: QWidget, index: Index) -> None:
        """Keep what `createEditor` chose."""

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: Index) -> None:
        """Set the field to what was chosen, if it is another value."""
        assert isinstance(editor, QComboBox)
        value = editor.currentData()
        if value != index.data(Qt.ItemDataRole.EditRole):
            model.setData(index, value)


class PictureDelegate(QStyledItemDelegate):
    """Paints a size share as a bar, a weight histogram, or a mark beside a layer's name."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pixmaps: dict[tuple[str, int, int, str], QPixmap] = {}

    def forget(self) -> None:
        """Drop the painted histograms; the model or the colours have changed."""
        self._pixmaps.clear()

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """Paint the cell's background and text, and the picture in it."""
        payload = index.data(PAYLOAD)
        column = COLUMNS[index.column()].id
        if column in MARKED:
            super().paint(painter, option, index)
            if payload:
                self._paint_mark(painter, QRectF(option.rect), payload)
            return
        self.initStyleOption(option, index)
        text, option.text = option.text, ""
        style = option.widget.style()
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, option, painter, option.widget)
        area = QRectF(option.rect).adjusted(6, 4, -6, -4)
        if payload is None:
            painter.setPen(QColor(theme().palette.muted))
            painter.drawText(area, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)
        elif column == "share":
            self._paint_share(painter, area, float(payload), text)
        else:
            ratio = painter.device().devicePixelRatioF()
            painter.drawPixmap(area.topLeft(), self._histogram(payload, area, ratio))

    def _paint_mark(self, painter: QPainter, rect: QRectF, payload: str) -> None:
        """Draw a mark, each of its own shape, never colour alone.

        At the right: dot = edited since the last run, cross = cannot run. At the left: triangle = watch, square = bad.
        """
        palette = theme().palette
        size = theme().px(7)
        left = rect.left() + 6 if payload in ("watch", "worse") else rect.right() - size - 4
        spot = QRectF(left, rect.center().y() - size / 2 + 1, size, size)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        if payload == "edited":
            painter.setBrush(QColor(palette.accent))
            painter.drawEllipse(spot)
        elif payload == "watch":
            painter.setBrush(QColor(palette.watch))
            painter.drawPolygon(
                QPolygonF([spot.bottomLeft(), spot.bottomRight(), QPointF(spot.center().x(), spot.top())])
            )
        elif payload == "worse":
            painter.setBrush(QColor(palette.worse))
            painter.drawRect(spot)
        else:
            painter.setPen(QPen(QColor(palette.worse), 1.5))
            painter.drawLine(spot.topLeft(), spot.bottomRight())
            painter.drawLine(spot.topRight(), spot.bottomLeft())
        painter.restore()

    def _paint_share(self, painter: QPainter, area: QRectF, share: float, text: str) -> None:
        palette = theme().palette
        metrics = painter.fontMetrics()
        room = metrics.horizontalAdvance("00.0 %") + 6
        painter.setPen(QColor(palette.text))
        painter.drawText(
            QRectF(area.left(), area.top(), room - 6, area.height()),
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter,
            text,
        )
        bar = QRectF(area.left() + room, area.center().y() - 4, max(area.width() - room, 0) * min(share, 1.0), 8)
        painter.fillRect(bar, QColor(palette.quantized))

    def _histogram(self, payload: Any, area: QRectF, ratio: float) -> QPixmap:
        """Return the histogram as a picture, painted once for each size and theme."""
        name, heights, zero = payload
        palette = theme().palette
        width, height = int(area.width()), int(area.height())
        key = (name, round(width * ratio), round(height * ratio), palette.name)
        found = self._pixmaps.get(key)
        if found is not None:
            return found
        pixmap = QPixmap(max(key[1], 1), max(key[2], 1))
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        step = width / len(heights)
        tops = height - 1 - np.asarray(heights) * (height - 2)
        points = [QPointF(0, height)]
        for i, top in enumerate(tops):
            points += [QPointF(i * step, top), QPointF((i + 1) * step, top)]
        points.append(QPointF(width, height))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(palette.float))
        painter.drawPolygon(QPolygonF(points))
        painter.setPen(QColor(palette.line))
        painter.drawLine(QPointF(zero * width, 0), QPointF(zero * width, height))
        painter.end()
        self._pixmaps[key] = pixmap
        return pixmap
