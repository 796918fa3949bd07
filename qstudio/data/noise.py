"""Noise in the place of calibration data, on purpose: what ranges are like when the data is wrong."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.sample_choice import NOISES, noise_kind
from qstudio.data.dataset import Dataset, Split
from qstudio.data.preprocess import Preprocess

SAMPLES = 65_536
"""Samples there are; each is drawn when it is asked for."""

_MEASURED = 512
"""Samples of the real data that mean and standard deviation come from."""


class NoiseSource:
    """Samples drawn by seed and index, so that sample 7 is the same whoever asks."""

    def __init__(self, kind: str, mean: NDArray[np.float64], std: NDArray[np.float64], seed: int) -> None:
        """Keep the distribution.

        Args:
            kind: "gaussian" or "uniform".
            mean: In the shape of a sample.
            std: In the shape of a sample.
            seed: Of all samples.
        """
        self._kind, self._mean, self._std, self._seed = kind, mean, std, seed

    def __len__(self) -> int:
        return SAMPLES

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return float32 [N, ...]."""
        return np.stack([self._row(int(index)) for index in indices])

    def _row(self, index: int) -> NDArray[np.float32]:
        draw = np.random.Generator(np.random.PCG64([self._seed, index]))
        if self._kind == "uniform":
            unit = draw.uniform(-np.sqrt(3.0), np.sqrt(3.0), self._mean.shape)
        else:
            unit = draw.standard_normal(self._mean.shape)
        return (self._mean + self._std * unit).astype(np.float32)

    def names(self, indices: NDArray[np.int64]) -> tuple[str, ...]:
        """Return "noise: sample 3" for each index."""
        return tuple(f"{self._kind} noise: sample {index}" for index in indices)


class NoiseDataset(Dataset):
    """Noise as a dataset of one split without labels."""

    def __init__(self, kind: str, source: NoiseSource, content: str) -> None:
        """Keep the parts; `content` is a text that differs where samples do."""
        super().__init__(
            f"{kind} noise", f"noise:{kind}", "noise", {"train": None, "test": Split(source, None, Preprocess())}, ()
        )
        self._content = content

    @cached_property
    def sha256(self) -> str:
        """Hash of what the samples are drawn from, in hexadecimal."""
        return hashlib.sha256(self._content.encode()).hexdigest()


def noise_dataset(dataset: Dataset, source: str, seed: int) -> NoiseDataset:
    """Return noise with the mean and the standard deviation of real data, channel by channel where it is images.

    Gaussian noise is drawn from N(mean, std^2), uniform noise from mean -+ sqrt(3) std. Mean and deviation are those of
    512 samples of the split that calibration would use, as the network gets them.

    Args:
        dataset: The data whose place the noise takes.
        source: "noise" (Gaussian), "noise:gaussian" or "noise:uniform".
        seed: Of the noise and of the samples that are measured.

    Raises:
        UserError: The samples are token ids, or there is no such noise.
    """
    kind = noise_kind(source)
    split = dataset.train or dataset.test
    count = min(len(split), _MEASURED)
    chosen = np.random.Generator(np.random.PCG64(seed)).permutation(len(split))[:count]
    inputs = split.batch(np.sort(chosen))
    if inputs.dtype.kind != "f":
        raise UserError(
            "noise cannot take the place of token ids", "--calibration-data", "Calibrate with text, or with other data"
        )
    channel = {True: inputs.ndim - 1, False: 1}[split.preprocess.network == "nhwc"]
    # Without channels (vectors, features) one mean and one deviation for all.
    axes = tuple(axis for axis in range(inputs.ndim) if axis != channel) if inputs.ndim == 4 else None
    wide = inputs.astype(np.float64)
    mean = np.broadcast_to(wide.mean(axis=axes, keepdims=True)[0], inputs.shape[1:])
    std = np.broadcast_to(wide.std(axis=axes, keepdims=True)[0], inputs.shape[1:])
    content = f"{kind}\0{seed}\0{dataset.sha256}\0{split.preprocess!r}\0{inputs.shape[1:]}"
    return NoiseDataset(kind, NoiseSource(kind, mean, std, seed), content)


def noise_note(kind: str) -> str:
    """Return what a run says about its calibration data."""
    name = NOISES[kind] if kind == "gaussian" else NOISES[kind].lower()  # Gauss keeps his capital
    return (
        f"The calibration data was {name} with the mean and standard deviation of the data, on purpose:"
        " the ranges do not come from real samples"
    )
