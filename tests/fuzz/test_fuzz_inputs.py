"""Mutated inputs over every loader: each opens or is refused in one sentence; nothing crashes, hangs or is run.

    python -m pytest -m fuzz -s tests/fuzz            10,000 files, about 20 minutes on two cores
    QSTUDIO_FUZZ=100000 python -m pytest -m fuzz ...  more of them

A case is made from its kind and number alone, so that one that fails can be made again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_worker import KINDS, LIMIT_S

SHARES = {
    "onnx": 30,
    "pt2": 3,
    "npz": 17,
    "idx": 12,
    "images": 11,
    "cifar": 5,
    "dataset_json": 5,
    "recipe": 7,
    "encodings": 3,
    "qsproj": 7,
}
"""Percent of all files."""
WORKER = Path(__file__).with_name("fuzz_worker.py")
BATCH = 250
"""Files of one process: what a crash takes with it."""


def run_cases(kind: str, first: int, count: int, folder: Path) -> tuple[list[str], dict[str, float]]:
    """Return (faults, counts) of some cases; a process that dies is a fault of the case it was at."""
    command = [sys.executable, str(WORKER), kind, str(first), str(count), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120 + count * LIMIT_S / 5, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return [f"{kind} {first}..{first + count - 1}: the process hangs"], {}
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    faults = [f"{kind} {line['case']}: {line['fault']}" for line in lines if "fault" in line]
    summary = next((line for line in lines if "done" in line), None)
    if summary is None:
        faults.append(f"{kind} {first}..: the process ended with {done.returncode}: {done.stderr[-1500:]}")
    return faults, summary or {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_mutated_files_of_each_kind(kind: str, tmp_path: Path) -> None:
    few = 4 if kind == "pt2" else 25  # a sound .pt2 takes seconds to open
    faults, counts = run_cases(kind, 0, few, tmp_path)
    assert not faults, faults[0]
    assert counts["done"] == few
    assert counts["refused"] > 0, "mutations must do something"


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_mutated_files(kind: str, tmp_path: Path) -> None:
    total = int(os.environ.get("QSTUDIO_FUZZ", "10000")) * SHARES[kind] // 100
    faults: list[str] = []
    opened = refused = 0
    slowest = 0.0
    for first in range(0, total, BATCH):
        found, counts = run_cases(kind, first, min(BATCH, total - first), tmp_path / str(first))
        faults += found
        opened, refused = opened + int(counts.get("opened", 0)), refused + int(counts.get("refused", 0))
        slowest = max(slowest, counts.get("slowest_s", 0.0))
    print(
        f"\n{kind}: {total:,} files, {opened:,} opened, {refused:,} refused, {len(faults)} faults, slowest {slowest} s"
    )
    assert not faults, "\n".join(faults[:5])
