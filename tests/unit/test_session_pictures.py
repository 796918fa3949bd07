"""Samples through the layers and weights as pictures, as a session asks for them while somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.core.inspection import LayerMaps, SampleTrace, WeightPictures
from qstudio.core.predictions import Predictions
from qstudio.core.scheme import FLOAT_BITS
from qstudio.engine.messages import JobState, PictureWeights, TraceSample
from qstudio.session.session import Session

NAMES = ("conv1", "conv2", "fc")


def trace(request: TraceSample, lacking: tuple[str, ...] = ()) -> SampleTrace:
    def maps(name: str) -> LayerMaps:
        values = np.zeros((0, 0, 0) if name in lacking else (2, 4, 4), np.float32)
        return LayerMaps(name, name, (2, 4, 4), values, values, 20.0, 2)

    scores = np.array([0.3, 0.7], np.float32)
    return SampleTrace(
        request.index,
        1,
        np.zeros((8, 8), np.uint8),
        tuple(maps(name) for name in NAMES),
        scores,
        scores,
        request.preview.recipe.sha256(),
    )


def picture(request: PictureWeights) -> WeightPictures:
    plane = np.zeros((4, 4), np.float32)
    return WeightPictures(request.layer, (4, 4), plane, plane)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def session(engine: FakeEngine) -> Session:
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    engine.finish(engine.one("ActivationStatistics"), (statistics("conv1.out"),))
    return session


def answer(engine: FakeEngine, lacking: tuple[str, ...] = ()) -> TraceSample:
    job = engine.one("TraceSample")
    engine.finish(job, trace(job.request, lacking))
    return job.request


def test_nothing_is_asked_while_nobody_looks(engine: FakeEngine, session: Session) -> None:
    session.pictures.look_at(3)
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    assert not engine.pending("TraceSample")
    assert not engine.pending("PictureWeights")
    withdraw = session.pictures.follow_sample()
    asked = answer(engine)
    assert (asked.index, asked.layers, asked.preview.recipe) == (3, ("conv1",), session.recipe)
    withdraw()
    withdraw()
    session.set_layers("2 bits", ("conv1",), weight_bits=2)
    assert not engine.pending("TraceSample")
    assert not session.pictures.is_current


def test_it_follows_every_edit_and_only_the_newest_counts(engine: FakeEngine, session: Session) -> None:
    session.pictures.follow_sample()
    first = engine.one("TraceSample")
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    second = engine.one("TraceSample")
    assert first.superseded
    assert second.request.preview.recipe == session.recipe
    assert second.on_partial is not None
    second.on_partial(trace(second.request))
    assert session.pictures.is_current
    assert not session.pictures.is_complete
    assert session.pictures.is_busy
    engine.finish(second, trace(second.request))
    assert session.pictures.is_complete
    assert not session.pictures.is_busy
    session.undo()
    assert not session.pictures.is_current
    assert session.pictures.trace is not None, "the old one stays in sight until the new one is there"
    answer(engine)
    assert session.pictures.is_current


def test_what_was_asked_before_model_or_data_changed_is_forgotten(engine: FakeEngine, session: Session) -> None:
    session.pictures.follow_sample()
    session.pictures.look_at(7)
    answer(engine)
    changes: list[SampleTrace | None] = []
    session.pictures.changed.connect(changes.append)
    session.open_data("other.npz")
    engine.finish(engine.one("OpenDataset"), dataset("other.npz", "d2"))
    assert session.pictures.trace is None
    assert session.pictures.index == 0
    assert changes[-1] is None
    assert not engine.pending("TraceSample"), "it waits for the statistics"


def test_another_layers_maps_are_fetched_when_they_are_not_there(engine: FakeEngine, session: Session) -> None:
    session.pictures.follow_sample()
    answer(engine, lacking=("fc",))
    session.select(("conv2",))
    assert session.pictures.maps("conv2") is not None
    assert not engine.pending("TraceSample")
    session.select(("fc",))
    assert session.pictures.maps("fc") is None
    assert answer(engine).layers == ("fc",)
    assert session.pictures.maps("fc") is not None


def test_a_failure_is_told_once_and_tried_again_with_the_next_change(engine: FakeEngine, session: Session) -> None:
    session.pictures.follow_sample()
    engine.fail(engine.one("TraceSample"), "there is no sample 9")
    assert "there is no sample 9" in session.pictures.problem
    session.select(("conv2",))
    assert not engine.pending("TraceSample"), "the same would fail again"
    session.pictures.look_at(2)
    assert session.pictures.problem == ""
    answer(engine)
    assert session.pictures.is_current


def test_work_that_is_stopped_says_so(engine: FakeEngine, session: Session) -> None:
    session.pictures.follow_sample()
    session.cancel_work()
    assert session.pictures.problem.startswith("Stopped")
    session.pictures.look_at(1)
    answer(engine)
    assert session.pictures.problem == ""


def test_a_sample_can_be_asked_to_the_front(engine: FakeEngine, session: Session) -> None:
    seen: list[int] = []
    session.pictures.sample_asked.connect(seen.append)
    session.pictures.show_sample(5)
    session.pictures.show_sample(5)
    assert seen == [5, 5]
    assert session.pictures.index == 5


# ---- flips


def run_with_flips(engine: FakeEngine, session: Session, flipped: tuple[int, ...]) -> None:
    indices = np.array([2, 5, 9, 11])
    before = np.zeros(4, np.int64)
    after = np.isin(indices, flipped).astype(np.int64)
    margin = np.ones(4, np.float32)
    predictions = Predictions(indices, np.zeros(0, np.int64), before, after, margin, margin)
    session.run_ptq()
    engine.finish(engine.one("RunPtq"), replace(result(session.recipe), predictions=predictions))


def test_the_next_flipped_sample_comes_from_the_runs(engine: FakeEngine, session: Session) -> None:
    pictures = session.pictures
    assert pictures.next_flipped() is None
    assert not pictures.flips_known
    run_with_flips(engine, session, (5, 11))
    assert pictures.flips_known
    assert pictures.flipped == (5, 11)
    assert [pictures.next_flipped() for _ in range(3)] == [5, 11, 5]
    run_with_flips(engine, session, ())
    assert pictures.flipped == ()
    session.select_run(1)
    assert pictures.flipped == (5, 11), "the selected run's"


def test_flips_of_other_data_are_not_shown(engine: FakeEngine, session: Session) -> None:
    run_with_flips(engine, session, (5,))
    session.open_data("other.npz")
    engine.finish(engine.one("OpenDataset"), dataset("other.npz", "d2"))
    assert session.pictures.flipped == ()


# ---- weights


def test_weights_follow_layer_and_scheme_and_are_remembered(engine: FakeEngine, session: Session) -> None:
    def finish() -> PictureWeights:
        job = engine.one("PictureWeights")
        engine.finish(job, picture(job.request))
        request: PictureWeights = job.request
        return request

    session.pictures.follow_weights()
    assert finish().layer == "conv1"
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    assert not session.pictures.weights_are_current
    assert finish().scheme.bits == 4
    session.undo()
    assert not engine.pending("PictureWeights"), "it is known"
    assert session.pictures.weights_are_current
    session.select(("fc",))
    session.set_layers("float", ("fc",), weight_bits=FLOAT_BITS)
    assert finish().scheme.is_float
    assert session.pictures.weights is not None
    assert session.pictures.weights.layer == "fc"


def test_a_weight_that_cannot_be_drawn_says_why(engine: FakeEngine, session: Session) -> None:
    told: list[object] = []
    session.pictures.weights_changed.connect(told.append)
    session.pictures.follow_weights()
    engine.fail(engine.one("PictureWeights"), "the file is gone")
    assert "the file is gone" in session.pictures.weights_problem
    assert told
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    job = engine.one("PictureWeights")
    assert session.pictures.weights_problem == ""
    engine.finish(job, None, JobState.CANCELLED)
    session.select(("conv2",))
    session.select(("conv1",))
    assert engine.one("PictureWeights").request.layer == "conv1"


@pytest.mark.parametrize("follow", ["follow_sample", "follow_weights"])
def test_without_model_or_data_nothing_is_asked(engine: FakeEngine, follow: str) -> None:
    session = Session(engine)
    wish: Callable[[], Callable[[], None]] = getattr(session.pictures, follow)
    wish()
    assert not engine.jobs
    assert session.pictures.samples == 0
    assert not session.pictures.is_current
    assert not session.pictures.weights_are_current
