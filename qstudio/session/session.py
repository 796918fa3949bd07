"""The session: one model, one dataset, a recipe with its history, and the runs made with it. No Qt."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import FIELDS, LayerSettings, Recipe
from qstudio.core.results import Device, Metrics
from qstudio.core.size import quantized_bytes
from qstudio.core.statistics import SiteStatistics
from qstudio.core.training import Training
from qstudio.engine.client import EngineClient, Job
from qstudio.engine.messages import (
    DataSpec,
    JobState,
    ListDevices,
    OpenDataset,
    OpenModel,
    RunPtq,
    SamplePage,
    TrainQat,
    WeightPreview,
)
from qstudio.session.compare import Compare
from qstudio.session.diagnosis import Diagnosis
from qstudio.session.events import Event
from qstudio.session.findings import Findings
from qstudio.session.history import History
from qstudio.session.measurements import SLOTS, Measurements
from qstudio.session.notices import Notices
from qstudio.session.options import Notice, Run, RunOptions
from qstudio.session.pictures import Pictures
from qstudio.session.preview import Previews
from qstudio.session.project import Project
from qstudio.session.recipe_file import read_for_model, write_recipe
from qstudio.session.runs import Runs
from qstudio.session.script import python_script
from qstudio.session.search import Searches
from qstudio.session.sensitivity import Sweeps
from qstudio.session.timeline import Timeline
from qstudio.session.training import (
    Checkpoint,
    checkpoint_folder,
    holds_checkpoints,
    prune_checkpoints,
    read_checkpoint,
    remove_checkpoint,
)
from qstudio.session.work import Work


class Session:
    """What a person works on. Every method can be called from a script; the window only shows it.

    Work is asked of the engine and comes back through `EngineClient.dispatch`, in the caller's thread, as events.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self.history = History(Recipe())
        self._work = Work(engine)
        self._notices = notices = Notices(engine)
        self._measured = measured = Measurements(self._work, notices.tell)
        self._runs = Runs(engine, notices.tell_stopped)
        self.model: ModelInfo | None = None
        self.opening: str = ""
        """Path of the model being opened; empty when none is."""
        self.data_spec: DataSpec | None = None
        """How `dataset` was opened; kept from one model to the next, which opens it again for itself."""
        self._opening_data: DataSpec | None = None
        self.dataset: DatasetInfo | None = None
        self.options = self.default_options = RunOptions()
        self.selection: tuple[str, ...] = ()
        """Names of the selected layers; the first is the one the inspector shows."""
        self.training = Training()
        """How a training is asked for, besides recipe and options."""
        self.checkpoint_root = ""
        """Where the checkpoints of trainings are kept until they are done; empty = only while they run."""
        self.devices: tuple[Device, ...] = ()
        self._sized: tuple[ModelInfo, Recipe, int] | None = None
        """What `quantized_size_bytes` was asked for last: several panels ask at every edit."""
        self.saved_recipe: Recipe = self.history.recipe
        """The recipe as it was last opened, saved or loaded: what differs from it is not saved yet."""
        self.model_changed: Event[ModelInfo | None] = Event()
        self.dataset_changed: Event[DatasetInfo | None] = Event()
        self.recipe_changed: Event[Recipe] = Event()
        self.selection_changed: Event[tuple[str, ...]] = Event()
        self.statistics_changed: Event[str] = measured.statistics_changed
        """"weights", "activations" or "evaluation"."""
        self.preview_changed: Event[str] = measured.preview_changed
        """Name of the layer whose exact preview arrived."""
        self.float_metrics_changed: Event[Metrics | None] = measured.float_metrics_changed
        self.samples_changed: Event[SamplePage | None] = measured.samples_changed
        self.devices_changed: Event[tuple[Device, ...]] = Event()
        self.options_changed: Event[RunOptions] = Event()
        self.training_changed: Event[Training] = Event()
        self.runs_changed: Event[tuple[Run, ...]] = self._runs.changed
        self.run_selected: Event[int | None] = self._runs.selection_changed
        self.work_changed: Event[tuple[Job, ...]] = self._work.changed
        """Background jobs (opening, statistics, float accuracy) that are not final, with their progress."""
        self.notice_posted: Event[Notice] = notices.posted
        self.log_added: Event[str] = notices.log_added
        self.timeline = Timeline(self)
        self.project = Project(self)
        self.sensitivity = Sweeps(self, self._work, notices.tell)
        self.search = Searches(self, self._work, self._runs, notices.tell)
        self.preview = Previews(self, self._work)
        self.compare = Compare(self, self._work)
        self.pictures = Pictures(self, self._work)
        self.findings = Findings(self, self._work)
        self.diagnosis = Diagnosis(self)

    # ---- opening

    def open_model(self, path: str | os.PathLike[str]) -> Job:
        """Open a model; `model_changed` follows. The current model stays until the new one has been read."""
        self.opening = os.fspath(path)
        return self._work.submit("model", OpenModel(self.opening), self._on_model, repeat=False)

    def _on_model(self, job: Job) -> None:
        self.opening = ""
        if not isinstance(job.value, ModelInfo):
            self._notices.tell(job, "The model was not opened")
            return
        data = self._opening_data or self.data_spec
        self._work.cancel("weights", "dataset", *SLOTS)
        self.model = job.value
        self._measured.forget_model(job.value)
        self.history.begin(Recipe(), job.value.name)
        self.saved_recipe = self.history.recipe
        self.selection = tuple(layer.name for layer in self.model.weighted_layers[:1])
        self._set_dataset(None)
        self.model_changed.emit(self.model)
        self.recipe_changed.emit(self.recipe)
        self.selection_changed.emit(self.selection)
        self._measured.collect_missing_weights(self.model)
        if data is not None:
            self.open_data(data)

    def open_data(self, spec: DataSpec | str) -> Job:
        """Open a dataset for the model; samples, float accuracy and activation statistics follow by themselves.

        The current dataset stays until the new one has been read and found to fit the model.
        """
        wanted = self._opening_data = DataSpec(spec) if isinstance(spec, str) else spec
        self._work.cancel(*SLOTS)  # the engine is free for the new data at once
        request = OpenDataset(wanted, self.model.path if self.model else "")
        return self._work.submit("dataset", request, lambda job: self._on_dataset(wanted, job))

    def _on_dataset(self, spec: DataSpec, job: Job) -> None:
        self._opening_data = None
        if isinstance(job.value, DatasetInfo):
            self.data_spec = spec
            self._set_dataset(job.value)
        else:
            if self.dataset is None:
                self.data_spec = None
            self._notices.tell(job, "The data was not opened")
        self._measure_what_is_missing()

    def _measure_what_is_missing(self) -> None:
        """Measure what belongs to the open model and data and is not there: all of it, or what was interrupted."""
        if self.model is None or self.dataset is None or not self.model.runnable:
            return
        model, data = self._need_data()
        self._measured.measure_missing(model, data, self.options, self.dataset.sizes["test"])

    def _set_dataset(self, dataset: DatasetInfo | None) -> None:
        self.dataset = dataset
        self._measured.forget_data()
        self.dataset_changed.emit(dataset)
        self._measured.tell_forgotten()

    def show_samples(self, indices: tuple[int, ...]) -> Job:
        """Fetch samples of the evaluation split as the network sees them; `samples_changed` follows."""
        model, data = self._need_data()
        return self._measured.show_samples(model, data, indices)

    def measure_float(self) -> Job:
        """Measure the float model on the evaluation samples; `float_metrics_changed` follows as it goes."""
        model, data = self._need_data()
        return self._measured.measure_float(model, data, self.options)

    def collect_activations(self) -> Job:
        """Run the calibration samples through the float model once; `statistics_changed` follows."""
        model, data = self._need_data()
        return self._measured.collect_activations(model, data, self.options)

    def collect_evaluation(self) -> Job:
        """Run the evaluation samples through the float model once; `statistics_changed("evaluation")` follows."""
        model, data = self._need_data()
        return self._measured.collect_evaluation(model, data, self.options)

    @property
    def evaluation_statistics(self) -> dict[str, SiteStatistics]:
        """Statistics of the activations over the evaluation samples, by site; empty until they are collected."""
        return self._measured.evaluation

    @property
    def weight_statistics(self) -> dict[str, SiteStatistics]:
        """Statistics of the weights, by site."""
        return self._measured.weights

    @property
    def activation_statistics(self) -> dict[str, SiteStatistics]:
        """Statistics of the activations, by site."""
        return self._measured.activations

    @property
    def previews(self) -> dict[str, WeightPreview]:
        """Exact weight quantization by layer, for the scheme named inside."""
        return self._measured.previews

    @property
    def float_metrics(self) -> Metrics | None:
        """The float model's accuracy, as far as it is measured."""
        return self._measured.float_metrics

    @property
    def sample_page(self) -> SamplePage | None:
        """The samples fetched last."""
        return self._measured.page

    def list_devices(self) -> Job:
        """Ask which devices there are; `devices_changed` follows."""
        return self._work.submit("devices", ListDevices(), self._on_devices)

    def _on_devices(self, job: Job) -> None:
        if job.state is JobState.DONE:
            self.devices = job.value
            self.devices_changed.emit(self.devices)
        else:
            self._notices.tell(job, "The devices could not be listed")

    # ---- selecting

    def select(self, layers: tuple[str, ...] | list[str]) -> None:
        """Select layers by name; unknown names are ignored."""
        known = {layer.name for layer in self.model.layers} if self.model else set()
        selection = tuple(name for name in layers if name in known)
        if selection != self.selection:
            self.selection = selection
            self.selection_changed.emit(selection)

    @property
    def current_layer(self) -> LayerInfo | None:
        """The layer the inspector shows."""
        return self.model.layer(self.selection[0]) if self.model and self.selection else None

    # ---- choosing

    @property
    def recipe(self) -> Recipe:
        """The recipe as it stands."""
        return self.history.recipe

    @property
    def undo_label(self) -> str | None:
        """Name of the edit that `undo` takes back."""
        return self.history.undo_label

    @property
    def redo_label(self) -> str | None:
        """Name of the edit that `redo` brings back."""
        return self.history.redo_label

    def settings(self, layer: str) -> LayerSettings:
        """Return a layer's settings under the current recipe."""
        return self.recipe.settings(layer)

    def edit(self, label: str, recipe: Recipe, merge_key: str | None = None, source: int | None = None) -> None:
        """Make `recipe` the current one, as one undoable step (or as part of the running drag named by merge_key).

        `source` names the edit whose recipe is restored: the timeline branches there.
        """
        if self.history.push(label, recipe, merge_key, source):
            self.recipe_changed.emit(recipe)

    def end_drag(self) -> None:
        """End a merged edit: what follows is a step of its own."""
        self.history.seal()

    def set_layers(self, label: str, layers: tuple[str, ...], merge_key: str | None = None, **values: Any) -> None:
        """Set fields of layers, for example `weight_bits=4`.

        Raises:
            UserError: A field does not exist or a value does not fit it.
        """
        self.edit(label, self.recipe.with_layers(layers, **values), merge_key)

    def reset_layers(self, layers: tuple[str, ...], names: tuple[str, ...] = FIELDS) -> None:
        """Let layers inherit the named fields again."""
        self.edit("Reset layers" if len(layers) > 1 else "Reset layer", self.recipe.without(layers, names))

    def undo(self) -> None:
        """Take back the last edit."""
        if self.history.undo() is not None:
            self.recipe_changed.emit(self.recipe)

    def redo(self) -> None:
        """Bring back the edit taken back last."""
        if self.history.redo() is not None:
            self.recipe_changed.emit(self.recipe)

    def save_recipe(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe as JSON (to a temporary name first); `recipe_changed` follows, as it is saved now.

        Raises:
            UserError: The file cannot be written.
        """
        write_recipe(self.recipe, path)
        self.saved_recipe = self.recipe
        self.recipe_changed.emit(self.recipe)

    def load_recipe(self, path: str | os.PathLike[str]) -> None:
        """Read a recipe, or the encodings of another tool, and make it current, as one undoable step.

        Raises:
            UserError: The file cannot be read, is neither, or its encodings belong to another model.
        """
        recipe, notes = read_for_model(path, self.model, self.recipe)
        for note in notes:
            self.notice_posted.emit(Notice("info", f"{os.path.basename(path)}: {note}."))
        self._notices.warn_of_strangers(recipe, self.model)
        self.saved_recipe = recipe
        self.edit("Load recipe", recipe)

    # ---- figures at once

    def quantized_size_bytes(self) -> int:
        """Return the packed size of the model under the current recipe; 0 without a model."""
        if self.model is None:
            return 0
        if self._sized is None or self._sized[0] is not self.model or self._sized[1] is not self.recipe:
            self._sized = (self.model, self.recipe, quantized_bytes(self.model, self.recipe.settings))
        return self._sized[2]

    def request_preview(self, layer: str) -> None:
        """Ask for the exact quantization of a layer's weight under its current scheme; `preview_changed` follows."""
        if self.model is not None and self.model.layer(layer).weight is not None:
            self._measured.preview(self.model, layer, self.settings(layer).weight_scheme())

    # ---- running

    def set_options(self, **values: Any) -> None:
        """Change run options; figures that depend on them are measured again.

        Raises:
            UserError: A number is out of bounds.
        """
        before = self.options
        self.options = replace(before, **values)
        if self.options == before:
            return
        self.options_changed.emit(self.options)
        if self.dataset is None or self.model is None or not self.model.runnable:
            return
        changed = {name for name, value in vars(self.options).items() if getattr(before, name) != value}
        drawn = {"calibration_samples", "calibration_data", "calibration_choice", "seed"}
        # Where the data has one split, what is calibrated on is not evaluated on: both draw from the same choice.
        if changed & (drawn | {"eval_samples"}):
            self.measure_float()
            self._measured.forget_evaluation()
        if changed & drawn:
            self.collect_activations()

    @property
    def run_blocked(self) -> str:
        """Why a run cannot start now, in words; empty when it can."""
        if self.model is None:
            return "Open a model first"
        if self.model.unsupported:
            node, operator, _ = self.model.unsupported[0]
            return f"The model has an operator that cannot run: {operator} ({node})"
        if self.dataset is None:
            return "The data is being opened" if self._work.is_busy("dataset") else "Choose a dataset first"
        if self.running is not None:
            return "A run is in progress"
        if self.sensitivity.running:
            return "The sensitivity is being measured"
        return "A search is in progress" if self.search.running else ""

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, in the order they were started."""
        return self._runs.all

    @property
    def selected_run(self) -> int | None:
        """Number of the selected run."""
        return self._runs.selected

    @property
    def running(self) -> Run | None:
        """The run in progress."""
        return self._runs.running

    def run_ptq(self, export_path: str = "") -> Run:
        """Start PTQ with the current recipe and options.

        Raises:
            UserError: There is no model or data, or a run is in progress.
        """
        if self.run_blocked or self.model is None or self.dataset is None:
            raise UserError(self.run_blocked, "run")
        return self._runs.start(self._request(export_path), self.model, self.dataset, self.options)

    # ---- training

    def set_training(self, **values: Any) -> None:
        """Change how a training is asked for; `training_changed` follows.

        Raises:
            UserError: A value is out of its bounds.
        """
        training = replace(self.training, **values)
        if training != self.training:
            self.training = training
            self.training_changed.emit(training)

    @property
    def train_blocked(self) -> str:
        """Why a training cannot start now, in words; empty when it can."""
        if self.run_blocked or self.dataset is None:
            return self.run_blocked
        if self.options.calibration_data is None and "train" not in self.dataset.sizes:
            return "The data has no training split: open data that has one"
        if self.options.calibration_data is None and not self.dataset.has_labels and not self.training.distill:
            return "The data has no labels: set the distillation share above 0"
        if self.training.batchnorm != "folded" and "fold" not in self.recipe.refinements:
            return "BatchNorm that training keeps is folded at the end: switch on the refinement Fold BatchNorm"
        return ""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The unfinished training of exactly what is chosen now; None when there is none."""
        if not holds_checkpoints(self.checkpoint_root):
            return None
        folder = self._checkpoint_folder()
        return read_checkpoint(folder) if folder else None

    def _checkpoint_folder(self) -> str:
        if not self.checkpoint_root or self.model is None or self.dataset is None:
            return ""
        return checkpoint_folder(self.checkpoint_root, self._request(), self.training, self.model, self.dataset)

    def train(self, export_path: str = "", *, resume: bool = False, further: bool = True) -> Run:
        """Start a training with the current recipe, options and training settings, then measure as `run_ptq` does.

        The states after each epoch are kept under `checkpoint_root` until the run is done, so that one that was
        cancelled or killed can go on.

        Args:
            export_path: Where the quantized ONNX model is kept; empty = it is measured and removed.
            resume: Go on from `checkpoint`; else a checkpoint that is there is discarded.
            further: Train what is missing; else measure the best epoch of the checkpoint.

        Raises:
            UserError: Model, data, training samples or the checkpoint are missing, or a run is in progress.
        """
        if self.train_blocked or self.model is None or self.dataset is None:
            raise UserError(self.train_blocked, "train")
        before = self.checkpoint
        if resume and before is None:
            raise UserError("there is no checkpoint of what is chosen now", "train", "Train from the start")
        folder = self._checkpoint_folder()
        if folder and not resume:
            remove_checkpoint(folder)
            prune_checkpoints(self.checkpoint_root)
        request = TrainQat(self._request(export_path), self.training, folder, resume, further)
        curve = before.curve if resume and before else ()
        return self._runs.start(request, self.model, self.dataset, self.options, curve)

    def _request(self, export_path: str = "") -> RunPtq:
        model, data = self._need_data()
        return self.options.request(model.path, data, self.recipe, export_path)

    def run(self, number: int) -> Run:
        """Return a run by its number (KeyError when there is none)."""
        return self._runs.find(number)

    def cancel_run(self) -> None:
        """Ask the run in progress to stop; what it has measured is kept."""
        self._runs.cancel()

    def force_stop_run(self) -> None:
        """End the run's process; the run is marked KILLED and what it has measured is kept."""
        self._runs.force_stop()

    def select_run(self, number: int | None) -> None:
        """Select a run everywhere (KeyError when there is none of that number)."""
        self._runs.select(number)

    def restore_run(self, number: int) -> None:
        """Make a run's recipe the current one, as one undoable step; a trained run's settings come back with it."""
        run = self.run(number)
        if run.training is not None:
            self.set_training(**vars(run.training.settings))
        if run.request is not None:
            self._notices.warn_of_strangers(run.request.recipe, self.model)
            source = self.timeline.edit_of(number)
            self.edit(f"Restore recipe of {run.title}", run.request.recipe, source=source)

    def is_current(self, run: Run) -> bool:
        """Return whether running now would repeat this run: same model, data, recipe and options."""
        if self.model is None or self.dataset is None:
            return False
        if run.training is not None and (run.training.settings != self.training or not run.training.is_whole):
            return False
        return run.answers(self._request(), self.model, self.dataset)

    def as_python(self, number: int | None = None) -> str:
        """Return a script that gives the numbers of a run, or of what is chosen now.

        Raises:
            UserError: There is no model or no data.
        """
        run = None if number is None else self.run(number)
        if run is None or run.request is None:
            return python_script(self._request())
        return python_script(run.request, run.training)

    # ---- plumbing

    @property
    def work(self) -> tuple[Job, ...]:
        """Background jobs that are not final."""
        return self._work.jobs

    def cancel_work(self) -> None:
        """Ask all background jobs to stop."""
        self._work.cancel()

    def force_stop_work(self) -> None:
        """End the process of the background jobs that were asked to stop and did not."""
        self._work.force_stop()

    def wait(self, timeout: float | None = None) -> None:
        """Handle what arrives until nothing is on its way any more (scripts and tests).

        Raises:
            TimeoutError: Something still was after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while pending := [*self._work.untold, *((job,) if (job := self._running_job) else ())]:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            self._engine.wait(pending[0], left)

    @property
    def _running_job(self) -> Job | None:
        return self._runs.job(self.running.id) if self.running else None

    def close(self) -> None:
        """Let go of the project and shut the engine down."""
        self.project.close()
        self._engine.close()

    def _need_data(self) -> tuple[ModelInfo, DataSpec]:
        if self.model is None:
            raise UserError("no model is open", "session", "Open a model first")
        if self.data_spec is None:
            raise UserError("no data is open", "session", "Choose a dataset first")
        return self.model, self.data_spec
