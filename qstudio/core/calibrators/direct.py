"""Ranges that need no search: extremes, shares of values, moments.

Every function takes (histogram, scheme, parameter) and returns (low, high) in units of the tensor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import integer_range, is_symmetric
from qstudio.core.calibrators.cumulative import cumulative, with_zeros
from qstudio.core.histogram import Histogram
from qstudio.core.scheme import Scheme

Range = tuple[float, float]
"""(low, high) in units of the tensor, holding zero."""


def hold_zero(low: float, high: float) -> Range:
    """Return the range, widened to hold zero."""
    return (min(float(low), 0.0), max(float(high), 0.0))


def minmax(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Return the extremes."""
    return hold_zero(histogram.minimum, histogram.maximum)


def manual(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Return the clip that was set by hand, the extremes without one."""
    return scheme.clip if scheme.clip is not None else minmax(histogram, scheme, None)


def averaging_weights(samples: int, constant: float) -> NDArray[np.float64]:
    """Return [S] what each sample weighs in a moving average that starts at the first: they sum to 1.

    m_1 = x_1, m_t = m_{t-1} + c (x_t - m_{t-1}), written out: (1 - c)^(S-1) for the first sample and
    c (1 - c)^(S-1-t) for the others.
    """
    weights = np.power(1.0 - constant, np.arange(samples - 1, -1, -1, dtype=np.float64))
    weights[1:] *= constant
    return weights


def moving_average(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Return the moving averages of the samples' minima and maxima.

    One step is one sample in the order of the calibration set, so no batch size enters: the same numbers as
    torch.ao's MovingAverageMinMaxObserver that is shown one sample at a time. A weight is seen once: its extremes.
    """
    extremes = histogram.extremes
    if extremes is None or not len(extremes):
        return minmax(histogram, scheme, None)
    weights = averaging_weights(len(extremes), parameter if parameter is not None else 0.01)
    low, high = (weights[:, None] * extremes.astype(np.float64)).sum(axis=0)
    return hold_zero(low, high)


def percentile(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Cut (100 - p) % of the values: half from each tail that has values, all from the only one."""
    cut = _share_cut(parameter) * histogram.count
    both = histogram.minimum < 0 < histogram.maximum
    return _cut_tails(histogram, cut / 2 if both else cut)


def quantile(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Cut (100 - p) % of the values from each tail on its own: the quantiles 1 - p and p."""
    return _cut_tails(histogram, _share_cut(parameter) * histogram.count)


def _share_cut(parameter: float | None) -> float:
    return 1.0 - (parameter if parameter is not None else 99.99) / 100.0


def _cut_tails(histogram: Histogram, cut: float) -> Range:
    """Return the range without `cut` values at each end; a tail without values is left alone."""
    if not histogram.width or not histogram.count:
        return hold_zero(histogram.minimum, histogram.maximum)
    edges, below, above = with_zeros(histogram)
    low, high = histogram.minimum, histogram.maximum
    # Each tail is counted from its own end: where bins are empty, the cut moves inward to the next value.
    if low < 0:
        low = max(low, float(np.interp(cut, below, edges)))
    if high > 0:
        high = min(high, float(np.interp(cut, above, edges[::-1])))
    return hold_zero(low, high)


def mean_std(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Return mean -+ k standard deviations (of all values, zeros too), no wider than the values reach."""
    reach = (parameter if parameter is not None else 3.0) * histogram.std
    low = max(histogram.minimum, histogram.mean - reach)
    return hold_zero(low, min(histogram.maximum, histogram.mean + reach))


def lsq(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Return the range of LSQ's first step, s0 = 2 E|x| / sqrt(Qp); see `lsq_range`.

    E|x| counts zeros too. It is exact where all values have one sign, else each bin's values stand at its centre.
    """
    count = max(histogram.count, 1)
    if histogram.minimum >= 0.0 or histogram.maximum <= 0.0:
        magnitude = abs(histogram.total) / count
    else:
        magnitude = cumulative(histogram).magnitude / count
    low, high = lsq_range(np.array([magnitude]), np.array([histogram.minimum]), np.array([histogram.maximum]), scheme)
    return hold_zero(low[0], high[0])


def lsq_range(
    magnitude: NDArray[np.float64], minimum: NDArray[np.floating], maximum: NDArray[np.floating], scheme: Scheme
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ([R], [R]) ranges whose step is LSQ's first one, s0 = 2 E|x| / sqrt(Qp) (Esser et al., 2020, section 2.1).

    Codes on both sides of zero: Qn = 2^(b-1), Qp = 2^(b-1) - 1; codes for one sign only (an asymmetric scheme and
    values that are all positive or all negative): Qn = 0, Qp = 2^b - 1. The range is s0 times the codes' range, and
    may reach beyond the values.

    Args:
        magnitude: [R] E|x|, all values counted.
        minimum: [R] smallest values.
        maximum: [R] largest values.
        scheme: Bits, symmetry, convention.
    """
    codes = 2**scheme.bits
    half = codes // 2
    if is_symmetric(scheme):
        qmin, qmax = integer_range(scheme)
        reach = 2.0 * magnitude / np.sqrt(half - 1) * (qmax - qmin) / 2.0
        return -reach, reach
    positive, negative = minimum >= 0.0, maximum <= 0.0
    one_sided = positive | negative
    step = 2.0 * magnitude / np.sqrt(np.where(one_sided, codes - 1, max(half - 1, 1)))
    low = -step * np.where(positive, 0, np.where(negative, codes - 1, half))
    high = step * np.where(positive, codes - 1, np.where(negative, 0, half - 1))
    return low, high
