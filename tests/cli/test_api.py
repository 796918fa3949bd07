"""QStudio from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qstudio
from qstudio import api
from qstudio.engine.messages import Progress


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, qstudio; print(qstudio.__version__, 'numpy' in sys.modules, 'qstudio.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [qstudio.__version__, "False", "False"]


def test_what_is_offered_is_there() -> None:
    assert set(qstudio.__all__) == {*api.__all__, "__version__"}
    for name in qstudio.__all__:
        assert getattr(qstudio, name) is not None
    assert dir(qstudio) == sorted(qstudio.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        qstudio.nothing  # noqa: B018


def test_open_choose_quantize(model: str, tmp_path: Path) -> None:
    info = qstudio.open_model(model)
    assert [layer.name for layer in info.weighted_layers] == ["body.0.conv", "body[1]/conv", "fc"]
    data = qstudio.load_dataset("digits")
    assert data.name == "digits"
    seen: list[Progress] = []
    recipe = qstudio.Recipe().with_default(weight_bits=4).with_layers(["fc"], weight_bits=8)
    result = qstudio.quantize(
        info,
        data,
        recipe,
        calibration_samples=32,
        eval_samples=64,
        measure_latency=False,
        export_path=tmp_path / "q.onnx",
        on_progress=seen.append,
    )
    assert isinstance(result, qstudio.RunResult)
    assert result.recipe == recipe
    assert result.simulated is not None
    assert result.simulated.samples == 64
    assert (tmp_path / "q.onnx").exists()
    assert seen
    again = qstudio.quantize(
        model, "digits", recipe, calibration_samples=32, eval_samples=64, measure_latency=False, seed=0
    )
    assert (again.simulated, again.layers) == (result.simulated, result.layers)


def test_data_keeps_the_options_it_was_opened_with(model: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=draw.integers(0, 255, (80, 8, 8), np.uint8), y=draw.integers(0, 10, 80))
    path = tmp_path / "d.npz"
    options: dict[str, Any] = {"mean": 0.5, "std": [0.25], "scale": 16.0}
    spec = qstudio.DataSpec(str(path), mean=(0.5,), std=(0.25,), scale=16.0)
    small: dict[str, Any] = {"calibration_samples": 16, "measure_latency": False}
    opened = qstudio.quantize(model, qstudio.load_dataset(path, **options), **small)
    described = qstudio.quantize(model, spec, **small)
    plain = qstudio.quantize(model, path, **small)
    assert opened.float == described.float
    assert opened.float != plain.float


def test_a_session_of_ones_own(model: str) -> None:
    session = qstudio.Session()
    session.open_model(model)
    session.open_data("digits")
    session.wait()
    assert session.float_metrics is not None
    assert session.activation_statistics
    session.set_options(calibration_samples=32, eval_samples=32, measure_latency=False)
    session.set_layers("4 bits", ("fc",), weight_bits=4)
    session.request_preview("fc")
    session.run_ptq()
    session.wait()
    assert session.previews["fc"].scheme.bits == 4
    [run] = session.runs
    assert run.result is not None
    assert run.result.simulated is not None
    assert session.is_current(run)
    session.undo()
    assert not session.is_current(run)
    session.close()


def test_what_is_wrong_is_said(model: str, tmp_path: Path) -> None:
    import torch

    with pytest.raises(qstudio.UserError, match="there is no such file"):
        qstudio.open_model(tmp_path / "nothing.onnx")
    with pytest.raises(qstudio.UserError, match="int is not data"):
        qstudio.quantize(model, 3)  # type: ignore[arg-type]
    with pytest.raises(qstudio.UserError, match="calibration samples: 0 is too small"):
        qstudio.quantize(model, "digits", calibration_samples=0)
    with pytest.raises(qstudio.UserError, match="a module needs an example input"):
        qstudio.launch(torch.nn.Linear(2, 2))


def test_a_fault_of_ours_is_raised_with_its_traceback(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("qstudio.engine.jobs.models.opened_model", broken)
    with pytest.raises(RuntimeError, match=r"(?s)no such luck.*Traceback"):
        qstudio.open_model(model)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Programs that `launch` would start; what is exported is opened as the window would."""
    commands: list[list[str]] = []

    def start(command: list[str], check: bool) -> Any:
        commands.append(command)
        commands[-1].append(str(qstudio.open_model(command[3]).input_shape))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", start)
    return commands


@pytest.mark.parametrize("batch", [1, 4])
def test_launch_exports_a_module_and_opens_the_window(started: list[list[str]], batch: int) -> None:
    import torch

    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert qstudio.launch(module, torch.zeros(batch, 1, 8, 8), qstudio.DataSpec("digits", scale=2.0)) == 0
    [command] = started
    assert command[:3] == [sys.executable, "-m", "qstudio"]
    assert command[4:] == ["--data", "digits", "--scale", "2.0", "(None, 1, 8, 8)"]
    assert not Path(command[3]).exists(), "the temporary file is gone with the window"
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_launch_opens_a_file_as_it_is(started: list[list[str]], model: str) -> None:
    qstudio.launch(model)
    assert started[0][3:] == [model, "(None, 1, 8, 8)"]


def test_a_module_that_cannot_be_exported_is_named() -> None:
    import torch

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(qstudio.UserError, match=r"^Odd: torch\.export cannot export it"):
        qstudio.launch(Odd(), torch.zeros(2, 3))
