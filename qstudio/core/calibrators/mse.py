"""The range of least squared error, from 100 candidates and a finer search around the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import integer_range, is_symmetric, scale_zero_point
from qstudio.core.calibrators.cumulative import cumulative
from qstudio.core.calibrators.direct import Range, hold_zero, minmax
from qstudio.core.conventions import CONVENTIONS
from qstudio.core.histogram import Histogram
from qstudio.core.range_error import squared_errors
from qstudio.core.scheme import Scheme

_MOST_CODES = 256
"""Codes whose levels are summed one by one; with more of them the sum over the bins is shorter."""

_COARSE = np.linspace(1.0, 0.01, 100)
_FINE = np.linspace(0.01, -0.01, 21)
"""From wide to narrow, as all candidates are: of equal errors the widest range wins."""

_REACHES = np.linspace(1.0, 0.025, 40)
"""Shares of the largest magnitude: both ends are cut where it reaches them (one far outlier is on one side only)."""

_WIDE_STEPS = np.array([1.5, 1.2, 1.0, 0.85, 0.65])
_NARROW_STEPS = np.linspace(1.09, 0.91, 7)
"""Factors of each end on its own, tried in all pairs."""


def mse(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Return the range of least squared error; see `mse_ranges`."""
    return mse_ranges(histogram, (scheme,), parameter)[0]


def mse_ranges(histogram: Histogram, schemes: Sequence[Scheme], parameter: float | None) -> list[Range]:
    """Return the range of least squared error for each scheme; they differ in their bits only.

    Both ends shrink by one of 100 factors. Where they mirror each other or one of them is 0, 21 finer factors are tried
    around the best. Else both are also cut at one of 40 common magnitudes, and from the best of all each end moves on
    its own: 5 x 5 pairs of factors, then 7 x 7 finer ones.
    """
    full = minmax(histogram, schemes[0], None)
    if full[0] == full[1] or not histogram.width:
        return [full for _ in schemes]
    if len({is_symmetric(scheme) for scheme in schemes}) > 1:  # one bit is never symmetric
        return [mse(histogram, scheme, parameter) for scheme in schemes]
    lows, highs = full[0] * _COARSE, full[1] * _COARSE
    mirrored = is_symmetric(schemes[0]) or full[0] == 0.0 or full[1] == 0.0
    if not mirrored:
        reaches = max(-full[0], full[1]) * _REACHES
        lows = np.append(lows, np.maximum(full[0], -reaches))
        highs = np.append(highs, np.minimum(full[1], reaches))
    shape = (len(schemes), len(lows))
    low, high = _best(histogram, schemes, np.broadcast_to(lows, shape), np.broadcast_to(highs, shape))
    if mirrored:
        factor = (high if full[1] else low) / (full[1] or full[0])
        fine = np.clip(factor + _FINE, 1e-3, 1.0)
        low, high = _best(histogram, schemes, full[0] * fine, full[1] * fine)
    else:
        for steps in (_WIDE_STEPS, _NARROW_STEPS):
            low, high = _best(
                histogram,
                schemes,
                np.maximum(low * np.repeat(steps, len(steps)), full[0]),
                np.minimum(high * np.tile(steps, len(steps)), full[1]),
            )
    return [hold_zero(*ends) for ends in zip(low[:, 0], high[:, 0], strict=True)]


def _best(
    histogram: Histogram, schemes: Sequence[Scheme], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ([B, 1], [B, 1]) cheapest of [B, K] candidates for each scheme."""
    best = _costs(histogram, schemes, low, high).argmin(axis=1)[:, None]
    return np.take_along_axis(low, best, 1), np.take_along_axis(high, best, 1)


def _costs(
    histogram: Histogram, schemes: Sequence[Scheme], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [B, K] sums of squared error."""
    ends = np.array([integer_range(scheme) for scheme in schemes])[:, :, None]
    qmin, qmax = ends[:, 0], ends[:, 1]
    codes = [int(count) for count in (qmax - qmin + 1)[:, 0]]
    number_format, symmetric = schemes[0].format, is_symmetric(schemes[0])
    if number_format in CONVENTIONS or max(codes) > _MOST_CODES:
        if len(schemes) > 1:  # what is not computed for all widths together
            rows = [slice(i, i + 1) for i in range(len(schemes))]
            return np.concatenate([_costs(histogram, schemes[row], low[row], high[row]) for row in rows])
        lowest, highest = integer_range(schemes[0])
        scale32, zero_point = scale_zero_point(low, high, lowest, highest, symmetric, number_format)
    else:
        scale32, zero_point = scale_zero_point(low, high, qmin, qmax, symmetric, number_format)
    scale = scale32.astype(np.float64)
    if max(codes) <= _MOST_CODES:
        return cumulative(histogram).squared_errors(scale, scale * (qmin - zero_point), codes)
    coarse = _compact(histogram)
    rounding, clipping = squared_errors(coarse, scale[0], zero_point[0].astype(np.float64), lowest, highest)
    return (rounding + clipping)[None, :]


def _compact(histogram: Histogram, bins: int = 512) -> Histogram:
    """Return the histogram with fewer bins: the error integral is exact within a bin, so the optimum hardly moves."""
    step = len(histogram.counts) // bins
    return replace(histogram, counts=histogram.counts.reshape(bins, step).sum(axis=1), width=histogram.width * step)
