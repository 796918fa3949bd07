"""Encodings that are not affine, from a scheme and the values or ranges it applies to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, as_groups
from qstudio.core.encodings import DynamicEncoding, FloatEncoding, LevelEncoding, Other, OutlierEncoding
from qstudio.core.float_formats import float_encoding
from qstudio.core.formats import format_of
from qstudio.core.levels import activation_levels, level_encoding
from qstudio.core.model_info import SiteInfo
from qstudio.core.rounding import outlier_positions, round_values
from qstudio.core.scheme import TENSOR, Scheme
from qstudio.quant.weight_ranges import Ends, weight_encoding, weight_range

_FACTORS = np.linspace(1.0, 0.3, 36)
"""Shares of the full range that "mse" tries on a grid that is not even; of equal errors the widest range wins."""


def other_weight_encoding(scheme: Scheme, site: SiteInfo, values: NDArray[np.floating]) -> Other | None:
    """Return the encoding of a weight whose scheme is not affine; None where it stays float.

    Args:
        scheme: With `is_affine` false.
        site: The weight's site.
        values: The weight in float32; NaN and infinities count as 0.
    """
    if scheme.is_float:
        return None
    finite = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    positions = outlier_positions(finite, scheme.outliers) if scheme.outliers else np.zeros(0, np.int64)
    rest = finite.copy()
    rest.reshape(-1)[positions] = 0.0
    plain = replace(scheme, outliers=0.0)
    inner: Encoding | LevelEncoding | FloatEncoding | None
    inner = weight_encoding(plain, site, rest) if plain.is_affine else _rounded(plain, site, rest, positions)
    if not scheme.outliers:
        assert not isinstance(inner, Encoding)  # the scheme is not affine
        return inner
    assert inner is not None
    return OutlierEncoding(inner, positions)


def _rounded(
    scheme: Scheme, site: SiteInfo, values: NDArray[np.float32], left_out: NDArray[np.int64]
) -> LevelEncoding | FloatEncoding:
    """Return the encoding of the values that are not outliers; these are 0 in `values`."""
    if site.channel_axis is None or values.ndim < 2:
        scheme = replace(scheme, granularity=TENSOR)
    low, high = weight_range(scheme, site, values)
    if scheme.calibration == "mse" and format_of(scheme.format)[0].uses_range:
        low, high = _least_error(scheme, site, values, low, high)
    return _encoding(scheme, site, values, low, high, left_out)


def _encoding(
    scheme: Scheme,
    site: SiteInfo,
    values: NDArray[np.float32],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    left_out: NDArray[np.int64] | None = None,
) -> LevelEncoding | FloatEncoding:
    axis = None if scheme.granularity.kind == "tensor" else site.channel_axis
    if format_of(scheme.format)[0].family == "float":
        return float_encoding(scheme, low, high, axis)
    return level_encoding(scheme, values, axis, low, high, left_out)


def _least_error(
    scheme: Scheme, site: SiteInfo, values: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64]
) -> Ends:
    """Return, for each row, the share of its full range with the least squared error on the format's own grid."""
    axis = site.channel_axis or 0
    best = np.ones(np.shape(low))
    least = np.full(np.shape(low), np.inf)
    for factor in _FACTORS:
        rounded = round_values(values, _encoding(scheme, site, values, low * factor, high * factor))
        error = np.square(as_groups(rounded - values, scheme.granularity, axis), dtype=np.float64).sum(axis=-1)
        error = error.reshape(np.shape(low))
        better = error < least * (1 - 1e-12)
        best, least = np.where(better, factor, best), np.where(better, error, least)
    return low * best, high * best


def other_activation_encoding(scheme: Scheme, low: float, high: float) -> Other:
    """Return the encoding of an activation whose scheme is not affine, for a calibrated range.

    A range taken at run time goes with integers only; other formats ignore it.
    """
    number_format, _ = format_of(scheme.format)
    if number_format.family == "affine":
        return DynamicEncoding(scheme.bits, scheme.symmetric, scheme.format)
    if number_format.family == "float":
        return float_encoding(scheme, low, high, None)
    return activation_levels(scheme, low, high)
