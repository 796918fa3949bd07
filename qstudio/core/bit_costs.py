"""What a recipe's bits amount to over a whole model: average weight bits and bit operations."""

from __future__ import annotations

import math

from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS


def average_weight_bits(model: ModelInfo, recipe: Recipe) -> float:
    """Return the mean bits of all weights, those that stay float counted with 32; 0 for a model without weights."""
    bits = total = 0
    for layer in model.weighted_layers:
        assert layer.weight is not None, "weighted layers have a weight"
        elements = math.prod(int(n or 1) for n in layer.weight.shape)
        bits += elements * recipe.settings(layer.name).weight_scheme().bits
        total += elements
    return bits / total if total else 0.0


def bit_operations(model: ModelInfo, recipe: Recipe) -> float:
    """Return the sum over layers of multiply-accumulates times weight bits times bits of what is read (HAWQ-V3).

    Of a product of two activations, times the bits of both; a float side has 32 bits. What pruning removes is counted.
    """
    return float(sum(layer.macs * _width(model, recipe, layer) for layer in model.layers if layer.macs))


def _width(model: ModelInfo, recipe: Recipe, layer: LayerInfo) -> int:
    read = [_written(model, recipe, name) for name in layer.inputs] or [FLOAT_BITS]
    if layer.weight is not None:
        return recipe.settings(layer.name).weight_scheme().bits * max(read)
    return read[0] * read[-1]


def _written(model: ModelInfo, recipe: Recipe, name: str) -> int:
    """Return the bits of the tensor that a layer puts out."""
    layer = model.layer(name)
    owner = name if layer.activation is not None else layer.shares_with
    return recipe.settings(owner).activation_scheme().bits if owner else FLOAT_BITS
