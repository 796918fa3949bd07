"""The job of a sensitivity sweep."""

from __future__ import annotations

from qstudio.core.context import JobContext
from qstudio.core.sensitivity import SensitivityResult
from qstudio.engine.jobs.resident import opened_calibration, opened_dataset, opened_model
from qstudio.engine.messages import Sensitivity


def sensitivity(request: Sensitivity, ctx: JobContext) -> SensitivityResult:
    """Change one layer at a time and measure what it does; streams every cell.

    Raises:
        UserError: Model, data, recipe or options cannot be used.
        JobCancelled: The sweep was stopped; what was measured is known to the next one.
    """
    model = opened_model(request.model)
    model.need_runnable()
    dataset = opened_dataset(request.data)
    calibration = opened_calibration(request.calibration_data, dataset, request.seed)

    from qstudio.quant.sensitivity import SensitivityOptions, measure_sensitivity

    options = SensitivityOptions(
        candidates=request.candidates,
        mode=request.mode,
        layers=request.layers,
        measured=request.measured,
        hessian=request.hessian,
        calibration_samples=request.calibration_samples,
        eval_samples=request.eval_samples,
        seed=request.seed,
        device=request.device,
        resume=request.resume,
        calibration_choice=request.calibration_choice,
    )
    return measure_sensitivity(
        model.loaded,
        dataset,
        request.recipe,
        options,
        calibration_dataset=calibration,
        ctx=ctx,
        on_cell=ctx.partial,
    )
