"""Constants: Constant nodes become initializers, and what depends on constants only is computed once."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from qstudio.graph.operators import constant_tensor
from qstudio.graph.opset import opset_of

_LARGEST_FOLDED_ELEMENTS = 1_000_000
_FOLDED = {
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Identity", "Concat", "Slice", "Gather", "Shape",
    "Size", "Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Exp", "Log", "Pow", "Reciprocal", "Abs", "Floor", "Ceil", "Min",
    "Max", "Equal", "Not", "And", "Or", "Where", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean",
    "Split", "ConstantOfShape", "Expand", "Tile", "Range", "CastLike", "Clip", "Tanh", "Sigmoid",
}  # fmt: skip
"""What is folded; Q and DQ are not, because a stored integer weight must stay one."""


def constants_to_initializers(graph: onnx.GraphProto) -> int:
    """Turn Constant nodes into initializers of the same name; return how many (sparse and text ones stay)."""
    kept: list[onnx.NodeProto] = []
    moved = 0
    for node in graph.node:
        tensor = constant_tensor(node) if node.op_type == "Constant" and node.domain in ("", "ai.onnx") else None
        if tensor is None:
            kept.append(node)
            continue
        graph.initializer.append(tensor)
        moved += 1
    if moved:
        del graph.node[:]
        graph.node.extend(kept)
    return moved


def fold_constants(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Compute nodes whose inputs are all initializers, in place; return the names of the nodes that went.

    Results larger than their inputs by more than a million elements are not stored. The result keeps the tensor's name,
    so that a weight that was reshaped or transposed before use is known by the name its layer reads.
    """
    graph = proto.graph
    values = {t.name: t for t in graph.initializer}
    outputs = {o.name for o in graph.output}
    folded: list[str] = []
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        results = None
        if _is_candidate(node, values) and not outputs & set(node.output):
            results = _evaluate(node, values, opset_of(proto))
        if results is None:
            kept.append(node)
            continue
        for name, array in zip(node.output, results, strict=True):
            if name:
                tensor = numpy_helper.from_array(array, name)
                graph.initializer.append(tensor)
                values[name] = tensor
        folded.append(node.name or node.output[0])
    if folded:
        del graph.node[:]
        graph.node.extend(kept)
    return tuple(folded)


def remove_unused_initializers(graph: onnx.GraphProto, candidates: set[str]) -> None:
    """Drop those of the candidates that no node and no output reads any more."""
    from qstudio.graph.structure import needed_names

    read = {name for node in graph.node for name in needed_names(node)} | {o.name for o in graph.output}
    kept = [t for t in graph.initializer if t.name in read or t.name not in candidates]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _is_candidate(node: onnx.NodeProto, values: dict[str, onnx.TensorProto]) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in _FOLDED or not node.input:
        return False
    if any(name and name not in values for name in node.input):
        return False
    return all(values[name].data_type != onnx.TensorProto.STRING for name in node.input if name)


def _evaluate(node: onnx.NodeProto, values: dict[str, onnx.TensorProto], opset: int) -> list[np.ndarray] | None:
    """Run one node with onnx's reference implementation; None when it cannot or should not be folded."""
    try:
        arrays = {name: numpy_helper.to_array(values[name]) for name in node.input if name}
        if _result_elements(node, arrays) > _LARGEST_FOLDED_ELEMENTS + sum(a.size for a in arrays.values()):
            return None
        inputs = [onnx.helper.make_tensor_value_info(n, values[n].data_type, list(a.shape)) for n, a in arrays.items()]
        wanted = [name for name in node.output if name]
        graph = onnx.helper.make_graph([node], "fold", inputs, [onnx.ValueInfoProto(name=n) for n in wanted])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        results = dict(zip(wanted, ReferenceEvaluator(model).run(None, arrays), strict=True))
    except Exception:
        # Folding is a convenience: what the reference cannot compute stays a node, and is judged when it is translated.
        return None
    if any(not isinstance(r, np.ndarray) for r in results.values()):
        return None
    return [results.get(name, np.zeros(0)) for name in node.output]


def _result_elements(node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> int:
    """Bound the number of elements that a node would make, before it makes them."""
    given = [arrays[name] for name in node.input if name]
    if node.op_type == "ConstantOfShape":
        return math.prod(int(v) for v in given[0].reshape(-1))
    if node.op_type == "Expand":
        return max(given[0].size, 1) * math.prod(max(int(v), 1) for v in given[1].reshape(-1))
    if node.op_type == "Tile":
        return given[0].size * math.prod(max(int(v), 0) for v in given[1].reshape(-1))
    if node.op_type == "Range":
        start, limit, delta = (float(v.reshape(-1)[0]) for v in given[:3])
        return int(abs(limit - start) / max(abs(delta), 1e-12)) + 1
    if node.op_type == "Gather":
        row = given[0].size // max(1, min(given[0].shape or (1,)))
        return given[1].size * row
    if node.op_type in ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Equal", "And", "Or", "Where"):
        return math.prod(np.broadcast_shapes(*[a.shape for a in given]))
    return sum(a.size for a in given)
