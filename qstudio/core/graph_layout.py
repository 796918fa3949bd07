"""Where the nodes of a directed acyclic graph stand: in layers from top to bottom, with few crossings.

The method of Sugiyama, Tagawa and Toda (1981): layers by longest path, order within a layer by barycentres, then
coordinates. Own code because no library serves: grandalf and igraph are under the GPL, fast-sugiyama needs Python 3.11
and a C library of 2022 and gives no routes for edges, networkx and rustworkx have no layered coordinates.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.graph_coordinates import Chain, place

SWEEPS = 4
"""Passes down and up that reorder layers; more rarely remove another crossing."""
MOST_BENDS_PER_NODE = 4
"""Bends of long edges for each node; the longest edges beyond that budget run in lanes at the right instead."""
RANKS_PER_STEP = 24
"""Layers handled between two chances to stop."""


@dataclass(frozen=True, eq=False)
class GraphLayout:
    """Positions of nodes and the ways of edges; x to the right, y down, in the unit of the sizes given."""

    x: NDArray[np.float64]
    """[N] centres."""
    y: NDArray[np.float64]
    """[N] centres."""
    rank: NDArray[np.int64]
    """[N] layer of each node, 0 at the top."""
    routes: tuple[tuple[tuple[float, float], ...], ...]
    """For each edge the points it passes, from the lower side of its source to the upper side of its target."""
    width: float
    height: float


@dataclass(frozen=True)
class Spacing:
    """Distances between things, in the unit of the sizes."""

    across: float = 20.0
    """Between neighbours in a layer."""
    down: float = 30.0
    """Between layers."""
    bend: float = 12.0
    """Between an edge that passes a layer and its neighbours."""


def layered_layout(
    sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], spacing: Spacing | None = None
) -> GraphLayout:
    """Return the layout of a graph at once; the same graph always gives the same layout.

    Args:
        sizes: Width and height of each node.
        edges: (source, target) as positions in `sizes`.
        spacing: Distances; None = the usual ones.

    Raises:
        ValueError: The graph has a cycle.
    """
    steps = layout_steps(sizes, edges, spacing)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: GraphLayout = stop.value
            return found


def layout_steps(
    sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], spacing: Spacing | None = None
) -> Generator[None, None, GraphLayout]:
    """Lay a graph out in short steps (about 1 ms each), so that a window stays alive meanwhile; see `layered_layout`.

    Raises:
        ValueError: The graph has a cycle.
    """
    spacing = spacing or Spacing()
    count = len(sizes)
    if not count:
        nothing = np.zeros(0)
        return GraphLayout(nothing, nothing, np.zeros(0, np.int64), (), 0.0, 0.0)
    rank = find_ranks(count, edges)
    yield
    chains, lanes = _split(rank, edges, count * MOST_BENDS_PER_NODE)
    layers, links = yield from _layers(rank.tolist(), edges, chains)
    yield from _reorder(layers, links)
    widths = [size[0] for size in sizes]
    xs = yield from place(layers, links, widths, spacing.across, spacing.bend, RANKS_PER_STEP)
    yield
    across = np.array(xs)
    across -= min(float((across[:count] - np.array(widths) / 2).min()), float(across.min()))
    xs = across.tolist()
    heights = np.zeros(len(layers))
    for node, size in enumerate(sizes):
        heights[rank[node]] = max(heights[rank[node]], size[1])
    tops = np.concatenate(([0.0], np.cumsum(heights + spacing.down)))[:-1]
    middle = tops + heights / 2
    yield
    routes, width = yield from _routes(sizes, edges, rank, xs, tops, heights, chains, lanes, spacing)
    return GraphLayout(
        across[:count], middle[rank], rank, routes, width, float(tops[-1] + heights[-1]) if len(layers) else 0.0
    )


def find_ranks(count: int, edges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the layer of each node: the longest way to it from a source; sources stand right above what they feed.

    Raises:
        ValueError: The graph has a cycle.
    """
    order = topological_order(count, edges)
    after: list[list[int]] = [[] for _ in range(count)]
    fed = [False] * count
    for source, target in edges:
        after[source].append(target)
        fed[target] = True
    rank = [0] * count
    for node in order:
        for target in after[node]:
            rank[target] = max(rank[target], rank[node] + 1)
    for node in reversed(order):
        if not fed[node] and after[node]:
            rank[node] = min(rank[target] for target in after[node]) - 1
    return np.array(rank, np.int64)


