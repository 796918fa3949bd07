"""Jobs that measure: float accuracy, activation statistics, latency, and what there is to run on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.core.context import JobContext
from qstudio.core.results import Device, Latency, Metrics
from qstudio.core.statistics import SiteStatistics
from qstudio.data.dataset import Dataset
from qstudio.data.samples import Samples, choose_samples
from qstudio.engine.cores import available_cores
from qstudio.engine.jobs.datasets import check_fit
from qstudio.engine.jobs.resident import OpenedModel, opened_calibration, opened_dataset, opened_model
from qstudio.engine.messages import ActivationStatistics, Benchmark, DataSpec, FloatAccuracy, ListDevices

_STREAMED_BATCHES = 4
"""Batches between two intermediate metrics: 256 small images, about 0.1 s of ResNet-20 on one core."""


def float_accuracy(request: FloatAccuracy, ctx: JobContext) -> Metrics:
    """Measure the float model on the evaluation samples; streams the metrics so far.

    The samples, their order and the batches are those of a PTQ run with the same options, so the figures are the same.

    Raises:
        UserError: Model or data cannot be used, or do not fit.
    """
    from qstudio.quant.evaluate import batch_size, keep_float_predictions, metrics_of, predict
    from qstudio.quant.keep import samples_key
    from qstudio.quant.network import network_for

    model, _, samples = _ready(
        request.model,
        request.data,
        request.calibration_data,
        request.calibration_samples,
        request.eval_samples,
        request.seed,
        request.calibration_choice,
    )
    network = network_for(model.loaded)
    split, chosen = samples.evaluation, samples.evaluation_indices
    step = batch_size(network, split) * _STREAMED_BATCHES
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(chosen), step):
        ctx.report(start, len(chosen), "Evaluating the float model")
        parts.append(
            predict(network, network.executor.run, split, chosen[start : start + step], lambda done, total: ctx.check())
        )
        if start + step < len(chosen):
            ctx.partial(metrics_of(network, np.concatenate(parts), split, chosen[: start + step], None))
    scores = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    if parts:
        keep_float_predictions(network, samples_key(opened_dataset(request.data), split, chosen), scores)
    return metrics_of(network, scores, split, chosen, None)


def activation_statistics(request: ActivationStatistics, ctx: JobContext) -> tuple[SiteStatistics, ...]:
    """Run samples through the float model once and return the statistics of every activation site.

    Raises:
        UserError: Model or data cannot be used, or do not fit.
    """
    from qstudio.quant.calibrate import activation_statistics as collect
    from qstudio.quant.keep import samples_key
    from qstudio.quant.network import network_for

    model, source, samples = _ready(
        request.model,
        request.data,
        request.calibration_data,
        request.calibration_samples,
        request.eval_samples,
        request.seed,
        request.calibration_choice,
    )
    split, chosen = samples.calibration, samples.calibration_indices
    if request.of == "evaluation":
        source, split, chosen = opened_dataset(request.data), samples.evaluation, samples.evaluation_indices
    statistics = collect(
        network_for(model.loaded),
        split,
        chosen,
        samples_key(source, split, chosen),
        lambda done, total: ctx.report(done, total, "Collecting statistics"),
    )
    return tuple(statistics.values())


def _ready(
    path: str,
    data: DataSpec,
    calibration_data: DataSpec | None,
    calibration_samples: int,
    eval_samples: int | None,
    seed: int,
    choice: str,
) -> tuple[OpenedModel, Dataset, Samples]:
    """Return the model, the dataset that calibration samples come from, and the choice of samples."""
    model = opened_model(path)
    model.need_runnable()
    dataset = opened_dataset(data)
    check_fit(dataset, model.info)
    other = opened_calibration(calibration_data, dataset, seed)
    if other is not None:
        check_fit(other, model.info)
    return model, other or dataset, choose_samples(dataset, calibration_samples, eval_samples, seed, other, choice)


def benchmark(request: Benchmark, ctx: JobContext) -> Latency:
    """Measure the latency of a model file on onnxruntime.

    Raises:
        UserError: The model does not load or run, or a number is not positive.
    """
    from qstudio.backends.timing import measure_latency

    model = opened_model(request.model).loaded.proto
    threads = request.threads or available_cores()
    return measure_latency(model, request.batch, threads, request.runs, request.warmup, ctx)


def list_devices(request: ListDevices, ctx: JobContext) -> tuple[Device, ...]:
    """Return every place to run on with the reason where it is not available."""
    from qstudio.backends.devices import list_devices as found

    return found()
