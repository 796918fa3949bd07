"""k-means in one dimension: Lloyd's iteration on sorted values, all rows at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS = 300
"""Lloyd's steps at most; rows stop earlier, as soon as no value changes its mean."""

_CHUNK = 1 << 21
"""Values sorted and summed at a time: about 50 MiB."""


def kmeans_levels(rows: NDArray[np.float32], valid: NDArray[np.bool_] | None, levels: int) -> NDArray[np.float64]:
    """Return [R, levels] ascending means that (locally) minimise each row's squared error.

    Lloyd's iteration from two starts, the better of which is kept for each row: even quantiles of the distinct values
    (so that many equal values do not use up the means), and even steps between the ends (Han et al., 2016: the few
    large values matter). A row with no more distinct values than levels is represented exactly.

    Args:
        rows: [R, N] values.
        valid: [R, N] which of them count; None for all.
        levels: Means of each row.
    """
    step = max(_CHUNK // max(rows.shape[1], 1), 1)
    parts = [
        _chunk_levels(rows[i : i + step], None if valid is None else valid[i : i + step], levels)
        for i in range(0, len(rows), step)
    ]
    return np.concatenate(parts)


def _chunk_levels(rows: NDArray[np.float32], valid: NDArray[np.bool_] | None, levels: int) -> NDArray[np.float64]:
    kept = rows if valid is None else np.where(valid, rows, np.float32(np.inf))
    values = np.sort(kept, axis=1).astype(np.float64)
    counts = np.full(len(rows), rows.shape[1]) if valid is None else valid.sum(axis=1)
    nothing = np.zeros((len(rows), 1))
    finite = np.where(np.isfinite(values), values, 0.0)
    sums = np.concatenate([nothing, np.cumsum(finite, axis=1)], axis=1)
    best, least = None, None
    for start in (_quantiles(values, counts, levels), _even(values, counts, levels)):
        found, edges = _lloyd(values, sums, counts, start)
        total = np.diff(np.take_along_axis(sums, edges, axis=1), axis=1)
        # sum (x - l)^2 = sum x^2 - 2 l sum x + n l^2; the first term is the same for both starts
        error = (found * (np.diff(edges, axis=1) * found - 2 * total)).sum(axis=1)
        if best is None or least is None:
            best, least = found, error
        else:
            better = error < least
            best = np.where(better[:, None], found, best)
    assert best is not None
    return best


def _lloyd(
    values: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.integer], start: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return ([R, L] means, [R, L + 1] where each mean's values begin and end)."""
    means = start.copy()
    edges = np.zeros((len(values), start.shape[1] + 1), np.int64)
    edges[:, -1] = counts
    active = np.arange(len(values))
    last = values.shape[1] - 1
    for _ in range(MAX_ITERATIONS):
        now = means[active]
        inner = count_below(values, (now[:, :-1] + now[:, 1:]) / 2, active)
        cells = edges[active]
        moved = (cells[:, 1:-1] != inner).any(axis=1)
        cells[:, 1:-1] = inner
        edges[active] = cells
        size = np.diff(cells, axis=1)
        row = active[:, None]
        total = np.diff(sums[row, cells], axis=1)
        smallest, largest = values[row, np.minimum(cells[:, :-1], last)], values[row, np.maximum(cells[:, 1:] - 1, 0)]
        # Differences of long sums are off in the last digits: a mean lies between its own values, and equal values
        # are their own mean. Means without values stay where they are.
        mean = np.where(size > 0, total / np.maximum(size, 1), now)
        means[active] = np.where(size > 0, np.clip(mean, smallest, largest), now)
        active = active[moved]
        if not active.size:
            break
    return means, edges


def count_below(
    values: NDArray[np.float64], bounds: NDArray[np.float64], rows: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return how many of each row's ascending values are below each bound: a binary search of all rows at once.

    Args:
        values: [R, N] ascending.
        bounds: [A, B] bounds of the rows that are asked for.
        rows: [A] their indices.
    """
    flat, width = values.reshape(-1), values.shape[1]
    offset = (rows * width)[:, None]
    found = np.zeros(bounds.shape, np.int64)
    step = 1 << max(width.bit_length() - 1, 0)
    while step:
        probe = found + step
        inside = probe <= width
        below = inside & (flat[offset + np.minimum(probe, width) - 1] < bounds)
        found = np.where(below, probe, found)
        step >>= 1
    return found


def _quantiles(values: NDArray[np.float64], counts: NDArray[np.integer], levels: int) -> NDArray[np.float64]:
    """Return [R, levels] even quantiles of each row's distinct values."""
    new = np.ones(values.shape, bool)
    new[:, 1:] = values[:, 1:] != values[:, :-1]
    new &= np.arange(values.shape[1]) < counts[:, None]
    rank = np.cumsum(new, axis=1).astype(np.float64)
    wanted = np.floor((np.arange(levels) + 0.5) / levels * rank[:, -1:]) + 1
    home = count_below(rank, wanted, np.arange(len(values)))
    home = np.minimum(home, np.maximum(counts - 1, 0)[:, None])
    return _finite(np.take_along_axis(values, home, axis=1))


def _even(values: NDArray[np.float64], counts: NDArray[np.integer], levels: int) -> NDArray[np.float64]:
    """Return [R, levels] even steps from each row's smallest to its largest value."""
    low = _finite(values[:, :1])
    high = _finite(np.take_along_axis(values, np.maximum(counts - 1, 0)[:, None], axis=1))
    return np.asarray(low + (high - low) * (np.arange(levels) / max(levels - 1, 1)))


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values with those of rows without any replaced by 0."""
    return np.where(np.isfinite(values), values, 0.0)
