"""How channels go through layers: convolutions, products, normalizations."""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from qstudio.quant.prune.tracer import Tracer, attribute


def follow_convolution(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a convolution: it makes new ones, unless it is depthwise and hands its own on."""
    weight = tracer.dims(node.input[1])
    if weight is None or len(weight) < 3:
        return False
    transposed = node.op_type == "ConvTranspose"
    group = attribute(node, "group", 1)
    known = tracer.of(node.input[0])
    inside = weight[0] if transposed else weight[1] * group
    outside = weight[1] * group if transposed else weight[0]
    if known is not None and (known.axis != 1 or len(known.labels) != inside):
        return False
    inputs = None if known is None else known.labels
    if group == 1:
        output_axis, input_axis = (1, 0) if transposed else (0, 1)
        return _layer(tracer, node, inputs, outside, output_axis, input_axis)
    if group == inside and not transposed and weight[1] == 1 and inputs is not None:
        labels = np.repeat(inputs, outside // inside)
        tracer.attach(node.input[1], 0, labels)
        _bias(tracer, node, labels)
        tracer.map.groups.append((node, inputs))
        tracer.map.add_layer(node, labels, 0, inputs, 0, passes=True)
        return tracer.put(node.output[0], 1, labels)
    labels = tracer.map.fresh(outside)
    tracer.map.fix(labels, f"{node.name} is a convolution in {group} groups")
    if inputs is not None:
        tracer.map.fix(inputs, f"{node.name}, which reads them, is a convolution in {group} groups")
    tracer.map.add_layer(node, labels, 1 if transposed else 0, inputs, 0)
    return tracer.put(node.output[0], 1, labels)


def _layer(
    tracer: Tracer,
    node: onnx.NodeProto,
    inputs: NDArray[np.int64] | None,
    outside: int,
    output_axis: int,
    input_axis: int,
    channel_axis: int = 1,
) -> bool:
    """Take down a layer each of whose outputs depends on all its inputs."""
    labels = tracer.map.fresh(outside)
    tracer.attach(node.input[1], output_axis, labels)
    if inputs is not None:
        tracer.attach(node.input[1], input_axis, inputs)
    _bias(tracer, node, labels)
    tracer.map.add_layer(node, labels, output_axis, inputs, input_axis)
    return tracer.put(node.output[0], channel_axis, labels)


def _bias(tracer: Tracer, node: onnx.NodeProto, labels: NDArray[np.int64]) -> None:
    if len(node.input) < 3 or not node.input[2]:
        return
    dims = tracer.dims(node.input[2])
    if dims is not None and dims and dims[-1] == len(labels) and math.prod(dims) == len(labels):
        tracer.attach(node.input[2], len(dims) - 1, labels)
    elif dims is None or math.prod(dims) != 1:
        tracer.map.fix(labels, f"the bias of {node.name} is not one number for each output")


def follow_gemm(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a Gemm whose second operand is constant."""
    weight = tracer.dims(node.input[1])
    known = tracer.of(node.input[0])
    if weight is None or len(weight) != 2 or attribute(node, "transA", 0):
        return False
    output_axis = 0 if attribute(node, "transB", 0) else 1
    if known is not None and (known.axis != 1 or len(known.labels) != weight[1 - output_axis]):
        return False
    inputs = None if known is None else known.labels
    return _layer(tracer, node, inputs, weight[output_axis], output_axis, 1 - output_axis)


def follow_matmul(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a product with a constant matrix, which reads them along the last axis."""
    weight, shape = tracer.dims(node.input[1]), tracer.shape(node.input[0])
    known = tracer.of(node.input[0])
    if weight is None or len(weight) != 2 or shape is None or len(shape) < 2:
        return False
    if known is not None and (known.axis != len(shape) - 1 or len(known.labels) != weight[0]):
        return False
    inputs = None if known is None else known.labels
    return _layer(tracer, node, inputs, weight[1], 1, 0, len(shape) - 1)


def follow_normalization(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a normalization that treats each by itself, with parameters for each."""
    channels = tracer.of(node.input[0])
    if channels is None:
        return True
    parameters = [name for name in node.input[1:] if name]
    if channels.axis != 1 or any(tracer.dims(name) != [len(channels.labels)] for name in parameters):
        return False
    if any(node.output[1:]):
        return False
    for name in parameters:
        tracer.attach(name, 0, channels.labels)
    return tracer.put(node.output[0], 1, channels.labels)
