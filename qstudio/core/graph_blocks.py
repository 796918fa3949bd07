"""Which nodes of a network are one block that is repeated: by the scopes in names, else by a repeating pattern."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from qstudio.core.graph_layout import reachable_order

NUMBERED = re.compile(r"^(.*?)\d+$")
INNER_SHARE = 0.7
"""Blocks within blocks are taken instead of the outer ones when they hold this share of their nodes."""
LEAST_SHARE = 0.3
"""Patterns are looked for when names put less than this share of the nodes into blocks."""
NODES_PER_STEP = 400
"""Names read between two chances to stop."""
LONGEST_PATTERN = 48
"""Nodes in the longest repeating pattern that is looked for."""


@dataclass(frozen=True)
class BlockNode:
    """What is known of a node when blocks are looked for."""

    name: str
    kind: str
    """Operator and shape; nodes at the same place of two like blocks have the same."""
    weight: str = ""
    """Name of its weight tensor; often the only name that tells the block."""


@dataclass(frozen=True)
class NodeBlock:
    """Nodes that are shown as one when collapsed."""

    title: str
    """The scope that its nodes share ("layer1.0"), or "repeat 3"."""
    pattern: str
    """What like blocks have in common ("layer*.*")."""
    members: tuple[int, ...]


def find_blocks(nodes: Sequence[BlockNode], edges: Sequence[tuple[int, int]]) -> tuple[NodeBlock, ...]:
    """Return blocks of at least two nodes that occur at least twice; collapsing any of them leaves no cycle.

    Args:
        nodes: In the order in which they run.
        edges: (source, target) as positions in `nodes`, source before target.
    """
    steps = block_steps(nodes, edges)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: tuple[NodeBlock, ...] = stop.value
            return found


def block_steps(
    nodes: Sequence[BlockNode], edges: Sequence[tuple[int, int]]
) -> Generator[None, None, tuple[NodeBlock, ...]]:
    """Find blocks in short steps, so that a window stays alive meanwhile; see `find_blocks`."""
    scopes = []
    for number, node in enumerate(nodes):
        scopes.append(_scope(node))
        if number % NODES_PER_STEP == 0:
            yield
    assigned = _by_scope(scopes)
    yield
    _absorb(nodes, scopes, edges, assigned)
    yield
    blocks = _collect(assigned)
    if sum(len(block.members) for block in blocks) < LEAST_SHARE * len(nodes):
        blocks = (*blocks, *_by_pattern(nodes, {member for block in blocks for member in block.members}))
    yield
    return _without_cycles(len(nodes), edges, blocks)


# ---- names


def tokens(name: str) -> tuple[str, ...]:
    """Return the parts of a name; a part that repeats the one before it ("/layer1/layer1.0/conv1") counts once."""
    parts: list[str] = []
    before = ""
    for piece in filter(None, name.split("/")):
        rest = piece[len(before) + 1 :] if before and piece.startswith(f"{before}.") else piece
        parts += [part for part in rest.split(".") if part]
        before = piece
    return tuple(parts)


def _scope(node: BlockNode) -> tuple[str, ...]:
    """Return the numbered scope of a node: the parts of its name, or of its weight's, up to the last numbered one."""
    for parts in (tokens(node.name)[:-1], tokens(node.weight)[:-2] if node.weight else ()):
        last = max((place for place, part in enumerate(parts) if NUMBERED.match(part)), default=-1)
        if last >= 0:
            return parts[: last + 1]
    return ()


def _pattern(prefix: tuple[str, ...]) -> str:
    return ".".join(re.sub(r"\d+$", "*", part) for part in prefix)


