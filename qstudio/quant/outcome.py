"""The outcome of a run: what encodings and values do to a network, simulated, exported, verified and timed."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

import qstudio
from qstudio.backends.ort import Model
from qstudio.backends.qdq import not_exported
from qstudio.backends.save import save_model
from qstudio.backends.timing import latency_pair, measure_in_turns
from qstudio.core.affine import Encoding
from qstudio.core.exchange import SiteEncodings
from qstudio.core.recipe import Recipe
from qstudio.core.results import RunResult, SizeBytes
from qstudio.core.size import layer_bytes
from qstudio.core.storage import INT8
from qstudio.data.dataset import Dataset
from qstudio.data.samples import Samples
from qstudio.graph.load import LoadedModel
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import float_predictions, metrics_of, predict
from qstudio.quant.keep import samples_key
from qstudio.quant.layer_errors import layer_results
from qstudio.quant.network import Network
from qstudio.quant.predictions import predictions_of
from qstudio.quant.progress import RunProgress
from qstudio.quant.prune.sparsity import sparse_saving, whole_sparsity, with_sparsity
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.simulation_time import simulation_latency
from qstudio.quant.storage import exported_model, with_other_storage
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
    storage: str = INT8
    """How the file stores weights below 8 bits; see `qstudio.core.storage`."""
    calibration_choice: str = "random"
    """How calibration samples are chosen; see `qstudio.core.sample_choice`."""


def measure(
    model: LoadedModel,
    network: Network,
    dataset: Dataset,
    samples: Samples,
    encodings: Encodings,
    values: Mapping[str, NDArray[np.float32]],
    result: RunResult,
    options: PtqOptions,
    progress: RunProgress,
    on_phase: OnPhase | None = None,
    original: Network | None = None,
) -> RunResult:
    """Return the result of a run whose encodings and values are known: the same for PTQ and for training.

    Args:
        model: As opened; its latency is compared with.
        network: As prepared: pruned, folded, refined.
        dataset: What is evaluated on.
        samples: Which of it.
        encodings: Of weights and activations.
        values: Weights and biases that are not the network's own, before rounding, by initializer.
        result: With everything that was known before; its seconds count on.
        options: Export path, timing.
        progress: Told of every phase; stops between batches.
        on_phase: Told the result after "simulate", "export", "verify" and "time".
        original: The network before it was pruned, whose metrics and size are those of float; None = `network`.

    Raises:
        UserError: The file cannot be written.
        JobCancelled: The run was stopped; nothing is left at the export path that was not there before.
    """
    began = time.perf_counter() - result.seconds
    original = original or network
    split, chosen = samples.evaluation, samples.evaluation_indices

    def told(phase: str, **fields: object) -> RunResult:
        updated = replace(result, seconds=time.perf_counter() - began, **fields)  # type: ignore[arg-type]
        if on_phase is not None:
            on_phase(phase, updated)
        return updated

    simulated = SimulatedModel(network, encodings, values, ordered=True, threads=options.threads)
    float_scores = float_predictions(
        original, split, chosen, samples_key(dataset, split, chosen), progress.part("float")
    )
    scores = predict(network, simulated.run, split, chosen, progress.part("simulate"))
    layers = layer_results(simulated, encodings, split, chosen[:ERROR_SAMPLES], progress.part("compare"))
    layers = with_sparsity(layers, original, simulated, result.recipe)
    sparsity, pruning_notes = whole_sparsity(original, simulated, result.recipe)
    result = told(
        "simulate",
        float=metrics_of(network, float_scores, split, chosen, None),
        simulated=metrics_of(network, scores, split, chosen, float_scores),
        layers=layers,
        predictions=predictions_of(network, float_scores, scores, split, chosen, dataset.class_names),
        notes=(*result.notes, *pruning_notes),
        sparsity=sparsity,
    )
    with tempfile.TemporaryDirectory(prefix="qstudio-") as folder:
        progress.part("export")(0, 1)
        path = Path(options.export_path) if options.export_path else Path(folder) / "model.onnx"
        exported = exported_model(simulated, options.storage)
        file_bytes = save_model(exported, path)
        other = Path(folder) / "other.onnx"
        storage = with_other_storage(simulated, options.storage, file_bytes, other)
        sizes = size_bytes(network, result.recipe, file_bytes)
        saved = sparse_saving(simulated, result.recipe)
        sparse = None if saved is None else sizes.quantized - saved
        sizes = replace(sizes, float=4 * original.description.parameters, sparse=sparse)
        float_sites = not_exported(network.layers, simulated.others)
        result = told(
            "export",
            export_path=options.export_path,
            size_bytes=sizes,
            storage=storage,
            encodings=site_encodings(network, simulated),
            notes=(*result.notes, *float_sites),
        )
        report = progress.part("verify")
        verified = verify(exported, simulated, scores, split, chosen, threads=options.threads, report=report)
        result = told(
            "verify",
            parity=verified.parity,
            exported=metrics_of(network, verified.exported_scores, split, chosen, float_scores),
            notes=(*result.notes, *verified.notes),
        )
        if options.measure_latency:
            progress.part("time")(0, 1)
            threads = options.threads or os.cpu_count() or 1
            timed: list[Model] = [model.proto, path, *([other] if storage is not None else [])]
            latencies = measure_in_turns(timed, options.latency_batch, threads, ctx=progress.quiet)
            pair = latency_pair(
                latencies[0],
                latencies[1],
                path,
                float_model=original.proto,
                macs={layer.name: layer.macs for layer in original.layers if layer.macs},
                simulated=simulation_latency(simulated, split, chosen, options.latency_batch, progress.quiet),
                ctx=progress.quiet,
            )
            if storage is not None:
                storage = storage.with_latency(latencies[1].median, latencies[2].median)
            result = told("time", latency_ms=pair, storage=storage)
    progress.part("done")(1, 1)
    return replace(result, seconds=time.perf_counter() - began)


def size_bytes(network: Network, recipe: Recipe, file_bytes: int | None = None) -> SizeBytes:
    """Return the storage of the network under a recipe: codes, scales, zero points, and what stays float."""
    float_bytes = 4 * network.description.parameters
    quantized = float_bytes
    for layer in network.layers:
        if layer.weight is not None:
            quantized -= 4 * int(np.prod([n or 1 for n in layer.weight.shape]))
        quantized += layer_bytes(layer, recipe.settings(layer.name))
    return SizeBytes(float_bytes, quantized, file_bytes)


def site_encodings(network: Network, simulated: SimulatedModel) -> SiteEncodings:
    """Return scale and zero point of every affine tensor of a simulated network, as its export writes them."""
    activations: dict[str, Encoding] = {}
    for layer in network.layers:
        site = layer.activation
        if site is not None and site.id in simulated.activations:
            activations |= dict.fromkeys(site.quantized_at or (site.id,), simulated.activations[site.id])
    return SiteEncodings(dict(simulated.weights), activations, tuple(simulated.others))


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


def data_hash(dataset: Dataset, calibration: Dataset | None) -> str:
    """Return a hash of all the data of a run and of how they are read."""
    digest = hashlib.sha256()
    for part in (dataset, calibration):
        digest.update(b"-" if part is None else f"{part.sha256}{part.preprocess!r}".encode())
    return digest.hexdigest()
