"""The cases' data, opened as a person would, gives the accuracies that are written down beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from qstudio.data.checks import check_against_model
from qstudio.data.dataset import Dataset
from qstudio.data.load import load_dataset


def top1(model: Path, data: Dataset, count: int | None = None) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    entry, out = session.get_inputs()[0], session.get_outputs()[0]
    shape, outputs = ([side if isinstance(side, int) else None for side in each.shape] for each in (entry, out))
    check_against_model(data, shape, "float32", outputs)
    size = 1 if shape[0] == 1 else 250
    indices = np.arange(len(data.test) if count is None else count)
    right = 0
    for batch in data.test.batches(indices, size):
        scores = session.run(None, {entry.name: batch.inputs})[0]
        right += int((scores.argmax(1) == batch.labels).sum())
    return 100 * right / len(indices)


@pytest.mark.parametrize(
    ("model", "data", "options", "expected"),
    [
        ("resnet20_cifar10", "cifar10/cifar10_test_jpeg.npz", {}, 81.03),
        ("resnet8_cifar10", "cifar10/cifar10_test_jpeg.npz", {"mean": 0, "std": 1, "scale": 1}, 75.48),
        ("kws_dscnn", "speech_commands/kws_mfcc_1000.npz", {}, 91.5),
        ("mnist_cntk", "mnist", {"scale": 1}, 98.91),
    ],
)
def test_accuracy_of_the_cases(cases: Path, model: str, data: str, options: dict[str, Any], expected: float) -> None:
    measured = top1(cases / "models" / f"{model}.onnx", load_dataset(str(cases / data), **options))
    assert measured == pytest.approx(expected, abs=0.02)


def test_the_calibration_set_is_normalised_alike(cases: Path) -> None:
    data = load_dataset(str(cases / "cifar10" / "cifar10_train4000.npz"))
    assert data.preprocess.mean == (0.485, 0.456, 0.406)
    assert len(data.test) == 4000


def test_mnist_has_both_splits(cases: Path) -> None:
    assert load_dataset(str(cases / "mnist")).describe().sizes == {"train": 60_000, "test": 10_000}
