"""A QDQ graph read by its DequantizeLinear and QuantizeLinear nodes: where codes come from and where they go."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qstudio.quant.integer.arithmetic import Grid

_CODES = (np.dtype(np.uint8), np.dtype(np.int8))

_KEEPS_CODES = (
    "Clip",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "MaxPool",
    "Slice",
    "Gather",
    "Identity",
    "Pad",
)
"""Operators whose result has the type of their first input."""


@dataclass(frozen=True, eq=False)
class Source:
    """What a DequantizeLinear unpacks."""

    codes: str
    grid: Grid
    axis: int
    constant: NDArray[Any] | None


class QdqGraph:
    """A model's nodes, with the 8-bit codes between them.

    Args:
        model: QDQ model; not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = model.graph.node
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self.constants = {t.name: t for t in model.graph.initializer}
        self._position: dict[str, int] = {}
        self._readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            self._position.update(dict.fromkeys(node.output, index))
            for name in dict.fromkeys(node.input):
                self._readers[name].append(index)
        self._outputs = {output.name for output in model.graph.output}
        self._types: dict[str, np.dtype[Any]] = {}
        for node in self.nodes:
            if node.op_type == "QuantizeLinear" and (dtype := self._quantized_type(node)) is not None:
                self._types[node.output[0]] = dtype
            elif node.op_type in _KEEPS_CODES and node.input and node.input[0] in self._types:
                self._types[node.output[0]] = self._types[node.input[0]]

    def holds_codes(self, tensor: str) -> bool:
        """Return whether a tensor that a node writes holds 8-bit codes."""
        return tensor in self._types

    def array(self, name: str) -> NDArray[Any]:
        """Return a constant."""
        return numpy_helper.to_array(self.constants[name])

    def _quantized_type(self, node: onnx.NodeProto) -> np.dtype[Any] | None:
        if len(node.input) < 3 or not node.input[2]:
            return np.dtype(np.uint8) if attribute(node, "output_dtype", 0) in (0, onnx.TensorProto.UINT8) else None
        if node.input[2] not in self.constants:
            return None
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(self.constants[node.input[2]].data_type))
        return dtype if dtype in _CODES else None

    def _source(self, tensor: str) -> Source | None:
        """Return what the DequantizeLinear behind a tensor unpacks; None when there is none of 8 (or 32) bits."""
        index = self._position.get(tensor)
        if index is None or self.nodes[index].op_type != "DequantizeLinear":
            return None
        node = self.nodes[index]
        if any(name not in self.constants for name in node.input[1:] if name):
            return None
        codes = node.input[0]
        constant = self.array(codes) if codes in self.constants else None
        dtype = constant.dtype if constant is not None else self._types.get(codes)
        scale = self.array(node.input[1])
        if dtype is None or scale.dtype != np.float32 or scale.ndim > 1 or attribute(node, "block_size", 0):
            return None
        zero = self.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(scale.shape, dtype)
        if dtype not in _CODES and dtype != np.int32:
            return None
        axis = int(attribute(node, "axis", 1))
        return Source(codes, Grid(scale, zero.astype(np.int64), np.dtype(dtype)), axis, constant)

    def activation(self, tensor: str) -> Source | None:
        """Return the source of 8-bit codes with one scale."""
        source = self._source(tensor)
        if source is None or source.grid.dtype not in _CODES or source.grid.scale.size != 1:
            return None
        return source

    def weight(self, tensor: str, axis: int) -> Source | None:
        """Return the source of a constant 8-bit weight, one scale or one for each place of an axis."""
        source = self._source(tensor)
        if source is None or source.constant is None or source.grid.dtype not in _CODES:
            return None
        rank = source.constant.ndim
        if source.grid.scale.size != 1 and source.axis % rank != axis % rank:
            return None
        return source

    def bias(self, tensor: str, channels: int) -> NDArray[np.int64] | None:
        """Return the int32 codes of a bias, one for each channel."""
        source = self._source(tensor)
        if source is None or source.constant is None or source.grid.dtype != np.int32:
            return None
        flat = source.constant.astype(np.int64).reshape(-1)
        if flat.size not in (1, channels):
            return None
        return np.broadcast_to(flat, (channels,))

    def target(self, index: int) -> tuple[str, Grid, frozenset[int]] | None:
        """Return (tensor of codes, grid, positions) of the only QuantizeLinear behind a node."""
        taken = {index}
        tensor = self.nodes[index].output[0]
        limits: tuple[float, float] | None = None
        for _ in range(2):
            readers = self._readers[tensor]
            if len(readers) != 1 or tensor in self._outputs:
                return None
            reader = self.nodes[readers[0]]
            taken.add(readers[0])
            if reader.op_type == "QuantizeLinear" and reader.input[0] == tensor:
                grid = self._grid_of(reader)
                if grid is None or (limits is not None and not _holds(limits, grid)):
                    return None
                return reader.output[0], grid, frozenset(taken)
            limits = self._limits(reader)
            if limits is None:
                return None
            tensor = reader.output[0]
        return None

    def is_read_as_values(self, index: int) -> bool:
        """Return whether nothing quantizes the result of a node."""
        readers = [self.nodes[i].op_type for i in self._readers[self.nodes[index].output[0]]]
        return "QuantizeLinear" not in readers and "Relu" not in readers and "Clip" not in readers

    def _grid_of(self, node: onnx.NodeProto) -> Grid | None:
        dtype = self._types.get(node.output[0])
        if dtype is None or node.input[1] not in self.constants:
            return None
        scale = self.array(node.input[1])
        if scale.size != 1 or scale.dtype != np.float32:
            return None
        zero = self.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(scale.shape, dtype)
        return Grid(scale, zero.astype(np.int64), dtype)

    def _limits(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type != "Clip":
            return None
        limits = [-np.inf, np.inf]
        for i, name in enumerate(node.input[1:3]):
            if name:
                if name not in self.constants:
                    return None
                limits[i] = float(self.array(name).reshape(-1)[0])
        return limits[0], limits[1]


def _holds(limits: tuple[float, float], grid: Grid) -> bool:
    """Return whether the codes cannot leave the limits, so that a Relu or Clip does nothing."""
    low, high = (grid.step * np.float32(code - grid.zero) for code in (grid.low, grid.high))
    return bool(limits[0] <= low and high <= limits[1])


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute, or the default where the node has none."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default
