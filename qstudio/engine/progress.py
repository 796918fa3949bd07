"""Throttling of progress and the estimate of the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from qstudio.engine.messages import Progress

INTERVAL_S = 0.05
"""Least time between two progress messages: 20 a second is as much as an eye can follow."""

ESTIMATE_AFTER_S = 0.5
"""An estimate from less time than this jumps about and is not given."""

ESTIMATE_AFTER_SHARE = 0.01
"""Nor is one from less of the work: the first hundredth of a training is the loading of its data."""


class ProgressMeter:
    """Turn a job's reports into at most 20 messages a second, with the seconds left."""

    def __init__(self, job: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._clock = clock
        self._sent = -1.0
        self._total = -1.0
        self._done = 0.0
        self._anchor = (clock(), 0.0)

    def update(self, done: float, total: float, note: str = "") -> Progress | None:
        """Return the message to send now, or None when the last one is too recent."""
        now = self._clock()
        if total != self._total or done < self._done:
            # Another phase with a scale of its own: what was learned of the pace does not apply.
            self._anchor = (now, done) if self._total >= 0 else (self._anchor[0], 0.0)
        self._total, self._done = total, done
        if self._sent >= 0 and now - self._sent < INTERVAL_S:
            return None
        self._sent = now
        return Progress(self._job, done, total, note, self._seconds_left(now))

    def _seconds_left(self, now: float) -> float | None:
        started, offset = self._anchor
        elapsed, advanced = now - started, self._done - offset
        if elapsed < ESTIMATE_AFTER_S or advanced < ESTIMATE_AFTER_SHARE * self._total or advanced <= 0:
            return None
        return max(elapsed * (self._total - self._done) / advanced, 0.0)
