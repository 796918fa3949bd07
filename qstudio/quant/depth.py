"""Error over depth: noise at every layer, all quantized and the layer alone, and what the latter does at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from qstudio.core.context import JobContext
from qstudio.core.inspection import DepthErrors, LayerNoise
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluation.keys import digest
from qstudio.quant.evaluation.schemes import content, joined
from qstudio.quant.evaluator import FLOAT, CachedEvaluator
from qstudio.quant.preview import Bench, left_out

MOST_SAMPLES, FEWEST_SAMPLES = 128, 8
"""Noise powers are means over all elements too: some dozen samples settle them within a tenth of a dB."""

MOST_MACS = 10**12
"""Multiply-accumulates of all passes together, some 40 s of one core: large networks get fewer samples."""

BYTE_BUDGET = 2**28
"""Memory for the float values; ResNet-20 takes 140 MB of 128 images."""

OnPart = Callable[[DepthErrors], None]


@dataclass(frozen=True)
class _Alone:
    """What a layer does by itself."""

    isolated: float
    downstream: float


class Depth:
    """Measures noise on one bench; the float values and what single layers do are kept from recipe to recipe.

    Args:
        bench: Network and samples, of which the first are taken, at most 128.
    """

    def __init__(self, bench: Bench) -> None:
        self.network = bench.network
        indices = bench.indices[: samples_for(bench.network.layers)]
        self.samples = len(indices)
        self._evaluator = CachedEvaluator(bench.network, bench.split, indices, byte_budget=BYTE_BUDGET)
        there = {step.tensor for step in bench.network.executor.steps if step.node.op != "get_attr"}
        self.layers = tuple(
            layer for layer in bench.network.layers if layer.activation is not None and layer.activation.id in there
        )
        self._alone: dict[bytes, _Alone] = {}
        self._owners: dict[str, str] = {}
        for layer in bench.network.layers:
            for site in (layer.weight, layer.activation):
                if site is not None:
                    self._owners.setdefault(site.id, layer.name)

    def measure(self, recipe: Recipe, encodings: Encodings, ctx: JobContext, on_part: OnPart | None) -> DepthErrors:
        """Return the noise of a recipe at every layer; told first with the accumulated noise, then layer by layer.

        Args:
            recipe: What `encodings` were made from.
            encodings: Of the whole recipe.
            ctx: Stops the work; told the progress.
            on_part: Told what is known so far.

        Raises:
            JobCancelled: Asked to stop; what single layers do is kept.
        """
        tensors = list(dict.fromkeys(layer.activation.id for layer in self.layers if layer.activation is not None))
        signal, noise, _ = self._compare(encodings, tensors, ctx)
        noises = []
        for layer in self.layers:
            assert layer.activation is not None
            place = layer.activation.id
            noises.append(LayerNoise(layer.name, place, signal[place], noise[place]))

        def told() -> DepthErrors:
            return DepthErrors(recipe.sha256(), self.samples, tuple(noises), left_out(recipe))

        if on_part is not None:
            on_part(told())
        for number, layer in enumerate(self.layers):
            ctx.report(number + 1, len(self.layers) + 1, f"Noise of {layer.name}")
            alone = self._of(layer, encodings, ctx)
            if alone is not None:
                noises[number] = replace(noises[number], isolated=alone.isolated, downstream=alone.downstream)
                if on_part is not None:
                    on_part(told())
        return told()

    def _of(self, layer: LayerInfo, encodings: Encodings, ctx: JobContext) -> _Alone | None:
        """Return what the layer's own sites do alone; None where none of them is quantized."""
        sites = frozenset(
            site.id
            for site in (layer.weight, layer.activation)
            if site is not None and self._owners[site.id] == layer.name
        )
        own = joined(FLOAT, encodings, sites)
        if not (own.activations or own.weights or own.others):
            return None
        key = digest((layer.name, content(own)))
        if key not in self._alone:
            assert layer.activation is not None
            place = layer.activation.id
            _, noise, downstream = self._compare(own, [place], ctx)
            self._alone[key] = _Alone(noise[place], downstream)
        return self._alone[key]

    def _compare(
        self, encodings: Encodings, tensors: Sequence[str], ctx: JobContext
    ) -> tuple[dict[str, float], dict[str, float], float]:
        """Return mean power of float values and of their noise by tensor, and noise over signal at the first output."""
        evaluator = self._evaluator
        wanted = [*(evaluator.node_of(tensor) for tensor in tensors), evaluator.first_output]
        floats: list[list[Any]] = []
        evaluator.each(FLOAT, wanted, floats.append, keep=True, check=ctx.check)
        sums = np.zeros((len(wanted), 3))
        batches = iter(floats)

        def on_batch(values: list[Any]) -> None:
            for row, reference, value in zip(sums, next(batches), values, strict=True):
                row += _sums(reference, value)

        evaluator.each(encodings, wanted, on_batch, keep=False, check=ctx.check)
        count = np.maximum(sums[:, 2], 1.0)
        signal, noise = sums[:, 0] / count, sums[:, 1] / count
        places = range(len(tensors))
        nothing = 0.0 if not noise[-1] else math.inf
        downstream = float(noise[-1] / signal[-1]) if signal[-1] else nothing
        return (
            {tensors[place]: float(signal[place]) for place in places},
            {tensors[place]: float(noise[place]) for place in places},
            downstream,
        )


def samples_for(layers: Sequence[LayerInfo]) -> int:
    """Return how many samples the noise of these layers is measured on: each layer's own pass runs half of them."""
    macs = sum(layer.macs for layer in layers) * max(len(layers), 2) // 2
    return min(max(MOST_MACS // max(macs, 1), FEWEST_SAMPLES), MOST_SAMPLES)


def depth_errors(bench: Bench, recipe: Recipe, ctx: JobContext, on_part: OnPart | None = None) -> DepthErrors:
    """Return the noise of a recipe at every layer of a bench's network.

    Args:
        bench: From `qstudio.quant.preview.bench_for` with this recipe.
        recipe: All schemes.
        ctx: Stops the work between the steps of the network; jobs that are more urgent run in between.
        on_part: Told what is known so far: first the accumulated noise, then layer by layer.

    Raises:
        UserError: The recipe or the data cannot be used.
        JobCancelled: Asked to stop.
    """
    if bench.depth is None:
        bench.depth = Depth(bench)
    return bench.depth.measure(recipe, bench.encodings(recipe), ctx, on_part)


def _sums(reference: Tensor, value: Tensor) -> tuple[float, float, float]:
    """Return sums of x^2 and of (y - x)^2, and the number of elements, in double."""
    x = reference.double()
    noise = value.double() - x
    return float((x * x).sum()), float((noise * noise).sum()), float(x.numel())
