from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qstudio.core.errors import UserError
from qstudio.data.checks import check_against_model
from qstudio.data.dataset import Dataset
from qstudio.data.load import load_dataset


def data(folder: Path, shape: tuple[int, ...], dtype: Any = np.uint8, labels: list[int] | None = None) -> Dataset:
    arrays = {"x": np.zeros(shape, dtype)}
    if labels is not None:
        arrays["y"] = np.array(labels)
    np.savez(folder / "a.npz", **arrays)
    return load_dataset(str(folder / "a.npz"))


@pytest.mark.parametrize("shape", [(None, 1, 8, 8), (1, 1, 8, 8), (None, None, None, None), ()])
def test_what_fits_passes(shape: tuple[int | None, ...]) -> None:
    check_against_model(load_dataset("digits"), shape, "float32", (None, 10))


def test_tokens_fit_a_model_of_tokens(tmp_path: Path) -> None:
    check_against_model(data(tmp_path, (2, 16), np.int64), (None, None), "int64", (None, None, 256))
    with pytest.raises(UserError, match="the data gives int64 numbers, the model wants float32"):
        check_against_model(data(tmp_path, (2, 16), np.int64), (None, 16), "float32", (None, 2))
    with pytest.raises(UserError, match=r"gives float32 numbers, the model wants int64\. Save x as int64"):
        check_against_model(data(tmp_path, (2, 16), np.float32), (None, 16), "int64", (None, 2))
    with pytest.raises(UserError, match="the model wants uint8"):
        check_against_model(data(tmp_path, (2, 16), np.float32), (None, 16), "uint8", (None, 2))


@pytest.mark.parametrize(
    ("shape", "dtype", "wanted", "message"),
    [
        (
            (2, 28, 28, 3),
            np.uint8,
            (None, 1, 28, 28),
            "the data has 3 channels 28x28, the model wants 1 channel 28x28. Choose another dataset",
        ),
        (
            (2, 28, 28),
            np.uint8,
            (1, 1, 32, 32),
            "1 channel 28x28, the model wants 1 channel 32x32. Choose --size 32x32",
        ),
        ((2, 8, 9, 3), np.uint8, (None, 8, 9, 3), "Choose --layout 'nhwc>nhwc'"),
        ((2, 8, 9, 3), np.float32, (None, 3, 8, 9), "Choose --layout nhwc"),
        ((2, 28, 28), np.float32, (None, 1, 28, 28), "samples of shape 28x28, .* Choose --layout nhw"),
        ((2, 64), np.float32, (None, 1, 8, 8), "samples of shape 64, the model wants 1 channel 8x8. Choose another"),
        ((2, 1, 8, 8), np.float32, (None, 3, None, 8), "the model wants 3 channels anyx8"),
    ],
)
def test_shapes_that_do_not_fit(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, wanted: tuple[int | None, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_against_model(data(tmp_path, shape, dtype), wanted, "float32", (None, 10))


def test_labels_beyond_the_outputs(tmp_path: Path) -> None:
    there = data(tmp_path, (3, 8, 8), labels=[0, 10, 1])
    with pytest.raises(UserError, match="label 10 of test sample 1 is out of range: the model has 10 outputs"):
        check_against_model(there, (None, 1, 8, 8), "float32", (None, 10))
    check_against_model(there, (None, 1, 8, 8), "float32", (None, 11))
    check_against_model(there, (None, 1, 8, 8), "float32", (1, 4420, 2))
