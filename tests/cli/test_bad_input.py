"""Bad input is normal input: exit 2, one clear line on stderr, nothing on stdout, no traceback, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_case import SAMPLES, Told, environment, own_process, small_model

Cli = Callable[..., Told]


def refused(told: Told, *words: str) -> None:
    assert told.status == 2, told
    assert told.out == ""
    line = told.err.strip()
    assert line.startswith("qstudio: "), told.err
    assert len(line.splitlines()) == 1, told.err
    assert line.endswith(".")
    assert "Traceback" not in line
    for word in words:
        assert word in line, f"'{word}' is not in: {line}"


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


X = np.random.default_rng(1).random((40, 1, 8, 8), dtype=np.float32)
Y = np.arange(40) % 10


# ---- models


def test_a_truncated_model(cli: Cli, model: str) -> None:
    data = Path(model).read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 7):
        Path(model).write_bytes(data[:size])
        refused(cli("inspect", model), "small.onnx")


def test_a_random_file(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(random.Random(0).randbytes(4096))
    refused(cli("inspect", str(path)), "noise.onnx")


def test_a_mutated_model_never_ends_in_a_fault_of_ours(cli: Cli, model: str) -> None:
    data, draw = Path(model).read_bytes(), random.Random(3)
    seen = set()
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 8)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        Path(model).write_bytes(changed)
        told = cli("inspect", model, "--json")
        assert told.status in (0, 2), told
        assert told.json
        seen.add(told.status)
    assert seen == {0, 2}, "some changes hit a weight, some the structure"


def test_a_missing_model_and_a_folder(cli: Cli, tmp_path: Path) -> None:
    refused(cli("inspect", str(tmp_path / "nothing.onnx")), "nothing.onnx", "there is no such file")
    refused(cli("inspect", str(tmp_path)), str(tmp_path))
    refused(cli("benchmark", str(tmp_path / "nothing.onnx")), "nothing.onnx")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("evil-was-here",))


@pytest.mark.parametrize("ending", ["pt", "pth", "pt2", "onnx"])
def test_a_pickled_checkpoint_is_refused_and_never_run(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"checkpoint.{ending}"
    path.write_bytes(pickle.dumps({"weight": Evil()}))
    refused(cli("inspect", str(path)), f"checkpoint.{ending}")
    assert not (tmp_path / "evil-was-here").exists()


def test_a_checkpoint_of_torch_is_told_how_to_become_a_model(cli: Cli, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "checkpoint.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    refused(cli("inspect", str(path)), "checkpoint.pt", "torch.export")


def test_missing_external_data(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    onnx.save(small_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    refused(cli("inspect", str(path)), "weights.bin")


def test_an_operator_that_is_not_supported_is_named_with_its_node(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    proto = small_model()
    proto.graph.node[1].op_type = "Mystery"
    proto.graph.node[1].domain = "some.vendor"
    proto.opset_import.append(onnx.helper.make_opsetid("some.vendor", 1))
    onnx.save(proto, path)
    told = cli("inspect", str(path), "--json")
    assert told.status == 0, "it opens for looking"
    assert [(n["node"], n["operator"]) for n in told.json["model"]["unsupported"]] == [("body.0.relu", "Mystery")]
    refused(cli("quantize", str(path), "--data", "digits"), "Mystery", "body.0.relu")


# ---- data


def quantize(cli: Cli, model: str, data: str, *more: str) -> Told:
    return cli("quantize", model, "--data", data, *SAMPLES, "--no-latency", *more)


def test_data_of_the_wrong_shape(cli: Cli, model: str, tmp_path: Path) -> None:
    refused(
        quantize(cli, model, npz(tmp_path / "d.npz", x=np.zeros((40, 3, 8, 8), np.float32), y=Y)),
        "3 channels 8x8",
        "1 channel 8x8",
    )
    refused(quantize(cli, model, npz(tmp_path / "d.npz", x=np.zeros((40, 64), np.float32), y=Y)))


@pytest.mark.parametrize("dtype", ["complex64", "bool", "U4", "object"])
def test_data_of_the_wrong_type(cli: Cli, model: str, tmp_path: Path, dtype: str) -> None:
    refused(quantize(cli, model, npz(tmp_path / "d.npz", x=np.zeros((40, 1, 8, 8)).astype(dtype), y=Y)), "d.npz")


def test_labels_out_of_range(cli: Cli, model: str, tmp_path: Path) -> None:
    told = quantize(cli, model, npz(tmp_path / "d.npz", x=X, y=np.full(40, 10)))
    refused(told, "d.npz", "10")
    refused(quantize(cli, model, npz(tmp_path / "d.npz", x=X, y=np.full(40, -1))), "-1")


def test_labels_of_another_length(cli: Cli, model: str, tmp_path: Path) -> None:
    refused(quantize(cli, model, npz(tmp_path / "d.npz", x=X, y=Y[:30])), "30", "40")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(cli: Cli, model: str, tmp_path: Path, value: float) -> None:
    x = X.copy()
    x[7, 0, 3, 3] = value
    refused(quantize(cli, model, npz(tmp_path / "d.npz", x=x, y=Y)), "NaN" if np.isnan(value) else "infinity", "7")


def test_no_samples(cli: Cli, model: str, tmp_path: Path) -> None:
    refused(quantize(cli, model, npz(tmp_path / "d.npz", x=X[:0], y=Y[:0])), "d.npz")
    (tmp_path / "empty").mkdir()
    refused(quantize(cli, model, str(tmp_path / "empty")), "the folder is empty")


def test_data_that_is_not_there_or_damaged(cli: Cli, model: str, tmp_path: Path) -> None:
    refused(quantize(cli, model, "no-such-data"), "no-such-data")
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 broken")
    refused(quantize(cli, model, str(tmp_path / "d.npz")), "d.npz")
    refused(quantize(cli, model, "digits", "--calibration-data", str(tmp_path / "d.npz")), "d.npz")


def test_options_that_do_not_fit_the_data(cli: Cli, model: str) -> None:
    refused(quantize(cli, model, "digits", "--mean", "0.5", "0.5"), "mean")
    refused(quantize(cli, model, "digits", "--std", "0"), "std")
    refused(quantize(cli, model, "digits", "--layout", "sideways"), "layout")


# ---- where results go


def test_folders_that_cannot_take_the_export(cli: Cli, model: str, tmp_path: Path) -> None:
    before = Path(model).read_bytes()
    refused(quantize(cli, model, "digits", "-o", str(tmp_path / "none" / "q.onnx")), "the folder does not exist")
    refused(quantize(cli, model, "digits", "-o", str(tmp_path)), "this is a folder")
    refused(quantize(cli, model, "digits", "-o", model), "would overwrite the model itself")
    assert Path(model).read_bytes() == before


def test_a_folder_without_permission(model: str, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    words = ["quantize", model, "--data", "digits", *SAMPLES, "--no-latency", "-o", str(locked / "q.onnx")]
    if os.access(locked, os.W_OK):  # root may write anywhere: ask as somebody else
        refused(as_nobody(tmp_path, words), "the folder cannot be written to", str(locked))
    else:
        refused(own_process(tmp_path, *words), "the folder cannot be written to", str(locked))
    assert list(locked.iterdir()) == []


def as_nobody(folder: Path, words: list[str]) -> Told:
    code = f"import sys, os; os.access = lambda *_: False; from qstudio.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment(folder)
    )
    return Told(done.returncode, done.stdout, done.stderr)


def test_a_full_disk_is_named(cli: Cli, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(quantize(cli, model, "digits", "-o", str(tmp_path / "q.onnx")), str(tmp_path), "the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_a_write_that_ends_halfway_leaves_what_was_there(model: str, tmp_path: Path) -> None:
    """A file-size limit of the system makes the write itself fail, as a full disk does."""
    resource = pytest.importorskip("resource", reason="file-size limits are a matter of POSIX systems")
    target = tmp_path / "q.onnx"
    target.write_bytes(b"what was there")
    words = ["quantize", model, "--data", "digits", *SAMPLES, "--no-latency", "-o", str(target)]
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, {resource.RLIM_INFINITY}))
from qstudio.cli import main
sys.exit(main({words!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment(tmp_path)
    )
    refused(Told(done.returncode, done.stdout, done.stderr))
    assert target.read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["q.onnx", "small.onnx"]


# ---- what is written on the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: COMMAND"),
        (["prune", "m.onnx"], "invalid choice: 'prune'"),
        (["inspect"], "required: MODEL"),
        (["quantize", "MODEL"], "required: --data"),
        (["inspect", "MODEL", "--colour"], "unrecognized arguments: --colour"),
        (["inspect", "MODEL", "--weight-bits", "0"], "weight_bits: '0' is not a bit width. Choose 1 to 16, or float."),
        (["inspect", "MODEL", "--weight-bits", "17"], "Choose 1 to 16, or float"),
        (["inspect", "MODEL", "--granularity", "group:0"], "'group:0' is not a granularity"),
        (["inspect", "MODEL", "--calibration", "best"], "Choose one of minmax, moving_average, percentile, quantile"),
        (["inspect", "MODEL", "--calibration", "manual"], "--set 'LAYER.weight_clip=LOW,HIGH'"),
        (["inspect", "MODEL", "--refine", "fold,magic"], "no refinement 'magic' in this version"),
        (["inspect", "MODEL", "--set", "fc"], "'fc' is not of the form GLOB.FIELD=VALUE"),
        (["inspect", "MODEL", "--set", "fc.weight_bit=3"], "Did you mean weight_bits"),
        (["inspect", "MODEL", "--set", "fc.bits=99"], "'99' is not a bit width"),
        (["inspect", "MODEL", "--set", "fb.bits=4"], "no layer of the model matches 'fb'. Choose for example fc"),
        (["inspect", "MODEL", "--set", "fc.weight_clip=1,2"], "the range 1..2 does not hold zero"),
        (["inspect", "MODEL", "--first-last-bits", "many"], "'many' is not a bit width"),
        (["inspect", "MODEL", "--recipe", "no.json"], "no.json: the file cannot be read"),
        (["inspect", "MODEL", "--data", "digits", "--size", "big"], "--size: 'big' is not a size"),
        (["inspect", "MODEL", "--data", "digits", "--mean", "a"], "--mean: 'a' is not a list of numbers"),
        (["inspect", "MODEL", "--data", "digits", "--calibration-samples", "0"], "not a whole number of 1 or more"),
        (["quantize", "MODEL", "--data", "digits", "--device", "tpu"], "there is no device 'tpu'. Choose cpu"),
        (["quantize", "MODEL", "--data", "digits", "--seed", "-3"], "'-3' is not a whole number of 0 or more"),
        (["benchmark", "MODEL", "--batch", "0"], "'0' is not a whole number of 1 or more"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_meant(cli: Cli, model: str, words: list[str], said: str) -> None:
    refused(cli(*(model if word == "MODEL" else word for word in words)), said)


def test_a_device_that_is_not_there_says_why(cli: Cli, model: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    refused(quantize(cli, model, "digits", "--device", "cuda"), "NVIDIA GPU is not available: ", "Choose cpu")


def test_with_json_the_reason_is_the_one_object(cli: Cli, tmp_path: Path) -> None:
    told = cli("inspect", str(tmp_path / "nothing.onnx"), "--json")
    assert told.status == 2
    assert told.json["exit_status"] == 2
    assert told.json["error"]["what"] == "there is no such file"
    assert len(told.err.splitlines()) == 1
    assert cli("inspect", "--json").json["error"]["what"] == "the following arguments are required: MODEL"


def test_a_recipe_that_is_none(cli: Cli, model: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in ("{", "[]", json.dumps({"qstudio_recipe": 99}), json.dumps({"qstudio_recipe": 1, "layers": 3})):
        path.write_text(text)
        refused(cli("inspect", model, "--recipe", str(path)), "r.json")
