"""The runs of a session: append-only records that fill while the engine works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.model_info import ModelInfo
from qstudio.core.results import RunResult
from qstudio.core.training import CurvePoint, TrainResult
from qstudio.engine.client import EngineClient, Job
from qstudio.engine.messages import JobState, PtqPartial, RunPtq, TrainQat
from qstudio.session.events import Event
from qstudio.session.options import Run, RunOptions
from qstudio.session.training import TrainingRecord, remove_checkpoint

SEARCHED = "search"
"""Phase of a run that a search made as part of its own."""


class Runs:
    """All runs in the order they were started, which one is selected, and the jobs behind those in progress."""

    def __init__(self, engine: EngineClient, tell_stopped: Callable[[Job, Run], None]) -> None:
        """`tell_stopped` is called with a job that ended before it was done, and its run."""
        self._engine = engine
        self._tell_stopped = tell_stopped
        self._jobs: dict[int, Job] = {}
        self.all: tuple[Run, ...] = ()
        self.selected: int | None = None
        self.changed: Event[tuple[Run, ...]] = Event()
        self.selection_changed: Event[int | None] = Event()

    @property
    def running(self) -> Run | None:
        """The run in progress."""
        return next((run for run in self.all if not run.state.is_final), None)

    def find(self, number: int) -> Run:
        """Return a run by its number (KeyError when there is none)."""
        for run in self.all:
            if run.id == number:
                return run
        raise KeyError(number)

    def start(
        self,
        request: RunPtq | TrainQat,
        model: ModelInfo,
        dataset: DatasetInfo,
        options: RunOptions,
        curve: tuple[CurvePoint, ...] = (),
    ) -> Run:
        """Record a run and ask the engine for it; `curve` is what a training that goes on has behind it."""
        training = None
        asked = request.run if isinstance(request, TrainQat) else request
        if isinstance(request, TrainQat):
            training = TrainingRecord(request.training, curve, request.checkpoints)
        number = len(self.all) + 1
        run = Run(
            id=number,
            title=f"Run {number}",
            state=JobState.QUEUED,
            result=None,
            model=asked.model,
            data=asked.data.source,
            options=options,
            started=time.time(),
            recipe_hash=asked.recipe.sha256(),
            model_sha256=model.sha256,
            data_sha256=dataset.sha256,
            request=asked,
            training=training,
        )
        self.all = (*self.all, run)
        self.changed.emit(self.all)
        self._jobs[number] = self._engine.submit(
            request,
            on_finished=lambda job: self._finish(number, job),
            on_partial=lambda value: self._add_partial(number, value),
            on_progress=lambda progress: self._change(number, progress=progress),
            on_state=lambda job: self._follow(number, job),
        )
        return self.find(number)

    def adopt(
        self, request: RunPtq, result: RunResult, model: ModelInfo, dataset: DatasetInfo, options: RunOptions
    ) -> Run:
        """Record a run that another job has made as part of its own, and select it."""
        number = len(self.all) + 1
        run = Run(
            id=number,
            title=f"Run {number}",
            state=JobState.DONE,
            phase=SEARCHED,
            result=result,
            model=request.model,
            data=request.data.source,
            options=options,
            started=time.time(),
            recipe_hash=request.recipe.sha256(),
            model_sha256=model.sha256,
            data_sha256=dataset.sha256,
            request=request,
        )
        self.all = (*self.all, run)
        self.changed.emit(self.all)
        self.select(number)
        return run

    def load(self, runs: tuple[Run, ...]) -> None:
        """Take over runs from a project, numbered from 1; nothing is told when they are those that are here."""
        if runs != self.all:
            self.all = runs
            self.changed.emit(runs)

    def job(self, number: int) -> Job | None:
        """Return the job behind a run in progress; None once it is final."""
        return self._jobs.get(number)

    def cancel(self) -> None:
        """Ask the run in progress to stop; what it has measured is kept."""
        for job in tuple(self._jobs.values()):
            self._engine.cancel(job)

    def force_stop(self) -> None:
        """End the process of the run in progress; what it has measured is kept."""
        for job in tuple(self._jobs.values()):
            self._engine.force_stop(job)

    def select(self, number: int | None) -> None:
        """Select a run everywhere (KeyError when there is none)."""
        self.selected = None if number is None else self.find(number).id
        self.selection_changed.emit(self.selected)

    def _change(self, number: int, **values: Any) -> None:
        self.all = tuple(replace(run, **values) if run.id == number else run for run in self.all)
        self.changed.emit(self.all)

    def _follow(self, number: int, job: Job) -> None:
        if not job.state.is_final:  # the final state comes with the result, in one change
            self._change(number, state=job.state)

    def _add_partial(self, number: int, value: PtqPartial | CurvePoint) -> None:
        training = self.find(number).training
        if isinstance(value, PtqPartial):
            self._change(number, result=value.result, phase=value.phase)
        elif training is not None:
            self._change(number, training=training.with_point(value))

    def _finish(self, number: int, job: Job) -> None:
        run = self.find(number)
        training, result = run.training, run.result
        if isinstance(job.value, TrainResult) and training is not None:
            training, result = training.with_result(job.value), job.value.run
            if training.is_whole and training.folder:
                remove_checkpoint(training.folder)
        elif isinstance(job.value, RunResult):
            result = job.value
        self._jobs.pop(number, None)
        self._change(
            number,
            state=job.state,
            result=result,
            training=training,
            progress=None,
            error=job.error.sentence() if job.error else "",
        )
        if job.state is JobState.DONE:
            self.select(number)
        else:
            self._tell_stopped(job, self.find(number))
