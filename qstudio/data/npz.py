"""NumPy archives: `x`, `y` or `x_train`, `y_train`, `x_test`, `y_test`. Never unpickles."""

from __future__ import annotations

import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.data.labels import checked_labels
from qstudio.data.reading import EAGER_BYTES, reading, refuse_bomb
from qstudio.data.sources import ArraySource, Found, Part

_WHAT = "an .npz file"
_SAVE = "Save it with numpy.savez(path, x=images, y=labels) or x_train, y_train, x_test, y_test"
_LOCAL_HEADER_BYTES = 30


@dataclass(frozen=True)
class _Member:
    """One array in the archive, known from its headers only."""

    file: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    header_bytes: int
    stored_at: int | None
    """Where the array's bytes begin in the archive if it is not compressed."""

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(path: Path) -> Found:
    """Describe an .npz file, reading small arrays at once and large ones at first use.

    Returns:
        Parts "train" and "test" of `x_train`/`x_test`, or one part "test" of `x`.

    Raises:
        UserError: Damaged, pickled, empty, wrong keys, shapes or types, labels that do not fit.
    """
    members = _members(path)
    keys = ", ".join(sorted(members)) or "none"
    pairs = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
    if "x" in members:
        pairs = {"test": ("x", "y")}
    parts = {split: _part(path, members, *names) for split, names in pairs.items() if names[0] in members}
    if not parts:
        raise UserError(f"there is no array x, x_train or x_test (found: {keys})", str(path), _SAVE)
    for split, (x, y) in pairs.items():
        if y in members and split not in parts:
            raise UserError(f"there is {y} without {x} (found: {keys})", str(path), _SAVE)
    return Found("npz", parts, (str(path),), class_names=_class_names(path, members))


def _part(path: Path, members: dict[str, _Member], x: str, y: str) -> Part:
    member = members[x]
    where = f"{path}: {x}"
    if not member.shape:
        raise UserError("it is a single number, not an array of samples", where, _SAVE)
    if not math.prod(member.shape):
        raise UserError("it has no samples", where, _SAVE)
    source = ArraySource(member.shape, member.dtype, lambda: _array(path, x, member), where)
    if member.size_bytes <= EAGER_BYTES:
        _ = source.array
    labels = None
    if y in members:
        labels = checked_labels(_array(path, y, members[y]), len(source), f"{path}: {y}")
    return Part(source, labels)


def _class_names(path: Path, members: dict[str, _Member]) -> tuple[str, ...]:
    member = members.get("class_names")
    if member is None or member.dtype.kind != "U" or len(member.shape) != 1:
        return ()
    return tuple(str(name) for name in _array(path, "class_names", member))


def _members(path: Path) -> dict[str, _Member]:
    """Read the headers of all arrays and compare what they claim with what is there."""
    members = {}
    with reading(path, _WHAT), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename[: -len(".npy")]
            with archive.open(info) as stream:
                member = _header(stream, info, file, f"{path}: {name}")
            refuse_bomb(info.file_size, min(info.compress_size, path.stat().st_size), f"{path}: {name}")
            members[name] = member
    return members


def _header(stream: IO[bytes], info: zipfile.ZipInfo, file: IO[bytes], where: str) -> _Member:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise UserError(f"the array has format version {version}", where, "Save plain arrays of numbers")
    if dtype.hasobject or dtype.fields is not None:
        raise UserError("it holds Python objects, which could run code", where, "Save plain arrays of numbers")
    header_bytes = stream.tell()
    stored_at = None
    if info.compress_type == zipfile.ZIP_STORED:
        stored_at = _content_offset(file, info) + header_bytes
    member = _Member(info.filename, shape, dtype, fortran, header_bytes, stored_at)
    if min(shape, default=0) < 0 or member.size_bytes != info.file_size - header_bytes:
        raise UserError(
            f"its header claims {member.size_bytes:,} bytes where {info.file_size - header_bytes:,} are stored",
            where,
            "The file is damaged: get it again",
        )
    return member


def _content_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin (APPNOTE.TXT 4.3.7: local header, name, extra field)."""
    position = file.tell()
    file.seek(info.header_offset + 26)
    name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    file.seek(position)
    return int(info.header_offset) + _LOCAL_HEADER_BYTES + int(name_bytes) + int(extra_bytes)


def _array(path: Path, name: str, member: _Member) -> NDArray[Any]:
    """Read one array; large uncompressed ones are mapped instead."""
    order = "F" if member.fortran_order else "C"
    with reading(path, _WHAT):
        if member.stored_at is not None and member.size_bytes > EAGER_BYTES:
            return np.memmap(path, member.dtype, "r", member.stored_at, member.shape, order)  # type: ignore[call-overload,no-any-return]
        array: NDArray[Any] = np.empty(member.shape[::-1] if member.fortran_order else member.shape, member.dtype)
        target = array.reshape(-1).view(np.uint8)
        with zipfile.ZipFile(path) as archive, archive.open(member.file) as stream:
            stream.read(member.header_bytes)
            done = 0
            while chunk := stream.read(2**22):
                target[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
                done += len(chunk)
        if done != len(target):
            raise UserError("it ends too early", f"{path}: {name}", "The file is damaged: get it again")
        return array.T if member.fortran_order else array
