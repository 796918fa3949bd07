from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from qstudio.core.errors import UserError
from qstudio.data import npz as npz_module
from qstudio.data.load import load_dataset

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 7, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_uint8_images_become_nchw_between_0_and_1(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path / "a.npz", x=IMAGES, y=LABELS))
    batch = data.test.batch([4, 1])
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, IMAGES[[4, 1]].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.test.raw(4), IMAGES[4])
    assert data.test.labels is not None
    assert data.test.labels.dtype == np.int64
    assert data.train is None


def test_grey_images_get_a_channel(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path / "a.npz", x=IMAGES[..., 0]))
    assert data.test.batch([0, 1]).shape == (2, 1, 5, 7)
    assert data.test.raw(0).shape == (5, 7)
    assert data.test.labels is None
    assert data.n_classes is None


def test_images_stored_channels_first_are_recognised(tmp_path: Path) -> None:
    stored = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    data = load_dataset(save(tmp_path / "a.npz", x=stored))
    np.testing.assert_array_equal(data.test.batch([2])[0], stored[2] / np.float32(255))
    np.testing.assert_array_equal(data.test.raw(2), IMAGES[2])


def test_float_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    x = RNG.normal(size=(4, 1, 49, 10)).astype(np.float32) * 100
    data = load_dataset(save(tmp_path / "a.npz", x=x))
    np.testing.assert_array_equal(data.test.batch(range(4)), x)
    np.testing.assert_array_equal(data.test.raw(3), x[3])
    assert data.describe().preprocess == "float32, taken as it is"


def test_token_ids_stay_integers(tmp_path: Path) -> None:
    x = RNG.integers(0, 30000, (4, 16)).astype(np.int32)
    data = load_dataset(save(tmp_path / "a.npz", x=x))
    assert data.test.batch([1]).dtype == np.int64
    np.testing.assert_array_equal(data.test.batch([1])[0], x[1])


def test_train_and_test_are_kept_apart(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2])
    data = load_dataset(path)
    assert data.describe().sizes == {"train": 6, "test": 2}
    only = load_dataset(path, split="train")
    assert only.train is None
    assert len(only.test) == 6


def test_fortran_order_and_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.asfortranarray(RNG.normal(size=(5, 3, 2)).astype(np.float32)))
    with np.load(path) as stored:
        np.testing.assert_array_equal(load_dataset(str(path)).test.batch(range(5)), stored["x"])


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_mapped_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr(npz_module, "EAGER_BYTES", 100)
    x = np.asarray(IMAGES, order=order)  # type: ignore[call-overload]
    data = load_dataset(save(tmp_path / "a.npz", x=x, y=LABELS))
    assert isinstance(data.test.source.array, np.memmap)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(data.test.raw(5), IMAGES[5])


def test_class_names_come_along(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=IMAGES, y=LABELS, class_names=np.array(["cat", "dog", "owl"]))
    assert load_dataset(path).class_names == ("cat", "dog", "owl")
    bad = save(tmp_path / "b.npz", x=IMAGES, y=LABELS, class_names=np.array(["cat", "dog"]))
    with pytest.raises(UserError, match="label 2 of sample 2 is out of range: there are 2 class names"):
        load_dataset(bad)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.astype(np.float32), "labels are of type float32"),
        (LABELS[:5], "5 labels for 6 samples"),
        (np.array([0, 1, -1, 0, 1, 2]), "label -1 of sample 2 is out of range"),
        (np.array([0, 1, 2**40, 0, 1, 2]), "label 1099511627776 of sample 2 is out of range"),
        (np.eye(3, dtype=np.int64)[LABELS], "labels have the shape 6x3"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(save(tmp_path / "a.npz", x=IMAGES, y=labels))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES, "y": LABELS}, r"no array x, x_train or x_test \(found: images, y\)"),
        ({}, r"\(found: none\)"),
        ({"y_train": LABELS, "x_test": IMAGES}, "y_train without x_train"),
        ({"x": IMAGES[:0]}, "no samples"),
        ({"x": np.float32(3)}, "a single number"),
        ({"x": IMAGES.astype(np.uint16)}, "samples are of type uint16"),
        ({"x": IMAGES.astype(np.complex64)}, "samples are of type complex64"),
        ({"x": IMAGES.astype(str)}, "samples are of type"),
        ({"x_train": IMAGES, "x_test": IMAGES[:, :2]}, "the splits do not match"),
        ({"x_train": IMAGES, "x_test": IMAGES.astype(np.float32)}, "the splits do not match"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(save(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (1e300, "infinity")])
def test_numbers_that_are_not_finite_name_their_sample(tmp_path: Path, value: float, word: str) -> None:
    x = np.zeros((3000, 2))
    x[2345, 1] = value
    with np.errstate(over="ignore"), pytest.raises(UserError, match=rf"x: sample 2345: it holds {word}"):
        load_dataset(save(tmp_path / "a.npz", x=x))


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("hostile-was-run"),))  # type: ignore[return-value]


def test_pickled_arrays_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([Hostile(), Hostile()], dtype=object))
    with pytest.raises(UserError, match="Python objects"):
        load_dataset(str(path))
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match=r"cannot be read as an \.npz file"):
        load_dataset(str(path))
    assert not Path("hostile-was-run").exists()


def npy_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": kind})
    return stream.getvalue()


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    size = 100 * 2**20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_header((size,)) + bytes(size))
    with pytest.raises(UserError, match="claims to expand"):
        load_dataset(str(path))


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for shape in ((2**40, 8), (-1, 3), (2**62, 2**62)):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", npy_header(shape) + b"123")
        with pytest.raises(UserError, match="its header claims"):
            load_dataset(str(path))


def test_truncated_files(tmp_path: Path) -> None:
    whole = Path(save(tmp_path / "whole.npz", x=IMAGES, y=LABELS)).read_bytes()
    path = tmp_path / "cut.npz"
    for keep in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match=r"cannot be read as an \.npz file"):
            load_dataset(str(path))


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_never_raise_anything_else(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=IMAGES, y=LABELS)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(damaged), rng.integers(1, 6)):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load_dataset(str(path)).test.batch([0])
        except UserError:
            refused += 1
    assert refused > 300


def test_a_lying_central_directory_is_refused(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.npz", x=IMAGES))
    whole = path.read_bytes()
    at = whole.rindex(b"PK\x01\x02") + 24
    path.write_bytes(whole[:at] + struct.pack("<I", 2**31) + whole[at + 4 :])
    with pytest.raises(UserError):
        load_dataset(str(path))
