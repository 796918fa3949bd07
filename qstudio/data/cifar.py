"""CIFAR-10 and CIFAR-100: the binary version and the python version.

Format: https://www.cs.toronto.edu/~kriz/cifar.html - 3 x 32 x 32 bytes per image, red plane first. Binary CIFAR-10
records are <label><pixels>, CIFAR-100 records <coarse><fine><pixels>; the fine label is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.data.labels import checked_labels
from qstudio.data.pickled_arrays import load_pickled_arrays
from qstudio.data.reading import reading
from qstudio.data.sources import ArraySource, Found, Part

_PIXELS = 3 * 32 * 32
_TRAIN10 = tuple(f"data_batch_{number}" for number in range(1, 6))


def cifar_files(folder: Path) -> dict[str, list[Path]]:
    """Return the batches of each split that a folder holds; empty when it holds none."""
    for suffix in (".bin", ""):
        for train, test in ((_TRAIN10, "test_batch"), (("train",), "test")):
            train_files = [folder / f"{name}{suffix}" for name in train if (folder / f"{name}{suffix}").is_file()]
            test_file = folder / f"{test}{suffix}"
            found = {"train": train_files, "test": [test_file] if test_file.is_file() else []}
            if any(found.values()):
                return {split: files for split, files in found.items() if files}
    return {}


def read_cifar(folder: Path) -> Found:
    """Describe a folder with CIFAR-10 or CIFAR-100 batches.

    Raises:
        UserError: Damaged batches, pickles that hold anything but arrays, labels that do not fit.
    """
    batches = cifar_files(folder)
    parts = {}
    for split, files in batches.items():
        read = [_read_binary(file) if file.suffix == ".bin" else _read_python(file) for file in files]
        pixels = np.concatenate([pixels for pixels, _ in read]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.concatenate([labels for _, labels in read])
        if not len(pixels):
            raise UserError("it has no samples", str(files[0]), "Get the file again")
        parts[split] = Part(
            ArraySource(pixels.shape, pixels.dtype, _constant(pixels), f"{folder}: {split}"),
            checked_labels(labels, len(pixels), f"{folder}: {split}"),
        )
    paths = tuple(str(file) for files in batches.values() for file in files)
    return Found("cifar", parts, paths, class_names=_class_names(folder))


def _constant(array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    return lambda: array


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    label_bytes = 2 if path.name in ("train.bin", "test.bin") else 1
    record = label_bytes + _PIXELS
    with reading(path, "a CIFAR batch"):
        size_bytes = path.stat().st_size
        if size_bytes % record:
            raise UserError(
                f"its {size_bytes:,} bytes are not a whole number of {record}-byte records",
                str(path),
                "The file is truncated: get it again",
            )
        records = np.fromfile(path, np.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1].astype(np.int64)


def _read_python(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _dictionary(path)
    pixels = batch.get("data")
    labels = batch.get("fine_labels", batch.get("labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.size % _PIXELS:
        raise UserError("it has no array of 3x32x32 images under the key data", str(path), "Get the file again")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise UserError("it has no list of labels", str(path), "Get the file again")
    pixels = pixels.reshape(-1, _PIXELS)
    if len(labels) != len(pixels):
        raise UserError(f"there are {len(labels)} labels for {len(pixels)} samples", str(path), "Get the file again")
    with reading(path, "a CIFAR batch"):
        return pixels, np.array(labels, dtype=np.int64)


def _dictionary(path: Path) -> dict[str, Any]:
    with reading(path, "a CIFAR batch"):
        value = load_pickled_arrays(path.read_bytes(), str(path))
    if not isinstance(value, dict):
        raise UserError("it does not hold a dictionary", str(path), "Get the file again")
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): item for key, item in value.items()}


def _class_names(folder: Path) -> tuple[str, ...]:
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        path = folder / name
        if path.is_file():
            with reading(path, "a list of class names"):
                return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    for name in ("batches.meta", "meta"):
        path = folder / name
        if path.is_file():
            meta = _dictionary(path)
            names = meta.get("fine_label_names", meta.get("label_names", []))
            if isinstance(names, list):
                return tuple(
                    item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in names
                )
    return ()
