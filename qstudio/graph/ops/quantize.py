"""Casts and quantization as ONNX models carry them: Cast, QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from onnx import TensorProto
from torch import fx

from qstudio.graph.dtypes import INTEGER_RANGE
from qstudio.graph.ops.common import aligned
from qstudio.graph.torch_dtypes import TORCH_OF_ONNX
from qstudio.graph.translation import NodeView, Unsupported, translates

_FLOAT8 = (
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
)
_NARROW = (TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2)


def _to_float4(x: torch.Tensor) -> torch.Tensor:
    """Round to the 16 values of float4 e2m1 (saturating at 6), carried as float32."""
    rounded = x.detach().cpu().float().numpy().astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return torch.from_numpy(rounded).to(x.device)


def _to_float8(x: torch.Tensor, number: int, saturate: bool) -> torch.Tensor:
    """Round to a float8 type; saturating maps what is too large to the largest finite value."""
    dtype = TORCH_OF_ONNX[number]
    wide = x.to(torch.float32)
    largest = torch.finfo(dtype).max
    if saturate:
        return torch.where(wide.isnan(), wide, wide.clamp(-largest, largest)).to(dtype)
    # Half a step above the largest value still rounds to it; beyond, the type has inf (e5m2) or NaN.
    step = {torch.float8_e4m3fn: 32.0, torch.float8_e4m3fnuz: 16.0}.get(dtype, largest / 7.0)
    beyond = wide.abs() > largest + step / 2
    lost = torch.full_like(wide, float("nan"))
    if dtype == torch.float8_e5m2:
        lost = torch.copysign(torch.full_like(wide, float("inf")), wide)
        return torch.where(beyond & ~wide.isnan(), lost, wide.clamp(-1e30, 1e30)).to(dtype)
    return torch.where(beyond | wide.isinf(), lost, wide).to(dtype)


def _to_power_of_two(x: torch.Tensor, rounding: str) -> torch.Tensor:
    """Round to float8 e8m0, which has powers of two only, in the asked-for direction."""
    mantissa, exponent = torch.frexp(x.to(torch.float32).abs())  # mantissa in [0.5, 1)
    limit = {"up": 0.5, "nearest": 0.75}.get(rounding, 1.0)
    raise_it = mantissa > limit if rounding == "up" else mantissa >= limit
    power = (exponent - 1 + raise_it).clamp(-127, 127)
    power = torch.where(mantissa == 0, torch.full_like(power, -127), power)  # the type has no zero
    rounded = torch.ldexp(torch.ones_like(mantissa), power)
    return torch.where(x.isnan(), torch.full_like(rounded, float("nan")), rounded).to(torch.float8_e8m0fnu)


def cast(x: torch.Tensor, number: int, saturate: bool = True, rounding: str = "up") -> torch.Tensor:
    """Convert x to an ONNX element type, given by its number; the rounding matters to float8 e8m0 only."""
    dtype = TORCH_OF_ONNX[number]
    if number == TensorProto.FLOAT8E8M0 and x.is_floating_point():
        return _to_power_of_two(x, rounding)
    if number in _FLOAT8:
        return _to_float8(x, number, saturate)
    if number == TensorProto.FLOAT4E2M1:
        return _to_float4(x)
    if number in _NARROW:
        low, high = INTEGER_RANGE[number]
        span = high - low + 1
        whole = torch.trunc(x.float()).to(torch.int64) if x.is_floating_point() else x.to(torch.int64)
        return ((whole - low) % span + low).to(dtype)
    if dtype == torch.bool:
        return x != 0
    if x.is_floating_point() and dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        return x.to(torch.float32 if x.element_size() < 4 else x.dtype).to(torch.int64).to(dtype)
    return x.to(dtype)


@translates("Cast")
def translate_cast(view: NodeView) -> fx.Node:
    """Translate Cast."""
    number = view.attribute("to")
    if number not in TORCH_OF_ONNX:
        raise Unsupported("a cast to text")
    saturate, rounding = bool(view.attribute("saturate", 1)), view.attribute("round_mode", "up")
    return view.call(cast, view.tensor(0), number, saturate, rounding)


def cast_like(x: torch.Tensor, like: torch.Tensor, saturate: bool = True) -> torch.Tensor:
    """Convert x to the type of another tensor."""
    return x if like.dtype == x.dtype else cast(x, _NUMBER_OF_TORCH[like.dtype], saturate)


_NUMBER_OF_TORCH = {
    dtype: number
    for number, dtype in reversed(TORCH_OF_ONNX.items())
    if number not in (*_NARROW, TensorProto.FLOAT4E2M1)
}


def bit_cast(x: torch.Tensor, number: int) -> torch.Tensor:
    """Read x's bytes as another element type of the same size."""
    return x.view(TORCH_OF_ONNX[number])


