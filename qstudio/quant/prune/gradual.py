"""Iterative pruning of single weights, in steps between which the network is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.pruning import METHODS, share_after
from qstudio.core.recipe import Recipe
from qstudio.data.samples import Samples
from qstudio.quant.evaluate import Report
from qstudio.quant.network import Network
from qstudio.quant.prune.choose import weight_masks
from qstudio.quant.prune.importance import taylor_scores
from qstudio.quant.prune.sparsity import nonzero_masks, single_prunings

Masks = dict[str, Tensor]
"""By weight site: 1.0 where a weight stays, 0.0 where it was pruned."""


class GradualPruning:
    """The steps of one training.

    Args:
        network: As it is trained, after the first step: what is zero in it stays zero.
        recipe: Its prunings; those of filters are done already.
        samples: Whose calibration samples measure importance.
        steps: All of them, one at the beginning of each of the first epochs.
    """

    def __init__(self, network: Network, recipe: Recipe, samples: Samples, steps: int) -> None:
        self._network, self._samples = network, samples
        self._wanted = single_prunings(network, recipe)
        self.steps = steps if self._wanted else 1
        self.start: Masks = self._tensors(nonzero_masks(network, recipe))

    def masks(self, step: int, values: Mapping[str, NDArray[np.floating]], report: Report | None = None) -> Masks:
        """Return the masks after a step; what was zero stays zero, as nothing is less important.

        Args:
            step: Counted from 1, which is done when training starts.
            values: Weights and biases as they are by now, BatchNormalization folded where the recipe folds it.
            report: Told the progress between batches; raises to stop.
        """
        measured = [name for name, asked in self._wanted.items() if METHODS[asked.method].needs_data]
        scores = {name: np.abs(np.asarray(values[name], np.float64)) for name in self._wanted}
        if measured:
            split, chosen = self._samples.calibration, self._samples.calibration_indices
            scores |= taylor_scores(self._network, measured, split, chosen, lambda _, change: change, values, report)
        for name in self._wanted:
            scores[name] = np.where(values[name] == 0, -1.0, scores[name])
        return self._tensors(weight_masks(scores, self._wanted, share_after(step, self.steps)))

    def _tensors(self, masks: Mapping[str, NDArray[np.bool_]]) -> Masks:
        device = self._network.executor.device
        return {name: torch.tensor(mask, dtype=torch.float32, device=device) for name, mask in masks.items()}
