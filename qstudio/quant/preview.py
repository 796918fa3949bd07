"""What a recipe does on some samples, answered from what the edits before it have left unchanged."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qstudio.core.context import JobContext
from qstudio.core.inspection import RecipeAccuracy
from qstudio.core.pruning import prunes
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, check_refinements
from qstudio.core.results import Metrics
from qstudio.core.statistics import SiteStatistics
from qstudio.data.dataset import Dataset
from qstudio.data.samples import Samples, choose_samples
from qstudio.graph.load import LoadedModel
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import Encodings, Found, encodings_for
from qstudio.quant.evaluate import float_predictions, metrics_of
from qstudio.quant.evaluator import CachedEvaluator
from qstudio.quant.keep import samples_key
from qstudio.quant.network import Network, network_for
from qstudio.quant.progress import Checked
from qstudio.quant.ptq import check_network
from qstudio.quant.refine.run import refine_network

if TYPE_CHECKING:
    from qstudio.quant.depth import Depth

STREAMED_S = 0.2
"""Seconds between two intermediate figures: five a second are as many as can be read."""

_KEPT_BENCHES = 3
_KEPT_ENCODINGS = 5_000
"""Of single sites; each drag step of a clip makes one."""


@dataclass(frozen=True)
class PreviewOptions:
    """What decides a preview besides model, data and recipe; see `qstudio.engine.messages.PreviewAccuracy`."""

    samples: int = 1000
    calibration_samples: int = 512
    seed: int = 0
    calibration_choice: str = "random"


class Bench:
    """One network with the samples it is previewed on: what recipes that do not change the network share.

    Args:
        network: What is simulated, refined by what comes before calibration.
        original: The float model that it is compared with.
        dataset: Where the evaluation samples are.
        samples: Which.
        statistics: Of the activations of `network`.
    """

    def __init__(
        self,
        network: Network,
        original: Network,
        dataset: Dataset,
        samples: Samples,
        statistics: dict[str, SiteStatistics],
    ) -> None:
        self.network, self.original, self.samples = network, original, samples
        self.split, self.indices = samples.evaluation, samples.evaluation_indices
        self.data_key = samples_key(dataset, self.split, self.indices)
        self.evaluator = CachedEvaluator(network, self.split, self.indices)
        self._statistics, self._weights = statistics, network.weights()
        self._found: Found = {}
        self.depth: Depth | None = None
        """Of error over depth, once it was asked for."""

    def release(self) -> None:
        """Give back the memory of what can be computed again."""
        self.evaluator.store.clear()
        self.depth = None

    def encodings(self, recipe: Recipe) -> Encodings:
        """Return a recipe's encodings; only schemes that are new are calibrated.

        Raises:
            UserError: A site that is to be quantized has no statistics.
        """
        if len(self._found) > _KEPT_ENCODINGS:
            self._found.clear()
        return encodings_for(self.network.layers, recipe, self._statistics, self._weights, self._found)

    def float_scores(self, ctx: JobContext) -> NDArray[np.float32]:
        """Return the float model's outputs for the samples, [N, K], computed once in this process."""
        return float_predictions(
            self.original, self.split, self.indices, self.data_key, lambda done, total: ctx.check()
        )

    def metrics(self, scores: NDArray[np.floating], floats: NDArray[np.floating] | None) -> Metrics:
        """Return the metrics of the first len(scores) samples."""
        count = len(scores)
        chosen = self.indices[:count]
        return metrics_of(self.original, scores, self.split, chosen, None if floats is None else floats[:count])


_benches: OrderedDict[object, Bench] = OrderedDict()
"""Those used last. Only the one whose values are kept takes memory of note: see `preview_accuracy`."""


