"""What a job is given to report, stream and be cancelled by."""

from __future__ import annotations

from typing import Any, Protocol

from qstudio.core.errors import JobCancelled


class JobContext(Protocol):
    """The only way in which a job talks to the outside while it runs."""

    def report(self, done: float, total: float, note: str = "") -> None:
        """Tell the progress; throttled by the receiver.

        Raises:
            JobCancelled: The job was asked to stop.
        """

    def partial(self, value: Any) -> None:
        """Stream an intermediate value (plain, picklable, small)."""

    def check(self) -> None:
        """Raise JobCancelled if the job was asked to stop."""


class SilentContext:
    """A context for scripts and tests that neither shows nor stops anything."""

    def __init__(self) -> None:
        self.cancelled = False

    def report(self, done: float, total: float, note: str = "") -> None:
        """Check for cancellation and drop the progress."""
        self.check()

    def partial(self, value: Any) -> None:
        """Drop the value."""

    def check(self) -> None:
        """Raise JobCancelled once `cancelled` is set."""
        if self.cancelled:
            raise JobCancelled
