"""What the window and scripts see of a dataset: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """An opened dataset, described."""

    name: str
    path: str
    """Absolute path of the file or folder; "digits" for the built-in one."""
    kind: str
    """"digits", "npz", "idx", "cifar", "images" or "text"."""
    sha256: str
    """Content hash; of names, sizes and modification times where there is too much to read (see Dataset.sha256)."""
    sizes: dict[str, int] = field(hash=False)
    """Samples per split: "test" always, "train" where the data has its own training split."""
    sample_shape: tuple[int, ...]
    """As the network gets it, without the batch axis."""
    stored_shape: tuple[int, ...]
    """As in the file, without the sample axis; of the first image where images differ in size."""
    dtype: str
    """As the network gets it: "float32", or "int64" for token ids."""
    stored_dtype: str
    n_classes: int | None
    """Number of class names, else the largest label + 1; None without labels."""
    class_names: tuple[str, ...]
    has_labels: bool
    preprocess: str
    """What is done to a sample on its way to the network, one line."""
    warnings: tuple[str, ...] = ()
    """Sentences that the person should see: ignored keys, guessed layouts, files left out."""

    @property
    def samples(self) -> int:
        """Number of samples in all splits."""
        return sum(self.sizes.values())
