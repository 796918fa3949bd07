"""Rounding with any encoding, and what an encoding costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import SMALLEST_SCALE, Encoding, fake_quantize, integer_range, is_symmetric
from qstudio.core.conventions import block_floating_point
from qstudio.core.encodings import DynamicEncoding, FloatEncoding, LevelEncoding, OutlierEncoding
from qstudio.core.float_formats import round_with_float
from qstudio.core.histogram import Histogram
from qstudio.core.levels import round_to_levels
from qstudio.core.scheme import Scheme

Rounded = Encoding | LevelEncoding | FloatEncoding
"""Encodings that say by themselves what a value becomes."""

_POINTS = 4
"""Values looked at in each bin of a histogram."""

_GOLDEN = 0.6180339887498949
"""Fractional part of the golden ratio: its multiples never fall into step with a grid."""


def round_values(
    values: NDArray[np.floating], encoding: Rounded | DynamicEncoding | OutlierEncoding
) -> NDArray[np.float32]:
    """Return what values become under an encoding, in float32 and in the tensor's units."""
    if isinstance(encoding, LevelEncoding):
        return round_to_levels(values, encoding)
    if isinstance(encoding, FloatEncoding):
        return round_with_float(values, encoding)
    if isinstance(encoding, DynamicEncoding):
        return fake_quantize(values, dynamic_encoding(values, encoding))
    if isinstance(encoding, OutlierEncoding):
        rounded = np.array(round_values(values, encoding.inner))
        rounded.reshape(-1)[encoding.positions] = np.asarray(values, np.float32).reshape(-1)[encoding.positions]
        return rounded
    return fake_quantize(values, encoding)


def outlier_positions(values: NDArray[np.floating], percent: float) -> NDArray[np.int64]:
    """Return the flat positions of the largest `percent` % of the values by magnitude, ascending.

    round(percent / 100 * N) of them; of equal magnitudes those that come first.
    """
    magnitude = np.abs(np.asarray(values, np.float32)).reshape(-1)
    count = min(round(percent / 100.0 * magnitude.size), magnitude.size)
    if count <= 0:
        return np.zeros(0, np.int64)
    least = np.partition(magnitude, magnitude.size - count)[magnitude.size - count]
    above = np.flatnonzero(magnitude > least)
    equal = np.flatnonzero(magnitude == least)[: count - above.size]
    return np.sort(np.concatenate([above, equal])).astype(np.int64)


def dynamic_encoding(values: NDArray[np.floating], encoding: DynamicEncoding) -> Encoding:
    """Return the scale and zero point of one batch of values, in float32 like ONNX DynamicQuantizeLinear.

    Asymmetric: s = (max(x, 0) - min(x, 0)) / (qmax - qmin), z = round(clamp(qmin - min / s, qmin, qmax)). Symmetric:
    s = max|x| / qmax, z = 0. Block floating point: s = 2^(floor(log2 max|x|) - b + 2), z = 0. Values that are all zero,
    or too small for a float32 scale, take s = 1. NaN and infinities have no part in the range.
    """
    x = np.asarray(values, np.float32)
    low, high = np.float32(x.min(initial=0.0)), np.float32(x.max(initial=0.0))
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = x[np.isfinite(x)]
        low, high = np.float32(finite.min(initial=0.0)), np.float32(finite.max(initial=0.0))
    scheme = Scheme("activation", encoding.bits, encoding.symmetric, format=encoding.format)
    qmin, qmax = integer_range(scheme)
    symmetric = is_symmetric(scheme)
    if encoding.format == "bfp":
        return Encoding(*block_floating_point(float(low), float(high), qmin, qmax, symmetric), qmin, qmax)
    zero = np.float32(0 if symmetric else qmin)
    with np.errstate(over="ignore"):
        scale = max(-low, high) / np.float32(qmax) if symmetric else (high - low) / np.float32(qmax - qmin)
    if not SMALLEST_SCALE <= scale < np.inf:
        scale = np.float32(1.0)
    elif not symmetric:
        zero = np.rint(np.clip(np.float32(qmin) - low / scale, qmin, qmax))
    return Encoding(np.asarray(scale, np.float32), np.asarray(zero, np.int32), qmin, qmax)


def histogram_error(histogram: Histogram, encoding: Rounded) -> float:
    """Return the mean squared error of a per-tensor encoding, estimated from a histogram (about 1 ms).

    Four values in each bin stand for its counts, at places that move from bin to bin, so that no grid finer than a
    bin is met at the same phase. Zeros are counted as they are. For affine encodings
    `qstudio.core.range_error.range_error` is exact on the histogram.
    """
    count = histogram.count
    if not count:
        return 0.0
    zero = float(round_values(np.zeros(1, np.float32), encoding)[0])
    total = histogram.zeros * zero**2
    used = np.flatnonzero(histogram.counts)
    if used.size and histogram.width:
        places = np.arange(used.size * _POINTS).reshape(-1, _POINTS)
        inside = (np.arange(_POINTS) + (places * _GOLDEN) % 1.0) / _POINTS
        x = histogram.low + histogram.width * (used[:, None] + inside)
        # The outermost bins end where the data end.
        x = np.clip(x, histogram.minimum, histogram.maximum).astype(np.float32)
        error = x.astype(np.float64) - round_values(x, encoding)
        total += float(histogram.counts[used] @ (error**2).mean(axis=1))
    return total / count
