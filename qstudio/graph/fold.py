"""Fold BatchNormalization into the Conv, ConvTranspose or Gemm before it."""

from __future__ import annotations

from collections import Counter

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
    state = _Names(graph)
    folded: list[tuple[str, str]] = []
    notes: list[str] = []
    gone: list[int] = []
    for place, norm in enumerate(graph.node):
        if norm.op_type != "BatchNormalization" or norm.domain not in ("", "ai.onnx"):
            continue
        target = state.producer.get(norm.input[0]) if norm.input else None
        if target is None or target.op_type not in _INTO or target.domain not in ("", "ai.onnx"):
            notes.append(f"{norm.name} stays: nothing before it that it could be folded into")
            continue
        reason = _obstacle(state, norm, target)
        if reason:
            notes.append(f"{norm.name} stays: {reason}")
            continue
        if not _fold_one(state, norm, target):
            notes.append(f"{norm.name} stays: its statistics give no finite weights")
            continue
        folded.append((norm.name, target.name))
        gone.append(place)
    for place in reversed(gone):
        del graph.node[place]
    return tuple(folded), tuple(notes)


class _Names:
    """Keep who writes and who reads each tensor, so that a model of thousands of layers is folded in one pass."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.initializers = {t.name: t for t in graph.initializer}
        self.outputs = {o.name for o in graph.output}
        self.producer = {o: n for n in graph.node for o in n.output if o}
        self.readers = Counter(name for n in graph.node for name in n.input)
        self.taken = {*self.initializers, *self.producer, *(i.name for i in graph.input)}

    def array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.initializers[name])

    def set_input(self, node: onnx.NodeProto, index: int, array: np.ndarray, name: str) -> None:
        """Write an initializer for one input of a node, under its old name when no other node reads it."""
        is_own = index < len(node.input) and node.input[index] == name and self.readers[name] == 1
        if not is_own:
            if index < len(node.input):
                self.readers[node.input[index]] -= 1
            base, count = name, 1
            while name in self.taken:
                name, count = f"{base}_folded{count if count > 1 else ''}", count + 1
            self.initializers[name] = self.graph.initializer.add()
            self.taken.add(name)
            self.readers[name] = 1
        self.initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if index < len(node.input):
            node.input[index] = name
        else:
            node.input.append(name)


def _obstacle(state: _Names, norm: onnx.NodeProto, target: onnx.NodeProto) -> str:
    """Tell why a BatchNormalization cannot be folded, or return an empty text."""
    if _number(norm, "training_mode", 0) or _number(norm, "spatial", 1) != 1 or any(norm.output[1:]):
        return "it is in training mode or normalises each place by itself"
    if state.readers[norm.input[0]] != 1 or norm.input[0] in state.outputs:
        return f"the output of {target.name} is used elsewhere too"
    needed = [*target.input[1:2], *norm.input[1:5], *[b for b in target.input[2:3] if b]]
    if len(norm.input) < 5 or len(target.input) < 2 or any(name not in state.initializers for name in needed):
        return "weights or statistics are not constant"
    channels = _channels(target, state.initializers[target.input[1]])
    if any(list(state.initializers[name].dims) != [channels] for name in norm.input[1:5]):
        return f"its {list(state.initializers[norm.input[1]].dims)} statistics do not fit {channels} channels"
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


def _fold_one(state: _Names, norm: onnx.NodeProto, target: onnx.NodeProto) -> bool:
    """Fold one BatchNormalization into its target; change nothing and return False where weights turn infinite."""
    scale, shift, mean, variance = (state.array(name).astype(np.float64) for name in norm.input[1:5])
    weight = state.array(target.input[1])
    bias_name = target.input[2] if len(target.input) > 2 and target.input[2] else ""
    with np.errstate(all="ignore"):
        gain = scale / np.sqrt(variance + _number(norm, "epsilon", 1e-5))
        old_bias = state.array(bias_name).astype(np.float64) if bias_name else np.zeros(())
        if target.op_type == "Gemm":
            old_bias = old_bias * _number(target, "beta", 1.0)
        new_weight = _scaled(target, weight.astype(np.float64), gain).astype(weight.dtype)
        new_bias = np.asarray((old_bias - mean) * gain + shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return False
    weight_name = target.input[1]
    state.set_input(target, 1, new_weight, weight_name)
    state.set_input(target, 2, new_bias, bias_name or f"{weight_name}_bias")
    for attribute in target.attribute:
        if attribute.name == "beta":
            attribute.f = 1.0
    target.output[0] = norm.output[0]
    state.producer[norm.output[0]] = target
    return True
