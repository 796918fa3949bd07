"""Quantization-aware training as values: what was chosen, the learning curve, what came out."""

from __future__ import annotations

import builtins
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from qstudio.core.errors import UserError
from qstudio.core.results import RunResult

METHODS: tuple[str, ...] = ("ste", "lsq", "lsq+", "pact", "dorefa")
OPTIMIZERS: tuple[str, ...] = ("adam", "sgd")
SCHEDULES: tuple[str, ...] = ("cosine", "constant")
INITIAL_SCALES: tuple[str, ...] = ("best", "ptq", "formula")
BATCHNORMS: tuple[str, ...] = ("folded", "frozen", "live")

TRAINED_REFINEMENTS: tuple[str, ...] = ("fold",)
"""Refinements that training takes over from the recipe; it replaces the others."""

CHECKPOINT_FILE = "checkpoint.json"
"""In a folder of checkpoints: how far the training is, and which files count."""


@dataclass(frozen=True)
class Training:
    """How a network is trained with quantizers in it.

    Raises:
        UserError: A value is out of its bounds.
    """

    method: str = "lsq"
    """"ste": ranges of PTQ, those of weights measured again before each epoch. "lsq": the steps of weights and
    activations are learned (Esser et al., 2020). "lsq+": those of activations with their offset (Bhalgat et al., 2020).
    "pact": the clip of activations is learned, weights as DoReFa (Choi et al., 2018). "dorefa": Zhou et al., 2016."""
    epochs: int = 20
    """Of all stages together."""
    learning_rate: float = 1e-3
    """Largest rate of the weights."""
    scale_rate: float = 1.0
    """Rate of learned scales relative to that of the weights."""
    batch_size: int = 64
    optimizer: str = "adam"
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.0
    """Of weights only: never of biases or scales."""
    schedule: str = "cosine"
    warmup_epochs: float = 0.5
    """Over which the rate rises linearly from 0, in each stage."""
    clip_norm: float = 1.0
    """Largest L2 norm of the gradient of weights, biases and scales together; 0 = not clipped."""
    progressive_bits: tuple[int, ...] = ()
    """Bit widths that are trained before the recipe's own, such as (8, 4) on the way to 2; each wider one caps the
    recipe's bits from below."""
    distill: float = 0.0
    """Share of the loss that is the divergence from the float model's class probabilities, 0..1."""
    temperature: float = 4.0
    """Of both softmaxes in that divergence (Hinton et al., 2015)."""
    feature_weight: float = 0.0
    """Weight of the mean squared difference from the float model's features, relative to their power."""
    crop_padding: int = 0
    """Pixels by which images are padded with black and cropped again at random; 0 = not cropped."""
    flip: bool = False
    """Mirror half of the images left to right."""
    initial_scales: str = "best"
    """Where weights' steps start with lsq and lsq+: "ptq", "formula" (2 E|w| / sqrt(qmax); lsq+: |mean +- 3 sigma|), or
    for each layer the "best" of both by squared error."""
    pact_decay: float = 2e-4
    """Factor of the sum of squares of PACT's clips in the loss."""
    pruning_steps: int = 1
    """In which single weights are pruned, at the beginning of the first so many epochs; the share grows with
    1 - (1 - step / steps)^3 (Zhu and Gupta, 2017). Filters go at once, before the first epoch."""
    batchnorm: str = "folded"
    """What a BatchNormalization is while training, where the recipe folds it. "folded": part of weight and bias from
    the first step on. "frozen": its scale and shift are trained beside the weight, its statistics stay the float
    model's. "live": batches are normalised with their own statistics, which also move the running ones; the weight is
    rounded as it will be folded, with the running ones (Krishnamoorthi, 2018, section 3.2.2). Folded at the end in any
    case."""
    batchnorm_freeze: float = 0.7
    """Share of the steps of each stage after which live statistics stay as they are, 0..1; 1 = never."""
    held_out: float = 0.1
    """Share of the training samples (2,000 at most) that picks the best epoch and is not trained on."""
    samples: int | None = None
    """Use so many of the training samples, held-out ones included; None = all."""

    def __post_init__(self) -> None:
        for name, value, offered in (
            ("method", self.method, METHODS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("initial scales", self.initial_scales, INITIAL_SCALES),
            ("batchnorm", self.batchnorm, BATCHNORMS),
        ):
            if value not in offered:
                raise UserError(f"there is no {name} '{value}'", "training", f"Choose {', '.join(offered)}")
        _bounded("epochs", self.epochs, 1, 100_000)
        _bounded("learning rate", self.learning_rate, 0.0, 10.0, above=True)
        _bounded("scale rate", self.scale_rate, 0.0, 1000.0)
        _bounded("batch size", self.batch_size, 1, 65_536)
        _bounded("momentum", self.momentum, 0.0, 0.9999)
        _bounded("weight decay", self.weight_decay, 0.0, 1.0)
        _bounded("warm-up epochs", self.warmup_epochs, 0.0, self.epochs)
        _bounded("gradient norm", self.clip_norm, 0.0, math.inf)
        _bounded("distillation share", self.distill, 0.0, 1.0)
        _bounded("temperature", self.temperature, 0.0, 100.0, above=True)
        _bounded("feature weight", self.feature_weight, 0.0, 1e6)
        _bounded("crop padding", self.crop_padding, 0, 1024)
        _bounded("pruning steps", self.pruning_steps, 1, self.epochs)
        _bounded("PACT decay", self.pact_decay, 0.0, 1.0)
        _bounded("BatchNorm freeze", self.batchnorm_freeze, 0.0, 1.0)
        _bounded("held-out share", self.held_out, 0.01, 0.5)
        if self.samples is not None:
            _bounded("training samples", self.samples, 2, 10**9)
        steps = self.progressive_bits
        if any(not 2 <= bits <= 16 for bits in steps) or list(steps) != sorted(set(steps), reverse=True):
            raise UserError(
                f"{', '.join(map(str, steps))} are not falling bit widths", "progressive bits", "Write for example 8,4"
            )
        if len(steps) >= self.epochs:
            raise UserError(
                f"{self.epochs} epochs are too few for {len(steps) + 1} stages", "training", "Train more epochs"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; `from_json` reads them back."""
        values = asdict(self)
        values["progressive_bits"] = list(self.progressive_bits)
        return values

    @classmethod
    def from_json(cls, data: Any) -> Training:
        """Read what `to_json` wrote.

        Raises:
            UserError: A field does not exist or a value does not fit it.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or not set(data) <= known:
            raise UserError("these are not settings of a training", "training", "Choose a file that QStudio wrote")
        try:
            return cls(**{**data, "progressive_bits": tuple(data.get("progressive_bits", ()))})
        except TypeError as error:
            raise UserError(f"a setting has the wrong type ({error})", "training", "Correct it") from None


def _bounded(name: str, value: float, least: float, most: float, above: bool = False) -> None:
    if not (least < value if above else least <= value) or not value <= most:
        words = f"above {least:g}" if above else f"{least:g} or more"
        limit = f" and at most {most:g}" if math.isfinite(most) else ""
        raise UserError(f"{value:g} is out of bounds", name, f"Choose {words}{limit}")


@dataclass(frozen=True)
class CurvePoint:
    """One epoch of a training; accuracies in percent, of the held-out part of the training samples."""

    epoch: int
    """Epochs done; 0 is the start, before any training."""
    bits: int
    """Smallest bit width of the stage."""
    loss: float | None
    """Mean training loss of the epoch; None at the start."""
    held_out_loss: float
    """Cross entropy of the quantized network (divergence from float where there are no labels)."""
    quantized_top1: float
    """Agreement with the float model where there are no labels."""
    float_top1: float
    """Of the float model that the training started from."""
    learning_rate: float
    """Rate of the epoch's last step."""
    scales: tuple[tuple[str, float], ...]
    """(site, scale) of every quantized site; the geometric mean where channels have their own."""
    seconds: float
    """Since the training began, of all processes that worked on it."""


@dataclass(frozen=True)
class TrainResult:
    """What a training brought."""

    run: RunResult
    """Of the best epoch, measured as any run."""
    training: Training
    curve: tuple[CurvePoint, ...]
    best_epoch: int
    training_seconds: builtins.float
    training_samples: int
    """Trained on, without the held-out ones."""
    held_out_samples: int
    resumed_after: int | None = None
    """Epochs that were already done in the checkpoint; None for a training from the start."""
