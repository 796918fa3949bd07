"""What rules look at: everything that is known of a model, its data and its recipe, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any, Literal, Protocol

from qstudio.core.inspection import DepthErrors
from qstudio.core.model_info import LayerInfo, ModelInfo, SiteInfo
from qstudio.core.range_error import RangeError
from qstudio.core.recipe import LayerSettings, Recipe
from qstudio.core.results import Metrics
from qstudio.core.scheme import CHANNEL, Scheme
from qstudio.core.sensitivity import SensitivityResult
from qstudio.core.statistics import SiteStatistics

Side = Literal["weight", "activation"]

NEEDS: dict[str, str] = {
    "weights": "the weights",
    "activations": "activation statistics: open data",
    "evaluation": "the evaluation data's activations",
    "float": "the float model's accuracy: open data with labels",
    "depth": "the error over depth",
    "sensitivity": "a sensitivity sweep",
    "run": "a run with its exported file",
}
"""Kinds of evidence, and what they are called where they are missing."""


class Estimator(Protocol):
    """How the cost of a scheme is estimated: the formulas of the inspector."""

    def __call__(self, statistics: SiteStatistics, site: SiteInfo, scheme: Scheme) -> RangeError | None:
        """Return what a scheme does to a site; None where that cannot be told from its statistics."""


@dataclass(frozen=True, eq=False)
class Site:
    """One tensor with its statistics and its scheme; only tensors that are quantized."""

    info: SiteInfo
    statistics: SiteStatistics
    scheme: Scheme
    estimate: Estimator

    def error(self, **changes: Any) -> RangeError | None:
        """Return what the scheme, with fields changed, costs; None where that cannot be told."""
        scheme = replace(self.scheme, **changes)
        if "calibration" in changes and changes["calibration"] != "manual":
            scheme = replace(scheme, clip=None)
        return self.estimate(self.statistics, self.info, scheme)

    def gain_db(self, **changes: Any) -> float | None:
        """Return by how many dB the SQNR rises when fields of the scheme change; None where that cannot be told.

        Groups are not estimated; what a change brings to them is taken from scales per channel.
        """
        if self.scheme.granularity.kind == "group" and "granularity" not in changes:
            before, after = self.error(granularity=CHANNEL), self.error(**changes, granularity=CHANNEL)
        else:
            before, after = self.error(), self.error(**changes)
        if before is None or after is None or not isfinite(before.sqnr_db) or not isfinite(after.sqnr_db):
            return None
        return after.sqnr_db - before.sqnr_db


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything a rule may look at.

    Attributes:
        model: The open model.
        recipe: The recipe as it stands.
        estimate: What a scheme costs.
        weights: Statistics of the weights, by site.
        activations: Statistics over the calibration samples, by site.
        evaluation: The same over the evaluation samples.
        float_metrics: How the float model does.
        classes: Number of classes of the data; None without labels.
        depth: Error over depth, of the recipe as it stands.
        sensitivity: A sweep.
        saturating: Layers of the last run of this recipe whose sums saturate without VNNI, with the share in percent.
        vnni: Whether the processor that run was timed on has VNNI; None where no run was timed.
        has_run: Whether there is such a run.
    """

    model: ModelInfo
    recipe: Recipe
    estimate: Estimator
    weights: Mapping[str, SiteStatistics] = field(default_factory=dict)
    activations: Mapping[str, SiteStatistics] = field(default_factory=dict)
    evaluation: Mapping[str, SiteStatistics] = field(default_factory=dict)
    float_metrics: Metrics | None = None
    classes: int | None = None
    depth: DepthErrors | None = None
    sensitivity: SensitivityResult | None = None
    saturating: tuple[tuple[str, float], ...] = ()
    vnni: bool | None = None
    has_run: bool = False

    def has(self, need: str) -> bool:
        """Return whether a kind of evidence (of NEEDS) is there."""
        return {
            "weights": bool(self.weights),
            "activations": bool(self.activations),
            "evaluation": bool(self.evaluation) and bool(self.activations),
            "float": self.float_metrics is not None and self.float_metrics.top1 is not None and bool(self.classes),
            "depth": self.depth is not None,
            "sensitivity": self.sensitivity is not None,
            "run": self.has_run,
        }[need]

    def settings(self, layer: str) -> LayerSettings:
        """Return a layer's settings."""
        return self.recipe.settings(layer)

    def weight(self, layer: LayerInfo) -> Site | None:
        """Return the layer's weight; None where it has none, it stays float, or its statistics are not there."""
        scheme = self.settings(layer.name).weight_scheme()
        return self._site(layer.weight, self.weights, scheme)

    def activation(self, layer: LayerInfo) -> Site | None:
        """Return what the layer puts out; None where it has no encoding of its own, stays float, or is unknown."""
        scheme = self.settings(layer.name).activation_scheme()
        return self._site(layer.activation, self.activations, scheme)

    def _site(self, info: SiteInfo | None, known: Mapping[str, SiteStatistics], scheme: Scheme) -> Site | None:
        if info is None or info.id not in known or scheme.is_float or not known[info.id].histogram.count:
            return None
        return Site(info, known[info.id], scheme, self.estimate)

    def owner(self, name: str) -> LayerInfo:
        """Return the layer whose encoding a layer's output uses: itself, or the one it shares with."""
        seen: set[str] = set()
        layer = self.model.layer(name)
        while layer.activation is None and layer.shares_with and layer.name not in seen:
            seen.add(layer.name)
            layer = self.model.layer(layer.shares_with)
        return layer

    def source(self, layer: LayerInfo) -> LayerInfo | None:
        """Return the layer whose encoding the layer's first input carries; None where nothing feeds it."""
        return self.owner(layer.inputs[0]) if layer.inputs else None

    @cached_property
    def weighted(self) -> tuple[LayerInfo, ...]:
        """Layers that have a weight, in topological order; found once, as rules ask for every layer."""
        return self.model.weighted_layers

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Names of the layers that each layer feeds."""
        found: dict[str, list[str]] = {layer.name: [] for layer in self.model.layers}
        for layer in self.model.layers:
            for name in dict.fromkeys(layer.inputs):
                found.setdefault(name, []).append(layer.name)
        return {name: tuple(names) for name, names in found.items()}

    @cached_property
    def total_downstream(self) -> float | None:
        """Noise power at the output that the layers make on their own, summed; None where it is not known."""
        if self.depth is None:
            return None
        known = [noise.downstream for noise in self.depth.layers if noise.downstream is not None]
        return sum(known) if known else None

    def refines(self, name: str) -> bool:
        """Return whether the recipe has a refinement."""
        return any(text.partition(":")[0] == name for text in self.recipe.refinements)


def is_depthwise(layer: LayerInfo) -> bool:
    """Return whether a layer is a depthwise convolution."""
    return "depthwise" in layer.title


def of_weight(name: str) -> str:
    """Return what is measured when a weight's error is."""
    return f"SQNR of the weight of {name}"


def of_activation(name: str) -> str:
    """Return what is measured when an activation's error is."""
    return f"SQNR of the output of {name}"
