"""Mixed precision as a choice: for each group of layers one candidate, the least damage within limits.

Values and the greedy solver, numpy only; the exact solver is `qstudio.quant.search.exact`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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

BOTH = ("weight_bits", "activation_bits")
"""The recipe fields that a candidate's two widths stand for."""

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
    sets: tuple[str, ...] = BOTH
    """Recipe fields that the choice sets in these layers. A group that sets weights only reads activations of the
    candidate's second width: see `Problem.ties`."""


@dataclass(frozen=True)
class Problem:
    """Choose one candidate for each group so that the damage is least and no limit is exceeded."""

    groups: tuple[Group, ...]
    limits: tuple[tuple[str, float], ...] = ()
    """(resource, most that is allowed)."""
    fixed: tuple[tuple[str, float], ...] = ()
    """(resource, amount) of what is not chosen: biases, layers that stay as they are."""
    ties: tuple[tuple[int, ...], ...] = ()
    """Numbers of groups whose chosen candidates have equal activation bits: a tensor and the layers that read it. No
    group is in two of them."""

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

    def is_tied(self, choice: Sequence[int]) -> bool:
        """Return whether tied groups have equal activation bits."""
        widths = [group.candidates[i].bits[1] for group, i in zip(self.groups, choice, strict=True)]
        return all(len({widths[number] for number in tie}) == 1 for tie in self.ties)

    def with_limits(self, limits: Mapping[str, float]) -> Problem:
        """Return the problem with other limits."""
        return replace(self, limits=tuple(limits.items()))

    def extremes(self, resource: str) -> tuple[float, float]:
        """Return the least and the largest amount of a resource that the groups, each on its own, can take."""
        columns = [[c.cost(resource) for c in group.candidates] for group in self.groups]
        fixed = dict(self.fixed).get(resource, 0.0)
        return fixed + sum(map(min, columns)), fixed + sum(map(max, columns))


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

    def fields(self, problem: Problem) -> dict[str, dict[str, int]]:
        """Return layer name -> the recipe fields that are chosen for it."""
        found: dict[str, dict[str, int]] = {}
        for group, index in zip(problem.groups, self.choice, strict=True):
            widths = dict(zip(BOTH, group.candidates[index].bits, strict=True))
            for layer in group.layers:
                found.setdefault(layer, {}).update({name: widths[name] for name in group.sets})
        return found


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


Move = tuple[tuple[int, int], ...]
"""(group, candidate) pairs that change together."""


def solve_greedy(problem: Problem) -> Solution:
    """Return a good choice in O(groups x candidates) a step: lower whatever costs least damage for what it saves.

    From the least damage on, the step with the smallest rise of damage for each unit of the exceeded limits is taken
    until none is exceeded. Then, as long as there is room, the step that takes back most damage.

    Raises:
        UserError: No choice keeps the limits.
    """
    check_feasible(problem)
    choice = _least_damage(problem)
    while not problem.is_within(choice):
        step = _cheapest_step(problem, choice)
        if step is None:
            raise UserError("no mixture of the candidates keeps all limits", "search", "Raise one of the limits")
        choice = _moved(choice, step)
    while True:
        gains = sorted((rise, move) for move in _moves(problem, choice) if (rise := _rise(problem, choice, move)) < 0)
        step = next((move for _, move in gains if problem.is_within(_moved(choice, move))), None)
        if step is None:
            return solution_of(problem, choice, exact=False)
        choice = _moved(choice, step)


def _least_damage(problem: Problem) -> list[int]:
    choice = [int(np.argmin([c.damage for c in group.candidates])) for group in problem.groups]
    for tie in problem.ties:
        best: dict[int, float] = {}
        for width in _common_widths(problem, tie):
            best[width] = sum(
                min(c.damage for c in problem.groups[number].candidates if c.bits[1] == width) for number in tie
            )
        width = min(best, key=lambda w: best[w])
        for number in tie:
            fitting = [(c.damage, i) for i, c in enumerate(problem.groups[number].candidates) if c.bits[1] == width]
            choice[number] = min(fitting)[1]
    return choice


def _common_widths(problem: Problem, tie: Sequence[int]) -> list[int]:
    """Return the activation bits that every group of a tie has.

    Raises:
        UserError: There are none.
    """
    each = [{c.bits[1] for c in problem.groups[number].candidates} for number in tie]
    common = set.intersection(*each)
    if not common:
        names = ", ".join(layer for number in tie[:3] for layer in problem.groups[number].layers[:1])
        raise UserError("tied layers have no activation bits in common", names, "Give them the same candidates")
    return sorted(common, reverse=True)


def _moves(problem: Problem, choice: Sequence[int]) -> Iterator[Move]:
    """Yield what can be changed at once: one group, at the same activation bits where it is tied, or a whole tie."""
    tied = {number for tie in problem.ties for number in tie}
    for number, group in enumerate(problem.groups):
        now = group.candidates[choice[number]]
        for index, candidate in enumerate(group.candidates):
            if index != choice[number] and (number not in tied or candidate.bits[1] == now.bits[1]):
                yield ((number, index),)
    for tie in problem.ties:
        for width in _common_widths(problem, tie):
            if width == problem.groups[tie[0]].candidates[choice[tie[0]]].bits[1]:
                continue
            yield tuple((number, _at_width(problem.groups[number], choice[number], width)) for number in tie)


def _at_width(group: Group, index: int, width: int) -> int:
    """Return the candidate of these activation bits whose weight bits are nearest to those of candidate `index`."""
    bits = group.candidates[index].bits[0]
    fitting = [(abs(c.bits[0] - bits), -c.bits[0], i) for i, c in enumerate(group.candidates) if c.bits[1] == width]
    return min(fitting)[2]


def _moved(choice: Sequence[int], move: Move) -> list[int]:
    changed = list(choice)
    for number, index in move:
        changed[number] = index
    return changed


def _rise(problem: Problem, choice: Sequence[int], move: Move) -> float:
    groups = problem.groups
    return sum(groups[n].candidates[i].damage - groups[n].candidates[choice[n]].damage for n, i in move)


def _cheapest_step(problem: Problem, choice: Sequence[int]) -> Move | None:
    """Return the move with the least rise of damage for the excess it takes away; None where none does.

    The excess is the sum over limits of what is beyond them, relative to them: it falls with every step, so that the
    steps come to an end though one candidate may cost less of one resource and more of another.
    """
    amounts = {name: problem.amount(choice, name) for name, _ in problem.limits}
    limits = {name: max(most, 1e-300) for name, most in problem.limits}
    before = sum(max(amounts[name] - most, 0.0) / most for name, most in limits.items())
    best: Move | None = None
    least = np.inf
    for move in _moves(problem, choice):
        pairs = [(problem.groups[n].candidates[i], problem.groups[n].candidates[choice[n]]) for n, i in move]
        after = 0.0
        for name, most in limits.items():
            change = sum(then.cost(name) - now.cost(name) for then, now in pairs)
            after += max(amounts[name] + change - most, 0.0) / most
        if after >= before * (1 - 1e-12):
            continue
        price = sum(then.damage - now.damage for then, now in pairs) / (before - after)
        if price < least:
            best, least = move, price
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
