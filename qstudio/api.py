"""QStudio from Python: open, choose, quantize, with the window's engine and the window's numbers.

All of it is at hand as `qstudio.NAME`; nothing heavy is imported before it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import JobCancelled, UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import LayerSettings, Recipe
from qstudio.core.results import RunResult
from qstudio.core.training import CurvePoint, Training, TrainResult
from qstudio.engine.client import EngineClient
from qstudio.engine.messages import DataSpec, JobState, OpenModel, Progress, RunPtq, TrainQat
from qstudio.session.data_words import data_words
from qstudio.session.options import RunOptions
from qstudio.session.project_opening import default_embedded_root
from qstudio.session.session import Session as _Session

if TYPE_CHECKING:
    import torch

    from qstudio.data.dataset import Dataset

__all__ = [
    "DataSpec",
    "DatasetInfo",
    "LayerSettings",
    "ModelInfo",
    "Recipe",
    "RunOptions",
    "RunResult",
    "Session",
    "TrainResult",
    "Training",
    "UserError",
    "launch",
    "load_dataset",
    "open_model",
    "open_project",
    "quantize",
    "train",
]

_SPECS: WeakKeyDictionary[Any, DataSpec] = WeakKeyDictionary()
"""How each dataset of `load_dataset` was asked for, so that it can be named to an engine."""


class Session(_Session):
    """A session with an engine in this process, unless another is given.

    Example:
        session = qstudio.Session()
        session.open_model("model.onnx")
        session.open_data("digits")
        session.wait()
        session.set_layers("4 bits", ("conv1",), weight_bits=4)
        session.run_ptq()
        session.wait()
        print(session.runs[-1].result.simulated.top1)
    """

    def __init__(self, engine: EngineClient | None = None) -> None:
        """Use the given engine; without one, jobs run in this process while `wait` is called."""
        super().__init__(engine if engine is not None else _inline())


def open_model(path: str | os.PathLike[str]) -> ModelInfo:
    """Read an .onnx or .pt2 file and describe it: layers, sites, shapes.

    Raises:
        UserError: The file is not a model that can be opened.
    """
    info: ModelInfo = _ask(OpenModel(os.fspath(path)))
    return info


def open_project(path: str | os.PathLike[str]) -> Session:
    """Open a project (.qsproj) as a session with an engine in this process: its runs, history, options and notes.

    Model and data are opened by `wait`. What is done from then on goes into the project, unless somebody else has it
    open or it cannot be written: `session.project.read_only` says why. Close the session to let go of the file.

    Example:
        session = qstudio.open_project("work.qsproj")
        print([run.result.simulated.top1 for run in session.runs if run.result and run.result.simulated])
        session.close()

    Raises:
        UserError: It is no project, is damaged, or a newer version wrote it.
    """
    session = Session()
    session.project.files.embedded_root = default_embedded_root()
    try:
        session.project.open(path)
    except UserError:
        session.close()
        raise
    return session


def load_dataset(
    source: str | os.PathLike[str],
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    scale: float | None = None,
    size: int | tuple[int, int] | None = None,
    layout: str | None = None,
    split: str | None = None,
) -> Dataset:
    """Open data by name ("digits") or path, and return it with its samples as a network sees them.

    Options are those of the command line; a `.dataset.json` beside the data gives those that are left out.

    Raises:
        UserError: The data cannot be read, or an option does not fit it.
    """
    from qstudio.data.load import load_dataset as load

    spec = DataSpec(
        os.fspath(source),
        mean=_channels(mean),
        std=_channels(std),
        scale=scale,
        size=(size, size) if isinstance(size, int) else size,
        layout=layout,
        split=split,
    )
    dataset = load(spec.source, mean=spec.mean, std=spec.std, size=spec.size, layout=layout, split=split, scale=scale)
    _SPECS[dataset] = spec
    return dataset


def quantize(
    model: str | os.PathLike[str] | ModelInfo,
    data: str | os.PathLike[str] | DataSpec | Dataset,
    recipe: Recipe | None = None,
    *,
    calibration_data: str | os.PathLike[str] | DataSpec | Dataset | None = None,
    calibration_samples: int = 512,
    calibration_choice: str = "random",
    eval_samples: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    export_path: str | os.PathLike[str] = "",
    measure_latency: bool = True,
    latency_batch: int = 1,
    threads: int = 0,
    storage: str = "int8",
    on_progress: Callable[[Progress], None] | None = None,
) -> RunResult:
    """Quantize after training and measure everything: what Run PTQ in the window and `qstudio quantize` do.

    Args:
        model: A path, or what `open_model` returned.
        data: Evaluation data: a name or path, a `DataSpec`, or what `load_dataset` returned.
        recipe: All schemes; None = 8 bits everywhere.
        calibration_data: Data for ranges; None = the training split of `data`, or samples of its only split that are
            then left out of the evaluation.
        calibration_samples: Samples for ranges.
        calibration_choice: "random" (by seed), "first" (as stored) or "balanced" (equally many of each class).
        eval_samples: Samples for metrics; None = all.
        seed: Chooses the samples.
        device: Where the simulation runs: "cpu", "cuda:0", "mps".
        export_path: Where the QDQ model is kept; empty = it is measured and removed.
        measure_latency: Whether float and exported model are timed.
        latency_batch: Batch of the timing.
        threads: Threads of onnxruntime; 0 = all cores.
        storage: How the file stores weights below 8 bits: "int8", or "packed" (smaller, of a newer operator set).
        on_progress: Called about 20 times a second.

    Raises:
        UserError: Model, data, recipe or options cannot be used.
        RuntimeError: A fault of the program; the message holds the traceback.
    """
    options = RunOptions(
        device=device,
        calibration_samples=calibration_samples,
        calibration_choice=calibration_choice,
        eval_samples=eval_samples,
        seed=seed,
        calibration_data=None if calibration_data is None else _spec(calibration_data),
        measure_latency=measure_latency,
        latency_batch=latency_batch,
        threads=threads,
        storage=storage,
    )
    request = _request(model, data, recipe, options, export_path)
    result: RunResult = _ask(request, on_progress)
    return result


def train(
    model: str | os.PathLike[str] | ModelInfo,
    data: str | os.PathLike[str] | DataSpec | Dataset,
    recipe: Recipe | None = None,
    training: Training | None = None,
    *,
    calibration_data: str | os.PathLike[str] | DataSpec | Dataset | None = None,
    calibration_samples: int = 512,
    calibration_choice: str = "random",
    eval_samples: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    export_path: str | os.PathLike[str] = "",
    measure_latency: bool = True,
    latency_batch: int = 1,
    threads: int = 0,
    storage: str = "int8",
    checkpoints: str | os.PathLike[str] = "",
    resume: bool = False,
    further: bool = True,
    on_point: Callable[[CurvePoint], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train with quantizers and measure everything: what Train in the window and `qstudio train` do.

    The training starts from the ranges of PTQ. The best epoch on a held-out part of the training samples is measured
    and exported as `quantize` does it; the evaluation samples play no part in training.

    Args:
        model: A path, or what `open_model` returned.
        data: Evaluation data, as for `quantize`; its training split is trained on.
        recipe: All schemes; None = 8 bits everywhere. Of its refinements only "fold" is used.
        training: Method, epochs, optimiser, schedule, loss, augmentation; None = LSQ, 20 epochs.
        calibration_data: Other data for ranges and for training; None = the training split of `data`.
        calibration_samples: Samples for ranges.
        calibration_choice: "random" (by seed), "first" (as stored) or "balanced" (equally many of each class).
        eval_samples: Samples for metrics; None = all.
        seed: Chooses the samples, their order and their variation.
        device: Where training and simulation run: "cpu", "cuda:0", "mps".
        export_path: Where the QDQ model is kept; empty = it is measured and removed.
        measure_latency: Whether float and exported model are timed.
        latency_batch: Batch of the timing.
        threads: Threads of onnxruntime; 0 = all cores.
        storage: How the file stores weights below 8 bits: "int8", or "packed" (smaller, of a newer operator set).
        checkpoints: Folder of the states after each epoch; empty = none are kept when the call ends.
        resume: Go on from the checkpoint in that folder; everything else must be as it was.
        further: Train what is missing; else measure the best epoch of the checkpoint.
        on_point: Called with each point of the learning curve.
        on_progress: Called about 20 times a second.

    Returns:
        The run in `run`, the curve, the best epoch.

    Raises:
        UserError: Model, data, recipe, training, options or checkpoint cannot be used.
        RuntimeError: A fault of the program; the message holds the traceback.
    """
    options = RunOptions(
        device=device,
        calibration_samples=calibration_samples,
        calibration_choice=calibration_choice,
        eval_samples=eval_samples,
        seed=seed,
        calibration_data=None if calibration_data is None else _spec(calibration_data),
        measure_latency=measure_latency,
        latency_batch=latency_batch,
        threads=threads,
        storage=storage,
    )
    run = _request(model, data, recipe, options, export_path)
    request = TrainQat(run, training if training is not None else Training(), os.fspath(checkpoints), resume, further)

    def heard(value: object) -> None:
        if on_point is not None and isinstance(value, CurvePoint):
            on_point(value)

    result: TrainResult = _ask(request, on_progress, heard)
    return result


