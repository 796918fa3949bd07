"""Model and data inside a project file, for a workshop: written in parts, taken out into a folder of the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from qstudio.core.errors import UserError

PART_BYTES = 1024 * 1024
"""Of a row: a transaction of this size holds the file for milliseconds."""

MOST_BYTES = 8 * 1024**3
"""Of all embedded files of a role together."""

MOST_FILES = 20_000
"""Of a role: a folder of images."""

ROLES = ("model", "data")


@dataclass(frozen=True)
class Embedded:
    """What of a role is in a project file."""

    role: str
    """"model" or "data"."""
    main: str
    """The file or folder that is opened: its name, with slashes."""
    files: int
    size_bytes: int


@dataclass(frozen=True)
class Piece:
    """A file to embed."""

    source: str
    path: str
    """Name inside the project, with slashes."""
    size_bytes: int


def model_pieces(path: str) -> tuple[Piece, ...]:
    """Return the files of a model: itself, and files beside it that it names (external data).

    Raises:
        UserError: The model cannot be read, or is too large.
    """
    main = Path(path)
    with _told(path):
        pieces = [Piece(str(main), main.name, main.stat().st_size)]
        if main.suffix.lower() != ".pt2" and pieces[0].size_bytes < 2 * 1024**3:
            raw = main.read_bytes()
            for other in sorted(main.parent.iterdir()):
                # External data is named in the file by its path relative to it.
                if other.is_file() and other != main and len(other.name) > 3 and other.name.encode() in raw:
                    pieces.append(Piece(str(other), other.name, other.stat().st_size))
    return _bounded(tuple(pieces), path)


def data_pieces(path: str) -> tuple[Piece, ...]:
    """Return the files of a dataset: a file with its `.dataset.json`, or a folder with all that is in it.

    Raises:
        UserError: It cannot be read, or there is too much.
    """
    main = Path(path)
    with _told(path):
        if main.is_dir():
            found = sorted(item for item in main.rglob("*") if item.is_file() and not item.is_symlink())
            if len(found) > MOST_FILES:
                fix = "Embed a smaller part of it, as one .npz file"
                raise UserError(f"the data has {len(found):,} files, more than {MOST_FILES:,}", path, fix)
            pieces = [
                Piece(str(item), f"{main.name}/{item.relative_to(main).as_posix()}", item.stat().st_size)
                for item in found
            ]
        else:
            pieces = [Piece(str(main), main.name, main.stat().st_size)]
        for beside in (main.with_name(f"{main.name}.dataset.json"), main.with_name(f"{main.stem}.dataset.json")):
            if beside.is_file() and all(piece.path != beside.name for piece in pieces):
                pieces.append(Piece(str(beside), beside.name, beside.stat().st_size))
    return _bounded(tuple(pieces), path)


def _bounded(pieces: tuple[Piece, ...], path: str) -> tuple[Piece, ...]:
    total = sum(piece.size_bytes for piece in pieces)
    if total > MOST_BYTES:
        raise UserError(f"{total / 1024**3:.1f} GiB are too much to embed", path, "Keep it beside the project instead")
    return pieces


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what the file system says into a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"it cannot be read or written ({reason})", path, "Check the path and the space left") from None


def embed(role: str, pieces: tuple[Piece, ...], stopping: Callable[[], bool]) -> Callable[[sqlite3.Connection], int]:
    """Return the writer's task that puts files into the project, in parts, and returns their bytes.

    What was embedded of the role before goes; until the last file is written the role counts as not embedded.
    """

    def write(connection: sqlite3.Connection) -> int:
        remove(role, connection)
        entries = []
        for piece in pieces:
            digest, size = hashlib.sha256(), 0
            with _told(piece.source), open(piece.source, "rb") as file:
                for part, chunk in enumerate(_chunks(file)):
                    if stopping():
                        remove(role, connection)
                        raise UserError("embedding was stopped", piece.source)
                    digest.update(chunk)
                    size += len(chunk)
                    connection.execute(
                        "INSERT INTO embedded_parts VALUES (?, ?, ?, ?)", (role, piece.path, part, chunk)
                    )
            entries.append((role, piece.path, size, digest.hexdigest()))
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO embedded VALUES (?, ?, ?, ?)", entries)
        return sum(size for _, _, size, _ in entries)

    return write


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(PART_BYTES):
        yield chunk


def remove(role: str, connection: sqlite3.Connection) -> None:
    """Take what is embedded of a role out of the project."""
    connection.execute("DELETE FROM embedded WHERE role = ?", (role,))
    connection.execute("DELETE FROM embedded_parts WHERE role = ?", (role,))


def embedded(connection: sqlite3.Connection, where: str) -> tuple[Embedded, ...]:
    """Return what is embedded.

    Raises:
        UserError: Names or sizes are none that this program writes.
    """
    found = []
    for role in ROLES:
        entries = _entries(role, connection, where)
        if entries:
            main = _main(tuple(path for path, _, _ in entries))
            found.append(Embedded(role, main, len(entries), sum(size for _, size, _ in entries)))
    return tuple(found)


def _entries(role: str, connection: sqlite3.Connection, where: str) -> list[tuple[str, int, str]]:
    query = "SELECT path, size_bytes, sha256 FROM embedded WHERE role = ? ORDER BY path LIMIT ?"
    rows = connection.execute(query, (role, MOST_FILES + 3)).fetchall()
    if len(rows) > MOST_FILES + 2:
        raise UserError("there are too many embedded files", where)
    for path, size, digest in rows:
        if not (isinstance(path, str) and isinstance(size, int) and isinstance(digest, str) and size >= 0):
            raise UserError("an embedded file has no name or size", where)
        _check_name(path, where)
    if sum(size for _, size, _ in rows) > MOST_BYTES:
        raise UserError(f"the embedded files are larger than {MOST_BYTES / 1024**3:.0f} GiB", where)
    return rows


def _main(paths: tuple[str, ...]) -> str:
    """Return what is opened: the folder that files lie in, or the file that is not a companion of another."""
    folders = {path.split("/")[0] for path in paths if "/" in path}
    if folders:
        return min(folders)
    models = [path for path in paths if path.lower().endswith((".onnx", ".pt2"))]
    plain = [path for path in paths if not path.endswith(".dataset.json")]
    return min(models or plain or list(paths), key=len)


def _check_name(path: str, where: str) -> None:
    """Refuse a name that leads out of the folder it is taken out to, on any system."""
    strange = any(char in path for char in '\\:\0<>|?*"') or len(path) > 1000
    # Empty parts make a path absolute; Windows drops dots and spaces at the end of a name.
    if strange or any(not part or part != part.rstrip(". ") for part in path.split("/")):
        raise UserError("an embedded file has a name that leads elsewhere", where, "Open only projects you trust")


def take_out(connection: sqlite3.Connection, role: str, root: str, where: str) -> str:
    """Write the embedded files of a role into a folder below `root` and return the path to open.

    The folder is named by the files' hashes, so that it is written once; each file is checked.

    Raises:
        UserError: A file is damaged, has a name that leads elsewhere, or cannot be written.
    """
    entries = _entries(role, connection, where)
    if not entries:
        raise UserError(f"no {role} is embedded", where)
    name = hashlib.sha256(repr(entries).encode()).hexdigest()[:16]
    folder = Path(root) / name
    main = str(folder / _main(tuple(path for path, _, _ in entries)))
    with _told(str(folder)):
        if all(_is_there(folder / path, size, digest) for path, size, digest in entries):
            return main
        partial = Path(root) / f"{name}.{os.getpid()}.part"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for path, size, digest in entries:
                _write_out(connection, role, path, size, digest, partial / path, where)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return main


def _is_there(target: Path, size: int, digest: str) -> bool:
    if not target.is_file() or target.stat().st_size != size:
        return False
    found = hashlib.sha256()
    with target.open("rb") as file:
        for chunk in _chunks(file):
            found.update(chunk)
    return found.hexdigest() == digest


def _write_out(
    connection: sqlite3.Connection, role: str, path: str, size: int, digest: str, target: Path, where: str
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    found, written, part = hashlib.sha256(), 0, 0
    with target.open("xb") as file:
        while written < size:
            query = "SELECT bytes FROM embedded_parts WHERE role = ? AND path = ? AND part = ? AND length(bytes) <= ?"
            row = connection.execute(query, (role, path, part, PART_BYTES)).fetchone()
            if row is None or not isinstance(row[0], bytes) or not row[0]:
                break
            found.update(row[0])
            written += file.write(row[0])
            part += 1
    if written != size or found.hexdigest() != digest:
        raise UserError(f"the embedded file {path[:80]} is damaged", where, "Choose an older copy of the project")
