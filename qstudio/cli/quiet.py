"""Keep what libraries print out of the answer: stdout and stderr go to a file while the engine works."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from types import TracebackType
from typing import IO, TextIO


class Quiet:
    """Sends file descriptors 1 and 2, and Python's streams, to a temporary file until it is left.

    Libraries print from C++ (onnxruntime) and from Python (torch.onnx); with --json a single such line would spoil
    stdout. `terminal` writes to the real stderr meanwhile, `text` is what was caught.
    """

    def __init__(self) -> None:
        self.text = ""
        self._exits = contextlib.ExitStack()
        self._saved: list[tuple[int, int]] = []

    def __enter__(self) -> Quiet:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        self._caught: IO[str] = self._exits.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", buffering=1)
        )
        self._was_terminal = _is_terminal(sys.stderr)
        self.terminal: TextIO = sys.stderr
        for descriptor in (1, 2):
            try:
                copy = os.dup(descriptor)
            except OSError:  # closed by whoever started us: there is nothing to protect
                continue
            self._saved.append((descriptor, copy))
            os.dup2(self._caught.fileno(), descriptor)
        for descriptor, copy in self._saved:
            if descriptor == 2 and _descriptor(sys.stderr) == 2:
                stream = open(os.dup(copy), "w", errors="replace", buffering=1)
                self.terminal = self._exits.enter_context(stream)
        self._exits.enter_context(contextlib.redirect_stdout(self._caught))
        self._exits.enter_context(contextlib.redirect_stderr(self._caught))
        return self

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches stderr."""
        return self._was_terminal

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caught.flush()
        for descriptor, copy in self._saved:
            os.dup2(copy, descriptor)
            os.close(copy)
        with contextlib.suppress(OSError, ValueError):
            self._caught.seek(0)
            self.text = self._caught.read()
        self._exits.close()


def _descriptor(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return -1


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False
