"""The job of a PTQ run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qstudio.core.context import JobContext
from qstudio.core.results import RunResult
from qstudio.engine.cores import available_cores
from qstudio.engine.jobs.resident import opened_calibration, opened_dataset, opened_model
from qstudio.engine.messages import PtqPartial, RunPtq

if TYPE_CHECKING:
    from qstudio.quant.outcome import PtqOptions


def run_ptq(request: RunPtq, ctx: JobContext) -> RunResult:
    """Calibrate, simulate, evaluate, export, verify and time; streams the result so far after each phase.

    Raises:
        UserError: Model, data, recipe or options cannot be used.
    """
    model = opened_model(request.model)
    model.need_runnable()
    dataset = opened_dataset(request.data)
    calibration = opened_calibration(request.calibration_data, dataset, request.seed)

    from qstudio.quant.ptq import run_ptq as run

    return run(
        model.loaded,
        dataset,
        request.recipe,
        options_of(request),
        calibration_dataset=calibration,
        ctx=ctx,
        on_phase=lambda phase, result: ctx.partial(PtqPartial(phase, result)),
    )


def options_of(request: RunPtq) -> PtqOptions:
    """Return what a request says about a run, besides model, data and recipe."""
    from qstudio.quant.outcome import PtqOptions

    return PtqOptions(
        calibration_samples=request.calibration_samples,
        eval_samples=request.eval_samples,
        seed=request.seed,
        device=request.device,
        export_path=request.export_path,
        measure_latency=request.measure_latency,
        latency_batch=request.latency_batch,
        threads=request.threads or available_cores(),
        storage=request.storage,
        calibration_choice=request.calibration_choice,
    )
