"""The tables of a project file, how older files are brought up to date, and what a file must be to be opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from qstudio.core.errors import UserError

APPLICATION_ID = 0x51535044
"""Bytes 68..71 of the file: "QSPD"."""

MIGRATIONS: tuple[str, ...] = (
    # 1: history, runs, and what is known by name
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE recipes (sha256 TEXT PRIMARY KEY, recipe TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE edits (id INTEGER PRIMARY KEY, parent INTEGER, label TEXT NOT NULL, recipe TEXT NOT NULL,
        time REAL NOT NULL);
    CREATE TABLE steps (position INTEGER PRIMARY KEY, label TEXT NOT NULL, edit INTEGER NOT NULL);
    CREATE TABLE runs (id INTEGER PRIMARY KEY, edit INTEGER, state TEXT NOT NULL, asked TEXT NOT NULL,
        phase TEXT NOT NULL, error TEXT NOT NULL, result TEXT, training TEXT);
    CREATE TABLE curve (run INTEGER NOT NULL, epoch INTEGER NOT NULL, point TEXT NOT NULL,
        PRIMARY KEY (run, epoch)) WITHOUT ROWID;
    """,
    # 2: pinned runs and their notes, statistics, embedded files
    """
    CREATE TABLE marks (run INTEGER PRIMARY KEY, pinned INTEGER NOT NULL, note TEXT NOT NULL);
    CREATE TABLE statistics (key TEXT NOT NULL, site TEXT NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (key, site)) WITHOUT ROWID;
    CREATE TABLE embedded (role TEXT NOT NULL, path TEXT NOT NULL, size_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
        PRIMARY KEY (role, path)) WITHOUT ROWID;
    CREATE TABLE embedded_parts (role TEXT NOT NULL, path TEXT NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY (role, path, part)) WITHOUT ROWID;
    """,
)
"""Scripts that bring a file from version N to N + 1, in order; a new file goes through all of them. Never change one
that was released: add another."""

VERSION = len(MIGRATIONS)

BUSY_TIMEOUT_S = 2.0
"""How long a write waits for the other thread's: its transactions take milliseconds."""

_HEADER_BYTES = 100


def check_header(path: str | os.PathLike[str]) -> None:
    """Check by its first bytes that a file is a project, before SQLite reads it.

    Raises:
        UserError: It is not, or cannot be read.
    """
    name = os.fspath(path)
    try:
        if not Path(name).is_file():
            found = "is a folder" if Path(name).is_dir() else "is not there"
            raise UserError(f"the project {found}", name, "Check the path")
        with open(name, "rb") as file:
            head = file.read(_HEADER_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"the project cannot be read ({reason})", name, "Check the path and its permissions") from None
    is_database = len(head) == _HEADER_BYTES and head.startswith(b"SQLite format 3\0")
    if not is_database or int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        raise UserError("this is not a QStudio project", name, "Choose a file saved with Save project as")


def connect(path: str | os.PathLike[str], mode: str, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a connection: "rw", "rwc" (make it when it is not there) or "ro".

    Raises:
        sqlite3.Error: SQLite cannot.
    """
    uri = f"file:{quote(os.path.abspath(path))}?mode={mode}" + ("&immutable=1" if immutable else "")
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    # Nothing that a file's schema holds (functions in views, in defaults) is run.
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def make_durable(connection: sqlite3.Connection) -> None:
    """Write through a log (WAL): what was committed survives the death of the process.

    After a power failure the last commits may be missing, but the file is whole: synchronous=NORMAL waits for the disk
    at checkpoints only. Those are made by the writer's thread, as they take as long as the disk takes.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")


def migrate(connection: sqlite3.Connection, name: str) -> int:
    """Bring a new or older file to this version, in one transaction; return the version it had.

    Raises:
        UserError: A newer version wrote the file, or its tables are not those of a project.
        sqlite3.Error: SQLite cannot.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise UserError(
            f"a newer version of QStudio wrote it (format {version}, not {VERSION})", name, "Update QStudio"
        )
    if not version >= 0:
        raise _strange(name)
    check_tables(connection, version, name)
    if version == VERSION:
        return version
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[version:]:
            for statement in script.split(";"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return version


def check_tables(connection: sqlite3.Connection, version: int, name: str) -> None:
    """Check that a file has exactly the tables of its version: no view, trigger, virtual table or computed column.

    Raises:
        UserError: It has not.
    """
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' LIMIT 100"
    ).fetchall()
    wanted = _tables(version)
    if len(found) != len(wanted) or {(kind, table): sql for kind, table, sql in found} != wanted:
        raise _strange(name)


def _tables(version: int) -> dict[tuple[str, str], str]:
    memory = sqlite3.connect(":memory:")
    try:
        for script in MIGRATIONS[:version]:
            memory.executescript(script)
        rows = memory.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        return {(kind, name): sql for kind, name, sql in rows}
    finally:
        memory.close()


def _strange(name: str) -> UserError:
    return UserError("its tables are not those of a QStudio project", name, "Choose an older copy of it")
