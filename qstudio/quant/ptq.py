"""Post-training quantization from recipe to result: calibrate, simulate, export, verify, time."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import qstudio
from qstudio.backends.qdq import export_qdq
from qstudio.backends.save import save_model
from qstudio.backends.timing import measure_pair
from qstudio.core.context import JobContext, SilentContext
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, check_refinements
from qstudio.core.results import RunResult, SizeBytes
from qstudio.core.size import layer_bytes
from qstudio.data.checks import check_against_model
from qstudio.data.dataset import Dataset
from qstudio.data.samples import Samples, choose_samples
from qstudio.graph.load import LoadedModel
from qstudio.graph.opset import raise_opset
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import Encodings, encodings_for
from qstudio.quant.evaluate import Report, float_predictions, metrics_of, predict
from qstudio.quant.keep import samples_key
from qstudio.quant.layer_errors import layer_results
from qstudio.quant.network import Network, network_for
from qstudio.quant.refine.run import refine_network, refine_values
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.statistics import nonfinite_notes
from qstudio.quant.verify import verify

ERROR_SAMPLES = 256
"""Samples on which layers are compared with float."""

OnPhase = Callable[[str, RunResult], None]
"""Called after "calibrate", "simulate", "export", "verify" and "time" with the result so far."""


@dataclass(frozen=True)
class PtqOptions:
    """What a run needs besides model, data and recipe; the fields are those of `qstudio.engine.messages.RunPtq`."""

    calibration_samples: int = 512
    eval_samples: int | None = None
    """None = all."""
    seed: int = 0
    device: str = "cpu"
    export_path: str = ""
    """Empty = the export is measured and not kept."""
    measure_latency: bool = True
    latency_batch: int = 1
    threads: int = 0
    """Of onnxruntime's sessions; 0 = all cores."""


def run_ptq(
    model: LoadedModel,
    dataset: Dataset,
    recipe: Recipe,
    options: PtqOptions | None = None,
    *,
    calibration_dataset: Dataset | None = None,
    ctx: JobContext | None = None,
    on_phase: OnPhase | None = None,
) -> RunResult:
    """Quantize a model after training and measure everything about it.

    The same model, data, recipe, options and processor give the same numbers (times apart): samples are chosen by
    seed, batches have a fixed size and order, and what refinements draw at random follows from the seed.

    Args:
        model: The opened model; not changed.
        dataset: What is evaluated on, and calibrated with unless there is a calibration dataset.
        recipe: All schemes.
        options: Samples, seed, device, export, timing.
        calibration_dataset: Other data to calibrate with.
        ctx: Told the progress; stops the run between batches.
        on_phase: Told the result so far after each phase.

    Raises:
        UserError: Model, data, recipe or options cannot be used.
        JobCancelled: The run was stopped; nothing is left at the export path that was not there before.
    """
    options = options or PtqOptions()
    started = time.perf_counter()
    recipe = replace(recipe, refinements=check_refinements(recipe.refinements))
    progress = _Progress(ctx or SilentContext(), options.measure_latency, recipe)
    network = network_for(model, "fold" in recipe.refinements, options.device)
    check_network(network, dataset)
    samples = choose_samples(
        dataset, options.calibration_samples, options.eval_samples, options.seed, calibration_dataset
    )
    chosen = samples.calibration_indices
    network = refine_network(network, recipe, samples.calibration, chosen, options.seed, progress.context("prepare"))
    result = RunResult(
        recipe=recipe,
        recipe_hash=recipe.sha256(),
        model_hash=model.sha256,
        data_hash=_data_hash(dataset, calibration_dataset),
        seed=options.seed,
        device=options.device,
        calibration_samples=len(samples.calibration_indices),
        versions=versions(),
        notes=(*network.notes, *samples.notes),
    )

    def finish(phase: str, **fields: object) -> RunResult:
        updated = replace(result, seconds=time.perf_counter() - started, **fields)  # type: ignore[arg-type]
        if on_phase is not None:
            on_phase(phase, updated)
        return updated

    statistics_key = samples_key(calibration_dataset or dataset, samples.calibration, samples.calibration_indices)
    statistics = activation_statistics(
        network, samples.calibration, samples.calibration_indices, statistics_key, progress.part("calibrate")
    )
    encodings = encodings_for(network.layers, recipe, statistics, network.weights())
    result = finish("calibrate", notes=(*result.notes, *nonfinite_notes(tuple(statistics.values()))))
    refined = refine_values(
        network, recipe, encodings, samples.calibration, chosen, options.seed, progress.context("refine")
    )
    encodings, result = refined.encodings, replace(result, notes=(*result.notes, *refined.notes))

    simulated = SimulatedModel(network, encodings, refined.weight_values, ordered=True, threads=options.threads)
    scores, result = _simulate(dataset, samples, simulated, encodings, result, progress)
    result = finish("simulate")

    with tempfile.TemporaryDirectory(prefix="qstudio-") as folder:
        progress.part("export")(0, 1)
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
        result = finish("export", export_path=options.export_path, size_bytes=size_bytes(network, recipe, file_bytes))

        chosen = samples.evaluation_indices
        verified = verify(
            exported,
            simulated,
            scores,
            samples.evaluation,
            chosen,
            threads=options.threads,
            report=progress.part("verify"),
        )
        float_scores = float_predictions(network, samples.evaluation, chosen, _evaluation_key(dataset, samples))
        result = finish(
            "verify",
            parity=verified.parity,
            exported=metrics_of(network, verified.exported_scores, samples.evaluation, chosen, float_scores),
            notes=(*result.notes, *verified.notes),
        )

        if options.measure_latency:
            progress.part("time")(0, 1)
            threads = options.threads or os.cpu_count() or 1
            pair = measure_pair(model.proto, path, options.latency_batch, threads, ctx=progress.quiet)
            result = finish("time", latency_ms=pair)
    progress.part("done")(1, 1)
    return replace(result, seconds=time.perf_counter() - started)


