"""What can be chosen for a training, in the words of the field: formula, unit, when to use it, source."""

from __future__ import annotations

from dataclasses import dataclass

from qstudio.core.training import Training


@dataclass(frozen=True)
class Choice:
    """One of several ways."""

    value: str
    title: str
    help: str


@dataclass(frozen=True)
class Field:
    """A setting of `Training`."""

    name: str
    title: str
    help: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    choices: tuple[Choice, ...] = ()
    """Where it is one of several."""
    lowest_text: str = ""
    """Shown for the smallest value."""


@dataclass(frozen=True)
class Group:
    """Fields that belong together."""

    title: str
    fields: tuple[Field, ...]


METHODS: tuple[Choice, ...] = (
    Choice(
        "ste",
        "STE",
        "Straight-through estimator: x^ = s round(x / s), dx^/dx = 1 inside the range, 0 outside. Ranges are those of"
        " PTQ, of weights measured again before each epoch. Robust at 8 to 6 bits. Bengio et al., 2013.",
    ),
    Choice(
        "lsq",
        "LSQ",
        "Learned step size: dx^/ds = round(x / s) - x / s inside the range, -Qn or Qp outside, times 1 / sqrt(N Qp)."
        " Steps of weights and activations are trained. The first choice from 8 down to 2 bits. Esser et al., 2020.",
    ),
    Choice(
        "lsq+",
        "LSQ+",
        "LSQ with a learned offset of activations: x^ = s round((x - b) / s) + b. For activations that go below zero"
        " (SiLU, GELU, Hardswish). Bhalgat et al., 2020.",
    ),
    Choice(
        "pact",
        "PACT",
        "Learned clip of activations: y = clip(x, 0, a), dy/da = 1 where x >= a, with decay of a squared; weights as"
        " DoReFa. For networks with ReLU. Choi et al., 2018.",
    ),
    Choice(
        "dorefa",
        "DoReFa",
        "Weights 2 Q(tanh(w) / (2 max|tanh w|) + 1/2) - 1, activations Q(clip(x, 0, 1)). The classic baseline to"
        " compare with. Zhou et al., 2016.",
    ),
)

METHOD = Field("method", "Method", "How gradients pass the rounding, and what is learned.", choices=METHODS)