def topological_order(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the nodes so that sources come before targets, otherwise in their own order (Kahn, 1962).

    Raises:
        ValueError: The graph has a cycle.
    """
    order = reachable_order(count, edges)
    if len(order) < count:
        raise ValueError("the graph has a cycle")
    return order


def reachable_order(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return `topological_order` of the nodes that neither lie on a cycle nor come after one."""
    after: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for source, target in edges:
        after[source].append(target)
        waiting[target] += 1
    ready = [node for node in range(count - 1, -1, -1) if not waiting[node]]
    order = []
    while ready:
        node = ready.pop()
        order.append(node)
        for target in reversed(after[node]):
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return order


def _split(
    rank: NDArray[np.int64], edges: Sequence[tuple[int, int]], budget: int
) -> tuple[dict[int, Chain], tuple[int, ...]]:
    """Return the bends of edges longer than one layer, and the edges that take a lane because there are too many."""
    spans = [(int(rank[target] - rank[source]), number) for number, (source, target) in enumerate(edges)]
    long = sorted((span, number) for span, number in spans if span > 1)
    chains: dict[int, Chain] = {}
    lanes = []
    used, following = 0, len(rank)
    for span, number in long:
        if used + span - 1 > budget:
            lanes.append(number)
            continue
        used += span - 1
        chains[number] = Chain(following, span - 1)
        following += span - 1
    return chains, tuple(lanes)


def _layers(
    rank: list[int], edges: Sequence[tuple[int, int]], chains: dict[int, Chain]
) -> Generator[None, None, tuple[list[list[int]], list[list[tuple[int, int]]]]]:
    """Return the nodes and bends of each layer in a first order, and the links from each layer to the next."""
    depth = max(rank) + 1
    layers: list[list[int]] = [[] for _ in range(depth)]
    links: list[list[tuple[int, int]]] = [[] for _ in range(depth)]
    for node, layer in enumerate(rank):
        layers[layer].append(node)
    for number, (source, target) in enumerate(edges):
        if number % (4 * RANKS_PER_STEP) == 0:
            yield
        top = rank[source]
        chain = chains.get(number)
        if chain is None:
            if rank[target] - top == 1:
                links[top].append((source, target))
            continue
        previous = source
        for step in range(chain.length):
            bend = chain.first + step
            layers[top + 1 + step].append(bend)
            links[top + step].append((previous, bend))
            previous = bend
        links[rank[target] - 1].append((previous, target))
    return layers, links


def _reorder(layers: list[list[int]], links: list[list[tuple[int, int]]]) -> Generator[None, None, None]:
    """Order each layer by the mean place of its neighbours, down and up in turns; keep the order that crosses least."""
    place_of: dict[int, int] = {}
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for step, (layer, pairs) in enumerate(zip(layers, links, strict=True)):
        place_of.update((node, number) for number, node in enumerate(layer))
        if step % RANKS_PER_STEP == 0:
            yield
        for source, target in pairs:
            below.setdefault(source, []).append(target)
            above.setdefault(target, []).append(source)
    best = [list(layer) for layer in layers]
    fewest = yield from _crossings(links, place_of)
    for sweep in range(2 * SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        neighbours = above if down else below
        for step, layer in enumerate(layers if down else reversed(layers)):
            if len(layer) > 1:
                keys = {}
                for node in layer:
                    near = neighbours.get(node)
                    keys[node] = sum(place_of[n] for n in near) / len(near) if near else float(place_of[node])
                layer.sort(key=keys.__getitem__)
                place_of.update((node, number) for number, node in enumerate(layer))
            if step % RANKS_PER_STEP == 0:
                yield
        crossings = yield from _crossings(links, place_of)
        if crossings < fewest:
            fewest, best = crossings, [list(layer) for layer in layers]
    for layer, kept in zip(layers, best, strict=True):
        layer[:] = kept


def _crossings(links: list[list[tuple[int, int]]], place_of: dict[int, int]) -> Generator[None, None, int]:
    """Return how many pairs of links cross."""
    total = 0
    for step, pairs in enumerate(links):
        if len(pairs) > 1:
            seen: list[int] = []
            for _, target in sorted((place_of[source], place_of[target]) for source, target in pairs):
                total += len(seen) - bisect_right(seen, target)
                insort(seen, target)
        if step % RANKS_PER_STEP == 0:
            yield
    return total


def _routes(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    rank: NDArray[np.int64],
    xs: list[float],
    tops: NDArray[np.float64],
    heights: NDArray[np.float64],
    chains: dict[int, Chain],
    lanes: tuple[int, ...],
    spacing: Spacing,
) -> Generator[None, None, tuple[tuple[tuple[tuple[float, float], ...], ...], float]]:
    """Return the points of every edge, and the width of the whole with lanes at the right of what they pass."""
    middle = tops + heights / 2
    right = np.zeros(len(middle))
    for node, size in enumerate(sizes):
        layer = int(rank[node])
        right[layer] = max(right[layer], xs[node] + size[0] / 2)
    for number, chain in chains.items():
        top = int(rank[edges[number][0]]) + 1
        if number % (4 * RANKS_PER_STEP) == 0:
            yield
        passed = slice(top, top + chain.length)
        right[passed] = np.maximum(right[passed], xs[chain.first : chain.first + chain.length])
    in_lane = dict.fromkeys(lanes)
    routes: list[tuple[tuple[float, float], ...]] = []
    lane_x: dict[int, float] = {}
    for number in in_lane:
        source, target = edges[number]
        passed = slice(int(rank[source]), int(rank[target]) + 1)
        if number % (4 * RANKS_PER_STEP) == 0:
            yield
        lane_x[number] = float(right[passed].max()) + spacing.bend
        right[passed] = lane_x[number]
    for number, (source, target) in enumerate(edges):
        if number % (4 * RANKS_PER_STEP) == 0:
            yield
        start = (xs[source], float(middle[rank[source]]) + sizes[source][1] / 2)
        end = (xs[target], float(middle[rank[target]]) - sizes[target][1] / 2)
        between: list[tuple[float, float]] = []
        held = chains.get(number)
        if held is not None:
            top = int(rank[source]) + 1
            for step in range(held.length):  # upright past the nodes of a layer, so that it turns between layers only
                x, layer = xs[held.first + step], top + step
                between += [(x, float(tops[layer])), (x, float(tops[layer] + heights[layer]))]
        elif number in lane_x:
            x, below, above = lane_x[number], int(rank[source]) + 1, int(rank[target]) - 1
            between = [(x, float(tops[below])), (x, float(tops[above] + heights[above]))]
        routes.append((start, *between, end))
    return tuple(routes), float(right.max())
