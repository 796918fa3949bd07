"""What a site is rounded with where a scale and a zero point do not say it all (`qstudio.core.affine` has those).

Four kinds beside `Encoding`: levels (any finite set of values), floating point, a range taken at run time, and a few
values kept in float beside any of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding
from qstudio.core.scheme import TENSOR, Granularity


@dataclass(frozen=True, eq=False)
class LevelEncoding:
    """Values are replaced by one of finitely many levels, chosen by where they lie between boundaries.

    levels: [R, L] float32, ascending, in units of the tensor; R rows share levels as `granularity` says (1 for the
    tensor, C for channels, C x G for groups, in the order of `qstudio.core.affine.as_groups`).
    bounds: [R, L - 1] float32, ascending; x takes level i when bounds[i - 1] <= x < bounds[i].
    """

    levels: NDArray[np.float32]
    bounds: NDArray[np.float32]
    bits: int
    """Width of a code; 2^bits >= L."""
    format: str
    granularity: Granularity = TENSOR
    axis: int | None = None
    """Channel axis of the tensor; None for tensor granularity."""

    @property
    def low(self) -> NDArray[np.float64]:
        """Smallest level of each row."""
        return self.levels[:, 0].astype(np.float64)

    @property
    def high(self) -> NDArray[np.float64]:
        """Largest level of each row."""
        return self.levels[:, -1].astype(np.float64)


@dataclass(frozen=True, eq=False)
class FloatEncoding:
    """Values are divided by a scale, rounded to a floating-point type and multiplied again.

    scale: float32, [] (per tensor), [C] or [C, G], as in `qstudio.core.affine.Encoding`; 1 for 16-bit types.
    """

    format: str
    """"fp16", "bf16", "fp8_e4m3" or "fp8_e5m2", with its variant."""
    scale: NDArray[np.float32]
    axis: int | None = None
    group_size: int = 0

    @property
    def low(self) -> NDArray[np.float64]:
        """Most negative value each scale reaches."""
        return -self.high

    @property
    def high(self) -> NDArray[np.float64]:
        """Largest value each scale reaches."""
        from qstudio.core.float_formats import float_type

        return np.asarray(self.scale, np.float64) * float_type(self.format).largest


@dataclass(frozen=True)
class DynamicEncoding:
    """An activation whose scale and zero point follow from its own smallest and largest value, batch by batch.

    s = (max(x, 0) - min(x, 0)) / (qmax - qmin), z = clamp(round(qmin - min / s)): ONNX DynamicQuantizeLinear, in
    float32 like it; symmetric codes use s = max|x| / qmax and z = 0; block floating point shares the exponent of the
    batch's largest value. Conventions ("int:torch") name the codes only.
    """

    bits: int
    symmetric: bool
    format: str = "int"


@dataclass(frozen=True, eq=False)
class OutlierEncoding:
    """A weight whose largest values stay float: the rest is rounded with `inner`, whose range ignores them.

    positions: [K] ascending flat indices into the weight.
    """

    inner: Encoding | LevelEncoding | FloatEncoding
    positions: NDArray[np.int64]


Other = LevelEncoding | FloatEncoding | DynamicEncoding | OutlierEncoding
"""Encodings that are not affine."""
