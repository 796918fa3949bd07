"""Trainings of a session: what is asked, the growing curve, checkpoints that outlive a stop, the script."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.training import CHECKPOINT_FILE, CurvePoint, Training, TrainResult
from qstudio.engine.messages import JobState, PtqPartial, RunPtq, TrainQat
from qstudio.session.refinements import switched, with_parameter
from qstudio.session.session import Session
from qstudio.session.training import default_checkpoint_root, prune_checkpoints, read_checkpoint


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def session(engine: FakeEngine, tmp_path: Path) -> Session:
    session = Session(engine)
    session.checkpoint_root = str(tmp_path / "trainings")
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    engine.finish(engine.one("WeightStatistics"), (statistics("conv1.weight"),))
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    return session


def point(epoch: int, top1: float = 90.0) -> CurvePoint:
    loss = None if epoch == 0 else 1.0 / epoch
    return CurvePoint(epoch, 4, loss, 0.5, top1, 97.0, 1e-3, (("conv1.weight", 0.1 + epoch),), float(epoch))


def trained(session: Session, epochs: int = 2) -> TrainResult:
    curve = tuple(point(epoch) for epoch in range(epochs + 1))
    return TrainResult(result(session.recipe, 95.0), session.training, curve, epochs, 2.0, 90, 10)


def write_checkpoint(folder: str, epoch: int, best: int | None = None) -> None:
    """Write what the engine writes, as far as the session reads it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    curve = [asdict(point(number)) for number in range(epoch + 1)]
    state = {"qstudio_checkpoint": 1, "progress": {"epoch": epoch, "best_epoch": best, "curve": curve}}
    (Path(folder) / CHECKPOINT_FILE).write_text(json.dumps(state), "utf-8")
    (Path(folder) / f"epoch-{epoch:05d}.safetensors").write_bytes(b"")


def test_a_training_asks_for_everything_that_is_chosen(session: Session, engine: FakeEngine) -> None:
    told: list[Training] = []
    session.training_changed.connect(told.append)
    session.set_training(method="pact", epochs=3)
    session.set_training(method="pact")
    session.set_layers("4 bits", ("conv1",), weight_bits=4)
    session.set_options(seed=7)
    session.train("out.onnx")
    request = engine.one("TrainQat").request
    assert isinstance(request, TrainQat)
    assert request.training == Training(method="pact", epochs=3)
    assert (request.run.recipe, request.run.seed, request.run.export_path) == (session.recipe, 7, "out.onnx")
    assert Path(request.checkpoints).parent == Path(session.checkpoint_root)
    assert told == [request.training], "a value that stays is no change"
    with pytest.raises(UserError, match="A run is in progress"):
        session.train()
    with pytest.raises(UserError, match="epochs"):
        session.set_training(epochs=0)
    assert session.training.epochs == 3


def test_the_curve_grows_and_the_run_ends_like_any_other(session: Session, engine: FakeEngine) -> None:
    session.set_training(epochs=2)
    run = session.train()
    job = engine.one("TrainQat")
    engine.start(job)
    assert job.on_partial is not None
    job.on_partial(PtqPartial("calibrate", result(session.recipe)))
    for epoch in (0, 1):
        job.on_partial(point(epoch))
    record = session.run(run.id).training
    assert record is not None
    assert [p.epoch for p in record.curve] == [0, 1]
    assert (session.run(run.id).phase, record.result) == ("calibrate", None)
    write_checkpoint(record.folder, 1)
    engine.finish(job, trained(session))
    done = session.run(run.id)
    assert done.training is not None
    assert done.training.result is not None
    assert (done.state, len(done.training.curve), session.selected_run) == (JobState.DONE, 3, run.id)
    assert done.result is not None
    assert done.result.simulated is not None
    assert not os.path.exists(record.folder), "what is done needs no checkpoint"
    assert session.is_current(done)
    session.set_training(epochs=5)
    assert not session.is_current(done), "another training would not repeat it"
    session.restore_run(run.id)
    assert session.training.epochs == 2


