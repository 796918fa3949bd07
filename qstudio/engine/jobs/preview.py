"""Jobs that answer an edit: the accuracy of a recipe on some samples, and its error over depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qstudio.core.context import JobContext
from qstudio.core.inspection import DepthErrors, RecipeAccuracy, check_preview_samples
from qstudio.engine.jobs.datasets import check_fit
from qstudio.engine.jobs.resident import opened_calibration, opened_dataset, opened_model
from qstudio.engine.messages import ErrorOverDepth, PreviewAccuracy

if TYPE_CHECKING:
    from qstudio.quant.preview import Bench


def preview_accuracy(request: PreviewAccuracy, ctx: JobContext) -> RecipeAccuracy:
    """Evaluate a recipe on the preview samples; streams the figures so far.

    Raises:
        UserError: Model, data or recipe cannot be used.
        JobCancelled: Asked to stop.
    """
    from qstudio.quant.preview import preview_accuracy as evaluate

    bench = bench_of(request, ctx)
    return evaluate(bench, request.recipe, ctx, once=request.once, on_part=ctx.partial)


def error_over_depth(request: ErrorOverDepth, ctx: JobContext) -> DepthErrors:
    """Measure the noise at every layer; streams what is known so far.

    Raises:
        UserError: Model, data or recipe cannot be used.
        JobCancelled: Asked to stop.
    """
    from qstudio.quant.depth import depth_errors

    return depth_errors(bench_of(request.preview, ctx), request.preview.recipe, ctx, on_part=ctx.partial)


def bench_of(request: PreviewAccuracy, ctx: JobContext) -> Bench:
    """Return what a recipe is simulated on, from memory where it is there.

    Raises:
        UserError: Model, data or recipe cannot be used.
        JobCancelled: Asked to stop.
    """
    from qstudio.quant.preview import PreviewOptions, bench_for

    model = opened_model(request.model)
    model.need_runnable()
    dataset = opened_dataset(request.data)
    check_fit(dataset, model.info)
    other = opened_calibration(request.calibration_data, dataset, request.seed)
    if other is not None:
        check_fit(other, model.info)
    options = PreviewOptions(
        check_preview_samples(request.samples),
        request.calibration_samples,
        request.seed,
        request.calibration_choice,
    )
    return bench_for(model.loaded, dataset, request.recipe, options, other, ctx)
