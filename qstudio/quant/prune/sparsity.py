"""What pruning left: zeros that must stay zero, sparsity by layer, bytes of a sparse format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.pruning import Pruning, parse_pruning, prunes
from qstudio.core.recipe import Recipe
from qstudio.core.results import LayerResult
from qstudio.core.size import sparse_saving_bytes
from qstudio.quant.network import Network
from qstudio.quant.prune.choose import listed
from qstudio.quant.refine.task import Refined
from qstudio.quant.simulate import SimulatedModel


def single_prunings(network: Network, recipe: Recipe) -> dict[str, Pruning]:
    """Return what is asked of weights of which single values become zero, by initializer."""
    found: dict[str, Pruning] = {}
    for layer in network.layers:
        asked = parse_pruning(recipe.settings(layer.name).pruning)
        if layer.weight is not None and asked is not None and not asked.structured and asked.percent > 0:
            found.setdefault(layer.weight.id, asked)
    return found


def nonzero_masks(network: Network, recipe: Recipe) -> dict[str, NDArray[np.bool_]]:
    """Return which values of the weights with pruned single values are not zero, by initializer."""
    return {name: network.value(name) != 0 for name in single_prunings(network, recipe)}


def with_zeros_kept(network: Network, recipe: Recipe, refined: Refined) -> Refined:
    """Return refined weights in which what was pruned is zero again: rounding may have been learned to fill it.

    Args:
        network: The pruned network that was refined.
        recipe: Its prunings.
        refined: From the refinements after calibration.
    """
    masks = nonzero_masks(network, recipe)
    values = {
        name: np.where(masks[name], value, np.float32(0)) if name in masks else value
        for name, value in refined.weight_values.items()
    }
    return replace(refined, weight_values=values)


def with_sparsity(
    layers: tuple[LayerResult, ...], original: Network, simulated: SimulatedModel, recipe: Recipe
) -> tuple[LayerResult, ...]:
    """Return layers with the percentage of their original weights that is removed or zero, where the recipe prunes.

    Zeros that rounding made are not counted.

    Args:
        layers: Of the simulated model.
        original: The network before pruning.
        simulated: After it.
        recipe: Its prunings.
    """
    if not prunes(recipe):
        return layers
    before = {layer.name: layer.weight.shape for layer in original.layers if layer.weight is not None}
    sites = {layer.name: layer.weight.id for layer in simulated.network.layers if layer.weight is not None}
    found = []
    for layer in layers:
        if layer.name in sites and layer.name in before:
            total = int(np.prod([size or 1 for size in before[layer.name]]))
            left = int(np.count_nonzero(simulated.float_value(sites[layer.name])))
            layer = replace(layer, sparsity=100.0 * (1.0 - left / max(total, 1)))
        found.append(layer)
    return tuple(found)


def sparse_saving(simulated: SimulatedModel, recipe: Recipe) -> int | None:
    """Return the bytes that a sparse format would save on the weights with pruned single values; None without any.

    Codes that rounding made zero are left out as well. A weight that would grow is stored as it is.
    """
    sites = {layer.weight.id: layer.weight for layer in simulated.network.layers if layer.weight is not None}
    pruned = single_prunings(simulated.network, recipe)
    saved = 0
    for name in pruned:
        rounded = simulated.rounded_weight(name)
        scheme = recipe.settings(sites[name].layer).weight_scheme()
        saved += sparse_saving_bytes(rounded.size, int(np.count_nonzero(rounded)), scheme)
    return saved if pruned else None


def whole_sparsity(
    original: Network, simulated: SimulatedModel, recipe: Recipe
) -> tuple[float | None, tuple[str, ...]]:
    """Return the percentage of all original weights that is removed or zero, None where nothing is pruned, and notes.

    The notes say in words what pruning took away, and what of it does not stay away.

    Args:
        original: The network before pruning.
        simulated: After it.
        recipe: Its prunings.
    """
    if not prunes(recipe):
        return None, ()
    total = max(sum(original.value(site.id).size for site in original.weight_sites), 1)
    weights = [simulated.float_value(site.id) for site in simulated.network.weight_sites]
    left, stay = sum(weight.size for weight in weights), sum(int(np.count_nonzero(weight)) for weight in weights)
    summary = (
        f"of {total:,} weights pruning removed {100 * (total - left) / total:.1f} % with their filters"
        f" and left {100 * (left - stay) / total:.1f} % zero"
    )
    return 100.0 * (total - stay) / total, (summary, *lost_zeros(simulated, recipe))


def lost_zeros(simulated: SimulatedModel, recipe: Recipe) -> tuple[str, ...]:
    """Return a sentence on the layers whose format has no zero, so that pruned weights do not stay what they are."""
    names = {layer.weight.id: layer.name for layer in simulated.network.layers if layer.weight is not None}
    lost = [
        names[name]
        for name in single_prunings(simulated.network, recipe)
        if np.any(simulated.rounded_weight(name)[simulated.float_value(name) == 0])
    ]
    if not lost:
        return ()
    return (f"zero is not a value of the weight format of {listed(lost)}: pruned weights do not stay zero there",)
