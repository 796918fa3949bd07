"""What one pass over the data leaves of a site: histogram, channel ranges, outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.histogram import Histogram


@dataclass(frozen=True)
class Outlier:
    """One extreme value and where it came from."""

    value: float
    sample: int
    """Index of the sample in its split; -1 for weights."""
    position: tuple[int, ...]
    """Index inside the sample's tensor (or inside the weight)."""


@dataclass(frozen=True, eq=False)
class SiteStatistics:
    """Streaming statistics of one site; O(bins + channels), whatever the number of samples."""

    site: str
    histogram: Histogram
    channel_min: NDArray[np.float32]
    channel_max: NDArray[np.float32]
    """[C] extremes per channel; [1] where the tensor has no channel axis."""
    outliers: tuple[Outlier, ...] = ()
    """Largest magnitudes first, at most 8."""
    samples: int = 0
    """Samples seen; 0 for weights."""
    channel_counts: NDArray[np.int32] | None = None
    """[C, 128] values of each channel between its channel_min and channel_max, exact zeros left out; None for
    activations, which are never quantized per channel. See `qstudio.core.channel_error`."""
    l1_norm: float = 0.0
    """Sum of |w| of a weight (float64); 0 for activations."""
