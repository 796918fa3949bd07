"""Which class every evaluated sample gets, float and simulated: what flips are found in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.core.predictions import Predictions
from qstudio.data.dataset import Split
from qstudio.quant.network import Network

_CHUNK = 8192
"""Samples whose probabilities are held at a time: 64 MB at 1,000 classes in float64."""

_SUM_TOLERANCE = 1e-3


def predictions_of(
    network: Network,
    float_scores: NDArray[np.floating],
    scores: NDArray[np.floating],
    split: Split,
    indices: NDArray[np.int64],
    class_names: tuple[str, ...] = (),
) -> Predictions | None:
    """Return the predictions behind [N, K] scores; None where the outputs are no class scores.

    40 bytes a sample with labels: 0.4 MB for 10,000, 40 MB for a million.

    Args:
        network: Says what its outputs are.
        float_scores: Of the float model, [N, K].
        scores: Of the simulated model on the same samples, [N, K].
        split: Where the samples are; its labels count where they can be classes of these scores.
        indices: Which samples, [N].
        class_names: Of the dataset.
    """
    if not network.gives_class_scores or scores.shape[1] < 2:
        return None
    labels = np.zeros(0, np.int64) if split.labels is None else split.labels[indices].astype(np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= scores.shape[1]):
        labels = np.zeros(0, np.int64)
    probable = are_probabilities(float_scores)
    return Predictions(
        indices=np.asarray(indices, np.int64),
        labels=labels,
        float_class=float_scores.argmax(axis=1).astype(np.int64),
        quantized_class=scores.argmax(axis=1).astype(np.int64),
        float_margin=margins(float_scores, probable),
        quantized_margin=margins(scores, probable),
        class_names=class_names if len(class_names) == scores.shape[1] else (),
    )


def are_probabilities(scores: NDArray[np.floating]) -> bool:
    """Return whether [N, K] scores are probabilities already: not negative, and every row sums to 1."""
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < _SUM_TOLERANCE).all())


def margins(scores: NDArray[np.floating], probable: bool = False) -> NDArray[np.float32]:
    """Return the probability of each sample's first class minus that of its second, [N], in 0..1.

    Args:
        scores: [N, K] with K of at least 2.
        probable: Whether the scores are probabilities; else their softmax is taken.
    """
    found = np.empty(len(scores), np.float32)
    for start in range(0, len(scores), _CHUNK):
        chunk = scores[start : start + _CHUNK].astype(np.float64)
        if not probable:
            chunk = np.exp(chunk - chunk.max(axis=1, keepdims=True))
            chunk /= chunk.sum(axis=1, keepdims=True)
        best = np.partition(chunk, -2, axis=1)[:, -2:]
        found[start : start + _CHUNK] = best[:, 1] - best[:, 0]
    return found
