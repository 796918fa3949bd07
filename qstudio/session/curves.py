"""Series behind the inspector's pictures: error over clip, quantized counts, ranges of channels. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, grid_of
from qstudio.core.channel_error import Ends, capped, channel_sqnr_db, channel_squared_errors
from qstudio.core.histogram import Histogram
from qstudio.core.range_error import squared_errors
from qstudio.core.statistics import SiteStatistics
from qstudio.session.ranges import channel_range_ends, channels_of
from qstudio.session.readout import Edge, Readout


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Error as one edge of the range moves and the other stays (or mirrors it, for symmetric schemes)."""

    edge: Edge
    clip: NDArray[np.float64]
    """[K] positions of the moving edge."""
    rounding: NDArray[np.float64]
    clipping: NDArray[np.float64]
    """[K] mean squared errors."""
    signal: float
    """Mean square of the tensor."""
    mirrored: bool
    """Whether both edges move together."""


@dataclass(frozen=True, eq=False)
class ChannelRanges:
    """Ranges of a tensor's channels and what can be represented."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """[C] extremes of the values."""
    reach_low: NDArray[np.float64] | None = None
    reach_high: NDArray[np.float64] | None = None
    """[C] representable ranges; None where one scale serves all."""
    band: tuple[float, float] | None = None
    """Representable range of one scale for the whole tensor."""
    sqnr_db: NDArray[np.float64] | None = None
    """[C]"""
    worst: int | None = None
    """The channel with the lowest SQNR."""
    exact: bool = False
    """Whether the SQNR is exact."""


def error_curve(readout: Readout, edge: Edge, points: int = 48) -> ErrorCurve:
    """Return the error for positions of one edge, from 2 % of its reach to the end of the data (or the edge itself).

    Args:
        readout: The site as it stands; its other edge stays where it is.
        edge: Which edge moves.
        points: Positions on the curve.
    """
    histogram, scheme = readout.statistics.histogram, readout.scheme
    low, high = readout.clip
    if scheme.symmetric:
        reach = max(-histogram.minimum, histogram.maximum, -low, high)
    else:
        reach = max(histogram.maximum, high) if edge == "high" else max(-histogram.minimum, -low)
    if readout.per_channel:
        points = min(points, 24)
    moving = reach * np.linspace(0.02, 1.0, points)
    if scheme.symmetric:
        lows, highs = -moving, moving
    elif edge == "high":
        lows, highs = np.full(points, low), moving
    else:
        lows, highs = -moving, np.full(points, high)
    count = max(histogram.count, 1)
    if readout.per_channel:
        rounding, clipping = _channel_curve(readout, lows, highs)
    else:
        scale, zero, qmin, qmax = grid_of(scheme, lows, highs)
        rounding, clipping = squared_errors(
            _compact(histogram), scale.astype(np.float64), zero.astype(np.float64), qmin, qmax
        )
    positions = -moving if edge == "low" else moving
    signal = histogram.total_square / count
    return ErrorCurve(edge, positions, rounding / count, clipping / count, signal, scheme.symmetric)


def _channel_curve(readout: Readout, lows: NDArray[np.float64], highs: NDArray[np.float64]) -> Ends:
    histograms = channels_of(readout.statistics).merged(_CURVE_CELLS // len(lows))
    sums = [
        channel_squared_errors(histograms, readout.scheme, *capped(histograms, (float(low), float(high))))
        for low, high in zip(lows, highs, strict=True)
    ]
    return np.array([r.sum() for r, _ in sums]), np.array([c.sum() for _, c in sums])


_CURVE_CELLS = 49_152
"""Bins of channels looked at for one curve, so that it is drawn within a frame."""


def _compact(histogram: Histogram, bins: int = 512) -> Histogram:
    step = len(histogram.counts) // bins
    return replace(histogram, counts=histogram.counts.reshape(bins, step).sum(axis=1), width=histogram.width * step)


def quantized_counts(readout: Readout) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Return ([M] values, [M] counts) after quantization, None while not known (scales per channel, no preview yet).

    Exact values of a weight come from its preview; otherwise the histogram's bins are mapped to their codes.
    """
    source = readout.statistics.histogram
    if readout.exact is not None:
        source = readout.exact.quantized
        values, counts = source.centres, source.counts
    elif readout.per_channel:
        return None
    elif readout.drawn is not None:
        drawn, rounded = readout.drawn
        values, shares = np.unique(rounded, return_counts=True)
        counts = np.rint(shares * (source.count / max(len(drawn), 1))).astype(np.int64)
        return values.astype(np.float64), counts
    else:
        encoding = readout.encoding
        assert isinstance(encoding, Encoding)
        scale, zero = float(encoding.scale), int(encoding.zero_point)
        codes = np.clip(np.rint(source.centres / scale) + zero, encoding.qmin, encoding.qmax).astype(np.int64)
        counts = np.bincount(codes - encoding.qmin, source.counts, encoding.levels).astype(np.int64)
        values = readout.levels if readout.levels is not None else source.centres
    used = np.flatnonzero(counts)
    values, counts = values[used], counts[used].astype(np.int64)
    if source.zeros:
        values, counts = np.append(values, 0.0), np.append(counts, source.zeros)
    return values, counts


def channel_ranges(
    statistics: SiteStatistics, readout: Readout | None, tensor: tuple[float, float] | None = None
) -> ChannelRanges:
    """Return each channel's range beside what can be represented.

    Args:
        statistics: Of the site.
        readout: The scheme's effect; None where the site stays float.
        tensor: The representable range one scale for the whole tensor would have, for comparison.
    """
    low, high = statistics.channel_min.astype(np.float64), statistics.channel_max.astype(np.float64)
    if readout is None:
        return ChannelRanges(low, high)
    sqnr = _channel_sqnr(readout)
    worst = None
    if sqnr is not None and len(sqnr) == len(low) > 1 and np.isfinite(sqnr).any():
        worst = int(np.argmin(sqnr))
    elif sqnr is not None and len(sqnr) != len(low):
        sqnr = None
    exact = readout.exact is not None
    if not readout.per_channel:
        return ChannelRanges(
            low, high, band=(readout.error.low, readout.error.high), sqnr_db=sqnr, worst=worst, exact=exact
        )
    return ChannelRanges(low, high, readout.encoding.low, readout.encoding.high, tensor, sqnr, worst, exact)


def _channel_sqnr(readout: Readout) -> NDArray[np.float64] | None:
    """Return [C] SQNR of each channel in dB, exact where known; None without histograms of the channels."""
    if readout.exact is not None:
        return readout.exact.channel_sqnr_db
    statistics = readout.statistics
    if statistics.channel_counts is None:
        return None
    if readout.drawn is not None:
        return None
    histograms = channels_of(statistics)
    if readout.per_channel:
        ends = channel_range_ends(statistics, readout.scheme) or capped(histograms, None)
    else:
        shape = histograms.low.shape
        ends = np.full(shape, readout.clip[0]), np.full(shape, readout.clip[1])
    return channel_sqnr_db(histograms, readout.scheme, *ends)
