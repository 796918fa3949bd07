"""How far a sweep or a search is, in words."""

from __future__ import annotations

from qstudio.session.long_job import LongJob
from qstudio.ui.text import format_seconds, tr


def progress_words(lens: LongJob) -> str:
    """Return what is being done, the share that is done and the time left, of a job that runs."""
    if lens.stopping:
        return tr("Stopping…")
    progress = lens.progress
    if progress is None or progress.total <= 0:
        return tr("Waiting for the engine")
    left = f", {format_seconds(progress.seconds_left)} {tr('left')}" if progress.seconds_left else ""
    return f"{progress.note}: {100 * progress.done / progress.total:.0f} %{left}"
