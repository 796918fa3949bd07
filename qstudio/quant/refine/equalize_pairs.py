"""Find pairs of layers between which channels can be rescaled without changing the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qstudio.core.graph_types import GraphNode
from qstudio.quant.network import Network
from qstudio.quant.refine.edited import initializer_users

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCALING = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Dropout")
"""f(s x) = s f(x) for every s > 0, channel by channel."""


@dataclass(frozen=True)
class Pair:
    """Two layers in a row; the outputs of the first are read by nothing else.

    Attributes:
        first: Its node.
        second: The node that reads it.
        between: Operators in between, in order.
        limit: (lowest, highest) value that a Clip in between lets through; None without one.
        clip: Name of the Clip.
        repeat: Columns of the second layer that each channel of the first has (a Flatten in between).
        padded: Whether the second layer pads what it reads with zeros.
    """

    first: GraphNode
    second: GraphNode
    between: tuple[str, ...]
    limit: tuple[float, float] | None = None
    clip: str = ""
    repeat: int = 1
    padded: bool = False


def equalizable_pairs(network: Network) -> tuple[Pair, ...]:
    """Return all pairs in running order; a chain of three layers gives two pairs that overlap.

    Weights and biases that several nodes share, and tensors read twice or put out by the model, are left alone.
    """
    description = network.description
    users = initializer_users(network.proto)
    consumers: dict[str, list[GraphNode]] = defaultdict(list)
    for node in description.nodes:
        for name in node.inputs:
            consumers[name].append(node)
    layers = {layer.name: layer for layer in network.layers if layer.weight is not None}

    def usable(node: GraphNode) -> bool:
        layer = layers.get(node.name)
        if layer is None or layer.weight is None or node.op_type not in _WEIGHTED or node.inputs[1] != layer.weight.id:
            return False
        if any(float(dict(node.attributes).get(key, "1.0")) != 1.0 for key in ("alpha", "beta")):
            return False
        if len(layer.weight.shape) < 2 or (node.op_type == "MatMul" and len(layer.weight.shape) != 2):
            return False
        return users[layer.weight.id] == 1 and (layer.bias is None or users[layer.bias.id] == 1)

    pairs = []
    for node in description.nodes:
        # A bias that is not a site (computed, or shared) cannot be rescaled with its layer.
        if usable(node) and (len(node.inputs) < 3 or not node.inputs[2] or layers[node.name].bias is not None):
            found = _follow(network, node, consumers, usable)
            if found is not None:
                pairs.append(found)
    return tuple(pairs)


def _follow(
    network: Network, first: GraphNode, consumers: Mapping[str, list[GraphNode]], usable: Callable[[GraphNode], bool]
) -> Pair | None:
    description = network.description
    constants = set(description.initializers)
    tensor = first.outputs[0]
    between: list[str] = []
    limit, clip, repeat = None, "", 1
    convolution = first.op_type in ("Conv", "ConvTranspose")
    while True:
        if tensor in description.outputs or len(consumers[tensor]) != 1:
            return None
        node = consumers[tensor][0]
        if usable(node) and node.inputs[0] == tensor:
            flat = node.op_type in ("Gemm", "MatMul")
            if flat == convolution and not (convolution and flat and "Flatten" in between):
                return None
            return Pair(first, node, tuple(between), limit, clip, repeat, _pads(node))
        if node.domain or node.inputs[0] != tensor:
            return None
        if node.op_type == "PRelu" and (node.inputs[1] not in constants):
            return None
        if node.op_type == "Clip":
            bounds = _clip_bounds(network, node)
            if bounds is None or limit is not None or bounds[0] > 0 or bounds[1] < 0:
                return None
            limit, clip = bounds, node.name
        elif node.op_type == "Flatten":
            shape = description.tensors[tensor].shape if tensor in description.tensors else None
            if not convolution or dict(node.attributes).get("axis", "1") != "1" or shape is None:
                return None
            if any(n is None for n in shape[2:]):
                return None
            for size in shape[2:]:
                repeat *= size or 1
        elif node.op_type not in _SCALING or (
            len(node.outputs) > 1 and any(consumers[o] for o in node.outputs[1:] if o)
        ):
            return None
        between.append(node.op_type)
        tensor = node.outputs[0]


def _clip_bounds(network: Network, node: GraphNode) -> tuple[float, float] | None:
    bounds = [float("-inf"), float("inf")]
    for index in (1, 2):
        if len(node.inputs) > index and node.inputs[index]:
            info = network.description.tensors.get(node.inputs[index])
            if info is None or info.value is None or node.inputs[index] not in network.description.initializers:
                return None
            bounds[index - 1] = info.value
    attributes = dict(node.attributes)
    bounds[0] = float(attributes.get("min", bounds[0]))
    bounds[1] = float(attributes.get("max", bounds[1]))
    return bounds[0], bounds[1]


def _pads(node: GraphNode) -> bool:
    attributes = dict(node.attributes)
    if node.op_type == "ConvTranspose":
        return True
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return True
    return any(c in "123456789" for c in attributes.get("pads", ""))
