"""The sensitivity of a session's layers: partial results, what makes them stale, one job at a time."""

from __future__ import annotations

import json

import pytest
from session_fakes import FakeEngine, dataset, model

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.sensitivity import Candidate, Figures, SensitivityCell, SensitivityResult
from qstudio.engine.messages import Failure, JobState, Sensitivity
from qstudio.session.session import Session


def opened(engine: FakeEngine, data: bool = True) -> Session:
    session = Session(engine)
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    if data:
        session.open_data("digits")
        engine.finish(engine.one("OpenDataset"), dataset())
    return session


def cell(layer: str, bits: int, kl: float) -> SensitivityCell:
    return SensitivityCell(layer, Candidate(bits), Figures(10, 90.0, 20.0, kl))


def whole(recipe: Recipe, cells: tuple[SensitivityCell, ...]) -> SensitivityResult:
    return SensitivityResult("enable", (Candidate(8), Candidate(4)), cells, recipe, "m1", "d", 0)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def test_a_sweep_fills_and_is_whole_at_the_end(engine):
    session = opened(engine)
    told: list[bool] = []
    session.sensitivity.changed.connect(told.append)
    session.sensitivity.start(bits=(4, 8), side="weights", mode="enable", hessian=False, samples=500)
    job = engine.one("Sensitivity")
    request = job.request
    assert isinstance(request, Sensitivity)
    assert request.candidates == (Candidate(8), Candidate(4))
    assert (request.eval_samples, request.hessian, request.recipe) == (500, False, session.recipe)
    assert session.sensitivity.running
    engine.start(job)
    job.on_partial(cell("fc", 4, 0.2))
    job.on_partial(cell("conv1", 4, 0.1))
    result = session.sensitivity.result
    assert [c.layer for c in result.cells] == ["fc", "conv1"]
    assert not session.sensitivity.is_whole
    engine.progress(job, 1, 4)
    assert session.sensitivity.progress.done == 1
    final = whole(session.recipe, (cell("conv1", 4, 0.1), cell("fc", 4, 0.2)))
    engine.finish(job, final)
    assert session.sensitivity.result is final
    assert session.sensitivity.is_whole
    assert not session.sensitivity.running
    assert told[-1] is False
    assert True in told


def test_one_job_of_the_run_process_at_a_time(engine):
    session = opened(engine)
    session.sensitivity.start()
    assert "sensitivity" in session.run_blocked
    for start in (session.run_ptq, session.search.start, session.sensitivity.start):
        with pytest.raises(UserError, match="sensitivity is being measured"):
            start()
    engine.finish(engine.one("Sensitivity"), whole(session.recipe, ()))
    session.run_ptq()
    assert session.sensitivity.blocked == "A run is in progress"


def test_a_stopped_sweep_keeps_the_cells_that_are_known(engine):
    session = opened(engine)
    session.sensitivity.start()
    job = engine.one("Sensitivity")
    engine.start(job)
    job.on_partial(cell("fc", 4, 0.2))
    session.sensitivity.cancel()
    assert session.sensitivity.stopping
    engine.finish(job, None, JobState.CANCELLED)
    assert len(session.sensitivity.result.cells) == 1
    assert not session.sensitivity.is_whole
    session.sensitivity.start()
    engine.cancel(engine.one("Sensitivity"))
    assert session.sensitivity.result is None, "nothing was measured"


def test_figures_are_stale_where_they_would_be_others_now(engine):
    session = opened(engine)
    sweeps = session.sensitivity
    sweeps.start(bits=(8, 4))
    engine.finish(engine.one("Sensitivity"), whole(session.recipe, (cell("fc", 4, 0.2),)))
    assert sweeps.stale == ""
    session.set_layers("bits", ("fc",), weight_bits=4)
    session.set_layers("range", ("fc",), activation_calibration="minmax")
    assert sweeps.stale == "", "only the weight of one layer is quantized, at the candidate's bits"
    session.set_layers("granularity", ("fc",), weight_granularity="tensor")
    assert "recipe" in sweeps.stale
    session.undo()
    assert sweeps.stale == ""
    session.set_options(seed=3)
    assert "seed" in sweeps.stale
    session.set_options(seed=0)
    sweeps.choose(bits=(8, 4, 2))
    assert "settings" in sweeps.stale
    sweeps.choose(bits=(8, 4))
    session.open_data("other")
    engine.finish(engine.one("OpenDataset"), dataset("other", "d2"))
    assert "data" in sweeps.stale
    session.open_model("other.onnx")
    engine.finish(engine.one("OpenModel"), model("other.onnx", "m2"))
    assert sweeps.result is None


def test_a_changed_recipe_counts_where_all_layers_take_part(engine):
    session = opened(engine)
    session.sensitivity.start(mode="change")
    engine.finish(engine.one("Sensitivity"), whole(session.recipe, (cell("fc", 4, 0.2),)))
    session.set_layers("bits", ("fc",), activation_bits=4)
    assert "recipe" in session.sensitivity.stale


def test_what_cannot_be_swept_says_why(engine):
    session = Session(engine)
    assert session.sensitivity.blocked == "Open a model first"
    session = opened(FakeEngine(), data=False)
    with pytest.raises(UserError, match="Choose a dataset first"):
        session.sensitivity.start()
    for wrong in ({"bits": ()}, {"bits": (17,)}, {"side": "left"}, {"mode": "x"}, {"samples": 0}):
        with pytest.raises(UserError):
            session.sensitivity.choose(**wrong)
    with pytest.raises(UserError, match="nothing is measured"):
        session.sensitivity.choose(measured=False, hessian=False)


def test_figures_are_kept_beside_each_other_and_a_damaged_file_is_made_anew(engine, tmp_path):
    session = opened(engine)
    session.sensitivity.cache_root = str(tmp_path / "figures")
    session.sensitivity.start()
    job = engine.one("Sensitivity")
    path = job.request.resume
    assert path.startswith(str(tmp_path))
    (tmp_path / "figures" / path.rsplit("/", 1)[-1]).write_text(json.dumps({"milk": 1}))
    engine.finish(job, None, JobState.FAILED, Failure("this is not a file of a sensitivity sweep", path, "x"))
    again = engine.one("Sensitivity")
    assert again.request.resume == ""
    assert not (tmp_path / "figures" / path.rsplit("/", 1)[-1]).exists()
    assert session.sensitivity.running
    engine.finish(again, whole(session.recipe, (cell("fc", 4, 0.2),)))
    assert session.sensitivity.is_whole
