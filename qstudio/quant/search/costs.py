"""What an assignment of bits takes: bytes, bit operations, average bits, milliseconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import LayerSettings, Recipe
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.size import SCALE_BYTES, weight_bytes
from qstudio.quant.encodings import activation_scheme
from qstudio.quant.network import Network
from qstudio.quant.outcome import size_bytes
from qstudio.quant.search.groups import Coupling, Unit
from qstudio.quant.search.latency import LatencyTable

Amounts = dict[str, float]
"""Resource -> amount."""


class Costs:
    """Counts what recipes take of each resource.

    Bytes are those of `qstudio.core.size`. Bit operations of a layer are its multiply-accumulates times the bits of
    its weight times the bits of what it reads (HAWQ-V3); of a product of two activations, times the bits of both.
    Average bits are taken over all weights of the model, those that are kept included. A float side has 32 bits.

    Args:
        network: Its layers are counted.
        coupling: Says what each layer reads.
        latency: Looked-up latencies; None = latency is not among the resources.
    """

    def __init__(self, network: Network, coupling: Coupling, latency: LatencyTable | None = None) -> None:
        self.network, self.coupling, self.latency = network, coupling, latency
        self._layers = {layer.name: layer for layer in network.layers}
        self._elements = {site.id: math.prod(int(n or 1) for n in site.shape) for site in network.weight_sites}
        self._total = max(sum(self._elements.values()), 1)
        self._sites = {site.id: site for site in network.activation_sites}

    def amounts(self, recipe: Recipe) -> Amounts:
        """Return what a recipe takes of each resource."""
        found = {
            "size_bytes": float(size_bytes(self.network, recipe).quantized),
            "bops": 0.0,
            "average_bits": sum(
                self._elements[site.id] * recipe.settings(site.layer).weight_scheme().bits
                for site in self.network.weight_sites
            )
            / self._total,
        }
        if self.latency is not None:
            found["latency_ms"] = self.latency.float_ms
        for layer in self.network.layers:
            widths = self.widths_read(layer.name, recipe)
            found["bops"] += self._operations(layer, recipe.settings(layer.name), widths)
            if self.latency is not None and layer.weight is not None:
                found["latency_ms"] += self.latency.difference_ms(layer, recipe, max(widths))
        return found

    def widths_read(self, layer: str, recipe: Recipe) -> tuple[int, ...]:
        """Return the bits of the tensors a layer reads, the first of which stands for a tensor that stays float."""
        sites = [self._sites[site] for site in self.coupling.reads.get(layer, ())]
        return tuple(activation_scheme(site, recipe).bits for site in sites) or (FLOAT_BITS,)

    def weight_costs(self, unit: Unit, recipe: Recipe, width: int | None) -> tuple[tuple[str, float], ...]:
        """Return what the weights of a unit take under a recipe.

        Args:
            unit: Of weights.
            recipe: Says their bits.
            width: Bits of what the layers read; None = as the recipe says.
        """
        total: Amounts = {"size_bytes": 0.0, "bops": 0.0, "average_bits": 0.0}
        if self.latency is not None:
            total["latency_ms"] = 0.0
        for name in unit.layers:
            layer, settings = self._layers[name], recipe.settings(name)
            assert layer.weight is not None, "units hold layers with weights"
            scheme = settings.weight_scheme()
            total["size_bytes"] += weight_bytes(layer.weight.shape, layer.weight.channel_axis, scheme)
            widths = self.widths_read(name, recipe) if width is None else (width,)
            total["bops"] += self._operations(layer, settings, widths)
            if self.latency is not None:
                total["latency_ms"] += self.latency.difference_ms(layer, recipe, max(widths))
        owners: Mapping[str, str] = {site.id: site.layer for site in self.network.weight_sites}
        for site in unit.sites:
            bits = recipe.settings(owners[site]).weight_scheme().bits
            total["average_bits"] += self._elements[site] * bits / self._total
        return tuple(total.items())

    def activation_costs(self, unit: Unit, recipe: Recipe, kept: Collection[str]) -> tuple[tuple[str, float], ...]:
        """Return what depends on the tensors of a unit alone: their encodings, and layers whose weights are kept.

        Args:
            unit: Of activations.
            recipe: Says their bits.
            kept: Layers with weights that are not chosen; products of two activations are always counted here.
        """
        size = operations = latency = 0.0
        for site in unit.sites:
            scheme = recipe.settings(self._sites[site].layer).activation_scheme()
            if scheme.is_affine and not scheme.is_float:
                size += SCALE_BYTES + -(-scheme.bits // 8)
        for layer in self.network.layers:
            reads = self.coupling.reads.get(layer.name, ())
            if reads and reads[0] in unit.sites and (layer.weight is None or layer.name in kept):
                widths = self.widths_read(layer.name, recipe)
                operations += self._operations(layer, recipe.settings(layer.name), widths)
                if self.latency is not None and layer.weight is not None:
                    latency += self.latency.difference_ms(layer, recipe, max(widths))
        timed = (("latency_ms", latency),) if self.latency is not None else ()
        return (("size_bytes", size), ("bops", operations), *timed)

    def _operations(self, layer: LayerInfo, settings: LayerSettings, widths: tuple[int, ...]) -> float:
        if layer.weight is not None:
            return float(layer.macs) * settings.weight_scheme().bits * max(widths)
        return float(layer.macs) * widths[0] * widths[-1]
