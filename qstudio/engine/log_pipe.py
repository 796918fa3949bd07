"""Capture of what a process prints, at the level of file descriptors.

The parent holds the reading end itself: the last words of a process that crashes (faulthandler's stack, glibc's
"free(): invalid pointer") are in the pipe when it is gone, whereas a thread inside the process would have died with it.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

_CHUNK_BYTES = 65536


def open_log_pipe() -> tuple[int, Connection[Any, Any]]:
    """Return (file descriptor to read from, end that can be given to a spawned process and is closed afterwards)."""
    reading, writing = os.pipe()
    if sys.platform == "win32":  # pragma: no cover - handles instead of descriptors
        import msvcrt
        from multiprocessing.connection import PipeConnection

        # The connection closes the handle, so it gets one that no descriptor of ours owns.
        handle = _duplicate_handle(msvcrt.get_osfhandle(writing))
        os.close(writing)
        return reading, PipeConnection(handle, readable=False)
    return reading, Connection(writing, readable=False)


def _duplicate_handle(handle: int) -> int:  # pragma: no cover - Windows only
    from multiprocessing import reduction

    return int(reduction.duplicate(handle))  # type: ignore[attr-defined]


def redirect_output(pipe: Connection[Any, Any]) -> None:
    """Send everything this process prints, in Python or in C, into the pipe; stack traces of crashes too."""
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt

        descriptor = msvcrt.open_osfhandle(pipe.fileno(), os.O_WRONLY)
    else:
        descriptor = pipe.fileno()
    for target in (1, 2):
        os.dup2(descriptor, target)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    faulthandler.enable(file=2)
    # Nothing may wait for a terminal that belongs to the parent.
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)


def read_lines(descriptor: int) -> Iterator[tuple[str, ...]]:
    """Yield the lines that arrive, in batches as they come, until the other end is closed; then close this end."""
    rest = b""
    try:
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            # A progress bar rewrites its line with a carriage return: each version is a line here.
            *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            lines = tuple(line.decode("utf-8", "replace").rstrip() for line in whole if line.strip())
            if lines:
                yield lines
        if rest.strip():
            yield (rest.decode("utf-8", "replace").rstrip(),)
    finally:
        os.close(descriptor)
