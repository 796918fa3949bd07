"""Which ONNX integer type holds the codes of an encoding, and how the type's wider range is cut to the codes in use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto

from qstudio.core.affine import Encoding
from qstudio.core.errors import UserError


@dataclass(frozen=True)
class Storage:
    """An integer type with its range and the operator set that brought it to QuantizeLinear."""

    type: int
    low: int
    high: int
    opset: int
    bits: int

    @property
    def numpy(self) -> np.dtype[np.integer]:
        """The numpy type of the codes (int4 and int2 through ml_dtypes)."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.type))

    def holds(self, encoding: Encoding) -> bool:
        """Return whether every code of the encoding is in the type's range."""
        return self.low <= encoding.qmin and encoding.qmax <= self.high

    def is_filled_by(self, encoding: Encoding) -> bool:
        """Return whether the type saturates exactly where the encoding does."""
        return self.low == encoding.qmin and self.high == encoding.qmax


UINT8 = Storage(TensorProto.UINT8, 0, 255, 13, 8)
INT8 = Storage(TensorProto.INT8, -128, 127, 13, 8)
UINT16 = Storage(TensorProto.UINT16, 0, 65535, 21, 16)
INT16 = Storage(TensorProto.INT16, -32768, 32767, 21, 16)
INT4 = Storage(TensorProto.INT4, -8, 7, 21, 4)
UINT4 = Storage(TensorProto.UINT4, 0, 15, 21, 4)
INT2 = Storage(TensorProto.INT2, -2, 1, 25, 2)
UINT2 = Storage(TensorProto.UINT2, 0, 3, 25, 2)


def as_stored(encoding: Encoding, never_negative: bool) -> Encoding:
    """Return an activation's encoding with signed codes of up to 8 bits moved into 0..255; the numbers stay the same.

    s (q - z) = s ((q + 128) - (z + 128)). onnxruntime's x86 kernels for Conv and Gemm take u8 activations only, and
    input and output have to be of one type. Where values cannot be negative (after Relu) the codes from 0 up are kept
    as they are: with z = 0 QuantizeLinear does what the Relu before it does, and onnxruntime drops the Relu.

    Args:
        encoding: Per tensor.
        never_negative: Whether the tensor holds no negative values.
    """
    if not (INT8.holds(encoding) and encoding.qmin < 0):
        return encoding
    zero_point = int(encoding.zero_point)
    if never_negative and zero_point == 0:
        return replace(encoding, qmin=0)
    shifted = np.asarray(zero_point + 128, np.int32)
    return replace(encoding, zero_point=shifted, qmin=encoding.qmin + 128, qmax=encoding.qmax + 128)


def activation_storage(encoding: Encoding) -> Storage:
    """Return the type for an activation's codes, already through `as_stored`: u8 up to 8 bits, u16 or i16 above.

    Widths below 8 bits live in u8 too, because onnxruntime has integer kernels for 8-bit types only.

    Raises:
        UserError: The codes need more than 16 bits.
    """
    return _first((UINT8, UINT16, INT16), encoding)


def weight_storage(encoding: Encoding, packed: bool, int2: bool = True) -> Storage:
    """Return the type for a weight's codes: i8 up to 8 bits, i16 above; `packed` adds i4, and i2 where `int2` is so.

    A packed type does not go into DequantizeLinear where integer kernels are wanted: onnxruntime 1.31 has none for
    them (it fuses i2 into QLinearConv, which then refuses the type). See `qstudio.backends.weight_nodes`.

    Raises:
        UserError: The codes need more than 16 bits.
    """
    below = ((INT2, INT4) if int2 else (INT4,)) if packed else ()
    return _first((*below, INT8, INT16), encoding)


def _first(candidates: tuple[Storage, ...], encoding: Encoding) -> Storage:
    for storage in candidates:
        if storage.holds(encoding):
            return storage
    raise UserError(
        f"codes {encoding.qmin}..{encoding.qmax} do not fit into 16 bits", "export", "Choose 16 bits or fewer, or float"
    )