def launch(
    module: torch.nn.Module | str | os.PathLike[str],
    example_input: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
    data: str | os.PathLike[str] | DataSpec | Dataset | None = None,
) -> int:
    """Open the window on a model and wait until it is closed; return its exit status.

    A module is exported with torch.export to a temporary .pt2 file, with a batch of any size; it is neither changed
    nor run again.

    Args:
        module: A module in float32, or the path of an .onnx or .pt2 file.
        example_input: What the module is called with, batch first; needed for a module only.
        data: Evaluation data to open with the model.

    Raises:
        UserError: There is no example input, or torch cannot export the module.
    """
    import subprocess
    import sys
    import tempfile

    with tempfile.TemporaryDirectory(prefix="qstudio-") as folder:
        if isinstance(module, (str, os.PathLike)):
            path = os.fspath(module)
        else:
            path = os.path.join(folder, f"{type(module).__name__.lower()}.pt2")
            export_module(module, example_input, path)
        command = [sys.executable, "-m", "qstudio", path]
        if data is not None:
            command += data_words(_spec(data))
        # A process of its own: the window never shares one with torch, and a script may have no event loop to give.
        return subprocess.run(command, check=False).returncode


def export_module(
    module: torch.nn.Module, example_input: torch.Tensor | tuple[torch.Tensor, ...] | None, path: str
) -> None:
    """Write a module as a .pt2 file with a batch of any size (of one size where the module fixes it).

    Raises:
        UserError: There is no example input, or torch cannot export the module.
    """
    import copy

    import torch

    if example_input is None:
        fix = "Give a tensor as the module is called with, such as torch.zeros(1, 3, 32, 32)"
        raise UserError("a module needs an example input", "example_input", fix)
    inputs = (example_input,) if isinstance(example_input, torch.Tensor) else tuple(example_input)
    name = type(module).__name__
    try:
        frozen = copy.deepcopy(module).eval().cpu()
        inputs = tuple(item.detach().cpu() for item in inputs)
        # A batch of 1 would be taken for a constant: torch.export specialises sizes of 0 and 1.
        doubled = tuple(torch.cat([item, item]) if item.shape[:1] == (1,) else item for item in inputs)
        batch = torch.export.Dim.AUTO
        shapes = tuple({0: batch} if item.dim() else None for item in doubled)
        with torch.no_grad():
            exported = torch.export.export(frozen, doubled, dynamic_shapes=shapes)
        torch.export.save(exported, path)
    except Exception as error:  # torch.export has no common base for what it raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"torch.export cannot export it ({reason})", name, "Make its forward exportable, or export it to ONNX"
        ) from error


