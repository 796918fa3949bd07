"""IDX files (MNIST, Fashion-MNIST, EMNIST), plain or gzipped.

Format: http://yann.lecun.com/exdb/mnist/ - two zero bytes, a type byte, the number of dimensions, each dimension as a
big-endian uint32, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.data.labels import checked_labels
from qstudio.data.reading import EAGER_BYTES, reading, refuse_bomb
from qstudio.data.sources import ArraySource, Found, Part

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IMAGES = re.compile(r"images?[-.]idx\d", re.IGNORECASE)
_WHAT = "an IDX file"


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size_bytes: int

    @property
    def values_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def idx_image_files(folder: Path) -> list[Path]:
    """Return the files in a folder that are named like IDX images (`train-images-idx3-ubyte.gz`)."""
    return sorted(path for path in folder.iterdir() if path.is_file() and _IMAGES.search(path.name))


def read_idx(path: Path) -> Found:
    """Describe a folder of IDX files, or one file of images with its labels beside it.

    Names decide: "train" in the name is the training split, everything else ("t10k", "test") the test split.

    Raises:
        UserError: Damaged, empty, or labels that do not fit.
    """
    images = idx_image_files(path) if path.is_dir() else [path]
    parts: dict[str, Part] = {}
    files: list[str] = []
    for file in images:
        split = "train" if "train" in file.name.lower() else "test"
        if split in parts:
            others = ", ".join(other.name for other in images)
            raise UserError(
                f"there is more than one {split} split ({others})", str(path), "Keep one dataset per folder"
            )
        header = _header(file)
        if not header.shape or not header.values_bytes:
            raise UserError("it has no samples", str(file), "Get the file again")
        source = ArraySource(header.shape, header.dtype, lambda file=file: _values(file), str(file))  # type: ignore[misc]
        if header.values_bytes <= EAGER_BYTES:
            _ = source.array
        labels_file = _labels_file(file)
        labels = None if labels_file is None else checked_labels(_values(labels_file), len(source), str(labels_file))
        parts[split] = Part(source, labels)
        files += [str(file)] + ([str(labels_file)] if labels_file is not None else [])
    return Found("idx", parts, tuple(files))


def _labels_file(images: Path) -> Path | None:
    """Return the file of labels that belongs to a file of images, gzipped or not."""
    pattern = re.sub(r"images?", "labels", images.name, flags=re.IGNORECASE)
    name = re.sub(r"idx\d", "idx1", pattern.removesuffix(".gz"))
    for candidate in (images.with_name(name), images.with_name(name + ".gz")):
        if candidate != images and candidate.is_file():
            return candidate
    return None


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _header(path: Path) -> _Header:
    with reading(path, _WHAT), _open(path) as stream:
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 8:
            raise UserError("it does not begin as an IDX file", str(path), "Get the file again")
        dimensions = stream.read(4 * head[3])
        if len(dimensions) < 4 * head[3]:
            raise UserError("it ends within its header", str(path), "The file is truncated: get it again")
        shape = tuple(int(length) for length in np.frombuffer(dimensions, ">u4"))
        header = _Header(shape, np.dtype(_TYPES[head[2]]), 4 + 4 * head[3])
        refuse_bomb(header.values_bytes, path.stat().st_size, str(path))
        return header


def _values(path: Path) -> NDArray[Any]:
    header = _header(path)
    with reading(path, _WHAT):
        if path.suffix != ".gz":
            there = path.stat().st_size - header.size_bytes
            _check_length(there, header, path)
            return np.memmap(path, header.dtype, "r", header.size_bytes, header.shape)
        with gzip.open(path, "rb") as stream:
            stream.read(header.size_bytes)
            values = bytearray(header.values_bytes)
            view, done = memoryview(values), 0
            while done < len(view) and (count := stream.readinto(view[done : done + 2**22])):
                done += count
            _check_length(done + len(stream.read(1)), header, path)
    array = np.frombuffer(values, header.dtype).reshape(header.shape)
    return array.astype(header.dtype.newbyteorder("="), copy=False)


def _check_length(there: int, header: _Header, path: Path) -> None:
    if there != header.values_bytes:
        how = "more" if there > header.values_bytes else f"only {there:,}"
        raise UserError(
            f"its header claims {header.values_bytes:,} bytes where {how} are there",
            str(path),
            "The file is damaged: get it again",
        )
