"""A session on real processes: what is lost when one of them dies, and what is not."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from qstudio.engine.messages import JobState
from qstudio.engine.process_client import ProcessEngine
from qstudio.session.session import Session


@pytest.fixture
def session(model: str) -> Iterator[Session]:
    session = Session(ProcessEngine())
    session.open_model(model)
    session.open_data("digits")
    session.wait(120)
    session.set_options(calibration_samples=32, eval_samples=64, measure_latency=False)
    session.wait(120)
    session.set_layers("4 bits", ("fc",), weight_bits=4)
    session.select(("fc",))
    yield session
    session.close()


def engines() -> set[int]:
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}


def kill_engines() -> None:
    for pid in engines():
        psutil.Process(pid).send_signal(signal.SIGKILL)


def until(session: Session, is_so: Callable[[], bool]) -> None:
    """Handle what arrives until something is so."""
    woken, deadline = threading.Event(), time.monotonic() + 60
    session._engine.set_wake(woken.set)
    while not is_so():
        assert woken.wait(max(deadline - time.monotonic(), 0.0)), "nothing arrived for a minute"
        woken.clear()
        session._engine.dispatch()
    session._engine.set_wake(None)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a matter of POSIX systems")
def test_killing_both_processes_during_a_run_loses_the_run_only(session: Session) -> None:
    texts: list[str] = []
    session.notice_posted.connect(lambda notice: texts.append(notice.text))
    metrics, statistics = session.float_metrics, dict(session.activation_statistics)
    assert metrics is not None
    assert statistics
    session.run_ptq()
    until(session, lambda: session.run(1).state is JobState.RUNNING)
    kill_engines()
    session.wait(120)
    assert session.run(1).state is JobState.KILLED
    assert any("Run 1 stopped" in text for text in texts)
    assert any("process ended" in text for text in texts)
    assert session.settings("fc").weight_bits == 4
    assert (session.undo_label, session.selection, session.float_metrics) == ("4 bits", ("fc",), metrics)
    assert session.activation_statistics.keys() == statistics.keys()
    assert session.run_blocked == ""
    session.run_ptq()
    session.wait(120)
    run = session.run(2)
    assert run.state is JobState.DONE
    assert run.result is not None
    assert session.is_current(run)
    session.undo()
    assert session.settings("fc").weight_bits == 8


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a matter of POSIX systems")
def test_what_was_being_measured_is_measured_again(session: Session) -> None:
    session.set_options(seed=9, eval_samples=None)
    until(session, lambda: any(job.state is JobState.RUNNING for job in session.work))
    kill_engines()
    session.wait(120)
    assert session.float_metrics is not None
    assert session.float_metrics.samples > 64
    assert session.activation_statistics
    assert session.work == ()
