"""`qstudio train`: the same engine as quantize, checkpoints that outlive a kill, one line for what cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from cli_case import Told, command, environment, own_process

from qstudio.cli.parser import build_parser
from qstudio.cli.train import training_choices
from qstudio.cli.train_options import BATCHNORMS, METHODS
from qstudio.core import training

Cli = Callable[..., Told]

SHORT = ("--calibration-samples", "32", "--eval-samples", "64", "--training-samples", "120", "--no-latency")


def words(model: str, *more: str) -> list[str]:
    return ["train", model, "--data", "digits", "--weight-bits", "4", "--activation-bits", "4", *SHORT, *more]


def numbers(told: Told) -> dict[str, object]:
    """Return what must be equal when the same training is run twice."""
    found = told.json
    curve = [{k: v for k, v in point.items() if k != "seconds"} for point in found["training"]["curve"]]
    return {"curve": curve, **{name: found[name] for name in ("float", "simulated", "exported", "parity", "layers")}}


def test_training_reports_a_run_and_its_curve(cli: Cli, model: str, tmp_path: Path) -> None:
    output = tmp_path / "q.onnx"
    told = cli(*words(model, "--epochs", "2", "--lr", "1e-2", "--method", "lsq+", "-o", str(output), "--json"))
    assert told.status == 0, told.err
    found = told.json
    assert {"float", "simulated", "exported", "parity", "size_bytes", "layers", "recipe", "seconds"} <= set(found)
    training_part = found["training"]
    assert training_part["method"] == "lsq+"
    assert training_part["settings"]["learning_rate"] == 1e-2
    assert [point["epoch"] for point in training_part["curve"]] == [0, 1, 2]
    assert training_part["best_epoch"] in (0, 1, 2)
    assert training_part["seconds"] > 0
    assert training_part["training_samples"] + training_part["held_out_samples"] == 120
    assert {point["quantized_top1"] <= 100 for point in training_part["curve"]} == {True}
    onnx.checker.check_model(onnx.load(output))
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("q.")) == ["q.onnx"]


def test_text_for_people_names_the_best_epoch(cli: Cli, model: str) -> None:
    told = cli(*words(model, "--epochs", "1", "--distill", "--batchnorm", "live", "--batchnorm-freeze", "50"))
    assert told.status == 0, told.err
    assert "there is no BatchNormalization that training could keep" in told.out
    assert "held-out training samples" in told.out
    assert "top-1 %" in told.out


def test_a_killed_command_resumes_to_the_same_numbers(model: str, tmp_path: Path) -> None:
    more = ("--epochs", "5", "--lr", "1e-2", "--json")
    whole = own_process(tmp_path, *words(model, *more))
    kept = tmp_path / "kept"
    process = subprocess.Popen(
        command(*words(model, *more, "--checkpoints", str(kept))),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(tmp_path),
    )
    deadline = time.monotonic() + 120
    while not list(kept.glob("epoch-00002*")) and process.poll() is None and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert (kept / "checkpoint.json").exists()
    resumed = own_process(tmp_path, *words(model, *more, "--resume", str(kept)))
    assert resumed.status == 0, resumed.err
    assert resumed.json["training"]["resumed_after"] >= 1
    assert numbers(resumed) == numbers(whole)
    early = own_process(tmp_path, *words(model, *more, "--resume", str(kept), "--stop-training"))
    assert early.status == 0, early.err
    assert numbers(early) == numbers(whole)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--epochs", "0"), "epochs"),
        (("--epochs", "many"), "--epochs"),
        (("--lr", "-1"), "learning rate"),
        (("--method", "magic"), "--method"),
        (("--progressive", "a,b"), "--progressive"),
        (("--progressive", "4,8"), "not falling"),
        (("--resume", "nowhere"), "no such folder"),
        (("--stop-training",), "--resume"),
        (("--distill", "7"), "distillation share"),
        (("--crop", "-3"), "crop padding"),
        (("--batchnorm", "warm"), "--batchnorm"),
        (("--batchnorm-freeze", "170"), "--batchnorm-freeze: 170 is out of bounds. Choose a percentage"),
        (("--batchnorm", "live", "--refine", "none"), "the recipe does not fold"),
    ],
)
def test_what_cannot_be_used_is_one_line(cli: Cli, model: str, more: tuple[str, ...], said: str) -> None:
    told = cli(*words(model, *more))
    assert told.status == 2
    assert said in told.err
    assert told.err.count("\n") == 1


def test_help_and_engine_know_the_same_methods() -> None:
    assert METHODS == training.METHODS
    assert BATCHNORMS == training.BATCHNORMS


def test_the_share_of_live_statistics_is_given_in_percent() -> None:
    given = build_parser().parse_args(words("m.onnx", "--batchnorm", "live", "--batchnorm-freeze", "55"))
    chosen = training_choices(given)
    assert (chosen.batchnorm, chosen.batchnorm_freeze) == ("live", 0.55)
    assert training_choices(build_parser().parse_args(words("m.onnx"))).batchnorm == "folded"
