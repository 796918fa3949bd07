"""Mixed precision as a choice: for each group of layers one candidate, the least damage within limits.

Values and the greedy solver, numpy only; the exact solver is `qstudio.quant.search.exact`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError

RESOURCES: dict[str, str] = {
    "size_bytes": "bytes of weights, scales and zero points",
    "bops": "bit operations of one sample: MACs x weight bits x activation bits",
    "average_bits": "mean bits of a weight",
    "latency_ms": "milliseconds of one run",
}
"""What can be limited, and its unit."""

SLACK = 1e-9
"""Relative tolerance of limits: sums of floats differ in the last bits with their order."""


@dataclass(frozen=True)
class Candidate:
    """One way to quantize a group of layers."""

    bits: tuple[int, int]
    """(weight bits, activation bits)."""
    damage: float
    """Predicted increase of the metric that is minimised; 0 for float."""
    costs: tuple[tuple[str, float], ...]
    """(resource, amount) pairs; amounts of all groups add up."""

    def cost(self, resource: str) -> float:
        """Return the amount of a resource; 0 where it has none."""
        return dict(self.costs).get(resource, 0.0)


@dataclass(frozen=True)
class Group:
    """Layers that share their choice, because an Add or Concat joins them or because one is asked for."""

    layers: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Problem:
    """Choose one candidate for each group so that the damage is least and no limit is exceeded."""

    groups: tuple[Group, ...]
    limits: tuple[tuple[str, float], ...] = ()
    """(resource, most that is allowed)."""
    fixed: tuple[tuple[str, float], ...] = ()
    """(resource, amount) of what is not chosen: biases, layers that stay as they are."""

    def amount(self, choice: Sequence[int], resource: str) -> float:
        """Return what a choice (a candidate's index for each group) takes of a resource."""
        chosen = sum(g.candidates[i].cost(resource) for g, i in zip(self.groups, choice, strict=True))
        return float(dict(self.fixed).get(resource, 0.0) + chosen)

    def damage(self, choice: Sequence[int]) -> float:
        """Return the predicted damage of a choice: the sum over groups."""
        return float(sum(g.candidates[i].damage for g, i in zip(self.groups, choice, strict=True)))

    def is_within(self, choice: Sequence[int]) -> bool:
        """Return whether a choice exceeds no limit."""
        return all(self.amount(choice, name) <= most * (1 + SLACK) + 1e-12 for name, most in self.limits)

    def with_limits(self, limits: Mapping[str, float]) -> Problem:
        """Return the problem with other limits."""
        return Problem(self.groups, tuple(limits.items()), self.fixed)


@dataclass(frozen=True)
class Solution:
    """One candidate for each group."""

    choice: tuple[int, ...]
    damage: float
    amounts: tuple[tuple[str, float], ...]
    """(resource, amount) of everything that can be limited."""
    exact: bool
    """Whether nothing better exists."""

    def bits(self, problem: Problem) -> dict[str, tuple[int, int]]:
        """Return layer name -> (weight bits, activation bits)."""
        pairs = zip(problem.groups, self.choice, strict=True)
        return {layer: group.candidates[index].bits for group, index in pairs for layer in group.layers}


def solution_of(problem: Problem, choice: Sequence[int], exact: bool) -> Solution:
    """Return a choice with what it costs."""
    known = {name for group in problem.groups for candidate in group.candidates for name, _ in candidate.costs}
    amounts = tuple((name, problem.amount(choice, name)) for name in RESOURCES if name in known)
    return Solution(tuple(int(i) for i in choice), problem.damage(choice), amounts, exact)


def check_feasible(problem: Problem) -> None:
    """Refuse limits that not even the cheapest candidates keep.

    Raises:
        UserError: A limit is below the least that is possible.
    """
    for name, most in problem.limits:
        least = dict(problem.fixed).get(name, 0.0)
        least += sum(min(c.cost(name) for c in group.candidates) for group in problem.groups)
        if least > most * (1 + SLACK) + 1e-12:
            raise UserError(
                f"the least that the candidates allow is {least:.6g} {RESOURCES.get(name, name)}",
                f"limit of {most:.6g}",
                "Raise the limit, or allow fewer bits",
            )


def solve_greedy(problem: Problem) -> Solution:
    """Return a good choice in O(groups x candidates) a step: lower whatever costs least damage for what it saves.

    From the least damage on, the step with the smallest rise of damage for each unit of the exceeded limits is taken
    until none is exceeded. Then steps that turned out to be needless are taken back, dearest first.

    Raises:
        UserError: No choice keeps the limits.
    """
    check_feasible(problem)
    choice = [int(np.argmin([c.damage for c in group.candidates])) for group in problem.groups]
    while not problem.is_within(choice):
        step = _cheapest_step(problem, choice)
        if step is None:
            raise UserError("no mixture of the candidates keeps all limits", "search", "Raise one of the limits")
        choice[step[0]] = step[1]
    for number in np.argsort([-g.candidates[i].damage for g, i in zip(problem.groups, choice, strict=True)]):
        group = problem.groups[number]
        for better in np.argsort([c.damage for c in group.candidates]):
            if group.candidates[better].damage >= group.candidates[choice[number]].damage:
                break
            trial = [*choice[:number], int(better), *choice[number + 1 :]]
            if problem.is_within(trial):
                choice = trial
                break
    return solution_of(problem, choice, exact=False)


def _cheapest_step(problem: Problem, choice: Sequence[int]) -> tuple[int, int] | None:
    """Return (group, candidate) with the least rise of damage for the excess it takes away; None where none does.

    The excess is the sum over limits of what is beyond them, relative to them: it falls with every step, so that the
    steps come to an end though one candidate may cost less of one resource and more of another.
    """
    amounts = {name: problem.amount(choice, name) for name, _ in problem.limits}
    limits = {name: max(most, 1e-300) for name, most in problem.limits}
    before = sum(max(amounts[name] - most, 0.0) / most for name, most in limits.items())
    best: tuple[int, int] | None = None
    least = np.inf
    for number, group in enumerate(problem.groups):
        now = group.candidates[choice[number]]
        for index, candidate in enumerate(group.candidates):
            after = sum(
                max(amounts[name] + candidate.cost(name) - now.cost(name) - most, 0.0) / most
                for name, most in limits.items()
            )
            if after >= before * (1 - 1e-12):
                continue
            price = (candidate.damage - now.damage) / (before - after)
            if price < least:
                best, least = (number, index), price
    return best


def pareto(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which of [N, 2] points (cost, damage) no other point beats in both; of equal points the first.

    Args:
        points: Less is better in both columns.
    """
    order = np.lexsort((np.arange(len(points)), points[:, 1], points[:, 0]))
    kept = np.zeros(len(points), bool)
    least = np.inf
    for index in order:
        if points[index, 1] < least:
            kept[index] = True
            least = float(points[index, 1])
    return kept
