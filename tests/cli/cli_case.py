"""A small model, and the command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES = ["--calibration-samples", "32", "--eval-samples", "64"]
"""Enough to run every phase; the numbers are those of an untrained network."""


class Told(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


def small_model() -> onnx.ModelProto:
    """Conv-Relu-Conv-Relu-Flatten-Gemm for digits (1x8x8, 10 classes); weights drawn with a fixed seed."""
    draw = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(draw.normal(0.0, 0.3, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "body.0.conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "body.0.relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "body[1]/conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Flatten", ["r2"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc", transB=1),
    ]
    constants = [constant("w1", 4, 1, 3, 3), constant("b1", 4), constant("w2", 6, 4, 3, 3), constant("b2", 6)]
    constants += [constant("w3", 10, 96), constant("b3", 10)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "small", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "qstudio", *words]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment with state and temporary files in a folder of the test."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    # Under these onnxruntime sends no events by itself: without them it is seen whether we keep it from doing so.
    quiet = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    kept = {name: value for name, value in os.environ.items() if name not in quiet}
    return {**kept, "XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(temporary), "COLUMNS": "100"}


def own_process(folder: Path, *words: str) -> Told:
    """Run the command as a person does."""
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=300, env=environment(folder), cwd=folder
    )
    return Told(done.returncode, done.stdout, done.stderr)
