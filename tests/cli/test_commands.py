"""What the commands print and leave behind, called as a person calls them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_case import SAMPLES, Told, command, environment, own_process

from qstudio import __version__
from qstudio.cli.plain import plain
from qstudio.cli.tables import amount, milliseconds, number, size, table
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import Granularity

Cli = Callable[..., Told]


def test_inspect_describes_layers_sites_and_statistics(cli: Cli, model: str) -> None:
    told = cli("inspect", model, "--data", "digits", *SAMPLES, "--set", "fc.weight_bits=4", "--json")
    assert (told.status, told.err) == (0, "")
    found = told.json
    assert found["model"]["parameters"] == 4 * 9 + 4 + 6 * 36 + 6 + 960 + 10
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert [name for name, layer in layers.items() if layer["weight"]] == ["body.0.conv", "body[1]/conv", "fc"]
    fc = layers["fc"]
    assert fc["schemes"]["weight"] == "int4 symmetric channel minmax"
    assert 10 < fc["weight_sqnr_db"] < layers["body.0.conv"]["weight_sqnr_db"]
    assert fc["weight"]["count"] == 960
    assert fc["weight"]["minimum"] == min(fc["weight"]["channel_min"])
    assert layers["body.0.conv"]["activation"]["minimum"] == 0.0, "after the Relu"
    assert layers["body.0.conv"]["activation"]["samples"] == 32
    assert found["data"]["float"]["samples"] == 64
    assert found["size_bytes"]["quantized"] < found["size_bytes"]["float"]
    assert Recipe.from_json(found["recipe"]).sha256() == found["recipe_hash"]


def test_inspect_for_people(cli: Cli, model: str) -> None:
    told = cli("inspect", model, "--data", "digits", *SAMPLES)
    assert told.status == 0
    lines = told.out.splitlines()
    assert any(line.startswith("body[1]/conv") and "int8 symmetric channel minmax" in line for line in lines)
    assert any(line.startswith("float: top-1 ") and "on 64 samples" in line for line in lines)
    head = next(line for line in lines if line.startswith("layer "))
    rows = [line for line in lines if re.match(r"(x|body|fc)\b", line)]
    column = head.index("weight scheme")
    assert {row[column - 2 : column].strip() for row in rows} == {""}, "columns line up"


def test_quantize_gives_every_figure(cli: Cli, model: str, tmp_path: Path) -> None:
    output, recipe = tmp_path / "q.onnx", tmp_path / "r.json"
    words = ["quantize", model, "--data", "digits", *SAMPLES, "--weight-bits", "4", "--seed", "3"]
    told = cli(*words, "-o", str(output), "--save-recipe", str(recipe), "--json")
    assert (told.status, told.err) == (0, "")
    run = told.json
    wanted = "float simulated exported parity size_bytes latency_ms layers recipe recipe_hash seconds"
    assert set(wanted.split()) <= set(run)
    for name in ("float", "simulated", "exported"):
        assert {"top1", "top5", "loss", "agreement", "samples"} <= set(run[name])
        assert run[name]["samples"] == 64
        assert 0 <= run[name]["top1"] <= 100
    assert run["float"]["agreement"] == 100.0
    assert run["parity"]["agreement"] >= 95
    assert run["parity"]["max_lsb"] >= 0
    assert run["size_bytes"]["file"] == output.stat().st_size
    assert run["size_bytes"]["quantized"] < run["size_bytes"]["float"]
    for name in ("float", "exported"):
        assert 0 < run["latency_ms"][name]["p10"] <= run["latency_ms"][name]["median"] <= run["latency_ms"][name]["p90"]
        assert run["latency_ms"][name]["threads"] >= 1
    layers = {layer["name"]: layer for layer in run["layers"]}
    assert {"name", "type", "schemes", "sqnr_db", "cosine"} <= set(layers["fc"])
    assert layers["fc"]["schemes"]["weight"] == "int4 symmetric channel minmax"
    assert (run["seed"], run["qstudio"], run["export_path"]) == (3, __version__, str(output))
    assert Recipe.from_json(json.loads(recipe.read_text())).sha256() == run["recipe_hash"]
    onnx.checker.check_model(str(output))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.onnx", "r.json", "small.onnx"]


def test_the_saved_recipe_gives_the_same_run(cli: Cli, model: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.json"
    words = ["quantize", model, "--data", "digits", *SAMPLES, "--no-latency", "--json"]
    first = cli(*words, "--first-last-bits", "6", "--set", "b*.bits=3", "--save-recipe", str(recipe)).json
    second = cli(*words, "--recipe", str(recipe)).json
    assert first["latency_ms"] is None
    for run in (first, second):
        del run["seconds"]
    assert first == second


def test_quantize_for_people(cli: Cli, model: str) -> None:
    told = cli("quantize", model, "--data", "digits", *SAMPLES, "--threads", "1")
    assert told.status == 0
    for pattern in (
        r"^fc +Gemm +int8 symmetric channel minmax +\d+\.\d ",
        r"^float +\d+\.\d\d +\d+\.\d \.\. \d+\.\d ",
        r"^simulated +\d",
        r"^exported +\d",
        r"^size +.* -> .* \(\d\.\dx smaller\), as a file \d",
        r"^latency +float [\d.]+ ms \([\d.]+ \.\. [\d.]+\), exported [\d.]+ ms .*x (faster|slower)$",
        r"batch 1, 1 thread,",
        r"^parity +the exported file gives the simulation's class on \d+\.\d\d % of 64 samples",
    ):
        assert re.search(pattern, told.out, re.MULTILINE), (pattern, told.out)


def test_float_everywhere_is_exactly_float(cli: Cli, model: str) -> None:
    words = ["--weight-bits", "float", "--activation-bits", "float", "--no-latency", "--json"]
    told = cli("quantize", model, "--data", "digits", *SAMPLES, *words)
    assert told.status == 0
    run = told.json
    assert run["simulated"]["agreement"] == 100.0
    assert run["exported"]["agreement"] == 100.0
    assert all(layer["sqnr_db"] is None or layer["sqnr_db"] > 90 for layer in run["layers"])
    assert {scheme for layer in run["layers"] for scheme in layer["schemes"].values()} == {"float"}


def test_what_is_no_number_is_null_in_json() -> None:
    values = {"a": (np.inf, -np.inf, np.nan, np.float32(0.5)), 3: np.array([[1, 2]]), "g": Granularity("group", 32)}
    assert plain(values) == {"a": [None, None, None, 0.5], "3": [[1, 2]], "g": "group:32"}
    with pytest.raises(TypeError, match="set has no JSON form"):
        plain({1, 2})


def test_figures_for_people() -> None:
    assert [number(v, 1) for v in (12.345, None, float("nan"), float("inf"))] == ["12.3", "-", "-", "exact"]
    assert [size(v) for v in (999, 1234, 1_160_000, 2_500_000_000, None)] == [
        "999 B",
        "1.23 kB",
        "1.16 MB",
        "2.50 GB",
        "-",
    ]
    assert [milliseconds(v) for v in (0.0341, 0.781, 12.04, 123.4, 0.0)] == ["0.0341", "0.781", "12.0", "123", "0"]
    assert [amount(v) for v in (999, 269_722, 40_810_000)] == ["999", "269.7 k", "40.81 M"]
    assert table(("a", "b"), [("long", "1"), ("x", "10")], "lr") == "a      b\nlong   1\nx     10"


def test_benchmark(cli: Cli, model: str) -> None:
    told = cli("benchmark", model, "--batch", "4", "--threads", "1", "--runs", "20", "--warmup", "2", "--json")
    assert told.status == 0
    latency = told.json["latency_ms"]
    assert (latency["batch"], latency["threads"], latency["runs"], latency["warmup"]) == (4, 1, 20, 2)
    assert 0 < latency["p10"] <= latency["median"] <= latency["p90"]
    assert "batch 4, 1 thread" in cli("benchmark", model, "--batch", "4", "--threads", "1", "--runs", "5").out


def test_auto_takes_the_best_device_there_is(cli: Cli, model: str) -> None:
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has more than a CPU")
    told = cli("quantize", model, "--data", "digits", *SAMPLES, "--no-latency", "--device", "auto", "--json")
    assert told.json["device"] == "cpu"


@pytest.mark.parametrize("words", [["--help"], ["quantize", "--help"], ["inspect", "-h"], ["benchmark", "--help"]])
def test_help_names_every_option_and_fits_a_terminal(cli: Cli, words: list[str]) -> None:
    from qstudio.cli.parser import build_parser

    told = cli(*words)
    assert (told.status, told.err) == (0, "")
    assert told.out.startswith("usage: qstudio")
    if len(words) > 1:
        actions = build_parser()._subparsers._group_actions[0].choices[words[0]]._actions  # type: ignore[union-attr]
        assert all(action.help for action in actions)
        assert all(option in told.out for action in actions for option in action.option_strings)


def test_version(cli: Cli) -> None:
    assert cli("--version") == Told(0, f"qstudio {__version__}\n", "")


def test_help_and_version_load_nothing_heavy() -> None:
    code = "import sys; from qstudio.cli import main; main(['quantize', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.splitlines()[-1]
    for name in ("numpy", "torch", "onnx", "onnxruntime", "PySide6", "sklearn", "scipy", "tqdm"):
        assert f"'{name}'" not in loaded, f"{name} is loaded for --help"


def test_stdout_is_one_json_object_in_a_process_of_its_own(model: str, tmp_path: Path) -> None:
    told = own_process(tmp_path, "quantize", model, "--data", "digits", *SAMPLES, "--json", "-o", "q.onnx")
    assert (told.status, told.err) == (0, "")
    assert told.json["simulated"]["samples"] == 64
    assert (tmp_path / "q.onnx").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_pt2_model_prints_nothing_of_torchs_own(model: str, tmp_path: Path) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    batch = {0: torch.export.Dim("n")}
    torch.export.save(
        torch.export.export(module, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(batch,)), tmp_path / "linear.pt2"
    )
    told = own_process(tmp_path, "inspect", "linear.pt2", "--json")
    assert (told.status, told.err) == (0, "")
    assert told.json["model"]["format"] == "pt2"


def test_progress_goes_to_stderr_when_asked(model: str, tmp_path: Path) -> None:
    told = own_process(tmp_path, "quantize", model, "--data", "digits", *SAMPLES, "--json", "--progress")
    assert told.status == 0
    assert told.json["simulated"]
    assert "%" in told.err
    assert "statistics" in told.err


def test_a_closed_pipe_ends_quietly(model: str, tmp_path: Path) -> None:
    words = command("inspect", model, "--json")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path), text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        told = child.stderr.read()
        status = child.wait(60)
    assert (status, told) == (141, "")


STOPPED = """
import os, signal, sys
import qstudio.quant.evaluate as evaluate
import qstudio.quant.outcome as outcome
whole = outcome.predict
def predict(*args, **kwargs):
    for _ in range({signals}):
        os.kill(os.getpid(), {number})
    return whole(*args, **kwargs)
