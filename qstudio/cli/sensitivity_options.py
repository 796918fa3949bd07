"""What `qstudio sensitivity` takes besides the options of a run. Imports nothing heavy."""

from __future__ import annotations

import argparse

METRICS = ("loss", "kl", "sqnr", "agreement", "top1", "hessian")
"""As `qstudio.core.sensitivity.MEASURES`, which loads numpy."""

MODES = ("enable", "disable", "change")
"""As `qstudio.core.sensitivity.MODES`."""

SIDES = ("weights", "activations", "both")
"""As `qstudio.core.sensitivity.SIDES`."""

SENSITIVITY_SAMPLES = 1000
"""Samples evaluated on unless said otherwise: the network runs layers x widths times."""

SENSITIVITY_EXAMPLES = """\
examples:
  which layers do not bear 4 or 2 bits:
    qstudio sensitivity model.onnx --data digits --bits 8,4,2

  everything at 4 bits: which layer is worth sparing:
    qstudio sensitivity model.onnx --data digits --bits 4 --side both --mode disable --metric top1

  predicted from the curvature of the loss, in seconds:
    qstudio sensitivity model.onnx --data digits --metric hessian

  a long sweep that can be stopped with Ctrl+C and started again:
    qstudio sensitivity model.onnx --data test.npz --eval-samples 10000 --resume sweep.json

Formats, calibrators and granularity are those of the recipe options; only widths are swept. BatchNormalization is
folded before. What cannot be repeated for every cell (adaround, gptq, ...) is left out, and a note says so."""


def add_sensitivity_options(parser: argparse.ArgumentParser) -> None:
    """Add what is tried, how it is measured, and where it is kept."""
    group = parser.add_argument_group("sweep")
    group.add_argument("--bits", metavar="N,N", default="8,4,2", help="widths to try, 1 to 16 each (default: 8,4,2)")
    group.add_argument(
        "--side",
        choices=SIDES,
        default="weights",
        help="what of a layer takes the width: its weight, the tensor it puts out, or both (default: weights)",
    )
    group.add_argument(
        "--mode",
        choices=MODES,
        default="enable",
        help="enable: only this layer is quantized, the error it makes on its own (default). disable: everything is, "
        "only this layer is float, what sparing it brings back. change: everything as the recipe says, only this layer"
        " takes the width (or float)",
    )
    group.add_argument(
        "--metric",
        choices=METRICS,
        help="the table's figure. loss, top1: with labels. kl: divergence of the class probabilities from the float "
        "model's; agreement: samples with its class; sqnr: signal to noise at the output. hessian: predicted, "
        "Tr(H) / n x |Q(W) - W|^2, nothing is measured (default: kl, or sqnr where the output is no class scores); "
        "--json has all that were measured",
    )
    group.add_argument("--hessian", action="store_true", help="predict from the Hessian beside measuring")
    group.add_argument(
        "--layers", metavar="GLOB", action="append", default=[], help="only layers whose name matches; repeatable"
    )
    group.add_argument(
        "--resume",
        metavar="FILE.json",
        default="",
        help="keep every figure here, by a hash of all it depends on, and measure only what is not there yet",
    )
    group.add_argument(
        "--device", default="cpu", metavar="D", help="where the network runs: auto, cpu, cuda[:N] or mps (default: cpu)"
    )
