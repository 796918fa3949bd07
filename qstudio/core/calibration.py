"""Calibrators: a range from a histogram, for any bit width, in milliseconds.

Every calibrator is a function of the cached histogram only, so that the window can show all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import integer_range, scale_zero_point
from qstudio.core.errors import UserError
from qstudio.core.histogram import Histogram
from qstudio.core.range_error import squared_errors
from qstudio.core.registry import Registry, resolve
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
    target: str
    """Import string of a function (histogram, scheme, parameter) -> range; numpy only, as the window calls it live."""
    parameter: str = ""
    """Name and unit of the parameter after the colon; empty when there is none."""
    default: float | None = None
    bounds: tuple[float, float] | None = None

    def find(self, histogram: Histogram, scheme: Scheme, parameter: float | None = None) -> Range:
        """Return the range for a histogram under a scheme, (low, high) with low <= 0 <= high.

        Raises:
            UserError: A plug-in failed or gave something that is not a range.
        """
        try:
            low, high = map(float, _function(self.target)(histogram, scheme, parameter))
        except Exception as error:
            if self.target.startswith("qstudio."):
                raise  # a fault of ours is reported as one; a plug-in may fail in any way
            raise UserError(f"it failed ({error})", f"calibration {self.id}", "Choose another calibration") from error
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"it gave {low}..{high}", f"calibration {self.id}", "Choose another calibration")
        return _hold_zero(low, high)


@cache
def _function(target: str) -> Callable[[Histogram, Scheme, float | None], Range]:
    return cast("Callable[[Histogram, Scheme, float | None], Range]", resolve(target))


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
    low, high = histogram.minimum, histogram.maximum
    # Each tail is counted from its own end: where bins are empty, the cut moves inward to the next value.
    if low < 0:
        low = max(low, float(np.interp(share, np.append(0.0, np.cumsum(counts)), histogram.edges)))
    if high > 0:
        high = min(high, float(np.interp(share, np.append(0.0, np.cumsum(counts[::-1])), histogram.edges[::-1])))
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
    factors = np.linspace(1.0, 0.01, 100)  # from wide to narrow: of equal errors the widest range wins
    best = factors[np.argmin(_costs(coarse, scheme, low * factors, high * factors))]
    fine = np.clip(best + np.linspace(0.01, -0.01, 21), 1e-3, 1.0)
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
    step = len(histogram.counts) // bins
    return replace(histogram, counts=histogram.counts.reshape(bins, step).sum(axis=1), width=histogram.width * step)


def _entropy(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Least Kullback-Leibler divergence between |x| and its quantized distribution; see `entropy_bins`."""
    full = _minmax(histogram, scheme, None)
    reach = max(-full[0], full[1])
    if reach == 0.0 or not histogram.width:
        return full
    bins = len(histogram.counts)
    home = np.clip((np.abs(histogram.centres) / reach * bins).astype(int), 0, bins - 1)
    folded = np.bincount(home, weights=histogram.counts, minlength=bins).astype(np.float64)
    best = int(entropy_bins(folded[None, :], entropy_levels(scheme, full[0] < 0 < full[1]))[0])
    clip = reach * best / bins
    return _hold_zero(max(full[0], -clip), min(full[1], clip))


def entropy_levels(scheme: Scheme, two_sided: bool) -> int:
    """Return how many levels |x| has: half of the codes where the sign takes the other half."""
    signed = scheme.symmetric or two_sided
    return max(1 << (scheme.bits - 1) if signed else 1 << scheme.bits, 2)


