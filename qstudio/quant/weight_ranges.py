"""Ranges of weights: for each tensor, channel or group, from the real values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, as_groups, encode, grid_of, is_symmetric
from qstudio.core.calibration import entropy_bins, entropy_levels, find_range
from qstudio.core.calibrators.direct import lsq_range
from qstudio.core.histogram import BINS, histogram_of
from qstudio.core.model_info import SiteInfo
from qstudio.core.scheme import TENSOR, Scheme

Rows = NDArray[np.float32]
Ends = tuple[NDArray[np.float64], NDArray[np.float64]]

_ENTROPY_ROWS = 256
"""Rows whose histograms are held at a time: 4 MiB of counts, a few times that of prefix sums."""


def weight_encoding(scheme: Scheme, site: SiteInfo, values: NDArray[np.floating]) -> Encoding | None:
    """Return the encoding of a weight, or None where it stays float.

    Per tensor the range comes from the weight's histogram, so it is the one the window shows. Per channel and group
    it comes from the values of each row. A manual clip limits every row: rows that are narrower keep their own range.

    Args:
        scheme: The weight's scheme; a granularity finer than the tensor needs the site's channel axis.
        site: The weight's site.
        values: The weight in float32; NaN and infinities count as 0.
    """
    if scheme.is_float:
        return None
    if site.channel_axis is None or np.ndim(values) < 2:
        scheme = replace(scheme, granularity=TENSOR)
    low, high = weight_range(scheme, site, values)
    return encode(scheme, low, high, site.channel_axis)


def weight_range(scheme: Scheme, site: SiteInfo, values: NDArray[np.floating]) -> Ends:
    """Return the range of a weight as its calibrator finds it: (low, high), each [], [C] or [C, G].

    Args:
        scheme: The weight's scheme, tensor granularity where the weight has no channels.
        site: The weight's site.
        values: The weight in float32; NaN and infinities count as 0.
    """
    finite = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if scheme.granularity.kind == "tensor":
        low, high = find_range(histogram_of(finite), scheme)
        return np.asarray(low, np.float64), np.asarray(high, np.float64)
    groups = as_groups(finite, scheme.granularity, site.channel_axis or 0)
    rows = np.ascontiguousarray(groups.reshape(-1, groups.shape[-1]))
    name, _, parameter = scheme.calibration.partition(":")
    method = _METHODS.get(name)
    if method is not None:
        lows, highs = method(rows, scheme, float(parameter) if parameter else None)
    else:  # a plug-in knows histograms only
        lows, highs = np.array([find_range(histogram_of(row), scheme) for row in rows], np.float64).T
    shape = groups.shape[:-1]
    return lows.reshape(shape), highs.reshape(shape)


def _minmax(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    return _hold_zero(rows.min(axis=1), rows.max(axis=1))


def _manual(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    low, high = _minmax(rows, scheme, None)
    if scheme.clip is None:
        return low, high
    return np.maximum(low, scheme.clip[0]), np.minimum(high, scheme.clip[1])


def _percentile(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    """Cut (100 - p) % of each row: half from each tail that has values, all from the only one."""
    cut = 1.0 - (parameter if parameter is not None else 99.99) / 100.0
    low, high = _minmax(rows, scheme, None)
    quantiles = np.quantile(rows.astype(np.float64), [cut / 2, cut, 1 - cut, 1 - cut / 2], axis=1)
    both = (low < 0) & (high > 0)
    return _hold_zero(np.where(both, quantiles[0], quantiles[1]), np.where(both, quantiles[3], quantiles[2]))


def _quantile(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    """Cut (100 - p) % of each row from each tail on its own."""
    cut = 1.0 - (parameter if parameter is not None else 99.99) / 100.0
    return _hold_zero(*np.quantile(rows.astype(np.float64), [cut, 1 - cut], axis=1))


def _mean_std(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    """Keep k standard deviations around each row's mean, no wider than the row reaches."""
    low, high = _minmax(rows, scheme, None)
    mean = rows.mean(axis=1, dtype=np.float64)
    reach = (parameter if parameter is not None else 3.0) * rows.std(axis=1, dtype=np.float64)
    return np.clip(mean - reach, low, 0.0), np.clip(mean + reach, 0.0, high)


