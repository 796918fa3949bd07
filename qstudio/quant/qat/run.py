"""A training run from recipe to result: calibrate, train, then everything that a PTQ run measures."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from qstudio.core.context import JobContext, SilentContext
from qstudio.core.errors import UserError
from qstudio.core.pruning import prunes, share_after
from qstudio.core.recipe import Recipe
from qstudio.core.results import RunResult
from qstudio.core.training import TRAINED_REFINEMENTS, Training, TrainResult
from qstudio.data.dataset import Dataset
from qstudio.data.samples import choose_samples
from qstudio.graph.load import LoadedModel
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.keep import samples_key
from qstudio.quant.network import Network, network_for
from qstudio.quant.outcome import OnPhase, PtqOptions, data_hash, measure, versions
from qstudio.quant.progress import Checked, RunProgress
from qstudio.quant.prune.gradual import GradualPruning
from qstudio.quant.prune.run import prune_model
from qstudio.quant.prune.sparsity import single_prunings
from qstudio.quant.ptq import check_network
from qstudio.quant.qat.batchnorm import FileNorm, file_norms
from qstudio.quant.qat.checkpoint import CheckpointFolder
from qstudio.quant.qat.quantizers import DorefaWeight
from qstudio.quant.qat.samples import TrainingSamples
from qstudio.quant.qat.train import OnPoint, Trainer
from qstudio.quant.statistics import nonfinite_notes


def run_qat(
    model: LoadedModel,
    dataset: Dataset,
    recipe: Recipe,
    training: Training | None = None,
    options: PtqOptions | None = None,
    *,
    calibration_dataset: Dataset | None = None,
    checkpoints: str | Path = "",
    resume: bool = False,
    further: bool = True,
    ctx: JobContext | None = None,
    on_phase: OnPhase | None = None,
    on_point: OnPoint | None = None,
) -> TrainResult:
    """Train a network with quantizers in it and measure everything about the best epoch.

    The same model, data, recipe, training, options, thread count and processor give the same numbers (times apart),
    also when the run was killed in between and resumed. The evaluation samples play no part in training: the best epoch
    is the one with the best accuracy on a held-out part of the training samples (see TrainingSamples).

    Args:
        model: The opened model; not changed.
        dataset: What is evaluated on; trained with its training split unless there is a calibration dataset.
        recipe: All schemes.
        training: Method, optimiser, schedule, loss, variation.
        options: Samples, seed, device, export, timing.
        calibration_dataset: Other data to calibrate and train with.
        checkpoints: Folder of the states after each epoch; empty = kept in a temporary folder while the run lasts.
        resume: Continue from the checkpoint in that folder.
        further: Train what is missing; else measure the best epoch of the checkpoint.
        ctx: Told the progress; stops the run between batches.
        on_phase: Told the result so far after "calibrate" and the phases of `qstudio.quant.outcome.measure`.
        on_point: Told each point of the learning curve.

    Raises:
        UserError: Model, data, recipe, training or checkpoint cannot be used.
        JobCancelled: The run was stopped; the folder of checkpoints holds the best and the last whole epoch.
    """
    training, options, ctx = training or Training(), options or PtqOptions(), ctx or SilentContext()
    began = time.perf_counter()
    if resume and not checkpoints:
        raise UserError("there is no folder to continue from", "checkpoints", "Name the folder of the checkpoints")
    other = [name for name in recipe.refinements if name not in TRAINED_REFINEMENTS]
    recipe = replace(recipe, refinements=tuple(n for n in recipe.refinements if n in TRAINED_REFINEMENTS))
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
    trained_on = TrainingSamples(network, dataset, calibration_dataset, training, options.seed, bool(training.distill))
    notes: list[str] = []
    pruning: GradualPruning | None = None
    prepared = model
    if prunes(recipe):
        first = share_after(1, training.pruning_steps)
        pruned = prune_model(model, recipe, samples, device=options.device, share=first, ctx=Checked(ctx))
        prepared = pruned.model
        network, notes = network_for(prepared, folds, options.device), [*pruned.notes]
        _check_zeros(network, recipe, training.method)
        pruning = GradualPruning(network, recipe, samples, training.pruning_steps)
    norms, about_norms = _kept_norms(prepared, network, folds, training)
    notes += about_norms
    steps = training.epochs * len(trained_on.trained) / max(len(samples.evaluation_indices), 1)
    progress = RunProgress(ctx, options.measure_latency, recipe, steps)
    notes += [*network.notes, *samples.notes]
    if other:
        notes.append(f"training replaces the refinements {', '.join(other)}: they were left out")
    data_sha256 = data_hash(dataset, calibration_dataset)
    identity = {
        "model": model.sha256,
        "data": data_sha256,
        "recipe": recipe.sha256(),
        "seed": options.seed,
        "number of calibration samples": options.calibration_samples,
        "device": options.device,
        **{name.replace("_", " "): value for name, value in training.to_json().items()},
    }
    with tempfile.TemporaryDirectory(prefix="qstudio-training-") as temporary:
        folder = CheckpointFolder(checkpoints or temporary, identity, resume or not checkpoints)
        statistics = activation_statistics(
            network,
            samples.calibration,
            samples.calibration_indices,
            samples_key(calibration_dataset or dataset, samples.calibration, samples.calibration_indices),
            progress.part("calibrate"),
        )
        notes += nonfinite_notes(tuple(statistics.values()))
        result = RunResult(
            recipe=recipe,
            recipe_hash=recipe.sha256(),
            model_hash=model.sha256,
            data_hash=data_sha256,
            seed=options.seed,
            device=options.device,
            calibration_samples=len(samples.calibration_indices),
            seconds=time.perf_counter() - began,
            versions=versions(),
            notes=tuple(notes),
        )
        if on_phase is not None:
            on_phase("calibrate", result)
        within = progress.context("train")
        trainer = Trainer(
            network,
            trained_on,
            samples,
            statistics,
            recipe,
            training,
            within,
            on_point,
            folder,
            original,
            pruning,
            norms,
        )
        with torch.enable_grad():
            trained = trainer.run(further=further)
        result = replace(result, seconds=time.perf_counter() - began)
        encodings, values = trained.encodings, trained.values
        result = measure(
            model, network, dataset, samples, encodings, values, result, options, progress, on_phase, original
        )
    return TrainResult(
        run=result,
        training=training,
        curve=trained.curve,
        best_epoch=trained.best_epoch,
        training_seconds=trained.seconds,
        training_samples=len(trained_on.trained),
        held_out_samples=len(trained_on.held_out),
        resumed_after=trained.resumed_after,
    )


def _kept_norms(
    model: LoadedModel, network: Network, folds: bool, training: Training
) -> tuple[dict[str, FileNorm], list[str]]:
    """Return each BatchNormalization that is kept while training, by weight site, and what to say about it.

    Raises:
        UserError: It is to be kept and then folded, and the recipe does not fold.
    """
    if training.batchnorm == "folded":
        return {}, []
    if not folds:
        raise UserError(
            "a BatchNormalization that is kept in training is folded at its end, and the recipe does not fold",
            "BatchNorm",
            "Choose the refinement fold, or BatchNorm folded",
        )
    norms, notes = file_norms(model.proto, network)
    if not norms:
        return {}, ["there is no BatchNormalization that training could keep", *notes]
    how = "with the statistics of the float model"
    if training.batchnorm == "live":
        how = f"with live statistics for {100 * training.batchnorm_freeze:g} % of the steps"
    return norms, [f"{len(norms)} BatchNormalizations were trained {how}, and folded at the end", *notes]


def _check_zeros(network: Network, recipe: Recipe, method: str) -> None:
    """Refuse to keep weights at zero with a method whose levels leave it out.

    Raises:
        UserError: Single weights are pruned, and DoReFa rounds them.
    """
    for name in single_prunings(network, recipe) if method in ("dorefa", "pact") else ():
        layer = next(layer for layer in network.layers if layer.weight is not None and layer.weight.id == name)
        scheme = recipe.settings(layer.name).weight_scheme()
        if scheme.is_affine and DorefaWeight.suits(scheme.bits):
            fix = "Train with lsq, lsq+ or ste, or prune filters"
            raise UserError(f"the levels of {method} leave out zero, which pruned weights need", layer.name, fix)
