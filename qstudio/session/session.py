"""The session: one model, one dataset, a recipe with its history, and the runs made with it. No Qt."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import FIELDS, LayerSettings, Recipe
from qstudio.core.results import Device, Metrics, RunResult
from qstudio.core.size import quantized_bytes
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.client import EngineClient, Job
from qstudio.engine.messages import (
    ActivationStatistics,
    DataSpec,
    FloatAccuracy,
    JobState,
    LayerPreview,
    ListDevices,
    LookAtSamples,
    OpenDataset,
    OpenModel,
    PtqPartial,
    RunPtq,
    SamplePage,
    WeightPreview,
    WeightStatistics,
)
from qstudio.session.events import Event
from qstudio.session.history import History
from qstudio.session.options import Notice, Run, RunOptions


class Session:
    """What a person works on. Every method can be called from a script; the window only shows it.

    Work is asked of the engine and comes back through `EngineClient.dispatch`, in the caller's thread, as events.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._history = History(Recipe())
        self._preview_jobs: dict[str, Job] = {}
        self._run_jobs: dict[int, Job] = {}
        self._jobs: dict[str, Job] = {}
        self.model: ModelInfo | None = None
        self.opening: str = ""
        """Path of the model being opened; empty when none is."""
        self.data_spec: DataSpec | None = None
        self.dataset: DatasetInfo | None = None
        self.options = RunOptions()
        self.selection: tuple[str, ...] = ()
        """Names of the selected layers; the first is the one the inspector shows."""
        self.weight_statistics: dict[str, SiteStatistics] = {}
        self.activation_statistics: dict[str, SiteStatistics] = {}
        self.previews: dict[str, WeightPreview] = {}
        """Exact weight quantization by layer, for the scheme named inside."""
        self.float_metrics: Metrics | None = None
        self.sample_page: SamplePage | None = None
        self.devices: tuple[Device, ...] = ()
        self.runs: tuple[Run, ...] = ()
        self.selected_run: int | None = None
        self.saved_recipe: Recipe = self._history.recipe
        self.model_changed: Event[ModelInfo | None] = Event()
        self.dataset_changed: Event[DatasetInfo | None] = Event()
        self.recipe_changed: Event[Recipe] = Event()
        self.selection_changed: Event[tuple[str, ...]] = Event()
        self.statistics_changed: Event[str] = Event()
        """"weights" or "activations"."""
        self.preview_changed: Event[str] = Event()
        """Name of the layer whose exact preview arrived."""
        self.float_metrics_changed: Event[Metrics | None] = Event()
        self.samples_changed: Event[SamplePage | None] = Event()
        self.devices_changed: Event[tuple[Device, ...]] = Event()
        self.options_changed: Event[RunOptions] = Event()
        self.runs_changed: Event[tuple[Run, ...]] = Event()
        self.run_selected: Event[int | None] = Event()
        self.work_changed: Event[tuple[Job, ...]] = Event()
        """Background jobs (opening, statistics, float accuracy) that are not final, with their progress."""
        self.notice_posted: Event[Notice] = Event()
        self.log_added: Event[str] = Event()
        engine.on_log = self._on_log
        engine.on_process_died = self._on_process_died

    # ---- opening

    def open_model(self, path: str | os.PathLike[str]) -> Job:
        """Open a model; `model_changed` follows. The current model stays until the new one has been read."""
        self.opening = os.fspath(path)
        return self._submit("model", OpenModel(os.fspath(path)), self._on_model)

    def _on_model(self, job: Job) -> None:
        self.opening = ""
        if not isinstance(job.value, ModelInfo):
            self._tell(job, "The model was not opened")
            return
        self._close_model()
        self.model = job.value
        self._history = History(Recipe())
        self.saved_recipe = self._history.recipe
        self.selection = tuple(layer.name for layer in self.model.weighted_layers[:1])
        self.model_changed.emit(self.model)
        self.recipe_changed.emit(self.recipe)
        self.selection_changed.emit(self.selection)
        self._submit("weights", WeightStatistics(self.model.path), self._on_weights, self._on_weight_partial)
        if self.data_spec is not None:
            self.open_data(self.data_spec)

    def _close_model(self) -> None:
        for slot in ("weights", "activations", "float", "samples"):
            if slot in self._jobs:
                self._engine.cancel(self._jobs[slot])
        self.weight_statistics, self.activation_statistics = {}, {}
        self.previews = {}
        self._set_dataset(None)

    def _on_weight_partial(self, value: SiteStatistics) -> None:
        self.weight_statistics[value.site] = value
        self.statistics_changed.emit("weights")

    def _on_weights(self, job: Job) -> None:
        if job.state is not JobState.DONE:
            self._tell(job, "The weights could not be read")
            return
        self.weight_statistics = {statistics.site: statistics for statistics in job.value}
        self.statistics_changed.emit("weights")

    def open_data(self, spec: DataSpec | str) -> Job:
        """Open a dataset for the model; samples, float accuracy and activation statistics follow by themselves."""
        self.data_spec = DataSpec(spec) if isinstance(spec, str) else spec
        model = self.model.path if self.model else ""
        return self._submit("dataset", OpenDataset(self.data_spec, model), self._on_dataset)

    def _on_dataset(self, job: Job) -> None:
        if not isinstance(job.value, DatasetInfo):
            self.data_spec = None
            self._set_dataset(None)
            self._tell(job, "The data was not opened")
            return
        self._set_dataset(job.value)
        if self.model is not None and self.model.runnable:
            self.show_samples(tuple(range(24)))
            self.measure_float()
            self.collect_activations()

    def _set_dataset(self, dataset: DatasetInfo | None) -> None:
        self.dataset = dataset
        self.activation_statistics = {}
        self.float_metrics = None
        self.sample_page = None
        self.dataset_changed.emit(dataset)
        self.float_metrics_changed.emit(None)
        self.samples_changed.emit(None)
        self.statistics_changed.emit("activations")

    def show_samples(self, indices: tuple[int, ...]) -> Job:
        """Fetch samples of the evaluation split as the network sees them; `samples_changed` follows."""
        model, data = self._need_data()
        return self._submit("samples", LookAtSamples(model.path, data, indices), self._on_samples)

    def _on_samples(self, job: Job) -> None:
        if isinstance(job.value, SamplePage):
            self.sample_page = job.value
            self.samples_changed.emit(self.sample_page)
        else:
            self._tell(job, "The samples could not be shown")

    def measure_float(self) -> Job:
        """Measure the float model on the evaluation samples; `float_metrics_changed` follows as it goes."""
        model, data = self._need_data()
        request = FloatAccuracy(model.path, data, self.options.eval_samples, self.options.seed)
        return self._submit("float", request, self._on_float, self._set_float)

    def _on_float(self, job: Job) -> None:
        if isinstance(job.value, Metrics):
            self._set_float(job.value)
        else:
            self._tell(job, "The float accuracy could not be measured")

    def _set_float(self, metrics: Metrics) -> None:
        self.float_metrics = metrics
        self.float_metrics_changed.emit(metrics)

    def collect_activations(self) -> Job:
        """Run the calibration samples through the float model once; `statistics_changed` follows."""
        model, data = self._need_data()
        options = self.options
        request = ActivationStatistics(
            model.path, data, options.calibration_data, options.calibration_samples, options.seed
        )
        return self._submit("activations", request, self._on_activations)

    def _on_activations(self, job: Job) -> None:
        if job.state is not JobState.DONE:
            self._tell(job, "The activations could not be collected")
            return
        self.activation_statistics = {statistics.site: statistics for statistics in job.value}
        self.statistics_changed.emit("activations")

    def list_devices(self) -> Job:
        """Ask which devices there are; `devices_changed` follows."""
        return self._submit("devices", ListDevices(), self._on_devices)

    def _on_devices(self, job: Job) -> None:
        if job.state is JobState.DONE:
            self.devices = job.value
            self.devices_changed.emit(self.devices)

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
        return self._history.recipe

    @property
    def undo_label(self) -> str | None:
        """Name of the edit that `undo` takes back."""
        return self._history.undo_label

    @property
    def redo_label(self) -> str | None:
        """Name of the edit that `redo` brings back."""
        return self._history.redo_label

    def settings(self, layer: str) -> LayerSettings:
        """Return a layer's settings under the current recipe."""
        return self.recipe.settings(layer)

    def edit(self, label: str, recipe: Recipe, merge_key: str | None = None) -> None:
        """Make `recipe` the current one, as one undoable step (or as part of the running drag named by merge_key)."""
        if self._history.push(label, recipe, merge_key):
            self.recipe_changed.emit(recipe)

    def end_drag(self) -> None:
        """End a merged edit: what follows is a step of its own."""
        self._history.seal()

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
        if self._history.undo() is not None:
            self.recipe_changed.emit(self.recipe)

    def redo(self) -> None:
        """Bring back the edit taken back last."""
        if self._history.redo() is not None:
            self.recipe_changed.emit(self.recipe)

    def save_recipe(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe as JSON (to a temporary name first).

        Raises:
            UserError: The file cannot be written.
        """
        target = Path(path)
        temporary = target.with_name(target.name + ".part")
        try:
            temporary.write_text(json.dumps(self.recipe.to_json(), indent=2) + "\n", encoding="utf-8")
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            reason = error.strerror or str(error)
            raise UserError(f"the recipe was not saved ({reason})", str(target), "Choose another folder") from None
        self.saved_recipe = self.recipe

    def load_recipe(self, path: str | os.PathLike[str]) -> None:
        """Read a recipe and make it current, as one undoable step.

        Raises:
            UserError: The file cannot be read or is not a recipe.
        """
        recipe = read_recipe(path)
        if self.model is not None:
            known = {layer.name for layer in self.model.layers}
            strange = [name for name, _ in recipe.overrides if name not in known]
            if strange:
                self.notice_posted.emit(
                    Notice(
                        "warning",
                        f"{len(strange)} layers of the recipe are not in this model: {', '.join(strange[:3])}.",
                    )
                )
        self.edit("Load recipe", recipe)
        self.saved_recipe = self.recipe

    # ---- figures at once

    def quantized_size_bytes(self) -> int:
        """Return the packed size of the model under the current recipe; 0 without a model."""
        return quantized_bytes(self.model, self.settings) if self.model else 0

    def request_preview(self, layer: str) -> None:
        """Ask for the exact quantization of a layer's weight under its current scheme; `preview_changed` follows."""
        if self.model is None or self.model.layer(layer).weight is None:
            return
        scheme = self.settings(layer).weight_scheme()
        known = self.previews.get(layer)
        if scheme.is_float or (known is not None and known.scheme == scheme):
            return
        self._submit(f"preview {layer}", LayerPreview(self.model.path, layer, scheme), self._on_preview)

    def _on_preview(self, job: Job) -> None:
        if isinstance(job.value, WeightPreview):
            self.previews[job.value.layer] = job.value
            self.preview_changed.emit(job.value.layer)
        else:
            self._tell(job, "The layer could not be previewed")

    # ---- running

    def set_options(self, **values: Any) -> None:
        """Change run options; figures that depend on them are measured again."""
        before = self.options
        self.options = replace(before, **values)
        if self.options == before:
            return
        self.options_changed.emit(self.options)
        if self.dataset is None or self.model is None or not self.model.runnable:
            return
        if before.eval_samples != self.options.eval_samples or before.seed != self.options.seed:
            self.measure_float()
        calibration = ("calibration_samples", "seed", "calibration_data")
        if any(getattr(before, name) != getattr(self.options, name) for name in calibration):
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
            return "Choose a dataset first"
        if self.running is not None:
            return "A run is in progress"
        return ""

    @property
    def running(self) -> Run | None:
        """The run in progress."""
        return next((run for run in self.runs if not run.state.is_final), None)

    def run_ptq(self, export_path: str = "") -> Run:
        """Start PTQ with the current recipe and options.

        Raises:
            UserError: There is no model or data, or a run is in progress.
        """
        if self.run_blocked:
            raise UserError(self.run_blocked, "run")
        model, data = self._need_data()
        options = self.options
        request = RunPtq(
            model.path,
            data,
            self.recipe,
            options.calibration_data,
            options.calibration_samples,
            options.eval_samples,
            options.seed,
            options.device,
            export_path,
            options.measure_latency,
            options.latency_batch,
            options.threads,
        )
        number = len(self.runs) + 1
        run = Run(
            number,
            f"Run {number}",
            JobState.QUEUED,
            None,
            model.path,
            data.source,
            options,
            time.time(),
            recipe_hash=self.recipe.sha256(),
        )
        self._put_run(run)
        job = self._engine.submit(
            request,
            on_finished=lambda job: self._on_run_finished(number, job),
            on_partial=lambda value: self._on_run_partial(number, value),
            on_progress=lambda progress: self._change_run(number, progress=progress),
            on_state=lambda job: self._change_run(number, state=job.state),
        )
        self._run_jobs[number] = job
        return run

    def _put_run(self, run: Run) -> None:
        others = tuple(other for other in self.runs if other.id != run.id)
        self.runs = tuple(sorted((*others, run), key=lambda r: r.id))
        self.runs_changed.emit(self.runs)

    def run(self, number: int) -> Run:
        """Return a run by its number (KeyError when there is none)."""
        for run in self.runs:
            if run.id == number:
                return run
        raise KeyError(number)

    def _change_run(self, number: int, **values: Any) -> None:
        self._put_run(replace(self.run(number), **values))

    def _on_run_partial(self, number: int, value: PtqPartial) -> None:
        self._change_run(number, result=value.result, phase=value.phase)

    def _on_run_finished(self, number: int, job: Job) -> None:
        run = self.run(number)
        result = job.value if isinstance(job.value, RunResult) else run.result
        error = job.error.sentence() if job.error else ""
        self._run_jobs.pop(number, None)
        self._change_run(number, state=job.state, result=result, progress=None, error=error)
        if job.state is JobState.DONE:
            self.select_run(number)
        else:
            self._tell(job, f"{run.title} stopped")

    def cancel_run(self) -> None:
        """Ask the run in progress to stop; what it has measured is kept."""
        if self.running is not None:
            self._engine.cancel(self._run_jobs[self.running.id])

    def force_stop_run(self) -> None:
        """End the run's process; the run is marked KILLED and what it has measured is kept."""
        if self.running is not None:
            self._engine.force_stop(self._run_jobs[self.running.id])

    def select_run(self, number: int | None) -> None:
        """Select a run everywhere."""
        self.selected_run = number
        self.run_selected.emit(number)

    def restore_run(self, number: int) -> None:
        """Make a run's recipe the current one, as one undoable step."""
        run = self.run(number)
        if run.result is not None:
            self.edit(f"Restore recipe of {run.title}", run.result.recipe)

    def is_current(self, run: Run) -> bool:
        """Return whether a run was made with the recipe, model and data that are open now."""
        return (
            self.model is not None
            and run.model == self.model.path
            and self.data_spec is not None
            and run.data == self.data_spec.source
            and run.recipe_hash == self.recipe.sha256()
        )

    # ---- plumbing

    @property
    def work(self) -> tuple[Job, ...]:
        """Background jobs that are not final."""
        return tuple(job for job in self._jobs.values() if not job.state.is_final)

    def cancel_work(self) -> None:
        """Ask all background jobs to stop."""
        for job in self.work:
            self._engine.cancel(job)

    def close(self) -> None:
        """Shut the engine down."""
        self._engine.close()

    def _need_data(self) -> tuple[ModelInfo, DataSpec]:
        if self.model is None:
            raise UserError("no model is open", "session", "Open a model first")
        if self.data_spec is None:
            raise UserError("no data is open", "session", "Choose a dataset first")
        return self.model, self.data_spec

    def _submit(self, slot: str, request: Any, finished: Any, partial: Any = None) -> Job:
        def on_finished(job: Job) -> None:
            if self._jobs.get(slot) is job:
                del self._jobs[slot]
            finished(job)
            self.work_changed.emit(self.work)

        job = self._engine.submit(
            request,
            slot=slot,
            on_finished=on_finished,
            on_partial=partial,
            on_progress=lambda _progress: self.work_changed.emit(self.work),
        )
        self._jobs[slot] = job
        self.work_changed.emit(self.work)
        return job

    def _tell(self, job: Job, headline: str) -> None:
        """Post what went wrong with a job; a cancelled one is the person's own wish and stays quiet."""
        if job.error is not None:
            self.notice_posted.emit(Notice("error", f"{headline}. {job.error.sentence()}", job.error.details))
        elif job.state is JobState.KILLED:
            self.notice_posted.emit(Notice("error", f"{headline}: its process was ended."))

    def _on_log(self, process: str, line: str) -> None:
        self.log_added.emit(f"{process}: {line}")

    def _on_process_died(self, process: str, sentence: str) -> None:
        self.log_added.emit(f"{process}: {sentence}")
        self.notice_posted.emit(Notice("warning", sentence))


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from a JSON file.

    Raises:
        UserError: The file cannot be read or is not a recipe.
    """
    name = os.fspath(path)
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror})", name, "Check the path") from None
    except ValueError:
        raise UserError("this is not a JSON file", name, "Choose a recipe saved by QStudio") from None
    try:
        return Recipe.from_json(data)
    except UserError as error:
        raise UserError(error.what, name, error.fix) from None
