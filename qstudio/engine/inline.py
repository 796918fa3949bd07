"""The engine in the caller's own process: for the command line, scripts and tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from qstudio.core.errors import JobCancelled
from qstudio.engine.client import Job
from qstudio.engine.desk import Desk
from qstudio.engine.jobs import function_of, spec_of
from qstudio.engine.messages import Failure, JobState, Progress
from qstudio.engine.progress import ProgressMeter
from qstudio.engine.words import failure_of


class InlineContext:
    """How a job reports to, streams to and is cancelled by the callbacks of its own process."""

    def __init__(self, desk: Desk, job: Job) -> None:
        self._desk = desk
        self._job = job
        self._meter = ProgressMeter(job.id)

    def report(self, done: float, total: float, note: str = "") -> None:
        """Pass the progress on, at most 20 times a second.

        Raises:
            JobCancelled: The job was asked to stop.
        """
        self.check()
        progress = self._meter.update(done, total, note)
        if progress is not None:
            self._desk.tell_progress(self._job, progress)
            self.check()

    def partial(self, value: Any) -> None:
        """Pass an intermediate value on."""
        self._desk.tell_partial(self._job, value)

    def check(self) -> None:
        """Raise JobCancelled if the job was asked to stop, or was stopped by force."""
        if self._job.state is not JobState.RUNNING:
            raise JobCancelled


class InlineEngine:
    """An `EngineClient` that runs each job inside `dispatch` or `wait`, one at a time.

    States, order and callbacks are those of `ProcessEngine`. What needs a second process is not there: a crash of a
    library takes the program along, and a job that never checks for cancellation cannot be stopped from outside.
    `force_stop` marks the job KILLED at once and lets it end at its next check. Callbacks that run while a job runs
    (progress, partial values) may submit and cancel, not wait.
    """

    def __init__(self) -> None:
        self.on_log: Callable[[str, str], None] | None = None
        self.on_process_died: Callable[[str, str], None] | None = None
        self._desk = Desk()
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._closed = False

    def submit(
        self,
        request: Any,
        *,
        slot: str = "",
        on_finished: Callable[[Job], None] | None = None,
        on_partial: Callable[[Any], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_state: Callable[[Job], None] | None = None,
    ) -> Job:
        """Queue a request and return at once; it runs in a later `dispatch` or `wait`.

        Raises:
            KeyError: There is no job for this type of request.
        """
        job, older = self._desk.admit(request, slot, on_finished, on_partial, on_progress, on_state)
        if older is not None:
            self.cancel(older)
        if self._closed:
            self._desk.finish_later(job, JobState.CANCELLED)
            return job
        self._waiting.append(job)
        self._desk.post(self._run_next)
        return job

    def cancel(self, job: Job) -> None:
        """Ask a job to stop; a queued one is CANCELLED at once, a running one becomes CANCELLING."""
        if job in self._waiting:
            self._waiting.remove(job)
            self._desk.finish_later(job, JobState.CANCELLED)
        elif job is self._running:
            self._desk.change(job, JobState.CANCELLING)

    def force_stop(self, job: Job) -> None:
        """Mark a job KILLED; when it is running, it ends at its next check."""
        if job in self._waiting:
            self._waiting.remove(job)
        if not job.state.is_final:
            failure = Failure(f"{spec_of(job.request).title} was stopped by force")
            self._desk.finish_later(job, JobState.KILLED, failure)

    def restart(self, process: str) -> None:
        """There is no process that could be gone; nothing is done."""

    def dispatch(self) -> int:
        """Run what is queued, at least one job if there is one, with its callbacks; return the number of calls."""
        return self._desk.dispatch()

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        """Set what is called when there is something to dispatch."""
        self._desk.set_wake(wake)

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        """Run queued jobs until this one is final.

        Raises:
            TimeoutError: It was not begun within `timeout` seconds; a job that has begun is not interrupted.
            RuntimeError: Called from inside a callback of a job that is running.
        """
        if self._running is not None:
            raise RuntimeError("an inline engine cannot wait for a job inside a callback of a running one")
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._desk.is_told(job):
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{spec_of(job.request).title} was not done in {timeout:g} seconds")
            self.dispatch()
        return job

    def close(self, timeout: float = 3.0) -> None:
        """Cancel what is queued or running; nothing can be submitted any more."""
        self._closed = True
        for job in tuple(self._waiting):
            self.cancel(job)
        if self._running is not None:
            self.cancel(self._running)

    # ---- running

    def _run_next(self) -> None:
        if self._running is not None or not self._waiting:
            # One at a time: a callback of the running job has called dispatch. The end of that job posts again.
            return
        job = max(self._waiting, key=lambda job: spec_of(job.request).rank)
        self._waiting.remove(job)
        self._running = job
        try:
            self._run(job)
        finally:
            self._running = None
            if self._waiting:
                self._desk.post(self._run_next)

    def _run(self, job: Job) -> None:
        title = spec_of(job.request).title
        self._desk.change(job, JobState.RUNNING)
        context = InlineContext(self._desk, job)
        try:
            context.check()
            value = function_of(job.request)(job.request, context)
        except JobCancelled:
            self._finish(job, JobState.CANCELLED)
        except KeyboardInterrupt:
            self._finish(job, JobState.CANCELLED)
            raise
        except BaseException as error:
            self._finish(job, JobState.FAILED, error=failure_of(error, title))
        else:
            self._finish(job, JobState.DONE, value)

    def _finish(self, job: Job, state: JobState, value: Any = None, error: Failure | None = None) -> None:
        # Callbacks of a job that is over may wait for others.
        self._running = None
        self._desk.finish(job, state, value, error)
