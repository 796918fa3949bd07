"""Where learned rounding starts: scales at which rounding a weight to nearest costs the least."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, fake_quantize, spread

SHARES = np.linspace(1.0, 0.4, 31, dtype=np.float32)
"""Scales tried, as shares of the calibrated one; 1 comes first, so that it stays where nothing is better."""


def least_error(values: NDArray[np.float32], encoding: Encoding) -> Encoding:
    """Return an encoding whose scales have the least sum((W - Q(W))^2) among `SHARES` of the given ones.

    Each scale is chosen on its own (per tensor, channel or group); zero points stay. At few bits it pays to clip the
    largest weights: the others get finer steps (Nagel et al., 2020, section 5, start AdaRound from such ranges).

    Args:
        values: The float weight.
        encoding: Its calibrated grid.
    """
    shape = encoding.scale.shape
    numbers = np.arange(encoding.scale.size).reshape(shape)
    owner = np.broadcast_to(spread(numbers, values.shape, encoding), values.shape).reshape(-1)
    best = np.full(encoding.scale.size, np.inf)
    shares = np.ones(encoding.scale.size, np.float32)
    for share in SHARES:
        tried = replace(encoding, scale=np.asarray(encoding.scale * share, np.float32))
        error = (fake_quantize(values, tried).astype(np.float64) - values) ** 2
        total = np.bincount(owner, error.reshape(-1), minlength=encoding.scale.size)
        better = total < best
        best[better], shares[better] = total[better], share
    return replace(encoding, scale=np.asarray(encoding.scale * shares.reshape(shape), np.float32))
