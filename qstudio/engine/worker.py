"""The message loop of an engine process: one job at a time, cancel in milliseconds, gone when the parent is gone."""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from importlib import import_module
from multiprocessing import connection as mp_connection
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from qstudio.core.errors import JobCancelled
from qstudio.engine.envelopes import Cancel, Finished, Partial, Ready, Shutdown, Started, Submit
from qstudio.engine.jobs import function_of, spec_of
from qstudio.engine.messages import Failure, JobState
from qstudio.engine.progress import ProgressMeter
from qstudio.engine.words import failure_of

_IDLE_S = 0.3
"""Idle time after a job, after which the modules of the first heavy job are loaded ahead of it."""

_FIRST_IDLE_S = 2.0
"""The same when no job has come yet: the window is being built meanwhile and needs the processor more."""

ORPHANED = 70
"""Exit code of a process whose parent is gone."""


class PipeContext:
    """How a job in an engine process reports, streams and is cancelled."""

    def __init__(self, worker: Worker, job: int, urgent: bool) -> None:
        self._worker = worker
        self._job = job
        self._urgent = urgent
        self._meter = ProgressMeter(job)

    def report(self, done: float, total: float, note: str = "") -> None:
        """Send the progress, at most 20 times a second.

        Raises:
            JobCancelled: The job was asked to stop.
        """
        self.check()
        progress = self._meter.update(done, total, note)
        if progress is not None:
            self._worker.send(progress)

    def partial(self, value: Any) -> None:
        """Send an intermediate value."""
        self._worker.send(Partial(self._job, value))

    def check(self) -> None:
        """Let a waiting job of higher rank go first; raise JobCancelled if this one was asked to stop."""
        self._worker.raise_if_cancelled(self._job)
        if not self._urgent:
            self._worker.run_urgent()
            self._worker.raise_if_cancelled(self._job)


class Worker:
    """Reads messages in one thread and works in another."""

    def __init__(self, connection: Connection[Any, Any], warm: tuple[str, ...] = ()) -> None:
        self._connection = connection
        self._warm = warm
        self._inbox: queue.SimpleQueue[Submit | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._closing = False
        self._sending = threading.Lock()

    # ---- reading

    def _listen(self) -> None:
        parent = parent_process()
        sources: list[Any] = [self._connection]
        if parent is not None:
            sources.append(parent.sentinel)
        while True:
            ready = mp_connection.wait(sources)
            if self._connection not in ready:
                # A signal handler would wait for the busy thread to come back to Python; this does not.
                os._exit(ORPHANED)
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(ORPHANED)
            if isinstance(message, Submit):
                self._inbox.put(message)
            elif isinstance(message, Cancel):
                self._cancelled.add(message.job)
            elif isinstance(message, Shutdown):
                self._closing = True
                self._inbox.put(None)

    # ---- working

    def serve(self) -> None:
        """Work until Shutdown arrives."""
        threading.Thread(target=self._listen, name="qstudio-listen", daemon=True).start()
        self.send(Ready(os.getpid(), loaded_modules()))
        idle_s = _FIRST_IDLE_S
        while True:
            try:
                submit = self._inbox.get(timeout=idle_s if self._warm else None)
            except queue.Empty:
                self._load_ahead()
                continue
            if submit is None:
                return
            self._run(submit)
            idle_s = _IDLE_S

    def _load_ahead(self) -> None:
        modules, self._warm = self._warm, ()

        def load() -> None:
            for name in modules:
                try:
                    import_module(name)
                except ImportError:
                    # The job that needs it will say so, with its own name.
                    return

        # In a thread, so that a job which needs none of them does not wait; one that does waits for the import lock.
        threading.Thread(target=load, name="qstudio-load-ahead", daemon=True).start()

    def raise_if_cancelled(self, job: int) -> None:
        """Raise JobCancelled if the job was asked to stop, or the process is."""
        if self._closing or job in self._cancelled:
            raise JobCancelled

    def run_urgent(self) -> None:
        """Run the jobs that have arrived while another is running: the client sends only ones of higher rank then.

        They run in a thread of their own: inference and gradient modes of torch are per thread, and what the
        interrupted job has set must not reach them.
        """
        while not self._inbox.empty():
            submit = self._inbox.get()
            if submit is None:
                self._inbox.put(None)
                return
            thread = threading.Thread(target=self._run, args=(submit,), name="qstudio-urgent", daemon=True)
            thread.start()
            thread.join()

    def _run(self, submit: Submit) -> None:
        job = submit.job
        title = "the job"
        try:
            self.raise_if_cancelled(job)
            self.send(Started(job))
            request = pickle.loads(submit.request)
            spec = spec_of(request)
            title = spec.title
            value = function_of(request)(request, PipeContext(self, job, spec.urgent))
            self._answer(job, value, title)
        except JobCancelled:
            self.send(Finished(job, JobState.CANCELLED))
        except BaseException as error:
            # BaseException: a job that calls sys.exit() must not end the process.
            self.send(Finished(job, JobState.FAILED, error=failure_of(error, title)))
        finally:
            self._cancelled.discard(job)

    def _answer(self, job: int, value: Any, title: str) -> None:
        try:
            data = pickle.dumps(Finished(job, JobState.DONE, value), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            failure = failure_of(error, title)
            reason = f"{title} has a result that cannot be sent ({type(error).__name__}: {error})"
            self.send(Finished(job, JobState.FAILED, error=Failure(reason, details=failure.details)))
            return
        self._send_bytes(data)

    def send(self, message: Any) -> None:
        """Send a message to the client."""
        self._send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def _send_bytes(self, data: bytes) -> None:
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except OSError:
            os._exit(ORPHANED)


def loaded_modules() -> tuple[str, ...]:
    """Return those of the modules the program keeps apart that this process has loaded."""
    return tuple(name for name in ("torch", "onnx", "onnxruntime", "PySide6") if name in sys.modules)
