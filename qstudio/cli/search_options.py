"""What `qstudio search` takes besides the options of a run. Imports nothing heavy."""

from __future__ import annotations

import argparse

DAMAGES = ("kl", "loss", "agreement", "sqnr", "hessian")
"""As `qstudio.core.search_settings.DAMAGES`, which loads numpy."""

SOLVERS = ("exact", "greedy")
"""As `qstudio.core.search_settings.SOLVERS`."""

COUPLINGS = ("none", "activations", "both")
"""As `qstudio.core.search_settings.COUPLINGS`."""

AXES = ("size_bytes", "bops", "average_bits", "latency_ms")
"""As `qstudio.core.search.RESOURCES`."""

SEARCH_EXAMPLES = """\
examples:
  the best weights of 4 bits on average, exported and verified:
    qstudio search model.onnx --data test.npz --calibration-data train.npz --average-bits 4 -o model_mixed.onnx

  the smallest weights that lose at most half a point:
    qstudio search model.onnx --data digits --max-drop 0.5 --save-recipe mixed.json

  8 or 4 bits for weights and activations under two limits, the first layer left as it is:
    qstudio search model.onnx --data digits --candidates 8,4 --activation-candidates 8,4 \\
        --max-size 40kB --max-bops 60M --keep conv1

  fast enough on this machine, with 16-bit activations where 8 hurt:
    qstudio search model.onnx --data digits --activation-candidates 16,8 --max-latency-ms 0.4

Bits are chosen on calibration samples; the recipe that is found is then run as 'qstudio quantize' runs it. Formats,
ranges and refinements are those of the recipe options. --first-last-bits and --set with bits hold: those layers are
not searched. Every figure is measured; only the sum over layers is a prediction, and its rank correlation with what
the recipes of the front really cost is shown."""


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add limits, candidates, and how they are compared."""
    limits = parser.add_argument_group("limits (any mix of them)")
    limits.add_argument("--average-bits", metavar="N", help="mean bits of a weight, over all weights")
    limits.add_argument("--max-size", metavar="BYTES", help="bytes of weights and scales; kB and MB can follow")
    limits.add_argument(
        "--max-bops",
        metavar="N",
        help="bit operations of one sample, MACs x weight bits x bits of what is read; k, M and G can follow",
    )
    limits.add_argument(
        "--max-latency-ms",
        metavar="MS",
        help="of one run, predicted from the float model and each layer's own time at each width, measured here",
    )
    limits.add_argument(
        "--max-drop",
        metavar="POINTS",
        help="points of top-1 (agreement, without labels) that may be lost: takes the cheapest recipe measured within",
    )
    group = parser.add_argument_group("search")
    group.add_argument(
        "--candidates", metavar="N,N", default="8,6,4,3,2", help="widths of weights (default: 8,6,4,3,2); none: as set"
    )
    group.add_argument(
        "--activation-candidates", metavar="N,N", default="none", help="widths of activations (default: none, as set)"
    )
    group.add_argument(
        "--damage",
        choices=DAMAGES,
        help="by what candidates are compared, one group quantized and all else float. kl: divergence of the class"
        " probabilities from float's; loss: rise of the cross entropy, with labels; agreement: classes that change;"
        " sqnr: noise over signal of the output; hessian: Tr(H) / n x |Q(W) - W|^2, predicted (default: kl, or sqnr"
        " where the output is no class scores)",
    )
    group.add_argument(
        "--solver",
        choices=SOLVERS,
        default="exact",
        help="exact: mixed-integer linear programme (default); greedy: for thousands of layers",
    )
    group.add_argument(
        "--couple",
        choices=COUPLINGS,
        default="activations",
        help="what shares its bits. activations: tensors that meet in an Add or Concat (default); both: the weights of"
        " these branches too (HAWQ-V3); none: only what shares an encoding",
    )
    group.add_argument(
        "--group", metavar="GLOB,GLOB", action="append", default=[], help="layers that share their bits; repeatable"
    )
    group.add_argument(
        "--keep", metavar="GLOB", action="append", default=[], help="layers that stay as the recipe says; repeatable"
    )
    group.add_argument(
        "--axis", choices=AXES, help="resource along which the front is computed (default: the first limit's)"
    )
    group.add_argument("--damage-samples", metavar="N", default="256", help="samples for each candidate (default: 256)")
    group.add_argument("--front-points", metavar="N", default="20", help="budgets of the front (default: 20)")
    group.add_argument(
        "--front-samples", metavar="N", default="1000", help="evaluation samples of each point (default: 1,000)"
    )
    group.add_argument(
        "--resume",
        metavar="FILE.json",
        default="",
        help="keep every measured figure here, by a hash of all it depends on, and measure only what is not there yet",
    )
