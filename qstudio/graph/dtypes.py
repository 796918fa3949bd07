"""Element types of ONNX: their names, sizes and integer ranges. No torch: opening a model does without it."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

INTEGER_RANGE: dict[int, tuple[int, int]] = {
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT32: (-(2**31), 2**31 - 1),
    TensorProto.UINT32: (0, 2**32 - 1),
}
"""qmin and qmax of the integer types that QuantizeLinear knows."""

_BITS_OF_ONNX: dict[int, int] = {
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.BOOL: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.FLOAT8E8M0: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.FLOAT: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
    TensorProto.DOUBLE: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
}


def onnx_name(data_type: int) -> str:
    """Return ONNX's word for an element type in lower case ("float", "int64"); "unknown" for a foreign number."""
    try:
        return str(TensorProto.DataType.Name(data_type)).lower()
    except ValueError:
        return "unknown"


def packed_size_bytes(data_type: int, shape: tuple[int, ...]) -> int | None:
    """Return the bytes that a tensor's raw data must have; None for text and unknown types."""
    bits = _BITS_OF_ONNX.get(data_type)
    return None if bits is None else (math.prod(shape) * bits + 7) // 8


def tensor_shape(tensor: onnx.TensorProto) -> tuple[int, ...]:
    """Return an initializer's declared shape."""
    return tuple(int(d) for d in tensor.dims)
