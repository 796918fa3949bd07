"""What a program holds, counted: widgets, timers, threads, processes, objects, memory."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from dataclasses import dataclass

import psutil
from PySide6.QtCore import QCoreApplication, QEvent, QTimer
from PySide6.QtWidgets import QApplication, QWidget
from shiboken6 import isValid

KEPT = ("QMenu", "QComboBoxPrivateContainer", "QTipLabel")
"""What Qt and pyqtgraph build when it is first shown and then keep, hidden; they are counted as widgets."""


@dataclass(frozen=True)
class Holdings:
    """Counts at one moment at which the program rests."""

    windows: Counter[str]
    """Top-level widgets by class, hidden ones too, apart from `KEPT`."""
    widgets: Counter[str]
    """All widgets by class and by the program's own widget around them."""
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
            f"{sum(self.windows.values())} windows, {sum(self.widgets.values())} widgets, {self.timers} timers, "
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
        Counter(
            w.metaObject().className()
            for w in QApplication.topLevelWidgets()
            if isValid(w) and (w.isVisible() or w.metaObject().className() not in KEPT)
        ),
        Counter(_place(w) for w in QApplication.allWidgets()),
        timers,
        threading.active_count(),
        len([child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]),
        objects,
        process.memory_info().rss / 1e6,
    )


def _place(widget: QWidget) -> str:
    """Return a widget's class and that of the program's own widget that it belongs to."""
    around = widget.parentWidget()
    while around is not None and not type(around).__module__.startswith("qstudio."):
        around = around.parentWidget()
    return widget.metaObject().className() + (f" in {type(around).__name__}" if around is not None else "")
