from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qstudio.core.errors import UserError
from qstudio.data.load import load_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 7, 3)).astype(np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> str:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=np.arange(6))
    return str(tmp_path / "a.npz")


def describe(folder: str, name: str, **values: Any) -> None:
    (Path(folder).parent / name).write_text(json.dumps(values))


def test_mean_and_std_apply_per_channel_after_scaling(path: str) -> None:
    mean, std = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    expected = (IMAGES.astype(np.float32) / 255 - mean) / std
    data = load_dataset(path, mean=mean.tolist(), std=std.tolist())
    np.testing.assert_allclose(data.test.batch(range(6)), expected.transpose(0, 3, 1, 2), rtol=1e-5)
    last = load_dataset(path, mean=mean.tolist(), std=std.tolist(), layout="nhwc>nhwc")
    np.testing.assert_allclose(last.test.batch(range(6)), expected, rtol=1e-5)


def test_scale_1_leaves_0_to_255(path: str) -> None:
    np.testing.assert_array_equal(load_dataset(path, scale=1).test.batch([3])[0], IMAGES[3].transpose(2, 0, 1))
    data = load_dataset(path, scale=1, mean=127, std=128)
    np.testing.assert_allclose(data.test.batch([3])[0], (IMAGES[3].transpose(2, 0, 1) - 127.0) / 128.0)
    assert data.describe().preprocess == "uint8 nhwc -> nchw, mean 127, std 128"


def test_a_mean_above_1_with_values_below_1_is_doubted(path: str) -> None:
    assert any("--scale 1" in note for note in load_dataset(path, mean=127).warnings)
    assert load_dataset(path, mean=127, scale=1).warnings == ()


