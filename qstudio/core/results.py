"""What runs bring: metrics, parity, sizes, latency, per-layer error."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field

from qstudio.core.exchange import SiteEncodings
from qstudio.core.predictions import Predictions
from qstudio.core.recipe import Recipe
from qstudio.core.storage import StorageChoice


@dataclass(frozen=True)
class Metrics:
    """How well a network does on a set of samples; rates in percent."""

    samples: int
    top1: float | None = None
    """None without labels."""
    top5: float | None = None
    loss: float | None = None
    """Mean cross entropy, nats."""
    agreement: float | None = None
    """Share of samples with the float model's argmax; 100 for the float model itself."""
    top1_interval: tuple[float, float] | None = None
    """95 % Wilson interval of top1 (of agreement without labels)."""
    flips_to_wrong: int | None = None
    flips_to_right: int | None = None
    """Samples on which float and this network differ in being right (for McNemar)."""


def rate(metrics: Metrics | None) -> float | None:
    """Return top-1 in percent, or the agreement with float where there are no labels."""
    if metrics is None:
        return None
    return metrics.top1 if metrics.top1 is not None else metrics.agreement


@dataclass(frozen=True)
class Latency:
    """Wall time of one inference, measured here."""

    median: float
    p10: float
    p90: float
    """Milliseconds."""
    threads: int
    batch: int
    runs: int
    warmup: int


@dataclass(frozen=True)
class SpeedReason:
    """One reason why an exported model is not as fast as its bits promise."""

    kind: str
    """What sort of reason: "float_layers", "between", "conversions", "constants", "depthwise", "instructions",
    "packed", "narrow", "small", "threads"."""
    what: str
    """One sentence with the evidence, without a full stop."""
    fix: str
    """What to do about it, one sentence without a full stop; empty where nothing helps."""
    layers: tuple[str, ...] = ()
    """Layers it is about, by the names in the user's file; empty where it is about the machine or the whole model."""
    macs_percent: float | None = None
    """Share of the model's multiply-accumulates that those layers do; None where it is not known."""


@dataclass(frozen=True)
class OperatorTime:
    """What one operator takes in float and exported: medians of onnxruntime's own profile, milliseconds.

    Operators that onnxruntime computes as one in either model stand in one row.
    """

    layers: tuple[str, ...]
    """Nodes of the user's file that are computed here; empty for what onnxruntime or the export puts in between."""
    float_operators: tuple[str, ...]
    exported_operators: tuple[str, ...]
    """Kernels that run, in order: "QLinearConv" computes in integers, "Conv" in float."""
    float_ms: float | None
    """None where the float model has nothing of the kind."""
    exported_ms: float | None


@dataclass(frozen=True)
class LatencyPair:
    """Float and exported model, timed in turns in one process on one machine."""

    float: Latency
    exported: Latency
    processor: str
    instructions: tuple[str, ...]
    """Instruction sets that matter for int8: "avx2", "avx512_vnni", ..."""
    notes: tuple[str, ...] = ()
    """Why the exported model is not faster, where it is not, in words."""
    simulated: Latency | None = None
    """The simulation of the quantized network on the same batch; it is there to be looked into, not to be deployed."""
    reasons: tuple[SpeedReason, ...] = ()
    """What keeps the exported model from being faster, whether it is faster than float or not."""
    operators: tuple[OperatorTime, ...] = ()
    """In the order in which they run; times under the profiler, which takes some itself. Empty where not profiled."""


@dataclass(frozen=True)
class IntegerParity:
    """Does onnxruntime's fused run give the codes that integer arithmetic predicts?

    The prediction takes int32 sums and onnxruntime's requantization; the fused run is asked not to saturate.
    """

    codes_equal: float
    """Percent of all compared codes that are equal."""
    max_lsb: int
    """Largest difference of a code."""
    outputs_equal: bool
    """Whether the outputs of the model are equal bit for bit."""
    samples: int
    operators: int
    """Operators computed in integers."""
    float_layers: tuple[str, ...] = ()
    """Conv, Gemm, MatMul and the like that compute in float; where they stand between quantized tensors, the order of
    their float sums can move a code now and then."""
    differing: tuple[str, ...] = ()
    """Tensors with codes that differ."""


