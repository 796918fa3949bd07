"""Bits of every layer as bars that can be painted over, and the same as a picture for a tooltip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QBuffer, QEvent, QPoint, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHelpEvent, QImage, QKeyEvent, QMouseEvent, QPainter, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from qstudio.core.scheme import FLOAT_BITS
from qstudio.ui.plots.painted import Painted, ink_on, viridis
from qstudio.ui.plots.take_away import Column
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme

LEVELS = (1, 2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
"""Widths a bar can be painted to, by height: one step each."""

BAR_PX = (15, 44)
"""Narrowest and widest bar."""


def level(bits: int) -> int:
    """Return the height of a width in steps, 1 to 10: widths between 8 and 16 stand with 16, wider ones with float."""
    for step, known in enumerate(LEVELS, 1):
        if bits <= known:
            return step
    return len(LEVELS)


def bits_color(bits: int) -> QColor:
    """Return the colour of a width: viridis, dark for few bits."""
    return viridis((level(bits) - 1) / (len(LEVELS) - 1))


def bits_text(bits: int) -> str:
    """Return a width in a letter or two."""
    return "F" if bits >= FLOAT_BITS else str(bits)


@dataclass(frozen=True)
class BitBar:
    """One layer."""

    name: str
    weight: int | None
    """Bits; None where the layer has no weight."""
    activation: int | None
    """Bits; None where the layer puts out no tensor with an encoding of its own."""


class BitBars(Painted):
    """A column for each layer: weight bits above, activation bits below.

    Pressing and dragging paints widths over layers, at the height of the mouse; a click on a bar's caption selects.
    Arrows move the selection; other keys go to the window.
    """

    bar_selected = Signal(str)
    bar_painted = Signal(str, int, bool)
    """Layer, bits, whether of its activation."""
    paint_ended = Signal()
    """The mouse was released after painting."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, parent)
        self.bars: tuple[BitBar, ...] = ()
        self.selected: frozenset[str] = frozenset()
        self.current = ""
        self._painting: bool | None = None
        """Whether activations are being painted; None while nothing is."""
        self._painted: tuple[str, int] | None = None

    # ---- content

    def set_bars(self, bars: tuple[BitBar, ...]) -> None:
        """Show these layers."""
        same = len(bars) == len(self.bars)
        self.bars = bars
        if same:
            self.viewport().update()
        else:
            self.refresh()

    def set_selected(self, names: tuple[str, ...]) -> None:
        """Mark layers; the first is scrolled into view where it is another one than before."""
        self.selected = frozenset(names)
        if names and names[0] != self.current:
            self.current = names[0]
            self._reveal()
        self.viewport().update()

    def _reveal(self) -> None:
        place = next((n for n, bar in enumerate(self.bars) if bar.name == self.current), None)
        if place is None or self._painting is not None:
            return
        width, room = self._bar_px, self.viewport().width() - self._axis_px
        bar = self.horizontalScrollBar()
        bar.setValue(min(max(bar.value(), (place + 1) * width - room), place * width))

    # ---- geometry

    @property
    def _axis_px(self) -> int:
        return theme().px(44)

    @property
    def _foot_px(self) -> int:
        return theme().px(20)

    @property
    def _bar_px(self) -> int:
        room = max(self.viewport().width() - self._axis_px, 1)
        return min(max(room // max(len(self.bars), 1), theme().px(BAR_PX[0])), theme().px(BAR_PX[1]))

    def whole_size(self) -> QSize:
        """Return the size at the viewport's height."""
        return QSize(self._axis_px + self._bar_px * len(self.bars), self.viewport().height())

    def _lanes(self, height: int) -> tuple[QRect, QRect]:
        """Return top and bottom of the weights' and of the activations' lane (x and width mean nothing)."""
        room = height - 2 * self._foot_px
        upper = room * 3 // 5
        top = self._foot_px // 2
        return QRect(0, top, 1, upper), QRect(0, top + upper + self._foot_px, 1, room - upper)

    def _bar_at(self, x: int) -> int:
        number = (x - self._axis_px + self.offset_x) // self._bar_px
        return number if x >= self._axis_px and 0 <= number < len(self.bars) else -1

    @staticmethod
    def _bits_at(lane: QRect, y: int) -> int:
        step = (lane.bottom() + 1 - y) * len(LEVELS) / max(lane.height(), 1)
        return LEVELS[min(max(int(step), 0), len(LEVELS) - 1)]

    # ---- painting

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint the bars that are seen, then the axis over them."""
        palette = theme().palette
        painter.setFont(theme().font("small"))
        lanes = self._lanes(size.height())
        width, axis = self._bar_px, self._axis_px
        first = max((seen.left()) // width, 0)
        last = min((seen.right() - axis) // width + 1, len(self.bars))
        for lane in lanes:
            painter.setPen(palette.color("line"))
            for step in (2, 4, 6, 8):
                y = lane.bottom() + 1 - lane.height() * step // len(LEVELS)
                painter.drawLine(seen.left(), y, seen.right(), y)
        for number in range(first, last):
            self._paint_bar(painter, axis + number * width, width, lanes, self.bars[number], size, palette)
        self._paint_axis(painter, seen, lanes, palette)

    def _paint_bar(
        self,
        painter: QPainter,
        x: int,
        width: int,
        lanes: tuple[QRect, QRect],
        bar: BitBar,
        size: QSize,
        palette: Palette,
    ) -> None:
        if bar.name in self.selected:
            painter.fillRect(QRect(x, 0, width, size.height()), QColor(palette.unrepresentable))
        for lane, bits in zip(lanes, (bar.weight, bar.activation), strict=True):
            if bits is None:
                continue
            height = lane.height() * level(bits) // len(LEVELS)
            box = QRect(x + 1, lane.bottom() + 1 - height, width - 2, height)
            ground = bits_color(bits)
            painter.fillRect(box, ground)
            text = QRect(box.left() - 2, box.top(), box.width() + 4, min(box.height(), painter.fontMetrics().height()))
            if text.height() >= painter.fontMetrics().ascent():
                painter.setPen(ink_on(ground))
                painter.drawText(text, Qt.AlignmentFlag.AlignCenter, bits_text(bits))
        if bar.name in self.selected:
            painter.setPen(QPen(palette.color("accent"), 2))
            painter.drawRect(QRectF(x + 1, 1, width - 2, size.height() - 2))

    def _paint_axis(self, painter: QPainter, seen: QRect, lanes: tuple[QRect, QRect], palette: Palette) -> None:
        rect = QRect(seen.left(), seen.top(), self._axis_px - 4, seen.height())
        painter.fillRect(rect, QColor(palette.surface))
        painter.setPen(palette.color("muted"))
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        line = painter.fontMetrics().height()
        for lane, letter in zip(lanes, ("W", "A"), strict=True):
            for step in (2, 4, 6, 8, 9, 10):
                y = lane.bottom() + 1 - lane.height() * step // len(LEVELS)
                place = QRect(rect.left(), y - line // 2, rect.width() - 4, line)
                if lane.height() // len(LEVELS) * 2 >= line or step in (4, 8):
                    painter.drawText(place, right, bits_text(LEVELS[step - 1]))
            painter.drawText(
                QRect(rect.left() + 4, lane.top(), rect.width(), lane.height()), Qt.AlignmentFlag.AlignVCenter, letter
            )

    # ---- the person

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select the layer; in a lane, paint."""
        if event.button() != Qt.MouseButton.LeftButton or self.message:
            return
        place = event.position().toPoint()
        number = self._bar_at(place.x())
        if number < 0:
            return
        self.current = self.bars[number].name
        self.bar_selected.emit(self.current)
        lanes = self._lanes(self.viewport().height())
        inside = [lane.top() - self._foot_px // 2 <= place.y() <= lane.bottom() for lane in lanes]
        if any(inside):
            self._painting, self._painted = inside[1], None
            self._paint_at(place)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Paint the layers the mouse is drawn over."""
        if self._painting is not None and event.buttons() & Qt.MouseButton.LeftButton:
            self._paint_at(event.position().toPoint())

    def mouseReleaseEvent(self, _event: QMouseEvent) -> None:
        """End the painting."""
        if self._painting is not None:
            self._painting = None
            self.paint_ended.emit()

    def _paint_at(self, place: QPoint) -> None:
        number = self._bar_at(place.x())
        if number < 0 or self._painting is None:
            return
        bar = self.bars[number]
        bits = self._bits_at(self._lanes(self.viewport().height())[1 if self._painting else 0], place.y())
        present = bar.activation if self._painting else bar.weight
        if (bar.name, bits) == self._painted or present is None:
            return
        self._painted = (bar.name, bits)
        if bits != present:
            self.bar_painted.emit(bar.name, bits, self._painting)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move with the arrows."""
        names = [bar.name for bar in self.bars]
        key = event.key()
        if names and key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            at = names.index(self.current) if self.current in names else -1
            step = 1 if key == Qt.Key.Key_Right else -1
            self.current = names[min(max(at + step, 0), len(names) - 1)]
            self._reveal()
            self.bar_selected.emit(self.current)
        else:
            event.ignore()

    def viewportEvent(self, event: QEvent) -> bool:
        """Tell in a tooltip what is under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            number = self._bar_at(event.pos().x())
            words = self.toolTip()
            if number >= 0 and not self.message:
                words = f"{bar_words(self.bars[number])}\n{words}"
            QToolTip.showText(event.globalPos(), words, self)
            return True
        return bool(super().viewportEvent(event))

    def columns(self) -> tuple[Column, ...]:
        """Return the bits of every layer."""
        return (
            (tr("layer"), [bar.name for bar in self.bars]),
            (tr("weight bits"), ["" if bar.weight is None else bar.weight for bar in self.bars]),
            (tr("activation bits"), ["" if bar.activation is None else bar.activation for bar in self.bars]),
        )


def bar_words(bar: BitBar) -> str:
    """Return a layer's bits in words."""
    sides = ((tr("weights"), bar.weight), (tr("activations"), bar.activation))
    parts = [
        f"{name} {tr('float') if bits >= FLOAT_BITS else f'{bits} ' + tr('bits')}"
        for name, bits in sides
        if bits is not None
    ]
    return f"{bar.name}: {', '.join(parts)}"


def bits_picture(bits: Sequence[int], width: int = 240, height: int = 40) -> str:
    """Return a small picture of bits per layer as an HTML image for a tooltip."""
    image = QImage(width, height, QImage.Format.Format_ARGB32)
    image.fill(QColor(theme().palette.surface))
    painter = QPainter(image)
    step = width / max(len(bits), 1)
    for number, value in enumerate(bits):
        tall = height * level(value) / len(LEVELS)
        painter.fillRect(QRectF(number * step, height - tall, max(step - 1, 1), tall), bits_color(value))
    painter.end()
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")  # type: ignore[call-overload]
    return f'<img src="data:image/png;base64,{bytes(buffer.data().toBase64().data()).decode()}" width="{width}"/>'
