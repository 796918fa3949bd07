"""What a person chooses about a search for mixed precision: candidates, limits, measure, coupling."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from qstudio.core.errors import UserError
from qstudio.core.scheme import parse_bits
from qstudio.core.search import RESOURCES

DAMAGES: dict[str, str] = {
    "kl": "mean over samples of sum p log(p / q) in nats, p the float model's class probabilities and q the quantized "
    "one's; needs no labels and sees changes that do not yet flip a class: the default for classifiers",
    "loss": "rise of the mean cross entropy with the labels, nats",
    "agreement": "percent of samples whose class is not the float model's; moves in steps of one sample",
    "sqnr": "noise over signal of the first output, sum (y - y^)^2 / sum y^2 = 10^(-SQNR/10): for outputs that are not "
    "class scores",
    "hessian": "Tr(H) / n x ||Q(W) - W||^2 of each weight, H the Hessian of the cross entropy with the float model's "
    "own probabilities; predicted without running each candidate, weights only (HAWQ-V2, Dong et al., 2020)",
}
"""By what candidates are compared; each is measured with one group quantized and everything else float, and summed."""

SOLVERS: dict[str, str] = {
    "exact": "a mixed-integer linear programme (HAWQ-V3, Yao et al., 2021): nothing better exists for these figures",
    "greedy": "lowers step by step whatever costs least damage for what it saves; for thousands of layers",
}

COUPLINGS: dict[str, str] = {
    "none": "only tensors that share one encoding share their bits",
    "activations": "tensors that meet in one Add, Concat or product of two activations share their bits",
    "both": "and so do the weights of the layers whose outputs meet there (HAWQ-V3's rule)",
}
"""Which layers share their bits."""

UNIFORM_BITS = (8, 6, 4, 3)
"""Weight bits of the uniform recipes that are evaluated beside the searched ones."""


@dataclass(frozen=True)
class SearchSettings:
    """How bits are searched.

    Raises:
        UserError: A value does not exist or is out of its bounds.
    """

    weight_bits: tuple[int, ...] = (8, 6, 4, 3, 2)
    """Candidates of every weight that is not kept."""
    activation_bits: tuple[int, ...] = ()
    """Candidates of every activation that is not kept; empty = as the recipe says."""
    limits: tuple[tuple[str, float], ...] = ()
    """(resource of `RESOURCES`, most that is allowed)."""
    max_drop: float | None = None
    """Most points of top-1 (of agreement with float, without labels) that may be lost, measured."""
    damage: str = ""
    """Of DAMAGES; empty = "kl" for class scores, else "sqnr"."""
    solver: str = "exact"
    couple: str = "activations"
    groups: tuple[tuple[str, ...], ...] = ()
    """Names or globs of layers that share their bits besides."""
    keep_weights: tuple[str, ...] = ()
    keep_activations: tuple[str, ...] = ()
    """Names or globs of layers whose bits stay as the recipe says."""
    damage_samples: int = 256
    """Calibration samples on which candidates are measured."""
    front_points: int = 20
    """Budgets from the lowest to the highest for which the best recipe is kept."""
    front_samples: int = 1000
    """Evaluation samples on which the points of the front and uniform recipes are measured."""
    axis: str = ""
    """The front's resource; empty = the first limit's, else average bits."""

    def __post_init__(self) -> None:
        if not self.weight_bits and not self.activation_bits:
            raise UserError("there is nothing to choose from", "search", "Give candidate bits, such as 8,4,2")
        for name in ("weight_bits", "activation_bits"):
            widths = {parse_bits(bits) for bits in getattr(self, name)}
            object.__setattr__(self, name, tuple(sorted(widths, reverse=True)))
        for name, amount in self.limits:
            _one_of(name, RESOURCES, "limit")
            if not math.isfinite(amount) or amount <= 0:
                raise UserError(f"{amount:g} is no limit", name, "Give a number above 0")
        if len({name for name, _ in self.limits}) < len(self.limits):
            raise UserError("a resource is limited twice", "search", "Give each limit once")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UserError(f"{self.max_drop:g} points are no drop", "search", "Give 0 to 100")
        _one_of(self.solver, SOLVERS, "solver")
        _one_of(self.couple, COUPLINGS, "coupling")
        if self.damage:
            _one_of(self.damage, DAMAGES, "measure of damage")
        if self.axis:
            _one_of(self.axis, RESOURCES, "resource")
        for name, least in (("damage_samples", 1), ("front_points", 2), ("front_samples", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{getattr(self, name)} is too small", name.replace("_", " "), f"Give {least} or more")

    @property
    def front_axis(self) -> str:
        """The resource along which the front is computed."""
        return self.axis or (self.limits[0][0] if self.limits else "average_bits")


def _one_of(name: str, known: Iterable[str], what: str) -> None:
    if name not in known:
        raise UserError(f"there is no {what} '{name}'", "search", f"Choose one of {', '.join(known)}")
