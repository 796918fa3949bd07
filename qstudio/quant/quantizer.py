"""Fake quantization in torch: plain ops, equal in value to `qstudio.core.affine` and `qstudio.core.rounding`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qstudio.core.affine import Encoding, spread
from qstudio.core.encodings import DynamicEncoding, FloatEncoding, LevelEncoding
from qstudio.core.float_formats import float_type
from qstudio.core.rounding import dynamic_encoding


@dataclass(frozen=True, eq=False)
class Quantizer:
    """An encoding made ready for tensors of one shape on one device.

    scale: float32, [] or broadcastable to the tensor. low, high: qmin - zero_point and qmax - zero_point, the bounds
    of round(x / s); a number when all scales share it.
    """

    scale: Tensor
    low: Tensor | float
    high: Tensor | float
    zero_point: Tensor

    def steps(self, values: Tensor) -> Tensor:
        """Return clamp(round(x / s), qmin - z, qmax - z), in float32: the code without its zero point.

        Three of the four passes work in place on the quotient; clamping the rounded quotient between whole numbers
        is the same as clamping round(x / s) + z.
        """
        return (values / self.scale).round_().clamp_(self.low, self.high)  # type: ignore[arg-type]

    def codes(self, values: Tensor) -> Tensor:
        """Return the integer codes (int32)."""
        return self.steps(values).to(torch.int32) + self.zero_point

    def __call__(self, values: Tensor) -> Tensor:
        """Return s (q - z), out of place; NaN stays NaN.

        Ties go to even. The division is a division: multiplying by 1 / s moves ties, and onnxruntime divides. (The
        scale is a tensor on the values' device, because torch on CUDA multiplies by the reciprocal of a number.)
        """
        return self.steps(values).mul_(self.scale)


def make_quantizer(encoding: Encoding, shape: tuple[int, ...] | torch.Size, device: torch.device | str) -> Quantizer:
    """Return the quantizer of an encoding for tensors of `shape` (any shape for a per-tensor encoding)."""
    shape = tuple(shape)
    scale = np.asarray(spread(encoding.scale, shape, encoding), np.float32)
    zero = np.asarray(spread(encoding.zero_point, shape, encoding), np.int32)
    low: Tensor | float
    high: Tensor | float
    if zero.size and (zero == zero.flat[0]).all():
        low, high = float(encoding.qmin - int(zero.flat[0])), float(encoding.qmax - int(zero.flat[0]))
        zero = np.asarray(zero.flat[0])
    else:
        low = torch.tensor((encoding.qmin - zero).astype(np.float32), device=device)
        high = torch.tensor((encoding.qmax - zero).astype(np.float32), device=device)
    return Quantizer(torch.tensor(scale, device=device), low, high, torch.tensor(zero, device=device))


def fake_quantize(values: Tensor, encoding: Encoding) -> Tensor:
    """Return values rounded to the encoding's grid (for one-off use; keep a Quantizer where it is called often)."""
    return make_quantizer(encoding, values.shape, values.device)(values)


Rounder = Callable[[Tensor], Tensor]
"""Returns a tensor rounded, out of place."""

_TORCH_TYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def make_rounder(encoding: LevelEncoding | FloatEncoding | DynamicEncoding, device: torch.device | str) -> Rounder:
    """Return what rounds an activation whose encoding is not affine (per tensor)."""
    if isinstance(encoding, DynamicEncoding):
        return _DynamicRounder(encoding)
    if isinstance(encoding, FloatEncoding):
        return _float_rounder(encoding, device)
    levels = torch.tensor(encoding.levels[0], device=device)
    bounds = torch.tensor(encoding.bounds[0], device=device)

    def nearest_level(values: Tensor) -> Tensor:
        found = levels[torch.bucketize(values.contiguous(), bounds, right=True)]
        return torch.where(torch.isnan(values), values, found)

    return nearest_level


def _float_rounder(encoding: FloatEncoding, device: torch.device | str) -> Rounder:
    scale = torch.tensor(encoding.scale, device=device)
    largest = float_type(encoding.format).largest
    dtype = _TORCH_TYPES[encoding.format.partition(":")[0]]

    def cast(values: Tensor) -> Tensor:
        return (values / scale).clamp_(-largest, largest).to(dtype).to(torch.float32).mul_(scale)

    return cast


class _DynamicRounder:
    """Takes the range of each batch; see `qstudio.core.encodings.DynamicEncoding`."""

    def __init__(self, encoding: DynamicEncoding) -> None:
        self._encoding = encoding

    def __call__(self, values: Tensor) -> Tensor:
        """Return values rounded to the grid their own extremes give."""
        ends = torch.stack(torch.aminmax(values)).cpu().numpy()
        return fake_quantize(values, dynamic_encoding(ends, self._encoding))
