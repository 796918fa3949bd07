"""One model on its data: what recipes give there, from the same samples, statistics and refinements as a PTQ run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.context import JobContext
from qstudio.core.pruning import prunes
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, check_refinements
from qstudio.core.results import Metrics
from qstudio.core.sensitivity import Figures
from qstudio.data.dataset import Dataset
from qstudio.data.samples import choose_samples
from qstudio.graph.load import LoadedModel
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import Encodings, encodings_for
from qstudio.quant.evaluate import float_predictions, metrics_of, predict
from qstudio.quant.evaluation.sweep import figures_of
from qstudio.quant.keep import samples_key
from qstudio.quant.network import network_for
from qstudio.quant.outcome import PtqOptions
from qstudio.quant.progress import Checked, RunProgress
from qstudio.quant.prune.run import prune_model
from qstudio.quant.prune.sparsity import with_zeros_kept
from qstudio.quant.ptq import check_network
from qstudio.quant.refine.run import refine_network, refine_values
from qstudio.quant.refine.task import Refined
from qstudio.quant.simulate import SimulatedModel


class Bench:
    """Prepares a model as `qstudio.quant.ptq.run_ptq` does, and measures recipes that differ in bits only.

    Args:
        model: The opened model; not changed.
        dataset: What is evaluated on.
        recipe: Its refinements and prunings hold for all recipes.
        options: Samples, seed, device, threads.
        calibration_dataset: Other data to calibrate with.
        ctx: Told the progress; raises to stop.

    Raises:
        UserError: Model, data, recipe or options cannot be used.
        JobCancelled: The run was stopped.
    """

    def __init__(
        self,
        model: LoadedModel,
        dataset: Dataset,
        recipe: Recipe,
        options: PtqOptions,
        calibration_dataset: Dataset | None,
        ctx: JobContext,
    ) -> None:
        self.options = options
        self.recipe = recipe = replace(recipe, refinements=check_refinements(recipe.refinements))
        folds = "fold" in recipe.refinements
        quiet = Checked(ctx)
        network = self.original = network_for(model, folds, options.device)
        check_network(network, dataset)
        self.dataset = dataset
        self.samples = samples = choose_samples(
            dataset,
            options.calibration_samples,
            options.eval_samples,
            options.seed,
            calibration_dataset,
            options.calibration_choice,
        )
        chosen = samples.calibration_indices
        self.notes: tuple[str, ...] = samples.notes
        if prunes(recipe):
            ctx.report(0.0, 1.0, "Pruning")
            pruned = prune_model(model, recipe, samples, device=options.device, ctx=quiet)
            network = network_for(pruned.model, folds, options.device)
            self.notes = (*pruned.notes, *self.notes)
        ctx.report(0.1, 1.0, "Preparing the network")
        self.network = refine_network(network, recipe, samples.calibration, chosen, options.seed, quiet)
        self.calibration_key = samples_key(calibration_dataset or dataset, samples.calibration, chosen)
        self.statistics = activation_statistics(
            self.network,
            samples.calibration,
            chosen,
            self.calibration_key,
            lambda done, total: ctx.report(0.2 + 0.8 * done / max(total, 1), 1.0, "Collecting statistics"),
        )
        self._weights = self.network.weights()

    @property
    def learns(self) -> bool:
        """Whether the refinements train: minutes for each recipe."""
        return any(text.partition(":")[0] in RunProgress.LEARNING for text in self.recipe.refinements)

    @property
    def refines(self) -> bool:
        """Whether there are refinements that run anew for each recipe."""
        return any(REFINEMENTS[text.partition(":")[0]].stage == "values" for text in self.recipe.refinements)

    def encodings(self, recipe: Recipe) -> Encodings:
        """Return the calibrated encodings of a recipe, before refinements."""
        return encodings_for(self.network.layers, recipe, self.statistics, self._weights)

    def refined(self, recipe: Recipe, ctx: JobContext) -> Refined:
        """Return encodings and values of a recipe after its refinements."""
        samples, options = self.samples, self.options
        found = refine_values(
            self.network,
            recipe,
            self.encodings(recipe),
            samples.calibration,
            samples.calibration_indices,
            options.seed,
            ctx,
        )
        return with_zeros_kept(self.network, recipe, found)

    def front_indices(self, most: int) -> NDArray[np.int64]:
        """Return evaluation samples, evenly spread, at most so many."""
        indices = self.samples.evaluation_indices
        if len(indices) <= most:
            return indices
        return indices[np.linspace(0, len(indices) - 1, most).astype(np.int64)]

    def float_metrics(self, indices: NDArray[np.int64], ctx: JobContext) -> tuple[Metrics, Figures]:
        """Return what the float model does on evaluation samples."""
        scores = self._float_scores(indices, ctx)
        split = self.samples.evaluation
        return (
            metrics_of(self.original, scores, split, indices, None),
            figures_of(self.original, scores, split, indices, scores),
        )

    def measure(
        self, recipe: Recipe, indices: NDArray[np.int64], ctx: JobContext, *, refine: bool, exact: bool = False
    ) -> tuple[Metrics, Figures]:
        """Return what a recipe does on evaluation samples.

        Args:
            recipe: Bits as wanted.
            indices: Of the evaluation split.
            ctx: Told the progress; raises to stop.
            refine: Run the refinements that depend on the bits.
            exact: Sum in the order of the exported file, so that the figures are those of a PTQ run to the last digit.
        """
        quiet = Checked(ctx)
        refined = self.refined(recipe, quiet) if refine else Refined(self.encodings(recipe), {})
        model = SimulatedModel(
            self.network, refined.encodings, refined.weight_values, ordered=exact, threads=self.options.threads
        )
        split = self.samples.evaluation
        scores = predict(self.network, model.run, split, indices, lambda done, total: ctx.check())
        reference = self._float_scores(indices, ctx)
        return (
            metrics_of(self.network, scores, split, indices, reference),
            figures_of(self.network, scores, split, indices, reference),
        )

    def _float_scores(self, indices: NDArray[np.int64], ctx: JobContext) -> NDArray[np.float32]:
        key = samples_key(self.dataset, self.samples.evaluation, indices)
        return float_predictions(self.original, self.samples.evaluation, indices, key, lambda done, total: ctx.check())
