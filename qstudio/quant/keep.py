"""Small in-process caches keyed by content, so that what does not change is not computed twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from qstudio.data.dataset import Dataset, Split

V = TypeVar("V")


class Kept(Generic[V]):
    """Values by key; the least recently used go first when there are more than `most` of them or `most_bytes`."""

    def __init__(self, most: int, most_bytes: int, size_bytes: Callable[[V], int]) -> None:
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._most, self._most_bytes, self._size_bytes = most, most_bytes, size_bytes

    def get(self, key: Hashable) -> V | None:
        """Return the value, or None."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: V) -> V:
        """Keep the value and return it; one that alone exceeds the budget is not kept."""
        self._values[key] = value
        while self._values and (len(self._values) > self._most or self._bytes() > self._most_bytes):
            self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()

    def _bytes(self) -> int:
        return sum(self._size_bytes(value) for value in self._values.values())


def samples_key(dataset: Dataset, split: Split, indices: NDArray[np.int64]) -> str:
    """Return a hash of what the network gets: file contents, how they are read, which samples, in which order."""
    part = "train" if split is dataset.train else "test"
    digest = hashlib.sha256(f"{dataset.sha256}\0{part}\0{split.preprocess!r}\0".encode())
    digest.update(np.ascontiguousarray(indices, np.int64).tobytes())
    return digest.hexdigest()
