"""Training samples: which are trained on, which pick the best epoch, in which order, and how they are varied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.errors import UserError
from qstudio.core.training import Training
from qstudio.data.dataset import Dataset, Split
from qstudio.quant.network import Network

LARGEST_HELD_OUT = 2000
_KEPT_BYTES = 2**30
"""Inputs of the training samples are kept decoded up to this size."""

_HELD_OUT_STREAM, _ORDER_STREAM = 1, 2
"""Keep the random numbers of different purposes apart."""


class TrainingSamples:
    """The training split of a run.

    The held-out part is drawn from the training split by seed and never trained on; the evaluation split plays no part
    in training. Order and variation of the samples are functions of seed and epoch alone, so that an epoch that is
    begun again after a kill is the same epoch.

    Args:
        network: Says which batch sizes are possible.
        dataset: What is evaluated on.
        training_dataset: Other data to train with (the calibration data), or None.
        training: Sizes, variation.
        seed: Of all choices.

    Raises:
        UserError: There is no training split, or too few samples, or they are not images where crops are wanted.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        training_dataset: Dataset | None,
        training: Training,
        seed: int,
        distilled: bool,
    ) -> None:
        self.split = training_split(dataset, training_dataset)
        self._training, self._seed, self._network = training, seed, network
        self.batch_size = network.fixed_batch or training.batch_size
        drawn = np.random.Generator(np.random.PCG64([seed, _HELD_OUT_STREAM])).permutation(len(self.split))
        chosen = drawn.astype(np.int64)[: training.samples]
        count = max(1, min(round(len(chosen) * training.held_out), LARGEST_HELD_OUT))
        self.held_out, self.trained = np.sort(chosen[:count]), np.sort(chosen[count:])
        if len(self.trained) < max(self.batch_size if network.fixed_batch else 1, 2):
            raise UserError(
                f"{len(self.split):,} training samples are too few", dataset.path, "Give more data to train with"
            )
        if self.split.labels is None and not distilled:
            raise UserError(
                "the training samples have no labels", dataset.path, "Train with --distill, or give labelled data"
            )
        self._check_variation()
        self._kept: Tensor | None = None
        size = 4 * int(np.prod(self.split.sample_shape)) * len(self.trained)
        if size <= _KEPT_BYTES:
            parts = [batch.inputs for batch in self.split.batches(self.trained, 256)]
            self._kept = torch.from_numpy(np.concatenate(parts))

    @property
    def steps(self) -> int:
        """Batches of one epoch; a last one of fewer samples counts, unless the model has a fixed batch size."""
        whole, rest = divmod(len(self.trained), self.batch_size)
        return whole + (1 if rest and self._network.fixed_batch is None else 0)

    @property
    def varied(self) -> bool:
        """Whether samples look different in each epoch."""
        return bool(self._training.crop_padding or self._training.flip)

    def batches(self, epoch: int) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor | None]]:
        """Yield (positions in `trained`, inputs, labels or None) of one epoch, on the network's device."""
        draw = np.random.Generator(np.random.PCG64([self._seed, _ORDER_STREAM, epoch]))
        order = draw.permutation(len(self.trained))
        device = self._network.executor.device
        for step in range(self.steps):
            positions = order[step * self.batch_size : (step + 1) * self.batch_size]
            indices = self.trained[positions]
            if self._kept is not None:
                inputs = self._kept[torch.from_numpy(positions)]
            else:
                inputs = torch.from_numpy(np.ascontiguousarray(self.split.batch(indices)))
            inputs = self._vary(inputs, draw) if self.varied else inputs
            labels = None if self.split.labels is None else torch.from_numpy(self.split.labels[indices]).to(device)
            yield positions, inputs.to(device), labels

    def _check_variation(self) -> None:
        if not self.varied:
            return
        if len(self.split.sample_shape) != 3:
            shape = "x".join(map(str, self.split.sample_shape))
            raise UserError(f"samples of shape {shape} are not images", "--crop, --flip", "Leave these options out")

    def _vary(self, inputs: Tensor, draw: np.random.Generator) -> Tensor:
        """Crop images from their padded selves and mirror half of them."""
        channels_last = self.split.preprocess.network == "nhwc"
        images = inputs.movedim(-1, 1) if channels_last else inputs
        count, _, height, width = images.shape
        rows = torch.arange(height).expand(count, height)
        columns = torch.arange(width).expand(count, width)
        padding = self._training.crop_padding
        if padding:
            black = torch.from_numpy(self._black()).to(images.dtype)
            black = black.movedim(-1, 0) if channels_last else black
            framed = black[:, :1, :1].expand(count, -1, height + 2 * padding, width + 2 * padding).clone()
            framed[:, :, padding : padding + height, padding : padding + width] = images
            images = framed
            down, right = (torch.from_numpy(draw.integers(0, 2 * padding + 1, (count, 1))) for _ in range(2))
            rows, columns = rows + down, columns + right
        if self._training.flip:
            mirrored = torch.from_numpy(draw.random((count, 1)) < 0.5)
            columns = torch.where(mirrored, columns.flip(1), columns)
        sample = torch.arange(count)[:, None, None]
        # Indexing with the channels in the middle brings them to the end: [N, H, W, C].
        varied = images.movedim(1, -1)[sample, rows[:, :, None], columns[:, None, :]]
        return varied.contiguous() if channels_last else varied.movedim(-1, 1).contiguous()

    def _black(self) -> NDArray[np.float32]:
        """Return a black sample as the network gets it: stored zeros, scaled and normalised like the others."""
        stored = self.split.source.rows(np.zeros(1, np.int64))
        return np.asarray(self.split.preprocess.apply(np.zeros_like(np.stack(list(stored))))[0], np.float32)


def training_split(dataset: Dataset, training_dataset: Dataset | None) -> Split:
    """Return the samples to train on: the other data's if there is one (its training split, else all), else the data's.

    Raises:
        UserError: The data has one split only, which is evaluated on.
    """
    if training_dataset is not None:
        return training_dataset.train or training_dataset.test
    if dataset.train is None:
        raise UserError(
            "the data has no training split", dataset.path, "Name the data to train on with --calibration-data"
        )
    return dataset.train
