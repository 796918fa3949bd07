"""SmoothQuant: move the outliers of a normalised tensor into the weights of the products that read it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from qstudio.core.graph_types import GraphNode
from qstudio.quant.evaluate import feeds
from qstudio.quant.network import Network
from qstudio.quant.refine.channels import WeightLayout
from qstudio.quant.refine.edited import initializer_users, remade, with_values
from qstudio.quant.refine.task import Task

Array = NDArray[np.float64]

_SMALLEST = 1e-5
"""Of a scale, as in the authors' code."""


@dataclass(frozen=True)
class SmoothPlace:
    """A tensor whose channels can be rescaled exactly.

    Attributes:
        tensor: What the products read; channels are its last axis.
        gains: Initializers [C] that are divided: LayerNormalization's scale, or a Mul's constant; and offsets behind.
        products: The nodes that read it, all with weights of their own.
    """

    tensor: str
    gains: tuple[str, ...]
    products: tuple[GraphNode, ...]


def smoothquant(network: Network, task: Task) -> Network:
    """Divide channels by s before a product and multiply its weight's rows, so that both are easier to round.

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) over calibration samples and all products that read X (Xiao et al.,
    SmoothQuant, 2023, eq. 4). Only where the division goes into LayerNormalization's scale and bias, or into the
    constants of a Mul and Add that scale each channel, so that no operator is added and the function stays the same.

    Returns:
        The network; the given one with a note where there is no such place.

    Raises:
        JobCancelled: The run was stopped.
    """
    places = smooth_places(network)
    if not places:
        return remade(network, network.proto, "SmoothQuant found no normalised tensor in front of products.")
    reach = _reach(network, task, {place.tensor for place in places})
    alpha = task.settings["alpha"]
    values: dict[str, NDArray[np.floating]] = {}
    for place in places:
        layouts = [WeightLayout.of(node) for node in place.products]
        weights = [np.asarray(network.value(node.inputs[1]), np.float64) for node in place.products]
        rows = [np.abs(shape.inputs_first(weight)).max(axis=1) for shape, weight in zip(layouts, weights, strict=True)]
        largest = np.maximum(np.max(rows, axis=0), _SMALLEST)
        x = reach[place.tensor]
        s = np.maximum(np.maximum(x, _SMALLEST) ** alpha / largest ** (1.0 - alpha), _SMALLEST)
        s = np.where(x > 0, s, 1.0)
        for name in place.gains:
            values[name] = network.value(name) / s
        for node, shape, weight in zip(place.products, layouts, weights, strict=True):
            values[node.inputs[1]] = shape.scale_inputs(weight, s)
    return with_values(network, values, f"SmoothQuant rescaled the channels of {len(places)} tensors.")


def smooth_places(network: Network) -> tuple[SmoothPlace, ...]:
    """Return the tensors that can be smoothed, in running order."""
    description = network.description
    users = initializer_users(network.proto)
    consumers: dict[str, list[GraphNode]] = defaultdict(list)
    producer: dict[str, GraphNode] = {}
    for node in description.nodes:
        for name in node.outputs:
            producer[name] = node
        for name in node.inputs:
            if name:
                consumers[name].append(node)
    weights = {layer.name: layer.weight for layer in network.layers if layer.weight is not None}
    places = []
    for node in description.nodes:
        tensor = node.outputs[0] if node.outputs else ""
        readers = consumers.get(tensor, [])
        if not readers or tensor in description.outputs:
            continue
        gains = _gains(network, node, producer, consumers)
        if gains is None or any(users[name] != 1 for name in gains):
            continue
        fits = True
        for reader in readers:
            site = weights.get(reader.name)
            fits = fits and site is not None and reader.op_type in ("MatMul", "Gemm")
            fits = fits and reader.inputs[0] == tensor and reader.inputs[1:2] == (site.id if site else "",)
            fits = fits and site is not None and len(site.shape) == 2 and users[site.id] == 1
            fits = fits and dict(reader.attributes).get("transA", "0") == "0"
        if fits:
            places.append(SmoothPlace(tensor, gains, tuple(readers)))
    return tuple(places)


def _gains(
    network: Network, node: GraphNode, producer: dict[str, GraphNode], consumers: dict[str, list[GraphNode]]
) -> tuple[str, ...] | None:
    """Return the constants [C] whose division by s divides the node's output by s; None where there are none."""
    if node.domain:
        return None
    if node.op_type == "LayerNormalization":
        if dict(node.attributes).get("axis", "-1") != "-1" or len([o for o in node.outputs if o]) > 1:
            return None
        names = tuple(name for name in node.inputs[1:3] if name)
        return names if names and all(_is_vector(network, name) for name in names) else None
    if node.op_type == "Mul":
        found = _vector_operand(network, node)
        return None if found is None else (found[0],)
    if node.op_type == "Add":
        found = _vector_operand(network, node)
        if found is None or found[1] not in producer or len(consumers[found[1]]) != 1:
            return None
        if found[1] in network.description.outputs or producer[found[1]].op_type != "Mul":
            return None
        inner = _gains(network, producer[found[1]], producer, consumers)
        return None if inner is None else (*inner, found[0])
    return None


def _vector_operand(network: Network, node: GraphNode) -> tuple[str, str] | None:
    """Return (constant [C], the other operand) of a Mul or Add over the last axis."""
    for at in (0, 1):
        if _is_vector(network, node.inputs[at]) and node.inputs[1 - at] not in network.description.initializers:
            other = network.description.tensors.get(node.inputs[1 - at])
            constant = network.description.tensors[node.inputs[at]]
            if other is not None and other.shape and constant.shape and other.shape[-1] == constant.shape[0]:
                return node.inputs[at], node.inputs[1 - at]
    return None


def _is_vector(network: Network, name: str) -> bool:
    info = network.description.tensors.get(name)
    return (
        name in network.description.initializers
        and info is not None
        and info.shape is not None
        and len(info.shape) == 1
        and info.dtype in ("float", "float16", "double")
    )


def _reach(network: Network, task: Task, tensors: set[str]) -> dict[str, Array]:
    """Return max|X_j| of the tensors' last axis over the calibration samples."""
    reach: dict[str, Array] = {}
    done = 0
    with network.executor.evaluating():
        for batch, inputs, _ in feeds(network, task.split, task.indices):
            task.ctx.report(done, len(task.indices), "SmoothQuant: looking at activations")
            samples = len(batch.indices)

            def look(tensor: str, values: torch.Tensor, samples: int = samples) -> None:
                if tensor in tensors:
                    largest = values[:samples].abs().flatten(0, -2).amax(0).double().cpu().numpy()
                    reach[tensor] = np.maximum(reach[tensor], largest) if tensor in reach else largest

            network.executor.run(inputs, observe=look)
            done += samples
    return reach
