"""Runs: what is asked, what is kept when they stop, when they are current, restoring."""

from __future__ import annotations

from dataclasses import replace

import pytest
from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.engine.messages import DataSpec, JobState, PtqPartial, RunPtq
from qstudio.session.options import Run
from qstudio.session.session import Session


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def session(engine: FakeEngine) -> Session:
    session = Session(engine)
    open_model(session, engine)
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    return session


def open_model(session: Session, engine: FakeEngine, path: str = "model.onnx", sha256: str = "m1") -> None:
    session.open_model(path)
    engine.finish(engine.one("OpenModel"), model(path, sha256))
    engine.finish(engine.one("WeightStatistics"), (statistics("conv1.weight"),))
    if session.data_spec is not None:
        engine.finish(engine.one("OpenDataset"), dataset())


def ended(session: Session, engine: FakeEngine) -> Run:
    run = session.run_ptq()
    engine.finish(engine.one("RunPtq"), result(session.recipe, 96.0))
    return session.run(run.id)


def test_a_run_asks_for_everything_that_is_chosen(session: Session, engine: FakeEngine) -> None:
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    session.set_options(seed=7, eval_samples=None, calibration_samples=64, latency_batch=8, threads=2)
    session.run_ptq("out.onnx")
    assert engine.one("RunPtq").request == RunPtq(
        "model.onnx",
        DataSpec("digits"),
        Recipe().with_layers(("conv1",), weight_bits=4),
        calibration_samples=64,
        eval_samples=None,
        seed=7,
        device="cpu",
        export_path="out.onnx",
        latency_batch=8,
        threads=2,
    )


def test_a_run_fills_while_it_goes_and_is_selected_at_its_end(session: Session, engine: FakeEngine) -> None:
    selected: list[int | None] = []
    session.run_selected.connect(selected.append)
    run = session.run_ptq()
    job = engine.one("RunPtq")
    assert (run.id, run.title, run.state) == (1, "Run 1", JobState.QUEUED)
    assert session.run_blocked == "A run is in progress"
    with pytest.raises(UserError, match="A run is in progress"):
        session.run_ptq()
    engine.start(job)
    engine.progress(job, 3, 10)
    progress = session.run(1).progress
    assert progress is not None
    assert (session.run(1).state, progress.done) == (JobState.RUNNING, 3)
    assert job.on_partial is not None
    job.on_partial(PtqPartial("simulate", result(session.recipe, 95.0)))
    assert session.run(1).phase == "simulate"
    engine.finish(job, result(session.recipe, 96.0))
    done = session.run(1)
    assert (done.state, done.progress, selected) == (JobState.DONE, None, [1])
    assert done.result is not None
    assert done.result.simulated is not None
    assert done.result.simulated.top1 == 96.0
    assert session.running is None


@pytest.mark.parametrize("how", ["cancel", "force", "fail", "die"])
def test_a_run_that_stops_keeps_what_it_measured(session: Session, engine: FakeEngine, how: str) -> None:
    texts: list[str] = []
    session.notice_posted.connect(lambda notice: texts.append(notice.text))
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    session.run_ptq()
    job = engine.one("RunPtq")
    engine.start(job)
    assert job.on_partial is not None
    job.on_partial(PtqPartial("simulate", result(session.recipe, 95.0)))
    session.cancel_run()
    assert session.run(1).state is JobState.CANCELLING
    if how == "cancel":
        engine.finish(job, None, JobState.CANCELLED)
    elif how == "force":
        session.force_stop_run()
    elif how == "fail":
        engine.fail(job, "out of memory")
    else:
        engine.die("run")
    run = session.run(1)
    state, text = {
        "cancel": (JobState.CANCELLED, []),
        "force": (JobState.KILLED, ["Run 1 stopped: its process was ended."]),
        "fail": (JobState.FAILED, ["Run 1 stopped. model.onnx: out of memory. Try another."]),
        "die": (JobState.KILLED, ["Run 1 stopped: its process was ended."]),
    }[how]
    assert (run.state, texts) == (state, text)
    assert run.result is not None
    assert run.result.simulated is not None
    assert run.result.simulated.top1 == 95.0
    assert session.running is None
    assert session.run_blocked == ""
    assert not engine.pending("RunPtq"), "a run is never repeated by itself"
    assert session.settings("conv1").weight_bits == 4
    session.cancel_run()
    session.force_stop_run()


def test_a_state_and_its_result_come_in_one_change(session: Session, engine: FakeEngine) -> None:
    seen: list[tuple[JobState, bool]] = []
    session.runs_changed.connect(lambda runs: seen.append((runs[-1].state, runs[-1].result is not None)))
    ended(session, engine)
    assert seen == [(JobState.QUEUED, False), (JobState.DONE, True)]