@dataclass(frozen=True)
class Parity:
    """Does the exported file compute what was simulated?"""

    agreement: float
    """Percent of samples with equal argmax, simulation against onnxruntime without graph optimisation."""
    max_lsb: int
    """Largest difference of any compared code, in steps of its scale, against the same run."""
    fused_agreement: float
    """Percent, simulation against onnxruntime's default optimisation (integer kernels)."""
    reference_agreement: float
    """Percent, onnxruntime without against with optimisation: what fusion itself costs."""
    samples: int
    code_samples: int = 0
    """Samples on which the codes of every activation site were compared."""
    codes_equal: float = 100.0
    """Percent of the compared codes that are equal."""
    fused_max_lsb: int | None = None
    """Largest difference at the outputs against the fused run."""
    integer_exact: IntegerParity | None = None
    """None where nothing computes in integers, or on processors other than x86."""
    saturating: tuple[tuple[str, builtins.float], ...] = ()
    """Layers in which pairs of products saturate at 16 bits on x86 processors without VNNI, and the percent of their
    sums that this changes, simulated on some samples."""


@dataclass(frozen=True)
class SizeBytes:
    """Storage."""

    float: int
    """All parameters in float32."""
    quantized: int
    """bits x parameters + scales + zero points + what stays float, packed."""
    file: int | None = None
    """The exported file on disk."""
    sparse: int | None = None
    """As `quantized`, with zeros of pruned weights left out: one bit a weight and the codes that are not zero. What a
    sparse format would take: the file does not. None where no single weights were pruned."""


@dataclass(frozen=True)
class LayerResult:
    """Quantization error of one layer in a run."""

    name: str
    type: str
    schemes: tuple[tuple[str, str], ...]
    """(site kind, text) pairs such as ("weight", "int8 symmetric channel minmax")."""
    weight_sqnr_db: float | None
    weight_cosine: float | None
    sqnr_db: float | None
    """Of the layer's output, everything quantized, against float."""
    cosine: float | None
    weight_range: tuple[float, float] | None = None
    activation_range: tuple[float, float] | None = None
    sparsity: float | None = None
    """Percent of the layer's original weights that pruning removed or left zero; None where nothing is pruned. Zeros
    that rounding makes are not counted."""


@dataclass(frozen=True)
class RunResult:
    """Everything one PTQ run measured; fields are None where a phase was not reached or not asked for."""

    recipe: Recipe
    recipe_hash: str
    model_hash: str
    data_hash: str
    seed: int
    device: str
    calibration_samples: int
    float: Metrics | None = None
    simulated: Metrics | None = None
    exported: Metrics | None = None
    parity: Parity | None = None
    size_bytes: SizeBytes | None = None
    latency_ms: LatencyPair | None = None
    layers: tuple[LayerResult, ...] = ()
    export_path: str = ""
    seconds: builtins.float = 0.0
    versions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())
    sparsity: builtins.float | None = None
    """Percent of the original weights of all layers that pruning removed or left zero; None where nothing is pruned."""
    storage: StorageChoice | None = None
    """Both ways to store weights below 8 bits; None where the files would be equal."""
    predictions: Predictions | None = field(default=None, compare=False, repr=False, metadata={"json": False})
    """The simulated class of every evaluation sample beside float's; None where outputs are no class scores. Arrays
    have no place in comparing runs or in their JSON."""
    encodings: SiteEncodings | None = field(default=None, compare=False, repr=False, metadata={"json": False})
    """Scale and zero point of every tensor as exported; None before the export."""


@dataclass(frozen=True)
class Device:
    """A place to run on, offered or not."""

    id: str
    """"cpu", "cuda:0", "mps"."""
    title: str
    available: bool
    reason: str = ""
    """Why it is not available, in words; empty when it is."""
    runs_simulation: bool = True
    """Whether runs can be computed on it; a backend that only runs exported files is listed, but not chosen."""
