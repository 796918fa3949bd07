"""Jobs: one pure function `(request, ctx) -> result` for each request, found by the request's type name.

The table holds import strings, so that the GUI process can read it without loading torch or onnx, and so that opening
a model does not wait for what only a run needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from qstudio.core.context import JobContext

JobFunction = Callable[[Any, JobContext], Any]


@dataclass(frozen=True)
class JobSpec:
    """Where a request's function is and how it is treated."""

    function: str
    """"package.module:function"."""
    title: str
    """What the job does, for sentences: "opening the model"."""
    process: str = "inspect"
    """"inspect" or "run"."""
    urgent: bool = False
    """Short and waited for: goes before the others, and in between when one that is not urgent is running."""
    live: bool = False
    """Answers what the person does now, in a second or so: goes before the others and in between, after the urgent."""

    @property
    def rank(self) -> int:
        """2 urgent, 1 live, 0 the rest: a job goes in between when one of lower rank is running."""
        return 2 if self.urgent else int(self.live)


JOBS: dict[str, JobSpec] = {
    "OpenModel": JobSpec("qstudio.engine.jobs.models:open_model", "opening the model", urgent=True),
    "WeightStatistics": JobSpec("qstudio.engine.jobs.models:weight_statistics", "reading the weights", urgent=True),
    "OpenDataset": JobSpec("qstudio.engine.jobs.datasets:open_dataset", "opening the data", urgent=True),
    "LookAtSamples": JobSpec("qstudio.engine.jobs.datasets:look_at_samples", "looking at samples", urgent=True),
    "FloatAccuracy": JobSpec("qstudio.engine.jobs.measure:float_accuracy", "measuring the float accuracy"),
    "ActivationStatistics": JobSpec("qstudio.engine.jobs.measure:activation_statistics", "collecting activations"),
    "LayerPreview": JobSpec("qstudio.engine.jobs.models:layer_preview", "previewing the layer", urgent=True),
    "PreviewAccuracy": JobSpec("qstudio.engine.jobs.preview:preview_accuracy", "previewing the recipe", live=True),
    "ErrorOverDepth": JobSpec("qstudio.engine.jobs.preview:error_over_depth", "measuring the error over depth"),
    "RunPtq": JobSpec("qstudio.engine.jobs.ptq:run_ptq", "running PTQ", process="run"),
    "TrainQat": JobSpec("qstudio.engine.jobs.training:train_qat", "training", process="run"),
    "Sensitivity": JobSpec(
        "qstudio.engine.jobs.sensitivity:sensitivity", "measuring the sensitivity of layers", process="run"
    ),
    "SearchBits": JobSpec("qstudio.engine.jobs.search:search_bits", "searching bits", process="run"),
    "Benchmark": JobSpec("qstudio.engine.jobs.measure:benchmark", "measuring the latency", process="run"),
    "TraceSample": JobSpec("qstudio.engine.jobs.pictures:trace_sample", "tracing the sample", live=True),
    "PictureWeights": JobSpec("qstudio.engine.jobs.pictures:picture_weights", "drawing the weight", urgent=True),
    "ListDevices": JobSpec("qstudio.engine.jobs.measure:list_devices", "looking for devices"),
}
"""Request type name -> job."""


def register(
    request_type: type, function: str, title: str, process: str = "inspect", urgent: bool = False, live: bool = False
) -> None:
    """Enter a request of one's own in the table.

    Call it at the top level of the module that defines the request type: reading the request in the engine's process
    imports that module, and so makes the job known there too.
    """
    JOBS[request_type.__name__] = JobSpec(function, title, process, urgent, live)


def spec_of(request: Any) -> JobSpec:
    """Return the table's entry for a request.

    Raises:
        KeyError: There is no job for this type of request.
    """
    return JOBS[type(request).__name__]


def function_of(request: Any) -> JobFunction:
    """Import and return the function that does what a request asks (KeyError, ImportError, AttributeError)."""
    module, _, name = spec_of(request).function.partition(":")
    function: JobFunction = getattr(import_module(module), name)
    return function
