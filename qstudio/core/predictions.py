"""The class of every evaluated sample: kept with a run, and looked at for flips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Predictions:
    """The class of every evaluated sample, float and quantized: what flips are found in."""

    indices: NDArray[np.int64]
    """[N] places in the evaluation split."""
    labels: NDArray[np.int64]
    """[N]; empty without labels."""
    float_class: NDArray[np.int64]
    """[N]"""
    quantized_class: NDArray[np.int64]
    """[N]"""
    float_margin: NDArray[np.float32]
    """[N] probability of the first class minus that of the second."""
    quantized_margin: NDArray[np.float32]
    """[N]"""
    class_names: tuple[str, ...] = ()