def test_a_run_is_current_for_exactly_what_it_was_made_with(session: Session, engine: FakeEngine) -> None:
    run = ended(session, engine)
    assert session.is_current(run)
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    assert not session.is_current(run)
    session.undo()
    assert session.is_current(run)
    options = session.options
    for values in (
        {"seed": 1},
        {"eval_samples": 10},
        {"calibration_samples": 10},
        {"calibration_data": DataSpec("t.npz")},
        {"device": "cuda:0"},
        {"latency_batch": 2},
        {"threads": 1},
    ):
        session.set_options(**values)
        assert not session.is_current(run), values
        session.options = options
        assert session.is_current(run)
    session.set_options(measure_latency=False, threads=1, latency_batch=4)
    assert session.is_current(run), "without timing, timing options change nothing"


def test_a_run_without_timing_is_not_current_once_timing_is_wanted(session: Session, engine: FakeEngine) -> None:
    session.set_options(measure_latency=False)
    run = ended(session, engine)
    session.set_options(measure_latency=True)
    assert not session.is_current(run)


def test_other_data_makes_a_run_stale(session: Session, engine: FakeEngine) -> None:
    run = ended(session, engine)
    session.open_data(DataSpec("digits", scale=16.0))
    engine.finish(engine.one("OpenDataset"), dataset())
    assert not session.is_current(run)
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset(sha256="d2"))
    assert not session.is_current(run), "the same name with other contents"
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    assert session.is_current(run)


def test_runs_of_a_closed_model_stay_and_are_not_current(session: Session, engine: FakeEngine) -> None:
    run = ended(session, engine)
    open_model(session, engine, "other.onnx", "m2")
    assert session.runs == (run,)
    assert not session.is_current(run)
    second = ended(session, engine)
    assert (second.id, session.is_current(second)) == (2, True)
    open_model(session, engine, "model.onnx", "m1-edited")
    assert not session.is_current(run), "the file was overwritten"
    open_model(session, engine)
    assert session.is_current(run)
    assert not session.is_current(second)


def test_a_model_opened_during_a_run_leaves_the_run_alone(session: Session, engine: FakeEngine) -> None:
    session.run_ptq()
    open_model(session, engine, "other.onnx", "m2")
    assert session.running is not None
    engine.finish(engine.one("RunPtq"), result(Recipe(), 96.0))
    assert session.run(1).model == "model.onnx"
    assert session.run(1).state is JobState.DONE


def test_restoring_a_run_is_one_undoable_step(session: Session, engine: FakeEngine) -> None:
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    run = ended(session, engine)
    session.set_layers("3 bits", ("conv1",), weight_bits=3)
    session.restore_run(run.id)
    assert session.settings("conv1").weight_bits == 4
    assert session.undo_label == "Restore recipe of Run 1"
    assert session.is_current(run)
    session.undo()
    assert session.settings("conv1").weight_bits == 3


def test_a_run_that_failed_can_still_be_restored(session: Session, engine: FakeEngine) -> None:
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    session.run_ptq()
    engine.fail(engine.one("RunPtq"))
    session.undo()
    session.restore_run(1)
    assert session.settings("conv1").weight_bits == 4


def test_runs_are_selected_by_number(session: Session, engine: FakeEngine) -> None:
    ended(session, engine)
    session.select_run(None)
    assert session.selected_run is None
    with pytest.raises(KeyError):
        session.select_run(5)
    session.select_run(1)
    assert session.selected_run == 1


def test_the_script_spells_out_the_run(session: Session, engine: FakeEngine) -> None:
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    session.open_data(DataSpec("digits", mean=(0.5,)))
    engine.finish(engine.one("OpenDataset"), dataset())
    session.set_options(seed=7, calibration_data=DataSpec("train.npz", layout="NHWC"))
    run = ended(session, engine)
    script = session.as_python(run.id)
    session.undo()
    assert session.as_python(run.id) == script
    assert session.as_python() != script
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = []

    class Recorder:
        Recipe = Recipe
        DataSpec = DataSpec

        @staticmethod
        def quantize(*args: object, **kwargs: object) -> object:
            calls.append((args, kwargs))
            return replace(result(Recipe()))

    compile(script, "script", "exec")
    import sys
    from unittest.mock import patch

    with patch.dict(sys.modules, {"qstudio": Recorder}):  # type: ignore[dict-item]
        exec(script, {})
    [(args, kwargs)] = calls
    assert run.request is not None
    assert args == ("model.onnx", run.request.data, run.request.recipe)
    asked = {name: getattr(run.request, name) for name in kwargs}
    assert kwargs == asked
    assert set(kwargs) | {"model", "data", "recipe"} == set(RunPtq.__dataclass_fields__)
