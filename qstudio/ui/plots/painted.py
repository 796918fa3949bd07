"""Figures painted by hand: too many items, or items too regular, for a plot. They scroll and paint what is seen."""

from __future__ import annotations

from PySide6.QtCore import QBuffer, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QAbstractScrollArea, QLabel, QWidget

from qstudio.ui.data.colormap import VIRIDIS
from qstudio.ui.plots.take_away import TakeAway
from qstudio.ui.theme import Palette, theme

LARGEST_PICTURE_PX = 12_000
"""Longest edge of a saved picture, before it is doubled: Qt's raster images end at 32,767 pixels."""


def viridis(share: float) -> QColor:
    """Return the colour at 0..1 of viridis."""
    position = min(max(share, 0.0), 1.0) * (len(VIRIDIS) - 1)
    below = min(int(position), len(VIRIDIS) - 2)
    part = position - below
    red, green, blue = (a + (b - a) * part for a, b in zip(VIRIDIS[below], VIRIDIS[below + 1], strict=True))
    return QColor(round(red), round(green), round(blue))


def ink_on(ground: QColor) -> QColor:
    """Return black or white, whichever is read better on a colour (luma of ITU-R BT.601)."""
    luma = 0.299 * ground.red() + 0.587 * ground.green() + 0.114 * ground.blue()
    return QColor("#000000") if luma > 128 else QColor("#FFFFFF")


class Painted(TakeAway, QAbstractScrollArea):
    """A figure that paints itself into any painter; subclasses give its size and paint a part of it.

    Coordinates are those of the whole figure. What `fixed` margins hold does not scroll.
    """

    notice_posted = Signal(object)
    """Notice: a picture or file was saved, or could not be."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setFrameShape(self.Shape.NoFrame)
        self.viewport().setMouseTracking(True)
        self._message = QLabel(self)
        self._message.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._message.setWordWrap(True)
        self._message.setProperty("role", "muted")
        self._message.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._message.hide()
        theme().changed.connect(self._on_theme_changed)

    # ---- what subclasses say

    def whole_size(self) -> QSize:
        """Return the size of the whole figure at the viewport's present size."""
        return self.viewport().size()

    def paint(self, painter: QPainter, seen: QRect, size: QSize) -> None:
        """Paint what lies in `seen`, in the coordinates of a figure of this size."""

    # ---- Qt

    def _on_theme_changed(self, _palette: Palette) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Take in another size and paint again."""
        view, whole = self.viewport().size(), self.whole_size()
        for bar, length, room in (
            (self.horizontalScrollBar(), whole.width(), view.width()),
            (self.verticalScrollBar(), whole.height(), view.height()),
        ):
            bar.setRange(0, 0 if self.message else max(length - room, 0))
            bar.setPageStep(room)
            bar.setSingleStep(theme().px(24))
        self.viewport().update()

    @property
    def offset_x(self) -> int:
        """How far the figure is scrolled to the right."""
        return int(self.horizontalScrollBar().value())

    @property
    def offset_y(self) -> int:
        """How far the figure is scrolled down."""
        return int(self.verticalScrollBar().value())

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint what is seen."""
        painter = QPainter(self.viewport())
        painter.fillRect(self.viewport().rect(), QColor(theme().palette.surface))
        if not self.message:
            painter.translate(-self.offset_x, -self.offset_y)
            seen = QRect(self.offset_x, self.offset_y, self.viewport().width(), self.viewport().height())
            self.paint(painter, seen, self.whole_size())
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the message in the middle and the scroll bars right."""
        super().resizeEvent(event)
        margin = theme().px(24)
        self._message.setGeometry(margin, 0, max(self.width() - 2 * margin, 0), self.height())
        self.refresh()

    def scrollContentsBy(self, _dx: int, _dy: int) -> None:
        """Paint again: margins that do not scroll cannot be moved with the rest."""
        self.viewport().update()

    def minimumSizeHint(self) -> QSize:
        """Let layouts make figures small."""
        return QSize(theme().px(160), theme().px(80))

    # ---- words

    def set_message(self, text: str) -> None:
        """Show words instead of data (why there is none, what to do); empty shows the data again."""
        if text != self._message.text() or self._message.isHidden() == bool(text):
            self._message.setText(text)
            self._message.setVisible(bool(text))
            self.setAccessibleDescription(text)
        self.refresh()

    @property
    def message(self) -> str:
        """The words shown instead of data; empty when data is shown."""
        return "" if self._message.isHidden() else self._message.text()

    # ---- pictures of the whole

    def picture(self) -> QImage:
        """Return the whole figure as an image, twice as wide as on the screen."""
        size = self._picture_size()
        image = QImage(size * 2, QImage.Format.Format_ARGB32)
        painter = QPainter(image)
        painter.scale(2, 2)
        self._paint_whole(painter, size)
        painter.end()
        return image

    def svg(self) -> bytes:
        """Return the whole figure as an SVG document."""
        size = self._picture_size()
        buffer = QBuffer()
        buffer.open(QBuffer.OpenModeFlag.WriteOnly)
        generator = QSvgGenerator()
        generator.setOutputDevice(buffer)
        generator.setTitle(self.name)
        generator.setSize(size)
        generator.setViewBox(QRectF(0, 0, size.width(), size.height()))
        painter = QPainter(generator)
        self._paint_whole(painter, size)
        painter.end()
        return bytes(buffer.data().data())

    def _picture_size(self) -> QSize:
        return self.whole_size().boundedTo(QSize(LARGEST_PICTURE_PX, LARGEST_PICTURE_PX)).expandedTo(QSize(16, 16))

    def _paint_whole(self, painter: QPainter, size: QSize) -> None:
        seen = QRect(0, 0, size.width(), size.height())
        painter.fillRect(seen, QColor(theme().palette.surface))
        self.paint(painter, seen, size)
