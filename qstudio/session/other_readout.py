"""What a format that is not affine does to a tensor, estimated from its histogram. No Qt, no engine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, encode
from qstudio.core.calibration import find_range
from qstudio.core.encodings import FloatEncoding, LevelEncoding, OutlierEncoding
from qstudio.core.float_formats import float_encoding
from qstudio.core.formats import format_of
from qstudio.core.histogram import Histogram
from qstudio.core.levels import activation_levels, level_encoding
from qstudio.core.range_error import RangeError
from qstudio.core.rounding import outlier_positions, round_values
from qstudio.core.scheme import TENSOR, Scheme

VALUES = 4096
"""Values a histogram is drawn as: two for each bin, so that a mean error is known to about a percent."""


def values_of(histogram: Histogram, count: int = VALUES) -> NDArray[np.float32]:
    """Return [count] values with a histogram's distribution: its quantiles, zeros included."""
    counts = histogram.counts.astype(np.float64)
    if not histogram.count or not histogram.width:
        return np.zeros(count, np.float32)
    zeros = round(count * histogram.zeros / histogram.count)
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    wanted = (np.arange(count - zeros) + 0.5) / max(count - zeros, 1) * cumulative[-1]
    drawn = np.interp(wanted, cumulative, histogram.edges)
    drawn = np.clip(drawn, histogram.minimum, histogram.maximum)
    if len(drawn) > 1:  # the extremes decide ranges
        drawn[0], drawn[-1] = histogram.minimum, histogram.maximum
    return np.concatenate([drawn, np.zeros(zeros)]).astype(np.float32)


def estimate(
    histogram: Histogram, scheme: Scheme
) -> tuple[Encoding | LevelEncoding | FloatEncoding, RangeError, NDArray[np.float32], NDArray[np.float32]]:
    """Return (encoding, error, [VALUES] drawn values, the same rounded) with one scale for the tensor.

    Args:
        histogram: Of the tensor.
        scheme: Not affine, not float.
    """
    values = values_of(histogram)
    number_format, _ = format_of(scheme.format)
    low, high = find_range(histogram, scheme) if number_format.uses_range else (histogram.minimum, histogram.maximum)
    plain = replace(scheme, outliers=0.0, granularity=TENSOR)
    positions = outlier_positions(values, scheme.outliers) if scheme.outliers else np.zeros(0, np.int64)
    rest = values.copy()
    rest[positions] = 0.0
    if scheme.outliers and scheme.calibration != "manual":
        low, high = max(low, float(rest.min(initial=0.0))), min(high, float(rest.max(initial=0.0)))
    encoding: Encoding | LevelEncoding | FloatEncoding
    if number_format.family == "affine":
        encoding = encode(plain, low, high, None)
    elif number_format.family == "float":
        encoding = float_encoding(plain, low, high, None)
    elif scheme.kind == "activation":
        encoding = activation_levels(plain, low, high)
    else:
        encoding = level_encoding(plain, rest, None, np.asarray(low), np.asarray(high))
    rounded = round_values(values, OutlierEncoding(encoding, positions) if len(positions) else encoding)
    error = _error(values, rounded, rest, encoding, histogram)
    return encoding, error, values, rounded


def _error(
    values: NDArray[np.float32],
    rounded: NDArray[np.float32],
    quantized: NDArray[np.float32],
    encoding: Encoding | LevelEncoding | FloatEncoding,
    histogram: Histogram,
) -> RangeError:
    low, high = float(np.min(encoding.low)), float(np.max(encoding.high))
    difference = values.astype(np.float64) - rounded
    outside = (quantized < low) | (quantized > high)
    count = max(len(values), 1)
    rounding = float(np.square(difference[~outside]).sum()) / count
    clipping = float(np.square(difference[outside]).sum()) / count
    signal = histogram.total_square / max(histogram.count, 1)
    noise = rounding + clipping
    sqnr = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal > 0 else 0.0
    return RangeError(
        rounding,
        clipping,
        sqnr,
        100.0 * float(outside.mean()),
        100.0 * len(np.unique(rounded)) / max(_levels(encoding), 1),
        float(np.max(encoding.scale)) if isinstance(encoding, (Encoding, FloatEncoding)) else 0.0,
        int(encoding.zero_point) if isinstance(encoding, Encoding) else 0,
        low,
        high,
    )


def _levels(encoding: Encoding | LevelEncoding | FloatEncoding) -> int:
    if isinstance(encoding, Encoding):
        return encoding.levels
    if isinstance(encoding, LevelEncoding):
        return int(encoding.levels.shape[1])
    return 256 if encoding.format.startswith("fp8") else 65_536
