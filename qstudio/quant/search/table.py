"""The table a search decides from: damage and cost of every candidate of every group, as a `Problem`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qstudio.core.context import JobContext
from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.core.search import Candidate, Group, Problem, Solution
from qstudio.core.search_result import GroupDamage, LayerBits
from qstudio.core.search_settings import SearchSettings
from qstudio.quant.encodings import Encodings, activation_scheme
from qstudio.quant.evaluation.schemes import joined
from qstudio.quant.evaluator import FLOAT
from qstudio.quant.search.bench import Bench
from qstudio.quant.search.costs import Costs
from qstudio.quant.search.damage import DamageMeter
from qstudio.quant.search.groups import Coupling, Unit, chosen_units

WEIGHT, ACTIVATION = ("weight_bits",), ("activation_bits",)


class Choices:
    """What is free: units of weights and of activations, with the widths that make a difference for each.

    Args:
        bench: The model.
        recipe: What holds besides the chosen bits.
        coupling: All units.
        settings: Candidates, and what is kept.

    Raises:
        UserError: Nothing is free.
    """

    def __init__(self, bench: Bench, recipe: Recipe, coupling: Coupling, settings: SearchSettings) -> None:
        self.network, self.coupling, self.settings = bench.network, coupling, settings
        self._sites = {site.id: site for site in bench.network.activation_sites}
        self.base = recipe
        self.activations: tuple[tuple[int, Unit], ...] = ()
        free = chosen_units(coupling.weights, settings.keep_weights, lambda unit: bool(self.weight_widths(unit)))
        self.weights: tuple[tuple[int, Unit], ...] = free
        if settings.activation_bits:
            free = chosen_units(coupling.activations, settings.keep_activations, lambda unit: True)
            for _, unit in free:
                self.base = self.base.with_layers(unit.layers, activation_bits=settings.activation_bits[0])
            if len(settings.activation_bits) > 1:
                self.activations = tuple((n, unit) for n, unit in free if len(self.activation_widths(unit)) > 1)
        if not self.weights and not self.activations:
            raise UserError("no layer is free to choose", "search", "Keep fewer layers, or choose other formats")
        self.tied = {number: place for place, (number, _) in enumerate(self.activations)}
        """Number of an activation unit -> its place among the free ones."""
        chosen = {name for _, unit in self.weights for name in unit.layers}
        weighted = (layer.name for layer in self.network.layers if layer.weight is not None)
        self.kept = tuple(name for name in weighted if name not in chosen)
        """Layers whose weights are not chosen."""

    def weight_widths(self, unit: Unit) -> tuple[int, ...]:
        """Return the candidates of a unit's weights that its format tells apart."""
        found: dict[int, int] = {}
        for bits in self.settings.weight_bits:
            scheme = self.base.with_layers(unit.layers[:1], weight_bits=bits).settings(unit.layers[0]).weight_scheme()
            found.setdefault(scheme.bits, bits)
        return tuple(found.values()) if len(found) > 1 or len(self.settings.weight_bits) == 1 else ()

    def activation_widths(self, unit: Unit) -> tuple[int, ...]:
        """Return the candidates of a unit's tensors that its format tells apart."""
        site = self._sites[unit.sites[0]]
        found: dict[int, int] = {}
        for bits in self.settings.activation_bits:
            scheme = activation_scheme(site, self.base.with_layers(unit.layers, activation_bits=bits))
            found.setdefault(scheme.bits, bits)
        return tuple(found.values())

    def read_by(self, unit: Unit) -> int | None:
        """Return the place of the free activation unit that a unit of weights reads; None where it reads none."""
        for name in unit.layers:
            for site in self.coupling.reads.get(name, ()):
                number = self.coupling.activation_unit(site)
                if number in self.tied:
                    return self.tied[number]
        return None

    def uniform(self, bits: int, width: int | None) -> Recipe:
        """Return the recipe in which everything free has the same bits."""
        recipe = self.base
        for _, unit in self.weights:
            recipe = recipe.with_layers(unit.layers, weight_bits=bits)
        if width is not None:
            for _, unit in self.activations:
                recipe = recipe.with_layers(unit.layers, activation_bits=width)
        return recipe

    def recipe_of(self, problem: Problem, solution: Solution) -> Recipe:
        """Return the recipe of a solution."""
        recipe = self.base
        for layer, fields in solution.fields(problem).items():
            recipe = recipe.with_layers((layer,), **fields)
        return recipe

    def bits(self, recipe: Recipe) -> LayerBits:
        """Return the bits of every layer that has a weight or a tensor with its own encoding."""
        rows = []
        for layer in self.network.layers:
            settings = recipe.settings(layer.name)
            weight = settings.weight_scheme().bits if layer.weight is not None else None
            width = settings.activation_scheme().bits if layer.activation is not None else None
            if weight is not None or width is not None:
                rows.append((layer.name, weight, width))
        return tuple(rows)


@dataclass(frozen=True)
class Table:
    """Damages of everything that is free."""

    weights: tuple[tuple[float, ...], ...]
    """For each free unit of weights one for each of its widths."""
    activations: tuple[tuple[float, ...], ...]
    base: float
    """Of everything that is quantized and not free."""

    def rows(self, choices: Choices) -> tuple[GroupDamage, ...]:
        """Return the table for people."""
        rows = []
        for (_, unit), damages in zip(choices.weights, self.weights, strict=True):
            pairs = zip(choices.weight_widths(unit), damages, strict=True)
            rows.append(GroupDamage(unit.layers, "weights", tuple(pairs), unit.why))
        for (_, unit), damages in zip(choices.activations, self.activations, strict=True):
            pairs = zip(choices.activation_widths(unit), damages, strict=True)
            rows.append(GroupDamage(unit.layers, "activations", tuple(pairs), unit.why))
        return tuple(rows)


