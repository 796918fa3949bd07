"""Figures about predictions and errors, in numpy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qstudio.core.results import Metrics

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

_EXACT_PAIRS = 500
"""Discordant pairs up to which McNemar's p is summed in whole numbers."""


def sqnr_db(reference: NDArray[np.floating], value: NDArray[np.floating]) -> float:
    """Return 10 log10(sum x^2 / sum (x - x^)^2) in dB; inf when equal, 0 for an all-zero reference that is not met."""
    x = np.asarray(reference, np.float64).reshape(-1)
    noise = float(np.square(x - np.asarray(value, np.float64).reshape(-1)).sum())
    signal = float(np.square(x).sum())
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else 0.0


def cosine(reference: NDArray[np.floating], value: NDArray[np.floating]) -> float:
    """Return <x, x^> / (|x| |x^|); 1 when both are zero, 0 when one is."""
    x = np.asarray(reference, np.float64).reshape(-1)
    y = np.asarray(value, np.float64).reshape(-1)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    if norms == 0.0:
        return 1.0 if not x.any() and not y.any() else 0.0
    return float(x @ y) / norms


def wilson_interval(successes: int, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, in percent (Wilson, 1927); (0, 100) for no samples."""
    if samples == 0:
        return (0.0, 100.0)
    p = successes / samples
    centre = p + Z95**2 / (2 * samples)
    spread = Z95 * math.sqrt(p * (1 - p) / samples + Z95**2 / (4 * samples**2))
    scale = 1 + Z95**2 / samples
    return (100 * max((centre - spread) / scale, 0.0), 100 * min((centre + spread) / scale, 1.0))


def mcnemar_p(to_wrong: int, to_right: int) -> float:
    """Return the exact two-sided McNemar p-value for paired predictions (McNemar, 1947; binomial form)."""
    n, k = to_wrong + to_right, min(to_wrong, to_right)
    if n == 0:
        return 1.0
    if n <= _EXACT_PAIRS:
        return min(1.0, 2 * float(sum(math.comb(n, i) for i in range(k + 1)) / 2**n))
    # In logarithms: the coefficients of 10,000 pairs have 3,000 digits, and a window waits for the figure.
    i = np.arange(1, k + 1)
    logs = np.concatenate(([0.0], np.cumsum(np.log((n - i + 1) / i)))) - n * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))


def classification_metrics(
    logits: NDArray[np.floating], labels: NDArray[np.int64] | None, float_logits: NDArray[np.floating] | None
) -> Metrics:
    """Return the metrics of [N, K] class scores.

    Args:
        logits: Scores of the network that is judged, [N, K].
        labels: True classes [N], or None.
        float_logits: Scores of the float model on the same samples; None when `logits` are the float model's own.
    """
    n = len(logits)
    guess = logits.argmax(axis=1)
    same = np.ones(n, bool) if float_logits is None else guess == float_logits.argmax(axis=1)
    agreement = 100.0 * float(same.mean()) if n else 100.0
    if labels is None:
        return Metrics(n, agreement=agreement, top1_interval=wilson_interval(int(same.sum()), n))
    right = guess == labels
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    loss = float((log_sum - shifted[np.arange(n), labels]).mean()) if n else 0.0
    top5 = None
    if logits.shape[1] > 5:
        best = np.argpartition(-logits, 4, axis=1)[:, :5]
        top5 = 100.0 * float((best == labels[:, None]).any(axis=1).mean())
    was_right = right if float_logits is None else float_logits.argmax(axis=1) == labels
    return Metrics(
        n,
        100.0 * float(right.mean()),
        top5,
        loss,
        agreement,
        wilson_interval(int(right.sum()), n),
        None if float_logits is None else int((was_right & ~right).sum()),
        None if float_logits is None else int((~was_right & right).sum()),
    )
