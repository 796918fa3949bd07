"""Flips: which samples get another answer, what that is worth, and whether it could be chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qstudio.core.metrics import Z95, mcnemar_p
from qstudio.core.predictions import Predictions

FlipKind = Literal["to_wrong", "to_right", "other_wrong", "changed"]
KINDS: tuple[FlipKind, ...] = ("to_wrong", "to_right", "other_wrong", "changed")
"""Right to wrong, wrong to right, one wrong class to another; "changed" where there are no labels."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The class that one network gives each of a set of samples."""

    indices: NDArray[np.int64]
    """[N] places in the evaluation split."""
    labels: NDArray[np.int64]
    """[N]; empty without labels."""
    classes: NDArray[np.int64]
    """[N]"""
    margins: NDArray[np.float32]
    """[N] probability of the first class minus that of the second."""
    class_names: tuple[str, ...] = ()


def float_answers(predictions: Predictions) -> Answers:
    """Return the float network's answers."""
    p = predictions
    return Answers(p.indices, p.labels, p.float_class, p.float_margin, p.class_names)


def quantized_answers(predictions: Predictions) -> Answers:
    """Return the simulated network's answers."""
    p = predictions
    return Answers(p.indices, p.labels, p.quantized_class, p.quantized_margin, p.class_names)


@dataclass(frozen=True, eq=False)
class Flips:
    """What changes between two networks on the samples that both were evaluated on."""

    samples: int
    """Compared."""
    indices: NDArray[np.int64]
    """[M] samples that changed, by place in the evaluation split."""
    labels: NDArray[np.int64]
    """[M]; empty without labels."""
    before: NDArray[np.int64]
    """[M] classes of the first network."""
    after: NDArray[np.int64]
    """[M] classes of the second network."""
    before_margins: NDArray[np.float32]
    after_margins: NDArray[np.float32]
    kinds: NDArray[np.int8]
    """[M] positions in KINDS."""
    confusion: NDArray[np.int64]
    """[K, K] what the second network counts minus what the first counts: rows are labels, columns are answers. Without
    labels: how often the class of the row became that of the column."""
    to_wrong: int
    to_right: int
    other_wrong: int
    p: float
    """McNemar's exact two-sided p of `to_wrong` and `to_right`; 1 without labels."""
    labelled: bool
    """Whether it is known which answers are right."""
    class_names: tuple[str, ...] = ()

    def name_of(self, number: int) -> str:
        """Return a class by name, else by number."""
        return self.class_names[number] if 0 <= number < len(self.class_names) else str(number)

    @property
    def difference_points(self) -> float:
        """Right answers of the second network minus those of the first, in percent of the samples."""
        return 100.0 * (self.to_right - self.to_wrong) / max(self.samples, 1)

    @property
    def half_width_points(self) -> float:
        """Half of the 95 % interval of `difference_points`."""
        return paired_half_width(self.to_wrong, self.to_right, self.samples)


def paired_half_width(to_wrong: int, to_right: int, samples: int) -> float:
    """Return the half width of the 95 % interval of a difference of paired shares, in points.

    Each count gets one half more (Agresti and Min, 2005), so that no difference at all still has an interval.
    """
    wrong, right, n = to_wrong + 0.5, to_right + 0.5, samples + 2
    return 100 * Z95 * math.sqrt(max(wrong + right - (right - wrong) ** 2 / n, 0.0)) / n


def flips_between(first: Answers, second: Answers) -> Flips:
    """Return what changes from one network to another on the samples that both answered.

    Args:
        first: Before.
        second: After, on the same split of the same data.
    """
    first, second = _paired(first, second)
    labelled = len(first.labels) == len(first.indices) and len(first.labels) > 0
    n_classes = 1 + max((int(a.max(initial=0)) for a in (first.classes, second.classes, first.labels)), default=0)
    n_classes = max(n_classes, len(first.class_names))
    changed = first.classes != second.classes
    before, after = first.classes[changed], second.classes[changed]
    if labelled:
        labels = first.labels[changed]
        kinds = np.where(before == labels, 0, np.where(after == labels, 1, 2)).astype(np.int8)
        confusion = _counts(first.labels, second.classes, n_classes) - _counts(first.labels, first.classes, n_classes)
    else:
        labels = np.zeros(0, np.int64)
        kinds = np.full(len(before), 3, np.int8)
        confusion = _counts(before, after, n_classes)
    to_wrong, to_right, other = (int((kinds == kind).sum()) for kind in range(3))
    return Flips(
        samples=len(first.indices),
        indices=first.indices[changed],
        labels=labels,
        before=before,
        after=after,
        before_margins=first.margins[changed],
        after_margins=second.margins[changed],
        kinds=kinds,
        confusion=confusion,
        to_wrong=to_wrong,
        to_right=to_right,
        other_wrong=other,
        p=mcnemar_p(to_wrong, to_right),
        labelled=labelled,
        class_names=first.class_names,
    )


def _paired(first: Answers, second: Answers) -> tuple[Answers, Answers]:
    """Return both cut to the samples they share, in one order."""
    if np.array_equal(first.indices, second.indices):
        return first, second
    _, at, to = np.intersect1d(first.indices, second.indices, return_indices=True)
    return _taken(first, at), _taken(second, to)


def _taken(answers: Answers, places: NDArray[np.int64]) -> Answers:
    labels = answers.labels[places] if len(answers.labels) else answers.labels
    return Answers(
        answers.indices[places], labels, answers.classes[places], answers.margins[places], answers.class_names
    )


def _counts(rows: NDArray[np.int64], columns: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)


def most_changed(confusion: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the classes of a confusion difference that changed most, in their own order; all where they are few.

    Args:
        confusion: [K, K].
        most: How many at most.
    """
    if len(confusion) <= most:
        return np.arange(len(confusion))
    weight = np.abs(confusion)
    total = weight.sum(axis=0) + weight.sum(axis=1)
    return np.sort(np.argsort(-total, kind="stable")[:most])
