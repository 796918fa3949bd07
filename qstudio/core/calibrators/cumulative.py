"""Running sums of a histogram, made once and shared by all calibrators at all bit widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qstudio.core.histogram import Histogram


@dataclass(frozen=True, eq=False)
class Cumulative:
    """Integrals of a histogram's density from the left, values spread evenly within each bin, exact zeros left out.

    With F(y) the number of values below y and A(y) the integral of F up to y, the squared error of any quantizer with
    ascending levels c_1 .. c_L and a threshold b_i midway between each two neighbours is, clipping included,

        sum (x - Q(x))^2 = sum (x - c_L)^2 - 2 sum_i (c_{i+1} - c_i) A(b_i)

    (Abel summation of (x - c)^2 = x^2 - 2 c x + c^2 over the cells): as many terms as there are levels, whatever the
    number of values or bins.
    """

    histogram: Histogram
    below: NDArray[np.float64]
    """[B + 1] F at the bins' edges: values in the bins before each edge."""
    area: NDArray[np.float64]
    """[B + 1] A at the bins' edges, in bin widths."""
    half_counts: NDArray[np.float64]
    """[B + 1] half of each bin's count, and a last 0: A is a parabola within a bin and a line beyond the last."""
    first: float
    second: float
    magnitude: float
    """Sums of x, of x^2 and of |x|, each bin's values spread evenly (for |x|: standing at its centre)."""

    @property
    def values(self) -> float:
        """Number of values that are not zero."""
        return float(self.below[-1])

    def squared_errors(
        self, scale: NDArray[np.float64], lowest: NDArray[np.float64], codes: Sequence[int]
    ) -> NDArray[np.float64]:
        """Return [B, K] sums of squared error of even grids, K for each of B numbers of levels.

        Args:
            scale: [B, K] steps between levels, in units of the tensor.
            lowest: [B, K] smallest levels.
            codes: [B] levels of the grids, at least 2.
        """
        width = self.histogram.width
        pitch, start = scale / width, (lowest - self.histogram.low) / width
        areas = np.empty(scale.shape)
        for row, count in enumerate(codes):
            steps = np.arange(count - 1, dtype=np.float64) + 0.5
            part = max(_CELLS // len(steps), 1)
            for i in range(0, scale.shape[1], part):
                areas[row, i : i + part] = self._areas(pitch[row, i : i + part], start[row, i : i + part], steps)
        highest = lowest + (np.asarray(codes)[:, None] - 1) * scale
        far = self.second - 2.0 * highest * self.first + highest**2 * self.values
        return np.maximum(far - 2.0 * scale * width * areas, 0.0)

    def _areas(
        self, pitch: NDArray[np.float64], start: NDArray[np.float64], steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return [K] sums of A over the places start + pitch * steps, all in bin widths."""
        place = pitch[:, None] * steps
        place += start[:, None]
        np.clip(place, 0.0, 2.0**30, out=place)  # ranges end where the values do: a place out there never comes true
        home = place.astype(np.int32)
        np.minimum(home, len(self.below) - 1, out=home)
        place -= home
        area = self.half_counts.take(home)
        area *= place
        area += self.below.take(home)
        area *= place
        area += self.area.take(home)
        return np.asarray(area.sum(axis=1))


_CELLS = 16384
"""Thresholds looked at in one go: 128 KiB an array, which stays in the processor's cache and off the page allocator."""


@lru_cache(maxsize=4)
def cumulative(histogram: Histogram) -> Cumulative:
    """Return the running sums of a histogram; those of the last few histograms are kept."""
    counts = histogram.counts.astype(np.float64)
    nothing = np.zeros(1)
    below = np.concatenate([nothing, np.cumsum(counts)])
    area = np.concatenate([nothing, np.cumsum(below[:-1] + counts / 2.0)])
    centres = histogram.centres
    return Cumulative(
        histogram,
        below,
        area,
        np.append(counts / 2.0, 0.0),
        float((counts * centres).sum()),
        float((counts * (centres**2 + histogram.width**2 / 12.0)).sum()),
        float((counts * np.abs(centres)).sum()),
    )


@lru_cache(maxsize=4)
def with_zeros(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (edges ascending, values below each edge, values above each edge), exact zeros counted in their bin."""
    counts = histogram.counts.astype(np.float64)
    if histogram.zeros:
        counts[int(np.clip(-histogram.low / histogram.width, 0, len(counts) - 1))] += histogram.zeros
    below = np.append(0.0, np.cumsum(counts))
    above = np.append(0.0, np.cumsum(counts[::-1]))
    return histogram.edges, below, above
