"""The exact search: published assignments, brute force, and limits that cannot be kept."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from quant_cases import case

from qstudio.core.errors import UserError
from qstudio.core.search import Candidate, Group, Problem, pareto, solve_greedy
from qstudio.quant.search.exact import solve_exact


def random_problem(seed: int, groups: int = 6, candidates: int = 3) -> Problem:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(groups):
        size = rng.integers(1, 50)
        found = []
        for bits in (8, 4, 2, 3)[:candidates]:
            damage = float(size * 2.0 ** (-2 * bits) * rng.uniform(0.2, 5))
            costs = (("size_bytes", float(size * bits)), ("bops", float(rng.integers(1, 9) * bits * bits)))
            found.append(Candidate((bits, 8), damage, costs))
        made.append(Group((f"layer{number}",), tuple(found)))
    return Problem(tuple(made))


def extremes(problem: Problem, resource: str) -> tuple[float, float]:
    low = sum(min(c.cost(resource) for c in g.candidates) for g in problem.groups)
    return low, sum(max(c.cost(resource) for c in g.candidates) for g in problem.groups)


def limited(problem: Problem, share: float, *resources: str) -> Problem:
    limits = {}
    for name in resources:
        low, high = extremes(problem, name)
        limits[name] = low + share * (high - low)
    return problem.with_limits(limits)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("resources", [("size_bytes",), ("size_bytes", "bops")])
def test_nothing_better_exists_and_greedy_keeps_the_limits(seed, resources):
    problem = limited(random_problem(seed), 0.4, *resources)
    every = itertools.product(*(range(len(g.candidates)) for g in problem.groups))
    best = min(problem.damage(choice) for choice in every if problem.is_within(choice))
    found = solve_exact(problem)
    assert found.exact
    assert problem.is_within(found.choice)
    assert found.damage == pytest.approx(best, rel=1e-9)
    greedy = solve_greedy(problem)
    assert problem.is_within(greedy.choice)
    assert best * (1 - 1e-9) <= greedy.damage <= 4 * best


def test_layers_of_a_group_share_their_bits():
    group = Group(("a", "b"), (Candidate((8, 8), 0.1, (("size_bytes", 8.0),)), Candidate((4, 8), 1.0, ())))
    problem = Problem((group,), (("size_bytes", 1.0),))
    assert solve_exact(problem).bits(problem) == {"a": (4, 8), "b": (4, 8)}


@pytest.mark.parametrize("solve", [solve_exact, solve_greedy])
def test_a_limit_below_the_least_is_refused_with_the_least(solve):
    problem = random_problem(0)
    least = extremes(problem, "size_bytes")[0]
    with pytest.raises(UserError) as caught:
        solve(problem.with_limits({"size_bytes": least - 1}))
    assert f"{least:.6g}" in caught.value.sentence()
    assert solve(problem.with_limits({"size_bytes": least})).amounts[0] == ("size_bytes", least)


def test_points_that_nothing_beats():
    points = np.array([[1.0, 5.0], [2.0, 3.0], [2.0, 4.0], [3.0, 3.0], [4.0, 1.0], [2.0, 3.0]])
    assert pareto(points).tolist() == [True, True, False, False, True, False]


def hawq_problem(data: dict, resource: str, fraction: float) -> Problem:
    """Return one of the published problems: 8 or 4 bits for 19 layers, three pairs of which are tied."""
    trace = data["hutchinson_trace"]
    four, eight = data["delta_weights_4bit_square"], data["delta_weights_8bit_square"]
    if resource == "size":
        cost8, cost4 = [8 * p for p in data["parameters_millions"]], [4 * p for p in data["parameters_millions"]]
    elif resource == "bops":
        cost8, cost4 = [b * 64 for b in data["bops"]], [b * 16 for b in data["bops"]]
    else:
        cost8, cost4 = data["latency_int8"], data["latency_int4"]
    tied = {b: a for a, b in data["ties"]}
    members: dict[int, list[int]] = {}
    for number in range(len(trace)):
        members.setdefault(tied.get(number, number), []).append(number)
    groups = []
    for layers in members.values():
        candidates = tuple(
            Candidate(
                (bits, bits),
                sum(trace[i] * delta[i] for i in layers),
                (("size_bytes", sum(cost[i] for i in layers)),),
            )
            for bits, delta, cost in ((8, eight, cost8), (4, four, cost4))
        )
        groups.append(Group(tuple(str(i) for i in layers), candidates))
    limit = sum(cost4) + fraction * (sum(cost8) - sum(cost4))
    return Problem(tuple(groups), (("size_bytes", limit),))


def gained(data: dict, bits: str) -> float:
    """Return the published objective of an assignment: sum of trace x (delta8 - delta4) over its 8-bit layers."""
    eight, four = data["delta_weights_8bit_square"], data["delta_weights_4bit_square"]
    return sum(t * (e - f) for t, e, f, b in zip(data["hutchinson_trace"], eight, four, bits, strict=True) if b == "8")


@pytest.mark.parametrize("resource", ["size", "bops", "latency"])
@pytest.mark.parametrize("fraction", ["0.75", "0.5", "0.25"])
def test_the_published_optima_of_hawq_v3_are_found(resource, fraction):
    data = json.loads(case("hawq_v3_resnet18.json").read_text())
    problem = hawq_problem(data, resource, float(fraction))
    found = solve_exact(problem)
    assert found.exact
    bits = "".join(str(found.bits(problem)[str(i)][0]) for i in range(19))
    optimum = data["objective_values"][resource][fraction]
    assert gained(data, bits) == pytest.approx(optimum, abs=2e-6)
    # Three of the nine printed assignments are beyond their own limit (one of them splits a tied pair) and have another
    # objective than the one printed beside them; the six others are found to the layer.
    printed = data["published"][resource][fraction]
    if gained(data, printed) == pytest.approx(optimum, abs=2e-6):
        assert bits == printed
    else:
        assert (resource, fraction) in {("bops", "0.75"), ("latency", "0.75"), ("latency", "0.5")}
        choice = [0 if printed[int(group.layers[0])] == "8" else 1 for group in problem.groups]
        assert not problem.is_within(choice)


def tied_problem(seed: int) -> Problem:
    """Two tensors, each read by two layers: the bit operations of a layer depend on the width of what it reads."""
    rng = np.random.default_rng(seed)
    groups, ties = [], []
    for tensor in range(2):
        members = [len(groups)]
        widths = tuple(Candidate((0, a), float(rng.uniform(1, 3)) * 2.0**-a, ()) for a in (8, 4))
        groups.append(Group((f"tensor{tensor}",), widths, ("activation_bits",)))
        for layer in range(2):
            macs, scale = float(rng.integers(1, 9)), float(rng.uniform(1, 9))
            pairs = itertools.product((8, 4, 2), (8, 4))
            found = tuple(Candidate((w, a), scale * 2.0**-w, (("bops", macs * w * a),)) for w, a in pairs)
            members.append(len(groups))
            groups.append(Group((f"layer{tensor}{layer}",), found, ("weight_bits",)))
        ties.append(tuple(members))
    return Problem(tuple(groups), ties=tuple(ties))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_what_layers_read_is_chosen_once(seed, share):
    problem = limited(tied_problem(seed), share, "bops")
    every = itertools.product(*(range(len(g.candidates)) for g in problem.groups))
    best = min(problem.damage(c) for c in every if problem.is_tied(c) and problem.is_within(c))
    found, greedy = solve_exact(problem), solve_greedy(problem)
    for solution in (found, greedy):
        assert problem.is_tied(solution.choice)
        assert problem.is_within(solution.choice)
    assert found.damage == pytest.approx(best, rel=1e-9)
    assert best * (1 - 1e-9) <= greedy.damage <= 4 * best
    assert set(found.fields(problem)["tensor0"]) == {"activation_bits"}
    assert set(found.fields(problem)["layer01"]) == {"weight_bits"}
