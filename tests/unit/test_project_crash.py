"""Killed at random moments of its work, a program loses nothing that it had said was done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from session_fakes import FakeEngine, model

from qstudio.engine.messages import JobState
from qstudio.session.session import Session

WRITER = Path(__file__).with_name("project_writer.py")


def work_until_killed(project: Path, seed: int) -> list[str]:
    """Let a program work for a random time of 1 to 300 steps, kill it, and return what it had said was done."""
    steps = random.Random(seed).randint(1, 300)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WRITER), str(project), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        said = [program.stdout.readline().strip() for _ in range(steps)]
        program.kill()
        said += [line.strip() for line in program.stdout if line.endswith("\n")]
    return said


def check(project: Path, said: list[str]) -> None:
    engine = FakeEngine()
    session = Session(engine)
    notices: list[str] = []
    session.notice_posted.connect(lambda notice: notices.append(notice.text))
    session.project.open(project)
    assert "not closed in order" in notices[0]
    session._opening_data = session.data_spec = None
    session.open_model(f"{project}.onnx")
    engine.finish(engine.one("OpenModel"), model(f"{project}.onnx"))
    edits = [line.split() for line in said if line.startswith("edit")]
    kept = {edit.label: edit.recipe.sha256() for edit in session.history.edits.values()}
    for _, number, sha256 in edits:
        assert kept[f"edit {number}"] == sha256
    done = [int(line.split()[1]) for line in said if line.startswith("run")]
    measured = [int(line.split()[1]) for line in said if line.startswith("partial")]
    assert len(session.runs) in (len(measured), len(measured) + 1)
    for number in measured:
        run = session.run(number)
        assert run.result is not None
        assert run.result.simulated is not None
        if number in done:
            assert (run.state, run.result.simulated.top1) == (JobState.DONE, number + 0.5)
    assert all(run.state in (JobState.DONE, JobState.KILLED) for run in session.runs)
    session.close()


def test_a_killed_program_loses_nothing_it_said_was_done(tmp_path: Path) -> None:
    for seed in range(2):
        project = tmp_path / f"work{seed}.qsproj"
        check(project, work_until_killed(project, seed))


@pytest.mark.soak
def test_two_hundred_killed_programs_lose_nothing_they_said_was_done(tmp_path: Path) -> None:
    edits = runs = 0
    for seed in range(200):
        project = tmp_path / f"work{seed}.qsproj"
        said = work_until_killed(project, seed)
        check(project, said)
        edits += sum(line.startswith("edit") for line in said)
        runs += sum(line.startswith("run") for line in said)
    print(f"200 kills: {edits:,} edits and {runs:,} runs were said to be done, all of them are there")
