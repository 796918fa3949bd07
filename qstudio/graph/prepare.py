"""Prepare a copy of a model for quantization; simulation and export both start from this copy."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import inliner, numpy_helper

from qstudio.core.errors import UserError
from qstudio.graph.constants import constants_to_initializers, fold_constants, remove_unused_initializers
from qstudio.graph.fold import fold_batchnorm as fold_batchnorm_nodes
from qstudio.graph.fold_bias import fold_added_bias
from qstudio.graph.opset import opset_of, raise_opset
from qstudio.graph.shapes import infer_tensors
from qstudio.graph.structure import needed_names, sorted_nodes

_QDQ_OPSET = 13


@dataclass(frozen=True)
class Prepared:
    """A model made ready.

    Attributes:
        proto: The edited copy.
        folded: (BatchNormalization, node it went into), in graph order.
        notes: Sentences on what was changed, or could not be.
    """

    proto: onnx.ModelProto
    folded: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def prepare(proto: onnx.ModelProto, *, fold_batchnorm: bool = True) -> Prepared:
    """Copy a model and bring it into the form that is simulated and exported.

    In this order: local functions inlined, operator set raised to 13, Constant nodes made initializers, initializers
    taken out of the graph inputs, nodes put in order and named, constant subexpressions and renaming Identities folded,
    ReduceMean over the spatial axes made a GlobalAveragePool (integer kernels exist for that only), constants added
    to a Conv's or MatMul's output made its bias, BatchNormalization folded. Every other node and name stays. Outputs
    equal the original's up to rounding.

    Args:
        proto: The model; it is not changed.
        fold_batchnorm: Fold BatchNormalization into the layer before it.

    Raises:
        UserError: when the graph is damaged.
    """
    try:
        return _prepared(proto, fold_batchnorm)
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        text = f"the model cannot be prepared ({type(error).__name__}: {reason})"
        raise UserError(text, proto.graph.name, "Check it with onnx.checker") from error


def _prepared(proto: onnx.ModelProto, fold_batchnorm: bool) -> Prepared:
    notes: list[str] = []
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    if model.functions:
        model = _inlined(model)
        notes.append(f"{len(proto.functions)} local functions were inlined")
    try:
        raised = raise_opset(model, _QDQ_OPSET)
        if raised is not model:
            notes.append(f"the operator set was raised from {opset_of(model)} to {opset_of(raised)}")
        model = raised
    except UserError as error:
        notes.append(error.sentence())
    graph = model.graph
    constants_to_initializers(graph)
    _drop_initializers_from_inputs(model)
    order = sorted_nodes(graph)
    if any(a is not b for a, b in zip(order, graph.node, strict=True)):
        ordered = [_copied(n) for n in order]
        del graph.node[:]
        graph.node.extend(ordered)
    name_nodes(graph)
    read_before = {name for node in graph.node for name in needed_names(node)}
    gone = fold_constants(model)
    gone += _remove_renames(graph)
    if gone:
        notes.append(
            f"{len(gone)} constant nodes were computed once: {', '.join(gone[:4])}{'...' if len(gone) > 4 else ''}"
        )
    pooled = _mean_to_pool(model)
    if pooled:
        notes.append(f"ReduceMean over height and width became GlobalAveragePool: {', '.join(pooled)}")
    biases = fold_added_bias(model)
    notes.extend(biases)
    folded: tuple[tuple[str, str], ...] = ()
    if fold_batchnorm:
        folded, stayed = fold_batchnorm_nodes(graph)
        notes.extend(stayed)
    remove_unused_initializers(graph, read_before | set(gone))
    if gone or pooled or biases or folded:
        _forget_stale_shapes(graph)
    return Prepared(model, folded, tuple(notes))


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        text = f"its local functions cannot be inlined ({(str(error).splitlines() or [''])[0][:120]})"
        raise UserError(text, model.graph.name, "Export the model without local functions") from error


def _drop_initializers_from_inputs(model: onnx.ModelProto) -> None:
    """Take initializers out of the inputs, where old files (IR below 4) list them and where they are not constant."""
    constants = {t.name for t in model.graph.initializer}
    kept = [i for i in model.graph.input if i.name not in constants]
    if len(kept) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a unique name, in place: the user's where there is one, else "OpType_output"."""
    taken: set[str] = set()
    wanted = [
        n.name or re.sub(r"\s+", "_", f"{n.op_type}_{next((o for o in n.output if o), 'none')}") for n in graph.node
    ]
    for node, base in zip(graph.node, wanted, strict=True):
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name


def _remove_renames(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Remove Identity nodes that only give an initializer a second name; return their names."""
    constants = {t.name for t in graph.initializer}
    outputs = {o.name for o in graph.output}
    gone: list[str] = []
    for node in [n for n in graph.node if n.op_type == "Identity"]:
        if node.input[0] not in constants or node.output[0] in outputs:
            continue
        for other in graph.node:
            for index, name in enumerate(other.input):
                if name == node.output[0]:
                    other.input[index] = node.input[0]
        graph.node.remove(node)
        gone.append(node.name)
    return tuple(gone)


def _reduced_axes(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[int] | None:
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in constants:
            return None
        return [int(a) for a in numpy_helper.to_array(constants[node.input[1]]).reshape(-1)]
    return next((list(a.ints) for a in node.attribute if a.name == "axes"), None)


def _mean_to_pool(model: onnx.ModelProto) -> tuple[str, ...]:
    """Turn ReduceMean over all spatial axes of a 4- or 5-dimensional tensor into GlobalAveragePool, in place."""
    graph = model.graph
    means = [n for n in graph.node if n.op_type == "ReduceMean"]
    if not means:
        return ()
    constants = {t.name: t for t in graph.initializer}
    tensors = infer_tensors(model)
    changed: list[str] = []
    for node in means:
        info, axes = tensors.get(node.input[0]), _reduced_axes(node, constants)
        if info is None or info.shape is None or len(info.shape) not in (4, 5) or not axes:
            continue
        rank = len(info.shape)
        if sorted(a % rank for a in axes) != list(range(2, rank)) or info.dtype not in ("float", "float16"):
            continue
        keepdims = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        source, result, name = node.input[0], node.output[0], node.name
        node.CopyFrom(onnx.helper.make_node("GlobalAveragePool", [source], [result], name))
        if not keepdims:
            pooled = _unused(graph, f"{result}_pooled")
            node.output[0] = pooled
            flatten = onnx.helper.make_node("Flatten", [pooled], [result], f"{name}_flatten", axis=1)
            graph.node.insert(list(graph.node).index(node) + 1, flatten)
        changed.append(name)
    return tuple(changed)


def _unused(graph: onnx.GraphProto, name: str) -> str:
    taken = {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    while name in taken:
        name += "_"
    return name


def _forget_stale_shapes(graph: onnx.GraphProto) -> None:
    """Drop declared shapes of tensors that are no longer written."""
    written = {o for n in graph.node for o in n.output}
    kept = [v for v in graph.value_info if v.name in written]
    if len(kept) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(kept)


def initializer_array(proto: onnx.ModelProto, name: str) -> np.ndarray:
    """Return a copy of an initializer's values.

    Raises:
        KeyError: when there is no initializer of that name.
    """
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            return np.array(numpy_helper.to_array(tensor))
    raise KeyError(name)
