"""Which layers hurt: the measures of a sensitivity sweep, its candidates, and what it brings."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS, format_bits, parse_bits


@dataclass(frozen=True)
class Measure:
    """A figure by which layers are compared."""

    id: str
    title: str
    unit: str
    meaning: str
    """Formula, when to use it, source; one or two sentences."""
    high_is_bad: bool = True


MEASURES: dict[str, Measure] = {
    measure.id: measure
    for measure in (
        Measure(
            "loss",
            "loss",
            "nats",
            "Mean cross entropy with the labels. Needs labels; finer than top-1, which moves in steps of one sample.",
        ),
        Measure(
            "kl",
            "KL divergence",
            "nats",
            "Mean over samples of sum p log(p / q), p the float model's class probabilities and q the quantized one's. "
            "Needs no labels; sees changes that do not yet flip a class (Kullback and Leibler, 1951).",
        ),
        Measure(
            "sqnr",
            "output SQNR",
            "dB",
            "10 log10(sum y^2 / sum (y - y^)^2) over the model's output: needs no labels and no classes. 30 and more "
            "is good, under 20 is bad.",
            high_is_bad=False,
        ),
        Measure(
            "agreement",
            "agreement",
            "%",
            "Share of samples with the float model's argmax. Needs no labels; moves in steps of one sample.",
            high_is_bad=False,
        ),
        Measure(
            "top1",
            "top-1",
            "%",
            "Share of samples whose argmax is the label. What counts in the end, and the coarsest: 1,000 samples do "
            "not order layers 0.3 points apart.",
            high_is_bad=False,
        ),
        Measure(
            "hessian",
            "Hessian",
            "nats",
            "Tr(H) / n x ||Q(W) - W||^2 of the layer's n weights, H the Hessian of the cross entropy with the float "
            "model's own probabilities, its trace by Hutchinson's estimator. Predicted, not measured: the network runs "
            "a few times in all. Weights only (HAWQ-V2, Dong et al., 2020; Hutchinson, 1990).",
        ),
    )
}
"""What layers can be compared by."""

MODES: dict[str, str] = {
    "enable": "only this layer is quantized, everything else is float: the error it makes on its own",
    "disable": "everything is quantized, only this layer is float: what sparing it brings back",
    "change": "everything is as the recipe says, only this layer takes the candidate: what the change costs",
}
"""How a layer is singled out, and what that shows."""

SIDES: dict[str, str] = {
    "weights": "the layer's weight",
    "activations": "the tensor the layer puts out",
    "both": "the layer's weight and the tensor it puts out, at the same width",
}
"""What of a layer a candidate changes."""


@dataclass(frozen=True)
class Candidate:
    """Widths that are tried on one layer; None leaves that side alone."""

    weight_bits: int | None = None
    activation_bits: int | None = None

    @property
    def text(self) -> str:
        """Return the candidate in short: "W4", "A8", "W4A4"; a float side is "f"."""
        sides = (("W", self.weight_bits), ("A", self.activation_bits))
        return "".join(
            f"{letter}{'f' if bits == FLOAT_BITS else format_bits(bits)}" for letter, bits in sides if bits is not None
        )


def make_candidates(bits: Sequence[str | int], side: str = "weights", mode: str = "enable") -> tuple[Candidate, ...]:
    """Return one candidate for each width, in the order given and each once.

    Args:
        bits: 1 to 16, as numbers or texts; "float" with the mode "change" only.
        side: Of SIDES.
        mode: Of MODES.

    Raises:
        UserError: Nothing to try, or a width, side or mode that does not exist.
    """
    if side not in SIDES:
        raise UserError(f"there is no side '{side}'", "side", f"Choose one of {', '.join(SIDES)}")
    if mode not in MODES:
        raise UserError(f"there is no mode '{mode}'", "mode", f"Choose one of {', '.join(MODES)}")
    widths = list(dict.fromkeys(parse_bits(width) for width in bits))
    if not widths:
        raise UserError("there is no bit width to try", "bits", "Give at least one, such as 8,4,2")
    if FLOAT_BITS in widths and mode != "change":
        raise UserError("float is no candidate here", "bits", "Give widths of 1 to 16 bits, or choose the mode change")
    weights, activations = side != "activations", side != "weights"
    return tuple(Candidate(width if weights else None, width if activations else None) for width in widths)


@dataclass(frozen=True)
class Figures:
    """What one evaluation says, beside the float model on the same samples."""

    samples: int
    agreement: float
    """Percent."""
    sqnr_db: float
    """Of the first output; infinite where it is equal."""
    kl: float | None = None
    """Nats; None where the output is not class scores."""
    top1: float | None = None
    """Percent; None without labels."""
    top1_interval: tuple[float, float] | None = None
    """95 % Wilson interval of top1."""
    loss: float | None = None
    """Nats; None without labels."""

    def value(self, measure: str) -> float | None:
        """Return a measured figure by the id of its measure; None where it is not known or not measured."""
        found: float | None = getattr(self, {"sqnr": "sqnr_db"}.get(measure, measure), None)
        return found


@dataclass(frozen=True)
class SensitivityCell:
    """One layer with one candidate."""

    layer: str
    candidate: Candidate
    figures: Figures | None = None
    """None where only the Hessian was asked for."""
    hessian: float | None = None
    """Tr(H) / n x ||Q(W) - W||^2, nats; None where not asked for, or where no weight changes."""

    def value(self, measure: str) -> float | None:
        """Return a figure by the id of its measure; None where it is not known."""
        if measure == "hessian":
            return self.hessian
        return None if self.figures is None else self.figures.value(measure)


@dataclass(frozen=True)
class HessianTrace:
    """The curvature of the loss along one layer's weight."""

    layer: str
    trace: float
    """Tr(H) of the mean loss, nats per squared unit of the weight."""
    standard_error: float
    """Of the trace, from the spread of the probes; 0 with a single probe."""
    parameters: int


