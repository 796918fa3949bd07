"""What can be written on the command line, and the help that says so. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import NoReturn

from qstudio import __version__
from qstudio.cli.prune_options import PRUNING_HELP, add_pruning_option
from qstudio.cli.search_options import SEARCH_EXAMPLES, add_search_options
from qstudio.cli.sensitivity_options import SENSITIVITY_EXAMPLES, SENSITIVITY_SAMPLES, add_sensitivity_options
from qstudio.cli.train_options import TRAIN_EXAMPLES, add_training_options
from qstudio.core.errors import UserError
from qstudio.core.exchange_formats import FORMATS
from qstudio.core.sample_choice import CHOICES
from qstudio.core.storage import INT8, STORAGES
from qstudio.session.data_words import add_data_options

DESCRIPTION = """\
See, change and re-measure how a trained network is quantized.

Without a command the window opens: qstudio [MODEL | PROJECT.qsproj]. The commands do the same work without a window,
with the same numbers for the same recipe and seed."""

EXAMPLES = """\
examples:
  qstudio inspect model.onnx
  qstudio quantize model.onnx --data images.npz -o model_int8.onnx
  qstudio quantize model.onnx --data images.npz --weight-bits 4 --set 'conv1.weight_bits=8' --json
  qstudio train model.onnx --data digits --weight-bits 2 --activation-bits 2 --distill -o model_int2.onnx
  qstudio sensitivity model.onnx --data digits --bits 8,4,2
  qstudio search model.onnx --data digits --average-bits 4 -o model_mixed.onnx
  qstudio benchmark model_int8.onnx --batch 64
  qstudio doctor

'qstudio COMMAND --help' shows all options of a command.
Exit status: 0 done, 2 something in the input has to be mended (one line says what), 1 a fault of the program,
130 stopped with Ctrl+C."""

QUANTIZE_EXAMPLES = f"""\
examples:
  8 bits, per channel, everything measured, and the file kept:
    qstudio quantize model.onnx --data test.npz --calibration-data train.npz -o model_int8.onnx

  4-bit weights, the first and the last layer at 8, two layers chosen by name:
    qstudio quantize model.onnx --data test.npz --weight-bits 4 --first-last-bits 8 \\
        --set 'layer3.*.weight_bits=6' --set 'fc.activation_calibration=percentile:99.9'

  a recipe saved from the window, with one change, as JSON:
    qstudio quantize model.onnx --data digits --recipe mine.json --set 'conv1.bits=8' --json

  8 bits for the quarter of the layers with the largest L1 norm (@mean and @magnitude rank too; -25%: the smallest):
    qstudio quantize model.onnx --data digits --weight-bits 4 --set '@l1:25%.weight_bits=8'

the fields of --set:
  weight_bits, activation_bits          1 to 16, or float         (bits: both)
  weight_symmetric, activation_symmetric  true or false           (symmetric: both)
  weight_granularity                    tensor, channel, group:N  (granularity)
  weight_calibration, activation_calibration  a method            (calibration: both)
  weight_clip, activation_clip          LOW,HIGH (calibration becomes manual)
  weight_format, activation_format      a number format           (format: both)
  weight_outliers                       percent kept in float     (outliers)
  activation_dynamic                    true or false             (dynamic)
  pruning                               METHOD:PERCENT, METHOD:PERCENT:global, or none

{PRUNING_HELP}

Order: the recipe's default and rules, then options for the whole model, then --first-last-bits, then --set; of two
--set that match one layer, the later wins."""

FORMAT_NAMES = (
    "int (or int:full, int:onnxruntime, int:torch, int:aimet), bfp, binary, ternary, log, log2, pow2, apot, quadratic,"
    " statistical, kmeans, nf4, fp16, bf16, fp8_e4m3, fp8_e5m2, or a plug-in's"
)

CALIBRATIONS = (
    "minmax, moving_average[:CONSTANT], percentile[:PERCENT], quantile[:PERCENT], mse, entropy, mean_std[:K],"
    " lsq, or a plug-in's"
)


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's complaint as what it is, the user's input.

        Raises:
            UserError: Always.
        """
        raise UserError(message, "", f"'{self.prog} --help' shows what there is")


