"""What only the process client has: processes that are found, fed, watched and closed."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import engine_jobs as jobs
import psutil
import pytest
from engine_watch import LIMIT_S, Watch

from qstudio.engine.boot import BootOptions
from qstudio.engine.client import Job
from qstudio.engine.cores import available_cores
from qstudio.engine.envelopes import Finished, LogLines, Ready, Submit
from qstudio.engine.link import Link
from qstudio.engine.messages import JobState
from qstudio.engine.process_client import ProcessEngine

HERE = Path(__file__).parent


def about(engine: ProcessEngine) -> dict[str, Any]:
    value: dict[str, Any] = engine.wait(engine.submit(jobs.About()), LIMIT_S).value
    return value


def test_making_one_does_not_wait_for_its_process() -> None:
    begun = time.monotonic()
    engine = ProcessEngine()
    try:
        assert time.monotonic() - begun < 0.05
        assert not engine.is_ready("inspect")
    finally:
        engine.close()


def test_the_child_has_its_own_surroundings(process_engine: ProcessEngine) -> None:
    facts = about(process_engine)
    assert facts["pid"] == process_engine.pid("inspect") != os.getpid()
    assert facts["threads"] == str(max(available_cores() - 1, 1))
    assert facts["main"] is None or "pytest" not in facts["main"], "the parent's main module was imported"
    assert "torch" not in facts["modules"]
    assert "PySide6" not in facts["modules"]


def test_run_is_started_once_inspect_has_answered(process_engine: ProcessEngine) -> None:
    assert process_engine.pid("run") is None
    about(process_engine)
    Watch(process_engine).until(lambda: process_engine.is_ready("run"))


def test_output_of_python_and_of_c_is_captured_by_line(process_engine: ProcessEngine) -> None:
    lines: list[tuple[str, str]] = []
    process_engine.on_log = lambda process, line: lines.append((process, line))
    process_engine.wait(process_engine.submit(jobs.Print("bonjour\rça va")), LIMIT_S)
    Watch(process_engine).until(lambda: len(lines) >= 4)
    assert sorted(line for _, line in lines) == ["bonjour", "bonjour", "ça va", "ça va in C"]
    assert {process for process, _ in lines} == {"inspect"}


def test_a_flood_of_output_is_cut_and_the_cut_is_told() -> None:
    arrived: queue.Queue[Any] = queue.Queue()
    link = Link(BootOptions("inspect", 1, ""), lambda link, message: arrived.put(message))
    link.start()
    shown: list[str] = []
    try:
        assert isinstance(arrived.get(timeout=LIMIT_S), Ready)
        # Nobody says that lines are shown, so that more than 5,000 are not kept. Print prints everything twice.
        link.send(Submit(1, pickle.dumps(jobs.Print("\n".join(["line"] * 20000)))))
        while not isinstance(message := arrived.get(timeout=LIMIT_S), Finished):
            shown.extend(message.lines if isinstance(message, LogLines) else ())
        assert len(shown) <= 5000
        link.seen(len(shown))
        link.send(Submit(2, pickle.dumps(jobs.Print("the end"))))
        while shown[-1:] != ["the end in C"]:
            message = arrived.get(timeout=LIMIT_S)
            if isinstance(message, LogLines):
                shown.extend(message.lines)
                link.seen(len(message.lines))
    finally:
        link.stop(1.0)
        assert link.join(LIMIT_S)
    cuts = [line for line in shown if line.endswith(" lines left out)")]
    left_out = sum(int(cut[1:].split()[0].replace(",", "")) for cut in cuts)
    assert left_out > 0
    assert len(shown) - len(cuts) + left_out == 40002


def test_an_urgent_job_runs_inside_one_that_is_not(process_engine: ProcessEngine, tmp_path: Path) -> None:
    release = tmp_path / "release"
    long = process_engine.submit(jobs.Patient(str(release)))
    Watch(process_engine).until(lambda: long.state is JobState.RUNNING)
    later = process_engine.submit(jobs.Echo("later"))
    urgent = process_engine.wait(process_engine.submit(jobs.AboutUrgent()), LIMIT_S)
    assert urgent.state is JobState.DONE
    assert urgent.value["thread"] == "qstudio-urgent"
    assert long.state is JobState.RUNNING
    assert later.state is JobState.QUEUED
    release.touch()
    assert process_engine.wait(long, LIMIT_S).value == "released"
    assert process_engine.wait(later, LIMIT_S).value == "later"


def test_an_urgent_job_that_kills_the_process_lets_the_other_begin_again(
    process_engine: ProcessEngine, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    states: list[JobState] = []
    long = process_engine.submit(jobs.Patient(str(release)), on_state=lambda job: states.append(job.state))
    Watch(process_engine).until(lambda: long.state is JobState.RUNNING)
    urgent = process_engine.wait(process_engine.submit(jobs.ExitUrgent(4)), LIMIT_S)
    assert urgent.state is JobState.KILLED
    release.touch()
    assert process_engine.wait(long, LIMIT_S).value == "released"
    assert states == [JobState.RUNNING, JobState.QUEUED, JobState.RUNNING, JobState.DONE]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (jobs.Echo(lambda: None), "sending the request"),
        (jobs.Unread(jobs.Treacherous()), "not on this side"),
        (jobs.BadAnswer("send"), "cannot be sent"),
        (jobs.BadAnswer("read"), "cannot be read"),
    ],
)
def test_what_cannot_cross_the_pipe_fails_alone(process_engine: ProcessEngine, request_: Any, words: str) -> None:
    job = process_engine.submit(request_)
    after = process_engine.submit(jobs.Echo("after"))
    process_engine.wait(job, LIMIT_S)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert words in job.error.what
    assert process_engine.wait(after, LIMIT_S).value == "after"


def test_a_flood_of_messages_is_handled_in_portions(process_engine: ProcessEngine) -> None:
    job = process_engine.submit(jobs.Count(5000))
    longest = 0.0
    Watch(process_engine).until(lambda: job.state is JobState.RUNNING)
    while not job.state.is_final:
        begun = time.monotonic()
        process_engine.dispatch()
        longest = max(longest, time.monotonic() - begun)
    assert job.state is JobState.DONE
    # 20 ms of callbacks at most; the rest is what the reader's thread may take of the interpreter meanwhile.
    assert longest < 0.2


@pytest.mark.parametrize("state", ["new", "idle", "queued", "running", "stuck", "dead", "replaced"])
def test_close_from_every_state(state: str) -> None:
    engine = ProcessEngine()
    finished: list[Job] = []
    if state in ("idle", "dead"):
        about(engine)
    if state == "queued":
        engine.submit(jobs.Echo(1), on_finished=finished.append)
    if state in ("running", "stuck", "replaced"):
        streamed: list[Any] = []
        request = jobs.Patient() if state == "running" else jobs.Stuck()
        job = engine.submit(request, on_partial=streamed.append, on_finished=finished.append)
        Watch(engine).until(lambda: streamed)
    if state == "replaced":
        engine.force_stop(job)
    if state == "dead":
        pid = engine.pid("inspect")
        assert pid is not None
        process = psutil.Process(pid)
        process.kill()
    begun = time.monotonic()
    engine.close(2.0)
    assert time.monotonic() - begun < 5.0
    engine.close()
    engine.dispatch()
    cancelled, killed = [JobState.CANCELLED], [JobState.KILLED]
    expected = {"queued": cancelled, "running": cancelled, "stuck": cancelled, "replaced": killed}
    assert [job.state for job in finished] == expected.get(state, [])


def test_many_engines_one_after_the_other_leave_no_descriptor() -> None:
    def round_() -> None:
        engine = ProcessEngine()
        engine.wait(engine.submit(jobs.Echo(1)), LIMIT_S)
        engine.close()

    round_()
    if not hasattr(psutil.Process(), "num_fds"):
        pytest.skip("this system does not count file descriptors")
    before = psutil.Process().num_fds()
    for _ in range(3):
        round_()
    assert psutil.Process().num_fds() <= before


SCRIPT = """
import sys
import engine_jobs as jobs
from qstudio.engine.process_client import ProcessEngine
engine = ProcessEngine()
job = engine.wait(engine.submit(jobs.About()), 60)
print(job.state.value, job.value["modules"], job.value["main"])
"""


@pytest.mark.parametrize("way", ["script", "command", "module", "interactive"])
def test_the_child_is_found_whatever_main_is_and_a_forgotten_engine_is_closed(way: str, tmp_path: Path) -> None:
    """None of them has a __main__ guard, and none closes its engine."""
    path = tmp_path / "unguarded_program.py"
    path.write_text(SCRIPT, encoding="utf-8")
    command = {
        "script": [str(path)],
        "command": ["-c", SCRIPT],
        "module": ["-m", "unguarded_program"],
        "interactive": ["-i", "-q"],
    }[way]
    places = os.pathsep.join([str(HERE), str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *command],
        input=SCRIPT if way == "interactive" else None,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done []") == 1, done.stdout + done.stderr
    assert "unguarded_program" not in done.stdout