@pytest.mark.parametrize("how", ["cancel", "force", "die"])
def test_a_training_that_stops_can_go_on(session: Session, engine: FakeEngine, how: str) -> None:
    texts: list[str] = []
    session.notice_posted.connect(lambda notice: texts.append(notice.text))
    with pytest.raises(UserError, match="no checkpoint"):
        session.train(resume=True)
    first = session.train()
    job = engine.one("TrainQat")
    engine.start(job)
    assert job.on_partial is not None
    job.on_partial(point(0))
    write_checkpoint(job.request.checkpoints, 2, 1)
    session.cancel_run()
    if how == "cancel":
        engine.finish(job, None, JobState.CANCELLED)
    elif how == "force":
        session.force_stop_run()
    else:
        engine.die("run" if job.process == "run" else "inspect")
    record = session.run(first.id).training
    assert record is not None
    assert record.result is None
    assert any("after epoch 2 is kept, the best, epoch 1, included" in text for text in texts)
    left = session.checkpoint
    assert left is not None
    assert (left.epoch, left.best_epoch, left.folder) == (2, 1, record.folder)
    second = session.train(resume=True, further=how != "cancel")
    again = engine.one("TrainQat").request
    assert (again.resume, again.further, again.checkpoints) == (True, how != "cancel", record.folder)
    going = session.run(second.id).training
    assert going is not None
    assert [p.epoch for p in going.curve] == [0, 1, 2], "what is behind it is shown at once"


def test_another_choice_has_another_checkpoint_and_the_refinements_none(session: Session, engine: FakeEngine) -> None:
    session.train()
    job = engine.one("TrainQat")
    engine.start(job)
    write_checkpoint(job.request.checkpoints, 2, 1)
    session.cancel_run()
    engine.finish(job, None, JobState.CANCELLED)
    session.edit(*switched(session.recipe, "adaround", True))
    assert session.checkpoint is not None, "training leaves AdaRound out"
    session.edit(*switched(session.recipe, "adaround", False))
    session.edit(*switched(session.recipe, "fold", False))
    assert session.checkpoint is None
    session.undo()
    session.set_training(learning_rate=1e-4)
    assert session.checkpoint is None
    session.set_training(learning_rate=1e-3)
    folder = job.request.checkpoints
    session.train()
    assert read_checkpoint(folder) is None, "from the start: what was there is discarded"


def test_measuring_the_best_epoch_leaves_the_rest_to_be_trained(session: Session, engine: FakeEngine) -> None:
    session.set_training(epochs=3)
    session.train()
    job = engine.one("TrainQat")
    engine.start(job)
    write_checkpoint(job.request.checkpoints, 1, 1)
    session.cancel_run()
    engine.finish(job, None, JobState.CANCELLED)
    early = session.train(resume=True, further=False)
    engine.finish(engine.one("TrainQat"), trained(session, 1))
    assert session.checkpoint is not None
    assert not session.is_current(session.run(early.id)), "all epochs would give other numbers"
    script = session.as_python(early.id)
    assert "stopped after epoch 1 of 3" in script
    compile(script, "script", "exec")
    session.train(resume=True)
    engine.finish(engine.one("TrainQat"), trained(session, 3))
    assert session.checkpoint is None


def test_without_a_root_nothing_is_kept(session: Session, engine: FakeEngine) -> None:
    session.checkpoint_root = ""
    assert session.checkpoint is None
    session.train()
    assert engine.one("TrainQat").request.checkpoints == ""


def test_why_a_training_cannot_start(engine: FakeEngine) -> None:
    session = Session(engine)
    assert session.train_blocked == "Open a model first"
    session.open_model("model.onnx")
    engine.finish(engine.one("OpenModel"), model())
    for info, words in (
        (replace(dataset(), sizes={"test": 10}), "no training split"),
        (replace(dataset(), has_labels=False), "no labels"),
        (dataset(), ""),
    ):
        session.open_data("digits")
        engine.finish(engine.one("OpenDataset"), info)
        assert (words in session.train_blocked) if words else session.train_blocked == ""
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), replace(dataset(), has_labels=False))
    session.set_training(distill=1.0)
    assert session.train_blocked == ""


