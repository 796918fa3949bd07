"""Bit operations and average bits of a model under a recipe, from its description alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import LayerSettings
from qstudio.core.scheme import FLOAT_BITS

Settings = Callable[[str], LayerSettings]
"""A layer's settings by its name."""


def average_bits(model: ModelInfo, settings: Settings) -> float | None:
    """Return the mean bits of a weight, over all weights of the model; None where there is none.

    A weight that several layers share counts once, with the bits of the layer that owns it; a float one has 32.
    """
    total = bits = 0
    seen: set[str] = set()
    for layer in model.layers:
        if layer.weight is None or layer.weight.id in seen:
            continue
        seen.add(layer.weight.id)
        count = math.prod(int(n or 1) for n in layer.weight.shape)
        total += count
        bits += count * settings(layer.weight.layer).weight_scheme().bits
    return bits / total if total else None


def bit_operations(model: ModelInfo, settings: Settings) -> float:
    """Return the bit operations of one sample: of each layer its MACs x bits of its weight x bits of what it reads.

    Of a product of two activations the bits of both count; a float side has 32 (HAWQ-V3, Yao et al., 2021, section
    3.3). The same figure as `qstudio.quant.search.costs` gives the search.
    """
    site_of = {
        member: layer.activation.layer
        for layer in model.layers
        if layer.activation
        for member in layer.activation.members
    }
    nodes = {node.name: node for node in model.graph.nodes}
    total = 0.0
    for layer in model.layers:
        if not layer.macs or layer.name not in nodes:
            continue
        widths = _widths_read(layer, nodes[layer.name].inputs, site_of, settings)
        if layer.weight is not None:
            total += float(layer.macs) * settings(layer.name).weight_scheme().bits * max(widths)
        else:
            total += float(layer.macs) * widths[0] * widths[-1]
    return total


def _widths_read(
    layer: LayerInfo, inputs: tuple[str, ...], site_of: dict[str, str], settings: Settings
) -> tuple[int, ...]:
    constants = {site.id for site in (layer.weight, layer.bias) if site is not None}
    data = [name for name in inputs if name and name not in constants]
    if layer.weight is not None:
        data = data[:1]
    owners = dict.fromkeys(site_of[name] for name in data if name in site_of)
    return tuple(settings(owner).activation_scheme().bits for owner in owners) or (FLOAT_BITS,)
