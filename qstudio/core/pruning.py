"""Pruning: what is removed from a layer before it is quantized. Words and bounds; the work is in `qstudio.quant.prune`.

Written in a recipe as "none", "METHOD:PERCENT" (that share of this layer) or "METHOD:PERCENT:global" (that share of
all layers with the same text together, so that layers compete).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qstudio.core.errors import UserError

if TYPE_CHECKING:
    from qstudio.core.recipe import Recipe

NONE = "none"
MOST = 99.0
"""Percent that can be removed at most."""


@dataclass(frozen=True)
class PruningMethod:
    """A way to choose what is removed, and what a person is told about it."""

    id: str
    title: str
    summary: str
    formula: str
    source: str
    structured: bool
    """Whether whole filters or channels go and the export really shrinks; otherwise single weights become zero."""
    needs_data: bool = False
    """Whether importance is measured on calibration samples."""
    over_inputs: bool = False
    """Whether what goes are inputs of the layer (structured methods only); otherwise its filters."""


METHODS: dict[str, PruningMethod] = {
    method.id: method
    for method in (
        PruningMethod(
            "magnitude",
            "Magnitude",
            "The smallest weights become zero. The file shrinks only when zeros are stored as such; speed stays.",
            "importance = |w|",
            "Han et al., 2015",
            structured=False,
        ),
        PruningMethod(
            "taylor",
            "Taylor, single weights",
            "Weights whose removal changes the loss least become zero.",
            "importance = (w dL/dw)^2",
            "Molchanov et al., 2019",
            structured=False,
            needs_data=True,
        ),
        PruningMethod(
            "l1_filter",
            "L1 filters",
            "Whole filters (outputs of the layer) with the smallest sum of magnitudes go: the network becomes smaller.",
            "importance = sum |w| of the filter",
            "Li et al., Pruning Filters for Efficient ConvNets, 2017",
            structured=True,
        ),
        PruningMethod(
            "l2_filter",
            "L2 filters",
            "Whole filters (outputs of the layer) with the smallest norm go: the network becomes smaller.",
            "importance = sqrt(sum w^2) of the filter",
            "He et al., Soft Filter Pruning, 2018",
            structured=True,
        ),
        PruningMethod(
            "l1_channel",
            "L1 channels",
            "Inputs of the layer with the smallest sum of magnitudes go, with the filters before it that make them.",
            "importance = sum |w| over the channel's column",
            "He et al., Channel Pruning, 2017",
            structured=True,
            over_inputs=True,
        ),
        PruningMethod(
            "l2_channel",
            "L2 channels",
            "Inputs of the layer with the smallest norm go, with the filters before it that make them.",
            "importance = sqrt(sum w^2) over the channel's column",
            "He et al., Channel Pruning, 2017",
            structured=True,
            over_inputs=True,
        ),
        PruningMethod(
            "taylor_filter",
            "Taylor filters",
            "Whole filters whose removal changes the loss least go: the network becomes smaller.",
            "importance = (sum w dL/dw over the filter)^2",
            "Molchanov et al., Importance Estimation, 2019",
            structured=True,
            needs_data=True,
        ),
    )
}


@dataclass(frozen=True)
class Pruning:
    """What a layer's text says."""

    method: str
    percent: float
    across_layers: bool = False
    """Whether layers with the same text are ranked together."""

    @property
    def structured(self) -> bool:
        """Whether whole filters or channels go."""
        return METHODS[self.method].structured

    def text(self) -> str:
        """Return what is written in a recipe."""
        return f"{self.method}:{self.percent:.10g}" + (":global" if self.across_layers else "")


def parse_pruning(text: str) -> Pruning | None:
    """Return what a text asks for; None for "none".

    Raises:
        UserError: It is not a pruning.
    """
    cleaned = text.strip().lower()
    if cleaned in ("", NONE):
        return None
    name, _, rest = cleaned.partition(":")
    if name not in METHODS:
        raise UserError(f"there is no pruning '{name}'", "pruning", f"Choose none, {', '.join(METHODS)}")
    share, _, scope = rest.partition(":")
    try:
        percent = float(share.rstrip("% "))
    except ValueError:
        percent = float("nan")
    if not 0 <= percent <= MOST:
        raise UserError(f"'{share}' is not a share to remove", "pruning", f"Write {name}:PERCENT, 0 to {MOST:g}")
    if scope not in ("", "layer", "global"):
        raise UserError(
            f"'{scope}' is not a scope", "pruning", f"Write {name}:{percent:g} or {name}:{percent:g}:global"
        )
    return Pruning(name, percent, scope == "global")


def check_pruning(text: str) -> str:
    """Return a pruning in canonical form ("L1_filter:30%" -> "l1_filter:30"); 0 percent is "none".

    Raises:
        UserError: It is not a pruning.
    """
    pruning = parse_pruning(text)
    return NONE if pruning is None or pruning.percent == 0 else pruning.text()


def prunes(recipe: Recipe) -> bool:
    """Return whether a recipe asks for any pruning at all."""
    return bool(_asked(recipe))


def removes_filters(recipe: Recipe) -> bool:
    """Return whether a recipe asks for pruning that makes the network smaller."""
    return any(METHODS[text.partition(":")[0]].structured for text in _asked(recipe))


def _asked(recipe: Recipe) -> set[str]:
    parts = [dict(rule.values) for rule in recipe.rules] + [dict(values) for _, values in recipe.overrides]
    texts = [recipe.default.pruning, *(str(part["pruning"]) for part in parts if "pruning" in part)]
    return {check_pruning(text) for text in texts} - {NONE}


def share_after(step: int, steps: int) -> float:
    """Return which share of the final sparsity is reached after a step of iterative pruning, 0..1.

    1 - (1 - step / steps)^3: much at first, while much is redundant, and little at the end (Zhu and Gupta, To prune, or
    not to prune, 2017, equation 1, from no sparsity).

    Args:
        step: Counted from 1; 0 is before the first.
        steps: All of them; 1 prunes at once.
    """
    return 1.0 - (1.0 - min(step, steps) / steps) ** 3


PRUNED_OPERATORS: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose weight can be pruned."""
