"""Curves over the epochs of a training, and the learned scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget

from qstudio.ui.plots.base import Column, Plot
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme

TICKS = 8
"""Numbers on the epoch axis at most, besides 0."""


EDGE = 0.04
"""Room beside the first and the last epoch, as a share of the axis: the last number needs it."""


def tick_step(epochs: int) -> int:
    """Return the distance of the numbers on the epoch axis: 1, 2 or 5 times a power of ten."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if epochs <= TICKS * factor * size:
                return factor * size
        size *= 10


@dataclass(frozen=True)
class Curve:
    """How one curve is drawn and called."""

    name: str
    colour: str
    """Of the palette."""
    dashed: bool = False


class EpochPlot(Plot):
    """Curves over epochs; a line stands where the bit width changes, a diamond on the best epoch."""

    def __init__(
        self,
        name: str,
        y_label: str,
        curves: tuple[Curve, ...],
        parent: QWidget | None = None,
        from_zero: bool = False,
    ) -> None:
        """`from_zero` lets the y axis begin at 0."""
        super().__init__(name, tr("epoch"), y_label, parent)
        self._curves = curves
        self._from_zero = from_zero
        self._values: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ()
        self._items = [pg.PlotDataItem(antialias=True, symbolSize=5) for _ in curves]
        self._best = pg.ScatterPlotItem(size=11, symbol="d")
        self._changes: list[pg.InfiniteLine] = []
        self.best: tuple[float, float] | None = None
        for item in (*self._items, self._best):
            self.addItem(item)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self._show_entries()
        self.start()

    def _show_entries(self) -> None:
        entries = [("┅" if curve.dashed else "━", curve.colour, curve.name) for curve in self._curves]
        if self.best is not None:
            entries.append(("◆", "better", tr("best epoch")))
        self.set_legend(*entries)

    def set_curves(
        self,
        epochs: int,
        values: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...],
        changes: tuple[float, ...] = (),
        best: tuple[float, float] | None = None,
    ) -> None:
        """Draw the curves.

        Args:
            epochs: Right end of the axis.
            values: (epochs, values) of each curve, all finite.
            changes: Epochs after which the bit width changes.
            best: (epoch, value) of the best epoch.
        """
        self._values = values
        for item, (x, y) in zip(self._items, values, strict=True):
            item.setData(x, y)
        self._best.setData(*([[best[0]], [best[1]]] if best is not None else [[], []]))
        if (best is None) != (self.best is None):
            self.best = best
            self._show_entries()
        self.best = best
        self._set_changes(changes)
        self._fit(epochs, [y for _, y in values if len(y)])

    def _set_changes(self, changes: tuple[float, ...]) -> None:
        if tuple(line.value() for line in self._changes) == changes:
            return
        for line in self._changes:
            self.removeItem(line)
        self._changes = [pg.InfiniteLine(at, 90) for at in changes]
        for line in self._changes:
            line.setPen(pg.mkPen(theme().palette.muted, width=1, style=Qt.PenStyle.DotLine))
            self.addItem(line)

    def _fit(self, epochs: int, values: list[NDArray[np.float64]]) -> None:
        pad = EDGE * max(epochs, 1)
        self.setXRange(-pad, max(epochs, 1) + pad, padding=0)
        step = tick_step(epochs)
        self.getAxis("bottom").setTickSpacing(major=step, minor=step)
        if not values:
            return
        low = 0.0 if self._from_zero else min(float(y.min()) for y in values)
        high = max(float(y.max()) for y in values)
        room = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
        self.setYRange(low - (room / 4 if self._from_zero else room), high + room, padding=0)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        for item, curve in zip(self._items, self._curves, strict=True):
            colour = palette.color(curve.colour)
            style = Qt.PenStyle.DashLine if curve.dashed else Qt.PenStyle.SolidLine
            item.setPen(pg.mkPen(colour, width=2, style=style))
            item.setSymbol(None if curve.dashed else "o")
            item.setSymbolPen(None)
            item.setSymbolBrush(pg.mkBrush(colour))
        self._best.setPen(pg.mkPen(palette.surface, width=1))
        self._best.setBrush(pg.mkBrush(palette.better))
        for line in self._changes:
            line.setPen(pg.mkPen(palette.muted, width=1, style=Qt.PenStyle.DotLine))

    def columns(self) -> tuple[Column, ...]:
        """Return epoch and value of each curve."""
        found: list[Column] = []
        for curve, (x, y) in zip(self._curves, self._values, strict=False):
            found += [(f"{tr('epoch')} ({curve.name})", x), (curve.name, y)]
        return tuple(found)


class ScalesPlot(Plot):
    """How far each learned scale has moved, in doublings: log2(scale / scale at the stage's start)."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Learned scales"), tr("epoch"), tr("log2(s / start)"), parent)
        self.epochs: NDArray[np.float64] = np.zeros(0)
        self.sites: tuple[str, ...] = ()
        self.moved: NDArray[np.float64] = np.zeros((0, 0))
        self._others = pg.PlotCurveItem()  # not smoothed: hundreds of thin lines would cost 20 ms an epoch
        self._weight = pg.PlotCurveItem(antialias=True)
        self._output = pg.PlotCurveItem(antialias=True)
        for item in (self._others, self._weight, self._output):
            self.addItem(item)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.start()

    def set_scales(
        self, total: int, epochs: NDArray[np.float64], sites: tuple[str, ...], moved: NDArray[np.float64]
    ) -> None:
        """Draw the scales.

        Args:
            total: Right end of the axis.
            epochs: [E] epochs.
            sites: Names of the S sites.
            moved: [S, E] log2 of the scale relative to its start.
        """
        self.epochs, self.sites, self.moved = epochs, sites, moved
        x = np.tile(epochs, len(sites))
        joined = np.ones((len(sites), len(epochs)), dtype=bool)
        joined[:, -1:] = False  # one item for all: a curve ends where the next begins
        self._others.setData(x, moved.reshape(-1), connect=joined.reshape(-1))
        pad = EDGE * max(total, 1)
        self.setXRange(-pad, max(total, 1) + pad, padding=0)
        step = tick_step(total)
        self.getAxis("bottom").setTickSpacing(major=step, minor=step)
        reach = max(0.1, float(np.abs(moved).max()) if moved.size else 0.0) * 1.1
        self.setYRange(-reach, reach, padding=0)

    def set_selected(self, layer: str, weight: str, output: str) -> None:
        """Draw the two sites of the selected layer stronger (empty names: none)."""
        shown = [("━", "muted", tr("{n} scales").format(n=len(self.sites)))]
        for item, site, colour, words in (
            (self._weight, weight, "accent", tr("weights")),
            (self._output, output, "watch", tr("output")),
        ):
            known = site in self.sites
            if known:
                item.setData(self.epochs, self.moved[self.sites.index(site)])
                # The layer is named once: long names would push the second entry out of a small plot.
                shown.append(("━", colour, f"{layer} {words}" if len(shown) == 1 else words))
            else:
                item.setData([], [])
        self.set_legend(*shown)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        faint = palette.color("muted")
        faint.setAlpha(110)
        self._others.setPen(pg.mkPen(faint, width=1))
        self._weight.setPen(pg.mkPen(palette.accent, width=2.5))
        self._output.setPen(pg.mkPen(palette.watch, width=2.5))

    def columns(self) -> tuple[Column, ...]:
        """Return the epochs and each site's log2 of scale against its start."""
        return ((tr("epoch"), self.epochs), *zip(self.sites, self.moved, strict=True))
