"""Floating-point formats of 8 and 16 bits, rounded in numpy: nearest, ties to even, subnormals kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import SMALLEST_SCALE, spread
from qstudio.core.encodings import FloatEncoding
from qstudio.core.formats import format_of
from qstudio.core.registry import resolve
from qstudio.core.scheme import Scheme


@dataclass(frozen=True)
class FloatType:
    """A binary floating-point type: sign, exponent and mantissa, (-1)^s 2^(e - bias) (1 + m / 2^mantissa)."""

    id: str
    exponent: int
    """Bits of the exponent."""
    mantissa: int
    """Stored bits of the mantissa."""
    bias: int
    largest: float
    """Largest finite value."""

    @property
    def bits(self) -> int:
        """Width of a value."""
        return 1 + self.exponent + self.mantissa

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value with a full mantissa, 2^(1 - bias)."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest(self) -> float:
        """Smallest positive value, a subnormal: 2^(1 - bias - mantissa)."""
        return 2.0 ** (1 - self.bias - self.mantissa)


FP16 = FloatType("fp16", 5, 10, 15, 65504.0)
"""IEEE 754 binary16."""

BF16 = FloatType("bf16", 8, 7, 127, 2.0**127 * (2 - 2.0**-7))
"""The upper half of a float32."""

E4M3 = FloatType("fp8_e4m3", 4, 3, 7, 448.0)
"""ONNX FLOAT8E4M3FN: no infinities, one NaN for each sign (Micikevicius et al., 2022)."""

E5M2 = FloatType("fp8_e5m2", 5, 2, 15, 57344.0)
"""ONNX FLOAT8E5M2: as IEEE 754, with infinities (Micikevicius et al., 2022)."""


def float_type(number_format: str) -> FloatType:
    """Return the type of a format ("fp8_e4m3", "fp8_e4m3:mx")."""
    return cast("FloatType", resolve(format_of(number_format)[0].target))


def round_to_float(values: NDArray[np.floating], number_type: FloatType) -> NDArray[np.float32]:
    """Return the values of the type nearest to `values`: ties to even, saturating at +-largest, NaN stays NaN.

    Infinities saturate too, as with ONNX's saturate=1 for float8.
    """
    x = np.clip(np.asarray(values, np.float32), -number_type.largest, number_type.largest).astype(np.float32)
    # 2^floor(log2 |x|) is a float32 without its mantissa; the type's step at x is that much smaller.
    exponents = np.atleast_1d(x).view(np.uint32) & np.uint32(0x7F800000)
    power = exponents.view(np.float32).reshape(x.shape)
    step = np.maximum(power, np.float32(number_type.smallest_normal)) * np.float32(2.0**-number_type.mantissa)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.rint(x / step) * step, np.float32)


def float_encoding(
    scheme: Scheme, low: NDArray[np.floating] | float, high: NDArray[np.floating] | float, axis: int | None
) -> FloatEncoding:
    """Return the encoding of a range: [] for tensor, [C] for channel, [C, G] for group granularity.

    8 bits: s = reach / largest with reach = max(|low|, |high|), so that the largest value is exact. Variant "mx":
    s = 2^(floor(log2 reach) - floor(log2 largest)), a power of two as in OCP Microscaling v1.0 section 6.3, whose
    largest values may saturate. 16 bits: s = 1. Ranges too narrow for a float32 scale take 1.
    """
    found, variant = format_of(scheme.format)
    number_type = float_type(scheme.format)
    reach = np.maximum(np.abs(np.asarray(low, np.float64)), np.abs(np.asarray(high, np.float64)))
    if not found.uses_range:
        scale = np.ones(reach.shape)
    elif variant == "mx":
        _, exponent = np.frexp(reach)
        top = int(np.frexp(number_type.largest)[1])
        scale = np.where(reach > 0, np.exp2(np.clip(exponent - top, -126, 127).astype(np.float64)), 1.0)
    else:
        scale = reach / number_type.largest
        scale = np.where(scale >= SMALLEST_SCALE, scale, 1.0)
    per_channel = scheme.granularity.kind != "tensor" and scale.ndim > 0
    return FloatEncoding(
        scheme.format,
        np.asarray(scale, np.float32),
        axis if per_channel else None,
        scheme.granularity.group_size if per_channel else 0,
    )


def round_with_float(values: NDArray[np.floating], encoding: FloatEncoding) -> NDArray[np.float32]:
    """Return s type(x / s) in float32: QuantizeLinear and DequantizeLinear with a float8 zero point."""
    x = np.asarray(values, np.float32)
    scale = spread(encoding.scale, x.shape, encoding)
    with np.errstate(over="ignore"):
        scaled = x / scale
    return np.asarray(round_to_float(scaled, float_type(encoding.format)) * scale, np.float32)
