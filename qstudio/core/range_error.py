"""What a range costs, estimated from a histogram: rounding, clipping, SQNR, codes used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.histogram import Histogram


@dataclass(frozen=True)
class RangeError:
    """The cost of one encoding of one histogram."""

    rounding: float
    """Mean squared error of values inside the range, over all values."""
    clipping: float
    """Mean squared error of values outside the range, over all values."""
    sqnr_db: float
    """10 log10(mean square / mean squared error)."""
    clipped_percent: float
    codes_used_percent: float
    scale: float
    zero_point: int
    low: float
    high: float
    """The representable range, in units of the tensor."""

    @property
    def mse(self) -> float:
        """Total mean squared error."""
        return self.rounding + self.clipping


def _sawtooth(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the integral from 0 to t of (u - round(u))^2 du: 1/12 for each whole step."""
    shifted = t + 0.5
    whole = np.floor(shifted)
    rest = shifted - whole - 0.5
    return np.asarray(whole / 12.0 + rest**3 / 3.0)


def squared_errors(
    histogram: Histogram, scale: NDArray[np.float64], zero_point: NDArray[np.float64], qmin: int, qmax: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ([K] rounding, [K] clipping): sums of squared error for K candidate encodings.

    Values are taken as evenly spread within each bin and the error is integrated exactly over the bin
    (a sawtooth inside the range, a parabola outside), so that steps narrower than a bin are right too.
    """
    used = np.flatnonzero(histogram.counts)
    if not used.size or not histogram.width:
        nothing = np.zeros(len(scale))
        return nothing, nothing
    width = histogram.width
    left = histogram.low + width * used
    counts = histogram.counts[used].astype(np.float64)
    s = scale[:, None]
    low, high = s * (qmin - zero_point[:, None]), s * (qmax - zero_point[:, None])
    # Rounding still applies up to the outermost levels; beyond them the nearest level is the edge itself.
    a, b = np.clip(left, low, high), np.clip(left + width, low, high)
    rounding = s**3 * (_sawtooth(b / s) - _sawtooth(a / s))
    under_a, under_b = np.minimum(left - low, 0.0), np.minimum(left + width - low, 0.0)
    over_a, over_b = np.maximum(left - high, 0.0), np.maximum(left + width - high, 0.0)
    clipping = (under_b**3 - under_a**3 + over_b**3 - over_a**3) / 3.0
    density = counts / width
    return np.maximum(rounding @ density, 0.0), np.maximum(clipping @ density, 0.0)


def range_error(histogram: Histogram, scale: float, zero_point: int, qmin: int, qmax: int) -> RangeError:
    """Return the cost of one encoding (about 0.1 ms)."""
    rounding, clipping = squared_errors(histogram, np.array([scale]), np.array([float(zero_point)]), qmin, qmax)
    count = max(histogram.count, 1)
    low, high = float(scale * (qmin - zero_point)), float(scale * (qmax - zero_point))
    mse = (float(rounding[0]) + float(clipping[0])) / count
    signal = histogram.total_square / count
    sqnr = float(10 * np.log10(signal / mse)) if mse > 0 and signal > 0 else float("inf")
    return RangeError(
        float(rounding[0]) / count,
        float(clipping[0]) / count,
        sqnr,
        100.0 * _outside(histogram, low - scale / 2, high + scale / 2) / count,
        100.0 * _codes_used(histogram, scale, zero_point, qmin, qmax) / (qmax - qmin + 1),
        float(scale),
        int(zero_point),
        low,
        high,
    )


def _outside(histogram: Histogram, low: float, high: float) -> float:
    """Return how many values lie outside [low, high], bins cut in proportion."""
    if not histogram.width:
        return 0.0
    inside = np.clip((high - histogram.edges[:-1]) / histogram.width, 0.0, 1.0)
    inside = inside - np.clip((low - histogram.edges[:-1]) / histogram.width, 0.0, 1.0)
    outside = float((histogram.counts * (1.0 - np.maximum(inside, 0.0))).sum())
    if low <= histogram.minimum and histogram.maximum <= high:
        return 0.0
    return outside


def _codes_used(histogram: Histogram, scale: float, zero_point: int, qmin: int, qmax: int) -> int:
    """Return how many codes at least one value maps to; a bin that spans several counts each, up to its count."""
    used = np.flatnonzero(histogram.counts)
    codes: set[int] = {zero_point} if histogram.zeros else set()
    if used.size and histogram.width:
        left = np.maximum(histogram.low + histogram.width * used, histogram.minimum)
        right = np.minimum(histogram.low + histogram.width * (used + 1), histogram.maximum)
        first = np.clip(np.rint(left / scale) + zero_point, qmin, qmax).astype(np.int64)
        last = np.clip(np.rint(right / scale) + zero_point, qmin, qmax).astype(np.int64)
        last = np.minimum(np.maximum(last, first), first + histogram.counts[used] - 1)
        mark = np.zeros(qmax - qmin + 2, np.int64)
        np.add.at(mark, first - qmin, 1)
        np.add.at(mark, last - qmin + 1, -1)
        mark[zero_point - qmin] += 1 if histogram.zeros else 0
        if histogram.zeros:
            mark[zero_point - qmin + 1] -= 1
        return int(np.count_nonzero(np.cumsum(mark)[:-1] > 0))
    return len(codes)
