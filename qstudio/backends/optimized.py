"""What onnxruntime makes of a model: its optimised graph, and which parts of it run on integer kernels."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from qstudio.backends.origins import CONVERSIONS, HEAVY, Origins, own_name
from qstudio.backends.ort import Model, make_session

INTEGER_PREFIXES = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "NhwcMaxPool", "QMoE")
"""Operators that onnxruntime computes on integers."""

_PASSING = (*CONVERSIONS, "Transpose", "ReorderInput", "ReorderOutput", "Clip", "Max", "Min")
"""What stands at the edge of a layer: it converts, reorders, or cuts codes."""
_PACKED_BITS = {
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
    getattr(onnx.TensorProto, "INT2", -1): 2,
    getattr(onnx.TensorProto, "UINT2", -2): 2,
}
"""Types with several values in a byte; onnx has those of 2 bits since 1.20."""


@dataclass(frozen=True)
class OptimizedGraph:
    """The nodes that really run."""

    operators: tuple[tuple[str, int], ...]
    """(operator, count), most frequent first."""
    integer: tuple[str, ...]
    """Names of nodes on integer kernels."""
    float_layers: tuple[tuple[str, str], ...]
    """(name, operator) of Conv, Gemm, MatMul and the like that compute in float."""
    between: tuple[tuple[str, str], ...]
    """(name, operator) of other nodes that stand between DequantizeLinear and QuantizeLinear: values are converted to
    float for them and back."""
    conversions: tuple[str, ...]
    """Names of the QuantizeLinear and DequantizeLinear nodes that run, those of constants left out."""
    constant_conversions: tuple[str, ...]
    """Names of the DequantizeLinear nodes that unpack a constant in every run."""
    uneven_depthwise: tuple[str, ...]
    """Depthwise convolutions whose weights have a zero point other than 0; onnxruntime is slow on them."""
    conversion_layers: tuple[str, ...] = ()
    """Names of the nodes that `conversions` stand beside, each once, in order."""
    constant_layers: tuple[str, ...] = ()
    """Names of the nodes that read what `constant_conversions` unpack, each once, in order."""
    packed: tuple[tuple[str, int], ...] = ()
    """(name, bits) of constants that the file holds several to a byte."""
    narrow: tuple[tuple[str, int], ...] = ()
    """(name of the node, bits) of weights whose codes need fewer than 8 bits and take a byte each."""


def optimized_graph(model: Model) -> OptimizedGraph:
    """Return what onnxruntime's default optimisation leaves of a model, found by having it write the graph down.

    Names are those of the nodes in `model`, without what onnxruntime adds to them ("conv1_token_4").

    Raises:
        UserError: onnxruntime does not take the model.
    """
    with tempfile.TemporaryDirectory(prefix="qstudio-") as folder:
        path = str(Path(folder) / "optimized.onnx")
        make_session(model, optimized_path=path)
        proto = onnx.load(path)
    return _described(proto, as_proto(model))


def as_proto(model: Model) -> onnx.ModelProto:
    """Return a model as a ModelProto, read from its path or bytes where it is not one."""
    if isinstance(model, onnx.ModelProto):
        return model
    return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))


def _described(proto: onnx.ModelProto, source: onnx.ModelProto) -> OptimizedGraph:
    nodes = list(proto.graph.node)
    constants = {t.name: t for t in proto.graph.initializer}
    origins = Origins(source)
    called = [origins.main(own_name(node.name), node.op_type) for node in nodes]
    around = _Neighbours(nodes, called, {node.name for node in source.graph.node})
    integer: list[str] = []
    layers: list[tuple[str, str]] = []
    between: list[tuple[str, str]] = []
    conversions: list[str] = []
    unpacked: list[str] = []
    uneven: list[str] = []
    beside: dict[str, None] = {}
    reading: dict[str, None] = {}
    for number, (node, name) in enumerate(zip(nodes, called, strict=True)):
        if node.op_type in CONVERSIONS:
            constant = node.input[0] in constants
            (unpacked if constant else conversions).append(name)
            (reading if constant else beside).update(dict.fromkeys(around.computing(number)))
        elif node.op_type.startswith(INTEGER_PREFIXES):
            integer.append(name)
            if node.op_type == "QLinearConv" and _is_uneven_depthwise(node, constants):
                uneven.append(name)
        elif node.op_type in HEAVY:
            layers.append((name, node.op_type))
        elif around.stands_between_conversions(number):
            between.append((name, node.op_type))
    return OptimizedGraph(
        tuple(Counter(node.op_type for node in nodes).most_common()),
        tuple(integer),
        tuple(layers),
        tuple(between),
        tuple(conversions),
        tuple(unpacked),
        tuple(uneven),
        tuple(beside),
        tuple(reading),
        tuple((t.name, _PACKED_BITS[t.data_type]) for t in source.graph.initializer if t.data_type in _PACKED_BITS),
        _narrow(source),
    )


class _Neighbours:
    """Which nodes of the optimised graph stand before and after each other."""

    def __init__(self, nodes: list[onnx.NodeProto], called: list[str], known: set[str]) -> None:
        self._nodes, self._called, self._known = nodes, called, known
        producer = {name: number for number, node in enumerate(nodes) for name in node.output if name}
        self._before = [[producer[name] for name in node.input if name in producer] for node in nodes]
        self._after: list[list[int]] = [[] for _ in nodes]
        for number, before in enumerate(self._before):
            for other in before:
                self._after[other].append(number)

    def stands_between_conversions(self, number: int) -> bool:
        """Return whether a node reads from a DequantizeLinear and writes to a QuantizeLinear."""
        kinds = [{self._nodes[n].op_type for n in side[number]} for side in (self._before, self._after)]
        return "DequantizeLinear" in kinds[0] and "QuantizeLinear" in kinds[1]

    def computing(self, number: int) -> list[str]:
        """Return the nodes of the file next to a conversion, past what only converts or reorders."""
        found: list[str] = []
        for side in (self._before, self._after):
            waiting, seen = list(side[number]), {number}
            while waiting:
                other = waiting.pop(0)
                if other in seen:
                    continue
                seen.add(other)
                if self._called[other] in self._known and self._nodes[other].op_type not in _PASSING:
                    found.append(self._called[other])
                else:
                    waiting += side[other]
        return found


def _narrow(source: onnx.ModelProto) -> tuple[tuple[str, int], ...]:
    """Return (name of the node that reads it, bits) of the weights in bytes whose codes need fewer than 8 bits."""
    readers = {name: node.name for node in reversed(source.graph.node) for name in node.input}
    weights = {node.input[0]: node for node in source.graph.node if node.op_type == "DequantizeLinear"}
    found = []
    for tensor in source.graph.initializer:
        if tensor.name in weights and tensor.data_type == onnx.TensorProto.INT8 and tensor.dims:
            codes = numpy_helper.to_array(tensor)
            largest = max(int(codes.max(initial=0)), -int(codes.min(initial=0)) - 1)
            bits = int(np.ceil(np.log2(largest + 1))) + 1 if largest > 0 else 1
            if bits < 8:
                found.append((readers.get(weights[tensor.name].output[0], tensor.name), bits))
    return tuple(found)


def _is_uneven_depthwise(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if group == 1 or len(node.input) < 6 or node.input[5] not in constants:
        return False
    zero_point = numpy_helper.to_array(constants[node.input[5]])
    # Unsigned weights are centred on 128.
    return bool((zero_point != (128 if zero_point.dtype.kind == "u" else 0)).any())
