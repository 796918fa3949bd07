"""The range that loses least information, as TensorRT's entropy calibration finds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import is_symmetric
from qstudio.core.calibrators.direct import Range, hold_zero, minmax
from qstudio.core.histogram import Histogram
from qstudio.core.scheme import Scheme

THRESHOLDS = 128
"""Candidates between the number of levels and the number of bins."""

_TIE = 1e-12
"""Divergences closer than this are equal, and the widest range wins."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """Running sums of one row of counts of |x|, shared by all numbers of levels."""

    counts: NDArray[np.float64]
    mass_below: NDArray[np.float64]
    """[B + 1] values before each edge."""
    cells_below: NDArray[np.float64]
    """[B + 1] bins before each edge that are not empty."""
    surprise_below: NDArray[np.float64]
    """[B + 1] sum of p log p of the bins before each edge."""

    @classmethod
    def of(cls, counts: NDArray[np.float64]) -> _Sums:
        mass = np.append(0.0, np.cumsum(counts))
        cells = np.append(0.0, np.cumsum(counts > 0))
        return cls(counts, mass, cells, np.append(0.0, np.cumsum(_p_log(counts / max(mass[-1], 1.0)))))


@lru_cache(maxsize=4)
def _folded(histogram: Histogram) -> tuple[float, _Sums]:
    """Return (largest magnitude, sums of |x| on an even grid from 0 to it), zeros left out."""
    reach = max(-histogram.minimum, histogram.maximum)
    bins = len(histogram.counts)
    home = np.clip((np.abs(histogram.centres) / reach * bins).astype(int), 0, bins - 1)
    return reach, _Sums.of(np.bincount(home, weights=histogram.counts, minlength=bins).astype(np.float64))


def entropy(histogram: Histogram, scheme: Scheme, parameter: float | None) -> Range:
    """Return the range of least Kullback-Leibler divergence between |x| and its quantized distribution."""
    full = minmax(histogram, scheme, None)
    if full[0] == full[1] or not histogram.width:
        return full
    reach, sums = _folded(histogram)
    levels, bins = entropy_levels(scheme, full[0] < 0 < full[1]), len(sums.counts)
    best = bins if levels >= bins else _best_size(sums, levels)
    clip = reach * best / bins
    return hold_zero(max(full[0], -clip), min(full[1], clip))


def entropy_levels(scheme: Scheme, two_sided: bool) -> int:
    """Return how many levels |x| has: half of the codes where the sign takes the other half."""
    signed = is_symmetric(scheme) or two_sided
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
    return np.array([_best_size(_Sums.of(row), levels) for row in counts], np.int64).reshape(rows)


@lru_cache(maxsize=16)
def _grid(levels: int, bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ([S] thresholds in bins, [S, levels + 1] the bins at which each threshold's levels begin and end)."""
    sizes = np.unique(np.linspace(levels, bins, THRESHOLDS).astype(np.int64))
    return sizes, -(-np.arange(levels + 1) * sizes[:, None] // levels)


def _best_size(sums: _Sums, levels: int) -> int:
    """Return the threshold of least divergence, of equal ones the widest; all thresholds at once.

    sum p log(p / q) = sum p log p - sum p log q: the first sum is running, the second has one term for each level, as
    q is the same in all bins of a level that are not empty.
    """
    sizes, edges = _grid(levels, len(sums.counts))
    total = max(float(sums.mass_below[-1]), 1.0)
    kept = sums.mass_below[sizes]
    rows = max(_CELLS // levels, 1)
    parts = [_level_terms(sums, edges[i : i + rows]) for i in range(0, len(sizes), rows)]
    kept_terms, last_log_q = (np.concatenate(part) for part in zip(*parts, strict=True))
    log_kept = np.log(np.maximum(kept, 1.0))
    last = sums.counts[sizes - 1]
    beyond = sums.mass_below[-1] - kept
    divergence = (
        sums.surprise_below[sizes - 1]
        + _p_log((last + beyond) / total)
        - (kept_terms - kept * log_kept) / total
        - beyond * np.where(last > 0, last_log_q - log_kept, np.log(1e-10)) / total
    )
    divergence[kept <= 0] = np.inf
    return int(sizes[np.flatnonzero(divergence <= divergence.min() + _TIE)[-1]])


def _level_terms(sums: _Sums, edges: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ([S] sum over levels of mass log(mass / bins that are not empty), [S] that log of the last level)."""
    mass = np.diff(sums.mass_below.take(edges))
    log_q = np.diff(sums.cells_below.take(edges))
    np.maximum(log_q, 1.0, out=log_q)
    np.divide(mass, log_q, out=log_q)
    np.maximum(log_q, np.finfo(np.float64).tiny, out=log_q)  # a level without mass weighs nothing
    np.log(log_q, out=log_q)
    mass *= log_q
    return mass.sum(axis=1), log_q[:, -1]


_CELLS = 16384
"""Levels looked at in one go: 128 KiB an array, which stays in the processor's cache and off the page allocator."""


def _p_log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p log p, 0 at 0."""
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)
