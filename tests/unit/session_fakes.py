"""An engine that does nothing by itself, and a small model and dataset: a test decides what comes back, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.graph_types import GraphDescription
from qstudio.core.histogram import histogram_of
from qstudio.core.model_info import LayerInfo, ModelInfo, SiteInfo
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics, RunResult
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.client import Job
from qstudio.engine.messages import Failure, JobState, Progress


class FakeEngine:
    """Keeps what was asked; latest wins within a slot, as in the real ones."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.on_log: Callable[[str, str], None] | None = None
        self.on_process_died: Callable[[str, str], None] | None = None
        self.closed = False

    def submit(self, request: Any, *, slot: str = "", **callbacks: Any) -> Job:
        for older in self.jobs:
            if slot and older.slot == slot and not older.state.is_final:
                older.superseded = True
                older.state = JobState.CANCELLED
        process = "run" if type(request).__name__ in ("RunPtq", "Benchmark") else "inspect"
        job = Job(len(self.jobs), request, process, slot, **callbacks)
        self.jobs.append(job)
        return job

    def pending(self, kind: str = "") -> list[Job]:
        return [j for j in self.jobs if not j.state.is_final and kind in ("", type(j.request).__name__)]

    def one(self, kind: str) -> Job:
        [job] = self.pending(kind)
        return job

    def finish(
        self, job: Job, value: Any = None, state: JobState = JobState.DONE, error: Failure | None = None
    ) -> None:
        assert not job.state.is_final, "a job ends once"
        job.state, job.value, job.error = state, value, error
        if job.on_state is not None:
            job.on_state(job)
        if job.on_finished is not None and not job.superseded:
            job.on_finished(job)

    def fail(self, job: Job, what: str = "boom") -> None:
        self.finish(job, None, JobState.FAILED, Failure(what, "model.onnx", "Try another", "traceback"))

    def start(self, job: Job) -> None:
        job.state = JobState.RUNNING
        if job.on_state is not None:
            job.on_state(job)

    def progress(self, job: Job, done: float, total: float) -> None:
        job.progress = Progress(job.id, done, total)
        if job.on_progress is not None:
            job.on_progress(job.progress)

    def die(self, process: str) -> None:
        """End a process: its running job is KILLED (here: all of its jobs), and the session is told."""
        for job in self.pending():
            if job.process == process:
                self.finish(job, None, JobState.KILLED)
        if self.on_process_died is not None:
            self.on_process_died(process, f"The {process} process ended by itself and was started again.")

    def cancel(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self.finish(job, None, JobState.CANCELLED)
        elif job.state is JobState.RUNNING:
            job.state = JobState.CANCELLING
            if job.on_state is not None:
                job.on_state(job)

    def force_stop(self, job: Job) -> None:
        if not job.state.is_final:
            self.finish(job, None, JobState.KILLED)

    def dispatch(self) -> int:
        return 0

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        self.wake = wake

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        if not job.state.is_final:
            raise TimeoutError
        return job

    def restart(self, process: str) -> None:
        self.restarted = process

    def close(self, timeout: float = 3.0) -> None:
        self.closed = True


def layer(name: str, op_type: str = "Conv", channels: int = 8) -> LayerInfo:
    weight = SiteInfo(f"{name}.weight", "weight", name, (channels, 4, 3, 3), 0)
    activation = SiteInfo(f"{name}.out", "activation", name, (None, channels, 8, 8), 1)
    return LayerInfo(name, op_type, f"3x3, 4 -> {channels}", weight, None, activation, parameters=channels * 36)


def model(path: str = "model.onnx", sha256: str = "m1", names: tuple[str, ...] = ("conv1", "conv2", "fc")) -> ModelInfo:
    layers = tuple(layer(name, "Gemm" if name == "fc" else "Conv") for name in names)
    graph = GraphDescription("g", 17, (), {}, (), ("x",), ("y",))
    parameters = sum(item.parameters for item in layers)
    return ModelInfo(
        path, path, "onnx", sha256, 17, layers, graph, ("x",), ("y",), (None, 4, 8, 8), parameters, 4 * parameters
    )


def dataset(path: str = "digits", sha256: str = "d1") -> DatasetInfo:
    return DatasetInfo(
        path, path, "digits", sha256, {"train": 1437, "test": 360}, (1, 8, 8), (8, 8), "float32", "uint8", 10, (), True,
        "x / 16",
    )  # fmt: skip


def statistics(site: str) -> SiteStatistics:
    values = np.linspace(-1, 1, 11, dtype=np.float32)
    return SiteStatistics(site, histogram_of(values), np.array([-1.0], np.float32), np.array([1.0], np.float32))


def result(recipe: Recipe, top1: float | None = None) -> RunResult:
    empty = RunResult(recipe, recipe.sha256(), "m1", "d1", 0, "cpu", 512)
    return empty if top1 is None else replace(empty, simulated=Metrics(360, top1))
