from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from qstudio.data.load import load_dataset

FOLDER = Path(__file__).resolve().parents[2] / "sample_models"
INDEX: list[dict[str, Any]] = json.loads((FOLDER / "index.json").read_text("utf-8"))["models"]
LOWEST = {"digits_cnn": 96.0, "digits_resnet": 96.0, "digits_mobilenet": 96.0, "digits_mlp": 94.0}


def images() -> tuple[np.ndarray, np.ndarray]:
    split = load_dataset("digits").test
    assert split.labels is not None
    return split.batch(np.arange(len(split))), split.labels


def scores(content: bytes | str, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": x})[0])


def float_scores(entry: dict[str, Any], x: np.ndarray) -> np.ndarray:
    path = FOLDER / entry["file"]
    if path.suffix == ".onnx":
        return scores(str(path), x)
    with torch.no_grad():
        return torch.export.load(path).module()(torch.from_numpy(x)).numpy()


def test_the_index_names_what_is_there() -> None:
    assert [entry["id"] for entry in INDEX] == list(LOWEST)
    for entry in INDEX:
        assert (FOLDER / entry["file"]).is_file()
        assert entry["dataset"] == "digits"
        assert entry["title"]
        assert entry["description"]
    named = {entry[key] for entry in INDEX for key in ("file", "card")}
    assert {path.name for path in FOLDER.iterdir() if path.suffix in (".onnx", ".pt2", ".md")} == named


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["id"])
def test_accuracy_size_and_card(entry: dict[str, Any]) -> None:
    x, y = images()
    measured = 100 * float((float_scores(entry, x).argmax(1) == y).mean())
    assert measured >= LOWEST[entry["id"]]
    assert measured == pytest.approx(entry["float_accuracy"], abs=0.2)
    assert (FOLDER / entry["file"]).stat().st_size < 500_000
    card = (FOLDER / entry["card"]).read_text("utf-8")
    assert f"{entry['float_accuracy']:.2f} %" in card
    for word in ("Architecture", "Training", "CC BY 4.0", entry["file"]):
        assert word in card


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["id"])
def test_the_batch_is_free(entry: dict[str, Any]) -> None:
    x, _ = images()
    whole = float_scores(entry, x[:7])
    np.testing.assert_allclose(float_scores(entry, x[:1]), whole[:1], rtol=1e-4, atol=1e-4)


def test_batchnorm_is_kept_for_folding() -> None:
    proto = onnx.load(FOLDER / "digits_mobilenet.onnx")
    assert sum(node.op_type == "BatchNormalization" for node in proto.graph.node) == 9
    program = torch.export.load(FOLDER / "digits_resnet.pt2")
    assert sum("batch_norm" in str(node.target) for node in program.graph.nodes) == 8


def test_nodes_are_named_after_modules() -> None:
    names = [node.name for node in onnx.load(FOLDER / "digits_mobilenet.onnx").graph.node]
    assert len(set(names)) == len(names)
    assert names[:2] == ["stem.conv", "stem.bn"]
    assert "blocks.3.depthwise.conv" in names


def test_files_tell_nothing_of_the_machine_they_were_made_on() -> None:
    for entry in INDEX:
        content = (FOLDER / entry["file"]).read_bytes()
        assert b"site-packages" not in content
        assert b"/train.py" not in content


def folded_and_rounded(proto: onnx.ModelProto, bits: int, per_channel: bool) -> onnx.ModelProto:
    """Fold BatchNorm and round weights, on the ONNX file with numpy: measures the card's figures in another way."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    values = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    follows = {node.input[0]: node for node in proto.graph.node if node.op_type == "BatchNormalization"}
    qmax = 2 ** (bits - 1) - 1
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        weight = values[node.input[1]].astype(np.float64)
        factor = np.ones(len(weight))
        if node.output[0] in follows:
            gamma, _, _, variance = (values[name].astype(np.float64) for name in follows[node.output[0]].input[1:])
            factor = gamma / np.sqrt(variance + 1e-5)
        # Rounding happens after folding; dividing the factor out again leaves the BatchNorm node as it is.
        factor = factor.reshape(-1, *[1] * (weight.ndim - 1))
        flat = np.abs(weight * factor).reshape(len(weight), -1)
        largest = flat.max(axis=1).reshape(factor.shape) if per_channel else flat.max()
        scale = np.maximum(largest / qmax, 1e-30)
        rounded = np.clip(np.round(weight * factor / scale), -qmax, qmax) * scale
        values[node.input[1]] = (rounded / np.where(factor == 0, 1, factor)).astype(np.float32)
    for each in proto.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(values[each.name], each.name))
    return proto


def test_one_scale_per_tensor_hurts_the_mobilenet_at_8_bits() -> None:
    x, y = images()
    proto = onnx.load(FOLDER / "digits_mobilenet.onnx")
    entry = next(each for each in INDEX if each["id"] == "digits_mobilenet")
    card = next(row for row in entry["weight_only_accuracy"] if row["bits"] == 8)
    measured = {}
    for per_channel in (False, True):
        content = folded_and_rounded(proto, 8, per_channel).SerializeToString()
        measured[per_channel] = 100 * float((scores(content, x).argmax(1) == y).mean())
    assert measured[False] == pytest.approx(card["per_tensor"], abs=0.5)
    assert measured[True] == pytest.approx(card["per_channel"], abs=0.5)
    assert measured[True] > entry["float_accuracy"] - 0.5
    assert measured[False] < measured[True] - 5
