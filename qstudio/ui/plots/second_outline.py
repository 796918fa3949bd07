"""Another tensor's distribution drawn as an outline over a histogram's bars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray

from qstudio.core.histogram import Histogram
from qstudio.core.overlap import scaled_counts
from qstudio.ui.plots.histogram_bars import Bars
from qstudio.ui.theme import Palette

BEYOND = 24
"""Bars added on each side, so that values outside the first distribution are seen too."""


class SecondOutline(pg.PlotCurveItem):  # type: ignore[misc]
    """Steps of the bars' width, scaled to as many values as the bars hold."""

    def __init__(self) -> None:
        super().__init__([0.0, 1.0], [0.0], stepMode="center")
        self.setVisible(False)
        self.edges: NDArray[np.float64] = np.zeros(0)
        self.counts: NDArray[np.float64] = np.zeros(0)

    def take(self, histogram: Histogram | None, bars: Bars) -> None:
        """Take another distribution; None hides."""
        if histogram is None or not histogram.count or not len(bars.counts):
            self.edges = self.counts = np.zeros(0)
            return
        steps = np.arange(-BEYOND, len(bars.counts) + BEYOND + 1)
        self.edges = bars.edges[0] + bars.width * steps
        self.counts = scaled_counts(histogram, self.edges, int(bars.counts.sum()))

    def draw(self, height: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
        """Draw what was taken, counts turned into heights."""
        self.setVisible(len(self.counts) > 0)
        if len(self.counts):
            self.setData(self.edges, height(self.counts))

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        self.setPen(pg.mkPen(palette.accent, width=2))
