"""The quantized network while refinements change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.affine import Encoding
from qstudio.core.model_info import LayerInfo
from qstudio.quant.network import Network
from qstudio.quant.quantizer import Rounder, make_quantizer
from qstudio.quant.refine.reconstruct import Problem
from qstudio.quant.refine.soft_rounding import on_grid
from qstudio.quant.refine.step_size import LearnedStep
from qstudio.quant.refine.task import Refined
from qstudio.quant.refine.units import Unit
from qstudio.quant.simulate import SimulatedModel

COARSE_BITS = 8
"""Weights of this many bits or more are rounded to nearest: there is nothing left to win."""


class RefineState:
    """The quantized network while it is being refined."""

    def __init__(self, network: Network, refined: Refined) -> None:
        self.network = network
        self.refined = refined
        simulated = SimulatedModel(network, refined.encodings, refined.weight_values)
        self.activations: dict[str, Encoding] = dict(simulated.activations)
        self.weights: dict[str, Encoding] = dict(simulated.weights)
        self.values: dict[str, NDArray[np.float32]] = dict(refined.weight_values)
        self.parameters: dict[str | tuple[str, str], Tensor] = dict(simulated.parameters)
        self.quantizers: dict[str, Rounder] = dict(simulated.quantizers)
        self.rounded = set(refined.rounded)
        self.notes: list[str] = []
        users = Counter(layer.weight.id for layer in network.layers if layer.weight is not None)
        self._shared = {name for name, count in users.items() if count > 1}
        self._shared_biases = Counter(layer.bias.id for layer in network.layers if layer.bias is not None)
        self.layer_of: dict[str, LayerInfo] = {
            layer.weight.id: layer for layer in network.layers if layer.weight is not None
        }
        self.site_at = {t: s for s in network.activation_sites for t in s.quantized_at or (s.id,)}

    def rounding(self, tensor: str, values: Tensor) -> Tensor:
        """Round a tensor if a quantizer sits on it."""
        quantizer = self.quantizers.get(tensor)
        return values if quantizer is None else quantizer(values)

    def open_weights(self, unit: Unit) -> list[str]:
        """Return the weights of a unit whose rounding is still to be chosen."""
        return [
            name
            for name in unit.weights
            if name in self.weights
            and name not in self.rounded
            and name not in self._shared
            and self.weights[name].levels < 2**COARSE_BITS - 1
        ]

    def scales_freely(self, site: str) -> bool:
        """Return whether a site's scale may be any number; block floating point allows powers of two only."""
        return self.refined.encodings.schemes[site].format.partition(":")[0] != "bfp"

    def float_value(self, name: str) -> NDArray[np.float32]:
        """Return a parameter before rounding, with what refinements have changed."""
        return self.values[name] if name in self.values else self.network.value(name)

    def learned_biases(self, unit: Unit) -> dict[tuple[str, str], Tensor]:
        """Return copies to learn of the biases in a unit that no other layer shares."""
        found = {}
        for name in unit.weights:
            bias = self.layer_of[name].bias
            if bias is not None and self._shared_biases[bias.id] == 1 and name not in self._shared:
                value = torch.tensor(self.float_value(bias.id), device=self.network.executor.device)
                found[(self.layer_of[name].name, bias.id)] = value.requires_grad_(True)
        return found

    def steps_in(self, unit: Unit, learn: bool) -> dict[str, LearnedStep]:
        """Return the quantizers of a unit by tensor; those whose site lies wholly inside are learned."""
        inside_nodes = {step.node for step in unit.steps}
        read = (s for s in unit.steps if s.node not in unit.outputs or inside_nodes.intersection(s.node.users))
        present = {*unit.tensors.values(), *(step.tensor for step in read)}
        found: dict[str, LearnedStep] = {}
        of_site: dict[str, LearnedStep] = {}
        for tensor in sorted(t for t in present if t in self.quantizers and self.site_at[t].id in self.activations):
            site = self.site_at[tensor]
            if site.id not in of_site:
                inside = set(site.quantized_at or (site.id,)) <= present and self._only_read_in(unit, site.members)
                encoding = self.activations[site.id]
                fixed = site.fixed_range is not None or not self.scales_freely(site.id)
                fixed = fixed or encoding.levels >= 2**COARSE_BITS
                of_site[site.id] = LearnedStep(encoding, self.network.executor.device, learn and inside and not fixed)
            found[tensor] = of_site[site.id]
        return found

    def _only_read_in(self, unit: Unit, tensors: Sequence[str]) -> bool:
        """Return whether nothing outside a unit reads the rounded values of these tensors."""
        inside = {step.node for step in unit.steps}
        names = set(tensors)
        readers = (user for step in self.network.executor.steps if step.tensor in names for user in step.node.users)
        return all(user in inside for user in readers)

    def keep(self, problem: Problem) -> None:
        """Take over what was learned for a unit."""
        device = self.network.executor.device
        for name, weight in problem.weights.items():
            encoding = weight.learned_encoding()
            self.take_steps(name, weight.steps(), encoding)
        for (layer, name), bias in problem.biases.items():
            self.values[name] = bias.detach().cpu().numpy().astype(np.float32)
            self.parameters[(layer, name)] = bias.detach()
        for tensor, step in problem.steps.items():
            if step.logarithm is not None:
                site = self.site_at[tensor]
                scale = np.asarray(float(step.scale()), np.float32)
                self.activations[site.id] = replace(step.encoding, scale=scale)
                self.quantizers[tensor] = make_quantizer(self.activations[site.id], (), device)

    def take_steps(self, name: str, steps: NDArray[np.integer], encoding: Encoding) -> None:
        """Take over the codes (without zero point) chosen for a weight."""
        values = on_grid(steps, encoding)
        self.weights[name], self.values[name] = encoding, values
        self.rounded.add(name)
        self.parameters[name] = torch.tensor(values, device=self.network.executor.device)

    def finish(self) -> Refined:
        """Return the state for the next refinement."""
        encodings = replace(self.refined.encodings, activations=self.activations, weights=self.weights)
        notes = (*self.refined.notes, *self.notes)
        return Refined(encodings, self.values, frozenset(self.rounded), notes)