def bench_for(
    model: LoadedModel,
    dataset: Dataset,
    recipe: Recipe,
    options: PreviewOptions,
    calibration_dataset: Dataset | None,
    ctx: JobContext,
) -> Bench:
    """Return what a recipe is previewed on: the network refined as far as it goes before calibration, and statistics.

    The statistics are those that `activation_statistics` has collected in this process before, where it has.

    Args:
        model: The opened model; not changed.
        dataset: What is evaluated on, and calibrated with unless there is a calibration dataset.
        recipe: Says how the network is refined.
        options: Which samples.
        calibration_dataset: Other data to calibrate with.
        ctx: Stops the work.

    Raises:
        UserError: Model, data or recipe cannot be used.
        JobCancelled: Asked to stop.
    """
    chosen = check_refinements(recipe.refinements)
    folds = "fold" in chosen
    before = tuple(text for text in chosen if _stage(text) == "network")
    original = network_for(model, folds)
    check_network(original, dataset)
    samples = choose_samples(
        dataset,
        options.calibration_samples,
        options.samples,
        options.seed,
        calibration_dataset,
        options.calibration_choice,
    )
    split, indices = samples.calibration, samples.calibration_indices
    source = samples_key(calibration_dataset or dataset, split, indices)
    evaluated = samples_key(dataset, samples.evaluation, samples.evaluation_indices)
    key = (original.sha256, before, source, evaluated, options.seed if before else None)
    bench = _benches.get(key)
    if bench is None:
        network = refine_network(
            original, replace(recipe, refinements=before), split, indices, options.seed, Checked(ctx)
        )
        statistics = activation_statistics(network, split, indices, source, lambda done, total: ctx.check())
        bench = _benches[key] = Bench(network, original, dataset, samples, statistics)
        while len(_benches) > _KEPT_BENCHES:
            _benches.popitem(last=False)
    _benches.move_to_end(key)
    return bench


def preview_accuracy(
    bench: Bench,
    recipe: Recipe,
    ctx: JobContext,
    *,
    once: bool = False,
    on_part: Callable[[RecipeAccuracy], None] | None = None,
) -> RecipeAccuracy:
    """Return how a recipe does on a bench's samples; only what differs from recipes before it is computed.

    Args:
        bench: From `bench_for` with this recipe.
        recipe: All schemes.
        ctx: Stops between the steps of the network; jobs that are more urgent run in between.
        once: Keep nothing of what is computed: for a recipe that is tried and left again.
        on_part: Told the figures so far, five times a second.

    Raises:
        UserError: The recipe or the data cannot be used.
        JobCancelled: Asked to stop; what was computed until then is kept.
    """
    began = time.perf_counter()
    encodings = bench.encodings(recipe)
    floats = bench.float_scores(ctx)
    notes = left_out(recipe)
    if not once:
        for other in _benches.values():
            if other is not bench:
                other.release()
    told = began

    def figures(scores: NDArray[np.float32]) -> RecipeAccuracy:
        return RecipeAccuracy(
            recipe.sha256(),
            bench.metrics(scores, floats),
            bench.metrics(floats[: len(scores)], None),
            len(scores) == len(bench.indices),
            time.perf_counter() - began,
            notes,
        )

    def on_rows(scores: NDArray[np.float32]) -> None:
        nonlocal told
        now = time.perf_counter()
        if on_part is not None and now - told >= STREAMED_S and len(scores) < len(bench.indices):
            told = now
            on_part(figures(scores))

    return figures(bench.evaluator.scores(encodings, keep=not once, check=ctx.check, rows=on_rows))


def left_out(recipe: Recipe) -> tuple[str, ...]:
    """Return what of a recipe a preview does without, one sentence each."""
    notes = []
    later = [REFINEMENTS[text.partition(":")[0]].title for text in recipe.refinements if _stage(text) == "values"]
    if later:
        notes.append(
            f"{', '.join(later)} {'is' if len(later) == 1 else 'are'} left out: a run brings the figure with it"
        )
    if prunes(recipe):
        notes.append("Pruning is left out: a run brings the figure with it")
    return tuple(notes)


def _stage(text: str) -> str:
    return REFINEMENTS[text.partition(":")[0]].stage
