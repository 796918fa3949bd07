"""What is looked at between runs: error over depth, one sample through the layers, predictions, pictures of weights."""

from __future__ import annotations

import builtins
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.predictions import Predictions as Predictions
from qstudio.core.results import Metrics


@dataclass(frozen=True)
class RecipeAccuracy:
    """How a recipe does on the preview samples, as far as they are evaluated."""

    recipe_hash: str
    metrics: Metrics
    """Of the samples that are done; simulated, unrefined except for what changes the network itself (fold, ...)."""
    float: Metrics
    """Of the float model on the same samples."""
    done: bool
    """Whether all samples are in `metrics`."""
    seconds: builtins.float = 0.0
    notes: tuple[str, ...] = ()
    """What of the recipe is left out of the preview, one sentence each."""


@dataclass(frozen=True)
class LayerNoise:
    """Quantization noise at one layer; powers are means over samples and elements of squared values."""

    layer: str
    tensor: str
    """The tensor that the layer puts out, after a fused activation."""
    signal: float
    """Power of the float output."""
    accumulated: float
    """Power of (quantized - float) at the layer's output, everything quantized as the recipe says."""
    isolated: float | None = None
    """The same with only this layer's sites quantized; None where it has none."""
    downstream: float | None = None
    """Power of (quantized - float) at the model's first output, only this layer's sites quantized, over the power of
    the float output: what this layer contributes to the whole; None where it has no sites."""

    @property
    def accumulated_sqnr_db(self) -> float:
        """Return 10 log10(signal / accumulated); infinite where nothing differs."""
        return ratio_db(self.signal, self.accumulated)

    @property
    def isolated_sqnr_db(self) -> float | None:
        """Return 10 log10(signal / isolated); infinite where nothing differs, None where it is not known."""
        return None if self.isolated is None else ratio_db(self.signal, self.isolated)

    @property
    def downstream_sqnr_db(self) -> float | None:
        """Return -10 log10(downstream); infinite where nothing differs, None where it is not known."""
        return None if self.downstream is None else ratio_db(1.0, self.downstream)


@dataclass(frozen=True)
class DepthErrors:
    """Error over depth: every layer that puts out an encoded tensor, in topological order."""

    recipe_hash: str
    samples: int
    layers: tuple[LayerNoise, ...]
    notes: tuple[str, ...] = ()

    def layer(self, name: str) -> LayerNoise | None:
        """Return a layer's noise; None where it has none."""
        return next((noise for noise in self.layers if noise.layer == name), None)


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """What one layer puts out for one sample, float and quantized."""

    layer: str
    tensor: str
    shape: tuple[int, ...]
    """Of the whole output without the batch axis."""
    float: NDArray[np.float32]
    """[C, H, W]; [1, 1, N] of a vector. Only the first channels, and averaged down, where it would be large."""
    quantized: NDArray[np.float32]
    """As `float`."""
    sqnr_db: builtins.float
    """Over the whole output of this sample."""
    channels: int
    """Of the whole output."""
    argmax_flips: bool = False
    """Whether the class changes when everything up to and with this layer is quantized and the rest is float."""


@dataclass(frozen=True, eq=False)
class SampleTrace:
    """One sample through the layers, float beside quantized."""

    index: int
    """Of the evaluation split."""
    label: int | None
    stored: NDArray[Any]
    """As in the file."""
    layers: tuple[LayerMaps, ...]
    """In topological order."""
    float_scores: NDArray[np.float32]
    """[K] class probabilities (the outputs themselves where they are not class scores)."""
    quantized_scores: NDArray[np.float32]
    recipe_hash: str
    flips_at: str = ""
    """First layer from which on the class stays the quantized one; empty where the class does not change."""
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class WeightPictures:
    """One layer's weight as a picture: float, quantized, difference, as matrices or kernels."""

    layer: str
    shape: tuple[int, ...]
    """Of the whole weight."""
    float: NDArray[np.float32]
    """[R, C]: kernels laid out in a grid, or the matrix; averaged down to at most 512 a side."""
    quantized: NDArray[np.float32]
    """As `float`."""
    tile: tuple[int, int] = (0, 0)
    """Height and width of one kernel in the picture; (0, 0) for a matrix."""
    step: int = 1
    """How many values stand behind one pixel along each side."""
    layout: str = ""
    """What rows and columns are, in words."""
    notes: tuple[str, ...] = field(default=())
    error: NDArray[np.float32] | None = None
    """Root of the mean squared difference: [out, in] of each kernel, in the order of the picture; of a matrix as
    `float`."""
    codes: NDArray[np.int32] | None = None
    """As `float`; None where a pixel stands for several values or the format has no integer codes."""
    channel_side: int | None = None
    """0: the picture's rows (of kernels) are output channels; 1: its columns; None: kernels with one input channel,
    in reading order."""
    channels: int = 1
    """Output channels of the whole weight."""


def ratio_db(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) in dB: infinite without noise, minus infinity without signal."""
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def check_preview_samples(samples: int) -> int:
    """Return the number of samples of a preview.

    Raises:
        UserError: It is not between 16 and 100,000.
    """
    if not 16 <= samples <= 100_000:
        raise UserError(f"{samples:,} samples cannot be previewed", "preview", "Choose 16 to 100,000")
    return samples
