"""Long work of the window's own thread in short slices, so that painting and input go on between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from PySide6.QtCore import QObject, QTimer

SLICE_MS = 8.0


class Slices(QObject):
    """Runs one generator at a time; a new one takes the place of an unfinished one."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._steps: Generator[None, None, Any] | None = None
        self._done: Callable[[Any], None] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._run)

    def start(self, steps: Generator[None, None, Any], done: Callable[[Any], None], at_once: bool = False) -> None:
        """Run `steps` and give what it returns to `done`.

        Args:
            steps: The work, cut by its yields.
            done: Called with what it returns.
            at_once: Whether the first slice is run now: what takes no longer is done when this returns.
        """
        self._steps, self._done = steps, done
        self._timer.start()
        if at_once:
            self._run()

    def stop(self) -> None:
        """Forget what is not done."""
        self._timer.stop()
        self._steps = self._done = None

    @property
    def busy(self) -> bool:
        """Whether there is something left to do."""
        return self._steps is not None

    def _run(self) -> None:
        steps, done = self._steps, self._done
        if steps is None or done is None:
            self._timer.stop()
            return
        end = time.perf_counter() + SLICE_MS / 1000
        while time.perf_counter() < end:
            try:
                next(steps)
            except StopIteration as stop:
                self.stop()
                done(stop.value)
                return
