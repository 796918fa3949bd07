"""How well calibration data stands for the data that is evaluated: two histograms of one site compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.histogram import Histogram

MOST_CELLS = 128


def cells(count: int) -> int:
    """Return how many cells `count` values are compared on: 2 n^(1/3) (Rice's rule), at most MOST_CELLS.

    On a finer grid two samples of one distribution would differ by chance alone: 640 values each overlap by 76 % on
    128 cells.
    """
    return int(np.clip(round(2.0 * float(np.cbrt(count))), 8, MOST_CELLS))


@dataclass(frozen=True)
class Overlap:
    """Calibration and evaluation values of one site."""

    intersection_percent: float
    """sum min(p, q) over cells between the extremes of both, exact zeros a cell of their own; 100 = the same."""
    outside_percent: float
    """Share of the evaluation values that lie outside the calibrated range."""


def overlap(calibration: Histogram, evaluation: Histogram, clip: tuple[float, float]) -> Overlap | None:
    """Return how far two histograms agree; None where one of them has no values.

    Args:
        calibration: What the range was found from.
        evaluation: What the range is used on.
        clip: The calibrated range.
    """
    if not calibration.count or not evaluation.count:
        return None
    low = min(calibration.minimum, evaluation.minimum, 0.0)
    high = max(calibration.maximum, evaluation.maximum, 0.0)
    edges = np.linspace(low, high, cells(min(calibration.count, evaluation.count)) + 1)
    common = np.minimum(_shares(calibration, edges), _shares(evaluation, edges)).sum()
    common += min(calibration.zeros / calibration.count, evaluation.zeros / evaluation.count)
    return Overlap(100.0 * min(float(common), 1.0), 100.0 * _outside(evaluation, clip) / evaluation.count)


def scaled_counts(histogram: Histogram, edges: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return [N] values of a histogram in each cell of another grid, as if there were `count` of them altogether.

    Args:
        histogram: With at least one value.
        edges: [N + 1] ascending; what lies beyond them is left out.
        count: Number of values that all cells would hold.
    """
    counts = _shares(histogram, edges)
    home = int(np.searchsorted(edges, 0.0, "right")) - 1
    if histogram.zeros and 0 <= home < len(counts):
        counts[home] += histogram.zeros / histogram.count
    return counts * count


def _shares(histogram: Histogram, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of all values that lies in each cell, exact zeros left out, values even within their bin."""
    if not histogram.width:
        return np.zeros(len(edges) - 1)
    below = np.append(0.0, np.cumsum(histogram.counts, dtype=np.float64))
    return np.asarray(np.diff(np.interp(edges, histogram.edges, below)) / histogram.count)


def _outside(histogram: Histogram, clip: tuple[float, float]) -> float:
    """Return how many values lie outside a range, bins cut in proportion."""
    if not histogram.width or (clip[0] <= histogram.minimum and histogram.maximum <= clip[1]):
        return 0.0
    below = np.append(0.0, np.cumsum(histogram.counts, dtype=np.float64))
    inside = np.diff(np.interp(np.asarray(clip, np.float64), histogram.edges, below))[0]
    return float(below[-1] - inside)
