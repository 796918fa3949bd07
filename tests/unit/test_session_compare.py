"""Two runs compared: which they are, what cannot be compared and why, taking layers over, fetching samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.core.predictions import Predictions
from qstudio.core.results import RunResult
from qstudio.engine.messages import JobState, LookAtSamples, PtqPartial, SamplePage
from qstudio.session.options import Run
from qstudio.session.session import Session


def predictions(classes: list[int], indices: list[int] | None = None) -> Predictions:
    n = len(classes)
    places = np.arange(n) if indices is None else np.array(indices)
    labels, half = np.zeros(n, np.int64), np.full(n, 0.5, np.float32)
    return Predictions(places, labels, np.zeros(n, np.int64), np.array(classes), half, half)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def session(engine: FakeEngine) -> Session:
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model("model.onnx", "m1"))
    engine.finish(engine.one("WeightStatistics"), (statistics("conv1.weight"),))
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    return session


def run(session: Session, engine: FakeEngine, found: Predictions | None = None) -> Run:
    number = session.run_ptq().id
    value: RunResult = replace(result(session.recipe, 96.0), predictions=found)
    engine.finish(engine.one("RunPtq"), value)
    return session.run(number)


def test_nothing_is_compared_until_a_run_is_selected(session: Session) -> None:
    assert session.compare.first is None
    assert session.compare.flips is None
    assert session.compare.flips_blocked.startswith("No run is selected")
    assert session.compare.differences() == ()


def test_the_selected_run_is_compared_with_float_then_with_another(session: Session, engine: FakeEngine) -> None:
    told: list[tuple[int | None, int | None]] = []
    session.compare.changed.connect(told.append)
    run(session, engine, predictions([0, 1, 0, 2]))
    assert session.compare.flips is not None
    assert (session.compare.flips.to_wrong, session.compare.flips.samples) == (2, 4)
    assert told[-1] == (1, None)
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    run(session, engine, predictions([0, 0, 3, 2]))
    session.compare.set_reference(1)
    flips = session.compare.flips
    assert flips is not None
    assert (flips.indices.tolist(), flips.to_right, flips.to_wrong) == ([1, 2], 1, 1)
    assert [(d.layer, d.field, d.first, d.second) for d in session.compare.differences()] == [
        ("conv1", "weight_bits", 4, 8)
    ]
    session.compare.swap()
    assert told[-1] == (1, 2)
    assert session.compare.flips is not None
    assert session.compare.flips.to_right == 1
    with pytest.raises(KeyError):
        session.compare.set_reference(99)


def test_what_cannot_be_compared_says_why(session: Session, engine: FakeEngine) -> None:
    run(session, engine, None)
    assert "no predictions" in session.compare.flips_blocked
    run(session, engine, predictions([0, 1], [5, 6]))
    session.compare.set_reference(2)
    assert "does not differ from itself" in session.compare.flips_blocked
    run(session, engine, predictions([0, 1], [7, 8]))
    assert "no evaluation sample in common" in session.compare.flips_blocked
    session.open_data("others")
    engine.finish(engine.one("OpenDataset"), dataset("others", "d2"))
    run(session, engine, predictions([0, 1], [5, 6]))
    assert "evaluated on different data" in session.compare.flips_blocked
    session.compare.set_reference(None)
    assert session.compare.flips_blocked == ""


def test_progress_of_a_run_computes_nothing_again(session: Session, engine: FakeEngine) -> None:
    run(session, engine, predictions([0, 1]))
    told: list[object] = []
    before = session.compare.flips
    session.compare.changed.connect(told.append)
    session.run_ptq()
    job = engine.one("RunPtq")
    engine.progress(job, 1, 10)
    assert told == []
    assert session.compare.flips is before
    session.select_run(2)
    job.on_partial(PtqPartial("simulate", replace(result(session.recipe, 90.0), predictions=predictions([1, 1]))))
    assert told[-1] == (2, None)
    assert session.compare.flips is not None
    assert session.compare.flips.to_wrong == 2


def test_layers_are_taken_over_as_one_step(session: Session, engine: FakeEngine) -> None:
    run(session, engine)
    session.set_layers("bits", ("conv1", "fc"), weight_bits=3)
    session.set_layers("clip", ("fc",), weight_clip=(-1.0, 1.0))
    run(session, engine)
    session.compare.set_reference(1)
    session.compare.take(("conv1", "fc"), from_second=True)
    assert session.undo_label == "Take 2 layers from Run 1"
    assert session.settings("fc") == session.recipe.default
    session.undo()
    assert session.settings("fc").weight_clip == (-1.0, 1.0)
    session.compare.take(("conv1",), from_second=True)
    assert (session.settings("conv1").weight_bits, session.settings("fc").weight_bits) == (8, 3)
    session.compare.take(("conv1",))
    assert session.settings("conv1").weight_bits == 3


def test_layers_of_another_model_are_not_compared(session: Session, engine: FakeEngine) -> None:
    run(session, engine)
    session.set_layers("bits", ("fc",), weight_bits=3)
    run(session, engine)
    session.compare.set_reference(1)
    assert session.compare.differences_blocked == ""
    session.open_model("other.onnx")
    engine.finish(engine.one("OpenModel"), model("other.onnx", "m2"))
    assert "Run 2 and Run 1 are of another model" in session.compare.differences_blocked
    assert session.compare.differences() == ()
    before = session.recipe
    session.compare.take(("fc",))
    assert session.recipe == before


def test_options_that_differ_are_named(session: Session, engine: FakeEngine) -> None:
    run(session, engine)
    session.set_options(seed=3, eval_samples=None)
    run(session, engine)
    session.compare.set_reference(1)
    found = {d.name: (d.first, d.second) for d in session.compare.option_differences()}
    assert found == {"seed": ("3", "0"), "evaluation samples": ("all", "1,000")}


def test_samples_are_fetched_once_and_the_latest_request_wins(session: Session, engine: FakeEngine) -> None:
    run(session, engine, predictions([0, 1]))
    told: list[tuple[int, ...]] = []
    session.compare.samples_changed.connect(told.append)
    engine.finish(engine.one("LookAtSamples"), None, JobState.CANCELLED)  # those of the data panel
    session.compare.request_samples((3, 4))
    session.compare.request_samples((4, 5))
    job = engine.one("LookAtSamples")
    assert job.request == LookAtSamples("model.onnx", session.data_spec, (4, 5))
    stored = np.zeros((8, 8), np.uint8)
    page = SamplePage((4, 5), (stored, stored), (stored, stored), (0, 0), (0, 0), (0.9, 0.9))
    engine.finish(job, page)
    assert told == [(4, 5)]
    assert session.compare.sample(4) is not None
    session.compare.request_samples((5, 4))
    assert not engine.pending("LookAtSamples")
    session.open_data("others")
    engine.finish(engine.one("OpenDataset"), dataset("others", "d2"))
    assert session.compare.sample(4) is None
    assert "other data" in session.compare.samples_blocked
    session.compare.request_samples((4,))
    assert (4,) not in [job.request.indices for job in engine.pending("LookAtSamples")]
