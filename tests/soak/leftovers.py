"""What a program holds, counted: widgets, timers, threads, processes, objects, memory."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from dataclasses import dataclass

import psutil
from PySide6.QtCore import QCoreApplication, QEvent, QTimer
from PySide6.QtWidgets import QApplication
from shiboken6 import isValid


@dataclass(frozen=True)
class Holdings:
    """Counts at one moment at which the program rests."""

    windows: int
    """Top-level widgets, hidden ones too."""
    widgets: Counter[str]
    """All widgets by class."""
    timers: int
    """Timers that run."""
    threads: int
    processes: int
    objects: Counter[str]
    """Objects of the program's own classes."""
    memory_mb: float
    """Resident memory of this process."""

    def words(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.windows} windows, {sum(self.widgets.values())} widgets, {self.timers} timers, "
            f"{self.threads} threads, {self.processes} processes, {sum(self.objects.values())} objects, "
            f"{self.memory_mb:.0f} MB"
        )


def count() -> Holdings:
    """Delete what is to be deleted, then count."""
    for _ in range(3):
        gc.collect()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QCoreApplication.processEvents()
    everything = gc.get_objects()
    timers = sum(type(o) is QTimer and isValid(o) and o.isActive() for o in everything)
    objects = Counter(type(o).__name__ for o in everything if str(type(o).__module__).startswith("qstudio."))
    del everything
    process = psutil.Process()
    return Holdings(
        len([w for w in QApplication.topLevelWidgets() if isValid(w)]),
        Counter(type(w).__name__ for w in QApplication.allWidgets()),
        timers,
        threading.active_count(),
        len([child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]),
        objects,
        process.memory_info().rss / 1e6,
    )
