"""What a sweep and a search have in common: one job at a time in the process of runs, told of while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qstudio.engine.client import Job
from qstudio.engine.messages import JobState, Progress
from qstudio.session.events import Event
from qstudio.session.work import Work


class LongJob:
    """Asks for one job at a time in a slot of its own.

    Args:
        work: Where the job runs.
        slot: Its slot.
    """

    def __init__(self, work: Work, slot: str) -> None:
        self._work, self._slot = work, slot
        self._job: Job | None = None
        self.changed: Event[bool] = Event()
        """Whether it is in progress; something has changed: result, settings, `stale` or `progress`."""

    @property
    def running(self) -> bool:
        """Whether it is in progress."""
        return self._job is not None

    @property
    def stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return self._job is not None and self._job.state is JobState.CANCELLING

    @property
    def progress(self) -> Progress | None:
        """How far it is."""
        return self._job.progress if self._job is not None else None

    def cancel(self) -> None:
        """Ask it to stop; what is known stays."""
        self._work.cancel(self._slot)

    def _ask(self, request: Any, finished: Callable[[Job], None], partial: Callable[[Any], None]) -> Job:
        job = self._work.submit(self._slot, request, finished, partial, repeat=False)
        job.on_state = lambda _job: self._emit()
        self._job = None if job.state.is_final else job
        self._emit()
        return job

    def _emit(self) -> None:
        self.changed.emit(self.running)
