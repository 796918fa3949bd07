"""How long the start takes, from the start of the process to the first picture, in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qstudio.core.resources import sample_models

ROUNDS = 5
WINDOW_S = 1.0
LAYERS_S = 2.0


def start(report: Path, model: Path) -> dict[str, float]:
    """Start the program, wait until it has reported both times, close it; return seconds after the start."""
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "qstudio", str(model)],
        env={**os.environ, "QSTUDIO_STARTUP_REPORT": str(report)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        times: dict[str, float] = {}
        while len(times) < 2 and time.time() < began + 60 and process.poll() is None:
            time.sleep(0.02)  # the other process has no signal to wait for
            if report.exists():
                times = json.loads(report.read_text())
        assert len(times) == 2, process.stdout.read() if process.poll() is not None and process.stdout else times
        return {name: at - began for name, at in times.items()}
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.mark.benchmark
def test_window_within_one_second_and_layers_within_two(tmp_path: Path) -> None:
    models = [sample.path for sample in sample_models() if sample.path.suffix == ".onnx"]
    if not models:
        pytest.skip("the sample models are not there: run sample_models/train.py")
    start(tmp_path / "warm.json", models[0])
    rounds = [start(tmp_path / f"{number}.json", models[0]) for number in range(ROUNDS)]
    window = statistics.median(times["window"] for times in rounds)
    layers = statistics.median(times["layers"] for times in rounds)
    print(f"median of {ROUNDS}: window after {window:.2f} s, layers after {layers:.2f} s")
    assert window <= WINDOW_S
    assert layers <= LAYERS_S
