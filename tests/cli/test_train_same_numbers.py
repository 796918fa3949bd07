"""Training from the command, from Python and from a session: one recipe, one seed, the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli_case import Told

import qstudio
from qstudio.cli.plain import plain_run
from qstudio.core.training import CurvePoint, TrainResult
from qstudio.engine.messages import JobState
from qstudio.session.options import Run
from qstudio.session.training import read_checkpoint

Cli = Callable[..., Told]
PARTS = ("float", "simulated", "exported", "parity", "layers", "recipe", "recipe_hash", "data_hash")


def parts(result: TrainResult, path: str) -> dict[str, Any]:
    found = json.loads(json.dumps(plain_run(result.run, qstudio.open_model(path), "digits")))
    return {name: found[name] for name in PARTS}


def test_training_gives_the_same_numbers_everywhere(cli: Cli, model: str, tmp_path: Path) -> None:
    options = ("--calibration-samples", "32", "--eval-samples", "64", "--seed", "3", "--no-latency", "--json")
    chosen = ("--weight-bits", "3", "--method", "lsq+", "--epochs", "2", "--lr", "0.01", "--training-samples", "120")
    told = cli("train", model, "--data", "digits", *options, *chosen)
    assert told.status == 0, told.err

    settings = {"method": "lsq+", "epochs": 2, "learning_rate": 0.01, "samples": 120}
    session = qstudio.Session()
    session.checkpoint_root = str(tmp_path / "trainings")
    session.open_model(model)
    session.open_data("digits")
    session.wait(60)
    session.set_options(calibration_samples=32, eval_samples=64, seed=3, measure_latency=False)
    session.set_training(**settings)
    session.edit("3 bits", session.recipe.with_default(weight_bits=3))

    def stop_after_the_first_epoch(runs: tuple[Run, ...]) -> None:
        training = runs[0].training
        assert training is not None
        if len(runs) == 1 and runs[0].state is JobState.RUNNING and [p.epoch for p in training.curve] == [0, 1]:
            session.cancel_run()

    session.runs_changed.connect(stop_after_the_first_epoch)
    stopped = session.train()
    session.wait(120)
    assert session.run(stopped.id).state is JobState.CANCELLED
    left = session.checkpoint
    assert left is not None
    assert left.epoch == 1
    run = session.train(resume=True)
    session.wait(120)
    assert session.checkpoint is None
    record = session.run(run.id).training
    session.close()
    assert record is not None
    assert record.result is not None
    assert record.result.resumed_after == 1
    assert parts(record.result, model) == {name: told.json[name] for name in PARTS}
    assert record.result.best_epoch == told.json["training"]["best_epoch"]

    heard: list[CurvePoint] = []
    folder = tmp_path / "kept"
    from_python = qstudio.train(
        model,
        "digits",
        qstudio.Recipe().with_default(weight_bits=3),
        qstudio.Training(**settings),
        calibration_samples=32,
        eval_samples=64,
        seed=3,
        measure_latency=False,
        checkpoints=folder,
        on_point=heard.append,
    )
    assert parts(from_python, model) == parts(record.result, model)
    assert tuple(heard) == from_python.curve
    kept = read_checkpoint(str(folder))
    assert kept is not None
    assert (kept.epoch, kept.best_epoch, kept.curve) == (2, from_python.best_epoch, from_python.curve)