@dataclass(frozen=True)
class SensitivityResult:
    """A whole sweep."""

    mode: str
    candidates: tuple[Candidate, ...]
    cells: tuple[SensitivityCell, ...]
    """Layers in topological order, and for each the candidates in theirs; layers a candidate says nothing about are
    left out."""
    recipe: Recipe
    model_hash: str
    data_hash: str
    """Of the evaluation samples: contents, reading, which of them."""
    seed: int
    float: Figures | None = None
    """The float model against the labels."""
    bases: tuple[tuple[Candidate, Figures], ...] = ()
    """What the cells of each candidate are to be compared with: float (enable), everything quantized (disable), the
    recipe (change)."""
    traces: tuple[HessianTrace, ...] = ()
    computed: int = 0
    """Cells that were evaluated; the others were known."""
    seconds: builtins.float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with a cell, in order."""
        return tuple(dict.fromkeys(cell.layer for cell in self.cells))

    def cell(self, layer: str, candidate: Candidate) -> SensitivityCell | None:
        """Return a cell, or None."""
        return next((c for c in self.cells if c.layer == layer and c.candidate == candidate), None)

    def ranking(self, measure: str, candidate: Candidate) -> tuple[str, ...]:
        """Return the layers of a candidate, the one that matters most first.

        That is the worst figure where one layer is quantized or changed, and the best where one layer is spared.
        """
        known = [(c.layer, v) for c in self.cells if c.candidate == candidate and (v := c.value(measure)) is not None]
        first_is_high = MEASURES[measure].high_is_bad != (self.mode == "disable" and measure != "hessian")
        return tuple(layer for layer, _ in sorted(known, key=lambda item: item[1], reverse=first_is_high))


def log_probabilities(
    scores: NDArray[np.floating], reference: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return log class probabilities of [N, K] scores.

    Args:
        scores: Logits, or the output of a Softmax.
        reference: Scores that decide which of the two they are (a quantized Softmax need not sum to 1); None = these.
    """
    values = np.asarray(scores, np.float64)
    if are_probabilities(scores if reference is None else reference):
        floored = np.maximum(values, 1e-12)
        return np.asarray(np.log(floored / floored.sum(axis=1, keepdims=True)))
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def are_probabilities(scores: NDArray[np.floating]) -> bool:
    """Return whether [N, K] scores are probabilities already: none negative, every row summing to 1 (to 1e-3)."""
    values = np.asarray(scores, np.float64)
    return bool(values.size) and bool((values >= 0).all()) and bool((abs(values.sum(axis=1) - 1) < 1e-3).all())


def kl_divergence(reference: NDArray[np.floating], scores: NDArray[np.floating]) -> float:
    """Return the mean over samples of sum p log(p / q) in nats, for [N, K] scores of float (p) and quantized (q)."""
    if not len(reference):
        return 0.0
    p, q = log_probabilities(reference), log_probabilities(scores, reference)
    return max(float((np.exp(p) * (p - q)).sum(axis=1).mean()), 0.0)
