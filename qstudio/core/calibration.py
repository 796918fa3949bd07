"""Calibrators: a range from a histogram, for any bit width, in milliseconds.

Every calibrator is a function of the cached histogram only, so that the window can show all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import integer_range, scale_zero_point
from qstudio.core.errors import UserError
from qstudio.core.histogram import Histogram
from qstudio.core.range_error import squared_errors
from qstudio.core.scheme import Scheme

Range = tuple[float, float]
"""(low, high) in units of the tensor, holding zero."""


@dataclass(frozen=True)
class Calibrator:
    """How to find a range, and what a person is told about it."""

    id: str
    title: str
    summary: str
    """One sentence: what it does and when to use it."""
    source: str
    """Where the method comes from."""
    find: Callable[[Histogram, Scheme, float | None], Range]
    """(histogram, scheme, parameter) -> range."""
    parameter: str = ""
    """Name and unit of the parameter after the colon; empty when there is none."""
    default: float | None = None
    bounds: tuple[float, float] | None = None


def _minmax(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    return _hold_zero(histogram.minimum, histogram.maximum)


def _percentile(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Cut (100 - p) % of the values: half from each tail that has values, all from the only one."""
    if not histogram.width or not histogram.count:
        return _minmax(histogram, scheme, None)
    cut = (1.0 - (parameter if parameter is not None else 99.99) / 100.0) * histogram.count
    counts = histogram.counts.astype(np.float64).copy()
    if histogram.zeros:
        counts[int(np.clip(-histogram.low / histogram.width, 0, len(counts) - 1))] += histogram.zeros
    share = cut / 2 if histogram.minimum < 0 < histogram.maximum else cut
    rising = np.concatenate([[0.0], np.cumsum(counts)])
    low, high = histogram.minimum, histogram.maximum
    if low < 0:
        low = max(low, float(np.interp(share, rising, histogram.edges)))
    if high > 0:
        high = min(high, float(np.interp(histogram.count - share, rising, histogram.edges)))
    return _hold_zero(low, high)


def _mse(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Least mean squared error over 100 shrunk ranges, then a finer search around the best.

    Asymmetric ranges shrink both ends by the same factor first, then each end on its own.
    """
    full = _minmax(histogram, scheme, None)
    if full[0] == full[1] or not histogram.width:
        return full
    coarse = _compact(histogram)
    low, high = full
    factors = np.linspace(0.01, 1.0, 100)
    best = factors[np.argmin(_costs(coarse, scheme, low * factors, high * factors))]
    fine = np.clip(best + np.linspace(-0.01, 0.01, 21), 1e-3, 1.0)
    best = fine[np.argmin(_costs(coarse, scheme, low * fine, high * fine))]
    low, high = low * best, high * best
    if scheme.symmetric or full[0] == 0.0 or full[1] == 0.0:
        return _hold_zero(low, high)
    for _ in range(2):
        steps = np.linspace(0.5, 1.5, 41)
        lows = np.maximum(low * steps, full[0])
        low = float(lows[np.argmin(_costs(coarse, scheme, lows, np.full_like(lows, high)))])
        highs = np.minimum(high * steps, full[1])
        high = float(highs[np.argmin(_costs(coarse, scheme, np.full_like(highs, low), highs))])
    return _hold_zero(low, high)


def _costs(
    histogram: Histogram, scheme: Scheme, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    qmin, qmax = integer_range(scheme)
    scale, zero_point = scale_zero_point(low, high, qmin, qmax, scheme.symmetric)
    rounding, clipping = squared_errors(histogram, scale.astype(np.float64), zero_point.astype(np.float64), qmin, qmax)
    return rounding + clipping


def _compact(histogram: Histogram, bins: int = 512) -> Histogram:
    """Return the histogram with fewer bins: the error integral is exact within a bin, so the optimum hardly moves."""
    from dataclasses import replace

    step = len(histogram.counts) // bins
    return replace(histogram, counts=histogram.counts.reshape(bins, step).sum(axis=1), width=histogram.width * step)


def _entropy(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Least Kullback-Leibler divergence between |x| and its quantized distribution.

    As in TensorRT's entropy calibration (Migacz, GTC 2017): 2,048 bins of |x|, thresholds from 2^(b-1) bins upward,
    float quotients when bins are merged into levels. Onnxruntime's default of 128 bins has one candidate and is
    minmax; this is not.
    """
    full = _minmax(histogram, scheme, None)
    reach = max(-full[0], full[1])
    if reach == 0.0 or not histogram.width:
        return full
    signed = scheme.symmetric or (full[0] < 0 < full[1])
    levels = max(2 ** (scheme.bits - 1) if signed else 2**scheme.bits, 2)
    bins = len(histogram.counts)
    folded = np.bincount(
        np.clip((np.abs(histogram.centres) / reach * bins).astype(int), 0, bins - 1),
        weights=histogram.counts,
        minlength=bins,
    )
    if levels >= bins:
        return full
    cumulative = np.concatenate([[0.0], np.cumsum(folded)])
    total = cumulative[-1]
    thresholds = np.unique(np.linspace(levels, bins, 128).astype(int))
    best, best_divergence = bins, np.inf
    for threshold in thresholds:
        reference = folded[:threshold].copy()
        reference[-1] += total - cumulative[threshold]
        divergence = _divergence(reference, folded[:threshold], levels)
        if divergence < best_divergence:
            best, best_divergence = int(threshold), divergence
    clip = reach * best / bins
    return _hold_zero(max(full[0], -clip), min(full[1], clip))


def _divergence(reference: NDArray[np.float64], counts: NDArray[np.float64], levels: int) -> float:
    """Return KL(P || Q) where Q is `counts` merged into `levels` and spread back over the bins that are not empty."""
    size = len(counts)
    level = np.minimum((np.arange(size) * (levels / size)).astype(int), levels - 1)
    filled = (counts > 0).astype(np.float64)
    mass = np.bincount(level, weights=counts, minlength=levels)
    cells = np.bincount(level, weights=filled, minlength=levels)
    q = np.where(filled > 0, (mass / np.maximum(cells, 1.0))[level], 0.0)
    p_sum, q_sum = reference.sum(), q.sum()
    if p_sum == 0 or q_sum == 0:
        return float("inf")
    p, q = reference / p_sum, q / q_sum
    both = p > 0
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-10))).sum())