def _ask(
    request: Any,
    on_progress: Callable[[Progress], None] | None = None,
    on_partial: Callable[[Any], None] | None = None,
) -> Any:
    engine = _inline()
    try:
        job = engine.wait(engine.submit(request, on_progress=on_progress, on_partial=on_partial))
    finally:
        engine.close()
    if job.state is JobState.DONE:
        return job.value
    if job.error is None:
        raise JobCancelled
    if job.error.user_fault:
        raise UserError(job.error.what, job.error.where, job.error.fix)
    raise RuntimeError(f"{job.error.sentence()}\n{job.error.details}")


def _inline() -> EngineClient:
    from qstudio.engine.inline import InlineEngine

    return InlineEngine()


def _request(
    model: ModelInfo | str | os.PathLike[str],
    data: str | os.PathLike[str] | DataSpec | Dataset,
    recipe: Recipe | None,
    options: RunOptions,
    export_path: str | os.PathLike[str],
) -> RunPtq:
    path = model.path if isinstance(model, ModelInfo) else os.fspath(model)
    return options.request(path, _spec(data), recipe if recipe is not None else Recipe(), os.fspath(export_path))


def _spec(data: Any) -> DataSpec:
    if isinstance(data, DataSpec):
        return data
    if isinstance(data, (str, os.PathLike)):
        return DataSpec(os.fspath(data))
    try:
        return _SPECS[data]
    except (KeyError, TypeError):
        fix = "Give a name, a path, a DataSpec, or what qstudio.load_dataset returned"
        raise UserError(f"{type(data).__name__} is not data", "data", fix) from None


def _channels(value: float | Sequence[float] | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    return (float(value),) if isinstance(value, (int, float)) else tuple(float(item) for item in value)
