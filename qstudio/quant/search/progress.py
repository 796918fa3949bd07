"""The progress of one part of a job as a stretch of the whole."""

from __future__ import annotations

from qstudio.core.context import JobContext


class Stretch:
    """A context whose progress runs from `start` to `start + share` of the whole, which is 1."""

    def __init__(self, ctx: JobContext, start: float, share: float) -> None:
        self._ctx, self._start, self._share = ctx, start, share

    def report(self, done: float, total: float, note: str = "") -> None:
        """Tell the progress of the whole."""
        self._ctx.report(self._start + self._share * done / max(total, 1e-9), 1.0, note)

    def partial(self, value: object) -> None:
        """Stream a value."""
        self._ctx.partial(value)

    def check(self) -> None:
        """Raise JobCancelled if the job was stopped."""
        self._ctx.check()
