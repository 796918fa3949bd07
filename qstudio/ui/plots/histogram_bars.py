"""Numbers behind the histogram's bars: merged for the screen, and the quantized values beside them. No widgets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.histogram import Histogram

BARS = 220
"""At most about this many bars are drawn across the data, two pixels each in the inspector."""

FEWEST_BARS = 24


@dataclass(frozen=True, eq=False)
class Bars:
    """A histogram merged into bars for the screen."""

    edges: NDArray[np.float64]
    """[N + 1]"""
    counts: NDArray[np.int64]
    """[N] finite values in each bar, exact zeros included; their sum is the histogram's count."""
    low: float = 0.0
    high: float = 0.0
    """Where the data end: the outermost bars reach beyond, and what reaches beyond is not data."""

    @property
    def width(self) -> float:
        """Width of a bar."""
        return float(self.edges[1] - self.edges[0]) if len(self.edges) > 1 else 0.0


@dataclass(frozen=True, eq=False)
class Outline:
    """Quantized values as the screen shows them."""

    edges: NDArray[np.float64]
    """[N + 1] when `spikes` is false, else [N] positions."""
    counts: NDArray[np.float64]
    """[N] values at each position, or per bar width where levels are closer than bars."""
    spikes: bool


def bars_of(histogram: Histogram) -> Bars:
    """Merge bins so that about 3 sqrt(count) bars cover the data, FEWEST_BARS to BARS of them.

    A depthwise layer of 200 weights would fall apart into single values on a fine grid. Empty for a tensor without
    values other than zero.
    """
    if not histogram.width:
        return Bars(np.zeros(1), np.zeros(0, np.int64))
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    bins = len(histogram.counts)
    first = int(np.clip(np.floor((low - histogram.low) / histogram.width), 0, bins - 1))
    last = int(np.clip(np.floor((high - histogram.low) / histogram.width), first, bins - 1))
    wanted = min(max(3.0 * histogram.count**0.5, FEWEST_BARS), BARS)
    step = max(1, round((last - first + 1) / wanted))
    number = -(-(bins - first) // step)
    padded = np.zeros(number * step, np.int64)
    padded[: bins - first] = histogram.counts[first:]
    counts = padded.reshape(number, step).sum(axis=1)
    counts[0] += histogram.counts[:first].sum()
    edges = np.asarray(histogram.low + histogram.width * (first + step * np.arange(number + 1)), np.float64)
    if histogram.zeros:
        counts[int(np.clip(np.searchsorted(edges, 0.0, "right") - 1, 0, number - 1))] += histogram.zeros
    keep = (last - first) // step + 1
    counts[keep - 1] += counts[keep:].sum()
    return Bars(edges[: keep + 1], counts[:keep], low, high)


def split(bars: Bars, low: float, high: float) -> tuple[NDArray[np.float64], ...]:
    """Cut the bars at a clip range: (x0, x1, height) of what lies inside, then of what lies outside."""
    left, right, counts = bars.edges[:-1], bars.edges[1:], bars.counts.astype(np.float64)
    used = counts > 0
    left, right, counts = np.maximum(left[used], bars.low), np.minimum(right[used], bars.high), counts[used]
    inside_left, inside_right = np.clip(left, low, high), np.clip(right, low, high)
    inside = inside_right > inside_left
    under, over = left < low, right > high
    return (
        inside_left[inside],
        inside_right[inside],
        counts[inside],
        np.concatenate([left[under], np.maximum(left[over], high)]),
        np.concatenate([np.minimum(right[under], low), right[over]]),
        np.concatenate([counts[under], counts[over]]),
    )


def outline_of(bars: Bars, values: NDArray[np.float64], counts: NDArray[np.int64], step: float | None) -> Outline:
    """Return quantized values for the screen.

    Levels that lie more than two bars apart are spikes. Closer ones are merged, a whole number of levels in each
    piece, and scaled to a bar's width: merging on the bars' own grid would show a beat that is not in the data.

    Args:
        bars: The float bars they are drawn over.
        values: [M] quantized values.
        counts: [M] how often each occurs.
        step: Distance of levels; None where each channel has its own.
    """
    if step is None:
        piece, scale, start = bars.width, 1.0, float(bars.edges[0])
    elif step > 2 * bars.width:
        return Outline(values, counts.astype(np.float64), True)
    else:
        levels = int(np.ceil(bars.width / step))
        piece, scale = levels * step, bars.width / (levels * step)
        start = (np.floor(bars.edges[0] / piece) - 0.5) * piece
    index = np.floor((values - start) / piece).astype(np.int64)
    shift = min(0, int(index.min(initial=0)))
    merged = np.bincount(index - shift, counts.astype(np.float64)) * scale
    edges = np.asarray(start + piece * (shift + np.arange(len(merged) + 1)), np.float64)
    return Outline(edges, np.asarray(merged, np.float64), False)