GROUPS: tuple[Group, ...] = (
    Group(
        "Length",
        (
            Field("epochs", "Epochs", "Passes over the training samples, all stages together.", 1, 100_000, True),
            Field(
                "batch_size",
                "Batch",
                "Samples of a step. A model with a fixed batch keeps its own.",
                1,
                65_536,
                True,
            ),
            Field(
                "samples",
                "Samples",
                "Use so many of the training samples, held-out ones included. Fewer are faster and worse.",
                1,
                1e9,
                True,
                lowest_text="all",
            ),
            Field(
                "held_out",
                "Held out",
                "Share of the training samples, 0.01 to 0.5 (2,000 samples at most), that picks the best epoch and is"
                " not trained on. What is evaluated on plays no part.",
                0.01,
                0.5,
            ),
        ),
    ),
    Group(
        "Optimiser",
        (
            Field(
                "optimizer",
                "Optimiser",
                "What turns gradients into steps.",
                choices=(
                    Choice("adam", "Adam", "AdamW: a step of the rate's size in each direction; the safe choice."),
                    Choice("sgd", "SGD", "With Nesterov momentum; wants a larger rate, such as 0.01."),
                ),
            ),
            Field(
                "schedule",
                "Schedule",
                "How the rate changes after the warm-up.",
                choices=(
                    Choice("cosine", "Cosine", "rate (1 + cos(pi t)) / 2 in each stage, t from 0 to 1."),
                    Choice("constant", "Constant", "The same rate to the end."),
                ),
            ),
            Field("learning_rate", "Rate", "Largest learning rate of the weights. With Adam 1e-4 to 2e-3.", 1e-8, 10.0),
            Field("warmup_epochs", "Warm-up", "Epochs over which the rate rises from 0, in each stage.", 0, 100_000),
            Field(
                "scale_rate",
                "Scale rate",
                "Rate of learned scales relative to that of the weights. Smaller where scales jump about.",
                0.0,
                1000.0,
            ),
            Field("momentum", "Momentum", "Of SGD, 0 to 0.9999.", 0.0, 0.9999),
            Field("weight_decay", "Decay", "Decay of weights; never of biases or scales.", 0.0, 1.0),
            Field(
                "clip_norm",
                "Clip norm",
                "Largest L2 norm of the gradient of weights, biases and scales together; 0 = not clipped.",
                0.0,
                1e6,
                lowest_text="off",
            ),
        ),
    ),
    Group(
        "Bits and scales",
        (
            Field(
                "progressive_bits",
                "Via bits",
                "Bit widths that are trained before the recipe's own, falling: 8, 4 on the way to 2. Empty = straight.",
            ),
            Field(
                "initial_scales",
                "Start",
                "Where the steps of weights start, with LSQ and LSQ+.",
                choices=(
                    Choice("best", "Best", "For each layer PTQ's or the formula's, whichever has the smaller error."),
                    Choice("ptq", "PTQ", "The recipe's calibration."),
                    Choice("formula", "Formula", "2 E|w| / sqrt(Qp); LSQ+: from |mean +- 3 sigma|."),
                ),
            ),
            Field("pact_decay", "Clip decay", "Factor of the sum of PACT's squared clips in the loss.", 0.0, 1.0),
            Field(
                "pruning_steps",
                "Prune over",
                "Epochs, from the first on, at whose beginning single weights are pruned; the share grows with"
                " 1 - (1 - step / steps)^3. 1 = at once. Only for layers with pruning; filters go at once. Zhu and"
                " Gupta, To prune or not to prune, 2017.",
                1,
                100_000,
                True,
            ),
        ),
    ),
    Group(
        "BatchNormalization",
        (
            Field(
                "batchnorm",
                "BatchNorm",
                "What a BatchNormalization behind a layer is while training; folded at the end in any case.",
                choices=(
                    Choice(
                        "folded",
                        "Folded",
                        "W = w gamma / sigma is what is trained, the statistics are the float model's. The first choice"
                        " for 8 to 4 bits, and for small batches. Jacob et al., 2018.",
                    ),
                    Choice(
                        "frozen",
                        "Frozen",
                        "w, gamma and beta are trained, rounded as Q(w gamma / sigma); the statistics are the float"
                        " model's. Moves whole channels more easily than Folded.",
                    ),
                    Choice(
                        "live",
                        "Live",
                        "Q(w gamma / sigma) with the running sigma, the result times sigma / sigma_B and centred with"
                        " mu_B: the batch's own statistics, which move the running ones. For 2 and 3 bits, where"
                        " rounding moves the statistics far, with batches of 32 or more and one scale per channel; a"
                        " step takes a sixth longer. Krishnamoorthi, 2018, section 3.2.2.",
                    ),
                ),
            ),
            Field(
                "batchnorm_freeze",
                "Freeze after",
                "Share of the steps of each stage, 0 to 1, after which live statistics stay as they are and the network"
                " is trained as it is deployed; 1 = never. Krishnamoorthi, 2018, section 3.2.2.",
                0.0,
                1.0,
            ),
        ),
    ),
    Group(
        "Distillation from the float model",
        (
            Field(
                "distill",
                "Share d",
                "(1 - d) CE(labels) + d T^2 KL(teacher || student): 0 labels only, 1 the float model's answers only"
                " (needs no labels). Helps most at 2 to 4 bits. Hinton et al., 2015.",
                0.0,
                1.0,
            ),
            Field(
                "temperature", "Temperature T", "Of both softmaxes; higher shows more of the wrong classes.", 0.1, 100.0
            ),
            Field(
                "feature_weight",
                "Features",
                "Weight of mean(|h - h_float|^2 / |h_float|^2) at the ends of residual blocks and before the last"
                " layer; 0 = off. Romero et al., FitNets, 2015.",
                0.0,
                1e6,
                lowest_text="off",
            ),
        ),
    ),
    Group(
        "Augmentation of images",
        (
            Field(
                "crop_padding",
                "Crop, px",
                "Pixels by which images are padded with black and cropped again at random; 4 for 32 x 32.",
                0,
                1024,
                True,
                lowest_text="off",
            ),
            Field("flip", "Flip", "Mirror half of the images left to right. Not for digits or text."),
        ),
    ),
)


def all_fields() -> tuple[Field, ...]:
    """Return every field, the method first."""
    return (METHOD, *(field for group in GROUPS for field in group.fields))


def blocked_fields(training: Training) -> dict[str, str]:
    """Return why fields have no effect under a training's other choices: name -> reason."""
    reasons: dict[str, str] = {}
    if training.optimizer != "sgd":
        reasons["momentum"] = "Only SGD has a momentum"
    if training.method not in ("lsq", "lsq+"):
        reasons["initial_scales"] = "Only LSQ and LSQ+ learn the steps of weights"
    if training.method in ("ste", "dorefa"):
        reasons["scale_rate"] = "Only LSQ, LSQ+ and PACT learn scales"
    if training.method != "pact":
        reasons["pact_decay"] = "Only PACT learns clips"
    if training.batchnorm != "live":
        reasons["batchnorm_freeze"] = "Only live statistics can be frozen"
    if training.distill == 0:
        reasons["temperature"] = "Set the distillation share above 0 first"
    return reasons
