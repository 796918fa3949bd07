"""What happens when a process dies, hangs or is left behind; and what an engine without processes does instead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import engine_jobs as jobs
import psutil
import pytest
from engine_watch import LIMIT_S, Watch

from qstudio.engine.client import Job
from qstudio.engine.inline import InlineEngine
from qstudio.engine.messages import JobState
from qstudio.engine.process_client import ProcessEngine

HERE = Path(__file__).parent
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's; Windows ends processes otherwise")


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program that can import the test jobs."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])},
    )


def finished(program: subprocess.Popen[str]) -> str:
    """Return what a program printed, after it has ended well."""
    out, err = program.communicate(timeout=LIMIT_S)
    assert program.returncode == 0, err
    return out


@posix
def test_a_memory_fault_kills_the_job_and_nothing_else(process_engine: ProcessEngine) -> None:
    died: list[tuple[str, str]] = []
    process_engine.on_process_died = lambda process, sentence: died.append((process, sentence))
    done: list[Job] = []
    job = process_engine.submit(jobs.Crash(), on_finished=done.append)
    after = process_engine.submit(jobs.Echo("after"))
    process_engine.wait(job, LIMIT_S)
    assert job.state is JobState.KILLED
    assert job.error is not None
    assert "SIGSEGV" in job.error.what
    assert "testing Crash" in job.error.what
    assert not job.error.user_fault
    assert "the last words" in job.error.details
    assert "in crash" in job.error.details, "faulthandler's stack is missing"
    assert process_engine.wait(after, LIMIT_S).value == "after"
    assert done == [job]
    assert [process for process, _ in died] == ["inspect"]
    assert "SIGSEGV" in died[0][1]
    assert died[0][1].endswith("It has been started again.")


@posix
def test_inline_a_memory_fault_takes_the_program_along() -> None:
    program = script(
        """
        import engine_jobs as jobs
        from qstudio.engine.inline import InlineEngine
        engine = InlineEngine()
        engine.wait(engine.submit(jobs.Crash()))
        """
    )
    program.communicate(timeout=LIMIT_S)
    assert program.returncode == -signal.SIGSEGV


@posix
def test_a_process_killed_from_outside_while_it_works(process_engine: ProcessEngine) -> None:
    def kill(value: Any) -> None:
        pid = process_engine.pid("inspect")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    job = process_engine.submit(jobs.Patient(), on_partial=kill)
    after = process_engine.submit(jobs.Echo("after"))
    process_engine.wait(job, LIMIT_S)
    assert job.state is JobState.KILLED
    assert job.error is not None
    assert "SIGKILL" in job.error.sentence()
    assert process_engine.wait(after, LIMIT_S).value == "after"


@posix
def test_a_process_killed_while_idle_is_started_again_and_told(process_engine: ProcessEngine) -> None:
    died: list[str] = []
    process_engine.on_process_died = lambda process, sentence: died.append(sentence)
    first = process_engine.wait(process_engine.submit(jobs.About()), LIMIT_S).value["pid"]
    os.kill(first, signal.SIGKILL)
    Watch(process_engine).until(lambda: died)
    assert died == [
        "The inspect process ended by signal SIGKILL (it was ended from outside, or the system ran out of memory). "
        "It has been started again."
    ]
    second = process_engine.wait(process_engine.submit(jobs.About()), LIMIT_S).value["pid"]
    assert second != first


@posix
def test_a_process_killed_before_it_listens_loses_no_job(process_engine: ProcessEngine) -> None:
    job = process_engine.submit(jobs.Echo("kept"))
    Watch(process_engine).until(lambda: process_engine.pid("inspect") is not None)
    pid = process_engine.pid("inspect")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert process_engine.wait(job, LIMIT_S).value == "kept"


def test_a_process_that_leaves_without_a_word_is_told_by_its_exit_code(process_engine: ProcessEngine) -> None:
    job = process_engine.wait(process_engine.submit(jobs.Exit(9)), LIMIT_S)
    assert job.state is JobState.KILLED
    assert job.error is not None
    assert "exit code 9" in job.error.sentence()


def test_one_process_dies_and_the_other_works_on(process_engine: ProcessEngine) -> None:
    process_engine.wait(process_engine.submit(jobs.InRun(0)), LIMIT_S)
    died: list[str] = []
    process_engine.on_process_died = lambda process, sentence: died.append(process)
    running = process_engine.submit(jobs.Patient())
    Watch(process_engine).until(lambda: running.state is JobState.RUNNING)
    run_pid = process_engine.pid("run")
    assert run_pid is not None
    psutil.Process(run_pid).kill()
    Watch(process_engine).until(lambda: died)
    assert died == ["run"]
    assert running.state is JobState.RUNNING
    process_engine.cancel(running)
    assert process_engine.wait(running, LIMIT_S).state is JobState.CANCELLED
    assert process_engine.wait(process_engine.submit(jobs.InRun(3)), LIMIT_S).value == 3


def test_a_process_that_cannot_start_is_given_up_in_words_and_can_be_tried_again() -> None:
    engine = ProcessEngine(niceness="nonsense")  # type: ignore[arg-type]
    try:
        died: list[str] = []
        engine.on_process_died = lambda process, sentence: died.append(sentence)
        job = engine.wait(engine.submit(jobs.Echo(1)), LIMIT_S)
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert "could not be started again" in job.error.sentence()
        assert "TypeError" in job.error.details
        Watch(engine).until(lambda: len(died) == 2)
        assert engine.pid("inspect") is None
        engine._niceness = 0
        engine.restart("inspect")
        assert engine.wait(engine.submit(jobs.Echo(1)), LIMIT_S).value == 1
    finally:
        engine.close()


def test_a_stuck_job_is_stopped_by_force(process_engine: ProcessEngine) -> None:
    pids: list[int] = []
    finished_jobs: list[Job] = []
    job = process_engine.submit(jobs.Stuck(), on_partial=pids.append, on_finished=finished_jobs.append)
    after = process_engine.submit(jobs.Echo("after"))
    Watch(process_engine).until(lambda: pids)
    stuck = psutil.Process(pids[0])
    process_engine.cancel(job)
    assert job.state is JobState.CANCELLING
    begun = time.monotonic()
    process_engine.force_stop(job)
    assert time.monotonic() - begun < 0.05, "the window waited for the process"
    assert job.state is JobState.KILLED
    assert finished_jobs == []
    assert process_engine.wait(after, LIMIT_S).value == "after"
    assert finished_jobs == [job]
    # It ignores SIGTERM: a second later it is killed.
    stuck.wait(timeout=5.0)


def test_inline_a_job_stopped_by_force_ends_at_its_next_check() -> None:
    engine = InlineEngine()
    steps: list[Any] = []

    def stop(value: Any) -> None:
        steps.append(value)
        if value == 3:
            engine.force_stop(job)

    job = engine.submit(jobs.Count(10), on_partial=stop)
    assert engine.wait(job).state is JobState.KILLED
    assert steps == [0, 1, 2, 3]


@posix
@pytest.mark.parametrize("work", ["Busy", "Patient", "Stuck", ""])
def test_an_orphan_is_gone_within_two_seconds(work: str) -> None:
    program = script(
        """
        import sys
        import engine_jobs as jobs
        from engine_watch import Watch
        from qstudio.engine.process_client import ProcessEngine
        engine = ProcessEngine()
        engine.wait(engine.submit(jobs.InRun(1)))
        pid, run = engine.pid("inspect"), engine.pid("run")
        if sys.argv[1]:
            streamed = []
            job = engine.submit(getattr(jobs, sys.argv[1])(), on_partial=streamed.append)
            Watch(engine).until(lambda: streamed)
        print(pid, run, flush=True)
        import threading
        threading.Event().wait()
        """,
        work,
    )
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line, program.communicate()[1]
    children = [psutil.Process(int(pid)) for pid in line.split()]
    program.kill()
    _, alive = psutil.wait_procs(children, timeout=2.0)
    program.communicate()
    # A dead process waits in the table until the system's first process, which inherited it, takes note.
    assert not [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_temporary_files_of_a_job_that_is_killed_are_removed(process_engine: ProcessEngine) -> None:
    files: list[str] = []
    job = process_engine.submit(jobs.KeepFile(), on_partial=files.append)
    Watch(process_engine).until(lambda: files)
    assert Path(files[0]).read_bytes() == b"half a checkpoint"
    process_engine.force_stop(job)
    process_engine.wait(job, LIMIT_S)
    process_engine.close()
    assert not Path(files[0]).parent.exists()


@posix
def test_temporary_files_of_a_program_that_was_killed_are_removed_at_the_next_start() -> None:
    program = script(
        """
        import engine_jobs as jobs
        from engine_watch import Watch
        from qstudio.engine.process_client import ProcessEngine
        engine = ProcessEngine()
        files = []
        engine.submit(jobs.KeepFile(), on_partial=files.append)
        Watch(engine).until(lambda: files)
        print(engine.pid("inspect"), files[0], flush=True)
        import threading
        threading.Event().wait()
        """
    )
    assert program.stdout is not None
    pid, name = program.stdout.readline().split(maxsplit=1)
    child, file = psutil.Process(int(pid)), Path(name.strip())
    program.kill()
    program.communicate()
    psutil.wait_procs([child], timeout=5.0)
    assert file.exists()
    engine = ProcessEngine()
    try:
        engine.wait(engine.submit(jobs.Echo(1)), LIMIT_S)
        assert not file.parent.exists()
    finally:
        engine.close()


def test_temporary_files_of_a_living_engine_are_left_alone(process_engine: ProcessEngine) -> None:
    place = Path(process_engine.wait(process_engine.submit(jobs.About()), LIMIT_S).value["temporary"])
    other = ProcessEngine()
    try:
        other.wait(other.submit(jobs.Echo(1)), LIMIT_S)
        assert place.is_dir()
    finally:
        other.close()
