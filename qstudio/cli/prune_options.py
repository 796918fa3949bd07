"""What prunes on the command line, and the help that says so. Imports nothing heavy."""

from __future__ import annotations

import argparse

from qstudio.core.pruning import METHODS, MOST

PRUNING_HELP = f"""\
pruning, before quantization (--prune for all layers, --set 'GLOB.pruning=...' for some):
{chr(10).join(f"  {m.id:<14} {m.summary} {m.formula} ({m.source})" for m in METHODS.values())}
  METHOD:PERCENT takes that share of each layer, METHOD:PERCENT:global of all layers with the same text together.
  Filters go with all that is coupled to them; layers whose outputs are added must ask alike."""


def add_pruning_option(group: argparse._ArgumentGroup) -> None:
    """Add --prune to the options of the recipe."""
    group.add_argument(
        "--prune",
        metavar="METHOD:PERCENT[:global]",
        help=f"remove weights first: {', '.join(METHODS)}, 0 to {MOST:g} percent of each layer, or of all layers"
        " together (default: none)",
    )


def add_pruning_steps(group: argparse._ArgumentGroup) -> None:
    """Add --prune-steps to the options of training."""
    group.add_argument(
        "--prune-steps",
        type=int,
        metavar="N",
        help="prune single weights in N steps, at the beginning of the first N epochs, much at first and little at the"
        " end: share 1 - (1 - step / N)^3 (Zhu and Gupta, 2017; default: 1, at once). Filters always go at once",
    )
