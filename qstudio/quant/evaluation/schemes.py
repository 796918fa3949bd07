"""The encodings of every cell of a sweep."""

from __future__ import annotations

from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.sensitivity import Candidate
from qstudio.core.statistics import SiteStatistics
from qstudio.quant.encodings import Encodings, encodings_for
from qstudio.quant.evaluator import FLOAT
from qstudio.quant.network import Network


class Schemes:
    """The encodings of every cell, put together from those of whole recipes.

    Args:
        network: The prepared float model.
        recipe: What holds besides the candidates' widths.
        statistics: Of the activations; empty where none are quantized.
        mode: Of `qstudio.core.sensitivity.MODES`.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        statistics: dict[str, SiteStatistics],
        mode: str,
    ) -> None:
        self.network, self.mode = network, mode
        self._names = tuple(layer.name for layer in network.layers)
        # Without statistics no activation can be quantized, and in the sweeps that have none, none is.
        self._recipe = recipe if statistics else recipe.with_layers(self._names, activation_bits=FLOAT_BITS)
        self._statistics, self._weights = statistics, network.weights()
        self._whole: dict[Candidate | None, Encodings] = {}
        self._owners: dict[str, str] = {}
        for layer in network.layers:
            for site in (layer.weight, layer.activation):
                if site is not None:
                    self._owners.setdefault(site.id, layer.name)

    def own_sites(self, layer: LayerInfo, candidate: Candidate) -> frozenset[str]:
        """Return the sites that a candidate changes on a layer; none where they follow another layer."""
        sides = ((layer.weight, candidate.weight_bits), (layer.activation, candidate.activation_bits))
        return frozenset(
            site.id
            for site, bits in sides
            if site is not None and bits is not None and self._owners[site.id] == layer.name
        )

    def whole(self, candidate: Candidate | None) -> Encodings:
        """Return the encodings of the recipe with a candidate's widths on all layers, or as it is."""
        if candidate not in self._whole:
            recipe = self._recipe
            if candidate is not None:
                widths = {"weight_bits": candidate.weight_bits, "activation_bits": candidate.activation_bits}
                recipe = recipe.with_layers(self._names, **{n: bits for n, bits in widths.items() if bits is not None})
            self._whole[candidate] = encodings_for(self.network.layers, recipe, self._statistics, self._weights)
        return self._whole[candidate]

    def base(self, candidate: Candidate) -> Encodings:
        """Return what the cells of a candidate are compared with."""
        if self.mode == "enable":
            return FLOAT
        return self.whole(candidate if self.mode == "disable" else None)

    def cell(self, layer: LayerInfo, candidate: Candidate) -> Encodings:
        """Return the encodings of one cell."""
        sites = self.own_sites(layer, candidate)
        if self.mode == "enable":
            return joined(FLOAT, self.whole(candidate), sites)
        if self.mode == "disable":
            return joined(self.whole(candidate), FLOAT, sites)
        return joined(self.whole(None), self.whole(candidate), sites)


def joined(base: Encodings, other: Encodings, sites: frozenset[str]) -> Encodings:
    """Return the base with some sites as in the other encodings (float where they have none)."""
    parts = []
    for name in ("activations", "weights", "schemes", "others"):
        ours, theirs = getattr(base, name), getattr(other, name)
        parts.append(
            {site: value for site, value in ours.items() if site not in sites}
            | {site: value for site, value in theirs.items() if site in sites}
        )
    return Encodings(*parts)


def content(encodings: Encodings) -> tuple[object, ...]:
    """Return what of encodings decides the figures, in a fixed order."""
    parts = (encodings.activations, encodings.weights, encodings.others)
    return ("figures", *(tuple((site, part[site]) for site in sorted(part)) for part in parts))
