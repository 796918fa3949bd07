"""Labels: class numbers, checked before anything relies on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError

LARGEST_LABEL = 1_000_000


def checked_labels(labels: NDArray[Any], samples: int, where: str) -> NDArray[np.int64]:
    """Return labels as class numbers.

    Args:
        labels: Integers [N] or [N, 1].
        samples: Number of samples they belong to.
        where: The file and part, for messages.

    Returns:
        int64 [N].

    Raises:
        UserError: Not integers, not one per sample, negative or absurdly large.
    """
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"labels are of type {labels.dtype}", where, "Save class numbers as integers, 0 for the first class"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        shape = "x".join(str(length) for length in labels.shape)
        raise UserError(
            f"labels have the shape {shape}", where, "Save one class number per sample (argmax of one-hot rows)"
        )
    if len(labels) != samples:
        raise UserError(
            f"there are {len(labels)} labels for {samples} samples", where, "Save one class number per sample"
        )
    wrong = np.flatnonzero((labels < 0) | (labels > LARGEST_LABEL))
    if len(wrong):
        index = int(wrong[0])
        raise UserError(
            f"label {labels[index]} of sample {index} is out of range",
            where,
            "Save class numbers, 0 for the first class; leave samples without a class out",
        )
    return labels.astype(np.int64)


def check_class_names(labels: NDArray[np.int64] | None, class_names: tuple[str, ...], where: str) -> None:
    """Refuse labels that have no name although names are known (UserError)."""
    if labels is None or not class_names or not len(labels) or int(labels.max()) < len(class_names):
        return
    index = int(np.argmax(labels >= len(class_names)))
    raise UserError(
        f"label {labels[index]} of sample {index} is out of range: there are {len(class_names)} class names",
        where,
        "Correct the labels or the class names",
    )
