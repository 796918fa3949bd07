"""Which samples are calibrated with and which are evaluated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.sample_choice import check_choice, noise_kind
from qstudio.data.dataset import Dataset, Split
from qstudio.data.noise import NoiseDataset, noise_note


@dataclass(frozen=True, eq=False)
class Samples:
    """A choice of samples. Indices are int64, ascending, and never name a sample in both roles."""

    calibration: Split
    calibration_indices: NDArray[np.int64]
    evaluation: Split
    evaluation_indices: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    """What the person should know about the choice, one sentence each."""


def choose_samples(
    dataset: Dataset,
    calibration_samples: int,
    eval_samples: int | None,
    seed: int,
    calibration_dataset: Dataset | None = None,
    choice: str = "random",
) -> Samples:
    """Choose calibration and evaluation samples; the same seed gives the same samples everywhere.

    Calibration samples come from the calibration dataset if there is one (its training split, else all of it), else
    from the training split, else from the only split, and are then left out of the evaluation. Each split is shuffled
    by numpy's PCG64; calibration takes from the front, evaluation from the back, so that asking for more of one keeps
    those chosen before. "first" takes calibration samples from the front as they are stored; "balanced" takes them in
    turn from each class, in shuffled order.

    Args:
        dataset: What is evaluated on.
        calibration_samples: How many to calibrate with, at least 1.
        eval_samples: How many to evaluate on, at least 1; None = all that remain.
        seed: 0 or larger.
        calibration_dataset: Other data to calibrate with.
        choice: One of `qstudio.core.sample_choice.CHOICES`.

    Raises:
        UserError: A number below 1, a negative seed, a single sample for both, or no labels where classes are wanted.
    """
    for option, count in (("--calibration-samples", calibration_samples), ("--eval-samples", eval_samples)):
        if count is not None and count < 1:
            raise UserError(f"{count} samples are too few", option, "Give 1 or more")
    if seed < 0:
        raise UserError(f"the seed {seed} is negative", "--seed", "Give 0 or more")
    check_choice(choice)
    source = calibration_dataset or dataset
    calibration, evaluation = source.train or source.test, dataset.test
    notes = [] if not isinstance(source, NoiseDataset) else [noise_note(noise_kind(source.path))]
    shared = calibration is evaluation
    wanted = calibration_samples
    if shared and wanted >= len(calibration):
        wanted = len(calibration) // 2
        notes.append(
            f"{dataset.name} has {len(calibration):,} samples in one split: {wanted:,} are for calibration,"
            " the others for evaluation"
        )
        if not wanted:
            raise UserError("one sample is not enough to calibrate and evaluate", dataset.path, "Add samples")
    elif not shared and calibration_dataset is not None and source.path == dataset.path and source.train is None:
        notes.append("calibration and evaluation use the same samples: the figures may flatter")
    if wanted > len(calibration):
        notes.append(f"there are {len(calibration):,} samples for calibration, {wanted:,} were wanted")
        wanted = len(calibration)
    order = _shuffled(len(calibration), seed)
    if choice == "first" and not isinstance(source, NoiseDataset):
        order = np.arange(len(calibration), dtype=np.int64)
        notes.append(f"Calibrated with the first {wanted:,} samples as they are stored")
    elif choice == "balanced":
        order = _in_turn(order, calibration, source)
        notes.append(_balance_note(order[:wanted], calibration))
    front = order[:wanted]
    back = _shuffled(len(evaluation), seed)
    if shared:
        back = back[~np.isin(back, front)]
    if eval_samples is not None and eval_samples < len(back):
        back = back[len(back) - eval_samples :]
    return Samples(calibration, np.sort(front), evaluation, np.sort(back), tuple(notes))


def _shuffled(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64(seed)).permutation(count).astype(np.int64)


def _in_turn(order: NDArray[np.int64], split: Split, source: Dataset) -> NDArray[np.int64]:
    """Return the samples one of each class at a time, those of a class in the order they are in."""
    if split.labels is None:
        raise UserError(
            f"{source.name} has no labels to balance the classes by",
            "--calibration-choice balanced",
            "Choose random or first",
        )
    labels = split.labels[order]
    by_class = np.argsort(labels, kind="stable")
    ordered = labels[by_class]
    turn = np.empty(len(order), np.int64)
    turn[by_class] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[np.lexsort((labels, turn))]


def _balance_note(chosen: NDArray[np.int64], split: Split) -> str:
    assert split.labels is not None
    counts = np.unique(split.labels[chosen], return_counts=True)[1]
    least, most = int(counts.min()), int(counts.max())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"Calibrated with {each} samples of each of {len(counts):,} classes"
