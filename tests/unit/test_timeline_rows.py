"""The rows of the timeline: what is shown, where branches stand."""

from __future__ import annotations

from qstudio.session.timeline import TimelineNode
from qstudio.ui.compare.timeline_rows import timeline_rows


def node(number, parent, runs=(), current=False):
    return TimelineNode(number, parent, f"edit {number}", tuple(runs), current, float(number))


def shown(rows):
    return [(row.edit, row.run, row.lane, row.parent, row.skipped) for row in rows]


def test_a_straight_line_skips_edits_without_runs():
    nodes = [node(1, None), node(2, 1), node(3, 2, [1]), node(4, 3), node(5, 4), node(6, 5, [2, 3], True)]
    assert shown(timeline_rows(nodes)) == [(6, 3, 0, 1, 0), (6, 2, 0, 2, 2), (3, 1, 0, 3, 1), (1, None, 0, None, 0)]
    assert [row.is_current for row in timeline_rows(nodes)] == [True, True, False, False]


def test_a_branch_takes_a_lane_and_gives_it_back():
    nodes = [
        node(1, None, [1]),
        node(2, 1),
        node(3, 2, [2]),
        node(4, 2, [3]),
        node(5, 3, [4]),
        node(6, 5, [5]),
        node(7, 6, [6]),
        node(8, 6, [7], True),
    ]
    lanes = {row.edit: row.lane for row in timeline_rows(nodes)}
    assert lanes[2] == lanes[1] == 0  # the fork is shown, though nothing was run with it
    assert lanes[3] == lanes[5] == lanes[7] == 0
    assert lanes[4] == lanes[8] == 1
    rows = timeline_rows(nodes)
    assert rows[[row.edit for row in rows].index(4)].parent == [row.edit for row in rows].index(2)


def test_two_beginnings_and_runs_of_unknown_edits():
    nodes = [node(1, None, [1]), node(2, None, [2]), node(3, 1, [4], True)]
    rows = timeline_rows(nodes, [(3, 2.5)])
    assert [row.run for row in rows] == [4, 3, 2, 1]
    assert rows[1].edit is None
    lanes = {row.run: row.lane for row in rows}
    assert lanes[1] == lanes[4] == 0
    assert lanes[2] == 1
    assert timeline_rows([]) == ()


def test_two_thousand_edits_are_quick():
    nodes = [node(1, None)] + [node(n, n - 1, [n] if n % 10 == 0 else []) for n in range(2, 2001)]
    rows = timeline_rows(nodes)
    assert len(rows) == 201
    assert all(row.skipped == 9 for row in rows[:-2])
