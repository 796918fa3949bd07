"""From a recipe to the encoding of every site."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, encode
from qstudio.core.calibration import find_range
from qstudio.core.encodings import Other
from qstudio.core.errors import UserError
from qstudio.core.formats import format_of
from qstudio.core.model_info import LayerInfo, SiteInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.quant.other_encodings import other_activation_encoding, other_weight_encoding
from qstudio.quant.placement import fixed_encoding
from qstudio.quant.weight_ranges import weight_encoding


@dataclass(frozen=True, eq=False)
class Encodings:
    """What every quantized site is rounded with; sites that stay float are absent."""

    activations: dict[str, Encoding]
    weights: dict[str, Encoding]
    schemes: dict[str, Scheme]
    """The scheme of every site by id, float ones too: as in the recipe, but outputs are not clipped."""
    others: dict[str, Other] = field(default_factory=dict)
    """What is not affine, weights and activations, by site id; these sites are in neither of the first two."""


Found = MutableMapping[tuple[str, Scheme], Encoding | Other | None]
"""Encodings of one model, statistics and weights by (site id, scheme): what changes only some schemes looks here."""


def encodings_for(
    layers: Sequence[LayerInfo],
    recipe: Recipe,
    statistics: Mapping[str, SiteStatistics],
    weights: Mapping[str, NDArray[np.floating]],
    known: Found | None = None,
) -> Encodings:
    """Return the encodings that a recipe gives the sites of a model.

    A site shared by several tensors or layers has one encoding, by the settings of the layer that the site names.
    The weights' scales are not yet raised for their biases (see `qstudio.backends.bias`).

    Args:
        layers: Rows with their sites.
        recipe: All schemes.
        statistics: Activation statistics by site id.
        weights: Weight values by site id, after folding.
        known: Encodings found before with the same statistics and weights; those found now are added.

    Raises:
        UserError: A site that is to be quantized has no statistics.
    """
    known = {} if known is None else known
    activations: dict[str, Encoding] = {}
    weight_encodings: dict[str, Encoding] = {}
    schemes: dict[str, Scheme] = {}
    others: dict[str, Other] = {}
    for layer in layers:
        site = layer.activation
        if site is not None and site.id not in schemes:
            scheme = activation_scheme(site, recipe)
            schemes[site.id] = scheme
            if (site.id, scheme) not in known:
                known[(site.id, scheme)] = (
                    None if scheme.is_float else activation_encoding(scheme, site, statistics.get(site.id))
                )
            found = known[(site.id, scheme)]
            if isinstance(found, Encoding):
                activations[site.id] = found
            elif found is not None:
                others[site.id] = found
        site = layer.weight
        if site is not None and site.id not in schemes:
            scheme = recipe.settings(site.layer).weight_scheme()
            schemes[site.id] = scheme
            if (site.id, scheme) not in known:
                make = weight_encoding if scheme.is_affine else other_weight_encoding
                known[(site.id, scheme)] = make(scheme, site, weights[site.id])
            found = known[(site.id, scheme)]
            if isinstance(found, Encoding):
                weight_encodings[site.id] = found
            elif found is not None:
                others[site.id] = found
    return Encodings(activations, weight_encodings, schemes, others)


def activation_scheme(site: SiteInfo, recipe: Recipe) -> Scheme:
    """Return the scheme of an activation site.

    An output of the model keeps its whole range: clipped class scores cost accuracy out of proportion (a ResNet-50
    loses 3.5 points of top-1 by it).
    """
    scheme = recipe.settings(site.layer).activation_scheme()
    if site.is_output and scheme.calibration != "manual":
        return replace(scheme, calibration="minmax")
    return scheme


def activation_encoding(scheme: Scheme, site: SiteInfo, statistics: SiteStatistics | None) -> Encoding | Other:
    """Return the encoding of an activation site.

    Raises:
        UserError: Nothing is known of its values.
    """
    number_format, _ = format_of(scheme.format)
    if number_format.family == "affine":
        fixed = fixed_encoding(site, scheme)
        if fixed is not None:
            return fixed
        if scheme.dynamic:
            return other_activation_encoding(scheme, 0.0, 0.0)
    if statistics is None:
        raise UserError("there are no statistics of this tensor", site.id, "Collect activation statistics first")
    low, high = find_range(statistics.histogram, scheme)
    if number_format.family == "affine":
        return encode(scheme, low, high, None)
    return other_activation_encoding(scheme, low, high)


def with_first_last_bits(recipe: Recipe, layers: Sequence[LayerInfo], bits: int) -> Recipe:
    """Return the recipe with the first and the last layer that have weights held at `bits`.

    Both the weights and the tensors these layers read and put out are held: the model's input, and the last layer's
    output. (The custom of the literature: first and last layer at 8 bits.)

    Args:
        recipe: The recipe to start from.
        layers: Rows in topological order.
        bits: 1..16 or FLOAT_BITS.
    """
    weighted = [layer for layer in layers if layer.weight is not None]
    if not weighted:
        return recipe
    first, last = weighted[0], weighted[-1]
    recipe = recipe.with_layers(tuple(dict.fromkeys((first.name, last.name))), weight_bits=bits)
    inputs = [layer.name for layer in layers if layer.op_type == "Input" and layer.activation is not None]
    # The last layer's own input is another layer's output; its width is held too, since the layer computes with it.
    feeding = [layer.name for layer in layers if layer.name in last.inputs and layer.activation is not None]
    ends = [last.name] if last.activation is not None else []
    return recipe.with_layers(tuple(dict.fromkeys((*inputs, *feeding, *ends))), activation_bits=bits)
