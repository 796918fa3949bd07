"""`qstudio sensitivity` as a person calls it."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_case import SAMPLES, Told
from onnx import TensorProto, helper

from qstudio.cli import sensitivity_options
from qstudio.core.recipe import Recipe
from qstudio.core.sensitivity import MEASURES, MODES, SIDES, SensitivityCell, SensitivityResult
from qstudio.engine.inline import InlineEngine
from qstudio.engine.jobs import spec_of
from qstudio.engine.messages import DataSpec, JobState, Sensitivity
from qstudio.quant import sensitivity
from qstudio.quant.evaluation import sweep
from qstudio.quant.evaluation.cells import CellBook

Cli = Callable[..., Told]
LAYERS = ["body.0.conv", "body[1]/conv", "fc"]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "known", CellBook())


def test_a_sweep_as_json(cli: Cli, model: str) -> None:
    told = cli("sensitivity", model, "--data", "digits", *SAMPLES, "--bits", "8,2", "--hessian", "--json")
    assert (told.status, told.err) == (0, "")
    found = told.json
    assert [(cell["layer"], cell["candidate"]) for cell in found["cells"]] == [
        (layer, candidate) for layer in LAYERS for candidate in ("W8", "W2")
    ]
    for cell in found["cells"]:
        assert cell["samples"] == 64
        assert all(cell[name] is not None for name in ("agreement", "sqnr_db", "kl", "top1", "loss", "hessian"))
    by_place = {(cell["layer"], cell["candidate"]): cell for cell in found["cells"]}
    for layer in LAYERS:
        assert by_place[(layer, "W8")]["kl"] < by_place[(layer, "W2")]["kl"]
        assert by_place[(layer, "W8")]["hessian"] < by_place[(layer, "W2")]["hessian"]
    assert (found["metric"], found["mode"], found["computed"]) == ("kl", "enable", 6)
    assert sorted(found["ranking"]["W2"]) == LAYERS
    worst = found["ranking"]["W2"][0]
    assert by_place[(worst, "W2")]["kl"] == max(by_place[(layer, "W2")]["kl"] for layer in LAYERS)
    assert found["float"]["kl"] == 0.0
    assert found["bases"] == {"W8": found["float"], "W2": found["float"]}
    assert [trace["layer"] for trace in found["traces"]] == LAYERS
    assert Recipe.from_json(found["recipe"]).sha256() == found["recipe_hash"]


def test_a_sweep_for_people(cli: Cli, model: str) -> None:
    words = ["--bits", "3", "--side", "both", "--mode", "disable", "--metric", "sqnr", "--hessian"]
    told = cli("sensitivity", model, "--data", "digits", *SAMPLES, *words)
    assert told.status == 0
    for pattern in (
        r"^disable: everything is quantized, only this layer is float",
        r"^layer +type +params +W3A3 dB$",
        r"^fc +Gemm +970 +-?\d+\.\d$",
        r"^\(all\) +-?\d+\.\d$",
        r"^W3A3 most worth sparing: ",
        r"^output SQNR \(dB\): 10 log10",
        r"^predicted from the Hessian:$",
        r"^4 of 4 cells evaluated, \d",
    ):
        assert re.search(pattern, told.out, re.MULTILINE), (pattern, told.out)


def test_the_curvature_alone_measures_nothing(cli: Cli, model: str) -> None:
    told = cli("sensitivity", model, "--data", "digits", *SAMPLES, "--metric", "hessian", "--layers", "body*")
    assert told.status == 0
    assert "predicted in " in told.out
    assert "cells evaluated" not in told.out
    assert not re.search(r"^fc ", told.out, re.MULTILINE)
    assert re.search(r"^body\[1\]/conv +Conv +222 +\S+ +\S+ +\S+$", told.out, re.MULTILINE)


def test_a_sweep_is_resumed_from_its_file(cli: Cli, model: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    words = ["sensitivity", model, "--data", "digits", *SAMPLES, "--bits", "4", "--json", "--resume", str(file)]
    first = cli(*words).json
    sensitivity.known = CellBook()
    second = cli(*words).json
    assert (first["computed"], second["computed"]) == (3, 0)
    assert second["cells"] == first["cells"]
    file.write_text("{}")
    told = cli(*words)
    assert told.status == 2
    assert "this is not a file of a sensitivity sweep" in told.err
    assert file.read_text() == "{}"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_keeps_what_was_measured(cli: Cli, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, calls, whole = tmp_path / "sweep.json", [], sweep.figures_of

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(*arguments)

    monkeypatch.setattr(sweep, "figures_of", stopped)
    words = ["sensitivity", model, "--data", "digits", *SAMPLES, "--bits", "4", "--resume", str(file)]
    said = f"qstudio: {file}: stopped; what was measured is kept. The same command goes on from there.\n"
    assert cli(*words) == Told(130, "", said)
    assert len(json.loads(file.read_text())["entries"]) == 3, "the float model and two cells"
    sensitivity.known = CellBook()
    assert cli(*words, "--json").json["computed"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bits", "8,17"], "'17' is not a bit width"),
        (["--bits", ","], "there is no bit width to try"),
        (["--bits", "float"], "float is no candidate here"),
        (["--layers", "conv9"], "no layer of the model matches 'conv9'"),
        (["--metric", "hessian", "--side", "activations"], "says nothing about activations"),
        (["--resume", "nowhere/sweep.json"], "the folder does not exist"),
        (["--metric", "nonsense"], "--metric"),
        (["--device", "toaster"], "there is no device 'toaster'"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, model: str, words: list[str], said: str) -> None:
    told = cli("sensitivity", model, "--data", "digits", *SAMPLES, *words)
    assert (told.status, told.out) == (2, "")
    assert len(told.err.splitlines()) == 1
    assert said in told.err


def test_metrics_that_need_labels_say_so(cli: Cli, model: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32))
    words = ["sensitivity", model, "--data", str(tmp_path / "plain.npz"), "--calibration-samples", "8"]
    told = cli(*words, "--metric", "loss")
    assert told.status == 2
    assert "loss needs labels, and the data has none" in told.err
    cell = cli(*words, "--bits", "2", "--json").json["cells"][0]
    assert (cell["loss"], cell["top1"]) == (None, None)


def test_a_network_without_classes_has_no_kl(cli: Cli, tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 1, 3, 3], np.linspace(-1, 1, 18).tolist())
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 6, 6])
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], "conv")], "map", [x], [y], [weight])
    path = str(tmp_path / "map.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    words = ["sensitivity", path, "--data", "digits", *SAMPLES, "--bits", "4"]
    found = cli(*words, "--hessian", "--json").json
    assert found["metric"] == "sqnr"
    (cell,) = found["cells"]
    assert (cell["kl"], cell["loss"]) == (None, None)
    assert 15 < cell["sqnr_db"] < 40
    assert cell["hessian"] > 0
    told = cli(*words, "--metric", "kl")
    assert told.status == 2
    assert "the output is no class scores: there is no kl" in told.err


def test_the_engine_streams_every_cell(model: str) -> None:
    request = Sensitivity(model, DataSpec("digits"), calibration_samples=16, eval_samples=32)
    assert pickle.loads(pickle.dumps(request)) == request
    assert spec_of(request).process == "run"
    engine, told = InlineEngine(), []
    job = engine.wait(engine.submit(request, on_partial=told.append))
    assert job.state is JobState.DONE, job.error
    result = job.value
    assert isinstance(result, SensitivityResult)
    assert all(isinstance(cell, SensitivityCell) for cell in told)
    assert sorted(map(repr, told)) == sorted(map(repr, result.cells))
    assert pickle.loads(pickle.dumps(result)) == result
    engine.close()


def test_the_words_of_the_parser_are_those_of_the_core() -> None:
    assert set(sensitivity_options.METRICS) == set(MEASURES)
    assert set(sensitivity_options.MODES) == set(MODES)
    assert set(sensitivity_options.SIDES) == set(SIDES)