def build_parser() -> Parser:
    """Return the parser of all commands."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="qstudio", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"qstudio {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    inspect = commands.add_parser(
        "inspect",
        help="layers, sites and statistics of a model",
        description="Show a model's layers with their shapes, weights and schemes; with --data also the float\n"
        "accuracy and the ranges of all activations.",
        formatter_class=raw,
        allow_abbrev=False,
    )
    _model(inspect)
    _data(inspect, required=False)
    inspect.add_argument(
        "--overlap",
        action="store_true",
        help="compare calibration and evaluation data at every activation: overlap of the two histograms, and the share"
        " of evaluation values outside the calibrated range",
    )
    inspect.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="follow this sample of the evaluation data, counted from 0, through the layers: float and quantized"
        " scores, its SQNR at every layer, and the layer at which its class flips",
    )
    _recipe(inspect)
    _samples(inspect)
    _output(inspect)

    quantize = commands.add_parser(
        "quantize",
        help="PTQ: calibrate, simulate, export QDQ, verify in onnxruntime, time",
        description="Quantize a trained network after training: calibrate, simulate, evaluate, export an ONNX file\n"
        "with QuantizeLinear/DequantizeLinear, verify it in onnxruntime against the simulation, and time it.",
        epilog=QUANTIZE_EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    _model(quantize)
    _data(quantize, required=True)
    _recipe(quantize)
    _samples(quantize)
    _running(quantize)
    _output(quantize)

    train = commands.add_parser(
        "train",
        help="QAT: train with quantizers in the network, then as quantize",
        description="Quantize a trained network by training it on with quantizers in it, then simulate, evaluate,\n"
        "export, verify and time it as 'qstudio quantize' does.",
        epilog=TRAIN_EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    _model(train)
    _data(train, required=True)
    add_training_options(train)
    _recipe(train)
    _samples(train)
    _running(train)
    _output(train)

    sensitivity = commands.add_parser(
        "sensitivity",
        help="one layer at a time: what each bit width costs",
        description="Change one layer at a time and measure what it does to the network's output, for every layer and\n"
        "bit width; or predict it from the curvature of the loss.",
        epilog=SENSITIVITY_EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    _model(sensitivity)
    _data(sensitivity, required=True)
    add_sensitivity_options(sensitivity)
    _recipe(sensitivity)
    _samples(sensitivity, SENSITIVITY_SAMPLES)
    _output(sensitivity)

    search = commands.add_parser(
        "search",
        help="mixed precision: the bits of each layer under limits, then as quantize",
        description="Find the bits of each layer that cost least accuracy within limits, show the front and uniform\n"
        "recipes beside it, then simulate, export, verify and time the recipe as 'qstudio quantize' does.",
        epilog=SEARCH_EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    _model(search)
    _data(search, required=True)
    add_search_options(search)
    _recipe(search)
    _samples(search)
    _running(search)
    _output(search)

    benchmark = commands.add_parser(
        "benchmark",
        help="latency of a model file in onnxruntime",
        description="Time a model file in onnxruntime on the CPU: warm-up, then the median and the 10th and 90th\n"
        "percentile of single inferences.",
        formatter_class=raw,
        allow_abbrev=False,
    )
    _model(benchmark)
    timing = benchmark.add_argument_group("timing")
    _timing(timing)
    timing.add_argument("--runs", type=_count, default=100, metavar="N", help="timed inferences (default: 100)")
    timing.add_argument("--warmup", type=_whole, default=20, metavar="N", help="inferences before (default: 20)")
    _output(benchmark)

    doctor = commands.add_parser(
        "doctor",
        help="what this machine offers: versions, window, devices, int8 speed",
        description="Look at the installation: versions, processor and what it means for int8, a window that opens,\n"
        "devices with the reason where one is missing, folders. Nothing is changed and nothing is sent.",
        formatter_class=raw,
        allow_abbrev=False,
    )
    _output(doctor)
    return parser


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an .onnx file, or a .pt2 file of torch.export")


def _data(parser: argparse.ArgumentParser, required: bool) -> None:
    group = parser.add_argument_group("data")
    add_data_options(group, required)
    group.add_argument(
        "--calibration-data",
        metavar="D",
        help="data for ranges, read with the same options (default: the training split of --data; where there is one "
        "split only, samples are drawn from it by seed and left out of the evaluation); noise:gaussian, noise:uniform"
        " show what wrong calibration data does",
    )


def _recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--recipe",
        metavar="FILE.json",
        help="start from a saved recipe, or from encodings of AIMET or onnxruntime (default: 8 bits everywhere)",
    )
    group.add_argument("--weight-bits", metavar="N", help="1 to 16, or float (default: 8)")
    group.add_argument("--activation-bits", metavar="N", help="1 to 16, or float (default: 8)")
    group.add_argument(
        "--granularity", metavar="G", help="weights that share a scale: tensor, channel or group:N (default: channel)"
    )
    group.add_argument("--calibration", metavar="METHOD", help=f"for weights and activations: {CALIBRATIONS}")
    group.add_argument("--weight-calibration", metavar="METHOD", help="for weights only (default: minmax)")
    group.add_argument("--activation-calibration", metavar="METHOD", help="for activations only (default: mse)")
    group.add_argument(
        "--weight-symmetric",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="weights around zero (default) or with a zero point",
    )
    group.add_argument(
        "--activation-symmetric",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="activations around zero, or with a zero point (default)",
    )
    group.add_argument("--weight-format", metavar="F", help=f"{FORMAT_NAMES} (default: int)")
    group.add_argument(
        "--activation-format",
        metavar="F",
        help="int, bfp, log, log2, pow2, fp16, bf16, fp8_e4m3 or fp8_e5m2 (default: int)",
    )
    group.add_argument(
        "--outliers",
        metavar="PERCENT",
        help="share of each weight, the largest by magnitude, that stays float (default: 0)",
    )
    group.add_argument(
        "--dynamic",
        action="store_true",
        default=None,
        help="take activation ranges from the values at run time, batch by batch, instead of calibrating them",
    )
    group.add_argument(
        "--first-last-bits",
        metavar="N",
        help="bits of the first and the last layer: their weights and the tensors they read",
    )
    add_pruning_option(group)
    group.add_argument(
        "--refine",
        metavar="NAME,NAME",
        help="repairs, run in this order: fold (BatchNorm into the layer before it), cle, smoothquant, one of gptq,"
        " adaround and brecq, bias_correction; or none. Parameters follow a colon: adaround:iterations=2000 (default:"
        " fold)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GLOB.FIELD=VALUE",
        help="set a field of all layers whose name matches; can be given more than once, the later wins",
    )


def _samples(parser: argparse.ArgumentParser, evaluated: int | None = None) -> None:
    group = parser.add_argument_group("samples")
    group.add_argument(
        "--calibration-samples", type=_count, default=512, metavar="N", help="samples for ranges (default: 512)"
    )
    group.add_argument(
        "--calibration-choice",
        choices=tuple(CHOICES),
        default="random",
        help="how samples for ranges are chosen (default: random). "
        + ". ".join(f"{name}: {meaning}" for name, meaning in CHOICES.items()),
    )
    group.add_argument(
        "--eval-samples",
        type=_count,
        default=evaluated,
        metavar="N",
        help=f"samples for metrics (default: {'all' if evaluated is None else format(evaluated, ',')})",
    )
    group.add_argument("--seed", type=_whole, default=0, metavar="N", help="seed of all choices (default: 0)")


def _running(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("running")
    run.add_argument("-o", "--output", metavar="Q.onnx", default="", help="keep the exported model here")
    run.add_argument("--save-recipe", metavar="FILE.json", default="", help="write the recipe that was used")
    run.add_argument(
        "--save-encodings",
        metavar="FILE.json",
        default="",
        help="write scale and zero point of every tensor for another tool; --recipe reads such a file too",
    )
    run.add_argument(
        "--encodings-format",
        choices=tuple(FORMATS),
        default="aimet",
        help="aimet: AIMET's encodings 1.0.0; onnxruntime: TensorQuantOverrides (default: aimet)",
    )
    run.add_argument(
        "--device",
        default="cpu",
        metavar="D",
        help="where the simulation runs: auto, cpu, cuda[:N] or mps (default: cpu). Exports are always timed and "
        "verified on the CPU",
    )
    run.add_argument(
        "--storage",
        choices=tuple(STORAGES),
        default=INT8,
        help="how the file stores weights below 8 bits (default: int8). "
        + ". ".join(f"{name}: {meaning}" for name, meaning in STORAGES.items())
        + ". The size and latency of both are shown",
    )
    run.add_argument("--no-latency", action="store_true", help="do not time the float and the exported model")
    _timing(run)


def _timing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--threads", type=_whole, default=0, metavar="N", help="threads of onnxruntime (default: all)")
    group.add_argument("--batch", type=_count, default=1, metavar="N", help="batch of the latency (default: 1)")


def _output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show progress on stderr (default: when it is a terminal)",
    )


def _count(text: str) -> int:
    return _number(text, 1)


def _whole(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {least} or more")
    return int(text)
