"""One engine process as its parent holds it: started, read, written to and ended, never in the caller's way."""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import connection as mp_connection
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from qstudio.engine import boot
from qstudio.engine.envelopes import LogLines
from qstudio.engine.log_pipe import open_log_pipe, read_lines
from qstudio.engine.scratch import Scratch, remove_abandoned

_LOG_TAIL = 40
"""Last lines kept for the details of a failure."""

_LOG_BATCH = 100
"""Lines handed over at a time: a window shows that many in a few milliseconds."""

_LOG_UNSEEN = 5000
"""Lines that may wait to be shown; what a library prints beyond that is counted and left out."""

_LOG_GRACE_S = 0.5
"""How long the last words of a dead process are waited for: a grandchild may hold the pipe open for ever."""


@dataclass(frozen=True)
class Died:
    """The process is gone; nothing more comes over this link."""

    exit_code: int | None
    """As multiprocessing gives it: negative = signal; None = it was never started."""
    log: tuple[str, ...]
    """Last lines it printed."""
    reason: str = ""
    """Why it could not be started, if so."""


@dataclass(frozen=True)
class Unreadable:
    """A message that could not be unpickled here."""

    reason: str


class Link:
    """One incarnation of an engine process. Its messages are given to `post` from its own threads."""

    def __init__(self, options: boot.BootOptions, post: Callable[[Link, Any], None]) -> None:
        self.process = options.process
        self.ready = False
        """Set by the owner when Ready has been handled."""
        self.pid: int | None = None
        self._options = options
        self._post = post
        self._child: SpawnProcess | None = None
        self._connection: Connection[Any, Any] | None = None
        self._tail: deque[str] = deque(maxlen=_LOG_TAIL)
        self._unseen = 0
        self._left_out = 0
        self._gate = threading.Lock()
        self._stopping = False
        self._ended = threading.Event()
        self._stopper: threading.Thread | None = None
        # Daemons: a script that forgets to close its engine must be able to end.
        self._thread = threading.Thread(target=self._serve, name=f"qstudio-{self.process}", daemon=True)

    def start(self) -> None:
        """Start the process in the background; Ready or Died follows."""
        self._thread.start()

    def send(self, message: Any) -> None:
        """Write a message; a process that is gone is reported by Died, not here."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.send_bytes(data)

    def seen(self, lines: int) -> None:
        """Tell that so many log lines have been shown."""
        with self._gate:
            self._unseen -= lines

    def stop(self, grace_s: float) -> None:
        """End the process by force, without waiting: terminate, and kill when it is still there after `grace_s`."""
        with self._gate:
            already, self._stopping = self._stopping, True
        if not already:
            self._stopper = threading.Thread(
                target=self._stop, args=(grace_s,), name=f"qstudio-stop-{self.process}", daemon=True
            )
            self._stopper.start()

    def kill(self) -> None:
        """End the process at once."""
        with self._gate:
            self._stopping = True
            if self._child is not None and not self._ended.is_set():
                self._child.kill()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the process and its threads; return whether they have ended."""
        if self._thread.ident is None:
            return True
        self._thread.join(max(timeout_s, 0.0))
        if self._thread.is_alive():
            return False
        if self._stopper is not None:
            self._stopper.join()
        return True

    def _stop(self, grace_s: float) -> None:
        with self._gate:
            if self._child is not None and not self._ended.is_set():
                self._child.terminate()
        if not self._ended.wait(grace_s):
            with self._gate:
                if self._child is not None and not self._ended.is_set():
                    self._child.kill()

    # ---- the thread

    def _serve(self) -> None:
        remove_abandoned()
        try:
            scratch = Scratch()
        except OSError as error:
            self._end(Died(None, (), f"no temporary directory can be made ({error.strerror})"))
            return
        died = self._live(scratch)
        scratch.remove()
        self._end(died)

    def _end(self, died: Died) -> None:
        with self._gate:
            self._ended.set()
            if self._child is not None and died.exit_code is not None:
                self._child.close()
        self._post(self, died)

    def _live(self, scratch: Scratch) -> Died:
        try:
            log_reader = self._spawn(scratch)
        except Exception as error:
            return Died(None, (), f"{type(error).__name__}: {error}")
        assert self._child is not None
        assert self._connection is not None
        self._read(self._connection, self._child)
        self._child.join()
        log_reader.join(_LOG_GRACE_S)
        self._connection.close()
        return Died(self._child.exitcode, tuple(self._tail))

    def _spawn(self, scratch: Scratch) -> threading.Thread:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        log_descriptor, log_end = open_log_pipe()
        # The reader owns the descriptor from here on, so that it is closed also when the start fails.
        log_reader = threading.Thread(
            target=self._read_log, args=(log_descriptor,), name=f"qstudio-log-{self.process}", daemon=True
        )
        log_reader.start()
        options = replace(self._options, scratch=str(scratch.path))
        try:
            with self._gate:
                if self._stopping:
                    raise InterruptedError("the engine is being closed")
                child = context.Process(
                    target=boot.run, args=(theirs, log_end, options), name=f"qstudio-{self.process}", daemon=False
                )
                with _without_main():
                    child.start()
                self._child, self._connection, self.pid = child, ours, child.pid
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            log_end.close()
        return log_reader

    def _read(self, connection: Connection[Any, Any], child: SpawnProcess) -> None:
        while True:
            ready = mp_connection.wait([connection, child.sentinel])
            if connection in ready:
                try:
                    data = connection.recv_bytes()
                except (EOFError, OSError):
                    return
                try:
                    message = pickle.loads(data)
                except Exception as error:
                    message = Unreadable(f"{type(error).__name__}: {error}")
                self._post(self, message)
            else:
                return

    def _read_log(self, descriptor: int) -> None:
        for lines in read_lines(descriptor):
            self._tail.extend(lines)
            for start in range(0, len(lines), _LOG_BATCH):
                self._hand_over(lines[start : start + _LOG_BATCH])

    def _hand_over(self, lines: tuple[str, ...]) -> None:
        with self._gate:
            if self._unseen + len(lines) > _LOG_UNSEEN:
                self._left_out += len(lines)
                return
            if self._left_out:
                lines = (f"({self._left_out:,} lines left out)", *lines)
                self._left_out = 0
            self._unseen += len(lines)
        self._post(self, LogLines(lines))


_MAIN_HIDDEN = threading.Lock()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide where __main__ comes from while a process is started.

    multiprocessing would import the parent's main module in the child: a script without a __main__ guard would run
    again there, and one that imports Qt would bring Qt along. The child needs nothing of it. Other threads keep seeing
    the module's names, because the stand-in has them too.
    """
    with _MAIN_HIDDEN:
        main = sys.modules["__main__"]
        stand_in = types.ModuleType("__main__")
        stand_in.__dict__.update({k: v for k, v in vars(main).items() if k not in ("__file__", "__spec__")})
        stand_in.__spec__ = None
        sys.modules["__main__"] = stand_in
        try:
            yield
        finally:
            sys.modules["__main__"] = main