outcome.predict = predict
from qstudio.cli import main
sys.exit(main({words!r}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "signals"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_signal_stops_in_order_and_leaves_nothing(model: str, tmp_path: Path, number: int, signals: int) -> None:
    """The signal comes in the middle of the simulation, sent by the process to itself: no race with its start."""
    words = ["quantize", model, "--data", "digits", *SAMPLES, "-o", "q.onnx", "--save-recipe", "r.json"]
    code = STOPPED.format(words=words, number=int(number), signals=signals)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    assert done.returncode == 128 + number, done
    assert (done.stdout, done.stderr) == ("", "qstudio: stopped; nothing was written.\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.onnx", "temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_fault_of_ours_is_one_line_and_a_log(
    cli: Cli, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_log_dir", lambda *_, **__: str(tmp_path / "logs"))

    def broken(*_: Any) -> None:
        print("a word of a library")
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("qstudio.engine.jobs.models.opened_model", broken)
    told = cli("inspect", model, "--json")
    assert told.status == 1
    assert len(told.err.splitlines()) == 1
    assert "ZeroDivisionError: no such luck" in told.err
    assert told.json["exit_status"] == 1
    [log] = (tmp_path / "logs").iterdir()
    assert str(log) in told.err
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "a word of a library" in text

    def broken_here(*_: Any) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("qstudio.cli.inspecting.recipe_choices", broken_here)
    told = cli("inspect", model)
    assert (told.status, told.out) == (1, "")
    assert "a fault of the program (KeyError: 'odd')" in told.err
    assert len(told.err.splitlines()) == 1


def test_what_cannot_be_written_does_not_hide_the_fault(
    cli: Cli, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr("platformdirs.user_log_dir", lambda *_, **__: str(blocked / "logs"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("qstudio.cli.inspecting.recipe_choices", lambda _: 1 / 0)
    told = cli("inspect", model)
    assert told.status == 1
    assert len(list(tmp_path.glob("qstudio-*.log"))) == 1


def test_calibration_with_noise_is_possible_and_said(cli: Cli, model: str) -> None:
    words = ("quantize", model, "--data", "digits", "--calibration-samples", "16", "--eval-samples", "40")
    told = cli(*words, "--calibration-data", "noise:uniform", "--no-latency", "--json")
    assert told.status == 0
    assert any("calibration data was uniform noise" in note for note in json.loads(told.out)["notes"])
    told = cli("inspect", model, "--data", "digits", "--calibration-choice", "balanced", "--json")
    assert told.status == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--calibration-data", "noise:pink"), "Choose noise:gaussian or noise:uniform"),
        (("--calibration-choice", "best"), "--calibration-choice"),
    ],
)
def test_calibration_sets_that_are_not_there_are_refused(
    cli: Cli, model: str, words: tuple[str, ...], told: str
) -> None:
    refused = cli("quantize", model, "--data", "digits", *words)
    assert refused.status == 2
    assert told in refused.err


def test_inspect_compares_calibration_and_evaluation_data(cli: Cli, model: str) -> None:
    words = ("inspect", model, "--data", "digits", "--calibration-samples", "64", "--eval-samples", "64", "--overlap")
    layers = json.loads(cli(*words, "--json").out)["layers"]
    found = [layer["activation"]["overlap"] for layer in layers if layer["activation"]]
    assert found
    assert all(80 < each["intersection_percent"] <= 100 for each in found)
    assert all(0 <= each["outside_percent"] < 5 for each in found)
    noisy = json.loads(cli(*words, "--calibration-data", "noise", "--json").out)["layers"]
    first = next(layer["activation"]["overlap"] for layer in noisy if layer["activation"])
    assert first["intersection_percent"] < 60
    assert "overlap / outside" in cli(*words).out
    assert "--overlap: there is no data" in cli("inspect", model, "--overlap").err