def _manual(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    return scheme.clip if scheme.clip is not None else _minmax(histogram, scheme, None)


def _hold_zero(low: float, high: float) -> Range:
    return (min(float(low), 0.0), max(float(high), 0.0))


CALIBRATORS: dict[str, Calibrator] = {
    c.id: c
    for c in (
        Calibrator(
            "minmax",
            "Min-max",
            "Keep every value: no clipping, the coarsest step. Right for weights at 8 bits.",
            "Jacob et al., 2018",
            _minmax,
        ),
        Calibrator(
            "percentile",
            "Percentile",
            "Cut a fixed share of the largest values. Right when a few outliers set the scale.",
            "Wu et al., 2020",
            _percentile,
            "percent kept",
            99.99,
            (50.0, 100.0),
        ),
        Calibrator(
            "mse",
            "MSE",
            "Least mean squared error of rounding and clipping together. The safest single choice for activations.",
            "Banner et al., 2019",
            _mse,
        ),
        Calibrator(
            "entropy",
            "Entropy",
            "Least information lost (Kullback-Leibler divergence). Classic for 8-bit activations of CNNs.",
            "Migacz, GTC 2017",
            _entropy,
        ),
        Calibrator("manual", "Manual", "The clip range you set by hand.", "", _manual),
    )
}
"""Built-in calibrators by id; plug-ins join through the registry."""


def check_calibration(text: str) -> str:
    """Return a calibration id in canonical form ("percentile" -> "percentile:99.99").

    Raises:
        UserError: There is no such calibrator, or its parameter is missing or out of bounds.
    """
    name, _, parameter = text.strip().lower().partition(":")
    calibrator = CALIBRATORS.get(name)
    if calibrator is None:
        raise UserError(f"'{text}' is not a calibration", "calibration", f"Choose one of {', '.join(CALIBRATORS)}")
    if calibrator.bounds is None:
        if parameter:
            raise UserError(f"{name} takes no parameter", "calibration", f"Write {name}")
        return name
    low, high = calibrator.bounds
    try:
        value = float(parameter) if parameter else float(calibrator.default or 0.0)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UserError(f"'{parameter}' is not a {calibrator.parameter}", name, f"Choose {low:g} to {high:g}")
    return f"{name}:{value:.10g}"


def find_range(histogram: Histogram, scheme: Scheme) -> Range:
    """Return the range the scheme's calibrator chooses (always holding zero)."""
    name, _, parameter = scheme.calibration.partition(":")
    calibrator = CALIBRATORS[name]
    return calibrator.find(histogram, scheme, float(parameter) if parameter else calibrator.default)
