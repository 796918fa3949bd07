"""Everything that crosses the pipe: frozen, picklable, small. No tensors, no Qt, no torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.histogram import Histogram
from qstudio.core.inspection import DepthErrors, RecipeAccuracy
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics, RunResult
from qstudio.core.scheme import Scheme
from qstudio.core.search_result import SearchResult
from qstudio.core.search_settings import SearchSettings
from qstudio.core.sensitivity import Candidate, SensitivityCell
from qstudio.core.statistics import SiteStatistics
from qstudio.core.training import CurvePoint, Training


class JobState(enum.Enum):
    """Where a job is. CANCELLING work may still be running; KILLED means the process was ended by force or died."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    KILLED = "killed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.KILLED)


# ---- what can be asked. Requests name models and data; the process keeps what it has opened, so that after a restart
# ---- the same request simply works again.


@dataclass(frozen=True)
class DataSpec:
    """Which data, read how: the options of `qstudio.data.load.load_dataset`."""

    source: str
    """A path, or "digits"."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    """Divide uint8 values by this; None = 255."""
    size: tuple[int, int] | None = None
    layout: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class OpenModel:
    """Read a model and describe it -> ModelInfo."""

    path: str


@dataclass(frozen=True)
class WeightStatistics:
    """Histogram and channel ranges of every weight -> tuple[SiteStatistics, ...]; streams each as it is ready."""

    model: str


@dataclass(frozen=True)
class OpenDataset:
    """Read a dataset and check it against the model -> DatasetInfo."""

    data: DataSpec
    model: str = ""


@dataclass(frozen=True)
class LookAtSamples:
    """Some samples as stored and as the network sees them, with float predictions -> SamplePage."""

    model: str
    data: DataSpec
    indices: tuple[int, ...]


@dataclass(frozen=True)
class FloatAccuracy:
    """Metrics of the float model -> Metrics; streams Metrics as samples are done."""

    model: str
    data: DataSpec
    eval_samples: int | None = None
    """None = all."""
    seed: int = 0
    calibration_data: DataSpec | None = None
    calibration_samples: int = 512
    """Where the data has one split only, calibration samples are drawn from it and are not evaluated on."""
    calibration_choice: str = "random"
    """How calibration samples are chosen: one of `qstudio.core.sample_choice.CHOICES`."""


@dataclass(frozen=True)
class ActivationStatistics:
    """One streaming pass over the calibration (or evaluation) samples -> tuple[SiteStatistics, ...]."""

    model: str
    data: DataSpec
    calibration_data: DataSpec | None = None
    calibration_samples: int = 512
    seed: int = 0
    calibration_choice: str = "random"
    """How calibration samples are chosen: one of `qstudio.core.sample_choice.CHOICES`."""
    of: str = "calibration"
    """Whose samples are counted: "calibration" or "evaluation"."""
    eval_samples: int | None = None
    """Of the evaluation; None = all."""


@dataclass(frozen=True)
class LayerPreview:
    """Exact quantization of one layer's weight -> WeightPreview."""

    model: str
    layer: str
    scheme: Scheme


@dataclass(frozen=True)
class RunPtq:
    """Calibrate, simulate, evaluate, export, verify, time -> RunResult; streams PtqPartial after each phase."""

    model: str
    data: DataSpec
    recipe: Recipe = Recipe()
    calibration_data: DataSpec | None = None
    calibration_samples: int = 512
    eval_samples: int | None = None
    seed: int = 0
    device: str = "cpu"
    export_path: str = ""
    """Where the QDQ model is kept; empty = a temporary file that is removed after measuring."""
    measure_latency: bool = True
    latency_batch: int = 1
    threads: int = 0
    """Threads of onnxruntime sessions; 0 = all cores."""
    storage: str = "int8"
    """How the file stores weights below 8 bits: "int8" or "packed"; see `qstudio.core.storage`."""
    calibration_choice: str = "random"
    """How calibration samples are chosen: one of `qstudio.core.sample_choice.CHOICES`."""


@dataclass(frozen=True)
class TrainQat:
    """Train with quantizers, then all that RunPtq does -> TrainResult; streams CurvePoint and PtqPartial."""

    run: RunPtq
    """Calibration data is also trained with, where it is given."""
    training: Training = field(default_factory=Training)
    checkpoints: str = ""
    """Folder of the states after each epoch; empty = none are kept when the run ends."""
    resume: bool = False
    """Continue from the checkpoint in that folder."""
    further: bool = True
    """Train what is missing; else measure the best epoch of the checkpoint."""


@dataclass(frozen=True)
class Sensitivity:
    """What each candidate does on each layer -> SensitivityResult; streams each SensitivityCell as it is known."""

    model: str
    data: DataSpec
    recipe: Recipe = Recipe()
    """How layers are quantized besides the candidates' widths."""
    candidates: tuple[Candidate, ...] = (Candidate(8), Candidate(4), Candidate(2))
    mode: str = "enable"
    """Of `qstudio.core.sensitivity.MODES`."""
    layers: tuple[str, ...] = ()
    """Only these; empty = all."""
    measured: bool = True
    """Evaluate the network for every cell."""
    hessian: bool = False
    """Predict cells that change a weight from the Hessian's trace."""
    calibration_data: DataSpec | None = None
    calibration_samples: int = 512
    eval_samples: int | None = 1000
    seed: int = 0
    device: str = "cpu"
    calibration_choice: str = "random"
    """How calibration samples are chosen: one of `qstudio.core.sample_choice.CHOICES`."""
    resume: str = ""
    """JSON file that figures are read from and written to, by their content; empty = none."""


