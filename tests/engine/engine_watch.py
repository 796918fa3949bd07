"""Waiting on engines in tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from qstudio.engine.client import EngineClient

LIMIT_S = 60.0
"""Longest wait for anything: far above what is needed, so that a busy machine fails no test."""


class Watch:
    """Waits for conditions on an engine by its wake signal, never by sleeping."""

    def __init__(self, engine: EngineClient) -> None:
        self.engine = engine
        self._arrived = threading.Event()
        engine.set_wake(self._arrived.set)

    def until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {limit_s} s"
            self._arrived.wait(0.1)
            self._arrived.clear()
            self.engine.dispatch()
