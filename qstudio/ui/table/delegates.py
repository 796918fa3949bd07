"""How cells are painted and edited: text, bars, small histograms, marks, combo boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import (
    QAbstractItemModel,
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QPointF,
    QRect,
    QRectF,
    Qt,
)
from PySide6.QtGui import QColor, QPainter, QPen, QPixmap, QPolygonF, QStaticText
from PySide6.QtWidgets import QComboBox, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from qstudio.ui.table.cells import Cell
from qstudio.ui.table.choices import choices, explained, value_text
from qstudio.ui.table.columns import COLUMNS
from qstudio.ui.table.layer_model import LayerModel
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

Index = QModelIndex | QPersistentModelIndex
MARKED = ("layer", "weight_sqnr", "output_sqnr")
"""Columns whose text carries a mark."""
PADDING = 6


class CellDelegate(QStyledItemDelegate):
    """Paints a cell straight from the model, where the view asks for it (see `LayerView.paintEvent`)."""

    def __init__(self, model: LayerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self._pixmaps: dict[tuple[str, int, int, str], QPixmap] = {}
        self.forget()

    def forget(self) -> None:
        """Take over colours, fonts and zoom, and drop the painted histograms."""
        palette = theme().palette
        self._pixmaps.clear()
        self._fonts = (theme().font("normal"), theme().font("normal", bold=True))
        self._pens = {name: QColor(getattr(palette, name)) for name in ("text", "muted", "worse", "watch", "accent")}
        self._laid_out: dict[tuple[str, int, bool, bool], tuple[QStaticText, int, int]] = {}

    def paint_cell(self, painter: QPainter, rect: QRect, row: int, number: int, selected: bool) -> None:
        """Paint text, and the picture or mark that belongs to it, on the row's own background."""
        cell = self._model.cell(row, number)
        column = COLUMNS[number]
        if cell.payload is not None and column.id in ("share", "histogram"):
            self._paint_picture(painter, QRectF(rect), cell, column.id)
        elif cell.text:
            self._paint_text(painter, rect, cell, column.right, selected)
        if cell.payload and column.id in MARKED:
            self._paint_mark(painter, QRectF(rect), cell.payload)

    def _paint_text(self, painter: QPainter, rect: QRect, cell: Cell, right: bool, selected: bool) -> None:
        width = rect.width() - 2 * PADDING
        key = (cell.text, width, cell.bold, right)
        painter.setFont(self._fonts[cell.bold])
        found = self._laid_out.get(key)
        if found is None:
            found = self._laid_out[key] = self._lay_out(painter, cell.text, width, right)
        text, shift, height = found
        color = "text" if selected or not cell.muted else "muted"
        painter.setPen(self._pens[cell.color if cell.color and not selected else color])
        painter.drawStaticText(rect.x() + PADDING + shift, rect.y() + (rect.height() - height) // 2, text)

    def _lay_out(self, painter: QPainter, words: str, width: int, right: bool) -> tuple[QStaticText, int, int]:
        """Return text that fits the width, and how far from the left it starts, and its height."""
        metrics = painter.fontMetrics()
        text = QStaticText(metrics.elidedText(words, Qt.TextElideMode.ElideMiddle, width))
        text.setTextFormat(Qt.TextFormat.PlainText)
        text.prepare(painter.transform(), painter.font())
        return text, round(width - text.size().width()) if right else 0, round(text.size().height())

    def _paint_picture(self, painter: QPainter, rect: QRectF, cell: Cell, column: str) -> None:
        area = rect.adjusted(PADDING, 4, -PADDING, -4)
        if column == "share":
            painter.setFont(self._fonts[0])
            self._paint_share(painter, area, float(cell.payload), cell.text)
        else:
            ratio = painter.device().devicePixelRatioF()
            painter.drawPixmap(area.topLeft(), self._histogram(cell.payload, area, ratio))

    def _paint_mark(self, painter: QPainter, rect: QRectF, payload: str) -> None:
        """Draw a mark, each of its own shape, never colour alone.

        At the right: dot = edited since the last run, cross = cannot run. At the left: triangle = watch, square = bad.
        """
        palette = theme().palette
        size = theme().px(7)
        left = rect.left() + PADDING if payload in ("watch", "worse") else rect.right() - size - 4
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


class ChoiceDelegate(CellDelegate):
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
            box.setItemData(box.count() - 1, explained(field, value), Qt.ItemDataRole.ToolTipRole)
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
