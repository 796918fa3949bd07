"""The timeline as rows: runs and the edits between them, newest first, each branch in a lane of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qstudio.session.timeline import TimelineNode


@dataclass(frozen=True)
class TimelineRow:
    """One line of the picture."""

    edit: int | None
    """Id of the edit; None for a run whose edit is not known."""
    run: int | None
    """Number of the run; None for an edit without runs."""
    label: str
    lane: int
    parent: int | None
    """Row that this one was made from; None at a beginning."""
    skipped: int
    """Edits between the two that are not shown: nothing was run with them and nothing branches off."""
    is_current: bool
    time: float


@dataclass
class _Kept:
    """An edit that is shown."""

    node: TimelineNode
    parent: int | None
    skipped: int
    children: list[int] = field(default_factory=list)


def timeline_rows(nodes: Sequence[TimelineNode], loose: Sequence[tuple[int, float]] = ()) -> tuple[TimelineRow, ...]:
    """Return what a timeline shows, newest first.

    Shown are edits with runs, the current one, beginnings, and those from which several shown branches lead on. An
    edit with several runs takes a row for each.

    Args:
        nodes: All edits, a parent always before what was made from it.
        loose: (number, seconds since the epoch) of runs whose edit is not known.
    """
    kept = _kept(nodes)
    items: list[tuple[float, int, int | None, int | None]] = []
    for edit, item in kept.items():
        numbers: tuple[int | None, ...] = item.node.run_ids or (None,)
        items += [(item.node.time, edit, edit, run) for run in numbers]
    items += [(when, 0, None, run) for run, when in loose]
    # Oldest first; the runs of one edit in their order.
    items.sort(key=lambda item: (item[0], item[1], item[3] or 0))
    lanes = _lanes(kept, {edit: n for n, (_, _, edit, _) in enumerate(items) if edit is not None})
    last_row: dict[int, int] = {}
    rows: list[TimelineRow] = []
    total = len(items)
    for place, (when, _, of, number) in enumerate(items):
        mine = total - 1 - place
        if of is None:
            rows.append(TimelineRow(None, number, "", 0, None, 0, False, when))
            continue
        item = kept[of]
        own = last_row.get(of)
        parent = own if own is not None else last_row.get(item.parent) if item.parent is not None else None
        skipped = item.skipped if own is None else 0
        node = item.node
        rows.append(TimelineRow(of, number, node.label, lanes[of], parent, skipped, node.is_current, when))
        last_row[of] = mine
    return tuple(reversed(rows))


def _kept(nodes: Sequence[TimelineNode]) -> dict[int, _Kept]:
    known = {node.id: node for node in nodes}
    wanted = {node.id for node in nodes if node.run_ids or node.is_current or node.parent not in known}
    # An edit is a fork where shown edits lie in two of its branches; children come after parents.
    branches: dict[int, int] = {}
    for node in reversed(nodes):
        if branches.get(node.id, 0) > 1:
            wanted.add(node.id)
        if node.parent in known and (node.id in wanted or branches.get(node.id, 0)):
            branches[node.parent] = branches.get(node.parent, 0) + 1
    kept: dict[int, _Kept] = {}
    shown_above: dict[int, tuple[int | None, int]] = {}
    for node in nodes:
        above = (None, 0) if node.parent not in known else shown_above[node.parent]
        if node.id in wanted:
            kept[node.id] = _Kept(node, *above)
            if above[0] is not None:
                kept[above[0]].children.append(node.id)
            shown_above[node.id] = (node.id, 0)
        else:
            shown_above[node.id] = (above[0], above[1] + 1)
    return kept


def _lanes(kept: dict[int, _Kept], place: dict[int, int]) -> dict[int, int]:
    """Return the lane of each edit: the oldest child goes on in its parent's, others take the first that is free."""
    lanes: dict[int, int] = {}
    taken: list[list[tuple[int, int]]] = []
    for edit, item in kept.items():
        parent = kept.get(item.parent) if item.parent is not None else None
        if parent is not None and parent.children[0] == edit:
            lanes[edit] = lanes[parent.node.id]
            continue
        end = edit
        while kept[end].children:
            end = kept[end].children[0]
        span = (place[item.parent] if item.parent is not None else place[edit], place[end])
        free = (n for n, spans in enumerate(taken) if all(span[0] > b or span[1] < a for a, b in spans))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append(span)
        lanes[edit] = lane
    return lanes
