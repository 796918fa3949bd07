"""The job of a PTQ run."""

from __future__ import annotations

from qstudio.core.context import JobContext
from qstudio.core.results import RunResult
from qstudio.engine.cores import available_cores
from qstudio.engine.jobs.resident import opened_calibration, opened_dataset, opened_model
from qstudio.engine.messages import PtqPartial, RunPtq


def run_ptq(request: RunPtq, ctx: JobContext) -> RunResult:
    """Calibrate, simulate, evaluate, export, verify and time; streams the result so far after each phase.

    Raises:
        UserError: Model, data, recipe or options cannot be used.
    """
    model = opened_model(request.model)
    model.need_runnable()
    dataset = opened_dataset(request.data)
    calibration = opened_calibration(request.calibration_data, dataset, request.seed)

    from qstudio.quant.outcome import PtqOptions
    from qstudio.quant.ptq import run_ptq as run

    options = PtqOptions(
        request.calibration_samples,
        request.eval_samples,
        request.seed,
        request.device,
        request.export_path,
        request.measure_latency,
        request.latency_batch,
        request.threads or available_cores(),
        request.storage,
        request.calibration_choice,
    )
    return run(
        model.loaded,
        dataset,
        request.recipe,
        options,
        calibration_dataset=calibration,
        ctx=ctx,
        on_phase=lambda phase, result: ctx.partial(PtqPartial(phase, result)),
    )
