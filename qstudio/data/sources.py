"""Where stored samples come from: arrays in memory or on disk. Nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """Stored samples by index."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any] | Sequence[NDArray[Any]]:
        """Return stored samples: one array [N, ...], or N arrays where they may differ in shape."""

    def names(self, indices: NDArray[np.int64]) -> tuple[str, ...]:
        """Return where each sample comes from, for messages."""


class ArraySource:
    """Samples along the first axis of one array, which may be read or mapped at first use."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        read: Callable[[], NDArray[Any]],
        name: str,
        white: int = 255,
    ) -> None:
        """Keep what is known without reading.

        Args:
            shape: Shape of the array, samples first.
            dtype: Its type.
            read: Returns the array; called once, at first use.
            name: Where it is, for messages ("data.npz: x").
            white: The stored uint8 value that is shown as white.
        """
        self.shape = shape
        self.dtype = dtype
        self.name = name
        self.white = white
        self._read = read
        self._array: NDArray[Any] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def array(self) -> NDArray[Any]:
        """The whole array, read now if it was not yet."""
        if self._array is None:
            self._array = self._read()
        return self._array

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return stored samples [N, ...]."""
        return np.asarray(self.array[indices])

    def names(self, indices: NDArray[np.int64]) -> tuple[str, ...]:
        """Return "file: sample 3" for each index."""
        return tuple(f"{self.name}: sample {index}" for index in indices)


class TextSource:
    """Windows of byte values of a text file, one after the other."""

    def __init__(self, read: Callable[[], NDArray[np.uint8]], count: int, length: int, name: str) -> None:
        """Keep how to reach `count` windows of `length` bytes each."""
        self._read = read
        self._bytes: NDArray[np.uint8] | None = None
        self.count = count
        self.length = length
        self.name = name

    def __len__(self) -> int:
        return self.count

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The whole file, mapped at first use."""
        if self._bytes is None:
            self._bytes = self._read()
        return self._bytes

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return token ids int64 [N, length]."""
        starts = indices[:, None] * self.length + np.arange(self.length)
        return np.asarray(self.bytes[starts], dtype=np.int64)

    def next_tokens(self) -> NDArray[np.int64]:
        """Return the byte that follows each window, int64 [count]."""
        following = np.arange(1, self.count + 1) * self.length
        return np.asarray(self.bytes[following], dtype=np.int64)

    def names(self, indices: NDArray[np.int64]) -> tuple[str, ...]:
        """Return "file: window 3" for each index."""
        return tuple(f"{self.name}: window {index}" for index in indices)


@dataclass(frozen=True, eq=False)
class Part:
    """The samples of one split as a loader found them."""

    source: Source
    labels: NDArray[np.int64] | None


@dataclass(frozen=True, eq=False)
class Found:
    """What a loader found, before options are applied."""

    kind: str
    parts: dict[str, Part]
    """"train" and "test", or one of them."""
    files: tuple[str, ...]
    """The files that make up the data, for its hash."""
    class_names: tuple[str, ...] = ()
    scale: float = 255.0
    """What uint8 values are divided by when nothing else was chosen."""
    tabular: bool = False
    """Whether samples are never images, whatever their type."""
    warnings: tuple[str, ...] = field(default=())