def entropy_bins(folded: NDArray[np.floating], levels: int) -> NDArray[np.int64]:
    """Return, for each row, the number of bins of |x| to keep for the least Kullback-Leibler divergence.

    As in TensorRT's entropy calibration (Migacz, GTC 2017): thresholds from `levels` bins upward (128 of them), what
    lies beyond is moved into the last kept bin of P, Q merges the kept bins into levels (float quotients) and spreads
    each level's mass over its bins that are not empty. Onnxruntime's default of 128 bins has one candidate and is
    minmax; this is not.

    Args:
        folded: [R, bins] counts of |x| on an even grid from 0 to each row's largest magnitude, zeros left out.
        levels: Levels of |x|.
    """
    counts = np.asarray(folded, np.float64)
    rows, bins = counts.shape
    if levels >= bins:
        return np.full(rows, bins)
    nothing = np.zeros((rows, 1))
    mass_below = np.concatenate([nothing, np.cumsum(counts, axis=1)], axis=1)
    cells_below = np.concatenate([nothing, np.cumsum(counts > 0, axis=1)], axis=1)
    total = np.maximum(mass_below[:, -1], 1.0)
    shares = counts / total[:, None]
    # sum of p log p over the bins before each threshold: with it a threshold costs O(levels), not O(bins)
    surprise_below = np.concatenate([nothing, np.cumsum(_p_log(shares), axis=1)], axis=1)
    best, least = np.full(rows, bins), np.full(rows, np.inf)
    for size in np.unique(np.linspace(levels, bins, 128).astype(int))[::-1]:
        edges = -(-np.arange(levels + 1) * size // levels)
        mass = np.diff(mass_below[:, edges], axis=1)
        cells = np.diff(cells_below[:, edges], axis=1)
        kept = mass_below[:, size]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_q = np.where(mass > 0, np.log(mass / np.maximum(cells, 1.0) / np.maximum(kept, 1.0)[:, None]), 0.0)
        last = counts[:, size - 1]
        beyond = mass_below[:, -1] - kept
        last_log_q = np.where(last > 0, log_q[:, -1], np.log(1e-10))
        divergence = (
            surprise_below[:, size - 1]
            + _p_log((last + beyond) / total)
            - (mass * log_q).sum(axis=1) / total
            - np.where(beyond > 0, beyond * last_log_q, 0.0) / total
        )
        # From wide to narrow: of equal divergences the widest range wins.
        better = (kept > 0) & (divergence < least - 1e-12)
        best, least = np.where(better, size, best), np.where(better, divergence, least)
    return best


def _p_log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p log p, 0 at 0."""
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)


def _manual(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    return scheme.clip if scheme.clip is not None else _minmax(histogram, scheme, None)


def _hold_zero(low: float, high: float) -> Range:
    return (min(float(low), 0.0), max(float(high), 0.0))


CALIBRATORS: Registry[Calibrator] = Registry(
    "qstudio.calibrators",
    Calibrator,
    Calibrator(
        "minmax",
        "Min-max",
        "Keep every value: no clipping, the coarsest step. Right for weights at 8 bits.",
        "Jacob et al., 2018",
        "qstudio.core.calibration:_minmax",
    ),
    Calibrator(
        "percentile",
        "Percentile",
        "Cut a fixed share of the largest values. Right when a few outliers set the scale.",
        "Wu et al., 2020",
        "qstudio.core.calibration:_percentile",
        "percent kept",
        99.99,
        (50.0, 100.0),
    ),
    Calibrator(
        "mse",
        "MSE",
        "Least mean squared error of rounding and clipping together. The safest single choice for activations.",
        "Banner et al., 2019",
        "qstudio.core.calibration:_mse",
    ),
    Calibrator(
        "entropy",
        "Entropy",
        "Least information lost (Kullback-Leibler divergence). Classic for 8-bit activations of CNNs.",
        "Migacz, GTC 2017",
        "qstudio.core.calibration:_entropy",
    ),
    Calibrator("manual", "Manual", "The clip range you set by hand.", "", "qstudio.core.calibration:_manual"),
)
"""Calibrators by id: built-ins, and the plug-ins of the entry-point group "qstudio.calibrators"."""


def check_calibration(text: str) -> str:
    """Return a calibration id in canonical form ("percentile" -> "percentile:99.99").

    Raises:
        UserError: There is no such calibrator, or its parameter is missing or out of bounds.
    """
    name, _, parameter = text.strip().lower().partition(":")
    calibrator = CALIBRATORS.get(name)
    if calibrator is None:
        what = CALIBRATORS.why_missing(name) or "there is no such calibration"
        raise UserError(f"'{text}': {what}", "calibration", f"Choose one of {', '.join(CALIBRATORS)}")
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
