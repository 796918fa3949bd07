"""Arrays as images side by side on common scales, with their colour bars."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHelpEvent, QImage, QKeyEvent, QMouseEvent, QPaintEngine, QPainter, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from qstudio.ui.plots.colour_maps import diverging_table, mapped, photograph, viridis_table
from qstudio.ui.plots.images import Image, Place, range_of, short
from qstudio.ui.plots.painted import Painted
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, mix, theme

TITLE_PX = 18
GAP_PX = 8
BAR_PX = 30
"""A colour bar with its words."""
WHOLE_SCALE = 12
"""From so many pixels for a value on, all are drawn equally large."""
TILE_PX = 6
"""From so many pixels on, tiles have a line between them."""
SCALE_PX = 48
"""Room at the right of a curve for the ends of its scale."""
CURVE_RATIO = 3.0
"""Width of a curve over its height, where there is room."""


class ImageGrid(Painted):
    """Images that show one thing: the mouse marks the same place in all of them."""

    place_hovered = Signal(object)
    """(row, column) in the first image under the mouse, None when there is none."""
    place_clicked = Signal(object)
    """(row, column) in the first image that was clicked."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, parent)
        self.images: tuple[Image, ...] = ()
        self.ranges: dict[str, tuple[float, float]] = {}
        """Kind -> ends of its scale."""
        self.faded = False
        """Whether what is shown is of something that has changed since: it is painted pale."""
        self.place_help: Callable[[Place], str] = lambda _place: ""
        """Words for a place, for the tooltip."""
        self.hovered: Place | None = None
        self.marked: Place | None = None
        """Tile that is marked: its row and column among the tiles."""
        self._pixels: tuple[QImage | None, ...] = ()

    # ---- content

    def set_images(
        self, images: tuple[Image, ...], faded: bool = False, scale_of: tuple[Image, ...] | None = None
    ) -> None:
        """Show these; images of one kind share a scale.

        Args:
            images: In reading order.
            faded: Whether they are of something that has changed since.
            scale_of: Whose values the scales hold; None for those of `images`. With more than are shown, changing
                between them moves no colour.
        """
        self.images, self.faded, self.hovered = images, faded, None
        kinds = dict.fromkeys(image.kind for image in images)
        self.ranges = {kind: range_of(scale_of or images, kind) for kind in kinds}
        self.setAccessibleDescription(
            "; ".join(
                f"{', '.join(image.title for image in images if image.kind == kind)}: {short(low)} … {short(high)}"
                for kind, (low, high) in self.ranges.items()
                if kind != "picture"
            )
        )
        self._make_pixels()
        self.refresh()

    def set_marked(self, tile: Place | None) -> None:
        """Mark a tile."""
        if tile != self.marked:
            self.marked = tile
            self.viewport().update()

    def _on_theme_changed(self, palette: Palette) -> None:
        self._make_pixels()
        super()._on_theme_changed(palette)

    def _make_pixels(self) -> None:
        self._pixels = tuple(None if image.is_curve else self._image(image) for image in self.images)

    def _image(self, image: Image) -> QImage:
        if image.kind == "picture":
            return photograph(image.values)
        low, high = self.ranges[image.kind]
        return mapped(image.values, low, high, self._table(image.kind))

    @staticmethod
    def _table(kind: str) -> NDArray[np.uint32]:
        palette = theme().palette
        if kind == "difference":
            return diverging_table(palette.dark, mix(palette.surface, palette.muted, 0.12).name())
        return viridis_table()

    # ---- geometry

    def _rects(self, size: QSize) -> list[QRectF]:
        """Return where each image is drawn: as large as all of them can be."""
        if not self.images:
            return []
        gap, title = theme().px(GAP_PX), self._title_px
        room_x = size.width() - 2 * gap
        room_y = size.height() - self._bars_px - gap
        curves = all(image.is_curve for image in self.images)
        rows, columns = self.images[0].values.shape[:2]
        ratio = CURVE_RATIO if curves else columns / rows
        count, best = len(self.images), (0.0, 1)
        for across in range(1, count + 1):
            down = math.ceil(count / across)
            wide = (room_x - (across - 1) * gap) / across
            high = (room_y - (down - 1) * gap) / down - title
            best = max(best, (min(wide, high * ratio), across), key=lambda found: found[0])
        across = best[1]
        down = math.ceil(count / across)
        wide = (room_x - (across - 1) * gap) / across
        high = max((room_y - (down - 1) * gap) / down - title, 1.0)
        if curves:
            width, height = max(wide - theme().px(SCALE_PX), 1.0), high
        else:
            scale = min(wide / columns, high / rows)
            if scale >= WHOLE_SCALE:  # smaller ones lose too much by it
                scale = math.floor(scale)
            width, height = max(scale * columns, 1.0), max(scale * rows, 1.0)
        found = []
        for number in range(count):
            row, column = divmod(number, across)
            left = gap + column * (wide + gap)
            top = row * (high + title + gap) + title
            # Rows of images stand close together, whatever room is left below them.
            top = row * (height + title + gap) + title if not curves else top
            found.append(QRectF(round(left), round(top), round(width), round(height)))
        return found

    @property
    def _title_px(self) -> int:
        return theme().px(TITLE_PX) if any(image.title for image in self.images) else 0

    @property
    def _bars_px(self) -> int:
        return theme().px(BAR_PX) if any(self._has_bar(image) for image in self.images) else 0

    @staticmethod
    def _has_bar(image: Image) -> bool:
        return image.kind != "picture" and not image.is_curve

    def place_at(self, position: QPoint) -> Place | None:
        """Return the place under a point of the viewport, in the first image; None beside the images."""
        for image, rect in zip(self.images, self._rects(self.viewport().size()), strict=True):
            if rect.contains(QPointF(position)):
                rows, columns = image.values.shape[:2]
                row = min(int((position.y() - rect.top()) / rect.height() * rows), rows - 1)
                column = min(int((position.x() - rect.left()) / rect.width() * columns), columns - 1)
                return row * image.factor[0], column * image.factor[1]
        return None

    # ---- painting

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint titles, images, marks and colour bars."""
        palette = theme().palette
        painter.setFont(theme().font("small"))
        rects = self._rects(size)
        painter.setOpacity(0.4 if self.faded else 1.0)
        for image, pixels, rect in zip(self.images, self._pixels, rects, strict=True):
            painter.setPen(palette.color("muted"))
            if image.title:
                head = QRectF(rect.left(), rect.top() - self._title_px, max(rect.width(), 60), self._title_px)
                words = painter.fontMetrics().elidedText(image.title, Qt.TextElideMode.ElideRight, int(head.width()))
                painter.drawText(head, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, words)
            if pixels is None:
                self._paint_curve(painter, rect, image, palette)
            else:
                self._paint_image(painter, rect, image, pixels, palette)
        painter.setOpacity(1.0)
        for image, rect in zip(self.images, rects, strict=True):
            self._paint_marks(painter, rect, image, palette)
        if self._bars_px and rects:
            top = min(max(rect.bottom() for rect in rects) + theme().px(4), size.height() - self._bars_px)
            self._paint_bars(painter, QRectF(0, top, size.width(), self._bars_px), rects, palette)

    def _paint_image(self, painter: QPainter, rect: QRectF, image: Image, pixels: QImage, palette: Palette) -> None:
        shrinks = rect.width() < pixels.width() or rect.height() < pixels.height()
        smooth = shrinks or (image.kind == "picture" and pixels.width() > 96)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, smooth)
        if painter.paintEngine().type() is QPaintEngine.Type.SVG and not shrinks:
            # What shows the file would blur values into each other.
            pixels = pixels.scaled(rect.size().toSize() * 2)
        painter.drawImage(rect, pixels)
        if not image.tile[0]:
            return
        rows, columns = image.values.shape[:2]
        high, wide = image.tile[0] * rect.height() / rows, image.tile[1] * rect.width() / columns
        across = columns // image.tile[1]
        for number in range(image.tiles or 1, rows // image.tile[0] * across if image.tiles else 0):
            row, column = divmod(number, across)
            left, top = rect.left() + column * wide, rect.top() + row * high
            painter.fillRect(QRectF(left, top, wide + 1, high + 1), QColor(palette.surface))
        if min(high, wide) < TILE_PX or image.tile == (1, 1):
            return
        painter.setPen(QPen(QColor(palette.surface), 1))
        for number in range(1, round(rect.width() / wide)):
            x = round(rect.left() + number * wide)
            painter.drawLine(QPointF(x, rect.top()), QPointF(x, rect.bottom()))
        for number in range(1, round(rect.height() / high)):
            y = round(rect.top() + number * high)
            painter.drawLine(QPointF(rect.left(), y), QPointF(rect.right(), y))

    def _paint_curve(self, painter: QPainter, rect: QRectF, image: Image, palette: Palette) -> None:
        """Paint a vector on the scale of its kind, with the ends of the scale and the line of 0."""
        low, high = self.ranges[image.kind]
        values = np.nan_to_num(image.values[0].astype(np.float64))
        span = high - low or 1.0
        painter.setPen(QPen(palette.color("line"), 1))
        painter.drawRect(rect.adjusted(0, 0, -1, -1))

        def y_of(value: float) -> float:
            return rect.bottom() - 2 - (value - low) / span * (rect.height() - 4)

        zero = y_of(min(max(0.0, low), high))
        painter.drawLine(QPointF(rect.left(), zero), QPointF(rect.right(), zero))
        step = rect.width() / len(values)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(palette.color(image.colour))
        if step >= 2:
            wide = max(step - (1 if step >= 4 else 0), 1.0)
            for number, value in enumerate(values):
                y = y_of(float(value))
                painter.drawRect(QRectF(rect.left() + number * step, min(y, zero), wide, max(abs(zero - y), 1.0)))
        else:
            # A bar of a pixel for all values that fall on it, from 0 to the farthest of them on either side.
            edges = np.unique(np.linspace(0, len(values), max(int(rect.width()), 1), endpoint=False).astype(int))
            least = np.minimum(np.minimum.reduceat(values, edges), max(low, 0.0))
            most = np.maximum(np.maximum.reduceat(values, edges), min(high, 0.0))
            for x, bottom, top in zip(edges / len(values) * rect.width(), least, most, strict=True):
                y = y_of(float(top))
                painter.drawRect(QRectF(rect.left() + x, y, 1.0, max(y_of(float(bottom)) - y, 1.0)))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(palette.color("muted"))
        line = painter.fontMetrics().height()
        for value, top in ((high, rect.top()), (low, rect.bottom() - line)):
            words = QRectF(rect.right() + theme().px(4), top, theme().px(SCALE_PX), line)
            painter.drawText(words, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, short(value))

    def _paint_marks(self, painter: QPainter, rect: QRectF, image: Image, palette: Palette) -> None:
        rows, columns = image.values.shape[:2]
        high, wide = rect.height() / rows, rect.width() / columns
        down, across = (max(side, 1) for side in image.tile)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if self.marked is not None and image.tile[0]:
            box = QRectF(self.marked[1] * across * wide, self.marked[0] * down * high, across * wide, down * high)
            painter.setPen(QPen(palette.color("accent"), 2))
            painter.drawRect(box.translated(rect.topLeft()))
        if self.hovered is not None:
            row, column = self.hovered[0] // image.factor[0], self.hovered[1] // image.factor[1]
            box = QRectF(column * wide, row * high, max(wide, 3.0), max(high, 3.0))
            painter.setPen(QPen(palette.color("text"), 1))
            painter.drawRect(box.translated(rect.topLeft()))

    def _paint_bars(self, painter: QPainter, rect: QRectF, rects: list[QRectF], palette: Palette) -> None:
        """Paint a scale for each kind: under its first image where all stand in one row, else side by side."""
        kinds = [kind for kind in self.ranges if any(self._has_bar(i) and i.kind == kind for i in self.images)]
        pad = theme().px(GAP_PX)
        even = min((rect.width() - pad) / len(kinds) - pad, theme().px(220))
        one_row = len({place.top() for place in rects}) == 1
        names = {"value": tr("value"), "difference": tr("difference"), "error": tr("error")}
        for number, kind in enumerate(kinds):
            first = next(place for image, place in zip(self.images, rects, strict=True) if image.kind == kind)
            beneath = one_row and first.width() >= theme().px(96)
            left = first.left() if beneath else pad + number * (even + pad)
            wide = min(first.width(), theme().px(220)) if beneath else even
            low, high = self.ranges[kind]
            ramp = mapped(np.linspace(low, high, 256)[None], low, high, self._table(kind))
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, True)
            painter.drawImage(QRectF(left, rect.top() + 2, wide, theme().px(8)), ramp)
            painter.setPen(palette.color("muted"))
            words = QRectF(left, rect.top() + theme().px(10), wide, rect.height() - theme().px(10))
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.drawText(words, middle | Qt.AlignmentFlag.AlignLeft, short(low))
            painter.drawText(words, middle | Qt.AlignmentFlag.AlignRight, short(high))
            title = "0" if kind == "difference" and wide < theme().px(150) else names[kind]
            ends = painter.fontMetrics().horizontalAdvance(short(low) + short(high) + title)
            if ends + 2 * pad < wide:
                painter.drawText(words, middle | Qt.AlignmentFlag.AlignHCenter, title)

    # ---- the person

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Mark the place under the mouse in every image."""
        self._hover(self.place_at(event.position().toPoint()) if not self.message else None)

    def leaveEvent(self, event: QEvent) -> None:
        """Mark nothing."""
        super().leaveEvent(event)
        self._hover(None)

    def _hover(self, place: Place | None) -> None:
        if place != self.hovered:
            self.hovered = place
            self.viewport().update()
            self.place_hovered.emit(place)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Tell the place that is clicked."""
        place = self.place_at(event.position().toPoint())
        if event.button() == Qt.MouseButton.LeftButton and place is not None and not self.message:
            self.place_clicked.emit(place)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End what a press began; it is nobody else's."""
        event.accept()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move the mark with the arrows, take its place with Return."""
        steps: dict[int, Place] = {
            Qt.Key.Key_Left: (0, -1),
            Qt.Key.Key_Right: (0, 1),
            Qt.Key.Key_Up: (-1, 0),
            Qt.Key.Key_Down: (1, 0),
        }
        step = steps.get(event.key())
        taken = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if not self.images or self.message or (step is None and not (taken and self.hovered is not None)):
            super().keyPressEvent(event)
        elif step is None:
            self.place_clicked.emit(self.hovered)
        elif self.hovered is None:
            self._hover((0, 0))
        else:
            image = self.images[0]
            rows, columns = (size * by for size, by in zip(image.values.shape[:2], image.factor, strict=True))
            row, column = self.hovered[0] + step[0] * image.factor[0], self.hovered[1] + step[1] * image.factor[1]
            self._hover((min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)))

    def viewportEvent(self, event: QEvent) -> bool:
        """Tell in a tooltip what is under the mouse, elsewhere what the figure is."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            place = self.place_at(event.pos()) if not self.message else None
            where, _, values = (self.place_help(place) if place is not None else "").partition(": ")
            # Narrow, so that it covers little of what is looked at.
            words = "\n".join([where, *values.split(", ")]) if values else self.toolTip()
            QToolTip.showText(event.globalPos(), words, self)
            return True
        if event.type() == QEvent.Type.Leave:
            self._hover(None)
        return bool(super().viewportEvent(event))

    def columns(self) -> tuple[Column, ...]:
        """Return row, column and a value of each image for every place; images of another size have their own."""
        found: list[Column] = []
        last: tuple[int, ...] = ()
        for image in self.images:
            shape = image.values.shape
            if shape[:2] != last:
                rows, columns = np.indices(shape[:2]).reshape(2, -1)
                found += [(tr("row"), rows), (tr("column"), columns)]
                last = shape[:2]
            parts = image.values.reshape(shape[0] * shape[1], -1).T
            titles = [image.title or tr("value")] if len(parts) == 1 else ["red", "green", "blue"]
            found += list(zip(titles, parts, strict=True))
        return tuple(found)
