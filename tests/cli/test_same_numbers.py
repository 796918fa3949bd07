"""Window, command, Python and "Copy as Python": one recipe, one seed, the same numbers to the last digit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_case import environment, own_process, small_model

import qstudio
from qstudio.cli.plain import plain_run
from qstudio.engine.process_client import ProcessEngine
from qstudio.session.session import Session

TIMES = ("seconds", "latency_ms")
"""Measured anew each time."""


@pytest.fixture
def window_session() -> Iterator[Session]:
    """A session as the window has it: two engine processes."""
    session = Session(ProcessEngine())
    yield session
    session.close()


def run_in(session: Session, path: str, export: str) -> tuple[dict[str, Any], str]:
    """Do what a person does: open, choose for one layer and for all, set the run bar, press Run PTQ."""
    told: list[str] = []
    session.notice_posted.connect(lambda notice: told.append(notice.text))
    session.open_model(path)
    session.wait(120)
    session.set_options(calibration_samples=48, eval_samples=100, seed=5, measure_latency=False)
    session.open_data("digits")
    session.wait(120)
    session.edit("All weights to 5", session.recipe.with_default(weight_bits=5, activation_calibration="entropy"))
    session.set_layers("3 bits", ("body.0.conv",), weight_bits=3, weight_granularity="tensor")
    session.run_ptq(export)
    session.wait(240)
    assert told == []
    [run] = session.runs
    assert run.result is not None
    assert session.model is not None
    assert session.is_current(run)
    return plain_run(run.result, session.model, "digits"), session.as_python(run.id)


def numbers(run: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name not in (*TIMES, "export_path")}


def test_all_ways_lead_to_the_same_numbers(window_session: Session, tmp_path: Path) -> None:
    import onnx

    path = str(tmp_path / "small.onnx")
    onnx.save(small_model(), path)
    window, script = run_in(window_session, path, str(tmp_path / "window.onnx"))
    assert window["simulated"]["samples"] == 100
    assert window["simulated"]["agreement"] < 100, "a recipe this rough changes something, or nothing is compared"

    recipe = tmp_path / "recipe.json"
    window_session.save_recipe(recipe)
    options = ["--calibration-samples", "48", "--eval-samples", "100", "--seed", "5", "--no-latency", "--json"]
    told = own_process(
        tmp_path, "quantize", path, "--data", "digits", "--recipe", str(recipe), *options, "-o", "command.onnx"
    )
    assert (told.status, told.err) == (0, "")
    assert numbers(told.json) == numbers(json.loads(json.dumps(window)))
    assert (tmp_path / "command.onnx").read_bytes() == (tmp_path / "window.onnx").read_bytes()

    session = qstudio.Session()
    inline, _ = run_in(session, path, "")
    session.close()
    assert numbers(inline) == numbers(window)

    (tmp_path / "window.onnx").rename(tmp_path / "kept.onnx")
    record = "import json; from qstudio.cli.plain import plain; print(json.dumps(plain(result)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\n{record}"],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    copied = json.loads(done.stdout.splitlines()[-1])
    for name in ("float", "simulated", "exported", "parity", "size_bytes", "recipe", "recipe_hash", "data_hash"):
        assert copied[name] == told.json[name], name
    assert (tmp_path / "window.onnx").read_bytes() == (tmp_path / "kept.onnx").read_bytes()


def test_options_in_words_are_the_windows_choices(window_session: Session, tmp_path: Path) -> None:
    """The same choices, written as options instead of clicked, make another recipe text and the same schemes."""
    import onnx

    path = str(tmp_path / "small.onnx")
    onnx.save(small_model(), path)
    window, _ = run_in(window_session, path, "")
    recipe = "--weight-bits 5 --activation-calibration entropy"
    samples = "--calibration-samples 48 --eval-samples 100 --seed 5 --no-latency --json"
    words = f"{recipe} {samples}".split()
    settings = ["--set", "body.0.conv.weight_bits=3", "--set", "body.0.conv.granularity=tensor"]
    told = own_process(tmp_path, "quantize", path, "--data", "digits", *words, *settings)
    assert told.status == 0, told.err
    for name in ("float", "simulated", "exported", "parity", "layers"):
        assert told.json[name] == json.loads(json.dumps(window[name])), name
