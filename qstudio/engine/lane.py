"""The queue of one engine process as its client keeps it."""

from __future__ import annotations

from qstudio.engine.client import Job
from qstudio.engine.jobs import spec_of
from qstudio.engine.link import Link


class Lane:
    """One of the two processes: its present link, what waits for it and what it is doing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: Link | None = None
        self.waiting: list[Job] = []
        self.in_flight: list[Job] = []
        """In the order in which they were sent: the last one is what the process is busy with."""
        self.failed_starts = 0

    def take_next(self) -> Job | None:
        """Remove and return the job to send now: urgent ones first, and beside a running one only an urgent one."""
        urgent = next((job for job in self.waiting if spec_of(job.request).urgent), None)
        if not self.in_flight:
            job = urgent or next(iter(self.waiting), None)
        elif len(self.in_flight) == 1 and not spec_of(self.in_flight[0].request).urgent:
            job = urgent
        else:
            job = None
        if job is not None:
            self.waiting.remove(job)
        return job
