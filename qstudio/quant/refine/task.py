"""What a refinement is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.context import JobContext
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import feeds
from qstudio.quant.network import Network


@dataclass(frozen=True, eq=False)
class Task:
    """The data, the seed and the settings of one refinement.

    Attributes:
        split: Where the calibration samples are.
        indices: Which samples.
        seed: Decides every random choice.
        settings: Parameters by name, all of them, checked against their bounds.
        ctx: Told the progress; raises to stop.
    """

    split: Split
    indices: NDArray[np.int64]
    seed: int
    settings: Mapping[str, float]
    ctx: JobContext

    def batches(self, network: Network, limit: int | None = None) -> tuple[list[dict[str, Tensor]], list[int]]:
        """Return the calibration samples as executor inputs, and how many samples each batch has.

        Args:
            network: Says which input, on which device, and in which batches.
            limit: Use the first samples only.
        """
        inputs, counts = [], []
        with torch.no_grad():
            for batch, fed, _ in feeds(network, self.split, self.indices[:limit]):
                inputs.append(fed)
                counts.append(len(batch.indices))
        return inputs, counts


@dataclass(frozen=True, eq=False)
class Refined:
    """The state that refinements after calibration pass on.

    Attributes:
        encodings: Of all sites; the weights' scales are already raised for their biases.
        weight_values: Float values that replace initializers before they are rounded, by name.
        rounded: Weights whose values already lie on their grid, chosen by a refinement.
        notes: What a person should know, one sentence each.
    """

    encodings: Encodings
    weight_values: dict[str, NDArray[np.float32]]
    rounded: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
