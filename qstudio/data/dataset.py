"""An opened dataset: its splits, and samples as the network sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.data.preprocess import AS_IS, Preprocess
from qstudio.data.reading import reading
from qstudio.data.sources import ArraySource, Source

HASHED_BYTES = 2**30
HASHED_FILES = 256


class Batch(NamedTuple):
    """Some samples for the network."""

    indices: NDArray[np.int64]
    """[N] positions in the split."""
    inputs: NDArray[Any]
    """float32 [N, ...] (int64 for token ids)."""
    labels: NDArray[np.int64] | None
    """[N], or None without labels."""


class Split:
    """Samples of one kind, training or test; decoded and preprocessed when asked for."""

    def __init__(self, source: Source, labels: NDArray[np.int64] | None, preprocess: Preprocess) -> None:
        """Keep the parts; nothing is read."""
        self.source = source
        self.labels = labels
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Any) -> NDArray[Any]:
        """Return samples as the network gets them.

        Args:
            indices: [N] positions in the split; N may be 0 only for arrays.

        Returns:
            float32 [N, C, H, W] for images (or [N, H, W, C], see Preprocess), [N, ...] for other numbers; int64 for
            token ids.

        Raises:
            UserError: A sample is damaged, holds NaN or infinity, or images differ in size.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        rows = self.source.rows(chosen)
        inputs = self.preprocess.apply(rows, self.source.names(chosen) if isinstance(rows, list) else ())
        if isinstance(rows, list) and inputs.shape[1:] != self.sample_shape:
            there, first = ("x".join(map(str, shape)) for shape in (inputs.shape[1:], self.sample_shape))
            raise UserError(
                f"the image becomes {there} where the first one of the split is {first}",
                self.source.names(chosen[:1])[0],
                "Give all images one size with --size HEIGHTxWIDTH",
            )
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            position = int(np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1))[0])
            kind = "NaN" if np.isnan(inputs[position]).any() else "infinity"
            where = self.source.names(chosen[position : position + 1])[0]
            raise UserError(f"it holds {kind}", where, "Correct or leave out this sample")
        return inputs

    def batches(self, indices: Any, size: int) -> Iterator[Batch]:
        """Yield samples `size` at a time, the last batch may be smaller."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            yield Batch(part, self.batch(part), None if self.labels is None else self.labels[part])

    def raw(self, index: int) -> NDArray[Any]:
        """Return one sample for looking: uint8 [H, W] or [H, W, 3] for images, else the stored array.

        Images are as stored, not resized; `digits` (0..16) are stretched to 0..255.
        """
        rows = self.source.rows(np.array([index], dtype=np.int64))
        row: NDArray[Any] = rows[0]
        if self.preprocess.stored == AS_IS or row.dtype != np.uint8:
            return row
        if self.preprocess.stored == "nchw":
            row = np.moveaxis(row, 0, -1)
        if row.ndim == 3 and row.shape[-1] == 1:
            row = row[..., 0]
        if row.ndim == 3 and row.shape[-1] == 4:
            row = row[..., :3]
        if isinstance(self.source, ArraySource) and self.source.white != 255:
            row = np.minimum(row.astype(np.float32) * (255 / self.source.white), 255).astype(np.uint8)
        return row

    @cached_property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample as the network gets it, without the batch axis (decodes one)."""
        return tuple(self.preprocess.apply(self.source.rows(np.zeros(1, np.int64))).shape[1:])


class Dataset:
    """Data with up to two splits: "test" is always there, "train" where the data has its own training split."""

    def __init__(
        self,
        name: str,
        path: str,
        kind: str,
        splits: dict[str, Split | None],
        files: tuple[str, ...],
        class_names: tuple[str, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Keep the parts (made by `qstudio.data.load.load_dataset`)."""
        self.name = name
        self.path = path
        self.kind = kind
        self.splits = splits
        self.files = files
        self.class_names = class_names
        self.warnings = warnings

    @property
    def train(self) -> Split | None:
        """The training split, if the data has its own."""
        return self.splits["train"]

    @property
    def test(self) -> Split:
        """The split that is evaluated."""
        split = self.splits["test"]
        assert split is not None
        return split

    @property
    def preprocess(self) -> Preprocess:
        """How samples are prepared, the same in all splits."""
        return self.test.preprocess

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample as the network gets it, without the batch axis."""
        return self.test.sample_shape

    @property
    def n_classes(self) -> int | None:
        """Number of class names, else the largest label + 1; None without labels."""
        if self.class_names:
            return len(self.class_names)
        labels = [split.labels for split in self.splits.values() if split is not None and split.labels is not None]
        return max(int(part.max()) + 1 for part in labels) if labels else None

    @cached_property
    def sha256(self) -> str:
        """Hash of the data files, in hexadecimal.

        Of their contents up to 1 GiB in 256 files; beyond that of their names, sizes and modification times, which
        takes milliseconds and changes when the data is written again. Options of reading are not part of it.
        """
        paths = [Path(file) for file in self.files]
        digest = hashlib.sha256()
        with reading(paths[0], "data"):
            stats = [path.stat() for path in paths]
            by_content = len(paths) <= HASHED_FILES and sum(stat.st_size for stat in stats) <= HASHED_BYTES
            for path, stat in zip(paths, stats, strict=True):
                digest.update(f"{path.name}\0{stat.st_size}\0".encode())
                if not by_content:
                    digest.update(f"{path.parent.name}\0{stat.st_mtime_ns}\0".encode())
                    continue
                with path.open("rb") as stream:
                    while chunk := stream.read(2**20):
                        digest.update(chunk)
        return digest.hexdigest()

    def describe(self) -> DatasetInfo:
        """Return what the window and scripts see of the data (reads the first sample, hashes the files)."""
        first = np.zeros(1, np.int64)
        stored = self.test.source.rows(first)[0]
        return DatasetInfo(
            name=self.name,
            path=self.path,
            kind=self.kind,
            sha256=self.sha256,
            sizes={name: len(split) for name, split in self.splits.items() if split is not None},
            sample_shape=self.sample_shape,
            stored_shape=tuple(stored.shape),
            dtype=str(self.test.batch(first).dtype),
            stored_dtype=str(stored.dtype),
            n_classes=self.n_classes,
            class_names=self.class_names,
            has_labels=self.test.labels is not None,
            preprocess=self.preprocess.summary(str(stored.dtype)),
            warnings=self.warnings,
        )
