"""One writer for each project: a lock file beside it, held by the operating system as long as its process lives."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".lock"

_LOCKED_BYTE = 1 << 20
"""Position of the byte that is locked on Windows: locking one that holds text would keep others from reading who."""


@dataclass(frozen=True)
class Holder:
    """Who has a project open."""

    pid: int
    host: str

    @property
    def words(self) -> str:
        """Return who it is, for a sentence."""
        if not self.pid:
            return "another program"
        here = self.host == socket.gethostname()
        return f"another window (process {self.pid}" + (")" if here else f" on {self.host})")


class ProjectLock:
    """A lock that was got; `release` it.

    The operating system drops the lock when its process ends, however that happens: a lock file that is left over
    stops nobody. Where a file system knows no locks, the process named in the file decides.
    """

    def __init__(self, path: str, handle: int) -> None:
        self._path = path
        self._handle: int | None = handle

    @classmethod
    def take(cls, project: str | os.PathLike[str]) -> ProjectLock | Holder:
        """Return the lock of a project, or who has it.

        Raises:
            OSError: The lock file cannot be made: the folder is read-only.
        """
        path = os.path.abspath(project) + SUFFIX
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
            try:
                if not _lock(handle, path):
                    holder = _read(path)
                    os.close(handle)
                    return holder
                # Whoever had it may have removed the file since it was opened here: then another may lock a new one.
                if _is_same(handle, path):
                    _write(handle)
                    return cls(path, handle)
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def release(self) -> None:
        """Let others have the project; harmless when called twice."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        if sys.platform == "win32":
            os.close(handle)
            _remove(self._path)
        else:
            _remove(self._path)
            os.close(handle)


def holder_of(project: str | os.PathLike[str]) -> Holder | None:
    """Return who has a project open; None when nobody has.

    Raises:
        OSError: The lock file cannot be made.
    """
    got = ProjectLock.take(project)
    if isinstance(got, Holder):
        return got
    got.release()
    return None


def _lock(handle: int, path: str) -> bool:
    """Ask the operating system for the lock; return whether it was given."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return not _is_alive(_read(path))
    return True


def _is_same(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _write(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())


def _read(path: str) -> Holder:
    try:
        told = json.loads(Path(path).read_bytes()[:1000])
        return Holder(int(told["pid"]), str(told["host"])[:100])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Holder(0, "")


def _is_alive(holder: Holder) -> bool:
    if not holder.pid:
        return False
    if holder.host != socket.gethostname() or sys.platform == "win32":
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return holder.pid != os.getpid()


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return  # read-only by now, or gone: an unlocked file stops nobody
