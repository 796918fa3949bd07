"""Fold a constant that is added per channel into the Conv, ConvTranspose or MatMul before it, as its bias."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from qstudio.graph.shapes import infer_tensors


def fold_added_bias(model: onnx.ModelProto) -> tuple[str, ...]:
    """Make `Conv + Add(constant)` a Conv with bias and `MatMul + Add(constant)` a Gemm, in place.

    Old exporters (CNTK, Keras) write biases as an Add. Only as an operand of the layer itself can a bias be added to
    the int32 accumulator; onnxruntime fuses the same pairs in float models. The layer keeps its name and writes the
    tensor that the Add wrote; the bias keeps its name where no other node reads it. A MatMul is changed only where its
    operands are matrices.

    Returns:
        A sentence for each Add that was folded.
    """
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    candidates = [n for n in graph.node if n.op_type == "Add" and any(i in constants for i in n.input)]
    if not candidates:
        return ()
    tensors = infer_tensors(model)
    outputs = {o.name for o in graph.output}
    producer = {o: n for n in graph.node for o in n.output if o}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    notes = []
    for add in candidates:
        data, constant = (add.input[1], add.input[0]) if add.input[0] in constants else (add.input[0], add.input[1])
        layer = producer.get(data)
        if layer is None or constant not in constants or readers[data] != 1 or data in outputs:
            continue
        if len(layer.input) < 2 or layer.input[1] not in constants or any(layer.input[2:]):
            continue
        channels = _channels(layer, list(constants[layer.input[1]].dims))
        info = tensors.get(data)
        rank = len(info.shape) if info is not None and info.shape is not None else 0
        if layer.op_type == "MatMul" and rank != 2:
            continue
        values = _per_channel(numpy_helper.to_array(constants[constant]), channels, rank, layer.op_type)
        if values is None:
            continue
        name = constant
        if readers[constant] == 1 and constant not in outputs:
            constants[constant].CopyFrom(numpy_helper.from_array(values, constant))
        else:
            name = f"{layer.output[0]}_bias"
            while name in constants or name in producer:
                name += "_"
            graph.initializer.append(numpy_helper.from_array(values, name))
        del layer.input[2:]
        layer.input.append(name)
        if layer.op_type == "MatMul":
            layer.op_type = "Gemm"
        layer.output[0] = add.output[0]
        graph.node.remove(add)
        producer[layer.output[0]] = layer
        notes.append(f"the constant added by {add.name} became the bias of {layer.name}")
    return tuple(notes)


def _channels(layer: onnx.NodeProto, shape: list[int]) -> int:
    """Return the output channels of a layer that can take a bias; 0 for any other operator."""
    if layer.domain not in ("", "ai.onnx") or len(shape) < 2:
        return 0
    if layer.op_type == "Conv":
        return shape[0]
    if layer.op_type == "ConvTranspose":
        group = next((a.i for a in layer.attribute if a.name == "group"), 1)
        return shape[1] * group
    return shape[-1] if layer.op_type == "MatMul" and len(shape) == 2 else 0


def _per_channel(values: np.ndarray, channels: int, rank: int, op_type: str) -> np.ndarray | None:
    """Return one value per channel as [C], or None where the constant varies along another axis."""
    axis = 1 if op_type != "MatMul" else rank - 1
    if not channels or not rank or values.ndim > rank or values.dtype not in (np.float32, np.float16, np.float64):
        return None
    shape = [1] * (rank - values.ndim) + list(values.shape)
    if any(size != 1 for i, size in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (channels,)))
