"""Fold BatchNormalization into the Conv, ConvTranspose or Gemm before it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

_INTO = ("Conv", "ConvTranspose", "Gemm")


def fold_batchnorm(graph: onnx.GraphProto) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Fold every BatchNormalization that can be folded, in place.

    y = scale * (x - mean) / sqrt(var + epsilon) + bias with x = W*a + b is W' = W*g and b' = (b - mean)*g + bias,
    where g = scale / sqrt(var + epsilon) per output channel (Jacob et al., CVPR 2018, section 3.2), in float64.
    A channel with var ~ 0 has a large but finite g and survives. The weight keeps its name when no other node reads
    it; the folded node writes the tensor that the BatchNormalization wrote.

    Returns:
        (batch normalization, node it went into) in graph order, and a sentence for each one that stayed.
    """
    initializers = {t.name: t for t in graph.initializer}
    outputs = {o.name for o in graph.output}
    folded: list[tuple[str, str]] = []
    notes: list[str] = []
    for norm in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        producer = {o: n for n in graph.node for o in n.output if o}
        target = producer.get(norm.input[0]) if norm.input else None
        if target is None or target.op_type not in _INTO or target.domain not in ("", "ai.onnx"):
            notes.append(f"{norm.name} stays: nothing before it that it could be folded into")
            continue
        reason = _obstacle(graph, norm, target, initializers, outputs)
        if reason:
            notes.append(f"{norm.name} stays: {reason}")
            continue
        if not _fold_one(graph, norm, target, initializers):
            notes.append(f"{norm.name} stays: its statistics give no finite weights")
            continue
        folded.append((norm.name, target.name))
    return tuple(folded), tuple(notes)


def _readers(graph: onnx.GraphProto, name: str) -> int:
    return sum(list(n.input).count(name) for n in graph.node)


def _obstacle(
    graph: onnx.GraphProto,
    norm: onnx.NodeProto,
    target: onnx.NodeProto,
    initializers: dict[str, onnx.TensorProto],
    outputs: set[str],
) -> str:
    """Tell why a BatchNormalization cannot be folded, or return an empty text."""
    if _number(norm, "training_mode", 0) or _number(norm, "spatial", 1) != 1 or any(norm.output[1:]):
        return "it is in training mode or normalises each place by itself"
    if _readers(graph, norm.input[0]) != 1 or norm.input[0] in outputs:
        return f"the output of {target.name} is used elsewhere too"
    needed = [target.input[1], *norm.input[1:5], *[b for b in target.input[2:3] if b]]
    if len(norm.input) < 5 or any(name not in initializers for name in needed):
        return "weights or statistics are not constant"
    channels = _channels(target, initializers[target.input[1]])
    if any(list(initializers[name].dims) != [channels] for name in norm.input[1:5]):
        return f"its {list(initializers[norm.input[1]].dims)} statistics do not fit {channels} channels"
    return ""


def _number(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            return attribute.f if attribute.type == onnx.AttributeProto.FLOAT else attribute.i
    return default


def _channels(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    if node.op_type == "Conv":
        return int(weight.dims[0])
    if node.op_type == "ConvTranspose":
        return int(weight.dims[1]) * int(_number(node, "group", 1))
    return int(weight.dims[0 if _number(node, "transB", 0) else 1])


def _scaled(node: onnx.NodeProto, weight: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Multiply a weight by a factor per output channel; groups of a ConvTranspose interleave on two axes."""
    if node.op_type == "Conv":
        return weight * gain.reshape([-1] + [1] * (weight.ndim - 1))
    if node.op_type == "ConvTranspose":
        groups = int(_number(node, "group", 1))
        split = weight.reshape([groups, weight.shape[0] // groups, *weight.shape[1:]])
        factor = gain.reshape([groups, 1, weight.shape[1]] + [1] * (weight.ndim - 2))
        return (split * factor).reshape(weight.shape)
    return weight * (gain.reshape(-1, 1) if _number(node, "transB", 0) else gain.reshape(1, -1))


def _fold_one(
    graph: onnx.GraphProto, norm: onnx.NodeProto, target: onnx.NodeProto, initializers: dict[str, onnx.TensorProto]
) -> bool:
    scale, shift, mean, variance = (numpy_helper.to_array(initializers[n]).astype(np.float64) for n in norm.input[1:5])
    weight = numpy_helper.to_array(initializers[target.input[1]])
    with np.errstate(all="ignore"):
        gain = scale / np.sqrt(variance + _number(norm, "epsilon", 1e-5))
        old_bias = np.zeros(())
        if len(target.input) > 2 and target.input[2]:
            old_bias = numpy_helper.to_array(initializers[target.input[2]]).astype(np.float64)
            old_bias = old_bias * (_number(target, "beta", 1.0) if target.op_type == "Gemm" else 1.0)
        new_weight = _scaled(target, weight.astype(np.float64), gain).astype(weight.dtype)
        new_bias = np.asarray((old_bias - mean) * gain + shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return False
    _set_input(graph, target, 1, new_weight, initializers, target.input[1])
    bias_name = target.input[2] if len(target.input) > 2 and target.input[2] else f"{target.input[1]}_bias"
    _set_input(graph, target, 2, new_bias, initializers, bias_name)
    for attribute in target.attribute:
        if attribute.name == "beta":
            attribute.f = 1.0
    target.output[0] = norm.output[0]
    graph.node.remove(norm)
    return True


def _set_input(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    index: int,
    array: np.ndarray,
    initializers: dict[str, onnx.TensorProto],
    name: str,
) -> None:
    """Write an initializer for one input of a node, under its old name when no other node reads it."""
    is_own = index < len(node.input) and node.input[index] == name and _readers(graph, name) == 1
    if not is_own:
        taken = set(initializers) | {o for n in graph.node for o in n.output} | {i.name for i in graph.input}
        base, count = name, 1
        while name in taken:
            name, count = f"{base}_folded{count if count > 1 else ''}", count + 1
        initializers[name] = graph.initializer.add()
    initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    if index < len(node.input):
        node.input[index] = name
    else:
        node.input.append(name)
