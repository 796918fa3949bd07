"""Horizontal places in a layered drawing: each layer's nodes as near to their neighbours as their order allows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 6
BEND_MASS = 1e-4
"""Weight of a bend against a node where both want the same place: edges go round nodes, not nodes round edges."""
TRUNK = 8.0
"""Pull of the one node right above or below, so that a trunk stays straight beside its shortcuts."""
STRAIGHT = 4.0
"""Pull between two bends of one edge."""
SLACK = 0.0
"""Pull of a long edge's end on a node that has a trunk: any more, and each shortcut of a deep network shifts it."""


@dataclass(frozen=True)
class Chain:
    """The bends of a long edge: `length` numbers from `first` on, from top to bottom."""

    first: int
    length: int


def place(
    layers: Sequence[Sequence[int]],
    links: Sequence[Sequence[tuple[int, int]]],
    widths: Sequence[float],
    across: float,
    bend: float,
    ranks_per_step: int,
) -> Generator[None, None, list[float]]:
    """Return the centre of every node and bend.

    Args:
        layers: Nodes (below len(widths)) and bends (the others) of each layer, from left to right.
        links: Pairs that link each layer to the next.
        widths: Of the nodes; bends have none.
        across: Distance between nodes.
        bend: Distance between a bend and what stands beside it.
        ranks_per_step: Layers handled between two yields.
    """
    count = len(widths)
    total = sum(len(layer) for layer in layers)
    above: list[list[int]] = [[] for _ in range(total)]
    below: list[list[int]] = [[] for _ in range(total)]
    yield
    for step, pairs in enumerate(links):
        for source, target in pairs:
            below[source].append(target)
            above[target].append(source)
        if step % ranks_per_step == 0:
            yield
    pull_above: list[tuple[tuple[int, float], ...]] = []
    pull_below: list[tuple[tuple[int, float], ...]] = []
    for node in range(total):
        pull_above.append(_pulls(node, above[node], below, count))
        pull_below.append(_pulls(node, below[node], above, count))
        if node % (8 * ranks_per_step) == 0:
            yield
    offsets = []
    xs = [0.0] * total
    for step, layer in enumerate(layers):
        if step % ranks_per_step == 0:
            yield
        gaps = [0.0]
        for left, right in pairwise(layer):
            apart = across if left < count and right < count else bend
            gaps.append(gaps[-1] + _half(left, widths) + _half(right, widths) + apart)
        offsets.append(gaps)
        for node, gap in zip(layer, gaps, strict=True):
            xs[node] = gap - gaps[-1] / 2
    numbers = range(len(layers))
    for sweep in range(SWEEPS):
        pulls = pull_above if sweep % 2 == 0 else pull_below
        for step, number in enumerate(numbers if sweep % 2 == 0 else reversed(numbers)):
            _settle(layers[number], offsets[number], pulls, xs, count)
            if step % ranks_per_step == 0:
                yield
    return xs


def _half(node: int, widths: Sequence[float]) -> float:
    return widths[node] / 2 if node < len(widths) else 0.0


def _pulls(node: int, near: list[int], back: list[list[int]], count: int) -> tuple[tuple[int, float], ...]:
    """Return the neighbours on one side and how strongly each pulls."""
    if node >= count:
        return tuple((other, STRAIGHT if other >= count else 1.0) for other in near)
    real = [other for other in near if other < count]
    if len(real) == 1:
        # A neighbour with other neighbours of its own kind on this side is no trunk but one branch of several.
        branches = sum(other < count for other in back[real[0]])
        strong = TRUNK if branches == 1 else 1.0
        return tuple((other, strong if other < count else SLACK) for other in near)
    return tuple((other, 1.0 if other < count or not real else SLACK) for other in near)


def _settle(
    layer: Sequence[int],
    offsets: Sequence[float],
    pulls: Sequence[tuple[tuple[int, float], ...]],
    xs: list[float],
    count: int,
) -> None:
    """Move a layer as near to where it is pulled as its order and distances allow.

    Least squares under an order is isotonic regression: pool adjacent violators (Barlow et al., 1972).
    """
    blocks: list[list[float]] = []  # [mean of wanted first place, weight, members]
    for node, offset in zip(layer, offsets, strict=True):
        weight = wanted = 0.0
        for other, strength in pulls[node]:
            weight += strength
            wanted += strength * xs[other]
        if weight:
            wanted /= weight
        else:
            weight, wanted = 0.1, xs[node]
        if node >= count:
            weight *= BEND_MASS
        blocks.append([wanted - offset, weight, 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, mass, members = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * mass) / (last[1] + mass)
            last[1] += mass
            last[2] += members
    index = 0
    for mean, _, members in blocks:
        for _ in range(int(members)):
            xs[layer[index]] = mean + offsets[index]
            index += 1
