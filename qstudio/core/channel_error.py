"""What ranges cost when each channel has a scale of its own, estimated from a small histogram of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import grid_of
from qstudio.core.calibrators.direct import lsq_range
from qstudio.core.range_error import RangeError
from qstudio.core.scheme import Scheme

CHANNEL_BINS = 128
"""Bins of every channel's histogram: 512 bytes a channel."""

Ends = tuple[NDArray[np.float64], NDArray[np.float64]]
"""([C] low, [C] high), each pair holding zero."""

_CELLS = 24_576
"""Bins looked at for one estimate: beyond it bins are merged, so that a read-out stays under 5 ms."""
_SEARCH_CELLS = 196_608
"""Bins looked at for a whole search over ranges."""


@dataclass(frozen=True, eq=False)
class ChannelHistograms:
    """Each channel's values on an even grid between its own minimum and maximum."""

    counts: NDArray[np.float64]
    """[C, B]; values that are exactly zero are left out (they are always exact)."""
    low: NDArray[np.float64]
    """[C] left edge of the first bin."""
    width: NDArray[np.float64]
    """[C] width of a bin; 0 for a constant channel."""
    values: float = 0.0
    """Values of each channel, zeros included; 0 = those that are counted."""

    @property
    def minimum(self) -> NDArray[np.float64]:
        """[C] smallest values."""
        return self.low

    @property
    def maximum(self) -> NDArray[np.float64]:
        """[C] largest values."""
        return np.asarray(self.low + self.width * self.counts.shape[1])

    def merged(self, cells: int) -> ChannelHistograms:
        """Return the histograms with bins merged in pairs until there are at most `cells` (at least 8 a channel)."""
        counts, width = self.counts, self.width
        while counts.size > cells and counts.shape[1] > 8:
            counts, width = counts[:, ::2] + counts[:, 1::2], width * 2
        return ChannelHistograms(counts, self.low, width, self.values)

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return ([C] E x, [C] E x^2, [C] E|x|), zeros counted, values evenly spread within their bin."""
        count = np.maximum(self.values or self.counts.sum(axis=1), 1.0)
        centres = self.low[:, None] + self.width[:, None] * (np.arange(self.counts.shape[1]) + 0.5)
        square = centres**2 + self.width[:, None] ** 2 / 12.0
        first, second, magnitude = (
            (self.counts * each).sum(axis=1) / count for each in (centres, square, abs(centres))
        )
        return first, second, magnitude


def count_channels(rows: NDArray[np.floating]) -> NDArray[np.int32]:
    """Return the [C, CHANNEL_BINS] counts of [C, N] values, each row between its own minimum and maximum.

    Exact zeros are left out. Rows must be finite and hold at least one value.
    """
    values = np.asarray(rows, np.float32)
    low = values.min(axis=1, keepdims=True)
    reach = values.max(axis=1, keepdims=True) - low
    place = np.divide(CHANNEL_BINS, reach, out=np.zeros_like(reach), where=reach > 0)
    index = np.minimum(((values - low) * place).astype(np.int64), CHANNEL_BINS - 1)
    index += CHANNEL_BINS * np.arange(len(values))[:, None]
    counts = np.bincount(index[values != 0], minlength=CHANNEL_BINS * len(values))
    return counts.reshape(len(values), CHANNEL_BINS).astype(np.int32)


def channel_histograms(
    counts: NDArray[np.integer],
    channel_min: NDArray[np.floating],
    channel_max: NDArray[np.floating],
    values: float = 0.0,
) -> ChannelHistograms:
    """Return histograms ready for estimates, from what statistics keep of a site.

    Args:
        counts: [C, B], exact zeros left out.
        channel_min: [C] smallest values.
        channel_max: [C] largest values.
        values: Values of each channel, zeros included; 0 = those that are counted.
    """
    low, high = np.asarray(channel_min, np.float64), np.asarray(channel_max, np.float64)
    return ChannelHistograms(np.asarray(counts, np.float64), low, (high - low) / counts.shape[1], values)


def capped(histograms: ChannelHistograms, clip: tuple[float, float] | None) -> Ends:
    """Return each channel's own range, no wider than `clip`."""
    low, high = np.minimum(histograms.minimum, 0.0), np.maximum(histograms.maximum, 0.0)
    if clip is None:
        return low, high
    return np.maximum(low, clip[0]), np.minimum(high, clip[1])


