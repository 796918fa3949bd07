"""A model, data and an engine that answers from records, so that panels can be tested without torch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qstudio.core.affine import encode
from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.graph_types import GraphDescription
from qstudio.core.histogram import histogram_of
from qstudio.core.inspection import DepthErrors, LayerNoise, RecipeAccuracy
from qstudio.core.model_info import LayerInfo, ModelInfo, SiteInfo
from qstudio.core.recipe import Recipe
from qstudio.core.results import Device, Latency, LatencyPair, LayerResult, Metrics, Parity, RunResult, SizeBytes
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.client import Job
from qstudio.engine.messages import (
    ActivationStatistics,
    ErrorOverDepth,
    Failure,
    FloatAccuracy,
    JobState,
    LayerPreview,
    ListDevices,
    LookAtSamples,
    OpenDataset,
    OpenModel,
    PreviewAccuracy,
    Progress,
    RunPtq,
    SamplePage,
    TrainQat,
    WeightPreview,
    WeightStatistics,
)

PROCESS = {"RunPtq": "run", "TrainQat": "run", "Benchmark": "run"}


def make_model(layers: int = 6, path: str = "/models/fake.onnx") -> ModelInfo:
    """Return a model: an input, convolutions, an Add that shares an encoding, a Gemm, one layer not supported."""
    rng = np.random.default_rng(0)
    made = [
        LayerInfo("x", "Input", "1 x 8 x 8", activation=SiteInfo("x", "activation", "x", (None, 1, 8, 8), 1)),
    ]
    for number in range(layers):
        name = f"block{number}.conv"
        channels = int(rng.integers(4, 64))
        made.append(
            LayerInfo(
                name,
                "Conv",
                f"3x3, 8 -> {channels}",
                SiteInfo(f"{name}.weight", "weight", name, (channels, 8, 3, 3), 0),
                None,
                SiteInfo(f"{name}.out", "activation", name, (None, channels, 8, 8), 1),
                parameters=channels * 72,
                macs=channels * 72 * 64,
            )
        )
    made.append(LayerInfo("add", "Add", "", shares_with="block0.conv"))
    made.append(
        LayerInfo(
            "fc",
            "Gemm",
            "32 -> 10",
            SiteInfo("fc.weight", "weight", "fc", (10, 32), 0),
            None,
            SiteInfo("fc.out", "activation", "fc", (None, 10), 1),
            parameters=330,
            macs=320,
        )
    )
    parameters = sum(layer.parameters for layer in made)
    graph = GraphDescription("fake", 17, (), {}, (), ("x",), ("y",))
    return ModelInfo(
        "fake",
        path,
        "onnx",
        "0" * 64,
        17,
        tuple(made),
        graph,
        ("x",),
        ("y",),
        (None, 1, 8, 8),
        parameters,
        4 * parameters,
    )


def make_statistics(site: SiteInfo, seed: int = 0) -> SiteStatistics:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.1, 4000).astype(np.float32)
    channels = int(site.shape[site.channel_axis or 0] or 1)
    return SiteStatistics(
        site.id,
        histogram_of(values),
        np.full(channels, values.min(), np.float32),
        np.full(channels, values.max(), np.float32),
    )


def make_result(recipe: Recipe, model: ModelInfo, **changes: Any) -> RunResult:
    """Return what a finished run brings."""
    bits = recipe.default.weight_bits
    latency = Latency(1.0, 0.9, 1.2, 2, 1, 50, 10)
    result = RunResult(
        recipe,
        recipe.sha256(),
        model.sha256,
        "d" * 64,
        0,
        "cpu",
        512,
        Metrics(1000, 97.0, 99.9, 0.1, 100.0, (95.8, 97.9)),
        Metrics(1000, 96.6, 99.9, 0.1, 99.2, (95.3, 97.6), 6, 2),
        Metrics(1000, 96.5, 99.9, 0.1, 99.1, (95.2, 97.5), 7, 2),
        Parity(99.9, 1, 99.8, 99.8, 1000),
        SizeBytes(4 * model.parameters, bits * model.parameters // 8, 9000),
        LatencyPair(latency, replace(latency, median=0.5, p10=0.4, p90=0.7), "Test CPU", ("avx2",)),
        tuple(
            LayerResult(layer.name, layer.op_type, (("weight", "int8 symmetric"),), 40.0, 0.9999, 15.0 + 5 * n, 0.999)
            for n, layer in enumerate(model.layers)
            if layer.weight is not None
        ),
        seconds=3.2,
    )
    return replace(result, **changes)


def make_preview(request: LayerPreview, model: ModelInfo) -> WeightPreview:
    weight = model.layer(request.layer).weight
    assert weight is not None
    statistics = make_statistics(weight)
    encoding = encode(request.scheme, statistics.histogram.minimum, statistics.histogram.maximum, None)
    return WeightPreview(
        request.layer,
        request.scheme,
        statistics.histogram,
        6.0 * request.scheme.bits - 4.0,
        0.999,
        np.full(int(weight.shape[0] or 1), 6.0 * request.scheme.bits - 4.0),
        np.asarray(encoding.low),
        np.asarray(encoding.high),
    )


def make_accuracy(request: PreviewAccuracy, top1: float = 96.5) -> RecipeAccuracy:
    """Return what a preview brings: 5 of 1,000 samples become wrong, 1 right."""
    return RecipeAccuracy(
        request.recipe.sha256(),
        Metrics(1000, top1, 99.9, 0.1, 99.2, (top1 - 1.2, top1 + 1.2), 5, 1),
        Metrics(1000, 96.9, 99.9, 0.1, 100.0, (95.8, 97.9)),
        True,
    )


def make_depth(request: ErrorOverDepth, model: ModelInfo) -> DepthErrors:
    """Return noise that grows from layer to layer."""
    encoded = [layer for layer in model.layers if layer.activation is not None]
    return DepthErrors(
        request.preview.recipe.sha256(),
        128,
        tuple(
            LayerNoise(layer.name, layer.activation.id, 1.0, 0.001 * (n + 1), 0.0005, 0.0001 * (n + 1))
            for n, layer in enumerate(encoded)
            if layer.activation is not None
        ),
    )


DATASET = DatasetInfo(
    "fake digits", "digits", "digits", "d" * 64, {"test": 60, "train": 600}, (1, 8, 8), (8, 8), "float32", "uint8",
    10, tuple("0123456789"), True, "uint8 / 255", ("One sentence to be seen.",),
)  # fmt: skip

DEVICES = (
    Device("cpu", "CPU", True),
    Device("cuda:0", "CUDA", False, "no NVIDIA driver was found"),
)


def make_page(indices: tuple[int, ...], labelled: bool = True) -> SamplePage:
    rng = np.random.default_rng(1)
    stored = tuple(rng.integers(0, 255, (8, 8)).astype(np.uint8) for _ in indices)
    return SamplePage(
        indices,
        stored,
        tuple((image[None] / 255).astype(np.float32) for image in stored),
        tuple((i % 10) if labelled else None for i in indices),
        tuple((i % 10) if i % 5 else (i + 1) % 10 for i in indices),
        tuple(0.9 for _ in indices),
        tuple("0123456789"),
    )


class RecordedEngine:
    """Answers every request but `RunPtq` and `TrainQat` at the next dispatch; a test tells what becomes of a run."""

    def __init__(self, model: ModelInfo | None = None) -> None:
        self.model = model or make_model()
        self.dataset = DATASET
        self.float_metrics = Metrics(60, 97.0, 99.9, 0.1, 100.0, (90.0, 99.5))
        self.labelled = True
        self.asked: list[Any] = []
        self.on_log: Callable[[str, str], None] | None = None
        self.on_process_died: Callable[[str, str], None] | None = None
        self.closed = False
        self.runs: list[Job] = []
        self._numbers = itertools.count(1)
        self._queue: list[Job] = []
        self._slots: dict[str, Job] = {}
        self._wake: Callable[[], None] | None = None

    def submit(self, request: Any, *, slot: str = "", **callbacks: Any) -> Job:
        kind = type(request).__name__
        job = Job(next(self._numbers), request, PROCESS.get(kind, "inspect"), slot, **callbacks)
        self.asked.append(request)
        if slot:
            older = self._slots.get(slot)
            if older is not None and not older.state.is_final:
                older.superseded = True
                older.state = JobState.CANCELLED
            self._slots[slot] = job
        if isinstance(request, (RunPtq, TrainQat)):
            self.runs.append(job)
        else:
            self._queue.append(job)
            self._call()
        return job

    def _call(self) -> None:
        if self._wake is not None:
            self._wake()

    def answer(self, request: Any) -> Any:
        match request:
            case OpenModel():
                if "broken" in request.path:
                    return Failure("the file is truncated", request.path, "Get it again", "Traceback ...", True)
                return replace(self.model, path=request.path, name=request.path.rsplit("/", 1)[-1])
            case WeightStatistics():
                return tuple(
                    make_statistics(layer.weight, n) for n, layer in enumerate(self.model.layers) if layer.weight
                )
            case OpenDataset():
                return self.dataset
            case LookAtSamples():
                return make_page(request.indices, self.labelled)
            case FloatAccuracy():
                return self.float_metrics
            case ActivationStatistics():
                return tuple(
                    make_statistics(layer.activation, n)
                    for n, layer in enumerate(self.model.layers)
                    if layer.activation
                )
            case LayerPreview():
                return make_preview(request, self.model)
            case ListDevices():
                return DEVICES
            case PreviewAccuracy():
                return make_accuracy(request)
            case ErrorOverDepth():
                return make_depth(request, self.model)
        raise AssertionError(request)

    def dispatch(self) -> int:
        waiting, self._queue = self._queue, []
        for job in waiting:
            if not job.state.is_final:
                value = self.answer(job.request)
                failed = isinstance(value, Failure)
                self.finish(
                    job,
                    None if failed else value,
                    JobState.FAILED if failed else JobState.DONE,
                    value if failed else None,
                )
        return len(waiting)

    def finish(
        self, job: Job, value: Any = None, state: JobState = JobState.DONE, error: Failure | None = None
    ) -> None:
        self.set_state(job, state, value, error)
        if job.on_finished is not None and not job.superseded:
            job.on_finished(job)

    def set_state(self, job: Job, state: JobState, value: Any = None, error: Failure | None = None) -> None:
        job.state, job.value, job.error = state, value, error
        if job.on_state is not None:
            job.on_state(job)

    def progress(self, job: Job, done: float, total: float, note: str = "", seconds_left: float | None = None) -> None:
        job.progress = Progress(job.id, done, total, note, seconds_left)
        if job.on_progress is not None:
            job.on_progress(job.progress)

    def cancel(self, job: Job) -> None:
        if job in self._queue:
            self._queue.remove(job)
            self.set_state(job, JobState.CANCELLED)
        elif not job.state.is_final:
            self.set_state(job, JobState.CANCELLING)

    def force_stop(self, job: Job) -> None:
        self.finish(job, None, JobState.KILLED, Failure("the run was stopped by force"))

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        self._wake = wake
        if wake is not None and self._queue:
            wake()

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        start = time.monotonic()
        while not job.state.is_final:
            self.dispatch()
            if timeout is not None and time.monotonic() - start > timeout:
                raise TimeoutError
        return job

    def restart(self, process: str) -> None:
        self.asked.append(process)

    def close(self, timeout: float = 3.0) -> None:
        self.closed = True
