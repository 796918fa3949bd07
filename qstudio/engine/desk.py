"""The asking side of an engine: job records, slots, and delivery of callbacks in the caller's thread.

Both engines have one. Only the thread that calls `dispatch` changes jobs; other threads post.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from qstudio.engine.client import Job
from qstudio.engine.jobs import spec_of
from qstudio.engine.messages import Failure, JobState, Progress

BUDGET_S = 0.02
"""Longest stretch of callbacks in one dispatch: a flood of messages must not hold up a window (stall limit 50 ms)."""


class Desk:
    """Job records and the inbox."""

    def __init__(self) -> None:
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._arrived = threading.Event()
        self._wake: Callable[[], None] | None = None
        self._ids = count(1)
        self._latest: dict[str, Job] = {}
        self._untold: set[int] = set()

    # ---- jobs

    def admit(
        self,
        request: Any,
        slot: str,
        on_finished: Callable[[Job], None] | None,
        on_partial: Callable[[Any], None] | None,
        on_progress: Callable[[Progress], None] | None,
        on_state: Callable[[Job], None] | None,
    ) -> tuple[Job, Job | None]:
        """Return a new job and the one of the same slot that it makes obsolete, if that is not final yet."""
        job = Job(
            next(self._ids),
            request,
            spec_of(request).process,
            slot,
            on_finished=on_finished,
            on_partial=on_partial,
            on_progress=on_progress,
            on_state=on_state,
        )
        older = self._latest.get(slot) if slot else None
        if slot:
            self._latest[slot] = job
        if older is None:
            return job, None
        # Also one that is final but whose callbacks still wait for dispatch: its reply is of an older generation.
        older.superseded = True
        return job, None if older.state.is_final else older

    def change(self, job: Job, state: JobState) -> None:
        """Change a job's state and tell it; inside dispatch."""
        if not job.state.is_final and job.state is not state:
            job.state = state
            self._tell_state(job, state)

    def change_later(self, job: Job, state: JobState) -> None:
        """Change a job's state now and have it told by the next dispatch."""
        if not job.state.is_final and job.state is not state:
            job.state = state
            self.post(self._tell_state, job, state)

    def finish(self, job: Job, state: JobState, value: Any = None, error: Failure | None = None) -> None:
        """Put a job into a final state and tell it, once; inside dispatch."""
        if self._end(job, state, value, error):
            self._tell_finished(job)

    def finish_later(self, job: Job, state: JobState, error: Failure | None = None) -> None:
        """Put a job into a final state now and have it told by the next dispatch."""
        if self._end(job, state, None, error):
            self._untold.add(job.id)
            self.post(self._tell_finished, job)

    def is_told(self, job: Job) -> bool:
        """Return whether a job is final and its callbacks have been called."""
        return job.state.is_final and job.id not in self._untold

    def _end(self, job: Job, state: JobState, value: Any, error: Failure | None) -> bool:
        if job.state.is_final:
            return False
        job.state, job.value, job.error = state, value, error
        return True

    def tell_progress(self, job: Job, progress: Progress) -> None:
        """Record progress and pass it on."""
        if not job.superseded and not job.state.is_final:
            job.progress = progress
            if job.on_progress is not None:
                job.on_progress(progress)

    def tell_partial(self, job: Job, value: Any) -> None:
        """Pass an intermediate value on."""
        if not job.superseded and not job.state.is_final and job.on_partial is not None:
            job.on_partial(value)

    def _tell_state(self, job: Job, state: JobState) -> None:
        # What was posted may have been overtaken by what came over the pipe.
        if job.state is state and not job.superseded and job.on_state is not None:
            job.on_state(job)

    def _tell_finished(self, job: Job) -> None:
        self._untold.discard(job.id)
        superseded = job.superseded
        if job.slot and self._latest.get(job.slot) is job:
            del self._latest[job.slot]
        self._tell_state(job, job.state)
        if not superseded and job.on_finished is not None:
            job.on_finished(job)

    # ---- inbox

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have `function` called by the next dispatch; from any thread."""
        self._inbox.append((function, arguments))
        if not self._arrived.is_set():
            self._arrived.set()
            if self._wake is not None:
                self._wake()

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        """Set what is called when the inbox is no longer empty; at once if it is not empty now."""
        self._wake = wake
        if wake is not None and self._inbox:
            wake()

    def dispatch(self) -> int:
        """Call what was posted; return how many calls there were.

        A callback that raises ends this dispatch; what is left is delivered by the next, for which `wake` is called.
        """
        handled = 0
        deadline = time.monotonic() + BUDGET_S
        try:
            while self._inbox and (handled == 0 or time.monotonic() < deadline):
                function, arguments = self._inbox.popleft()
                handled += 1
                function(*arguments)
        finally:
            # Cleared first and looked at afterwards: what another thread posts in between is seen by one of the two.
            self._arrived.clear()
            if self._inbox:
                self._arrived.set()
                if self._wake is not None:
                    self._wake()
        return handled

    def sleep(self, timeout_s: float) -> None:
        """Wait until something is posted, or `timeout_s` is over."""
        self._arrived.wait(max(timeout_s, 0.0))