def channel_ends(histograms: ChannelHistograms, scheme: Scheme) -> Ends | None:
    """Return the range a scheme gives each channel, or None where so few bins cannot tell (entropy, plug-ins).

    Percentiles read the channel's cumulative counts, mean and deviation and LSQ's start its moments. MSE tries 40
    shrunk ranges (both ends by the same factor) and takes the cheapest for each channel.
    """
    name, _, parameter = scheme.calibration.partition(":")
    if name in ("minmax", "moving_average"):  # a weight is seen once: nothing to average
        return capped(histograms, None)
    if name == "manual":
        return capped(histograms, scheme.clip)
    if name == "percentile":
        return _percentile_ends(histograms, float(parameter or 99.99), 0.5)
    if name == "quantile":
        return _percentile_ends(histograms, float(parameter or 99.99), 1.0)
    if name == "mean_std":
        return _mean_std_ends(histograms, float(parameter or 3.0))
    if name == "lsq":
        return lsq_range(histograms.moments()[2], histograms.minimum, histograms.maximum, scheme)
    if name == "mse":
        return _mse_ends(histograms, scheme)
    return None


def _mean_std_ends(histograms: ChannelHistograms, deviations: float) -> Ends:
    low, high = capped(histograms, None)
    mean, square, _ = histograms.moments()
    reach = deviations * np.sqrt(np.maximum(square - mean**2, 0.0))
    return np.clip(mean - reach, low, 0.0), np.clip(mean + reach, 0.0, high)


def _percentile_ends(histograms: ChannelHistograms, percent: float, each_tail: float) -> Ends:
    """Return quantiles as numpy does: between neighbouring values, which in a channel of 100 lie far apart.

    `each_tail` is the part of the cut share that each end loses where values lie on both sides of zero.
    """
    low, high = capped(histograms, None)
    rising = np.concatenate([np.zeros((len(low), 1)), np.cumsum(histograms.counts, axis=1)], axis=1)
    last = np.maximum(rising[:, -1] - 1.0, 0.0)
    cut = (1.0 - percent / 100.0) * last * np.where((low < 0) & (high > 0), each_tail, 1.0)
    lows = histograms.low + histograms.width * _quantile_place(rising, cut)
    highs = histograms.low + histograms.width * _quantile_place(rising, last - cut)
    return np.clip(lows, low, 0.0), np.clip(highs, 0.0, high)


