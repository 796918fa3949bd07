"""Background jobs of a session, one for each slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qstudio.engine.client import EngineClient, Job
from qstudio.engine.messages import JobState
from qstudio.session.events import Event


class Work:
    """Opening, statistics, previews: asked for by slot, the latest in a slot wins.

    A job that was lost because its process died is asked for once more: the person asked for something else to be
    stopped, or nothing at all. Opening a model is not repeated, as the file may be what killed the process.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._jobs: dict[str, Job] = {}
        self._repeated: set[Any] = set()
        self._given_up: set[int] = set()
        self.changed: Event[tuple[Job, ...]] = Event()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Jobs that are not final."""
        return tuple(job for job in self._jobs.values() if not job.state.is_final)

    @property
    def untold(self) -> tuple[Job, ...]:
        """Jobs whose end has not been told yet, the final ones among them too."""
        return tuple(self._jobs.values())

    def is_busy(self, slot: str) -> bool:
        """Return whether a job of that slot is on its way."""
        job = self._jobs.get(slot)
        return job is not None and not job.state.is_final

    def submit(
        self,
        slot: str,
        request: Any,
        finished: Callable[[Job], None],
        partial: Callable[[Any], None] | None = None,
        repeat: bool = True,
    ) -> Job:
        """Ask for something; `finished` is called once, unless a newer request takes the slot."""

        def on_finished(job: Job) -> None:
            if self._jobs.get(slot) is job:
                del self._jobs[slot]
            lost = job.state is JobState.KILLED and job.id not in self._given_up
            self._given_up.discard(job.id)
            if lost and repeat and request not in self._repeated:
                self._repeated.add(request)
                self.submit(slot, request, finished, partial)
                return
            if job.state is JobState.DONE:
                self._repeated.discard(request)
            finished(job)
            self.changed.emit(self.jobs)

        job = self._engine.submit(
            request,
            slot=slot,
            on_finished=on_finished,
            on_partial=partial,
            on_progress=lambda _progress: self.changed.emit(self.jobs),
        )
        self._jobs[slot] = job
        self.changed.emit(self.jobs)
        return job

    def cancel(self, *slots: str) -> None:
        """Ask the jobs of these slots (all, when none is named) to stop."""
        for slot, job in tuple(self._jobs.items()):
            if (not slots or slot in slots) and not job.state.is_final:
                self._engine.cancel(job)

    def force_stop(self) -> None:
        """End the process of the jobs that do not stop when asked; they are not repeated."""
        for job in self.jobs:
            if job.state is JobState.CANCELLING:
                self._given_up.add(job.id)
                self._engine.force_stop(job)