@translates("BitCast")
def translate_bit_cast(view: NodeView) -> fx.Node:
    """Translate BitCast."""
    if view.attribute("to") not in TORCH_OF_ONNX or view.attribute("to") in (*_NARROW, TensorProto.FLOAT4E2M1):
        raise Unsupported("a type without a form of its own in torch")
    return view.call(bit_cast, view.tensor(0), view.attribute("to"))


@translates("CastLike")
def translate_cast_like(view: NodeView) -> fx.Node:
    """Translate CastLike."""
    saturate = bool(view.attribute("saturate", 1))
    known = view.builder.element_types.get(view.inputs[1])
    if known in TORCH_OF_ONNX:
        return view.call(cast, view.tensor(0), known, saturate)
    return view.call(cast_like, view.tensor(0), view.tensor(1), saturate)


def along_axis(parameter: torch.Tensor, x: torch.Tensor, axis: int, block: int) -> torch.Tensor:
    """Shape a scale or zero point so that it broadcasts with x: per tensor, per channel or per block."""
    if parameter.numel() == 1 and parameter.dim() <= 1:
        return parameter.reshape([])
    if parameter.dim() == 1 and not block:
        return parameter.reshape([-1 if a == axis % x.dim() else 1 for a in range(x.dim())])
    if block:
        repeated = parameter.repeat_interleave(block, dim=axis % x.dim())
        return repeated.narrow(axis % x.dim(), 0, x.shape[axis % x.dim()])
    return parameter


def quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    axis: int,
    number: int,
    block: int = 0,
    saturate: bool = True,
) -> torch.Tensor:
    """Compute ONNX's QuantizeLinear: saturate(round_half_even(x / scale) + zero_point) in an ONNX element type."""
    x, scale = aligned(x, scale)
    work = torch.float32 if x.dtype in (torch.float16, torch.bfloat16, torch.int32) else x.dtype
    scaled = x.to(work) / along_axis(scale.to(work), x, axis, block)
    if number not in INTEGER_RANGE:
        return cast(scaled, number, saturate)
    low, high = INTEGER_RANGE[number]
    codes = torch.round(scaled)
    if zero_point is not None:
        codes = codes + along_axis(zero_point.to(device=x.device, dtype=codes.dtype), x, axis, block)
    return codes.clamp(low, high).to(torch.int32).to(TORCH_OF_ONNX[number])


@translates("QuantizeLinear")
def translate_quantize(view: NodeView) -> fx.Node:
    """Translate QuantizeLinear; the type is the zero point's, else output_dtype, else uint8."""
    number = view.attribute("output_dtype", 0) or TensorProto.UINT8
    if view.has(2):
        known = view.builder.element_types.get(view.inputs[2])
        if known is None:
            raise Unsupported("a zero point whose type is not known")
        number = known
    if number not in INTEGER_RANGE and number not in (*_FLOAT8, TensorProto.FLOAT4E2M1):
        raise Unsupported(f"codes of element type {number}")
    return view.call(
        quantize,
        view.tensor(0),
        view.tensor(1),
        view.optional(2),
        view.attribute("axis", 1),
        number,
        view.attribute("block_size", 0),
        bool(view.attribute("saturate", 1)),
    )


def dequantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    axis: int,
    block: int = 0,
    number: int = 0,
) -> torch.Tensor:
    """Compute ONNX's DequantizeLinear: (x - zero_point) * scale, in the scale's type unless another is asked for."""
    x, scale = aligned(x, scale)
    work = torch.float32 if scale.dtype in (torch.float16, torch.bfloat16) else scale.dtype
    codes = x.to(torch.int64).to(work) if not x.is_floating_point() else x.to(work)
    if zero_point is not None:
        codes = codes - along_axis(zero_point.to(x.device).to(work), x, axis, block)
    return (codes * along_axis(scale.to(work), x, axis, block)).to(TORCH_OF_ONNX[number] if number else scale.dtype)


@translates("DequantizeLinear")
def translate_dequantize(view: NodeView) -> fx.Node:
    """Translate DequantizeLinear."""
    return view.call(
        dequantize,
        view.tensor(0),
        view.tensor(1),
        view.optional(2),
        view.attribute("axis", 1),
        view.attribute("block_size", 0),
        view.attribute("output_dtype", 0),
    )


def quantize_dynamically(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute ONNX's DynamicQuantizeLinear: uint8 codes over [min(x, 0), max(x, 0)], the scale and the zero point."""
    low, high = torch.clamp(x.min(), max=0), torch.clamp(x.max(), min=0)
    scale = (high - low) / 255
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(torch.clamp(-low / safe, 0, 255))
    codes = torch.clamp(torch.round(x / safe) + zero, 0, 255)
    return codes.to(torch.uint8), scale, zero.to(torch.uint8)


@translates("DynamicQuantizeLinear")
def translate_quantize_dynamically(view: NodeView) -> tuple[fx.Node | None, ...]:
    """Translate DynamicQuantizeLinear."""
    return view.items(view.call(quantize_dynamically, view.tensor(0)))