def _by_scope(scopes: Sequence[tuple[str, ...]]) -> dict[int, tuple[str, str]]:
    """Return (pattern, title) of the block of each node whose name tells one."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for node, scope in enumerate(scopes):
        for end, part in enumerate(scope, 1):
            if NUMBERED.match(part):
                groups[scope[:end]].append(node)
    patterns: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for prefix, members in groups.items():
        if 2 <= len(members) <= len(scopes) / 2:
            patterns[_pattern(prefix)].append(prefix)
    patterns = {pattern: found for pattern, found in patterns.items() if len(found) >= 2}
    covered = {pattern: sum(len(groups[prefix]) for prefix in found) for pattern, found in patterns.items()}
    assigned: dict[int, tuple[str, str]] = {}
    for pattern in sorted(patterns, key=lambda text: text.count(".")):
        if any(pattern.startswith(f"{outer}.") for outer in patterns):
            continue
        chosen = pattern
        while True:
            inner = [
                text
                for text in patterns
                if text.startswith(f"{chosen}.")
                and covered[text] >= INNER_SHARE * covered[chosen]
                and len(patterns[text]) > len(patterns[chosen])
            ]
            if not inner:
                break
            chosen = max(inner, key=lambda text: (covered[text], text))
        for prefix in patterns[chosen]:
            for node in groups[prefix]:
                assigned[node] = (chosen, ".".join(prefix))
    return assigned


def _absorb(
    nodes: Sequence[BlockNode],
    scopes: Sequence[tuple[str, ...]],
    edges: Sequence[tuple[int, int]],
    assigned: dict[int, tuple[str, str]],
) -> None:
    """Give nodes without scope and weight (an Add at a block's end) to the block they come from.

    Only where at least half of the like blocks (and two of them) have the same node at the same place: what follows
    the last block is not part of it.
    """
    before: list[list[int]] = [[] for _ in nodes]
    after: list[list[int]] = [[] for _ in nodes]
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    free = [not scopes[n] and not node.weight and n not in assigned and bool(before[n]) for n, node in enumerate(nodes)]
    trial: dict[int, tuple[str, str]] = {}
    taken: dict[tuple[str, str], list[int]] = defaultdict(list)
    for node in range(len(nodes)):
        if free[node]:
            latest = max(before[node])
            block = assigned.get(latest) or trial.get(latest)
            if block is not None:
                trial[node] = block
                taken[block].append(node)
    like = Counter(pattern for pattern, _ in set(assigned.values()))
    votes = Counter(
        (pattern, place, nodes[node].kind) for (pattern, _), found in taken.items() for place, node in enumerate(found)
    )
    for block, found in taken.items():
        for place, node in enumerate(found):
            if votes[block[0], place, nodes[node].kind] < max(2, like[block[0]] / 2):
                break
            assigned[node] = block
    for node in range(len(nodes) - 1, -1, -1):
        if free[node] and node not in assigned and after[node]:
            blocks = {assigned.get(target) for target in after[node]}
            if len(blocks) == 1 and (only := blocks.pop()) is not None:
                assigned[node] = only


# ---- patterns


def _by_pattern(nodes: Sequence[BlockNode], known: set[int]) -> tuple[NodeBlock, ...]:
    """Return what repeats at least three times in a row in the order of the nodes."""
    free = [node for node in range(len(nodes)) if node not in known]
    kinds = [nodes[node].kind for node in free]
    best: tuple[int, int, int] = (0, 0, 0)  # nodes covered, start, length of the pattern
    for length in range(2, min(LONGEST_PATTERN, len(kinds) // 3) + 1):
        run = 0
        for place in range(len(kinds) - length + 1):
            same = place + length < len(kinds) and kinds[place] == kinds[place + length]
            if same:
                run += 1
                continue
            repeats = run // length + 1
            start = place - run
            if repeats >= 3 and repeats * length > best[0] and len(set(kinds[start : start + length])) > 1:
                best = (repeats * length, start, length)
            run = 0
    covered, start, length = best
    return tuple(
        NodeBlock(f"repeat {number + 1}", "repeat *", tuple(free[place : place + length]))
        for number, place in enumerate(range(start, start + covered, max(length, 1)))
    )


# ---- soundness


def _collect(assigned: dict[int, tuple[str, str]]) -> tuple[NodeBlock, ...]:
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for node in sorted(assigned):
        members[assigned[node]].append(node)
    return tuple(NodeBlock(title, pattern, tuple(found)) for (pattern, title), found in members.items())


def _without_cycles(
    count: int, edges: Sequence[tuple[int, int]], blocks: tuple[NodeBlock, ...]
) -> tuple[NodeBlock, ...]:
    """Leave out blocks that a path leaves and enters again: as one node they would lie on a cycle."""
    while blocks:
        stands_for = list(range(count))
        for number, block in enumerate(blocks):
            for member in block.members:
                stands_for[member] = count + number
        merged = {
            (stands_for[source], stands_for[target])
            for source, target in edges
            if stands_for[source] != stands_for[target]
        }
        sound = set(reachable_order(count + len(blocks), sorted(merged)))
        sound |= set(reachable_order(count + len(blocks), sorted((target, source) for source, target in merged)))
        # What is reached neither from the front nor from the back lies on a cycle, or between two of them.
        bad = {number for number in range(len(blocks)) if count + number not in sound}
        if not bad:
            break
        blocks = tuple(block for number, block in enumerate(blocks) if number not in bad)
    return tuple(sorted(blocks, key=lambda block: block.members[0]))
