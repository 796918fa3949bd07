from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from qstudio.core.errors import UserError
from qstudio.data.load import load_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
LABELS = np.array([3, 1, 0, 9, 2], np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, gz: bool = False, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> str:
    for stem in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array)
            path = folder / f"{stem}-{kind}-ubyte{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(content) if gz else content)
    return str(folder)


@pytest.mark.parametrize("gz", [False, True])
def test_a_folder_of_idx_files(tmp_path: Path, gz: bool) -> None:
    data = load_dataset(write(tmp_path, gz))
    assert data.describe().sizes == {"train": 5, "test": 5}
    np.testing.assert_array_equal(data.test.batch([1, 4])[:, 0], IMAGES[[1, 4]] / np.float32(255))
    np.testing.assert_array_equal(data.test.labels, LABELS)
    np.testing.assert_array_equal(data.test.raw(2), IMAGES[2])


def test_one_file_finds_its_labels(tmp_path: Path) -> None:
    write(tmp_path)
    data = load_dataset(str(tmp_path / "t10k-images-idx3-ubyte"))
    assert data.describe().sizes == {"test": 5}
    assert data.test.labels is not None


def test_numbers_larger_than_a_byte_are_big_endian(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0], [3.0, 4.0]])
    (tmp_path / "test-images-idx2").write_bytes(
        struct.pack(">BBBB2I", 0, 0, 0x0D, 2, 2, 2) + values.astype(">f4").tobytes()
    )
    np.testing.assert_array_equal(load_dataset(str(tmp_path)).test.batch([0, 1]), values)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("keep", [0, 3, 10, 40])
def test_truncated(tmp_path: Path, gz: bool, keep: int) -> None:
    write(tmp_path)
    content = idx(IMAGES)[:keep]
    target = tmp_path / "t10k-images-idx3-ubyte"
    target.unlink()
    (tmp_path / ("t10k-images-idx3-ubyte" + (".gz" if gz else ""))).write_bytes(
        gzip.compress(content) if gz else content
    )
    with pytest.raises(UserError, match=r"IDX|header"):
        load_dataset(str(tmp_path))


def test_truncated_gzip(tmp_path: Path) -> None:
    write(tmp_path, gz=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match="truncated"):
        load_dataset(str(tmp_path))


def test_more_bytes_than_claimed(tmp_path: Path) -> None:
    for gz in (False, True):
        folder = tmp_path / str(gz)
        folder.mkdir()
        content = idx(IMAGES) + b"more"
        (folder / f"images-idx3{'.gz' if gz else ''}").write_bytes(gzip.compress(content) if gz else content)
        with pytest.raises(UserError, match="where more are there"):
            load_dataset(str(folder))


def test_a_gzip_that_claims_to_be_huge(tmp_path: Path) -> None:
    head = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**10, 2**10)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(1000)))
    with pytest.raises(UserError, match="claims to expand"):
        load_dataset(str(tmp_path))


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 labels for 5 samples"):
        load_dataset(write(tmp_path, labels=LABELS[:4]))


def test_no_samples(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no samples"):
        load_dataset(write(tmp_path, images=IMAGES[:0], labels=LABELS[:0]))


def test_two_datasets_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "fashion-train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    with pytest.raises(UserError, match="more than one train split"):
        load_dataset(str(tmp_path))
