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
        """Remove and return the job to send now: the first of the highest rank, and beside others only one above them.

        The process is then busy with the last one sent: what it sends in between has the higher rank.
        """
        if not self.waiting:
            return None
        job = max(self.waiting, key=_rank)  # the first of equals
        if self.in_flight and _rank(job) <= max(map(_rank, self.in_flight)):
            return None
        self.waiting.remove(job)
        return job


def _rank(job: Job) -> int:
    return spec_of(job.request).rank