def _quantile_place(rising: NDArray[np.float64], rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each row, the (fractional) bin of the value with a fractional rank, counted from 0."""
    below = np.floor(rank)
    first, second = _value_place(rising, below), _value_place(rising, below + 1.0)
    return np.asarray(first + (rank - below) * (second - first))


def _value_place(rising: NDArray[np.float64], rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the bin of the value with a whole rank: the ends exactly, others evenly spread within their bin."""
    rows, bins = np.arange(len(rising)), rising.shape[1] - 1
    held = np.clip((rising[:, 1:] <= rank[:, None]).sum(axis=1), 0, bins - 1)
    inside = rising[rows, held + 1] - rising[rows, held]
    share = np.divide(rank - rising[rows, held] + 0.5, inside, out=np.zeros_like(rank), where=inside > 0)
    place = np.where(rank <= 0.0, 0.0, held + np.clip(share, 0.0, 1.0))
    return np.where(rank >= rising[:, -1] - 1.0, float(bins), place)


def _mse_ends(histograms: ChannelHistograms, scheme: Scheme, candidates: int = 40) -> Ends:
    coarse = histograms.merged(_SEARCH_CELLS // candidates)
    low, high = capped(histograms, None)
    best, least = np.ones(len(low)), np.full(len(low), np.inf)
    for factor in np.linspace(1.0, 0.025, candidates):  # from wide to narrow: of equal errors the widest range wins
        rounding, clipping = channel_squared_errors(coarse, scheme, low * factor, high * factor)
        better = rounding + clipping < least
        best = np.where(better, factor, best)
        least = np.where(better, rounding + clipping, least)
    return low * best, high * best


def channel_squared_errors(
    histograms: ChannelHistograms, scheme: Scheme, low: NDArray[np.float64], high: NDArray[np.float64]
) -> Ends:
    """Return ([C] rounding, [C] clipping): sums of squared error of each channel under a range of its own.

    Values are taken as evenly spread within their bin, and the error is integrated exactly, as in
    `qstudio.core.range_error.squared_errors`.
    """
    scale32, zero32, qmin, qmax = grid_of(scheme, low, high)
    scale = np.broadcast_to(scale32.astype(np.float64), histograms.low.shape)[:, None]
    zero = np.broadcast_to(zero32.astype(np.float64), histograms.low.shape)[:, None]
    bins = histograms.counts.shape[1]
    steps = (histograms.low[:, None] + histograms.width[:, None] * np.arange(bins + 1)) / scale
    inside = np.clip(steps, qmin - zero, qmax - zero)
    whole = np.floor(inside + 0.5)
    rest, beyond = inside - whole, steps - inside
    rounding = whole / 12.0 + rest * rest * rest / 3.0  # a power takes ten times as long as two products
    clipping = beyond * beyond * beyond / 3.0
    width = histograms.width[:, None] / scale
    density = np.divide(histograms.counts, width, out=np.zeros_like(histograms.counts), where=width > 0)
    square = scale[:, 0] ** 2
    rounded = (np.diff(rounding, axis=1) * density).sum(axis=1) * square
    clipped = (np.diff(clipping, axis=1) * density).sum(axis=1) * square
    # A constant channel has no width to integrate over: its one value is met or missed.
    constant = histograms.width == 0.0
    if constant.any():
        error = ((steps[:, 0] - np.rint(inside[:, 0])) * scale[:, 0]) ** 2 * histograms.counts.sum(axis=1)
        rounded = np.where(constant, error, rounded)
    return np.maximum(rounded, 0.0), np.maximum(clipped, 0.0)


def channel_sqnr_db(
    histograms: ChannelHistograms, scheme: Scheme, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [C] estimated SQNR of each channel; inf where nothing is lost."""
    rounding, clipping = channel_squared_errors(histograms.merged(_CELLS), scheme, low, high)
    centres = histograms.low[:, None] + histograms.width[:, None] * (np.arange(histograms.counts.shape[1]) + 0.5)
    signal = (histograms.counts * (centres**2 + histograms.width[:, None] ** 2 / 12.0)).sum(axis=1)
    noise = rounding + clipping
    known = (signal > 0) & (noise > 0)
    return np.asarray(10 * np.log10(np.divide(signal, noise, out=np.full_like(signal, np.inf), where=known)))


def channel_range_error(
    histograms: ChannelHistograms,
    scheme: Scheme,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    count: int,
    total_square: float,
) -> RangeError:
    """Return the cost of one range for each channel, over the whole tensor.

    Scale and zero point are those of the widest channel; `low` and `high` of the answer are the extremes of all
    channels' representable ranges. Codes count as used when any channel uses them.

    Args:
        histograms: Each channel's values.
        scheme: Bits and symmetry.
        low: [C] lower ends.
        high: [C] upper ends.
        count: Values of the tensor, zeros included.
        total_square: Sum of their squares.
    """
    coarse = histograms.merged(_CELLS)
    rounding, clipping = channel_squared_errors(coarse, scheme, low, high)
    scale32, zero, qmin, qmax = grid_of(scheme, low, high)
    scale = scale32.astype(np.float64)
    values = max(count, 1)
    mse = float(rounding.sum() + clipping.sum()) / values
    signal = total_square / values
    sqnr = float(10 * np.log10(signal / mse)) if mse > 0 and signal > 0 else float("inf")
    lows, highs = scale * (qmin - zero), scale * (qmax - zero)
    widest = int(np.argmax(highs - lows)) if len(lows) else 0
    return RangeError(
        float(rounding.sum()) / values,
        float(clipping.sum()) / values,
        sqnr,
        100.0 * _outside(coarse, lows - scale / 2, highs + scale / 2) / values,
        100.0 * _codes_used(coarse, scale, zero, qmin, qmax, values) / (qmax - qmin + 1),
        float(scale[widest]),
        int(zero[widest]),
        float(lows.min()),
        float(highs.max()),
    )


def _outside(histograms: ChannelHistograms, low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Return how many values lie outside their channel's range, bins cut in proportion."""
    beyond = (low > histograms.minimum) | (high < histograms.maximum)
    if not beyond.any():
        return 0.0
    counts, width = histograms.counts[beyond], histograms.width[beyond, None]
    left = histograms.low[beyond, None] + width * np.arange(counts.shape[1])
    room = np.where(width > 0, width, 1.0)
    below_high = np.clip((high[beyond, None] - left) / room, 0.0, 1.0)
    below_low = np.clip((low[beyond, None] - left) / room, 0.0, 1.0)
    return float((counts * (1.0 - np.maximum(below_high - below_low, 0.0))).sum())


def _codes_used(
    histograms: ChannelHistograms,
    scale: NDArray[np.float64],
    zero_point: NDArray[np.int32],
    qmin: int,
    qmax: int,
    count: int,
) -> int:
    """Return how many codes are used by at least one channel; a bin reaches at most as many as it holds values."""
    used = histograms.counts > 0
    channel, place = np.nonzero(used)
    counts, s, z = histograms.counts[used], scale[channel], zero_point[channel]
    left = histograms.low[channel] + histograms.width[channel] * place
    first = np.clip(np.rint(left / s) + z, qmin, qmax).astype(np.int64)
    last = np.clip(np.rint((left + histograms.width[channel]) / s) + z, qmin, qmax).astype(np.int64)
    last = np.minimum(np.maximum(last, first), first + counts.astype(np.int64) - 1)
    size = qmax - qmin + 2
    mark = np.bincount(first - qmin, minlength=size) - np.bincount(last - qmin + 1, minlength=size)
    mark = np.cumsum(mark)[:-1]
    if histograms.counts.sum() < count:  # exact zeros
        mark[np.unique(zero_point) - qmin] += 1
    return int(np.count_nonzero(mark > 0))
