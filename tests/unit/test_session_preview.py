"""The preview follows the recipe: the newest wins, what is known is there at once, the stale is never present."""

from __future__ import annotations

from typing import Any

import pytest
from session_fakes import FakeEngine, dataset, model, statistics

from qstudio.core.errors import UserError
from qstudio.core.inspection import DepthErrors, RecipeAccuracy
from qstudio.core.results import Metrics
from qstudio.engine.messages import PreviewAccuracy
from qstudio.session.session import Session


def answer(request: PreviewAccuracy, top1: float, done: bool = True) -> RecipeAccuracy:
    return RecipeAccuracy(request.recipe.sha256(), Metrics(500, top1), Metrics(500, 97.0), done)


def collect(engine: FakeEngine) -> None:
    engine.finish(engine.one("ActivationStatistics"), (statistics("conv1.out"),))


@pytest.fixture
def opened() -> tuple[FakeEngine, Session]:
    engine = FakeEngine()
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    session.preview.follow()
    return engine, session


@pytest.fixture
def ready(opened: tuple[FakeEngine, Session]) -> tuple[FakeEngine, Session]:
    """The first recipe has its figure: 96 %."""
    engine, session = opened
    collect(engine)
    job = engine.one("PreviewAccuracy")
    engine.finish(job, answer(job.request, 96.0))
    return engine, session


def test_nothing_is_computed_until_somebody_wants_it() -> None:
    engine = FakeEngine()
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    collect(engine)
    assert not engine.pending("PreviewAccuracy")
    session.preview.follow()
    assert engine.one("PreviewAccuracy").request.recipe == session.recipe


def test_it_waits_for_the_statistics(opened: tuple[FakeEngine, Session]) -> None:
    engine, session = opened
    session.set_layers("four", ("conv1",), weight_bits=4)
    assert not engine.pending("PreviewAccuracy")
    collect(engine)
    assert engine.one("PreviewAccuracy").request.recipe == session.recipe
    session.set_options(calibration_samples=100)
    assert not engine.pending("PreviewAccuracy"), "what is being collected anew decides the figure"
    collect(engine)
    assert engine.one("PreviewAccuracy").request.calibration_samples == 100


def test_partial_figures_are_of_the_present_recipe(opened: tuple[FakeEngine, Session]) -> None:
    engine, session = opened
    heard: list[Any] = []
    session.preview.changed.connect(heard.append)
    collect(engine)
    job = engine.one("PreviewAccuracy")
    job.on_partial(answer(job.request, 95.0, done=False))
    assert session.preview.accuracy is not None
    assert session.preview.accuracy.metrics.top1 == 95.0
    engine.finish(job, answer(job.request, 96.0))
    assert [value.metrics.top1 for value in heard] == [95.0, 96.0]
    assert session.preview.accuracy.done


def test_an_edit_leaves_the_old_figure_stale(ready: tuple[FakeEngine, Session]) -> None:
    _, session = ready
    session.set_layers("four", ("conv1",), weight_bits=4)
    assert session.preview.accuracy is None
    assert session.preview.latest is not None
    assert session.preview.latest.metrics.top1 == 96.0


