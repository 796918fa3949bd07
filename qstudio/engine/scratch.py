"""A directory for the temporary files of one engine process, removed with it even when it is killed.

The owner holds a lock on a file inside; the system lets go of it when the owner dies, however it dies. Directories that
nobody holds are what killed processes left, and are removed when the next engine starts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO

_PREFIX = "qstudio-engine-"
_LOCK_NAME = ".owner"


class Scratch:
    """A temporary directory with an owner."""

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock: IO[bytes] = open(self.path / _LOCK_NAME, "wb")  # noqa: SIM115 - held as long as the owner lives
            if _try_lock(self._lock):
                return
            # Another engine that was clearing up got hold of it between the two lines; it deletes this one.
            self._lock.close()

    def remove(self) -> None:
        """Delete the directory with everything in it; harmless when called twice."""
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def remove_abandoned() -> int:
    """Delete the directories whose owner is dead; return how many there were."""
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
            removed += 1
    return removed


def _is_abandoned(path: Path) -> bool:
    try:
        if hasattr(os, "getuid") and path.lstat().st_uid != os.getuid():
            return False
        with open(path / _LOCK_NAME, "rb+") as lock:
            return _try_lock(lock)
    except OSError:
        # No lock file yet: the owner is between two lines of Scratch.__init__, or it is not ours to judge.
        return False


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":  # pragma: no cover
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