def _simulate(
    dataset: Dataset,
    samples: Samples,
    model: SimulatedModel,
    encodings: Encodings,
    result: RunResult,
    progress: _Progress,
) -> tuple[np.ndarray, RunResult]:
    """Return (simulated scores, result with the metrics of float and simulation and the error of every layer)."""
    network, split, chosen = model.network, samples.evaluation, samples.evaluation_indices
    float_scores = float_predictions(network, split, chosen, _evaluation_key(dataset, samples), progress.part("float"))
    scores = predict(network, model.run, split, chosen, progress.part("simulate"))
    layers = layer_results(model, encodings, split, chosen[:ERROR_SAMPLES], progress.part("compare"))
    return scores, replace(
        result,
        float=metrics_of(network, float_scores, split, chosen, None),
        simulated=metrics_of(network, scores, split, chosen, float_scores),
        layers=layers,
    )


def check_network(network: Network, dataset: Dataset) -> None:
    """Refuse data that the model cannot take.

    Raises:
        UserError: Type, shape or labels do not fit.
    """
    tensors = network.description.tensors
    given = tensors.get(network.inputs[0]) if network.inputs else None
    output = tensors.get(network.outputs[0]) if network.outputs else None
    dtype = {"float": "float32", "double": "float64"}.get(given.dtype, given.dtype) if given is not None else "float32"
    check_against_model(
        dataset,
        given.shape or () if given is not None else (),
        dtype,
        output.shape or () if output is not None else (),
    )


def size_bytes(network: Network, recipe: Recipe, file_bytes: int | None = None) -> SizeBytes:
    """Return the storage of the network under a recipe: codes, scales, zero points, and what stays float."""
    float_bytes = 4 * network.description.parameters
    quantized = float_bytes
    for layer in network.layers:
        if layer.weight is not None:
            quantized -= 4 * int(np.prod([n or 1 for n in layer.weight.shape]))
        quantized += layer_bytes(layer, recipe.settings(layer.name))
    return SizeBytes(float_bytes, quantized, file_bytes)


def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of everything that numbers depend on."""
    return (
        ("qstudio", qstudio.__version__),
        ("python", platform.python_version()),
        ("numpy", np.__version__),
        ("torch", str(torch.__version__)),  # a TorchVersion would make whoever unpickles it import torch
        ("onnx", onnx.__version__),
        ("onnxruntime", onnxruntime.__version__),
    )


def _data_hash(dataset: Dataset, calibration: Dataset | None) -> str:
    """Return a hash of all the data of a run and of how they are read."""
    digest = hashlib.sha256()
    for part in (dataset, calibration):
        digest.update(b"-" if part is None else f"{part.sha256}{part.preprocess!r}".encode())
    return digest.hexdigest()


def _evaluation_key(dataset: Dataset, samples: Samples) -> str:
    return samples_key(dataset, samples.evaluation, samples.evaluation_indices)


class _Progress:
    """Turns the progress of each phase into the progress of the run."""

    SHARES = (
        ("prepare", 0.05, "Refining the network"),
        ("calibrate", 0.08, "Collecting statistics"),
        ("refine", 0.3, "Refining the weights"),
        ("float", 0.25, "Evaluating the float model"),
        ("simulate", 0.3, "Evaluating the quantized model"),
        ("compare", 0.04, "Comparing layers"),
        ("export", 0.01, "Exporting"),
        ("verify", 0.32, "Running the export in onnxruntime"),
        ("time", 0.1, "Measuring latency"),
        ("done", 0.0, "Done"),
    )
    """(phase, share of the whole, note); shares as measured on ResNet-20 with 10,000 images."""

    LEARNING = ("adaround", "brecq")
    """Refinements that take some ten times as long as the rest of the run."""

    def __init__(self, ctx: JobContext, measure_latency: bool, recipe: Recipe) -> None:
        self._ctx = ctx
        chosen = {text.partition(":")[0] for text in recipe.refinements}
        stages = {REFINEMENTS[name].stage for name in chosen}
        there = {"prepare": "network" in stages, "refine": "values" in stages, "time": measure_latency}
        factor = {"refine": 30.0} if chosen.intersection(self.LEARNING) else {}
        self._shares = [(p, s * factor.get(p, 1.0), n) for p, s, n in self.SHARES if there.get(p, True)]
        self._total = sum(share for _, share, _ in self._shares)
        self.quiet = _Checked(ctx)

    def part(self, phase: str) -> Report:
        """Return the report function of one phase; it raises JobCancelled when the run is to stop."""
        before = 0.0
        for name, share, note in self._shares:
            if name == phase:
                return lambda done, total: self._ctx.report(
                    (before + share * done / max(total, 1)) / self._total, 1.0, note
                )
            before += share
        raise KeyError(phase)

    def context(self, phase: str) -> JobContext:
        """Return the context of one phase that words its own notes; a phase that is left out only checks."""
        before = 0.0
        for name, share, _ in self._shares:
            if name == phase:
                return _Within(self._ctx, before / self._total, share / self._total)
            before += share
        return self.quiet


class _Checked:
    """A context whose progress is not shown, but which stops when the run is stopped."""

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


class _Within(_Checked):
    """A context whose progress is a stretch of the run's."""

    def __init__(self, ctx: JobContext, before: float, share: float) -> None:
        super().__init__(ctx)
        self._before, self._share = before, share

    def report(self, done: float, total: float, note: str = "") -> None:
        """Tell the progress of the run."""
        self._ctx.report(self._before + self._share * done / max(total, 1e-9), 1.0, note)
