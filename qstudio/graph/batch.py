"""Free the batch size of a model that was exported with a fixed one."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from qstudio.core.errors import UserError
from qstudio.graph.to_torch import Translated, run, to_torch

_TRIAL_BATCH = 3
_TOLERANCE = 1e-4


def has_fixed_batch(proto: onnx.ModelProto) -> bool:
    """Tell whether every input fixes its first axis to 1."""
    constants = {t.name for t in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in constants]
    sizes = [i.type.tensor_type.shape.dim for i in inputs]
    return bool(sizes) and all(
        len(s) > 1 and s[0].WhichOneof("value") == "dim_value" and s[0].dim_value == 1 for s in sizes
    )


def with_dynamic_batch(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a copy whose batch axis is free, or None where the model does not work on batches.

    Inputs and outputs get a symbolic first axis, and a Reshape to a constant shape that begins with 1 begins with -1
    instead (where no other size is inferred already). That this is right is not assumed but tried: three random
    samples at once must give what they give one by one (within 1e-4 of the largest magnitude).

    Args:
        proto: A model, usually from `prepare`; it is not changed.
    """
    if not has_fixed_batch(proto):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    constants = {t.name: t for t in graph.initializer}
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.name not in constants and len(sizes) and sizes[0].dim_value == 1:
            sizes[0].dim_param = "batch"
    del graph.value_info[:]
    for node in graph.node:
        if node.op_type == "Reshape" and len(node.input) > 1 and node.input[1] in constants:
            _free_reshape(graph, node, constants)
    return copy if _agrees(proto, copy) else None


def _free_reshape(graph: onnx.GraphProto, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    shape = numpy_helper.to_array(constants[node.input[1]])
    if node.input[0] in constants or shape.ndim != 1 or len(shape) < 2 or shape[0] != 1 or -1 in shape:
        return
    name = f"{node.input[1]}_batch"
    if name not in constants:
        freed = np.array([-1, *shape[1:]], dtype=np.int64)
        constants[name] = numpy_helper.from_array(freed, name)
        graph.initializer.append(constants[name])
    node.input[1] = name


def _agrees(fixed: onnx.ModelProto, freed: onnx.ModelProto) -> bool:
    """Compare three samples at once with the same three one by one."""
    try:
        one, many = to_torch(fixed), to_torch(freed)
        feeds = _random_feeds(fixed, one)
        together = run(many, feeds)
        for place in range(_TRIAL_BATCH):
            alone = run(one, {name: value[place : place + 1] for name, value in feeds.items()})
            for name, value in alone.items():
                batch = together[name]
                if not value.is_floating_point() or batch.shape != (_TRIAL_BATCH, *value.shape[1:]):
                    return False
                limit = _TOLERANCE * max(float(value.abs().max()), 1e-12)
                if not bool(((batch[place : place + 1] - value).abs() <= limit).all()):
                    return False
    except (UserError, RuntimeError, ValueError, IndexError, TypeError):
        # A model that cannot be run on three samples keeps its batch of one.
        return False
    return True


def _random_feeds(proto: onnx.ModelProto, translated: Translated) -> dict[str, torch.Tensor]:
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input}
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand([_TRIAL_BATCH, *shapes[n][1:]], generator=generator) for n in translated.inputs}
