"""The histogram of a tensor with its clip range: what is kept, what is clipped, and where the codes lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from qstudio.core.statistics import SiteStatistics
from qstudio.session.readout import CalibratorReadout, Readout, short_title
from qstudio.ui.plots.base import Column, Plot
from qstudio.ui.plots.clip_lines import ClipLine, GhostLine
from qstudio.ui.plots.histogram_bars import Bars, Outline, bars_of, outline_of, split
from qstudio.ui.plots.second_outline import SecondOutline
from qstudio.ui.text import format_db, format_percent, format_value, tr
from qstudio.ui.theme import Palette, theme

APART_PX = 3.5
"""Level ticks are drawn while they are at least this many pixels apart."""

NOTHING = np.zeros(0)


class HistogramPlot(Plot):
    """Float bars (kept and clipped in two colours), codes as ticks, grey where no code reaches, calibrators as ghosts.

    Drag an edge of the range to try another; the other edge follows where the scheme is symmetric, and zero always
    stays inside. Double-click a dashed line to take its calibrator.
    """

    clip_dragged = Signal(object)
    """(low, high) at every move of an edge."""
    clip_drag_finished = Signal(object)
    """(low, high) when the edge is let go."""
    calibration_taken = Signal(object)
    """Id of the calibration whose line was double-clicked."""

    def __init__(self, name: str, x_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, tr("count"), parent, zoomable=True)
        self.bars = Bars(np.zeros(1), np.zeros(0, np.int64))
        self.readout: Readout | None = None
        self.dragging = False
        self._statistics: SiteStatistics | None = None
        self._logarithmic = True
        self._outline: Outline | None = None
        self._rows: tuple[CalibratorReadout, ...] = ()
        self._top = 1.0
        self._view_key: object = None
        self._grey = pg.BarGraphItem(x0=NOTHING, x1=NOTHING, y0=NOTHING, y1=NOTHING, pen=None)
        self._kept = pg.BarGraphItem(x0=NOTHING, x1=NOTHING, height=NOTHING, pen=None)
        self._clipped = pg.BarGraphItem(x0=NOTHING, x1=NOTHING, height=NOTHING, pen=None)
        self._spikes = pg.BarGraphItem(x=NOTHING, width=1.0, height=NOTHING, pen=None)
        self._steps = pg.PlotCurveItem([0.0, 1.0], [0.0], stepMode="center")
        self._steps.setVisible(False)
        self._ticks = pg.PlotCurveItem(connect="pairs", antialias=False)
        for item in (self._grey, self._kept, self._clipped, self._spikes, self._steps, self._ticks):
            self.addItem(item)
        self._edges = {"low": ClipLine(), "high": ClipLine()}
        for line in self._edges.values():
            line.setVisible(False)
            line.sigDragged.connect(self._on_dragged)
            line.sigPositionChangeFinished.connect(self._on_drag_finished)
            self.addItem(line)
        self._second = SecondOutline()
        self.addItem(self._second)
        self._ghosts: list[GhostLine] = []
        self._names: list[pg.TextItem] = []
        self.getViewBox().sigXRangeChanged.connect(self._on_view_changed)
        self.getViewBox().sigResized.connect(self._on_view_changed)
        self.start()

    # ---- what is shown

    def set_statistics(self, statistics: SiteStatistics | None) -> None:
        """Take another tensor, to be drawn with its range by `set_readout`; None clears."""
        if statistics is self._statistics:
            return
        self._statistics = statistics
        self._view_key = None
        self.bars = bars_of(statistics.histogram) if statistics is not None else Bars(np.zeros(1), np.zeros(0, int))
        self._outline = None
        self.readout = None
        self.set_ghosts(())
        if statistics is None:
            self.set_readout(None)

    def set_readout(self, readout: Readout | None) -> None:
        """Show a range, its codes and what it clips; None shows the float values alone."""
        self.readout = readout
        self._fit()
        self._draw_bars()
        self._draw_edges()
        self._draw_ticks()
        self._say_legend()

    def set_quantized(self, quantized: tuple[NDArray[np.float64], NDArray[np.int64]] | None) -> None:
        """Lay the quantized values over the bars; None takes them away."""
        self._outline = None
        if quantized is not None and len(quantized[0]) and self.readout is not None and len(self.bars.counts):
            self._outline = outline_of(self.bars, quantized[0], quantized[1], self.readout.step)
        self._fit()
        self._draw_outline()
        self._draw_bars()
        self._draw_ticks()
        self._say_legend()

    def set_second(self, statistics: SiteStatistics | None) -> None:
        """Lay the distribution of other data over the bars, scaled to as many values; None takes it away."""
        self._second.take(None if statistics is None else statistics.histogram, self.bars)
        self._second.draw(self._height)
        self._say_legend()

    def set_ghosts(self, rows: tuple[CalibratorReadout, ...]) -> None:
        """Mark the ranges of the calibrators."""
        self._rows = tuple(row for row in rows if row.clip is not None)
        wanted = [(row, edge) for row in self._rows if row.clip is not None for edge in row.clip if edge != 0.0]
        while len(self._ghosts) < len(wanted):
            line = GhostLine()
            line.restyle(theme().palette)
            line.taken.connect(self.calibration_taken)
            self._ghosts.append(line)
            self.addItem(line)
        for line, (row, edge) in zip(self._ghosts, wanted, strict=False):
            line.calibration = row.calibration
            line.setPos(edge)
            line.setToolTip(_ghost_words(row))
        for number, line in enumerate(self._ghosts):
            line.setVisible(number < len(wanted))
        self._place_names()
        self._say_legend()

    def set_logarithmic(self, on: bool) -> None:
        """Show counts by their logarithm, or as they are."""
        if on != self._logarithmic:
            self._logarithmic = on
            self._fit()
            self._draw_bars()
            self._draw_outline()
            self._draw_ticks()
            self._place_names()

    @property
    def logarithmic(self) -> bool:
        """Whether counts are shown by their logarithm."""
        return self._logarithmic

    def show_everything(self) -> None:
        """Undo zooming and panning."""
        self._view_key = None
        self._fit()

    # ---- drawing

    def _height(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        return np.log10(counts + 1.0) if self._logarithmic else np.asarray(counts, np.float64)

    def _draw_bars(self) -> None:
        low, high = self.readout.clip if self.readout is not None else (-np.inf, np.inf)
        x0, x1, inside, y0, y1, outside = split(self.bars, low, high)
        self._kept.setOpts(x0=x0, x1=x1, height=self._height(inside))
        self._clipped.setOpts(x0=y0, x1=y1, height=self._height(outside))
        if self.readout is None or not len(self.bars.counts):
            self._grey.setOpts(x0=NOTHING, x1=NOTHING, y0=NOTHING, y1=NOTHING)
        else:
            bottom, top = self.readout.error.low, self.readout.error.high
            far = 5.0 * (self.bars.edges[-1] - self.bars.edges[0])
            self._grey.setOpts(
                x0=np.array([bottom - far, top]),
                x1=np.array([bottom, top + far]),
                y0=np.full(2, -self._top),
                y1=np.full(2, 2.0 * self._top),
            )

    def _draw_outline(self) -> None:
        outline = self._outline
        spikes = outline is not None and outline.spikes
        self._spikes.setVisible(spikes)
        self._steps.setVisible(outline is not None and not spikes)
        if outline is None:
            return
        heights = self._height(outline.counts)
        if spikes:
            self._spikes.setOpts(x=outline.edges, width=self.bars.width, height=heights)
        else:
            self._steps.setData(outline.edges, heights)

    def _draw_edges(self) -> None:
        """Put the draggable edges where the range is; the one that is being dragged stays under the mouse."""
        readout, statistics = self.readout, self._statistics
        adjustable = readout is not None and statistics is not None and len(self.bars.counts) > 0
        adjustable = adjustable and (readout is not None and not readout.fixed)
        for side, line in self._edges.items():
            if not adjustable or readout is None or statistics is None:
                line.setVisible(False)
                continue
            histogram = statistics.histogram
            one_sided = not readout.scheme.symmetric and (
                histogram.minimum >= 0 if side == "low" else histogram.maximum <= 0
            )
            position = readout.clip[0 if side == "low" else 1]
            line.setVisible(not (one_sided and position == 0.0))
            if not line.moving:
                left, right = self._reach()
                least = 0.005 * max(-left, right)
                far = (right - left) * 2
                line.setBounds((-far, -least) if side == "low" else (least, far))
                line.setPos(position)

    def _draw_ticks(self) -> None:
        """Draw the codes' values as a comb under the bars, while its teeth stay apart."""
        levels = self.readout.levels if self.readout is not None and len(self.bars.counts) else None
        px = self.getViewBox().viewPixelSize()[0]
        if levels is None or px <= 0 or (levels[-1] - levels[0]) / (len(levels) - 1) < APART_PX * px:
            self._ticks.setData(NOTHING, NOTHING)
            return
        left, right = self.getViewBox().viewRange()[0]
        seen = levels[(levels >= left) & (levels <= right)]
        x = np.repeat(seen, 2)
        self._ticks.setData(x, np.tile([-0.065 * self._top, 0.0], len(seen)))

    def _reach(self) -> tuple[float, float]:
        """Return what the view shows when it shows everything: the data and, within reason, the range."""
        if self._statistics is None:
            return (-1.0, 1.0)
        histogram = self._statistics.histogram
        low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
        if self.readout is not None:
            span = high - low
            low = max(min(low, self.readout.error.low), low - span)
            high = min(max(high, self.readout.error.high), high + span)
        return low, high

    def _fit(self) -> None:
        """Set the view when what is shown has changed, never while an edge is dragged."""
        if not len(self.bars.counts):
            return
        counts = [self.bars.counts.max()] + ([self._outline.counts.max()] if self._outline is not None else [])
        top = float(self._height(np.array([max(counts)]))[0]) or 1.0
        symmetric = self.readout is not None and self.readout.scheme.symmetric
        key = (self._statistics, symmetric, top, self._logarithmic)
        if self.dragging or key == self._view_key:
            return
        keep_x = isinstance(self._view_key, tuple) and self._view_key[:2] == key[:2]
        self._view_key, self._top = key, top
        if not keep_x:
            low, high = self._reach()
            pad = 0.04 * (high - low)
            view = self.getViewBox()
            view.setLimits(xMin=low - 30 * pad, xMax=high + 30 * pad, maxXRange=(high - low) * 3.4)
            view.setXRange(low - pad, high + pad, padding=0)
        self.setYRange(-0.075 * top, 1.26 * top, padding=0)
        self._set_count_ticks(top)
        self._place_names()

    def _set_count_ticks(self, top: float) -> None:
        if self._logarithmic:
            decades = int(np.floor(top)) + 1
            every = -(-decades // 5)
            counts = [10.0**n for n in range(every, decades + 1, every)] if top > 1.5 else [1.0, 3.0, 10.0, 30.0]
            marks = [(0.0, "0")] + [(float(np.log10(count + 1)), _short(count)) for count in counts]
        else:
            step = 10.0 ** np.floor(np.log10(top))
            step = max(1.0, next(step * f for f in (0.2, 0.5, 1.0, 2.0, 5.0) if top / (step * f) <= 5))
            marks = [(value, _short(value)) for value in np.arange(0, 1.05 * top, step)]
        self.getAxis("left").setTicks([[mark for mark in marks if mark[0] <= 1.1 * top]])

    def _place_names(self) -> None:
        """Name the ghost lines in two rows above the bars, as many as fit without touching."""
        view = self.getViewBox()
        px = view.viewPixelSize()[0]
        left, right = view.viewRange()[0]
        taken: list[list[tuple[float, float]]] = [[], []]
        used = 0
        for row in self._rows:
            if row.clip is None:
                continue
            edge = row.clip[1] if row.clip[1] > 0 else row.clip[0]
            text = short_title(row.calibration)
            item = self._name(used)
            item.setText(text)
            half = item.boundingRect().width() / 2 * px
            centre = min(max(edge, left + half), right - half)
            span = (centre - half - 3 * px, centre + half + 3 * px)
            free = [n for n in (0, 1) if all(span[1] < a or span[0] > b for a, b in taken[n])]
            if not free or not left <= edge <= right:
                continue
            taken[free[0]].append(span)
            item.setPos(centre, self._top * (1.10 if free[0] == 0 else 1.205))
            item.setVisible(True)
            used += 1
        for item in self._names[used:]:
            item.setVisible(False)

    def _name(self, number: int) -> pg.TextItem:
        while len(self._names) <= number:
            item = pg.TextItem("", anchor=(0.5, 0.5))
            item.setFont(theme().font("small"))
            item.setColor(theme().palette.muted)
            item.setZValue(25)
            self._names.append(item)
            self.addItem(item, ignoreBounds=True)
        return self._names[number]

    def _say_legend(self) -> None:
        entries = [("■", "float", tr("values"))]
        if self.readout is not None:
            entries = [("■", "float", tr("kept")), ("■", "worse", tr("clipped"))]
            if self._outline is not None:
                entries.append(("▌", "quantized", tr("quantized")))
            if self._rows:
                entries.append(("┆", "muted", tr("calibrators")))
        if len(self._second.counts):
            entries.append(("⎍", "accent", tr("evaluation")))
        self.set_legend(*entries)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        kept, over = palette.color("float"), palette.color("quantized")
        self._kept.setOpts(brush=pg.mkBrush(kept))
        self._clipped.setOpts(brush=pg.mkBrush(palette.worse))
        over.setAlpha(170)
        self._spikes.setOpts(brush=pg.mkBrush(over))
        self._steps.setPen(pg.mkPen(palette.quantized, width=1))
        over.setAlpha(80)
        self._steps.setFillLevel(0.0)
        self._steps.setBrush(pg.mkBrush(over))
        self._grey.setOpts(brush=pg.mkBrush(palette.color("unrepresentable")))
        self._ticks.setPen(pg.mkPen(palette.quantized, width=1))
        for line in (*self._edges.values(), *self._ghosts):
            line.restyle(palette)
        self._second.restyle(palette)
        for item in self._names:
            item.setFont(theme().font("small"))
            item.setColor(palette.muted)
        self._place_names()

    # ---- what a person does

    def _on_dragged(self, line: ClipLine) -> None:
        if self.readout is None:
            return
        self.dragging = True
        self.clip_dragged.emit(self._clip_at(line))

    def _on_drag_finished(self, line: ClipLine) -> None:
        if self.readout is None or not self.dragging:
            return
        self.dragging = False
        self.clip_drag_finished.emit(self._clip_at(line))

    def _clip_at(self, line: ClipLine) -> tuple[float, float]:
        assert self.readout is not None
        value = float(line.value())
        if self.readout.scheme.symmetric:
            return (-abs(value), abs(value))
        low, high = self.readout.clip
        return (value, high) if line is self._edges["low"] else (low, value)

    @property
    def dragged_edge(self) -> str:
        """Which edge is dragged, "low" or "high"; "high" while none is."""
        return "low" if self._edges["low"].moving else "high"

    def edge_position(self, edge: str) -> float | None:
        """Return where the "low" or "high" edge stands, None while it is not shown."""
        line = self._edges[edge]
        return float(line.value()) if line.isVisible() else None

    def _on_view_changed(self, *_args: object) -> None:
        self._draw_ticks()
        self._place_names()

    def columns(self) -> tuple[Column, ...]:
        """Return the bars and, where shown, the quantized values."""
        columns: list[Column] = [
            (tr("from"), self.bars.edges[:-1]),
            (tr("to"), self.bars.edges[1:]),
            (tr("count"), self.bars.counts),
        ]
        if self._outline is not None:
            positions = self._outline.edges[: len(self._outline.counts)]
            columns += [(tr("quantized from"), positions), (tr("quantized count"), self._outline.counts)]
        return tuple(columns)


def _short(count: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:g}{letter}"
    return f"{count:g}"


def _ghost_words(row: CalibratorReadout) -> str:
    """Return what is said about a calibrator's line on hover."""
    if row.clip is None or row.error is None:
        return row.title
    clipped = format_percent(row.error.clipped_percent, digits=3)
    return (
        f"<b>{row.title}</b><br>{format_value(row.clip[0])} … {format_value(row.clip[1])}<br>"
        f"SQNR ~{format_db(row.error.sqnr_db)}, {tr('clipped')} ~{clipped}<br>{tr('Double-click to take it')}"
    )
