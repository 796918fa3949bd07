"""Post-training quantization from recipe to result: calibrate, simulate, export, verify, time."""

from __future__ import annotations

import time
from dataclasses import replace

from qstudio.core.context import JobContext, SilentContext
from qstudio.core.pruning import prunes
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import check_refinements
from qstudio.core.results import RunResult
from qstudio.data.checks import check_against_model
from qstudio.data.dataset import Dataset
from qstudio.data.samples import choose_samples
from qstudio.graph.load import LoadedModel
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.keep import samples_key
from qstudio.quant.network import Network, network_for
from qstudio.quant.outcome import OnPhase, PtqOptions, data_hash, measure, versions
from qstudio.quant.progress import RunProgress
from qstudio.quant.prune.run import prune_model
from qstudio.quant.prune.sparsity import with_zeros_kept
from qstudio.quant.refine.run import refine_network, refine_values
from qstudio.quant.statistics import nonfinite_notes


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
    """Quantize a model after training and measure everything about it; what the recipe prunes goes first.

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
    progress = RunProgress(ctx or SilentContext(), options.measure_latency, recipe)
    folds = "fold" in recipe.refinements
    network = original = network_for(model, folds, options.device)
    check_network(network, dataset)
    samples = choose_samples(
        dataset,
        options.calibration_samples,
        options.eval_samples,
        options.seed,
        calibration_dataset,
        options.calibration_choice,
    )
    chosen = samples.calibration_indices
    pruning_notes: tuple[str, ...] = ()
    if prunes(recipe):
        pruned = prune_model(model, recipe, samples, device=options.device, ctx=progress.context("prune"))
        network, pruning_notes = network_for(pruned.model, folds, options.device), pruned.notes
    network = refine_network(network, recipe, samples.calibration, chosen, options.seed, progress.context("prepare"))
    result = RunResult(
        recipe=recipe,
        recipe_hash=recipe.sha256(),
        model_hash=model.sha256,
        data_hash=data_hash(dataset, calibration_dataset),
        seed=options.seed,
        device=options.device,
        calibration_samples=len(samples.calibration_indices),
        versions=versions(),
        notes=(*pruning_notes, *network.notes, *samples.notes),
    )

    statistics_key = samples_key(calibration_dataset or dataset, samples.calibration, samples.calibration_indices)
    statistics = activation_statistics(
        network, samples.calibration, samples.calibration_indices, statistics_key, progress.part("calibrate")
    )
    encodings = encodings_for(network.layers, recipe, statistics, network.weights())
    notes = (*result.notes, *nonfinite_notes(tuple(statistics.values())))
    result = replace(result, notes=notes, seconds=time.perf_counter() - started)
    if on_phase is not None:
        on_phase("calibrate", result)
    refined = refine_values(
        network, recipe, encodings, samples.calibration, chosen, options.seed, progress.context("refine")
    )
    refined = with_zeros_kept(network, recipe, refined)
    encodings, result = refined.encodings, replace(result, notes=(*result.notes, *refined.notes))

    result = replace(result, seconds=time.perf_counter() - started)
    return measure(
        model,
        network,
        dataset,
        samples,
        encodings,
        refined.weight_values,
        result,
        options,
        progress,
        on_phase,
        original,
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
