"""Networks with other parameters: what refinements before calibration make."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qstudio.quant.network import Network

_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")


def with_values(network: Network, values: Mapping[str, NDArray[np.floating]], note: str = "") -> Network:
    """Return the network with initializers replaced, in their own type.

    Args:
        network: Not changed.
        values: New values by initializer.
        note: Added to the network's notes.
    """
    proto = _copied(network.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            dtype = numpy_helper.to_array(tensor).dtype
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name], dtype), tensor.name))
    return remade(network, proto, note)


def with_biases(network: Network) -> Network:
    """Return the network with a bias of zeros in every Conv, ConvTranspose and Gemm that has none.

    A MatMul has no place for one. The function stays the same to the last bit but for the sign of zeros.
    """
    wanted = {layer.name for layer in network.layers if layer.weight is not None and layer.bias is None}
    proto = _copied(network.proto)
    constants = {tensor.name for tensor in proto.graph.initializer}
    axes = {layer.name: layer.weight for layer in network.layers if layer.weight is not None}
    added = 0
    for node in proto.graph.node:
        if node.name not in wanted or node.op_type not in _WITH_BIAS or node.domain:
            continue
        if (len(node.input) > 2 and node.input[2]) or node.input[1] not in constants:
            continue
        site = axes[node.name]
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        channels = None if site.channel_axis is None else site.shape[site.channel_axis]
        if channels is None:
            continue
        name = f"{node.input[1]}_added_bias"
        while name in constants:
            name += "_"
        constants.add(name)
        count = channels * (groups if node.op_type == "ConvTranspose" else 1)
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(count, np.float32), name))
        del node.input[2:]
        node.input.append(name)
        added += 1
    if not added:
        return network
    return remade(network, proto, f"{added} layers without a bias were given one.")


def remade(network: Network, proto: onnx.ModelProto, note: str = "") -> Network:
    """Return a network of an edited model on the same device, with a content hash of its own."""
    digest = hashlib.sha256(network.sha256.encode() + proto.SerializeToString(deterministic=True)).hexdigest()
    return Network(proto, digest, network.device, (*network.notes, *((note,) if note else ())))


def initializer_users(proto: onnx.ModelProto) -> Counter[str]:
    """Return how often each initializer is read."""
    return Counter(name for node in proto.graph.node for name in node.input)


def _copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
