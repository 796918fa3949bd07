"""Take channels and single weights out of a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qstudio.graph.constants import remove_unused_initializers
from qstudio.quant.prune.channels import ChannelMap, Labels


def remove_channels(proto: onnx.ModelProto, channels: ChannelMap, gone: Collection[int]) -> onnx.ModelProto:
    """Return a copy of a model without some channels.

    Every place of every initializer that belongs to them goes: filters and their biases, the parameters of
    normalizations, the inputs of whoever reads them. The copy computes what the model would if these channels were 0
    wherever they are read.

    Args:
        proto: The model that `channels` was traced on; not changed.
        channels: Its channels.
        gone: Classes of channels (roots).
    """
    dead = np.zeros(channels.count, bool)
    dead[list(gone)] = True

    def kept(labels: Labels) -> NDArray[np.intp]:
        return np.flatnonzero(~dead[channels.roots(labels)])

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]  # shapes are others now
    node_of = {before.name: node for before, node in zip(proto.graph.node, copy.graph.node, strict=True)}
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    for cut in channels.slices.values():
        keep = kept(cut.labels)
        if len(keep) < len(cut.labels):
            values = numpy_helper.to_array(tensors[cut.initializer]).take(keep, cut.axis)
            tensors[cut.initializer].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), cut.initializer))
    for node, labels in channels.groups:
        for attribute in node_of[node.name].attribute:
            if attribute.name == "group":
                attribute.i = len(kept(labels))
    read = {name for node in copy.graph.node for name in node.input}
    for node, place, labels in channels.pads:
        _rewrite(copy.graph, node_of[node.name], tensors, place, len(kept(labels)))
    for node, labels in channels.flattened:
        if int(numpy_helper.to_array(tensors[node.input[1]])[1]) > 0:
            _rewrite(copy.graph, node_of[node.name], tensors, 1, len(kept(labels)))
    remove_unused_initializers(copy.graph, read)
    return copy


def _rewrite(
    graph: onnx.GraphProto, node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], place: int, value: int
) -> None:
    """Write one number of a node's constant second input, as a constant of its own: others may read the old one."""
    values = np.array(numpy_helper.to_array(tensors[node.input[1]]))
    if int(values[place]) == value:
        return
    values[place] = value
    name = f"{node.name}_pruned"
    if name not in tensors:
        tensors[name] = graph.initializer.add()
    tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    node.input[1] = name


def zero_weights(proto: onnx.ModelProto, masks: Mapping[str, NDArray[np.bool_]]) -> onnx.ModelProto:
    """Return a copy of a model in which single weights are 0.

    Args:
        proto: The model; not changed.
        masks: By initializer, false where a weight becomes 0.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in masks:
            values = numpy_helper.to_array(tensor)
            zeroed = np.where(masks[tensor.name], values, np.zeros((), values.dtype))
            tensor.CopyFrom(numpy_helper.from_array(zeroed, tensor.name))
    return copy
