"""How many codes apart two roundings of one tensor are, in any format that an export can hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, integer_range
from qstudio.core.encodings import DynamicEncoding, FloatEncoding
from qstudio.core.float_formats import FloatType, float_type, round_to_float
from qstudio.core.scheme import Scheme

Comparable = Encoding | FloatEncoding | DynamicEncoding
"""Encodings whose rounded values an export has too."""


def code_steps(
    first: NDArray[np.float32], second: NDArray[np.float32], encoding: Comparable
) -> NDArray[np.float32] | NDArray[np.float64]:
    """Return the distance of two tensors of rounded values, element by element, in codes.

    Integers: |x - y| / s. Floating point: the number of values of the type between them, plus one. A range taken at run
    time: as integers, with the scale that the extremes of `first` stand for.

    Args:
        first: Rounded values.
        second: Of the same shape.
        encoding: What they were rounded with, per tensor.
    """
    if isinstance(encoding, FloatEncoding):
        number_type, scale = float_type(encoding.format), np.float32(encoding.scale)
        return np.abs(_ordinal(first / scale, number_type) - _ordinal(second / scale, number_type))
    if isinstance(encoding, DynamicEncoding):
        return np.rint(np.abs(first - second) / _scale_seen(first, encoding))
    return np.rint(np.abs(first - second) / np.float32(encoding.scale))


def _ordinal(values: NDArray[np.float32], number_type: FloatType) -> NDArray[np.float64]:
    """Return how many values of the type lie between zero and each value, with its sign."""
    # Multiplying with the scale and dividing by it may leave a neighbouring float32.
    exact = round_to_float(values, number_type).astype(np.float64)
    magnitude = np.abs(exact)
    power = np.exp2(np.maximum(np.frexp(magnitude)[1] - 1, 1 - number_type.bias))
    per_power = 2.0**number_type.mantissa
    below = np.log2(power / number_type.smallest_normal) * per_power
    return np.sign(exact) * (below + magnitude / power * per_power)


def _scale_seen(values: NDArray[np.float32], encoding: DynamicEncoding) -> np.float32:
    scheme = Scheme("activation", encoding.bits, encoding.symmetric, format=encoding.format)
    qmin, qmax = integer_range(scheme)
    low, high = np.float32(values.min(initial=0.0)), np.float32(values.max(initial=0.0))
    scale = max(-low, high) / np.float32(qmax) if encoding.symmetric else (high - low) / np.float32(qmax - qmin)
    return np.float32(scale if scale > 0 else 1.0)
