"""The thread that writes what takes longer than a moment: statistics, embedded files, checkpoints."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from qstudio.core.errors import UserError
from qstudio.core.statistics import SiteStatistics
from qstudio.session.store.arrays import pack
from qstudio.session.store.schema import connect

Task = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    value: Any = None
    error: Exception | None = None


class Writer:
    """Does one task after the other on a connection of its own, in transactions that hold the file for milliseconds.

    What comes of a task waits until `take` is called in the thread that asked; `wake` (called from the writer's
    thread) tells that there is something.
    """

    def __init__(self, path: str, wake: Callable[[], None]) -> None:
        self._path = path
        self._wake = wake
        self._tasks: SimpleQueue[tuple[Task, Callable[[Outcome], None]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Callable[[Outcome], None], Outcome]] = SimpleQueue()
        self._open = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a task is not done, or its outcome not taken."""
        return self._open > 0

    def put(self, task: Task, then: Callable[[Outcome], None]) -> None:
        """Do a task; `then` is called by `take` with what came of it. After `close` nothing is done any more."""
        if self._stopping:
            return
        self._open += 1
        self._tasks.put((task, then))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="project-writer", daemon=True)
            self._thread.start()

    def take(self, timeout_s: float = 0.0) -> bool:
        """Tell the outcomes that are there; return whether there were any.

        Args:
            timeout_s: Wait so long for the first.
        """
        told = False
        while self._open:
            try:
                then, outcome = self._done.get(timeout=timeout_s) if timeout_s and not told else self._done.get_nowait()
            except Empty:
                return told
            self._open -= 1
            told = True
            then(outcome)
        return told

    @property
    def stopping(self) -> bool:
        """Whether long tasks should end."""
        return self._stopping

    def close(self) -> None:
        """End the thread; tasks that have not begun are dropped."""
        self._stopping = True
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None
        self._open = 0

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while (item := self._tasks.get()) is not None:
                task, then = item
                if self._stopping:
                    continue
                try:
                    if connection is None:
                        connection = connect(self._path, "rw")
                        connection.execute("PRAGMA synchronous = NORMAL")
                        connection.execute("PRAGMA wal_autocheckpoint = 0")
                    outcome = Outcome(task(connection))
                except (sqlite3.Error, OSError, UserError) as error:
                    outcome = Outcome(error=error)
                self._done.put((then, outcome))
                self._wake()
        finally:
            if connection is not None:
                connection.close()


def checkpoint(connection: sqlite3.Connection) -> None:
    """Bring the log into the file, as far as that holds up nobody."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def store_statistics(key: str, sites: Iterable[SiteStatistics], kept: tuple[str, ...]) -> Task:
    """Return the task that writes the statistics of a key, all or nothing; those of keys not in `kept` go."""
    found = tuple(sites)

    def write(connection: sqlite3.Connection) -> str:
        packed = [(key, statistics.site, pack(statistics)) for statistics in found]  # before the file is held
        marks = ", ".join("?" * len(kept))
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(f"DELETE FROM statistics WHERE key NOT IN ({marks})", kept)
            connection.executemany("INSERT OR REPLACE INTO statistics VALUES (?, ?, ?)", packed)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return key

    return write
