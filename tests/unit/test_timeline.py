"""The history as a tree: branches of what was undone or restored, and the runs made on the way."""

from __future__ import annotations

from session_fakes import FakeEngine, dataset, model, result

from qstudio.core.recipe import Recipe
from qstudio.session.history import KEPT_EDITS, History
from qstudio.session.session import Session


def opened() -> tuple[FakeEngine, Session]:
    engine = FakeEngine()
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    return engine, session


def run(engine: FakeEngine, session: Session) -> int:
    number = session.run_ptq().id
    engine.finish(engine.one("RunPtq"), result(session.recipe, 90.0))
    return number


def tree(session: Session) -> dict[str, str]:
    nodes = {node.id: node for node in session.timeline.nodes}
    return {node.label: nodes[node.parent].label if node.parent else "" for node in nodes.values()}


def test_a_restored_recipe_branches_where_it_stood() -> None:
    engine, session = opened()
    session.set_layers("four", ("conv1",), weight_bits=4)
    first = run(engine, session)
    session.set_layers("three", ("conv1",), weight_bits=3)
    second = run(engine, session)
    session.restore_run(first)
    session.set_layers("two", ("conv2",), weight_bits=2)
    assert tree(session) == {"model.onnx": "", "four": "model.onnx", "three": "four", "two": "four"}
    made = {node.label: node.run_ids for node in session.timeline.nodes}
    assert (made["four"], made["three"], made["two"]) == ((first,), (second,), ())
    assert [node.label for node in session.timeline.nodes if node.is_current] == ["two"]
    session.undo()
    assert session.undo_label == "Restore recipe of Run 1", "restoring is a step of its own"
    session.undo()
    assert [node.label for node in session.timeline.nodes if node.is_current] == ["three"]


def test_what_was_undone_and_overwritten_stays_as_a_branch() -> None:
    _engine, session = opened()
    session.set_layers("four", ("conv1",), weight_bits=4)
    session.undo()
    session.set_layers("five", ("conv1",), weight_bits=5)
    assert tree(session) == {"model.onnx": "", "four": "model.onnx", "five": "model.onnx"}
    four = next(node.id for node in session.timeline.nodes if node.label == "four")
    session.timeline.restore(four)
    assert session.settings("conv1").weight_bits == 4
    assert session.timeline.current == four


def test_a_drag_after_a_run_does_not_change_the_edit_the_run_came_from() -> None:
    engine, session = opened()
    session.set_layers("drag", ("conv1",), "clip", weight_bits=6)
    run(engine, session)
    session.set_layers("drag", ("conv1",), "clip", weight_bits=5)
    made = session.timeline.nodes
    assert [(node.label, node.run_ids) for node in made] == [("model.onnx", ()), ("drag", (1,)), ("drag", ())]


def test_another_model_begins_another_tree() -> None:
    engine, session = opened()
    session.set_layers("four", ("conv1",), weight_bits=4)
    session.open_model("other.onnx")
    engine.finish(engine.one("OpenModel"), model("other.onnx", "m2"))
    assert tree(session) == {"model.onnx": "", "four": "model.onnx", "other.onnx": ""}
    assert session.undo_label is None


def test_the_tree_is_bounded_and_keeps_what_runs_came_from() -> None:
    history = History(Recipe())
    history.push("held", Recipe().with_layers(("a",), weight_bits=2))
    held = history.current
    history.hold(held)
    for number in range(KEPT_EDITS + 10):
        history.push(str(number), Recipe().with_layers(("a",), weight_outliers=number / 100))
    assert len(history.edits) == KEPT_EDITS
    assert history.edits[held].label == "held"
    parents = [edit.parent for edit in history.edits.values() if edit.parent is not None]
    assert all(parent in history.edits for parent in parents)
