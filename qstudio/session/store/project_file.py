"""A project file: what has changed is written, in one transaction each time; everything is read with checks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from qstudio.core.errors import UserError
from qstudio.core.statistics import SiteStatistics
from qstudio.session.store.arrays import MOST_BYTES, unpack
from qstudio.session.store.embedding import Embedded, embedded
from qstudio.session.store.records import (
    MOST_ROWS,
    read_edits,
    read_facts,
    read_line,
    read_marks,
    read_recipes,
    read_runs,
    write_edits,
    write_facts,
    write_line,
    write_marks,
    write_runs,
)
from qstudio.session.store.schema import check_header, connect, make_durable, migrate
from qstudio.session.store.state import Facts, ProjectState

EMPTY = ProjectState(Facts(), {}, ())


class ProjectFile:
    """An open project file. One thread uses it; the writer's thread has a connection of its own."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._written = EMPTY
        self._recipes: set[str] = set()

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> ProjectFile:
        """Make a new project file.

        Raises:
            sqlite3.Error, OSError: It cannot be made, or is there already.
        """
        name = os.path.abspath(path)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        connection = connect(name, "rw")
        try:
            # Without the log at first: the head of the file itself says what it is, whatever happens next.
            connection.execute("PRAGMA synchronous = OFF")
            migrate(connection, name)
            make_durable(connection)
        except BaseException:
            connection.close()
            remove_files(name)
            raise
        return cls(name, connection)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> tuple[ProjectFile, ProjectState]:
        """Open a project file to go on with it; one of an older version is brought up to date.

        Raises:
            UserError: It is no project, is damaged, or a newer version wrote it.
            sqlite3.Error: It cannot be written.
        """
        name = os.path.abspath(path)
        check_header(name)
        connection = connect(name, "rw")
        try:
            file = cls(name, connection)
            with _damage_told(name):
                migrate(connection, name)
                make_durable(connection)
                return file, file._read()
        except BaseException:
            connection.close()
            raise

    @classmethod
    def look(cls, path: str | os.PathLike[str], *, immutable: bool = False) -> ProjectFile:
        """Open a project file only for copying it: another window has it, or its folder cannot be written.

        Args:
            path: The file.
            immutable: Nobody can change the file, and the folder cannot be written.

        Raises:
            UserError: It is no project.
            sqlite3.Error: It cannot be read.
        """
        name = os.path.abspath(path)
        check_header(name)
        return cls(name, connect(name, "ro", immutable=immutable))

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write the whole file, with statistics and embedded files, to a path where none is.

        Raises:
            sqlite3.Error, OSError: It cannot be written.
        """
        name = os.path.abspath(path)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        try:
            copy = connect(name, "rw")
            try:
                self._connection.backup(copy)
                make_durable(copy)
            finally:
                copy.close()
        except BaseException:
            remove_files(name)
            raise

    def save(self, state: ProjectState) -> bool:
        """Write what differs from what was written last, in one transaction; return whether anything did.

        Raises:
            sqlite3.Error: It cannot be written; nothing of it is then, and the next call tries all of it again.
        """
        before, connection = self._written, self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            changed = write_facts(connection, before.facts, state.facts)
            changed |= write_edits(connection, before.edits, state.edits)
            changed |= write_line(connection, before.line, state.line)
            added = write_runs(connection, before, state, self._recipes)
            changed |= added is not None
            changed |= write_marks(connection, before.marks, state.marks)
            connection.execute("COMMIT" if changed else "ROLLBACK")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._recipes |= added or set()
        # Mappings are the session's own, which go on changing: what was written is kept apart.
        self._written = ProjectState(
            state.facts, dict(state.edits), state.line, state.runs, dict(state.run_edits), dict(state.marks)
        )
        return changed

    def _read(self) -> ProjectState:
        connection, where = self._connection, self.path
        recipes = read_recipes(connection, where)
        facts = read_facts(connection, where)
        edits = read_edits(connection, where)
        line = read_line(connection, where)
        if line and (not 0 <= facts.at < len(line) or any(step.edit not in edits for step in line)):
            raise UserError("its history is damaged", where, "Choose an older copy of it")
        runs, run_edits = read_runs(connection, recipes, where)
        self._recipes = set(recipes)
        self._written = ProjectState(facts, edits, line, runs, run_edits, read_marks(connection, where))
        return self._written

    def statistics(self, key: str) -> dict[str, SiteStatistics]:
        """Return the statistics kept under a key, by site; none where there are none.

        Raises:
            UserError: They are damaged.
            sqlite3.Error: They cannot be read.
        """
        return read_statistics(self._connection, key, self.path)

    def embedded(self) -> tuple[Embedded, ...]:
        """Return what of model and data is inside.

        Raises:
            UserError: Names or sizes are none that this program writes.
            sqlite3.Error: It cannot be read.
        """
        return embedded(self._connection, self.path)

    def close(self) -> None:
        """Bring everything into the one file, where it can be written, and let go of it."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:  # read-only or full: the log beside the file keeps what is missing in it
            self._connection.close()
            return
        self._connection.close()


def read_statistics(connection: sqlite3.Connection, key: str, where: str) -> dict[str, SiteStatistics]:
    """Return the statistics kept under a key, by site; none where there are none.

    Raises:
        UserError: They are damaged.
        sqlite3.Error: They cannot be read.
    """
    query = f"SELECT site, value FROM statistics WHERE key = ? AND length(value) <= ? LIMIT {MOST_ROWS}"
    sites = {str(site): unpack(value, where) for site, value in connection.execute(query, (key, MOST_BYTES))}
    if any(statistics.site != site for site, statistics in sites.items()):
        raise UserError("statistics have another name inside", where)
    return sites


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    """Turn what SQLite says of a damaged file into a sentence; trouble of the disk stays what it is."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeDecodeError, MemoryError) as error:
        if isinstance(error, sqlite3.Error) and is_trouble_of_disk(error):
            raise
        raise UserError(f"the project is damaged ({words_of(error)})", name, "Choose an older copy of it") from None


_DISK_WORDS = ("full", "readonly", "read-only", "unable to open", "locked", "busy", "disk i/o", "authorization")


def is_trouble_of_disk(error: sqlite3.Error) -> bool:
    """Return whether an error is about the place a file lies in, not about what is in it."""
    text = words_of(error).lower()
    return not text.startswith("malformed") and any(word in text for word in _DISK_WORDS)


def words_of(error: BaseException) -> str:
    """Return an error's text on one line, short: SQLite quotes what it cannot read."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]


def remove_files(path: str | os.PathLike[str]) -> None:
    """Remove a project file and what SQLite keeps beside it; what cannot be removed stays."""
    _unlink(os.fspath(path))
    remove_log(path)


def remove_log(path: str | os.PathLike[str]) -> None:
    """Remove what SQLite keeps beside a project file; what cannot be removed stays."""
    for suffix in ("-wal", "-shm", "-journal"):
        _unlink(f"{os.fspath(path)}{suffix}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
