"""Measure trained weights and encodings as PTQ measures its own: simulate, export, verify, time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qstudio.backends.qdq import export_qdq
from qstudio.backends.save import save_model
from qstudio.backends.timing import measure_pair
from qstudio.core.context import JobContext
from qstudio.core.results import RunResult
from qstudio.data.dataset import Dataset
from qstudio.data.samples import Samples
from qstudio.graph.load import LoadedModel
from qstudio.graph.opset import raise_opset
from qstudio.quant.evaluate import Report, float_predictions, metrics_of, predict
from qstudio.quant.keep import samples_key
from qstudio.quant.layer_errors import layer_results
from qstudio.quant.network import Network
from qstudio.quant.ptq import ERROR_SAMPLES, OnPhase, PtqOptions, size_bytes
from qstudio.quant.qat.train import Trained
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.verify import verify

PHASES = ("Evaluating the float model", "Simulating", "Comparing layers", "Exporting", "Verifying", "Measuring latency")


def measure(
    model: LoadedModel,
    network: Network,
    dataset: Dataset,
    samples: Samples,
    trained: Trained,
    result: RunResult,
    options: PtqOptions,
    ctx: JobContext,
    on_phase: OnPhase | None = None,
) -> RunResult:
    """Return the result of a run with trained weights and encodings.

    Args:
        model: As opened; its latency is compared with.
        network: As prepared and trained.
        dataset: What is evaluated on.
        samples: Which of it.
        trained: Weights and encodings.
        result: With everything that was known before.
        options: Export path, timing.
        ctx: Told the progress; stops between batches.
        on_phase: Told the result after "simulate", "export", "verify" and "time".

    Raises:
        UserError: The file cannot be written.
        JobCancelled: The run was stopped.
    """
    began = time.perf_counter() - result.seconds
    split, chosen = samples.evaluation, samples.evaluation_indices

    def told(phase: str, result: RunResult) -> RunResult:
        result = replace(result, seconds=time.perf_counter() - began)
        if on_phase is not None:
            on_phase(phase, result)
        return result

    simulated = SimulatedModel(network, trained.encodings, trained.values, ordered=True, threads=options.threads)
    float_scores = float_predictions(network, split, chosen, samples_key(dataset, split, chosen), _report(ctx, 0))
    scores = predict(network, simulated.run, split, chosen, _report(ctx, 1))
    layers = layer_results(simulated, trained.encodings, split, chosen[:ERROR_SAMPLES], _report(ctx, 2))
    result = told(
        "simulate",
        replace(
            result,
            float=metrics_of(network, float_scores, split, chosen, None),
            simulated=metrics_of(network, scores, split, chosen, float_scores),
            layers=layers,
        ),
    )
    with tempfile.TemporaryDirectory(prefix="qstudio-") as folder:
        _report(ctx, 3)(0, 1)
        path = Path(options.export_path) if options.export_path else Path(folder) / "model.onnx"
        exported = export_qdq(
            network.proto,
            network.layers,
            simulated.activations,
            simulated.weights,
            raise_opset=raise_opset,
            weight_values=simulated.weight_values,
        )
        file_bytes = save_model(exported, path)
        sizes = size_bytes(network, result.recipe, file_bytes)
        result = told("export", replace(result, export_path=options.export_path, size_bytes=sizes))
        verified = verify(exported, simulated, scores, split, chosen, threads=options.threads, report=_report(ctx, 4))
        result = told(
            "verify",
            replace(
                result,
                parity=verified.parity,
                exported=metrics_of(network, verified.exported_scores, split, chosen, float_scores),
                notes=(*result.notes, *verified.notes),
            ),
        )
        if options.measure_latency:
            _report(ctx, 5)(0, 1)
            threads = options.threads or os.cpu_count() or 1
            pair = measure_pair(model.proto, path, options.latency_batch, threads, ctx=_Unshown(ctx))
            result = told("time", replace(result, latency_ms=pair))
    return replace(result, seconds=time.perf_counter() - began)


def _report(ctx: JobContext, phase: int) -> Report:
    note: str = PHASES[phase]
    report: Callable[[int, int], None] = lambda done, total: ctx.report(  # noqa: E731
        phase + done / max(total, 1), len(PHASES), note
    )
    return report


class _Unshown:
    """A context that stops when the run is stopped, and whose progress is not shown."""

    def __init__(self, ctx: JobContext) -> None:
        self._ctx = ctx

    def report(self, done: float, total: float, note: str = "") -> None:
        """Check for cancellation."""
        self._ctx.check()

    def partial(self, value: object) -> None:
        """Drop the value."""

    def check(self) -> None:
        """Check for cancellation."""
        self._ctx.check()
