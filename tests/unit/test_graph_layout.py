"""The layered layout: nothing overlaps, every edge runs down, trunks are straight, and it takes no time."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from qstudio.core.graph_layout import GraphLayout, Spacing, layered_layout, layout_steps

SIZE = (180.0, 44.0)
Edges = list[tuple[int, int]]


def chain(count: int) -> Edges:
    return [(node, node + 1) for node in range(count - 1)]


def residual(count: int) -> Edges:
    return chain(count) + [(node, node + 3) for node in range(0, count - 3, 3)]


def scattered(count: int, seed: int = 0) -> Edges:
    rng = random.Random(seed)
    near = [(rng.randrange(max(0, node - 6), node), node) for node in range(1, count)]
    far = [tuple(sorted(rng.sample(range(count), 2))) for _ in range(count // 4)]
    return sorted({*near, *far})  # type: ignore[arg-type]


def u_shaped(count: int) -> Edges:
    return chain(count) + [(node, count - 1 - node) for node in range(count // 3)]


def lay(count: int, edges: Edges) -> GraphLayout:
    return layered_layout([SIZE] * count, edges)


@pytest.mark.parametrize("edges", [chain(20), residual(31), scattered(60), scattered(80, 3), u_shaped(40)])
def test_nothing_overlaps_and_every_edge_runs_down(edges: Edges) -> None:
    count = max(target for _, target in edges) + 1
    layout = lay(count, edges)
    for source, target in edges:
        assert layout.rank[source] < layout.rank[target]
    gap = Spacing().across
    for rank in range(int(layout.rank.max()) + 1):
        xs = np.sort(layout.x[layout.rank == rank])
        assert (np.diff(xs) >= SIZE[0] + gap - 1e-6).all()
        assert len(set(layout.y[layout.rank == rank])) == 1
    assert (layout.x - SIZE[0] / 2 >= -1e-9).all()
    assert (layout.x + SIZE[0] / 2 <= layout.width + 1e-9).all()
    assert (layout.y + SIZE[1] / 2 <= layout.height + 1e-9).all()
    for (source, target), route in zip(edges, layout.routes, strict=True):
        assert route[0] == (layout.x[source], layout.y[source] + SIZE[1] / 2)
        assert route[-1] == (layout.x[target], layout.y[target] - SIZE[1] / 2)
        ys = [y for _, y in route]
        assert ys == sorted(ys)


@pytest.mark.parametrize("edges", [residual(31), scattered(60), u_shaped(40)])
def test_edges_pass_no_node_on_their_way(edges: Edges) -> None:
    count = max(target for _, target in edges) + 1
    layout = lay(count, edges)
    for route in layout.routes:
        for x, y in route[1:-1]:
            inside = (abs(layout.x - x) < SIZE[0] / 2) & (abs(layout.y - y) < SIZE[1] / 2)
            assert not inside.any()


def test_the_trunk_of_a_residual_network_is_straight() -> None:
    layout = lay(301, residual(301))
    assert np.ptp(layout.x) < 1.0
    assert layout.width < 2 * SIZE[0]


def test_like_branches_stand_beside_each_other_and_join_in_the_middle() -> None:
    layout = lay(6, [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5)])
    assert len(set(layout.y[1:4])) == 1
    assert layout.x[4] == pytest.approx(np.mean(layout.x[1:4]))
    assert layout.x[0] == pytest.approx(layout.x[4])


def test_an_order_without_crossings_is_found() -> None:
    # Two ladders whose nodes come in turns: 0-2-4-6 and 1-3-5-7, joined at the ends the wrong way round.
    edges = [(0, 3), (1, 2), (2, 5), (3, 4), (4, 7), (5, 6)]
    layout = lay(8, edges)
    for rank in range(3):
        pairs = [(layout.x[s], layout.x[t]) for s, t in edges if layout.rank[s] == rank]
        assert (pairs[0][0] < pairs[1][0]) == (pairs[0][1] < pairs[1][1])


def test_the_same_graph_always_gives_the_same_layout() -> None:
    first, second = lay(80, scattered(80)), lay(80, scattered(80))
    assert (first.x == second.x).all()
    assert (first.y == second.y).all()
    assert first.routes == second.routes


def test_a_source_stands_right_above_what_it_feeds() -> None:
    layout = lay(5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert layout.rank[4] == layout.rank[3] - 1


def test_a_cycle_is_refused_and_nothing_is_laid_out_as_nothing() -> None:
    with pytest.raises(ValueError, match="cycle"):
        lay(3, [(0, 1), (1, 2), (2, 1)])
    empty = layered_layout([], [])
    assert (empty.width, empty.height, empty.routes) == (0.0, 0.0, ())
    assert layered_layout([SIZE], []).width == SIZE[0]


def test_the_longest_edges_take_lanes_when_there_are_too_many_bends() -> None:
    count = 120
    edges = u_shaped(count) + [(node, node + 60) for node in range(40)]
    layout = lay(count, edges)
    lanes = [route for route in layout.routes if len(route) == 4 and route[1][0] == route[2][0]]
    assert lanes
    assert all(route[1][0] > layout.x.max() + SIZE[0] / 2 for route in lanes)
    assert max(route[1][0] for route in lanes) <= layout.width


@pytest.mark.benchmark
@pytest.mark.parametrize("make", [chain, residual, u_shaped, scattered], ids=lambda make: make.__name__)
def test_a_thousand_nodes_take_less_than_a_third_of_a_second(make: object) -> None:
    for count in (1000, 5000):
        edges = make(count)  # type: ignore[operator]
        steps = layout_steps([SIZE] * count, edges)
        start = last = time.perf_counter()
        longest = 0.0
        done = False
        while not done:
            try:
                next(steps)
            except StopIteration:
                done = True
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        total_ms, longest_ms = 1000 * (last - start), 1000 * longest
        name = make.__name__  # type: ignore[attr-defined]
        print(f"{name} {count:,} nodes {len(edges):,} edges: {total_ms:.0f} ms, longest step {longest_ms:.1f} ms")
        assert longest_ms < 50
        assert count > 1000 or total_ms < 300
