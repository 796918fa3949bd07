"""An engine that holds sweeps and searches back, and what they bring for the models of `ui_fakes`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from ui_fakes import RecordedEngine

from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics
from qstudio.core.search_result import GroupDamage, SearchPoint, SearchResult
from qstudio.core.search_settings import SearchSettings
from qstudio.core.sensitivity import Candidate, Figures, HessianTrace, SensitivityCell, SensitivityResult
from qstudio.core.size import quantized_bytes
from qstudio.engine.client import Job
from qstudio.engine.messages import JobState, SearchBits, Sensitivity


class LongEngine(RecordedEngine):
    """Keeps sweeps and searches in `long` until a test says what becomes of them."""

    def __init__(self, model: ModelInfo | None = None) -> None:
        super().__init__(model)
        self.long: list[Job] = []

    def submit(self, request: Any, *, slot: str = "", **callbacks: Any) -> Job:
        if not isinstance(request, (Sensitivity, SearchBits)):
            return super().submit(request, slot=slot, **callbacks)
        self.asked.append(request)
        job = Job(next(self._numbers), request, "run", slot, **callbacks)
        job.state = JobState.RUNNING
        self.long.append(job)
        return job


def figures(bits: int, share: float) -> Figures:
    """Return figures that are worse the fewer the bits and the larger the layer's share."""
    noise = share * 4.0 ** (2 - bits)
    return Figures(1000, 100 - 10 * noise, -10 * np.log10(noise), noise, 97 - 10 * noise, (95.0, 98.0), 0.1 + noise)


def make_sweep(
    model: ModelInfo, recipe: Recipe, bits: tuple[int, ...] = (8, 4, 2), **changes: Any
) -> SensitivityResult:
    """Return a whole sweep of the weights; the later a layer, the more it hurts."""
    layers = model.weighted_layers
    candidates = tuple(Candidate(width) for width in bits)
    cells = tuple(
        SensitivityCell(
            layer.name, candidate, figures(candidate.weight_bits or 8, (n + 1) / len(layers)), 0.1 / (n + 1)
        )
        for n, layer in enumerate(layers)
        for candidate in candidates
    )
    traces = tuple(HessianTrace(layer.name, 2.0 * n, 0.1, layer.parameters) for n, layer in enumerate(layers))
    whole = Figures(1000, 100.0, float("inf"), 0.0, 97.0, (95.0, 98.0), 0.1)
    result = SensitivityResult(
        "enable", candidates, cells, recipe, model.sha256, "d", 0, whole, tuple((c, whole) for c in candidates), traces,
        len(cells), 3.0,
    )  # fmt: skip
    return replace(result, **changes)


def make_point(model: ModelInfo, recipe: Recipe, bits: list[int], measured: bool = True, **changes: Any) -> SearchPoint:
    """Return a point with these bits for the weighted layers."""
    for layer, width in zip(model.weighted_layers, bits, strict=True):
        recipe = recipe.with_layers((layer.name,), weight_bits=width)
    rows = tuple(
        (layer.name, recipe.settings(layer.name).weight_bits if layer.weight else None, 8 if layer.activation else None)
        for layer in model.layers
        if layer.weight or layer.activation
    )
    mean = float(np.mean(bits))
    size = float(quantized_bytes(model, recipe.settings))
    amounts = (("size_bytes", size), ("bops", 1e6 * mean), ("average_bits", mean))
    damage = 4.0 ** (3 - mean)
    metrics = Metrics(1000, 97 - damage, 99.0, 0.1, 98 - damage, (95.0, 98.0)) if measured else None
    return replace(
        SearchPoint(recipe, rows, amounts, damage, mean, measured=metrics, damage=damage if measured else None),
        **changes,
    )


def make_search(model: ModelInfo, recipe: Recipe, points: int = 8, **changes: Any) -> SearchResult:
    """Return a finished search: a front from 2 to 8 bits, uniform recipes, the middle of the front chosen."""
    layers = model.weighted_layers
    groups = tuple(
        GroupDamage((layer.name,), "weights", ((8, 0.001), (4, 0.01), (2, 0.2)), ("add reads both",) if not n else ())
        for n, layer in enumerate(layers)
    )
    rng = np.random.default_rng(0)
    order = rng.permutation(len(layers))
    front = []
    for step in range(points):
        eights = round(len(layers) * step / (points - 1))
        bits = [8 if n in set(order[:eights].tolist()) else 2 for n in range(len(layers))]
        front.append(make_point(model, recipe, bits))
    uniforms = tuple(make_point(model, recipe, [w] * len(layers), uniform=(w, None), budget=None) for w in (8, 4, 3))
    settings = SearchSettings(limits=(("average_bits", 4.0),))
    result = SearchResult(
        settings, "kl", "average_bits", groups, 0.001, tuple(front), uniforms, front[points // 2],
        Metrics(1000, 97.0, 99.9, 0.1, 100.0), front[points // 2].measured, 0.97, 0.93, None, 30,
        ("Candidates are compared on 256 calibration samples",), 12.0,
    )  # fmt: skip
    return replace(result, **changes)
