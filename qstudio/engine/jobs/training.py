"""The job of a training run."""

from __future__ import annotations

from qstudio.core.context import JobContext
from qstudio.core.errors import UserError
from qstudio.core.sample_choice import is_noise
from qstudio.core.training import TrainResult
from qstudio.engine.jobs.ptq import options_of
from qstudio.engine.jobs.resident import opened_dataset, opened_model
from qstudio.engine.messages import PtqPartial, TrainQat


def train_qat(request: TrainQat, ctx: JobContext) -> TrainResult:
    """Calibrate, train, simulate, evaluate, export, verify and time; streams the curve and the result so far.

    Raises:
        UserError: Model, data, recipe, training or checkpoint cannot be used.
        JobCancelled: The run was stopped; the folder of checkpoints holds the best and the last whole epoch.
    """
    run = request.run
    model = opened_model(run.model)
    model.need_runnable()
    dataset = opened_dataset(run.data)
    if run.calibration_data is not None and is_noise(run.calibration_data.source):
        raise UserError("a network cannot be trained with noise", "calibration data", "Name data to train with")
    calibration = None if run.calibration_data is None else opened_dataset(run.calibration_data)

    from qstudio.quant.qat.run import run_qat

    return run_qat(
        model.loaded,
        dataset,
        run.recipe,
        request.training,
        options_of(run),
        calibration_dataset=calibration,
        checkpoints=request.checkpoints,
        resume=request.resume,
        further=request.further,
        ctx=ctx,
        on_phase=lambda phase, result: ctx.partial(PtqPartial(phase, result)),
        on_point=ctx.partial,
    )
