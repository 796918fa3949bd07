"""`--storage`: the choice, what both ways cost, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_case import SAMPLES, Told

Cli = Callable[..., Told]


def test_both_ways_to_store_are_told_and_the_chosen_one_is_written(cli: Cli, model: str, tmp_path: Path) -> None:
    target = tmp_path / "q.onnx"
    words = ["quantize", model, "--data", "digits", *SAMPLES, "--weight-bits", "4", "--storage", "packed"]
    told = cli(*words, "--threads", "1", "-o", str(target), "--json")
    assert told.status == 0
    storage = told.json["storage"]
    assert storage["chosen"] == "packed"
    assert storage["packed"]["file_bytes"] == target.stat().st_size
    assert storage["packed"]["file_bytes"] < storage["int8"]["file_bytes"]
    assert storage["packed"]["latency_ms"] == told.json["latency_ms"]["exported"]["median"]
    assert storage["int8"]["latency_ms"] > 0
    assert told.json["parity"]["agreement"] == 100.0


def test_the_table_shows_both(cli: Cli, model: str) -> None:
    told = cli("quantize", model, "--data", "digits", *SAMPLES, "--weight-bits", "2", "--no-latency")
    lines = told.out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("storage"))
    assert "int8" in lines[first]
    assert lines[first].endswith("(this file)")
    assert "packed" in lines[first + 1]


@pytest.mark.parametrize("words", [["--storage", "zip"], ["--storage"]])
def test_another_word_is_refused_in_one_line(cli: Cli, model: str, words: list[str]) -> None:
    told = cli("quantize", model, "--data", "digits", *words)
    assert told.status == 2
    assert "--storage" in told.err
    assert len(told.err.strip().splitlines()) == 1
