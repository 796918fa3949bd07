"""Element types: ONNX, numpy and torch side by side."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from onnx import TensorProto

TORCH_OF_ONNX: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    TensorProto.FLOAT8E8M0: torch.float8_e8m0fnu,
    TensorProto.INT4: torch.int8,
    TensorProto.INT2: torch.int8,
    TensorProto.UINT4: torch.uint8,
    TensorProto.UINT2: torch.uint8,
    TensorProto.FLOAT4E2M1: torch.float32,
}
"""Where torch has no such type (int4, int2, float4) the next wider one carries the same values."""

_VIEWED = {
    np.dtype(ml_dtypes.bfloat16): (np.int16, torch.bfloat16),
    np.dtype(ml_dtypes.float8_e4m3fn): (np.uint8, torch.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e4m3fnuz): (np.uint8, torch.float8_e4m3fnuz),
    np.dtype(ml_dtypes.float8_e5m2): (np.uint8, torch.float8_e5m2),
    np.dtype(ml_dtypes.float8_e5m2fnuz): (np.uint8, torch.float8_e5m2fnuz),
    np.dtype(ml_dtypes.float8_e8m0fnu): (np.uint8, torch.float8_e8m0fnu),
}
_WIDENED = {
    np.dtype(ml_dtypes.int4): np.int8,
    np.dtype(ml_dtypes.int2): np.int8,
    np.dtype(ml_dtypes.uint4): np.uint8,
    np.dtype(ml_dtypes.uint2): np.uint8,
    np.dtype(ml_dtypes.float4_e2m1fn): np.float32,
}


def as_torch(array: np.ndarray) -> torch.Tensor:
    """Copy a numpy array (ONNX's small types included) into a torch tensor of the same values.

    Raises:
        TypeError: for text, which torch cannot hold.
    """
    if array.dtype in _VIEWED:
        raw, dtype = _VIEWED[array.dtype]
        return torch.from_numpy(np.array(array, order="C").view(raw)).view(dtype)
    if array.dtype in _WIDENED:
        return torch.from_numpy(array.astype(_WIDENED[array.dtype]))
    if array.dtype.kind in "OSU":
        raise TypeError("text tensors have no place in torch")
    return torch.from_numpy(np.array(array, order="C"))


def torch_dtype(data_type: int) -> torch.dtype:
    """Return the torch type that carries an ONNX type.

    Raises:
        KeyError: when torch has none (text).
    """
    return TORCH_OF_ONNX[data_type]
