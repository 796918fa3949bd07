"""What a session needs of an engine: submit jobs, hear of them, cancel them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from qstudio.engine.messages import Failure, JobState, Progress


@dataclass(eq=False)
class Job:
    """A piece of work asked of the engine, as the asking side sees it.

    Callbacks run in the thread that calls `EngineClient.dispatch` (the GUI thread, or the script's).
    """

    id: int
    request: Any
    process: str
    """"inspect" or "run"."""
    slot: str = ""
    """Latest wins within a slot: a newer request makes an older one's replies disappear."""
    state: JobState = JobState.QUEUED
    progress: Progress | None = None
    value: Any = None
    error: Failure | None = None
    submitted: float = field(default_factory=time.monotonic)
    superseded: bool = False
    on_progress: Callable[[Progress], None] | None = None
    on_partial: Callable[[Any], None] | None = None
    on_finished: Callable[[Job], None] | None = None
    """Called once, in a final state, unless superseded."""
    on_state: Callable[[Job], None] | None = None


class EngineClient(Protocol):
    """An engine: two processes, one inline, or something remote."""

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
        """Queue a request and return at once; runs, trainings and benchmarks go to "run", the rest to "inspect"."""

    def cancel(self, job: Job) -> None:
        """Ask a job to stop; a queued one is CANCELLED at once, a running one becomes CANCELLING."""

    def force_stop(self, job: Job) -> None:
        """End the job's process and start a new one: the job is KILLED, other jobs of that process are queued again."""

    def dispatch(self) -> int:
        """Run the callbacks of what has arrived; return how many calls there were.

        It stops after 20 ms of callbacks and has itself woken for the rest, so that a flood does not hold up a window.
        """

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        """Set what is called (from any thread) when there is something to dispatch."""

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        """Dispatch until the job is final (scripts and tests).

        Raises:
            TimeoutError: It was not final in `timeout` seconds.
        """

    def restart(self, process: str) -> None:
        """Start a process that is gone and was given up (one that dies is started again by itself, twice).

        One that is alive goes on.
        """

    def close(self, timeout: float = 3.0) -> None:
        """Shut down in order: ask, wait, terminate, kill. No child is left."""

    on_log: Callable[[str, str], None] | None
    """(process, line) of captured output; runs in dispatch."""
    on_process_died: Callable[[str, str], None] | None
    """(process, sentence) when a process is gone that should not be; it has been restarted already."""