def test_the_script_of_a_training_spells_it_out(session: Session, engine: FakeEngine) -> None:
    session.set_training(method="lsq+", epochs=3, progressive_bits=(8, 4), distill=0.5)
    run = session.train()
    engine.finish(engine.one("TrainQat"), trained(session))
    script = session.as_python(run.id)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class Recorder:
        Recipe = Recipe
        Training = Training
        from qstudio.engine.messages import DataSpec

        @staticmethod
        def train(*args: Any, **kwargs: Any) -> TrainResult:
            calls.append((args, kwargs))
            return trained(session)

    with patch.dict(sys.modules, {"qstudio": Recorder}):  # type: ignore[dict-item]
        exec(script, {})
    [(args, kwargs)] = calls
    assert run.request is not None
    assert args == ("model.onnx", run.request.data, run.request.recipe, session.training)
    assert all(f"{f.name}=" in script for f in fields(Training))
    assert set(kwargs) | {"model", "data", "recipe"} >= set(RunPtq.__dataclass_fields__) - {"calibration_data"}


def test_damaged_checkpoints_are_none_and_old_ones_go(tmp_path: Path) -> None:
    assert read_checkpoint(str(tmp_path)) is None
    (tmp_path / CHECKPOINT_FILE).write_text('{"progress": {"epoch": 1}}')
    assert read_checkpoint(str(tmp_path)) is None
    for number in range(4):
        write_checkpoint(str(tmp_path / "root" / str(number)), number)
        os.utime(tmp_path / "root" / str(number) / CHECKPOINT_FILE, (number, number))
    (tmp_path / "root" / "0" / "mine.txt").write_text("kept")
    prune_checkpoints(str(tmp_path / "root"), 2)
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == ["0", "2", "3"]
    assert [p.name for p in (tmp_path / "root" / "0").iterdir()] == ["mine.txt"], "only what is ours goes"


@pytest.mark.skipif(sys.platform != "linux", reason="the place is the system's own")
def test_checkpoints_stand_where_the_system_keeps_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_checkpoint_root() == str(tmp_path / "qstudio" / "trainings")


def test_refinements_are_switched_in_their_order_and_exclude_each_other() -> None:
    bare = replace(Recipe(), refinements=())
    label, recipe = switched(bare, "adaround", True)
    assert (label, recipe.refinements) == ("AdaRound on", ("fold", "adaround")), "the others need folded weights"
    label, recipe = switched(recipe, "cle", True)
    assert recipe.refinements == ("fold", "cle", "adaround")
    label, recipe = switched(recipe, "gptq", True)
    assert (label, recipe.refinements) == ("GPTQ instead of AdaRound", ("fold", "cle", "gptq"))
    assert recipe.sha256() != bare.sha256()
    _, kept = switched(recipe, "fold", False)
    assert kept == recipe, "folding stays while something needs it"
    label, recipe = with_parameter(recipe, "gptq", "damping", 0.05)
    assert (label, recipe.refinements[-1]) == ("GPTQ: damping 0.05", "gptq:damping=0.05")
    _, recipe = with_parameter(recipe, "gptq", "act_order", 1)
    assert recipe.refinements[-1] == "gptq:damping=0.05:act_order=1"
    _, recipe = with_parameter(recipe, "gptq", "damping", 0.01)
    assert recipe.refinements[-1] == "gptq:act_order=1"
    with pytest.raises(UserError, match="damping"):
        with_parameter(recipe, "gptq", "damping", 7)
    with pytest.raises(KeyError):
        with_parameter(recipe, "gptq", "alpha", 1)
    with pytest.raises(UserError, match="no refinement"):
        switched(bare, "magic", True)
