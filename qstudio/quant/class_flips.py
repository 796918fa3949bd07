"""The layer at which a sample's class flips: everything up to a layer simulated, the rest float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from qstudio.core.context import JobContext
from qstudio.core.model_info import LayerInfo
from qstudio.quant.executor import Parameters
from qstudio.quant.network import Network

FLIP_LAYERS = 200
"""Layers after which the class is looked at; of deeper networks so many, evenly spaced, and those around the flip."""

Values = dict[fx.Node, Any]
"""The value of every node."""


@dataclass(frozen=True)
class Flips:
    """Where a class flips."""

    changed: tuple[bool, ...]
    """For each layer whether the class is not the float one when everything up to it is simulated."""
    at: str = ""
    """First layer from which on the class stays the quantized one; empty where that is the float one."""
    notes: tuple[str, ...] = ()


def find_flips(
    network: Network,
    layers: Sequence[str],
    floats: Values,
    quantized: Values,
    parameters: Parameters,
    ctx: JobContext,
) -> Flips:
    """Return where the class of one sample flips, from the kept values of two runs.

    Only what follows a layer runs: all of it together costs about half a float run for each layer.

    Args:
        network: That ran.
        layers: Names of the layers that are looked at, in topological order; the last one ends the network.
        floats: Value of every node, float.
        quantized: Value of every node, simulated.
        parameters: Of the float run.
        ctx: Told the progress; stops between layers.

    Raises:
        JobCancelled: Asked to stop.
    """
    owners = step_owners(network)
    order = {layer.name: place for place, layer in enumerate(network.layers)}
    float_class, final = (int(first_scores(network, values).argmax()) for values in (floats, quantized))
    known: dict[int, int] = {}

    def look(rows: Sequence[int]) -> None:
        for done, row in enumerate(rows):
            ctx.report(done, len(rows), "Looking for the layer at which the class flips")
            if row not in known:
                scores = _float_from(network, owners, order[layers[row]], floats, quantized, parameters)
                known[row] = int(scores.argmax())

    count = len(layers)
    notes: tuple[str, ...] = ()
    if count <= FLIP_LAYERS:
        look(range(count))
    else:
        looked = np.unique(np.linspace(0, count - 1, FLIP_LAYERS).round().astype(int)).tolist()
        look(looked)
        if float_class != final:
            place = looked.index(_first_final(known, final))
            look(range(looked[place - 1] + 1 if place else 0, looked[place]))
        notes = (f"The class was looked at after {len(known):,} of {count:,} layers",)
    changed = tuple(known.get(row, float_class) != float_class for row in range(count))
    return Flips(changed, layers[_first_final(known, final)] if float_class != final else "", notes)


def _first_final(known: Mapping[int, int], final: int) -> int:
    """Return the first row from which on every known class is the final one; the last row at least has it."""
    first = max(known)
    for row in sorted(known, reverse=True):
        if known[row] != final:
            break
        first = row
    return first


def step_owners(network: Network) -> dict[fx.Node, int | None]:
    """Return which layer each step belongs to, as a place in `network.layers`; None for constants.

    A layer's own steps and those of its fused activation are its own; any other step belongs to the last layer that it
    reads of. Everything that is simulated "up to layer k" are the steps of layers 0..k.
    """
    rows = {layer.name: place for place, layer in enumerate(network.layers)}
    fused = {output_tensor(network, layer): place for place, layer in enumerate(network.layers)}
    owners: dict[fx.Node, int | None] = {}
    for step in network.executor.steps:
        read = [owner for used in step.node.all_input_nodes if (owner := owners[used]) is not None]
        own = rows.get(step.onnx_node, fused.get(step.tensor)) if step.onnx_node or step.tensor else None
        if step.node.op == "placeholder":
            owners[step.node] = rows.get(step.tensor, 0)
        elif step.node.op == "get_attr" or not read:
            owners[step.node] = None
        else:
            owners[step.node] = max([*read, *([] if own is None else [own])])
    return owners


def output_tensor(network: Network, layer: LayerInfo) -> str:
    """Return the tensor that a layer puts out, after a fused Relu or Clip; empty where it has none."""
    description = network.description
    if layer.op_type == "Input":
        return layer.name
    node = next((node for node in description.nodes if node.name == layer.name), None)
    tensor = next((name for name in node.outputs if name), "") if node is not None else ""
    if layer.activation is not None and layer.activation.id != tensor:
        readers = [other for other in description.nodes if tensor in other.inputs]
        if len(readers) == 1 and layer.activation.id in readers[0].outputs:
            return layer.activation.id
    return tensor


def _float_from(
    network: Network,
    owners: Mapping[fx.Node, int | None],
    place: int,
    floats: Values,
    quantized: Values,
    parameters: Parameters,
) -> NDArray[np.float32]:
    """Return the scores with layers 0..place simulated and the rest float."""
    executor = network.executor
    values: Values = {}
    for step in executor.steps:
        node, owner = step.node, owners[step.node]
        if owner is None:
            values[node] = floats[node]
        elif owner <= place and node.op != "output":
            values[node] = quantized[node]
        else:
            values[node] = executor.execute(step, values, parameters)
    return first_scores(network, values)


def first_scores(network: Network, values: Values) -> NDArray[np.float32]:
    """Return the sample's first output as [K], further axes flattened."""
    (output,) = (step.node for step in network.executor.steps if step.node.op == "output")
    first: Tensor = values[output][0]
    row = first[:1] if first.dim() else first
    return np.array(row.reshape(-1).float().cpu().numpy(), np.float32, copy=True)