def test_an_older_answer_never_takes_a_newer_ones_place(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    session.set_layers("four", ("conv1",), weight_bits=4)
    older = engine.one("PreviewAccuracy")
    engine.start(older)
    session.set_layers("two", ("conv1",), weight_bits=2)
    newer = engine.one("PreviewAccuracy")
    assert newer is not older
    older.on_partial(answer(older.request, 90.0, done=False))
    assert session.preview.accuracy is None
    engine.finish(newer, answer(newer.request, 80.0))
    older.on_partial(answer(older.request, 91.0, done=False))
    assert session.preview.accuracy is not None
    assert session.preview.accuracy.metrics.top1 == 80.0


def test_undo_shows_the_known_figure_at_once_and_keeps_it(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    session.set_layers("four", ("conv1",), weight_bits=4)
    four = engine.one("PreviewAccuracy")
    engine.start(four)
    session.undo()
    assert session.preview.accuracy is not None
    assert session.preview.accuracy.metrics.top1 == 96.0
    assert four.state.value == "cancelling", "nobody waits for it any more"
    four.on_partial(answer(four.request, 90.0, done=False))
    assert session.preview.accuracy.metrics.top1 == 96.0
    engine.finish(four, answer(four.request, 90.0))  # it was done before the cancel reached it
    assert session.preview.accuracy.metrics.top1 == 96.0
    session.redo()
    assert session.preview.accuracy.metrics.top1 == 90.0, "what was computed is not lost"
    assert not engine.pending("PreviewAccuracy")


def test_an_edit_taken_back_while_it_is_evaluated_is_asked_for_again(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    session.set_layers("four", ("conv1",), weight_bits=4)
    first = engine.one("PreviewAccuracy")
    engine.start(first)
    session.undo()
    session.redo()
    again = [job for job in engine.pending("PreviewAccuracy") if job is not first]
    assert [job.request.recipe for job in again] == [session.recipe]


def test_other_data_options_or_samples_are_another_question(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    session.preview.set_samples(200)
    assert session.preview.accuracy is None
    assert engine.one("PreviewAccuracy").request.samples == 200
    session.preview.set_samples(1000)
    assert session.preview.accuracy is not None
    session.open_data("other")
    engine.finish(engine.one("OpenDataset"), dataset("other", "d2"))
    assert session.preview.accuracy is None
    with pytest.raises(UserError, match="16 to 100,000"):
        session.preview.set_samples(3)


def test_a_failure_is_told_and_not_repeated_until_something_changes(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    session.set_layers("four", ("conv1",), weight_bits=4)
    engine.fail(engine.one("PreviewAccuracy"), "it cannot be simulated")
    assert session.preview.accuracy is None
    assert "it cannot be simulated" in session.preview.problem
    session.select(("conv2",))
    session.preview.follow()
    assert not engine.pending("PreviewAccuracy")
    session.set_layers("three", ("conv1",), weight_bits=3)
    assert session.preview.problem == ""
    assert engine.pending("PreviewAccuracy")


def test_any_recipe_is_evaluated_beside_the_present_one(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    heard: list[Any] = []
    tried = session.recipe.with_layers(("fc",), weight_bits=3)
    session.preview.evaluate(tried, "finding", heard.append)
    job = engine.one("PreviewAccuracy")
    assert job.request.once
    assert session.preview.accuracy is not None
    assert session.preview.accuracy.metrics.top1 == 96.0
    engine.finish(job, answer(job.request, 88.0))
    assert [value.metrics.top1 for value in heard] == [88.0]
    session.preview.evaluate(tried, "finding", heard.append)
    assert len(heard) == 2, "known: answered at once"
    session.edit("take it", tried)
    assert session.preview.accuracy.metrics.top1 == 88.0
    session.preview.evaluate(tried.with_layers(("fc",), weight_bits=2), "finding", heard.append)
    engine.fail(engine.one("PreviewAccuracy"))
    assert heard[2] is None


def test_what_was_tried_on_other_data_is_no_answer(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    heard: list[Any] = []
    session.preview.evaluate(session.recipe.with_layers(("fc",), weight_bits=3), "finding", heard.append)
    job = engine.one("PreviewAccuracy")
    session.open_data("other")
    engine.finish(engine.one("OpenDataset"), dataset("other", "d2"))
    engine.finish(job, answer(job.request, 88.0))
    assert heard == [None]
    Session(FakeEngine()).preview.evaluate(session.recipe, "finding", heard.append)
    assert heard == [None, None]


def test_depth_is_kept_up_to_date_while_somebody_wants_it(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    assert not engine.pending("ErrorOverDepth")
    withdraw = session.preview.request_depth()
    job = engine.one("ErrorOverDepth")
    assert job.request.preview.recipe == session.recipe
    first = DepthErrors(session.recipe.sha256(), 128, ())
    engine.finish(job, first)
    assert session.preview.depth is first
    session.set_layers("four", ("conv1",), weight_bits=4)
    assert session.preview.depth is None
    assert session.preview.latest_depth is first
    assert engine.pending("ErrorOverDepth")
    session.undo()
    assert session.preview.depth is first
    withdraw()
    session.set_layers("three", ("conv1",), weight_bits=3)
    assert session.preview.depth is None
    assert not [job for job in engine.pending("ErrorOverDepth") if job.request.preview.recipe == session.recipe]


def test_a_pinned_recipe_is_compared_with_and_follows_the_samples(ready: tuple[FakeEngine, Session]) -> None:
    engine, session = ready
    session.preview.pin()
    assert session.preview.pinned_accuracy is session.preview.accuracy
    before = session.preview.pinned_size_bytes
    session.set_layers("four", ("conv1",), weight_bits=4)
    job = engine.one("PreviewAccuracy")
    engine.finish(job, answer(job.request, 90.0))
    assert session.preview.pinned_accuracy is not None
    assert session.preview.pinned_accuracy.metrics.top1 == 96.0
    assert before is not None
    assert session.quantized_size_bytes() < before == session.preview.pinned_size_bytes
    session.preview.set_samples(200)
    assert session.preview.pinned_accuracy is None, "of other samples"
    asked = {job.request.once: job for job in engine.pending("PreviewAccuracy")}
    assert asked[True].request.recipe == session.preview.pinned
    engine.finish(asked[True], answer(asked[True].request, 95.0))
    assert session.preview.pinned_accuracy is not None
    assert session.preview.pinned_accuracy.metrics.top1 == 95.0
    session.preview.unpin()
    assert session.preview.pinned_size_bytes is None
    session.preview.pin()
    session.open_model("other.onnx")
    engine.finish(engine.one("OpenModel"), model("other.onnx", "m2"))
    assert session.preview.pinned is None
    with pytest.raises(UserError, match="no model"):
        Session(FakeEngine()).preview.pin()
