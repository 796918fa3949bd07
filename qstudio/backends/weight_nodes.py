"""How a weight is stored in an exported model, and the nodes that make its values of what is stored.

Three forms. DequantizeLinear, where integer kernels or other tools look for it. A codebook: integer codes, Cast and
Gather on the levels. And plain arithmetic (Cast, Sub, Mul) where no integer kernel exists: onnxruntime computes it once
at load, while a DequantizeLinear of a constant that is not fused runs in every inference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qstudio.backends.activation_pairs import add_constants, dequantized_name
from qstudio.backends.codebook import factored, level_storage
from qstudio.backends.graph_edit import GraphEdit
from qstudio.backends.storage import INT8, weight_storage
from qstudio.core.affine import Encoding, as_groups, quantize, spread
from qstudio.core.encodings import DynamicEncoding, FloatEncoding, LevelEncoding, Other, OutlierEncoding
from qstudio.core.float_formats import float_type, round_to_float
from qstudio.core.levels import level_codes
from qstudio.core.scheme import Granularity

WeightEncoding = Encoding | LevelEncoding | FloatEncoding | OutlierEncoding

FLOAT_TENSORS: dict[str, int] = {
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp8_e4m3": TensorProto.FLOAT8E4M3FN,
    "fp8_e5m2": TensorProto.FLOAT8E5M2,
}
"""ONNX type of each floating-point format."""


@dataclass(frozen=True)
class Form:
    """What the exported model may use."""

    domain: str = ""
    """Of DequantizeLinear: "" for ONNX's, or onnxruntime's own where the model stays at an old operator set."""
    packed: bool = False
    """Whether codes below 8 bits are stored below 8 bits."""

    meets: str = "integers"
    """What a layer multiplies the weight with: "integers" whose scale is a constant, "float8", or "" for the rest."""

    @property
    def casts_packed(self) -> bool:
        """Whether Cast knows the types below 8 bits."""
        return self.packed and not self.domain


def add_weight(edit: GraphEdit, weight: str, encoding: WeightEncoding, form: Form) -> None:
    """Store an initializer under its encoding and let everything that reads it read the rounded values."""
    chain = _Chain(edit, weight, form)
    chain.values(edit.constant(weight), encoding)
    target = edit.fresh(dequantized_name(weight))
    edit.add_front(chain.closed(target))
    edit.rewire(weight, target)


class _Chain:
    """Nodes for one weight, each reading the one before."""

    def __init__(self, edit: GraphEdit, weight: str, form: Form) -> None:
        self._edit, self._weight, self._form = edit, weight, form
        self._nodes: list[onnx.NodeProto] = []

    def closed(self, target: str) -> list[onnx.NodeProto]:
        """Return the nodes, the last of which puts out `target`."""
        self._nodes[-1].output[0] = target
        return self._nodes

    def values(self, values: NDArray[np.floating], encoding: WeightEncoding, folds: bool = False) -> str:
        """Add what an encoding makes of values and return the name of the result, in the shape of the values.

        `folds` asks for nodes that onnxruntime computes at load.
        """
        if isinstance(encoding, OutlierEncoding):
            return self._with_outliers(values, encoding)
        if isinstance(encoding, LevelEncoding):
            return self._codebook(values, encoding)
        if isinstance(encoding, FloatEncoding):
            return self._float(values, encoding, folds)
        return self._affine(values, encoding, folds)

    def _affine(self, values: NDArray[np.floating], encoding: Encoding, folds: bool) -> str:
        codes = quantize(values, encoding)
        if folds or is_arithmetic(encoding, self._form, codes.ndim):
            zero_points = encoding.zero_point if encoding.zero_point.any() else None
            return self._arithmetic(
                codes, encoding, weight_storage(encoding, self._form.casts_packed).type, zero_points
            )
        storage = weight_storage(encoding, self._form.packed, int2=not self._form.domain)
        if encoding.scale.ndim == 2:
            constants = add_constants(self._edit, self._weight, encoding, storage)
            shared = [constants.scale, constants.zero_point]
            return self._blocked(codes, encoding, storage.type, shared)
        integer = self._constant(codes.astype(storage.numpy), "quantized")
        if storage.bits < 8 and self._form.casts_packed:
            # onnxruntime casts at load and then finds its 8-bit kernels; it has none for the packed types.
            integer, storage = self._then("Cast", [integer], to=INT8.type), INT8
        constants = add_constants(self._edit, self._weight, encoding, storage)
        axis: dict[str, Any] = {} if encoding.axis is None or encoding.scale.ndim == 0 else {"axis": encoding.axis}
        inputs = [integer, constants.scale, constants.zero_point]
        return self._then("DequantizeLinear", inputs, domain=self._form.domain, **axis)

    def _float(self, values: NDArray[np.floating], encoding: FloatEncoding, folds: bool) -> str:
        number_type = float_type(encoding.format)
        onnx_type = FLOAT_TENSORS[number_type.id]
        shape = np.shape(values)
        with np.errstate(over="ignore"):
            scaled = np.asarray(values, np.float32) / spread(encoding.scale, shape, encoding)
        codes = round_to_float(scaled, number_type)
        if folds or is_arithmetic(encoding, self._form, codes.ndim):
            return self._arithmetic(codes, encoding, onnx_type, None)
        scale = self._constant(np.asarray(encoding.scale, np.float32), "scale")
        zeros = np.zeros(encoding.scale.shape, _numpy(onnx_type))
        zero_point = self._constant(zeros, "zero_point")
        if encoding.scale.ndim == 2:
            return self._blocked(codes, encoding, onnx_type, [scale, zero_point])
        stored = self._constant(codes.astype(_numpy(onnx_type)), "quantized")
        axis: dict[str, Any] = {} if encoding.axis is None or encoding.scale.ndim == 0 else {"axis": encoding.axis}
        return self._then("DequantizeLinear", [stored, scale, zero_point], **axis)

    def _blocked(
        self, codes: NDArray[Any], encoding: Encoding | FloatEncoding, onnx_type: int, shared: list[str]
    ) -> str:
        """Add a blocked DequantizeLinear on the [C, K] matrix of a weight of two axes."""
        matrix = np.moveaxis(codes, encoding.axis or 0, 0)
        stored = self._constant(matrix.astype(_numpy(onnx_type)), "quantized")
        found = self._then("DequantizeLinear", [stored, *shared], axis=1, block_size=encoding.group_size)
        # Behind a Transpose, onnxruntime does not fuse MatMulNBits, which would round the activations to 8 bits too.
        return self._then("Transpose", [found], perm=[1, 0]) if encoding.axis == 1 else found

    def _arithmetic(
        self,
        codes: NDArray[Any],
        encoding: Encoding | FloatEncoding,
        onnx_type: int,
        zero_points: NDArray[np.integer] | None,
    ) -> str:
        """Add Cast, Sub and Mul: (q - z) s, the arithmetic of DequantizeLinear."""
        scale, dtype = np.asarray(encoding.scale, np.float32), _numpy(onnx_type)
        if encoding.scale.ndim == 2:
            granularity = Granularity("group", encoding.group_size)
            rows = _rows(codes, granularity, encoding.axis or 0)
            scale = scale[:, :, None]
            zero_points = None if zero_points is None else zero_points[:, :, None]
        else:
            rows = codes
            scale = spread(scale, codes.shape, encoding)
            zero_points = None if zero_points is None else spread(zero_points, codes.shape, encoding)
        found = self._then("Cast", [self._constant(rows.astype(dtype), "quantized")], to=TensorProto.FLOAT)
        if zero_points is not None:
            zero = self._then("Cast", [self._constant(zero_points.astype(dtype), "zero_point")], to=TensorProto.FLOAT)
            found = self._then("Sub", [found, zero])
        if (scale != 1).any():
            found = self._then("Mul", [found, self._constant(scale, "scale")])
        return found if rows is codes else self._from_rows(found, rows.shape, codes.shape, encoding.axis or 0)

    def _codebook(self, values: NDArray[np.floating], encoding: LevelEncoding) -> str:
        """Add Gather on a table of levels; each row (channel or group) has its own stretch of the table."""
        codes = level_codes(values, encoding)
        rows_count, count = encoding.levels.shape
        dtype = level_storage(count, self._form.casts_packed).numpy
        if encoding.axis is None:
            stored = self._constant(codes.astype(dtype), "quantized")
            index = self._then("Cast", [stored], to=TensorProto.INT32)
            return self._then("Gather", [self._constant(encoding.levels[0], "levels"), index])
        rows = _rows(codes, encoding.granularity, encoding.axis)
        heads = [*rows.shape[:-1], 1]
        index = self._then("Cast", [self._constant(rows.astype(dtype), "quantized")], to=TensorProto.INT32)
        product = factored(encoding.levels)
        if product is not None:
            base, scale = product
            found = self._then("Gather", [self._constant(base, "levels"), index])
            found = self._then("Mul", [found, self._constant(scale.reshape(heads), "scale")])
        else:
            starts = (np.arange(rows_count, dtype=np.int32) * count).reshape(heads)
            index = self._then("Add", [index, self._constant(starts, "starts")])
            found = self._then("Gather", [self._constant(encoding.levels.reshape(-1), "levels"), index])
        return self._from_rows(found, rows.shape, codes.shape, encoding.axis)

    def _with_outliers(self, values: NDArray[np.floating], encoding: OutlierEncoding) -> str:
        """Add the rounded values and put the few that stay float over them."""
        found = self.values(values, encoding.inner, folds=True)
        if not encoding.positions.size:
            return found
        shape = np.shape(values)
        positions = encoding.positions.astype(np.int32 if np.size(values) < 2**31 else np.int64)
        kept = np.asarray(values, np.float32).reshape(-1)[encoding.positions]
        flat = self._then("Reshape", [found, self._constant(np.asarray([-1], np.int64), "flat_shape")])
        places, outliers = self._constant(positions, "outlier_positions"), self._constant(kept, "outliers")
        flat = self._then("ScatterElements", [flat, places, outliers], axis=0)
        return self._then("Reshape", [flat, self._constant(np.asarray(shape, np.int64), "shape")])

    def _from_rows(self, name: str, rows: tuple[int, ...], shape: tuple[int, ...], axis: int) -> str:
        """Give groups [C, G, g] (padded) or rows [C, K] the shape of the weight, channels on `axis`."""
        moved = (shape[axis], *(n for i, n in enumerate(shape) if i != axis))
        inner = int(np.prod(moved[1:]))
        present = int(np.prod(rows[1:]))
        if present != inner:
            flat = self._constant(np.asarray([moved[0], present], np.int64), "padded_shape")
            name = self._then("Reshape", [name, flat])
            ends = [self._constant(np.asarray([n], np.int64), word) for n, word in ((0, "first"), (inner, "last"))]
            name = self._then("Slice", [name, *ends, self._constant(np.asarray([1], np.int64), "sliced_axis")])
        name = self._then("Reshape", [name, self._constant(np.asarray(moved, np.int64), "rows_shape")])
        if axis == 0:
            return name
        return self._then("Transpose", [name], perm=[*range(1, axis + 1), 0, *range(axis + 1, len(shape))])

    def _constant(self, values: NDArray[Any], word: str) -> str:
        return self._edit.add_initializer(f"{self._weight}_{word}", values)

    def _then(self, op_type: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        name = self._edit.fresh(f"{self._weight}_{op_type}")
        output = self._edit.fresh(f"{name}_Rows")
        self._nodes.append(helper.make_node(op_type, inputs, [output], name, domain=domain, **attributes))
        return output


def _numpy(onnx_type: int) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(onnx_type))


def _rows(codes: NDArray[Any], granularity: Granularity, axis: int) -> NDArray[Any]:
    return as_groups(codes, granularity, axis)


def is_arithmetic(encoding: Encoding | FloatEncoding, form: Form, axes: int) -> bool:
    """Return whether a weight of `axes` axes is Cast, Sub and Mul, which run once, and not DequantizeLinear.

    So are 16-bit floats, float8 that meets anything but float8, and integers that meet float activations or dynamic
    ones: for a matrix of them onnxruntime would take MatMulNBits, which rounds the activations to 8 bits too. And so
    are groups, for which it has no other kernel (a DequantizeLinear of a matrix of 1024 x 1024 in groups takes 28 times
    as long as its product with one vector), but for matrices whose codes are to be packed: these keep the blocked
    DequantizeLinear that other tools look for.
    """
    if isinstance(encoding, FloatEncoding) and float_type(encoding.format).bits == 16:
        return True
    if encoding.scale.ndim == 2:
        # onnxruntime's own DequantizeLinear knows no blocks.
        return axes != 2 or not form.packed or bool(form.domain)
    return form.meets != ("float8" if isinstance(encoding, FloatEncoding) else "integers")


def weight_opset(encoding: Encoding | Other, form: Form, axes: int) -> int:
    """Return the operator set that a weight's nodes need: float8 19, int4, 16 bits and blocks 21, int2 25, else 13."""
    if isinstance(encoding, DynamicEncoding):
        return 13
    if isinstance(encoding, OutlierEncoding):
        # Arithmetic, as for a weight that is no matrix.
        return weight_opset(encoding.inner, replace(form, meets=""), 0)
    if isinstance(encoding, LevelEncoding):
        return level_storage(encoding.levels.shape[1], form.packed).opset
    arithmetic = is_arithmetic(encoding, form, axes)
    least = 21 if encoding.scale.ndim == 2 and not arithmetic else 13
    if isinstance(encoding, FloatEncoding):
        return max(least, 19 if float_type(encoding.format).bits == 8 else 13)
    storage = weight_storage(encoding, form.packed)
    # Cast knows the types of 8 bits and more at every operator set.
    return max(least, 13 if arithmetic and storage.bits >= 8 else storage.opset)


def stays_integer(encoding: Encoding | Other, form: Form) -> bool:
    """Return whether a weight is a DequantizeLinear of integers that onnxruntime's integer kernels take over."""
    return isinstance(encoding, Encoding) and encoding.scale.ndim < 2 and form.meets == "integers"


def can_pack(encoding: Encoding | Other) -> bool:
    """Return whether a weight's codes fit into a type below 8 bits."""
    if isinstance(encoding, OutlierEncoding):
        return can_pack(encoding.inner)
    if isinstance(encoding, LevelEncoding):
        return level_storage(encoding.levels.shape[1], packed=True).bits < 8
    return isinstance(encoding, Encoding) and weight_storage(encoding, packed=True).bits < 8
