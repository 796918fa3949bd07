"""The usual exception of mixed precision: the first and the last layer keep more bits than the rest."""

from __future__ import annotations

from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe


def with_first_last_bits(recipe: Recipe, model: ModelInfo, bits: int | str) -> Recipe:
    """Return a recipe whose first and last weighted layers use `bits` for their weights and for the tensors they read.

    As is usual where the bits of first and last layers are given (Choi et al., 2018, PACT): the network's input and
    what the last layer reads are widened along with the two weights; the network's outputs, which nothing reads,
    are too. Tensors that share another layer's encoding follow that layer.

    Raises:
        UserError: `bits` is not a bit width.
    """
    weighted = model.weighted_layers
    if not weighted:
        return recipe
    first, last = weighted[0], weighted[-1]
    tensors = {last.name, *last.inputs, *first.inputs}
    tensors |= {layer.name for layer in model.layers if layer.op_type == "Input"}
    names = {_owner(model, name) for name in tensors}
    owners = tuple(layer.name for layer in model.layers if layer.name in names and layer.activation is not None)
    return recipe.with_layers(owners, activation_bits=bits).with_layers((first.name, last.name), weight_bits=bits)


def _owner(model: ModelInfo, name: str) -> str:
    """Return the layer whose encoding a layer's output uses: itself, or the one it shares with."""
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        layer = model.layer(name)
        if layer.activation is not None or not layer.shares_with:
            return name
        name = layer.shares_with
    return name
