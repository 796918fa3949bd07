"""`qstudio train`: quantization-aware training, then everything that `qstudio quantize` measures."""

from __future__ import annotations

import shutil
from argparse import Namespace
from typing import Any

from qstudio.cli.asking import Asker, Interrupted
from qstudio.cli.choices import recipe_choices, recipe_of, run_options
from qstudio.cli.plain import plain, plain_run
from qstudio.cli.quantizing import check_output, choose_device, run_text, save_asked
from qstudio.cli.tables import number, table
from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.training import Training, TrainResult
from qstudio.engine.messages import OpenModel, TrainQat
from qstudio.session.data_words import data_spec

_FIELDS = {
    "method": "method",
    "epochs": "epochs",
    "lr": "learning_rate",
    "scale_lr": "scale_rate",
    "batch_size": "batch_size",
    "optimizer": "optimizer",
    "weight_decay": "weight_decay",
    "schedule": "schedule",
    "warmup": "warmup_epochs",
    "clip_norm": "clip_norm",
    "distill": "distill",
    "temperature": "temperature",
    "distill_features": "feature_weight",
    "crop": "crop_padding",
    "flip": "flip",
    "training_samples": "samples",
    "prune_steps": "pruning_steps",
    "batchnorm": "batchnorm",
}
"""Option -> field of Training."""

_ROWS = 12
"""Epochs that the table for people shows, evenly chosen."""


def training_choices(arguments: Namespace) -> Training:
    """Return what was chosen about training.

    Raises:
        UserError: A value is out of its bounds.
    """
    given = {field: getattr(arguments, option) for option, field in _FIELDS.items()}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if arguments.progressive is not None:
        parts = arguments.progressive.split(",")
        if not all(part.strip().isdigit() for part in parts):
            raise UserError(f"'{arguments.progressive}' is not a list of bit widths", "--progressive", "Write 8,4")
        chosen["progressive_bits"] = tuple(int(part) for part in parts)
    if arguments.batchnorm_freeze is not None:
        if not 0 <= arguments.batchnorm_freeze <= 100:
            found = f"{arguments.batchnorm_freeze:g} is out of bounds"
            raise UserError(found, "--batchnorm-freeze", "Choose a percentage, 0 to 100")
        chosen["batchnorm_freeze"] = arguments.batchnorm_freeze / 100
    epochs = chosen.get("epochs", Training.epochs)
    if isinstance(epochs, int) and "warmup_epochs" not in chosen:
        chosen["warmup_epochs"] = min(Training.warmup_epochs, epochs)
    return Training(**chosen)


def run(arguments: Namespace, asker: Asker) -> tuple[dict[str, Any], str]:
    """Train and quantize a model; return the result for --json and for people.

    Raises:
        UserError: Something in the input has to be mended.
        Interrupted: The person stopped the training; says where its checkpoint is.
    """
    choices = recipe_choices(arguments)
    training = training_choices(arguments)
    spec = data_spec(arguments)
    assert spec is not None, "--data is required"
    run_options(arguments)
    check_output(arguments.output, arguments.model)
    if arguments.stop_training and not arguments.resume:
        raise UserError("there is no training to stop", "--stop-training", "Name its checkpoints with --resume DIR")
    folder, ours = _folder(arguments)
    model: ModelInfo = asker.ask(OpenModel(arguments.model))
    recipe = recipe_of(choices, model, asker)
    options = run_options(arguments, choose_device(arguments.device, asker))
    request = TrainQat(
        options.request(arguments.model, spec, recipe, arguments.output),
        training,
        folder,
        resume=bool(arguments.resume),
        further=not arguments.stop_training,
    )
    try:
        result: TrainResult = asker.ask(request)
    except Interrupted as stop:
        if folder:
            left = UserError("stopped; the best and the last whole epoch are kept", folder, "Continue with --resume")
            raise Interrupted(stop.number, left) from None
        raise
    if ours:
        shutil.rmtree(folder, ignore_errors=True)
    save_asked(arguments, result.run)
    return plain_training(result, model, spec.source), training_text(result, model, spec.source)


def _folder(arguments: Namespace) -> tuple[str, bool]:
    """Return (where checkpoints are kept, whether the program chose the place); an empty text keeps none."""
    chosen = f"{arguments.output}.checkpoints" if arguments.output else ""
    if arguments.resume:
        if arguments.checkpoints not in (None, arguments.resume):
            raise UserError("--resume and --checkpoints name two folders", "--checkpoints", "Give --resume only")
        return arguments.resume, False
    if arguments.checkpoints is not None:
        return arguments.checkpoints, False
    return chosen, bool(chosen)


def plain_training(result: TrainResult, model: ModelInfo, data: str) -> dict[str, Any]:
    """Return a run as `quantize --json` does, and `training`: settings, curve, best epoch, seconds."""
    found: dict[str, Any] = plain(result)
    del found["run"]
    settings = found.pop("training")
    curve = [{**point, "scales": dict(point["scales"])} for point in found.pop("curve")]
    seconds = found.pop("training_seconds")
    training = {"method": settings["method"], **found, "seconds": seconds, "settings": settings, "curve": curve}
    return {**plain_run(result.run, model, data), "training": training}


def training_text(result: TrainResult, model: ModelInfo, data: str) -> str:
    """Return a training and its run as tables and sentences for people."""
    points = result.curve
    shown = sorted({round(i * (len(points) - 1) / max(_ROWS - 1, 1)) for i in range(_ROWS)} | {result.best_epoch})
    rows = [
        (
            f"{point.epoch}{' *' if point.epoch == result.best_epoch else ''}",
            str(point.bits),
            number(point.loss, 4),
            number(point.held_out_loss, 4),
            number(point.quantized_top1, 2),
            f"{point.learning_rate:.2g}",
        )
        for point in (points[i] for i in shown if i < len(points))
    ]
    head = ("epoch", "bits", "loss", "held-out loss", "held-out top-1 %", "rate")
    resumed = "" if result.resumed_after is None else f", resumed after epoch {result.resumed_after}"
    words = (
        f"trained with {result.training.method} on {result.training_samples:,} samples for "
        f"{number(result.training_seconds, 1)} s{resumed}; epoch {result.best_epoch} (*) is the best on "
        f"{result.held_out_samples:,} held-out training samples (float there: {number(points[0].float_top1, 2)} %)"
    )
    return f"{words}\n{table(head, rows, 'lrrrrr')}\n\n{run_text(result.run, model, data)}"
