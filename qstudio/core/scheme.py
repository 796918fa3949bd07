"""How one site is quantized: format, bits, symmetry, granularity, calibration, clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qstudio.core.errors import UserError

FLOAT_BITS = 32
"""Bit width that stands for "left in float32"; written as "float" in files and on the command line."""

MIN_BITS, MAX_BITS = 1, 16
"""Affine integers are offered from 1 to 16 bits; other formats have bounds of their own."""

SiteKind = Literal["weight", "activation", "bias"]
"""What a site's tensor is: a constant parameter, a value computed at run time, or a bias (int32, never chosen)."""


@dataclass(frozen=True, order=True)
class Granularity:
    """Which values share one scale.

    "tensor": all of them. "channel": those of one output channel. "group": `group_size` consecutive values of one
    output channel, counted along its flattened inputs ([O, I, kh, kw] is seen as [O, I*kh*kw]; the last group of
    a channel may be shorter).
    """

    kind: Literal["tensor", "channel", "group"] = "tensor"
    group_size: int = 0

    @classmethod
    def parse(cls, text: str) -> Granularity:
        """Read "tensor", "channel" or "group:N".

        Raises:
            UserError: The text is none of them, or N is not a whole number of at least 2.
        """
        if text in ("tensor", "channel"):
            return cls(text)  # type: ignore[arg-type]
        head, _, size = text.partition(":")
        if head == "group" and size.isdigit() and int(size) >= 2:
            return cls("group", int(size))
        raise UserError(
            f"'{text}' is not a granularity", "granularity", "Choose tensor, channel or group:N with N of 2 or more"
        )

    def __str__(self) -> str:
        return f"group:{self.group_size}" if self.kind == "group" else self.kind


TENSOR = Granularity("tensor")
CHANNEL = Granularity("channel")


@dataclass(frozen=True)
class Scheme:
    """How one site is quantized.

    In the format "int", symmetric weights use the narrow range [-(2^(b-1)-1), 2^(b-1)-1] with zero_point 0; asymmetric
    weights the full signed range. Symmetric activations use the same narrow signed range; asymmetric ones the unsigned
    range [0, 2^b-1]. See `qstudio.core.affine`.
    """

    kind: SiteKind
    bits: int = 8
    """1..16, within the bounds of the format, or FLOAT_BITS for no quantization."""
    symmetric: bool = True
    granularity: Granularity = TENSOR
    calibration: str = "minmax"
    """Calibrator id with an optional parameter: "minmax", "percentile:99.99", "mse", "entropy", "manual"."""
    clip: tuple[float, float] | None = None
    """(low, high) in units of the tensor; used when calibration is "manual"."""
    format: str = "int"
    """Format id with an optional variant: "int", "int:torch", "nf4"; see `qstudio.core.formats`."""
    outliers: float = 0.0
    """Percent of a weight's values, the largest by magnitude, that stay float."""
    dynamic: bool = False
    """Activations: the range is that of the values at run time, not a calibrated one."""

    @property
    def is_affine(self) -> bool:
        """Whether a scale and a zero point say all about it."""
        return self.format.partition(":")[0] in ("int", "bfp") and not self.outliers and not self.dynamic

    @property
    def is_float(self) -> bool:
        """Whether the site stays in float32."""
        return self.bits == FLOAT_BITS


def parse_bits(text: str | int) -> int:
    """Read a bit width: 1..16 or "float".

    Raises:
        UserError: The text is neither.
    """
    if str(text).lower() in ("float", "float32", str(FLOAT_BITS)):
        return FLOAT_BITS
    digits = str(text)
    if digits.isdigit() and MIN_BITS <= int(digits) <= MAX_BITS:
        return int(digits)
    raise UserError(f"'{text}' is not a bit width", "bits", f"Choose {MIN_BITS} to {MAX_BITS}, or float")


def format_bits(bits: int) -> str:
    """Return "8", or "float" for FLOAT_BITS."""
    return "float" if bits == FLOAT_BITS else str(bits)
