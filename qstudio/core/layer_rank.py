"""Layers by the size of their weights: the largest or smallest share of them, for choosing many at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.statistics import SiteStatistics


@dataclass(frozen=True)
class Measure:
    """One way to rank layers."""

    id: str
    title: str
    help: str
    of: Callable[[SiteStatistics], float]
    """Value of a weight, in units of the tensor."""


MEASURES: dict[str, Measure] = {
    measure.id: measure
    for measure in (
        Measure("l1", "L1 norm", "Sum of |w| over the layer's weights.", lambda s: s.l1_norm),
        Measure(
            "mean",
            "Mean |w|",
            "Mean magnitude of the layer's weights: the L1 norm divided by their number.",
            lambda s: s.l1_norm / max(s.histogram.count, 1),
        ),
        Measure(
            "magnitude",
            "Largest |w|",
            "Largest magnitude among the layer's weights: what a min-max range has to reach.",
            lambda s: max(-s.histogram.minimum, s.histogram.maximum),
        ),
    )
}

SELECTOR = re.compile(r"@(?P<measure>[a-z0-9]+):(?P<sign>-?)(?P<percent>\d+(?:\.\d+)?)%?")


@dataclass(frozen=True)
class RankSelector:
    """A share of the layers that have weights, by rank."""

    measure: str
    percent: float
    largest: bool = True

    def layers(self, model: ModelInfo, statistics: Mapping[str, SiteStatistics]) -> tuple[str, ...]:
        """Return the names of the chosen layers, in the model's order; at least one where there are weights.

        Args:
            model: Its layers with weights are ranked; of equal values the earlier layer ranks higher.
            statistics: Of the weights, by site.
        """
        of = MEASURES[self.measure].of
        ranked = [(layer.name, of(statistics[layer.weight.id])) for layer in model.weighted_layers if layer.weight]
        ranked.sort(key=lambda item: -item[1] if self.largest else item[1])
        count = max(1, round(self.percent / 100.0 * len(ranked)))
        chosen = {name for name, _ in ranked[:count]}
        return tuple(layer.name for layer in model.layers if layer.name in chosen)


def parse_selector(text: str) -> RankSelector | None:
    """Return what "@l1:25%" (the largest quarter) or "@l1:-25%" (the smallest) means; None for other texts.

    Raises:
        UserError: It begins with "@" and is not such a text.
    """
    if not text.startswith("@"):
        return None
    match = SELECTOR.fullmatch(text.lower())
    fix = f"Write for example @l1:25% or @l1:-25%, with {', '.join(MEASURES)}"
    if match is None or match["measure"] not in MEASURES:
        raise UserError(f"'{text}' chooses no layers", "--set", fix)
    percent = float(match["percent"])
    if not 0 < percent <= 100:
        raise UserError(f"'{text}' is not a share of the layers", "--set", "Choose more than 0 and up to 100 percent")
    return RankSelector(match["measure"], percent, not match["sign"])
