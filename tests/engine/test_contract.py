"""What every engine client must do, whether its jobs run in this process or in others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import engine_jobs as jobs
import numpy as np
import pytest
from engine_watch import LIMIT_S, Watch

from qstudio.engine.client import EngineClient, Job
from qstudio.engine.inline import InlineEngine
from qstudio.engine.messages import JobState, Progress


def run(engine: EngineClient, request: Any, **callbacks: Any) -> Job:
    return engine.wait(engine.submit(request, **callbacks), LIMIT_S)


def test_callbacks_come_in_order_and_the_last_word_once(engine: EngineClient) -> None:
    heard: list[Any] = []
    job = run(
        engine,
        jobs.Count(200),
        on_state=lambda job: heard.append(job.state),
        on_partial=heard.append,
        on_finished=lambda job: heard.append(("finished", job.state, job.value)),
    )
    assert heard == [JobState.RUNNING, *range(200), JobState.DONE, ("finished", JobState.DONE, 200)]
    assert (job.state, job.value, job.error) == (JobState.DONE, 200, None)
    assert engine.dispatch() == 0


def test_nothing_is_called_outside_dispatch(engine: EngineClient) -> None:
    heard: list[Job] = []
    first = engine.submit(jobs.Echo(1), on_finished=heard.append)
    second = engine.submit(jobs.Echo(2), on_finished=heard.append)
    engine.cancel(second)
    assert second.state is JobState.CANCELLED
    assert heard == []
    Watch(engine).until(lambda: len(heard) == 2)
    assert set(heard) == {first, second}


def test_jobs_run_one_after_the_other_in_the_order_asked(engine: EngineClient) -> None:
    done: list[Any] = []
    submitted = [engine.submit(jobs.Echo(i), on_finished=lambda job: done.append(job.value)) for i in range(20)]
    for job in submitted:
        engine.wait(job, LIMIT_S)
    assert done == list(range(20))


def test_an_urgent_job_goes_before_those_that_wait(engine: EngineClient) -> None:
    order: list[str] = []
    waiting = [engine.submit(jobs.Echo(i), on_finished=lambda job: order.append("echo")) for i in range(3)]
    engine.submit(jobs.AboutUrgent(), on_finished=lambda job: order.append("urgent"))
    for job in waiting:
        engine.wait(job, LIMIT_S)
    assert order == ["urgent", "echo", "echo", "echo"]


def test_progress_comes_at_most_20_times_a_second_with_the_time_left(engine: EngineClient) -> None:
    heard: list[Progress] = []
    begun: list[float] = []
    job = run(
        engine,
        jobs.Count(1000, 0.0012),
        on_progress=heard.append,
        on_state=lambda job: begun.append(time.monotonic()),
    )
    assert job.state is JobState.DONE
    assert 10 <= len(heard) <= 20 * (begun[-1] - begun[0]) + 2
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    assert heard[0].seconds_left is None
    late = [p.seconds_left for p in heard if p.seconds_left is not None]
    assert late, "no estimate after half a second"
    assert late[-1] < late[0] + 1.0
    assert heard[-1].note.startswith("step ")
    assert job.progress == heard[-1]


def test_a_running_job_is_cancelled_within_half_a_second(engine: EngineClient) -> None:
    states: list[JobState] = []
    asked: list[float] = []

    def on_partial(value: Any) -> None:
        asked.append(time.monotonic())
        engine.cancel(job)
        assert job.state is JobState.CANCELLING

    job = engine.submit(jobs.Patient(), on_partial=on_partial, on_state=lambda job: states.append(job.state))
    engine.wait(job, LIMIT_S)
    assert time.monotonic() - asked[0] <= 0.5
    assert job.state is JobState.CANCELLED
    assert job.error is None
    assert states == [JobState.RUNNING, JobState.CANCELLING, JobState.CANCELLED]
    assert run(engine, jobs.Echo("next")).value == "next"


def test_a_queued_job_that_is_cancelled_never_runs(engine: EngineClient, tmp_path: Path) -> None:
    states: list[JobState] = []
    finished: list[Job] = []
    first = engine.submit(jobs.Echo(1))
    job = engine.submit(jobs.Echo(2), on_state=lambda job: states.append(job.state), on_finished=finished.append)
    engine.cancel(job)
    assert job.state is JobState.CANCELLED
    engine.wait(first, LIMIT_S)
    engine.wait(job, LIMIT_S)
    assert states == [JobState.CANCELLED]
    assert finished == [job]
    engine.cancel(job)
    assert job.state is JobState.CANCELLED


def test_a_fault_of_the_program_is_told_in_words(engine: EngineClient) -> None:
    job = run(engine, jobs.Raise("value"))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert not job.error.user_fault
    assert "testing Raise" in job.error.what
    assert "boom" in job.error.what
    assert "Traceback" not in job.error.sentence()
    assert "engine_jobs.py" in job.error.details
    assert run(engine, jobs.Echo(5)).value == 5


def test_a_fault_of_the_input_keeps_its_three_parts(engine: EngineClient) -> None:
    job = run(engine, jobs.Raise("user"))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.user_fault
    assert job.error.sentence() == "model.onnx: the file is truncated. Export it again."


@pytest.mark.parametrize(
    ("kind", "words", "user_fault"),
    [("memory", "not enough memory", False), ("disk", "disk is full", True), ("exit", "SystemExit", False)],
)
def test_other_ways_to_fail_have_words_too(engine: EngineClient, kind: str, words: str, user_fault: bool) -> None:
    job = run(engine, jobs.Raise(kind))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert words in job.error.sentence()
    assert job.error.user_fault is user_fault
    assert run(engine, jobs.Echo(5)).value == 5


def test_a_big_result_arrives_whole(engine: EngineClient) -> None:
    size = 64 * 2**20
    job = run(engine, jobs.Big(size))
    assert job.value.nbytes == size
    assert np.array_equal(job.value[-512:], np.arange(size, dtype=np.uint8)[-512:])


def test_the_latest_of_a_slot_wins_over_a_running_one(engine: EngineClient) -> None:
    stale: list[Any] = []
    fresh: list[Any] = []

    def on_partial(value: Any) -> None:
        newer.append(engine.submit(jobs.Echo("new"), slot="preview", on_finished=lambda job: fresh.append(job.value)))

    newer: list[Job] = []
    older = engine.submit(jobs.Patient(), slot="preview", on_partial=on_partial, on_finished=stale.append)
    Watch(engine).until(lambda: fresh)
    assert fresh == ["new"]
    assert older.superseded
    Watch(engine).until(lambda: older.state.is_final)
    assert older.state is JobState.CANCELLED
    assert stale == []


def test_the_latest_of_a_slot_wins_over_a_queued_one(engine: EngineClient) -> None:
    heard: list[Any] = []
    submitted = [
        engine.submit(jobs.Echo(i), slot="preview", on_finished=lambda job: heard.append(job.value)) for i in range(10)
    ]
    other = engine.submit(jobs.Echo("other"), slot="another", on_finished=lambda job: heard.append(job.value))
    engine.wait(submitted[-1], LIMIT_S)
    engine.wait(other, LIMIT_S)
    # The first may have been on its way already; its reply is dropped all the same.
    assert heard == [9, "other"]
    assert all(job.superseded for job in submitted[:-1])


def test_a_slot_is_free_again_when_its_job_is_done(engine: EngineClient) -> None:
    heard: list[Any] = []
    for i in range(3):
        run(engine, jobs.Echo(i), slot="preview", on_finished=lambda job: heard.append(job.value))
    assert heard == [0, 1, 2]


def test_a_callback_may_submit_and_wait_for_another_job(engine: EngineClient) -> None:
    values: list[Any] = []

    def on_finished(job: Job) -> None:
        values.append(job.value)
        values.append(run(engine, jobs.Echo("inner")).value)

    run(engine, jobs.Echo("outer"), on_finished=on_finished)
    assert values == ["outer", "inner"]


def test_a_callback_that_raises_loses_no_message(engine: EngineClient) -> None:
    heard: list[Any] = []

    def fail(job: Job) -> None:
        raise ZeroDivisionError

    engine.submit(jobs.Echo(1), on_finished=fail)
    second = engine.submit(jobs.Echo(2), on_finished=lambda job: heard.append(job.value))
    with pytest.raises(ZeroDivisionError):
        engine.wait(second, LIMIT_S)
    engine.wait(second, LIMIT_S)
    assert heard == [2]


def test_wake_is_called_for_what_has_arrived(engine: EngineClient) -> None:
    done: list[Job] = []
    engine.submit(jobs.Echo(1), on_finished=done.append)
    Watch(engine).until(lambda: done)
    engine.set_wake(None)
    assert run(engine, jobs.Echo(2)).value == 2


def test_a_request_without_a_job_is_refused_at_once(engine: EngineClient) -> None:
    with pytest.raises(KeyError):
        engine.submit(object())


def test_waiting_has_an_end(engine: EngineClient) -> None:
    job = engine.submit(jobs.Echo(1))
    if isinstance(engine, InlineEngine):
        # Inline, time that is over before the job begins is all that can be noticed.
        with pytest.raises(TimeoutError):
            engine.wait(job, -1.0)
    else:
        busy = engine.submit(jobs.Patient(), on_partial=lambda value: None)
        with pytest.raises(TimeoutError):
            engine.wait(busy, 0.05)
    assert engine.wait(job, LIMIT_S).value == 1


def test_force_stop_ends_a_job_at_once(engine: EngineClient) -> None:
    finished: list[Job] = []
    job = engine.submit(jobs.Patient(), on_partial=lambda value: engine.force_stop(job), on_finished=finished.append)
    other = engine.submit(jobs.Echo("other"))
    assert engine.wait(job, LIMIT_S).state is JobState.KILLED
    assert job.error is not None
    assert "stopped by force" in job.error.sentence()
    assert engine.wait(other, LIMIT_S).value == "other"
    assert finished == [job]


def test_force_stop_of_a_queued_job(engine: EngineClient) -> None:
    first = engine.submit(jobs.Echo(1))
    job = engine.submit(jobs.Echo(2))
    engine.force_stop(job)
    assert engine.wait(job, LIMIT_S).state is JobState.KILLED
    assert engine.wait(first, LIMIT_S).value == 1


def test_closing_cancels_what_is_left_and_refuses_the_rest(engine: EngineClient) -> None:
    finished: list[Job] = []
    queued = engine.submit(jobs.Patient(), on_finished=finished.append)
    engine.close()
    engine.close()
    late = engine.submit(jobs.Echo(1), on_finished=finished.append)
    engine.wait(queued, 1.0)
    engine.wait(late, 1.0)
    assert [job.state for job in finished] == [JobState.CANCELLED] * 2


def test_closing_while_a_job_runs(engine: EngineClient) -> None:
    finished: list[Job] = []
    job = engine.submit(jobs.Patient(), on_partial=lambda value: engine.close(), on_finished=finished.append)
    engine.wait(job, LIMIT_S)
    assert finished == [job]
    assert job.state is JobState.CANCELLED


def test_jobs_go_to_their_process(engine: EngineClient) -> None:
    assert engine.submit(jobs.Echo(1)).process == "inspect"
    job = engine.submit(jobs.InRun(7))
    assert job.process == "run"
    assert engine.wait(job, LIMIT_S).value == 7
