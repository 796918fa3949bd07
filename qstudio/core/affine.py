"""Affine quantization in numpy: the reference for every other implementation in the program.

q = clamp(round(x / s) + z, qmin, qmax), x^ = s (q - z), ties to even, as ONNX QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from qstudio.core.conventions import CONVENTIONS
from qstudio.core.scheme import Granularity, Scheme

Number = TypeVar("Number", bound=np.generic)

SMALLEST_SCALE = np.finfo(np.float32).tiny
"""A range narrower than this many steps is not representable; onnxruntime then takes scale 1, zero_point 0."""


class Layout(Protocol):
    """Which values of a tensor share a scale: what `spread` needs to know of an encoding."""

    @property
    def axis(self) -> int | None:
        """Channel axis; None per tensor."""

    @property
    def group_size(self) -> int:
        """Values of a group; 0 without groups."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """Scale and zero point of one site, ready to quantize.

    scale, zero_point: shape [] (per tensor), [C] (per channel along `axis`), or [C, G] (groups of `group_size`
    along the flattened remaining axes).
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    qmin: int
    qmax: int
    axis: int | None = None
    group_size: int = 0

    @property
    def low(self) -> NDArray[np.float64]:
        """Smallest representable value(s), in units of the tensor."""
        return np.asarray(self.scale, np.float64) * (self.qmin - self.zero_point)

    @property
    def high(self) -> NDArray[np.float64]:
        """Largest representable value(s), in units of the tensor."""
        return np.asarray(self.scale, np.float64) * (self.qmax - self.zero_point)

    @property
    def levels(self) -> int:
        """Number of codes."""
        return self.qmax - self.qmin + 1


def integer_range(scheme: Scheme) -> tuple[int, int]:
    """Return (qmin, qmax) of a scheme.

    Symmetric: narrow range [-(2^(b-1)-1), 2^(b-1)-1] (onnxruntime's and TFLite's int8: [-127, 127]); the conventions
    "int:full", "int:torch" and "int:aimet" use -2^(b-1) too, "int:onnxruntime" below 5 bits.
    Asymmetric weights: [-2^(b-1), 2^(b-1)-1]. Asymmetric activations: [0, 2^b-1]. One bit is always asymmetric.
    """
    half = 2 ** (scheme.bits - 1)
    if is_symmetric(scheme):
        convention = scheme.format.partition(":")[2]
        full = convention in ("full", "torch", "aimet") or (convention == "onnxruntime" and scheme.bits < 5)
        return -half if full else -(half - 1), half - 1
    return (-half, half - 1) if scheme.kind == "weight" else (0, 2 * half - 1)


def is_symmetric(scheme: Scheme) -> bool:
    """Return whether zero_point is 0: as chosen, always in block floating point, never with one bit."""
    return scheme.bits > 1 and (scheme.symmetric or scheme.format == "bfp")