def test_float_images_are_laid_out_when_asked(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 8, 7, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    given = load_dataset(str(tmp_path / "a.npz"), layout="nhwc")
    np.testing.assert_array_equal(given.test.batch([0, 1]), x.transpose(0, 3, 1, 2))
    assert load_dataset(str(tmp_path / "a.npz")).sample_shape == (8, 7, 3)


@pytest.mark.parametrize("name", ["a.dataset.json", "a.npz.dataset.json", "norm.dataset.json", ".dataset.json"])
def test_a_description_beside_the_data_is_found(path: str, name: str) -> None:
    describe(path, name, mean=[0.5, 0.5, 0.5], std=0.25, class_names=list("abcdef"))
    data = load_dataset(path)
    assert data.preprocess.mean == (0.5, 0.5, 0.5)
    assert data.preprocess.std == (0.25,)
    assert data.class_names == tuple("abcdef")


def test_a_description_of_other_data_is_not_used(path: str) -> None:
    np.savez(Path(path).with_name("b.npz"), x=IMAGES)
    describe(path, "b.dataset.json", mean=0.5)
    assert load_dataset(path).preprocess.mean == ()
    describe(path, "norm.dataset.json", mean=0.25)
    assert load_dataset(path).preprocess.mean == (0.25,)
    describe(path, "a.dataset.json", mean=0.75)
    assert load_dataset(path).preprocess.mean == (0.75,)


def test_two_general_descriptions_are_not_guessed_between(path: str) -> None:
    describe(path, "one.dataset.json", mean=0.5)
    describe(path, "two.dataset.json", mean=0.25)
    data = load_dataset(path)
    assert data.preprocess.mean == ()
    assert "none of one.dataset.json, two.dataset.json was used" in data.warnings[0]


def test_explicit_options_win_one_by_one(path: str) -> None:
    describe(path, "a.dataset.json", mean=0.5, std=0.25, size=4)
    data = load_dataset(path, mean=0)
    assert (data.preprocess.mean, data.preprocess.std, data.preprocess.size) == ((0.0,), (0.25,), (4, 4))
    raw = load_dataset(path, mean=0, std=1, scale=1, size=(8, 7))
    assert raw.warnings == ()
    np.testing.assert_array_equal(raw.test.batch([0])[0], IMAGES[0].transpose(2, 0, 1))
    assert "still apply after --scale" in load_dataset(path, scale=1).warnings[0]


def test_unknown_keys_are_said(path: str) -> None:
    describe(path, "a.dataset.json", meen=0.5)
    assert load_dataset(path).warnings == ("a.dataset.json: meen is not known and was ignored",)


@pytest.mark.parametrize("text", ["{", "[1]", '{"mean": "x"}', '{"std": 0}', '{"mean": NaN}', "\xff", "[" * 100_000])
def test_damaged_descriptions(path: str, text: str) -> None:
    Path(path).with_name("a.dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.dataset\.json"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.5, 0.5]}, "mean has 2 values, the data has 3 channels"),
        ({"mean": float("nan")}, "--mean: nan is not a number"),
        ({"std": 0}, "--std: 0 is not above 0"),
        ({"std": [1, -1, 1]}, "--std: -1 is not above 0"),
        ({"scale": 0}, "--scale: 0 is not above 0"),
        ({"size": 0}, "--size: 0 is not a size"),
        ({"size": (1, 2, 3)}, "not a size"),
        ({"size": 10**6}, "not a size"),
        ({"layout": "hwcn"}, "--layout: 'hwcn' is not a layout"),
        ({"layout": "nhw"}, "of shape 6x8x7x3 cannot be nhw"),
        ({"split": "dev"}, "--split: 'dev' is not a split"),
        ({"split": "train"}, "there is no train split"),
    ],
)
def test_bad_options(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(path, **options)


def test_float_data_is_not_resized(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(UserError, match="--size resizes uint8 images only"):
        load_dataset(str(tmp_path / "a.npz"), size=4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npz", "no such file"),
        ("a.xyz", "this kind of data is not known"),
        ("x.dataset.json", "it describes data and holds none"),
        ("a\0b", "cannot be read"),
    ],
)
def test_what_is_not_data(tmp_path: Path, name: str, message: str) -> None:
    for there in ("a.xyz", "x.dataset.json"):
        (tmp_path / there).write_text("{}")
    with pytest.raises(UserError, match=message):
        load_dataset(str(tmp_path / name))


def test_a_folder_with_npz_files(path: str) -> None:
    folder = Path(path).parent
    assert len(load_dataset(str(folder)).test) == 6
    np.savez(folder / "b.npz", x=IMAGES)
    with pytest.raises(UserError, match=r"several \.npz files \(a\.npz, b\.npz\)"):
        load_dataset(str(folder))


def test_batches_include_the_last_partial_one(path: str) -> None:
    data = load_dataset(path)
    batches = list(data.test.batches([5, 4, 3, 2, 1], 2))
    assert [list(batch.indices) for batch in batches] == [[5, 4], [3, 2], [1]]
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), [5, 4, 3, 2, 1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(batches[2].inputs, data.test.batch([1]))


def test_the_hash_follows_the_content_only(path: str, tmp_path: Path) -> None:
    first = load_dataset(path).sha256
    assert load_dataset(path, mean=0.5).sha256 == first
    Path(path).touch()
    assert load_dataset(path).sha256 == first
    np.savez(path, x=IMAGES[::-1], y=np.arange(6))
    assert load_dataset(path).sha256 != first


def test_the_description_crosses_the_pipe(path: str) -> None:
    info = load_dataset(path).describe()
    assert pickle.loads(pickle.dumps(info)) == info
    assert (info.sample_shape, info.stored_shape, info.dtype, info.stored_dtype) == (
        (3, 8, 7),
        (8, 7, 3),
        "float32",
        "uint8",
    )
    assert (info.n_classes, info.has_labels, info.samples) == (6, True, 6)


def test_text_is_cut_into_windows_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(range(250)))
    data = load_dataset(str(path), size=100)
    assert data.describe().sizes == {"test": 2}
    np.testing.assert_array_equal(data.test.batch([1])[0], np.arange(100, 200))
    assert data.test.batch([1]).dtype == np.int64
    np.testing.assert_array_equal(data.test.labels, [100, 200])
    with pytest.raises(UserError, match="hold no window of 250"):
        load_dataset(str(path), size=250)


def test_digits_have_a_fixed_stratified_split() -> None:
    data = load_dataset("digits")
    assert data.describe().sizes == {"train": 1195, "test": 602}
    assert data.sample_shape == (1, 8, 8)
    assert data.train is not None
    counts = [np.bincount(split.labels, minlength=10) for split in (data.train, data.test)]  # type: ignore[arg-type]
    assert all(abs(2 * test - train) <= 2 for train, test in zip(*counts, strict=True))
    # The first test labels, written down: the sample models were trained on the others.
    assert data.test.labels is not None
    assert data.test.labels[:12].tolist() == [0, 1, 2, 7, 8, 3, 6, 7, 6, 7, 9, 0]
    everything = data.test.batch(np.arange(602))
    assert (everything.min(), everything.max()) == (0, 1)
    assert max(int(data.test.raw(index).max()) for index in range(20)) == 255


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert data.train is not None
    ours = np.concatenate([data.train.batch(np.arange(1195)), data.test.batch(np.arange(602))]).reshape(-1, 64) * 16
    theirs = load_digits().data.astype(np.float32)
    np.testing.assert_array_equal(np.sort(ours @ np.arange(1, 65)), np.sort(theirs @ np.arange(1, 65)))


def test_reading_data_loads_no_engine() -> None:
    code = (
        "import sys; from qstudio.data.load import load_dataset; load_dataset('digits');"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'PySide6', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