def measure_table(bench: Bench, choices: Choices, meter: DamageMeter, ctx: JobContext) -> Table:
    """Return the damage of every candidate, one unit quantized at a time and everything else float.

    From the last unit to the first, so that even with little memory what lies before a unit is found computed.

    Raises:
        JobCancelled: The search was stopped; what was measured is known the next time.
    """
    whole = _Whole(bench, choices)
    steps = sum(len(choices.weight_widths(unit)) for _, unit in choices.weights)
    steps += sum(len(choices.activation_widths(unit)) for _, unit in choices.activations) + 1
    done = 0

    def measured(encodings: Encodings, note: str) -> float:
        nonlocal done
        ctx.report(done, steps, note)
        done += 1
        return meter.damage(encodings, ctx.check)

    weights = [
        tuple(
            measured(joined(FLOAT, whole.at(bits, None), frozenset(unit.sites)), f"{unit.layers[0]} at {bits} bits")
            for bits in choices.weight_widths(unit)
        )
        for _, unit in reversed(choices.weights)
    ]
    activations = [
        tuple(
            measured(
                joined(FLOAT, whole.at(None, width), frozenset(unit.sites)),
                f"what {unit.layers[0]} puts out, at {width} bits",
            )
            for width in choices.activation_widths(unit)
        )
        for _, unit in reversed(choices.activations)
    ]
    free = {site for _, unit in (*choices.weights, *choices.activations) for site in unit.sites}
    base = measured(joined(whole.at(None, None), FLOAT, frozenset(free)), "what is not chosen")
    return Table(tuple(reversed(weights)), tuple(reversed(activations)), base)


class _Whole:
    """Encodings of recipes in which everything free has the same bits, each made once."""

    def __init__(self, bench: Bench, choices: Choices) -> None:
        self._bench, self._choices = bench, choices
        self._made: dict[tuple[int | None, int | None], Encodings] = {}

    def at(self, bits: int | None, width: int | None) -> Encodings:
        if (bits, width) not in self._made:
            choices = self._choices
            recipe = choices.base if bits is None else choices.uniform(bits, None)
            if width is not None:
                for _, unit in choices.activations:
                    recipe = recipe.with_layers(unit.layers, activation_bits=width)
            self._made[bits, width] = self._bench.encodings(recipe)
        return self._made[bits, width]


def latency_variants(choices: Choices, costs: Costs) -> Iterator[tuple[LayerInfo, Recipe, int]]:
    """Yield (layer, recipe, bits of what it reads) for everything whose latency the search will ask for."""
    layers = {layer.name: layer for layer in choices.network.layers}
    for name in choices.kept:
        widths: Sequence[int] = (max(costs.widths_read(name, choices.base)),)
        read = [choices.coupling.activation_unit(site) for site in choices.coupling.reads.get(name, ())]
        free = [choices.tied[number] for number in read if number in choices.tied]
        if free:
            widths = choices.activation_widths(choices.activations[free[0]][1])
        for width in widths:
            yield layers[name], choices.base, width
    for _, unit in choices.weights:
        place = choices.read_by(unit)
        for bits in choices.weight_widths(unit):
            recipe = choices.base.with_layers(unit.layers, weight_bits=bits)
            for name in unit.layers:
                widths = (max(costs.widths_read(name, recipe)),)
                if place is not None:
                    widths = choices.activation_widths(choices.activations[place][1])
                for width in widths:
                    yield layers[name], recipe, width


def make_problem(choices: Choices, table: Table, costs: Costs) -> Problem:
    """Return the problem without limits.

    A unit of weights has one candidate for each pair of its bits and the bits of what it reads, which are tied to the
    tensor's own: bit operations depend on both.
    """
    groups: list[Group] = []
    ties: list[list[int]] = [[place] for place in range(len(choices.activations))]
    for (_, unit), damages in zip(choices.activations, table.activations, strict=True):
        candidates = []
        for width, damage in zip(choices.activation_widths(unit), damages, strict=True):
            recipe = choices.base.with_layers(unit.layers, activation_bits=width)
            candidates.append(Candidate((0, width), damage, costs.activation_costs(unit, recipe, choices.kept)))
        groups.append(Group(unit.layers, tuple(candidates), ACTIVATION))
    for (_, unit), damages in zip(choices.weights, table.weights, strict=True):
        place = choices.read_by(unit)
        widths: Sequence[int | None] = (None,)
        if place is not None:
            widths = choices.activation_widths(choices.activations[place][1])
            ties[place].append(len(groups))
        candidates = []
        for bits, damage in zip(choices.weight_widths(unit), damages, strict=True):
            recipe = choices.base.with_layers(unit.layers, weight_bits=bits)
            for read in widths:
                cost = costs.weight_costs(unit, recipe, read)
                candidates.append(Candidate((bits, read or 0), damage, cost))
        groups.append(Group(unit.layers, tuple(candidates), WEIGHT))
    problem = Problem(tuple(groups), ties=tuple(tuple(tie) for tie in ties if len(tie) > 1))
    return Problem(problem.groups, (), _fixed(problem, choices, costs), problem.ties)


def _fixed(problem: Problem, choices: Choices, costs: Costs) -> tuple[tuple[str, float], ...]:
    """Return what is not chosen: the whole of one recipe less what its groups take."""
    choice = [
        max(range(len(group.candidates)), key=lambda i, group=group: group.candidates[i].bits)  # type: ignore[misc]
        for group in problem.groups
    ]
    amounts = costs.amounts(choices.recipe_of(problem, Solution(tuple(choice), 0.0, (), True)))
    return tuple((name, most - problem.amount(choice, name)) for name, most in amounts.items())
