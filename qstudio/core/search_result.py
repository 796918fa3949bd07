"""What a search for mixed precision brings: the front, uniform recipes beside it, and the recipe that was chosen."""

from __future__ import annotations

import builtins
from bisect import bisect_right
from dataclasses import dataclass

from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics, RunResult
from qstudio.core.search_settings import SearchSettings

LayerBits = tuple[tuple[str, int | None, int | None], ...]
"""(layer, weight bits, activation bits) in topological order; None where the layer has no such site."""


@dataclass(frozen=True)
class SearchPoint:
    """One assignment of bits: what it is predicted to cost, and what it costs."""

    recipe: Recipe
    bits: LayerBits
    amounts: tuple[tuple[str, float], ...]
    """(resource, amount): size_bytes, bops, average_bits, and latency_ms where it was looked up."""
    predicted: float | None
    """Damage: that of what is not chosen plus the sum over groups; None where a width is no candidate."""
    budget: float | None = None
    """Of the front's resource; None for what was not searched along it."""
    exact: bool = True
    """Whether nothing better exists for the predicted figures."""
    uniform: tuple[int, int | None] | None = None
    """(weight bits, activation bits) where every layer that is not kept has the same; None for activations that were
    not searched."""
    measured: Metrics | None = None
    """On the front's samples; of the chosen recipe, with its refinements on all evaluation samples."""
    damage: float | None = None
    """Measured on the same samples, in the unit of `predicted`."""

    def amount(self, resource: str) -> float | None:
        """Return what the assignment takes of a resource; None where it is not known."""
        return dict(self.amounts).get(resource)


@dataclass(frozen=True)
class GroupDamage:
    """What each candidate of layers that share their bits costs on its own."""

    layers: tuple[str, ...]
    side: str
    """"weights" or "activations"."""
    candidates: tuple[tuple[int, float], ...]
    """(bits, damage with only this group quantized)."""
    why: tuple[str, ...] = ()
    """Why they share their bits, in words; empty for a single one."""


@dataclass(frozen=True)
class SearchResult:
    """A search, possibly not yet finished: what is not known yet is empty or None."""

    settings: SearchSettings
    damage: str
    """Of `DAMAGES`: the measure that was used."""
    axis: str
    """The front's resource."""
    groups: tuple[GroupDamage, ...]
    base_damage: float
    """Measured with everything quantized that is not chosen, and nothing else."""
    front: tuple[SearchPoint, ...] = ()
    """By rising budget."""
    uniforms: tuple[SearchPoint, ...] = ()
    chosen: SearchPoint | None = None
    """The recipe that was asked for."""
    float: Metrics | None = None
    """The float model on the front's samples."""
    simulated: Metrics | None = None
    """The chosen recipe with its refinements on all evaluation samples."""
    spearman_damage: builtins.float | None = None
    """Rank correlation of predicted and measured damage over front and uniform recipes."""
    spearman_drop: builtins.float | None = None
    """Rank correlation of predicted damage and measured loss of top-1 (agreement without labels)."""
    float_latency_ms: builtins.float | None = None
    """Of the whole float model, where latency was looked up."""
    computed: int = 0
    """Candidates that were run; the others were known."""
    notes: tuple[str, ...] = ()
    seconds: builtins.float = 0.0
    run: RunResult | None = None
    """The chosen recipe, exported and verified."""

    def at_budget(self, budget: builtins.float) -> SearchPoint | None:
        """Return the front's point for a budget: the last one that does not exceed it; None below the lowest."""
        place = bisect_right([point.budget or 0.0 for point in self.front], budget * (1 + 1e-12))
        return self.front[place - 1] if place else None
