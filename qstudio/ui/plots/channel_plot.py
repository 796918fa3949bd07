"""Ranges of the channels as boxes, against what can be represented."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, Signal
from PySide6.QtWidgets import QWidget

from qstudio.session.curves import ChannelRanges
from qstudio.ui.plots.base import Column, Plot
from qstudio.ui.text import format_db, format_value, tr
from qstudio.ui.theme import Palette

NOTHING = np.zeros(0)


class ChannelPlot(Plot):
    """A box from minimum to maximum for each channel; the worst one stands out, hover names any of them."""

    channel_hovered = Signal(object)
    """Index of the channel under the mouse, None when there is none."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, tr("channel"), tr("range"), parent, zoomable=True)
        self.ranges: ChannelRanges | None = None
        self.order: NDArray[np.int64] = np.zeros(0, np.int64)
        """[C] channel shown at each place."""
        self._sorted = False
        self._hovered: int | None = None
        self._reach = pg.BarGraphItem(x=NOTHING, width=1.0, y0=NOTHING, y1=NOTHING, pen=None)
        self._boxes = pg.BarGraphItem(x=NOTHING, width=0.7, y0=NOTHING, y1=NOTHING, pen=None)
        self._worst = pg.BarGraphItem(x=NOTHING, width=0.7, y0=NOTHING, y1=NOTHING, pen=None)
        self._frame = pg.BarGraphItem(x=NOTHING, width=1.0, y0=NOTHING, y1=NOTHING, brush=None)
        self._band = (pg.InfiniteLine(angle=0), pg.InfiniteLine(angle=0))
        for item in (self._reach, self._boxes, self._worst, self._frame, *self._band):
            self.addItem(item)
        for line in self._band:
            line.setVisible(False)
        self.scene().sigMouseMoved.connect(self._on_mouse_moved)
        self.start()

    def set_ranges(self, ranges: ChannelRanges | None) -> None:
        """Show another tensor's channels; None clears."""
        same = ranges is not None and self.ranges is not None and len(ranges.low) == len(self.ranges.low)
        self.ranges = ranges
        self._hovered = None
        self._draw(fit=not same)

    def set_sorted(self, on: bool) -> None:
        """Show the widest channel first, or the channels in order."""
        if on != self._sorted:
            self._sorted = on
            self.set_axis_label("bottom", tr("channels, widest first") if on else tr("channel"))
            self._draw(fit=True)

    def show_everything(self) -> None:
        """Undo zooming and panning."""
        self._draw(fit=True)

    def _draw(self, fit: bool) -> None:
        ranges = self.ranges
        empty = {"x": NOTHING, "y0": NOTHING, "y1": NOTHING}
        if ranges is None or not len(ranges.low):
            for item in (self._reach, self._boxes, self._worst, self._frame):
                item.setOpts(**empty)
            for line in self._band:
                line.setVisible(False)
            self.order = np.zeros(0, np.int64)
            return
        count = len(ranges.low)
        self.order = np.argsort(ranges.low - ranges.high, kind="stable") if self._sorted else np.arange(count)
        places = np.arange(count, dtype=np.float64)
        low, high = ranges.low[self.order], ranges.high[self.order]
        ordinary = np.ones(count, bool)
        if ranges.worst is not None:
            ordinary = self.order != ranges.worst
        self._boxes.setOpts(x=places[ordinary], y0=low[ordinary], y1=high[ordinary])
        self._worst.setOpts(x=places[~ordinary], y0=low[~ordinary], y1=high[~ordinary])
        if ranges.reach_low is not None and ranges.reach_high is not None:
            self._reach.setOpts(x=places, y0=ranges.reach_low[self.order], y1=ranges.reach_high[self.order])
        else:
            self._reach.setOpts(**empty)
        self._frame.setOpts(**empty)
        for line, value in zip(self._band, ranges.band or (0.0, 0.0), strict=True):
            line.setVisible(ranges.band is not None)
            line.setPos(value)
        self._say_legend(ranges)
        if fit:
            self._fit(ranges, count)

    def _fit(self, ranges: ChannelRanges, count: int) -> None:
        view = self.getViewBox()
        view.setLimits(xMin=-1.5, xMax=count + 0.5, minXRange=min(8, count + 1))
        view.setXRange(-0.8, count - 0.2, padding=0)
        bottom, top = min(float(ranges.low.min()), 0.0), max(float(ranges.high.max()), 0.0)
        if ranges.band is not None:
            bottom, top = min(bottom, ranges.band[0]), max(top, ranges.band[1])
        pad = 0.08 * ((top - bottom) or 1.0)
        self.setYRange(bottom - pad, top + pad, padding=0)

    def _say_legend(self, ranges: ChannelRanges) -> None:
        entries = [("■", "float", tr("values"))]
        if ranges.worst is not None:
            entries.append(("■", "worse", tr("lowest SQNR")))
        if ranges.reach_low is not None:
            entries.append(("■", "quantized", tr("scales per channel")))
        if ranges.band is not None:
            entries.append(("╌", "quantized", tr("one scale")))
        self.set_legend(*entries)

    def channel_at(self, x: float) -> int | None:
        """Return the channel drawn at a place on the x axis, None beside the boxes."""
        place = round(x)
        return int(self.order[place]) if 0 <= place < len(self.order) else None

    def describe(self, channel: int) -> str:
        """Return what there is to say about a channel, in one line."""
        ranges = self.ranges
        if ranges is None:
            return ""
        low, high = float(ranges.low[channel]), float(ranges.high[channel])
        text = f"{tr('channel')} {channel}: {format_value(low)} … {format_value(high)}"
        spans = ranges.high - ranges.low
        median = float(np.median(spans))
        if median > 0:
            text += f", {spans[channel] / median:.1f}× {tr('the median span')}"
        if ranges.sqnr_db is not None:
            text += f", {'' if ranges.exact else '~'}{format_db(float(ranges.sqnr_db[channel]))}"
        return text

    def _on_mouse_moved(self, position: QPointF) -> None:
        view = self.getViewBox()
        channel = None
        if view.sceneBoundingRect().contains(position):
            channel = self.channel_at(view.mapSceneToView(position).x())
        if channel != self._hovered:
            self.mark(channel)

    def mark(self, channel: int | None) -> None:
        """Frame a channel and tell of it, as if the mouse were over it; None takes the frame away."""
        self._hovered = channel
        self.setToolTip(self.describe(channel) if channel is not None else "")
        if channel is None:
            self._frame.setOpts(x=NOTHING, y0=NOTHING, y1=NOTHING)
        elif self.ranges is not None:
            place = np.flatnonzero(self.order == channel).astype(np.float64)
            bottom, top = self.getViewBox().viewRange()[1]
            self._frame.setOpts(x=place, y0=np.array([bottom]), y1=np.array([top]))
        self.channel_hovered.emit(channel)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        reach = palette.color("quantized")
        reach.setAlpha(56)
        self._reach.setOpts(brush=pg.mkBrush(reach))
        self._boxes.setOpts(brush=pg.mkBrush(palette.float))
        self._worst.setOpts(brush=pg.mkBrush(palette.worse))
        self._frame.setOpts(pen=pg.mkPen(palette.accent, width=1), brush=pg.mkBrush(None))
        for line in self._band:
            line.setPen(pg.mkPen(palette.quantized, width=1.2, style=pg.QtCore.Qt.PenStyle.DashLine))

    def columns(self) -> tuple[Column, ...]:
        """Return one row for each channel, in the order shown."""
        ranges = self.ranges
        if ranges is None:
            return ()
        columns: list[Column] = [
            (tr("channel"), self.order),
            (tr("minimum"), ranges.low[self.order]),
            (tr("maximum"), ranges.high[self.order]),
        ]
        if ranges.sqnr_db is not None:
            columns.append(("SQNR, dB", ranges.sqnr_db[self.order]))
        return tuple(columns)
