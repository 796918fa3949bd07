"""Describe a model in plain values: nodes, tensors, parameters, multiply-accumulates."""

from __future__ import annotations

import math

import onnx
from onnx import numpy_helper

from qstudio.core.errors import UserError
from qstudio.core.graph_types import GraphDescription, GraphNode, TensorInfo
from qstudio.graph.operators import node_label, unsupported_operators
from qstudio.graph.shapes import infer_tensors
from qstudio.graph.structure import sorted_nodes

Tensors = dict[str, TensorInfo]

_LONGEST_TEXT = 60
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_SHAPE_INPUTS = {
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "Expand": (1,),
    "Tile": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Resize": (1, 2, 3),
    "Split": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}


def describe(proto: onnx.ModelProto) -> GraphDescription:
    """Describe a model, usually one that `prepare` made.

    Shapes are what onnx.shape_inference finds, with None for dynamic sizes. Multiply-accumulates are counted for batch
    1: a Conv has out_elements * in_channels / groups * kernel, a product out_elements * K; bias and elementwise work
    are left out, as is usual.

    Raises:
        UserError: when the graph is damaged (a cycle, a tensor that is read and never written).
    """
    try:
        return _described(proto)
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        text = f"the model cannot be described ({type(error).__name__}: {reason})"
        raise UserError(text, proto.graph.name, "Check it with onnx.checker") from error


def _described(proto: onnx.ModelProto) -> GraphDescription:
    tensors = infer_tensors(proto)
    for_one = infer_tensors(proto, batch=1)
    refused = {name: reason for name, _, reason in unsupported_operators(proto)}
    weights = {t.name for t in proto.graph.initializer}
    nodes = []
    for node in sorted_nodes(proto.graph):
        label = node_label(node)
        nodes.append(
            GraphNode(
                name=label,
                op_type=node.op_type,
                domain="" if node.domain == "ai.onnx" else node.domain,
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                summary=_summary(node, tensors),
                attributes=tuple((a.name, _text(a)) for a in node.attribute),
                parameters=_parameters(node, weights, tensors),
                macs=_macs(node, for_one),
                unsupported=refused.get(label, ""),
            )
        )
    return GraphDescription(
        name=proto.graph.name,
        opset=max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0),
        nodes=tuple(nodes),
        tensors=tensors,
        initializers=tuple(t.name for t in proto.graph.initializer),
        inputs=tuple(i.name for i in proto.graph.input if i.name not in weights),
        outputs=tuple(o.name for o in proto.graph.output),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
    )


def _text(attribute: onnx.AttributeProto) -> str:
    if attribute.type == onnx.AttributeProto.TENSOR:
        if math.prod(attribute.t.dims) <= 8 and attribute.t.data_type != onnx.TensorProto.STRING:
            return str(numpy_helper.to_array(attribute.t).tolist())
        return f"tensor {tuple(attribute.t.dims)}"
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        return "graph"
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, str)):
        text = ", ".join(v.decode("utf-8", "replace") if isinstance(v, bytes) else f"{v:.6g}" for v in value)
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _shape(tensors: Tensors, name: str) -> tuple[int | None, ...] | None:
    info = tensors.get(name)
    return None if info is None else info.shape


def _known(tensors: Tensors, name: str) -> tuple[int, ...] | None:
    shape = _shape(tensors, name)
    if shape is None or any(s is None for s in shape):
        return None
    return tuple(s for s in shape if s is not None)


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            return list(value) if hasattr(value, "__iter__") and not isinstance(value, (bytes, str)) else value
    return default


def _per_axis(values: object, default: int, mark: str) -> str:
    """Write strides, pads and the like: nothing for the default, one number where all axes agree."""
    if not isinstance(values, list) or all(v == default for v in values):
        return ""
    return f"{mark}{values[0]}" if len(set(values)) == 1 else mark + ",".join(str(v) for v in values)


def _summary(node: onnx.NodeProto, tensors: Tensors) -> str:
    """Tell in one line what a node does, in the words people use for it."""
    parts: list[str] = []
    weight = _known(tensors, node.input[1]) if len(node.input) > 1 else None
    if node.op_type in ("Conv", "ConvTranspose") and weight is not None and len(weight) > 2:
        group = _attribute(node, "group", 1)
        group = group if isinstance(group, int) and group > 0 else 1
        inside, outside = (
            (weight[0], weight[1] * group) if node.op_type == "ConvTranspose" else (weight[1] * group, weight[0])
        )
        parts += ["x".join(str(k) for k in weight[2:]), f"{inside} -> {outside}"]
        parts += [_per_axis(_attribute(node, "strides", []), 1, "s"), _per_axis(_attribute(node, "pads", []), 0, "p")]
        parts += [_per_axis(_attribute(node, "dilations", []), 1, "d")]
        parts.append("depthwise" if group == inside and group > 1 else f"groups {group}" if group > 1 else "")
    elif node.op_type == "Gemm" and weight is not None and len(weight) == 2:
        pair = weight[::-1] if _attribute(node, "transB", 0) else weight
        parts.append(f"{pair[0]} -> {pair[1]}")
    elif node.op_type == "MatMul" and weight is not None and len(weight) >= 2:
        parts.append(f"{weight[-2]} -> {weight[-1]}")
    elif node.op_type in _GATES and weight is not None and len(weight) == 3:
        parts += [f"{weight[2]} -> {weight[1] // _GATES[node.op_type]}", "bidirectional" if weight[0] == 2 else ""]
    elif node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        kernel = _attribute(node, "kernel_shape", [])
        parts.append("x".join(str(k) for k in kernel) if isinstance(kernel, list) else "")
        parts += [_per_axis(_attribute(node, "strides", []), 1, "s"), _per_axis(_attribute(node, "pads", []), 0, "p")]
    elif node.op_type in ("BatchNormalization", "InstanceNormalization", "GroupNormalization") and weight:
        parts.append(f"{weight[0]} channels")
    else:
        parts += [f"{a.name} {_text(a)}" for a in node.attribute if a.type != onnx.AttributeProto.TENSOR][:3]
    return ", ".join(p for p in parts if p)


def _parameters(node: onnx.NodeProto, weights: set[str], tensors: Tensors) -> int:
    skipped = _SHAPE_INPUTS.get(node.op_type, ())
    total = 0
    for index, name in enumerate(node.input):
        info = tensors.get(name)
        if name in weights and index not in skipped and info is not None and info.shape is not None:
            total += math.prod(s for s in info.shape if s is not None)
    return total


def _macs(node: onnx.NodeProto, tensors: Tensors) -> int | None:
    """Count multiply-accumulates; None when a shape that they depend on is not known."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "QLinearConv", *_GATES):
        return 0
    where = 3 if node.op_type == "QLinearConv" else 1
    if len(node.input) <= where or not node.output:
        return None
    weight, x = _known(tensors, node.input[where]), _known(tensors, node.input[0])
    y = _known(tensors, node.output[0])
    if weight is None:
        return None
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
        return None if y is None else math.prod(y) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return None if x is None else math.prod(x) * math.prod(weight[1:])
    if node.op_type == "Gemm":
        inner = weight[1] if _attribute(node, "transB", 0) else weight[0]
        return None if y is None else math.prod(y) * inner
    if node.op_type == "MatMul":
        return None if y is None or not weight else math.prod(y) * (weight[-2] if len(weight) > 1 else weight[0])
    if x is None or len(x) != 3 or len(weight) != 3:
        return None
    hidden = weight[1] // _GATES[node.op_type]
    return x[0] * x[1] * weight[0] * weight[1] * (weight[2] + hidden)
