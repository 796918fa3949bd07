"""The columns of the layer table: what they are called, what they mean, how wide they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from qstudio.core.recipe import FIELDS


@dataclass(frozen=True)
class Column:
    """One column."""

    id: str
    title: str
    help: str
    """What it is, its unit, and what is a good value."""
    widest: str
    """A text as wide as the column has to be."""
    priority: int
    """Shown first when there is little room: 0 always, higher later."""
    right: bool = False
    field: str = field(init=False, default="")
    """Name of the recipe field that is edited here; empty for none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", self.id if self.id in FIELDS else "")


COLUMNS: tuple[Column, ...] = (
    Column("layer", "Layer", "Name of the layer, as in your file.", "layer3.0.conv1 MM", 0),
    Column("type", "Type", "ONNX operator.", "GlobalAveragePool", 3),
    Column("title", "Shape", "Kernel, channels in and out, stride.", "3x3, 128 -> 128, s2", 5),
    Column(
        "weight_bits",
        "W bits",
        "Bits of each weight code. Keys 2 to 8 set it on the selected layers, F leaves them in float.",
        "W bits MM",
        0,
        True,
    ),
    Column(
        "activation_bits",
        "A bits",
        "Bits of each code of the tensor the layer puts out. Alt+2 to Alt+8 set it on the selected layers.",
        "A bits MM",
        0,
        True,
    ),
    Column(
        "weight_format",
        "W format",
        "What values the weight's codes can stand for; each is explained in the inspector.",
        "Mean and deviation M",
        5,
    ),
    Column(
        "weight_outliers",
        "W outliers",
        "Percent of the weights, the largest by magnitude, that stay float.",
        "W outliers M",
        12,
        True,
    ),
    Column(
        "activation_format",
        "A format",
        "What values the codes of the layer's output can stand for.",
        "Mean and deviation M",
        10,
    ),
    Column(
        "activation_dynamic",
        "A scale",
        "Static: the range is calibrated before. Dynamic: it is that of each batch's own values at run time.",
        "A scale MM",
        12,
    ),
    Column(
        "weight_symmetric",
        "W symmetry",
        "Symmetric: the zero point is 0; integer kernels want it so. Asymmetric: uses all codes of a one-sided range.",
        "asymmetric M",
        8,
    ),
    Column(
        "activation_symmetric",
        "A symmetry",
        "Asymmetric uses all codes after a ReLU; symmetric leaves half of them unused there.",
        "asymmetric M",
        9,
    ),
    Column(
        "weight_granularity",
        "Granularity",
        "Which weights share one scale: the whole tensor, each output channel, or groups of a channel.",
        "Granularity M",
        2,
    ),
    Column(
        "weight_calibration",
        "W calibration",
        "How the weight range is chosen.",
        "Percentile 99.999",
        6,
    ),
    Column(
        "activation_calibration",
        "A calibration",
        "How the range of the layer's output is chosen from the calibration data.",
        "Percentile 99.999",
        7,
    ),
    Column(
        "weight_sqnr",
        "W SQNR, dB",
        "Signal to quantization noise of the weights under the present settings, in dB; 6.02 dB for each bit."
        "\n30 and more is good, 20 to 30 watch, under 20 bad.",
        "W SQNR, dB",
        1,
        True,
    ),
    Column(
        "output_sqnr",
        "Out SQNR, dB",
        "Signal to noise of the layer's output with everything quantized, from the selected run, in dB."
        "\n30 and more is good, 20 to 30 watch, under 20 bad.",
        "Out SQNR, dB",
        2,
        True,
    ),
    Column(
        "pruning",
        "Pruning",
        "What is removed before quantization. Single weights become zero: neither file nor latency gains by them."
        "\nFilters really go, with all that is coupled to them: the network becomes smaller.",
        "Taylor filters 50 %, all layers",
        8,
    ),
    Column(
        "sparsity",
        "Sparsity, %",
        "Percent of the layer's weights that pruning removed or left zero, from the selected run.",
        "Sparsity, % M",
        9,
        True,
    ),
    Column("parameters", "Parameters", "Number of weights and biases.", "Parameters", 10, True),
    Column(
        "l1_norm",
        "L1 norm",
        "Sum of |w| over the layer's weights. Sort by it, then select rows to change the heaviest layers at once.",
        "12345.6 MM",
        13,
        True,
    ),
    Column(
        "magnitude",
        "Largest |w|",
        "Largest magnitude among the layer's weights: what a min-max range has to reach.",
        "Largest |w| M",
        14,
        True,
    ),
    Column("macs", "MACs", "Multiply-accumulates for one sample.", "123.45 M", 11, True),
    Column(
        "share",
        "Size share",
        "Share of the quantized model's bytes that this layer takes; the longest bar is the largest layer.",
        "Size share MMM",
        2,
    ),
    Column(
        "histogram",
        "Weights",
        "Distribution of the float weights (log count); zero is the thin line.",
        "histogram MMM",
        4,
    ),
)

COLUMN_IDS: tuple[str, ...] = tuple(column.id for column in COLUMNS)
