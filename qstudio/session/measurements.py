"""What is known of the open model and data without a run: statistics, float accuracy, samples, previews."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qstudio.core.model_info import ModelInfo
from qstudio.core.results import Metrics
from qstudio.core.scheme import Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.client import Job
from qstudio.engine.messages import (
    ActivationStatistics,
    DataSpec,
    FloatAccuracy,
    JobState,
    LayerPreview,
    LookAtSamples,
    SamplePage,
    WeightPreview,
    WeightStatistics,
)
from qstudio.session.events import Event
from qstudio.session.options import RunOptions
from qstudio.session.work import Work

SLOTS = ("samples", "float", "activations")
"""Slots of what is measured by itself once model and data are open."""


class Measurements:
    """Asked of the engine piece by piece, kept until model or data change."""

    def __init__(self, work: Work, tell: Callable[[Job, str], None]) -> None:
        """`tell` is called with a job that did not end as wished and a headline for it."""
        self._work = work
        self._tell = tell
        self.weights: dict[str, SiteStatistics] = {}
        self.activations: dict[str, SiteStatistics] = {}
        self.evaluation: dict[str, SiteStatistics] = {}
        self.previews: dict[str, WeightPreview] = {}
        self.float_metrics: Metrics | None = None
        self._float_is_final = False
        self.page: SamplePage | None = None
        self._model: ModelInfo | None = None
        self.statistics_changed: Event[str] = Event()
        self.preview_changed: Event[str] = Event()
        self.float_metrics_changed: Event[Metrics | None] = Event()
        self.samples_changed: Event[SamplePage | None] = Event()

    def recall(self, kind: str, statistics: dict[str, SiteStatistics]) -> None:
        """Take over statistics of the open model and data ("weights", "activations"); they are told with the rest."""
        setattr(self, kind, statistics)

    def forget_model(self, model: ModelInfo | None) -> None:
        """Begin anew for another model, or without one."""
        self._model = model
        self.weights, self.previews = {}, {}

    def forget_data(self) -> None:
        """Begin anew for other data."""
        self.activations, self.evaluation = {}, {}
        self.page = None
        self._float_is_final = False
        self.float_metrics = None

    def tell_forgotten(self) -> None:
        """Tell that of the data only is known what was recalled."""
        self.float_metrics_changed.emit(self.float_metrics)
        self.samples_changed.emit(self.page)
        self.statistics_changed.emit("activations")

    def measure_missing(self, model: ModelInfo, data: DataSpec, options: RunOptions, samples: int) -> None:
        """Measure what is not there: all of it, or what was interrupted.

        Args:
            model: The open model.
            data: The open data.
            options: Which samples.
            samples: Number of evaluation samples there are to show.
        """
        if self.page is None:
            self.show_samples(model, data, tuple(range(min(24, samples))))
        if self.float_metrics is None or not self._float_is_final:
            self.measure_float(model, data, options)
        if not self.activations:
            self.collect_activations(model, data, options)

    # ---- weights

    def collect_missing_weights(self, model: ModelInfo) -> None:
        """Read the weights of a model, unless what is known of them was recalled."""
        if self.weights:
            self.statistics_changed.emit("weights")
        else:
            self.collect_weights(model)

    def collect_weights(self, model: ModelInfo) -> Job:
        """Read the weights of a model."""
        return self._work.submit("weights", WeightStatistics(model.path), self._on_weights, self._on_weight)

    def _on_weight(self, value: SiteStatistics) -> None:
        self.weights[value.site] = value
        self.statistics_changed.emit("weights")

    def _on_weights(self, job: Job) -> None:
        if job.state is not JobState.DONE:
            self._tell(job, "The weights could not be read")
            return
        self.weights = {statistics.site: statistics for statistics in job.value}
        self.statistics_changed.emit("weights")

    # ---- samples

    def show_samples(self, model: ModelInfo, data: DataSpec, indices: tuple[int, ...]) -> Job:
        """Fetch samples as the network sees them."""
        return self._work.submit("samples", LookAtSamples(model.path, data, indices), self._on_samples)

    def _on_samples(self, job: Job) -> None:
        if isinstance(job.value, SamplePage):
            self.page = job.value
            self.samples_changed.emit(self.page)
        else:
            self._tell(job, "The samples could not be shown")

    # ---- float accuracy

    def measure_float(self, model: ModelInfo, data: DataSpec, options: RunOptions) -> Job:
        """Measure the float model."""
        self._float_is_final = False
        request = FloatAccuracy(
            model.path,
            data,
            options.eval_samples,
            options.seed,
            options.calibration_data,
            options.calibration_samples,
            options.calibration_choice,
        )
        return self._work.submit("float", request, self._on_float, self._set_float)

    def _on_float(self, job: Job) -> None:
        if isinstance(job.value, Metrics):
            self._float_is_final = True
            self._set_float(job.value)
        else:
            self._tell(job, "The float accuracy could not be measured")

    def _set_float(self, metrics: Metrics) -> None:
        self.float_metrics = metrics
        self.float_metrics_changed.emit(metrics)

    # ---- activations

    def collect_activations(self, model: ModelInfo, data: DataSpec, options: RunOptions) -> Job:
        """Run the calibration samples through the float model once."""
        return self._work.submit("activations", _statistics_request(model, data, options), self._on_activations)

    def _on_activations(self, job: Job) -> None:
        if job.state is not JobState.DONE:
            self._tell(job, "The activations could not be collected")
            return
        self.activations = {statistics.site: statistics for statistics in job.value}
        self.statistics_changed.emit("activations")

    def collect_evaluation(self, model: ModelInfo, data: DataSpec, options: RunOptions) -> Job:
        """Run the evaluation samples through the float model once."""
        request = replace(_statistics_request(model, data, options), of="evaluation", eval_samples=options.eval_samples)
        return self._work.submit("evaluation", request, self._on_evaluation)

    def _on_evaluation(self, job: Job) -> None:
        if job.state is not JobState.DONE:
            self._tell(job, "The evaluation data could not be looked at")
            return
        self.evaluation = {statistics.site: statistics for statistics in job.value}
        self.statistics_changed.emit("evaluation")

    def forget_evaluation(self) -> None:
        """Forget the evaluation data's statistics: other samples are evaluated now."""
        self._work.cancel("evaluation")
        if self.evaluation:
            self.evaluation = {}
            self.statistics_changed.emit("evaluation")

    # ---- previews

    def preview(self, model: ModelInfo, layer: str, scheme: Scheme) -> None:
        """Ask for the exact quantization of a layer's weight, unless it is known or stays in float."""
        known = self.previews.get(layer)
        if scheme.is_float or (known is not None and known.scheme == scheme):
            return
        request = LayerPreview(model.path, layer, scheme)
        self._work.submit(f"preview {layer}", request, lambda job: self._on_preview(model, job))

    def _on_preview(self, model: ModelInfo, job: Job) -> None:
        if model is not self._model:
            return  # of a model that was closed meanwhile, which may have had a layer of the same name
        if isinstance(job.value, WeightPreview):
            self.previews[job.value.layer] = job.value
            self.preview_changed.emit(job.value.layer)
        else:
            self._tell(job, "The layer could not be previewed")


def _statistics_request(model: ModelInfo, data: DataSpec, options: RunOptions) -> ActivationStatistics:
    return ActivationStatistics(
        model.path,
        data,
        options.calibration_data,
        options.calibration_samples,
        options.seed,
        options.calibration_choice,
    )
