"""What a run is asked with besides the recipe, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.results import RunResult
from qstudio.core.sample_choice import check_choice, is_noise, noise_kind
from qstudio.core.storage import INT8, check_storage
from qstudio.engine.messages import DataSpec, JobState, Progress, RunPtq
from qstudio.session.training import TrainingRecord


@dataclass(frozen=True)
class RunOptions:
    """Settings of the run bar, of the command line's shared options and of `qstudio.quantize`.

    Raises:
        UserError: A number is out of bounds.
    """

    device: str = "cpu"
    calibration_samples: int = 512
    eval_samples: int | None = 1000
    """None = all."""
    seed: int = 0
    calibration_data: DataSpec | None = None
    measure_latency: bool = True
    latency_batch: int = 1
    threads: int = 0
    """Threads of onnxruntime; 0 = all cores."""
    storage: str = INT8
    """How the exported file stores weights below 8 bits; see `qstudio.core.storage`."""
    calibration_choice: str = "random"
    """How calibration samples are chosen; see `qstudio.core.sample_choice`."""

    def __post_init__(self) -> None:
        _at_least(1, self.calibration_samples, "calibration samples")
        if self.eval_samples is not None:
            _at_least(1, self.eval_samples, "evaluation samples")
        _at_least(0, self.seed, "seed")
        _at_least(1, self.latency_batch, "latency batch")
        _at_least(0, self.threads, "threads")
        check_storage(self.storage)
        check_choice(self.calibration_choice)
        if self.calibration_data is not None and is_noise(self.calibration_data.source):
            noise_kind(self.calibration_data.source)

    def request(self, model: str, data: DataSpec, recipe: Recipe, export_path: str = "") -> RunPtq:
        """Return the one message that asks the engine for this run: the same from window, script and command."""
        return RunPtq(
            model=model,
            data=data,
            recipe=recipe,
            calibration_data=self.calibration_data,
            calibration_samples=self.calibration_samples,
            calibration_choice=self.calibration_choice,
            eval_samples=self.eval_samples,
            seed=self.seed,
            device=self.device,
            export_path=export_path,
            measure_latency=self.measure_latency,
            latency_batch=self.latency_batch,
            threads=self.threads,
            storage=self.storage,
        )


def _at_least(least: int, value: int, name: str) -> None:
    if value < least:
        raise UserError(f"{value} is too small", name, f"Choose {least} or more")


@dataclass(frozen=True)
class Run:
    """A recorded experiment: append-only, replaced only while it is running."""

    id: int
    title: str
    state: JobState
    result: RunResult | None
    model: str
    """Path of the model."""
    data: str
    """Source of the data."""
    options: RunOptions
    started: float
    """Seconds since the epoch."""
    phase: str = ""
    progress: Progress | None = None
    error: str = ""
    recipe_hash: str = ""
    model_sha256: str = ""
    data_sha256: str = ""
    request: RunPtq | None = None
    """Everything the engine was asked with, apart from a training; what a script needs to get the same numbers."""
    training: TrainingRecord | None = None
    """What belongs to the training of a run that was trained; None after PTQ."""

    def answers(self, now: RunPtq, model: ModelInfo, dataset: DatasetInfo) -> bool:
        """Return whether asking `now` would only repeat this run.

        Where the exported file goes changes no number, and neither do the timing options while no timing is wanted.
        Model and data are known by their content too: a file that was overwritten is another one.
        """
        if self.request is None or (self.model_sha256, self.data_sha256) != (model.sha256, dataset.sha256):
            return False
        then = replace(self.request, model=now.model, export_path=now.export_path)
        if not now.measure_latency:
            then = replace(then, measure_latency=False, latency_batch=now.latency_batch, threads=now.threads)
        return then == now


@dataclass(frozen=True)
class Notice:
    """Something to tell the person: a sentence, and details one click away."""

    level: str
    """"info", "warning" or "error"."""
    text: str
    details: str = ""
    action: tuple[str, str] | None = None
    """What can be done about it at once: id of an action of the window, and the text of its button."""
