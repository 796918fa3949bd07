"""Engines for tests, and a check that nothing of them is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest

from qstudio.engine.client import EngineClient
from qstudio.engine.inline import InlineEngine
from qstudio.engine.process_client import ProcessEngine


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    children = set(psutil.Process().children())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(2.0)
        assert not thread.is_alive(), f"the test left the thread {thread.name}"
    left = [child for child in psutil.Process().children() if child not in children and not _is_tracker(child)]
    _gone, alive = psutil.wait_procs(left, timeout=2.0)
    assert not alive, f"the test left processes: {alive}"


def _is_tracker(process: psutil.Process) -> bool:
    """multiprocessing keeps one resource tracker for the whole life of a program."""
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(params=["inline", "process"])
def engine(request: pytest.FixtureRequest) -> Iterator[EngineClient]:
    made: EngineClient = InlineEngine() if request.param == "inline" else ProcessEngine()
    yield made
    made.close()


@pytest.fixture
def process_engine() -> Iterator[ProcessEngine]:
    made = ProcessEngine()
    yield made
    made.close()
