"""Whether an accuracy has really fallen: flips of single samples, not two percentages."""

from __future__ import annotations

from math import comb

from qstudio.core.results import Metrics

LEAST_POINTS = 0.5
"""A smaller fall is not worth a diagnosis, however many samples confirm it."""
LEAST_AGREEMENT = 99.0
"""Percent; without labels, what changes fewer predictions passes as nothing."""
LEVEL = 0.05


def flip_probability(to_wrong: int, to_right: int) -> float:
    """Return the chance that so many or more flips go to wrong if either direction is as likely (McNemar, exact).

    Args:
        to_wrong: Samples on which the float model is right and the other is not.
        to_right: The reverse.
    """
    flips = to_wrong + to_right
    return float(sum(comb(flips, k) for k in range(to_wrong, flips + 1)) / 2**flips) if flips else 1.0


def score_of(metrics: Metrics) -> float:
    """Return top-1, or agreement with the float model where there are no labels; percent."""
    return metrics.top1 if metrics.top1 is not None else (metrics.agreement or 0.0)


def is_worse(metrics: Metrics, float_metrics: Metrics) -> bool:
    """Return whether a recipe does worse than the float model: by half a point or more, and not by chance."""
    if metrics.top1 is None or float_metrics.top1 is None:
        return (metrics.agreement or 0.0) < LEAST_AGREEMENT
    if float_metrics.top1 - metrics.top1 < LEAST_POINTS:
        return False
    return flip_probability(metrics.flips_to_wrong or 0, metrics.flips_to_right or 0) < LEVEL
