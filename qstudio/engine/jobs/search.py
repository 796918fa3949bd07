"""The job of a search for mixed precision."""

from __future__ import annotations

from dataclasses import replace

from qstudio.core.context import JobContext
from qstudio.core.search_result import SearchResult
from qstudio.engine.jobs.ptq import options_of
from qstudio.engine.jobs.resident import opened_calibration, opened_dataset, opened_model
from qstudio.engine.messages import PtqPartial, SearchBits

_SEARCHING = 0.75
"""Share of the whole that the search takes; the rest is the run of its recipe."""


def search_bits(request: SearchBits, ctx: JobContext) -> SearchResult:
    """Search the bits of each layer, then run the recipe that was found; streams the result so far and the run.

    Raises:
        UserError: Model, data, recipe or settings cannot be used, or no recipe keeps the limits.
        JobCancelled: The search was stopped; what was measured is known to the next one.
    """
    run = request.run
    model = opened_model(run.model)
    model.need_runnable()
    dataset = opened_dataset(run.data)
    calibration = opened_calibration(run.calibration_data, dataset, run.seed)

    from qstudio.quant.ptq import run_ptq
    from qstudio.quant.search.progress import Stretch
    from qstudio.quant.search.run import run_search

    options = options_of(run)
    found = run_search(
        model.loaded,
        dataset,
        run.recipe,
        request.search,
        options,
        calibration_dataset=calibration,
        ctx=Stretch(ctx, 0.0, _SEARCHING if request.runs else 1.0),
        on_result=ctx.partial,
        resume=request.resume,
    )
    if not request.runs:
        return found
    assert found.chosen is not None, "a finished search has chosen"
    result = run_ptq(
        model.loaded,
        dataset,
        found.chosen.recipe,
        options,
        calibration_dataset=calibration,
        ctx=Stretch(ctx, _SEARCHING, 1.0 - _SEARCHING),
        on_phase=lambda phase, so_far: ctx.partial(PtqPartial(phase, so_far)),
    )
    return replace(found, run=result)