@dataclass(frozen=True)
class SearchBits:
    """Mixed precision under limits, then RunPtq with its recipe -> SearchResult.

    Streams a SearchResult when the front is solved and when it is measured, then PtqPartial.
    """

    run: RunPtq
    """Its recipe says what holds besides the bits."""
    search: SearchSettings = field(default_factory=SearchSettings)
    resume: str = ""
    """JSON file that figures are read from and written to, by their content; empty = none."""
    runs: bool = True
    """Export, verify and time the recipe that is found."""


@dataclass(frozen=True)
class Benchmark:
    """Latency of a model file on onnxruntime -> Latency."""

    model: str
    batch: int = 1
    threads: int = 0
    runs: int = 100
    warmup: int = 20


@dataclass(frozen=True)
class PreviewAccuracy:
    """Evaluate a recipe on some samples, reusing what did not change -> RecipeAccuracy; streams it as samples are done.

    The samples are the first of those that FloatAccuracy evaluates with the same options.
    """

    model: str
    data: DataSpec
    recipe: Recipe = Recipe()
    samples: int = 1000
    calibration_data: DataSpec | None = None
    calibration_samples: int = 512
    seed: int = 0
    calibration_choice: str = "random"
    """How calibration samples are chosen: one of `qstudio.core.sample_choice.CHOICES`."""
    once: bool = False
    """A recipe that is tried and left again: what it computes does not push out what the next edit needs."""


@dataclass(frozen=True)
class ErrorOverDepth:
    """Noise at every layer: accumulated, isolated, and what each layer does to the output -> DepthErrors.

    Streams DepthErrors: first with the accumulated error, then as layers are done.
    """

    preview: PreviewAccuracy
    """Which recipe, data and calibration; its samples are capped at 128."""


@dataclass(frozen=True)
class TraceSample:
    """One sample of the evaluation split through all layers, float and quantized -> SampleTrace."""

    preview: PreviewAccuracy
    """Which recipe, data and calibration."""
    index: int = 0
    """Place in the evaluation split."""
    layers: tuple[str, ...] = ()
    """Whose maps are wanted; empty = all."""
    max_channels: int = 16
    max_side: int = 64


@dataclass(frozen=True)
class PictureWeights:
    """One layer's weight as pictures, quantized by a scheme -> WeightPictures."""

    model: str
    layer: str
    scheme: Scheme


@dataclass(frozen=True)
class ListDevices:
    """Every backend and device with the reason where it is not available -> tuple[Device, ...]."""


# ---- answers that are not in core


@dataclass(frozen=True, eq=False)
class SamplePage:
    """Samples for the data panel."""

    indices: tuple[int, ...]
    stored: tuple[NDArray[Any], ...]
    """As in the file: uint8 HxW, HxWx3, or an array of any shape."""
    network: tuple[NDArray[np.float32], ...]
    """As the network sees them, without the batch axis."""
    labels: tuple[int | None, ...]
    predictions: tuple[int | None, ...]
    confidences: tuple[float | None, ...]
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class WeightPreview:
    """One layer's weight after quantization."""

    layer: str
    scheme: Scheme
    quantized: Histogram
    sqnr_db: float
    cosine: float
    channel_sqnr_db: NDArray[np.float64]
    """[C] per output channel."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """Representable range of each scale: [] or [C] (groups are reduced to their channel's extremes)."""


@dataclass(frozen=True)
class PtqPartial:
    """A run so far: `result` has the fields of the phases that are done."""

    phase: str
    """"calibrate", "simulate", "export", "verify", "time"."""
    result: RunResult


Request = (
    OpenModel
    | WeightStatistics
    | OpenDataset
    | LookAtSamples
    | FloatAccuracy
    | ActivationStatistics
    | LayerPreview
    | RunPtq
    | TrainQat
    | Sensitivity
    | SearchBits
    | Benchmark
    | TraceSample
    | PictureWeights
    | ListDevices
    | PreviewAccuracy
    | ErrorOverDepth
)

Answer = (
    DatasetInfo
    | Metrics
    | SiteStatistics
    | SamplePage
    | WeightPreview
    | PtqPartial
    | CurvePoint
    | SensitivityCell
    | SearchResult
    | RecipeAccuracy
    | DepthErrors
)
"""Some of the values that travel back (see each request)."""


# ---- about a job


@dataclass(frozen=True)
class Progress:
    """Child to parent, at most 20 a second."""

    job: int
    done: float
    total: float
    note: str = ""
    seconds_left: float | None = None


@dataclass(frozen=True)
class Failure:
    """Why a job failed, in words."""

    what: str
    where: str = ""
    fix: str = ""
    details: str = ""
    """Traceback and last log lines, for "details" only."""
    user_fault: bool = False
    """Whether the input is at fault (a UserError)."""

    def sentence(self) -> str:
        """Return the failure as one line."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        head = head.rstrip(".") + "."
        return f"{head} {self.fix.rstrip('.')}." if self.fix else head
