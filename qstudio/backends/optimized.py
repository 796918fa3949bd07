"""What onnxruntime makes of a model: its optimised graph, and why parts of it do not run on integer kernels."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper

from qstudio.backends.ort import Model, make_session

_INTEGER_PREFIXES = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "NhwcMaxPool", "QMoE")
_HEAVY = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "LSTM", "GRU", "RNN")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_SHOWN = 4


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
    return _described(proto)


def _own_name(name: str) -> str:
    return re.sub(r"(_token_\d+|_nchwc|_nhwc)+$", "", name)


def _described(proto: onnx.ModelProto) -> OptimizedGraph:
    graph = proto.graph
    constants = {t.name: t for t in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output if name}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    integer: list[str] = []
    layers: list[tuple[str, str]] = []
    between: list[tuple[str, str]] = []
    conversions: list[str] = []
    unpacked: list[str] = []
    uneven: list[str] = []
    for node in graph.node:
        reads = [producer[name] for name in node.input if name in producer]
        writes = [n for name in node.output for n in consumers.get(name, [])]
        if node.op_type in _CONVERSIONS:
            (unpacked if node.input[0] in constants else conversions).append(_own_name(node.name))
        elif node.op_type.startswith(_INTEGER_PREFIXES):
            integer.append(_own_name(node.name))
            if node.op_type == "QLinearConv" and _is_uneven_depthwise(node, constants):
                uneven.append(_own_name(node.name))
        elif node.op_type in _HEAVY:
            layers.append((_own_name(node.name), node.op_type))
        elif any(n.op_type == "DequantizeLinear" for n in reads) and any(n.op_type == "QuantizeLinear" for n in writes):
            between.append((_own_name(node.name), node.op_type))
    counted = Counter(node.op_type for node in graph.node).most_common()
    return OptimizedGraph(
        tuple(counted),
        tuple(integer),
        tuple(layers),
        tuple(between),
        tuple(conversions),
        tuple(unpacked),
        tuple(uneven),
    )


def _is_uneven_depthwise(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if group == 1 or len(node.input) < 6 or node.input[5] not in constants:
        return False
    zero_point = numpy_helper.to_array(constants[node.input[5]])
    # Unsigned weights are centred on 128.
    return bool((zero_point != (128 if zero_point.dtype.kind == "u" else 0)).any())


def speed_notes(graph: OptimizedGraph, instructions: tuple[str, ...]) -> tuple[str, ...]:
    """Return, in plain words, what keeps an exported model from being fast on this processor.

    Every sentence is about something that was found in the optimised graph or in the list of instruction sets.

    Args:
        graph: From `optimized_graph` of the exported model.
        instructions: Instruction sets that matter for int8, from `qstudio.backends.processor`.
    """
    notes = []
    if graph.float_layers:
        notes.append(
            f"{len(graph.float_layers)} layers compute in float, because onnxruntime has no integer kernel for their "
            f"operator, formats, bit widths or groups: {_listed(graph.float_layers)}"
        )
    if graph.between:
        notes.append(
            f"{len(graph.between)} operators compute in float between integer tensors: onnxruntime has no integer "
            f"kernel for them or for a constant they read: {_listed(graph.between)}"
        )
    # One conversion at each end of the model is the way in and out.
    if len(graph.conversions) > 2:
        names = tuple((name, "") for name in graph.conversions)
        notes.append(f"{len(names)} QuantizeLinear and DequantizeLinear nodes were not fused: {_listed(names)}")
    if graph.constant_conversions:
        names = tuple((name, "") for name in graph.constant_conversions)
        notes.append(f"{len(names)} weights and biases are unpacked to float in every run: {_listed(names)}")
    if graph.uneven_depthwise:
        names = tuple((name, "") for name in graph.uneven_depthwise)
        notes.append(
            f"{len(names)} depthwise convolutions have asymmetric weights, for which onnxruntime has no fast kernel: "
            f"{_listed(names)}. Choose symmetric weights"
        )
    if graph.integer and "x86" in instructions and not any("vnni" in i or "amx" in i for i in instructions):
        notes.append(
            "This processor has no VNNI instructions: 8-bit products gain little over float here, and full 8-bit "
            "weights can saturate in 16 bits (choose 7-bit weights to be safe)"
        )
    return tuple(notes)


def _listed(names: tuple[tuple[str, str], ...]) -> str:
    shown = [f"{name} ({operator})" if operator else name for name, operator in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
