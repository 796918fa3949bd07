"""A streaming histogram whose bins never need the data twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

BINS = 2048
"""Bins of every stored histogram: 16 KiB a site, eight bins for each 8-bit step."""

EXTREMES = 2048
"""Samples whose extremes are kept, the last ones seen: at most 16 KiB a site. In a moving average with a constant of
0.01 or more, all that came before weighs less than 0.99^2047 = 1.2e-9, below float32's precision."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of a tensor's values on an even grid, with the exact moments beside them.

    Values that are exactly zero are counted in `zeros`, not in a bin: they are many (ReLU, padding), always exactly
    representable, and would otherwise be smeared over a bin's width.
    """

    counts: NDArray[np.int64]
    """[BINS] values in each bin, zeros left out."""
    low: float
    """Left edge of the first bin."""
    width: float
    """Width of a bin, in units of the tensor; 0 when there are no non-zero values."""
    zeros: int
    minimum: float
    maximum: float
    """Exact extremes of the finite values."""
    total: float
    """Sum of the finite values (float64)."""
    total_square: float
    """Sum of their squares (float64)."""
    nonfinite: int = 0
    """NaN and infinities seen; they are in no other field."""
    extremes: NDArray[np.float32] | None = None
    """[S, 2] smallest and largest finite value of each sample in the order seen, of the last EXTREMES samples; None
    where values do not come from samples (weights)."""

    @property
    def count(self) -> int:
        """Number of finite values."""
        return int(self.counts.sum()) + self.zeros

    @property
    def mean(self) -> float:
        """Mean of the finite values; 0 for none."""
        return self.total / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """Population standard deviation of the finite values; 0 for none."""
        if not self.count:
            return 0.0
        return float(np.sqrt(max(self.total_square / self.count - self.mean**2, 0.0)))

    @property
    def edges(self) -> NDArray[np.float64]:
        """[BINS + 1] bin edges."""
        return self.low + self.width * np.arange(len(self.counts) + 1, dtype=np.float64)

    @property
    def centres(self) -> NDArray[np.float64]:
        """[BINS] bin centres."""
        return self.low + self.width * (np.arange(len(self.counts), dtype=np.float64) + 0.5)


EMPTY = Histogram(np.zeros(BINS, np.int64), 0.0, 0.0, 0, 0.0, 0.0, 0.0, 0.0)


def histogram_of(values: NDArray[np.floating]) -> Histogram:
    """Return the histogram of one array."""
    return extend(EMPTY, values)


def extend(histogram: Histogram, values: NDArray[np.floating]) -> Histogram:
    """Return the histogram with further values counted in.

    When the range grows, bins are merged in pairs until it fits: widths double, so no count is ever split and the
    result does not depend on an interpolation.
    """
    flat = np.asarray(values, np.float32).reshape(-1)
    if not flat.size:
        return histogram
    total = float(flat.sum(dtype=np.float64))
    nonfinite = 0
    if not np.isfinite(total):
        finite = np.isfinite(flat)
        nonfinite = int(flat.size - finite.sum())
        flat = flat[finite]
        if not flat.size:
            return replace(histogram, nonfinite=histogram.nonfinite + nonfinite)
        total = float(flat.sum(dtype=np.float64))
    low, high = float(flat.min()), float(flat.max())
    square = float(np.einsum("i,i->", flat, flat, dtype=np.float64))
    first = histogram.count == 0
    minimum = low if first else min(histogram.minimum, low)
    maximum = high if first else max(histogram.maximum, high)
    grown = cover(histogram, low, high)
    counts, zeros = grown.counts, grown.zeros
    if low == 0.0 == high:
        zeros += flat.size
    else:
        added, added_zeros = count_bins(flat, grown.low, grown.width)
        counts = counts + added
        zeros += added_zeros
    return Histogram(
        counts,
        grown.low,
        grown.width,
        zeros,
        minimum,
        maximum,
        histogram.total + total,
        histogram.total_square + square,
        histogram.nonfinite + nonfinite,
        histogram.extremes,
    )


def count_bins(flat: NDArray[np.float32], low: float, width: float) -> tuple[NDArray[np.int64], int]:
    """Return ([BINS] counts, number of exact zeros) of values inside [low, low + BINS * width].

    One float32 pass and one bincount: about half the time of numpy.histogram.
    """
    position = flat - np.float32(low)
    position *= np.float32(1.0 / width)
    index = position.astype(np.intp)  # bincount copies any other type
    np.clip(index, 0, BINS - 1, out=index)
    counts = np.bincount(index, minlength=BINS).astype(np.int64)
    zeros = int(flat.size - np.count_nonzero(flat))
    if zeros:
        home = int(
            np.clip(np.int32(np.float32(np.float32(0.0) - np.float32(low)) * np.float32(1.0 / width)), 0, BINS - 1)
        )
        counts[home] -= zeros
    return counts, zeros


def cover(histogram: Histogram, low: float, high: float) -> Histogram:
    """Return the histogram on a grid that holds [low, high] and zero too; unchanged where its own does.

    Bins merge in pairs, so widths double and counts stay whole.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return histogram
    if histogram.width == 0.0:
        # float32 positions need a hair of room at the top, or the maximum lands on bin BINS.
        width = (high - low) * (1 + 1e-6) / BINS
        return replace(histogram, low=low, width=max(width, float(np.finfo(np.float32).tiny)))
    counts, start, width = histogram.counts, histogram.low, histogram.width
    while low < start or high > start + BINS * width:
        merged = np.zeros(BINS, np.int64)
        half = BINS // 2
        if low < start:  # keep the right edge, grow to the left
            merged[half:] = counts.reshape(half, 2).sum(axis=1)
            start -= BINS * width
        else:
            merged[:half] = counts.reshape(half, 2).sum(axis=1)
        counts, width = merged, width * 2
    return replace(histogram, counts=counts, low=start, width=width)


def merge(first: Histogram, second: Histogram) -> Histogram:
    """Return the histogram of both data sets; exact in every field but the bins, which move by at most half a bin.

    The second's samples count as seen after the first's.
    """
    if second.count == 0:
        return replace(first, nonfinite=first.nonfinite + second.nonfinite)
    if first.count == 0:
        return replace(second, nonfinite=first.nonfinite + second.nonfinite)
    grown = cover(first, second.minimum, second.maximum)
    counts = grown.counts.copy()
    if second.width and grown.width:
        index = np.clip(((second.centres - grown.low) / grown.width).astype(int), 0, BINS - 1)
        np.add.at(counts, index, second.counts)
    return Histogram(
        counts,
        grown.low,
        grown.width,
        first.zeros + second.zeros,
        min(first.minimum, second.minimum),
        max(first.maximum, second.maximum),
        first.total + second.total,
        first.total_square + second.total_square,
        first.nonfinite + second.nonfinite,
        _latest(first.extremes, second.extremes),
    )


def _latest(first: NDArray[np.float32] | None, second: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    if first is None or second is None:
        return second if first is None else first
    return np.concatenate([first, second])[-EXTREMES:]