def _lsq(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    """Start each row with LSQ's first step, s0 = 2 E|x| / sqrt(Qp)."""
    magnitude = np.abs(rows).mean(axis=1, dtype=np.float64)
    return lsq_range(magnitude, rows.min(axis=1), rows.max(axis=1), scheme)


def _entropy(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    low, high = _minmax(rows, scheme, None)
    reach = np.maximum(-low, high)
    # A row whose values have one sign is treated like the rest: weights of one layer share their levels.
    levels = entropy_levels(scheme, two_sided=True)
    best = np.full(len(rows), BINS)
    for start in range(0, len(rows), _ENTROPY_ROWS):
        part = np.abs(rows[start : start + _ENTROPY_ROWS]).astype(np.float64)
        width = np.maximum(reach[start : start + _ENTROPY_ROWS, None], np.finfo(np.float64).tiny) / BINS
        index = np.minimum((part / width).astype(np.int64), BINS - 1) + BINS * np.arange(len(part))[:, None]
        counts = np.bincount(index[part > 0], minlength=BINS * len(part)).reshape(len(part), BINS)
        best[start : start + _ENTROPY_ROWS] = entropy_bins(counts.astype(np.float64), levels)
    clip = reach * best / BINS
    return np.maximum(low, -clip), np.minimum(high, clip)


def _mse(rows: Rows, scheme: Scheme, parameter: float | None) -> Ends:
    """Least squared error per row: 100 shrunk ranges, a finer search around the best, then each end on its own.

    The candidates are those of `qstudio.core.calibration`, tried on the values themselves, all rows at once.
    """
    full_low, full_high = _minmax(rows, scheme, None)
    values = torch.from_numpy(rows)
    cost = _row_cost(values, scheme)
    low, high, least = full_low, full_high, cost(full_low, full_high)
    factor = np.ones(len(rows))
    # From wide to narrow: of equal errors the widest range wins.
    for candidate in np.linspace(0.99, 0.01, 99):
        tried = cost(full_low * candidate, full_high * candidate)
        better = tried < least
        factor, least = np.where(better, candidate, factor), np.where(better, tried, least)
    centre = factor
    for offset in np.linspace(0.01, -0.01, 21):
        candidate = np.clip(centre + offset, 1e-3, 1.0)
        tried = cost(full_low * candidate, full_high * candidate)
        better = tried < least
        factor, least = np.where(better, candidate, factor), np.where(better, tried, least)
    low, high = full_low * factor, full_high * factor
    if scheme.symmetric:
        return low, high
    for _ in range(2):
        for is_low in (True, False):
            start = low if is_low else high
            for step in np.linspace(1.5, 0.5, 41):
                end = np.maximum(start * step, full_low) if is_low else np.minimum(start * step, full_high)
                tried = cost(end, high) if is_low else cost(low, end)
                better = tried < least
                least = np.where(better, tried, least)
                low = np.where(better, end, low) if is_low else low
                high = high if is_low else np.where(better, end, high)
    return low, high


def _row_cost(
    values: torch.Tensor, scheme: Scheme
) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function (low, high) -> [R] root of the summed squared error of fake quantization."""
    buffer = torch.empty_like(values)

    def cost(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
        scale, zero_point, qmin, qmax = grid_of(scheme, low, high)
        s = torch.from_numpy(scale)[:, None]
        torch.div(values, s, out=buffer).round_()
        if is_symmetric(scheme):
            buffer.clamp_(qmin, qmax)
        else:
            zero = torch.from_numpy(zero_point.astype(np.float32))[:, None]
            buffer.clamp_(qmin - zero, qmax - zero)
        buffer.mul_(s).sub_(values)
        return torch.linalg.vector_norm(buffer, dim=1).double().numpy()

    return cost


def _hold_zero(low: NDArray[np.floating], high: NDArray[np.floating]) -> Ends:
    return np.minimum(low.astype(np.float64), 0.0), np.maximum(high.astype(np.float64), 0.0)


_METHODS: dict[str, Callable[[Rows, Scheme, float | None], Ends]] = {
    "minmax": _minmax,
    "moving_average": _minmax,  # a weight is seen once: nothing to average
    "percentile": _percentile,
    "quantile": _quantile,
    "mse": _mse,
    "entropy": _entropy,
    "mean_std": _mean_std,
    "lsq": _lsq,
    "manual": _manual,
}
