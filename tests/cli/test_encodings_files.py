"""Encodings for other tools on the command line: written, read back, and refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_case import Told

Cli = Callable[..., Told]
QUICK = ("--data", "digits", "--calibration-samples", "32", "--eval-samples", "32", "--no-latency", "--json")
MODEL = str(Path(__file__).parents[2] / "sample_models" / "digits_mlp.onnx")


@pytest.mark.parametrize("kind", ["aimet", "onnxruntime"])
def test_a_run_from_its_own_encodings_gives_the_same_ranges(cli: Cli, tmp_path: Path, kind: str) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    common = (*QUICK, "--granularity", "tensor", "--encodings-format", kind)
    told = cli("quantize", MODEL, *common, "--save-encodings", str(first))
    assert told.status == 0, told.err
    again = cli("quantize", MODEL, *common, "--recipe", str(first), "--save-encodings", str(second))
    assert again.status == 0, again.err
    one, two = json.loads(told.out), json.loads(again.out)
    assert one["simulated"]["top1"] == pytest.approx(two["simulated"]["top1"], abs=3.2)

    def scales(path: Path) -> dict[str, float]:
        data = json.loads(path.read_text(encoding="utf-8"))
        if kind == "onnxruntime":
            return {name: entries[0]["scale"] for name, entries in data.items()}
        return {e["name"]: e["scale"][0] for e in (*data["activation_encodings"], *data["param_encodings"])}

    before, after = scales(first), scales(second)
    assert set(before) == set(after)
    assert len(before) >= 6
    for name, scale in before.items():
        assert after[name] == pytest.approx(scale, rel=1e-4), name


def test_encodings_of_another_model_and_widths_they_cannot_say(cli: Cli, tmp_path: Path) -> None:
    strange = tmp_path / "strange.json"
    strange.write_text('{"somewhere": [{"quant_type": "QInt8", "scale": 1.0, "zero_point": 0}]}', encoding="utf-8")
    told = cli("quantize", MODEL, *QUICK[:-1], "--recipe", str(strange))
    assert told.status == 2
    assert "none of its tensors is in the open model" in told.err
    assert len(told.err.strip().splitlines()) == 1
    target = str(tmp_path / "three.json")
    words = ("--weight-bits", "3", "--save-encodings", target, "--encodings-format", "onnxruntime")
    told = cli("quantize", MODEL, *QUICK[:-1], *words)
    assert told.status == 2
    assert "3 bits" in told.err
    told = cli("quantize", MODEL, *QUICK[:-1], "--save-encodings", str(tmp_path / "no" / "file.json"))
    assert told.status == 2
    assert "the folder does not exist" in told.err
