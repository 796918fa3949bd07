"""What all plots share: the theme, calm axes, a legend line, a picture of themselves."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
import pyqtgraph.exporters  # registers the exporters; pyqtgraph does not do it by itself
from PySide6.QtCore import QBuffer, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QResizeEvent
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QLabel, QWidget

from qstudio.ui.plots.take_away import Column as Column
from qstudio.ui.plots.take_away import TakeAway
from qstudio.ui.theme import Palette, theme

AXIS_WIDTH = 46
"""Pixels of every left axis, so that plots above each other line up and nothing moves when numbers change."""


AXIS_HEIGHT = 34
"""Pixels of every bottom axis: one line of numbers and one of words."""


class CalmAxis(pg.AxisItem):  # type: ignore[misc]
    """An axis with few, short numbers and no unit prefixes."""

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        """Return plain numbers with as many digits as the spacing needs."""
        digits = max(0, -int(np.floor(np.log10(spacing)))) if spacing > 0 else 0
        if digits > 5 or (values and max(abs(v) for v in values) >= 1e6):
            return [f"{v:.3g}" for v in values]
        return [f"{v:.{digits}f}" if v else "0" for v in values]


class CalmViewBox(pg.ViewBox):  # type: ignore[misc]
    """A view that zooms with the wheel along x, pans with the left button, and never opens a menu of its own."""

    def __init__(self, zoomable: bool) -> None:
        super().__init__(enableMenu=False, defaultPadding=0.0)
        self.zoomable = zoomable
        self.setMouseEnabled(x=zoomable, y=False)

    def mouseDragEvent(self, ev: object, axis: int | None = None) -> None:
        """Pan with the left button only."""
        if self.zoomable and ev.button() == Qt.MouseButton.LeftButton:  # type: ignore[attr-defined]
            super().mouseDragEvent(ev, axis)

    def wheelEvent(self, ev: object, axis: int | None = None) -> None:
        """Zoom where the plot allows it; elsewhere the wheel scrolls the page."""
        if self.zoomable:
            super().wheelEvent(ev, axis)
        else:
            ev.ignore()  # type: ignore[attr-defined]


class Plot(TakeAway, pg.PlotWidget):  # type: ignore[misc]
    """A plot that follows the theme and gives away its picture and its data.

    Subclasses add items once, update them, set their colours in `restyle`, and return their numbers in `columns`.
    """

    notice_posted = Signal(object)
    """Notice: a picture or file was saved, or could not be."""

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None, zoomable: bool = False):
        view = CalmViewBox(zoomable)
        axes = {side: CalmAxis(side) for side in ("bottom", "left")}
        super().__init__(parent, viewBox=view, axisItems=axes, enableMenu=False)  # type: ignore[call-arg]
        self.name = name
        self.can_zoom = zoomable
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setFrameShape(self.Shape.NoFrame)
        self.plotItem.hideButtons()
        menu = self.plotItem.ctrlMenu  # never shown, and without an owner it outlives the plot
        menu.setParent(self, menu.windowFlags())
        self.plotItem.setContentsMargins(0, 0, 8, 0)
        self._labels = {"bottom": x_label, "left": y_label}
        self._legend: tuple[tuple[str, str, str], ...] = ()
        self._message = QLabel(self)
        self._message.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._message.setWordWrap(True)
        self._message.setProperty("role", "muted")
        self._message.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._message.hide()
        theme().changed.connect(self._on_theme_changed)

    # ---- look

    def _on_theme_changed(self, palette: Palette) -> None:
        self._restyle_frame(palette)
        self.restyle(palette)

    def start(self) -> None:
        """Apply the theme for the first time; subclasses call it when their items exist."""
        self._on_theme_changed(theme().palette)

    def restyle(self, palette: Palette) -> None:
        """Give the plot's own items the colours of the palette."""

    def _restyle_frame(self, palette: Palette) -> None:
        self.setBackground(palette.surface)
        small = theme().font("small")
        for side in ("bottom", "left"):
            axis = self.getAxis(side)
            axis.enableAutoSIPrefix(False)
            axis.setPen(pg.mkPen(palette.line))
            axis.setTickPen(pg.mkPen(palette.line))
            axis.setTextPen(pg.mkPen(palette.muted))
            axis.setStyle(tickFont=small, tickLength=-3, tickTextOffset=4, maxTickLevel=0)
            axis.label.setFont(small)
        self.getAxis("left").setWidth(theme().px(AXIS_WIDTH))
        self.getAxis("bottom").setHeight(theme().px(AXIS_HEIGHT))
        self._show_labels()
        self._show_legend()

    def set_axis_label(self, side: str, text: str) -> None:
        """Change what an axis ("bottom" or "left") is called, unit included."""
        if self._labels[side] != text:
            self._labels[side] = text
            self._show_labels()

    def _show_labels(self) -> None:
        size = f"{theme().font('small').pointSizeF():.1f}pt"
        for side, text in self._labels.items():
            self.setLabel(side, text, **{"color": theme().palette.muted, "font-size": size})

    def set_legend(self, *entries: tuple[str, str, str]) -> None:
        """Show a line above the plot: (sign, colour name of the palette, text) for each thing drawn."""
        if entries != self._legend:
            self._legend = entries
            self._show_legend()

    def _show_legend(self) -> None:
        if not self._legend:
            self.plotItem.setTitle(None)
            return
        palette = theme().palette
        text = "&nbsp;&nbsp; ".join(
            f'<span style="color:{getattr(palette, colour)}">{sign}</span>&nbsp;{words}'
            for sign, colour, words in self._legend
        )
        size = f"{theme().font('small').pointSizeF():.1f}pt"
        self.plotItem.setTitle(text, color=palette.muted, size=size, justify="left")
        height = theme().px(20)
        self.plotItem.titleLabel.setMaximumHeight(height)
        self.plotItem.titleLabel.setMinimumWidth(0)  # a long line must not widen the plot
        self.plotItem.layout.setRowFixedHeight(0, height)

    def set_message(self, text: str) -> None:
        """Show words instead of data (why there is none, what to do); empty shows the data again."""
        self._message.setText(text)
        self._message.setVisible(bool(text))
        self.plotItem.setVisible(not text)
        self.setAccessibleDescription(text)

    @property
    def message(self) -> str:
        """The words shown instead of data; empty when data is shown."""
        return "" if self._message.isHidden() else self._message.text()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the message in the middle."""
        super().resizeEvent(event)
        if hasattr(self, "_message"):
            margin = theme().px(24)
            self._message.setGeometry(margin, 0, max(self.width() - 2 * margin, 0), self.height())

    def minimumSizeHint(self) -> QSize:
        """Let layouts make plots small."""
        return QSize(theme().px(160), theme().px(80))

    # ---- taking it away

    def picture(self) -> QImage:
        """Return the plot as an image, twice as wide as on the screen."""
        exporter = pyqtgraph.exporters.ImageExporter(self.plotItem)
        exporter.parameters()["width"] = max(2 * self.width(), 16)
        image: QImage = exporter.export(toBytes=True)
        return image

    def svg(self) -> bytes:
        """Return the plot as an SVG document.

        Drawn by Qt: pyqtgraph's own SVG exporter fails on paths that close (scatter symbols).
        """
        buffer = QBuffer()
        buffer.open(QBuffer.OpenModeFlag.WriteOnly)
        generator = QSvgGenerator()
        generator.setOutputDevice(buffer)
        generator.setTitle(self.name)
        generator.setSize(self.size())
        generator.setViewBox(self.rect())
        painter = QPainter(generator)
        painter.fillRect(self.rect(), QColor(theme().palette.surface))
        self.scene().render(painter, QRectF(self.rect()), self.sceneRect())
        painter.end()
        return bytes(buffer.data().data())