def scale_zero_point(
    low: NDArray[np.floating] | float,
    high: NDArray[np.floating] | float,
    qmin: int | NDArray[np.integer],
    qmax: int | NDArray[np.integer],
    symmetric: bool,
    number_format: str = "int",
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return scale and zero_point that represent [low, high] (elementwise over channels).

    The range is first widened to hold zero, so that 0 is exact (padding, ReLU). Symmetric ranges are widened to
    +-max(|low|, |high|). The formulas and their precision (float64, scale rounded to float32) are those of
    onnxruntime's quantize_static: s = (rmax - rmin) / (qmax - qmin), z = round(qmin - rmin / s). Other conventions
    and block floating point are computed as their sources do; see `qstudio.core.conventions`.
    """
    if number_format in CONVENTIONS:
        return CONVENTIONS[number_format](low, high, int(qmin), int(qmax), symmetric)
    rmin = np.minimum(np.asarray(low, np.float64), 0.0)
    rmax = np.maximum(np.asarray(high, np.float64), 0.0)
    if symmetric:
        rmax = np.maximum(-rmin, rmax)
        rmin = -rmax
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        exact = (rmax - rmin) / (qmax - qmin)
        usable = exact >= SMALLEST_SCALE
        exact = np.where(usable, exact, 1.0)
        # The zero point comes from the scale before it is rounded to float32, as in onnxruntime.
        zero = np.round((qmin + qmax) / 2.0) if symmetric else np.round(qmin - rmin / exact)
    zero = np.where(usable, zero, np.clip(0, qmin, qmax))
    scale = exact.astype(np.float32)
    return scale, np.clip(zero, qmin, qmax).astype(np.int32)


def grid_of(
    scheme: Scheme, low: NDArray[np.floating] | float, high: NDArray[np.floating] | float
) -> tuple[NDArray[np.float32], NDArray[np.int32], int, int]:
    """Return (scale, zero_point, qmin, qmax) that a scheme gives ranges (elementwise), in its own convention."""
    qmin, qmax = integer_range(scheme)
    return *scale_zero_point(low, high, qmin, qmax, is_symmetric(scheme), scheme.format), qmin, qmax


def encode(
    scheme: Scheme, low: NDArray[np.floating] | float, high: NDArray[np.floating] | float, axis: int | None
) -> Encoding:
    """Return the encoding of a range: [] for tensor, [C] for channel, [C, G] for group granularity."""
    scale, zero_point, qmin, qmax = grid_of(scheme, low, high)
    per_channel = scheme.granularity.kind != "tensor" and scale.ndim > 0
    return Encoding(scale, zero_point, qmin, qmax, axis if per_channel else None, scheme.granularity.group_size)


def as_groups(values: NDArray[np.floating], granularity: Granularity, axis: int) -> NDArray[np.floating]:
    """Return a weight as rows that share a scale.

    tensor: [1, N]. channel: [C, N / C]. group of g: [C, ceil(N / C / g), g], the last group of a channel padded with
    zeros (zero is always representable and never widens a range).
    """
    if granularity.kind == "tensor":
        return values.reshape(1, -1)
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    if granularity.kind == "channel":
        return rows
    size = granularity.group_size
    count = -(-rows.shape[1] // size)
    padded = np.zeros((rows.shape[0], count * size), rows.dtype)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(rows.shape[0], count, size)


def spread(per_scale: NDArray[Number], shape: tuple[int, ...], encoding: Layout) -> NDArray[Number]:
    """Return one value per scale as an array that broadcasts against a tensor of `shape`."""
    if encoding.axis is None:
        return per_scale.reshape(())
    if per_scale.ndim == 1:
        return per_scale.reshape([-1 if i == encoding.axis else 1 for i in range(len(shape))])
    channels = shape[encoding.axis]
    others = [n for i, n in enumerate(shape) if i != encoding.axis]
    flat = np.repeat(per_scale, encoding.group_size, axis=1)[:, : int(np.prod(others))]
    return np.moveaxis(flat.reshape([channels, *others]), 0, encoding.axis)


def quantize(values: NDArray[np.floating], encoding: Encoding) -> NDArray[np.int32]:
    """Return the codes of `values` (float32 division, ties to even, saturating)."""
    x = np.asarray(values, np.float32)
    scale = spread(encoding.scale, x.shape, encoding)
    zero = spread(encoding.zero_point, x.shape, encoding)
    with np.errstate(over="ignore"):
        steps = np.rint(x / scale)
    # Clipping before the cast keeps huge quotients from overflowing int32.
    bounded = np.clip(steps, encoding.qmin - zero, encoding.qmax - zero)
    return np.asarray(bounded.astype(np.int32) + zero, np.int32)


def dequantize(codes: NDArray[np.integer], encoding: Encoding) -> NDArray[np.float32]:
    """Return the values that codes stand for."""
    scale = spread(encoding.scale, codes.shape, encoding)
    zero = spread(encoding.zero_point, codes.shape, encoding)
    return np.asarray((codes.astype(np.int32) - zero).astype(np.float32) * scale, np.float32)


def fake_quantize(values: NDArray[np.floating], encoding: Encoding) -> NDArray[np.float32]:
    """Round values to the integer grid and map them back; values outside the clip range saturate."""
    return dequantize(quantize(values, encoding), encoding)
