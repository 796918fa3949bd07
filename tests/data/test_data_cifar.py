from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qstudio.core.errors import UserError
from qstudio.data.load import load_dataset
from qstudio.data.pickled_arrays import load_pickled_arrays

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 32, 32, 3)).astype(np.uint8)
FLAT = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)).reshape(7, 3072)
LABELS = [0, 9, 3, 4, 1, 1, 2]


def python_batch(protocol: int = 2, **changes: Any) -> bytes:
    batch: dict[Any, Any] = {b"data": FLAT, b"labels": LABELS, b"batch_label": b"one", b"filenames": [b"a.png"] * 7}
    batch.update({key.encode(): value for key, value in changes.items()})
    return pickle.dumps(batch, protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_batches(tmp_path: Path, protocol: int) -> None:
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (tmp_path / name).write_bytes(python_batch(protocol))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"n%d" % n for n in range(10)]}, protocol=2))
    data = load_dataset(str(tmp_path))
    assert data.describe().sizes == {"train": 14, "test": 7}
    assert data.class_names[9] == "n9"
    np.testing.assert_array_equal(data.test.raw(3), IMAGES[3])
    np.testing.assert_array_equal(data.test.labels, LABELS)
    assert data.test.batch([0]).shape == (1, 3, 32, 32)


def test_a_batch_as_python_2_wrote_it() -> None:
    # Protocol 2 of Python 2 stores text as bytes (opcode U) and the array's content as such a text.
    content = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x02\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x02\x03\x04tbs."
    )
    value = load_pickled_arrays(content, "batch")
    np.testing.assert_array_equal(value[b"data"], [[1, 2], [3, 4]])


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    for name in ("train", "test"):
        content = pickle.dumps(
            {b"data": FLAT, b"coarse_labels": [0] * 7, b"fine_labels": [99, *LABELS[1:]]}, protocol=2
        )
        (tmp_path / name).write_bytes(content)
    assert load_dataset(str(tmp_path)).n_classes == 100


def test_binary_batches(tmp_path: Path) -> None:
    ten = np.concatenate([np.array(LABELS, np.uint8)[:, None], FLAT], axis=1)
    (tmp_path / "data_batch_1.bin").write_bytes(ten.tobytes())
    (tmp_path / "test_batch.bin").write_bytes(ten[:3].tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"n{n}" for n in range(10)) + "\n\n")
    data = load_dataset(str(tmp_path))
    assert data.describe().sizes == {"train": 7, "test": 3}
    np.testing.assert_array_equal(data.train.raw(6), IMAGES[6])  # type: ignore[union-attr]
    assert len(data.class_names) == 10


def test_binary_cifar100_takes_the_second_label(tmp_path: Path) -> None:
    records = np.concatenate([np.full((7, 1), 5, np.uint8), np.array(LABELS, np.uint8)[:, None], FLAT], axis=1)
    (tmp_path / "test.bin").write_bytes(records.tobytes())
    np.testing.assert_array_equal(load_dataset(str(tmp_path)).test.labels, LABELS)


def test_truncated_batches(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(b"x" * 3000)
    with pytest.raises(UserError, match="not a whole number of 3073-byte records"):
        load_dataset(str(tmp_path))
    (tmp_path / "test_batch.bin").unlink()
    for keep in (0, 20, 3000):
        (tmp_path / "test_batch").write_bytes(python_batch()[:keep])
        with pytest.raises(UserError):
            load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:3]}, "3 labels for 7 samples"),
        ({"labels": ["a"] * 7}, "no list of labels"),
        ({"labels": [-1] * 7}, "out of range"),
        ({"data": FLAT.astype(np.float32)}, "no array of 3x32x32 images"),
        ({"data": FLAT[:, :9]}, "no array of 3x32x32 images"),
        ({"data": None}, "no array of 3x32x32 images"),
        ({"data": np.array([{}, 1], dtype=object)}, "an array of"),
    ],
)
def test_batches_with_wrong_content(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "test_batch").write_bytes(python_batch(**changes))
    with pytest.raises(UserError, match=message):
        load_dataset(str(tmp_path))


class Hostile:
    """Writes a file when it is unpickled in the ordinary way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("hostile-was-run", "w"))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({b"data": FLAT, b"labels": LABELS, b"x": Hostile()}, protocol=protocol)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match="could run code"):
        load_dataset(str(tmp_path))
    assert not Path("hostile-was-run").exists()
    with pickle_loads_runs_it(content):
        assert Path("hostile-was-run").exists()


class pickle_loads_runs_it:  # noqa: N801 - reads as a sentence where it is used
    """Prove that the same bytes do run code in the ordinary reader, so that the test above can fail."""

    def __init__(self, content: bytes) -> None:
        pickle.loads(content)[b"x"].close()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        Path("hostile-was-run").unlink()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pname\n.",  # PERSID
        b"cnumpy.core.multiarray\n_reconstruct\n}S'__doc__'\nS'x'\nsb.",  # BUILD on the stand-in itself
        b"cnumpy\nndarray\n(S'array'\nS'x'\ntb.",  # BUILD on a stand-in class
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"cnumpy\nndarray\n)\x81.",  # an array without content
    ],
)
def test_other_ways_to_name_code_are_refused(content: bytes) -> None:
    with pytest.raises(UserError, match="could run code"):
        load_pickled_arrays(content, "batch")


def test_a_huge_memo_index_takes_no_memory(tmp_path: Path) -> None:
    content = b"\x80\x02}r\xff\xff\xff\x7f."  # LONG_BINPUT 2**31 - 1: the C reader takes 32 GiB for it
    assert load_pickled_arrays(content, "batch") == {}


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UserError):
        load_pickled_arrays(b"]" * 100_000 + b"a" * 99_999 + b".", "batch")


def test_damaged_batches_never_raise_anything_else(tmp_path: Path) -> None:
    whole = python_batch()
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for position in rng.integers(0, 400, 3):
            damaged[-position - 1 if rng.random() < 0.5 else position] = rng.integers(0, 256)
        (tmp_path / "test_batch").write_bytes(damaged)
        try:
            load_dataset(str(tmp_path)).test.batch([0])
        except UserError:
            refused += 1
    assert refused > 100
