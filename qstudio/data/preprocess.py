"""From what is stored to what the network gets: resize, layout, scale, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qstudio.core.errors import UserError

STORED_LAYOUTS = ("nhwc", "nchw", "nhw")
NETWORK_LAYOUTS = ("nchw", "nhwc")
AS_IS = "as is"


@dataclass(frozen=True)
class Preprocess:
    """How stored samples become network input: resized, laid out, then `(stored / scale - mean) / std`."""

    stored: str = AS_IS
    """Layout of the stored samples: "nhwc", "nchw", "nhw" (images) or "as is"."""
    network: str = AS_IS
    """Layout that the network gets: "nchw", "nhwc" or "as is"."""
    scale: float = 1.0
    """Divisor of the stored values: 255 makes 0..1 of uint8, 1 leaves 0..255."""
    mean: tuple[float, ...] = ()
    """One value, or one per channel (axis 1 of what is "as is"); empty = 0."""
    std: tuple[float, ...] = ()
    """As `mean`; empty = 1."""
    size: tuple[int, int] | None = None
    """(height, width) of images; None keeps them as they are."""

    def apply(self, rows: NDArray[Any] | Sequence[NDArray[Any]], names: Sequence[str] = ()) -> NDArray[Any]:
        """Return the batch for the network.

        Args:
            rows: Stored samples, [N, ...] or N arrays of shape [...] (images may then differ in size).
            names: Where each row comes from, for messages.

        Returns:
            float32 [N, C, H, W] or [N, H, W, C] for images, float32 [N, ...] for other numbers; int64 [N, ...] for
            integers other than uint8 (token ids) that are neither scaled nor normalised.

        Raises:
            UserError: Images differ in size and no size was chosen.
        """
        x = self._stacked(rows, names)
        if x.dtype.kind in "iu" and x.dtype != np.uint8 and self.scale == 1 and not self.mean and not self.std:
            return np.ascontiguousarray(x, dtype=np.int64)
        x = self._laid_out(x).astype(np.float32, order="C")
        if self.scale != 1:
            x /= np.float32(self.scale)
        if any(self.mean):
            x -= self._per_channel(self.mean, x.ndim)
        if any(value != 1 for value in self.std):
            x /= self._per_channel(self.std, x.ndim)
        return x

    def summary(self, stored_dtype: str) -> str:
        """Return one line for people, such as "uint8 nhwc -> nchw, / 255, mean 0.5, std 0.5"."""
        parts = [stored_dtype if self.stored == AS_IS else f"{stored_dtype} {self.stored} -> {self.network}"]
        if self.size is not None:
            parts.append(f"{self.size[0]}x{self.size[1]}")
        if self.scale != 1:
            parts.append(f"/ {self.scale:g}")
        for word, values in (("mean", self.mean), ("std", self.std)):
            if values:
                parts.append(f"{word} " + " ".join(f"{value:g}" for value in values))
        return ", ".join(parts) if len(parts) > 1 else f"{parts[0]}, taken as it is"

    def _per_channel(self, values: tuple[float, ...], ndim: int) -> NDArray[np.float32]:
        """Shape mean or std so that it broadcasts over the channel axis."""
        array = np.asarray(values, dtype=np.float32)
        if len(values) == 1 or self.network == "nhwc":
            return array
        return array.reshape(-1, *[1] * (ndim - 2))

    def _laid_out(self, x: NDArray[Any]) -> NDArray[Any]:
        if self.stored == AS_IS or self.stored == self.network:
            return x
        if self.stored == "nhw":
            return x[:, None] if self.network == "nchw" else x[..., None]
        return np.moveaxis(x, -1, 1) if self.network == "nchw" else np.moveaxis(x, 1, -1)

    def _stacked(self, rows: NDArray[Any] | Sequence[NDArray[Any]], names: Sequence[str]) -> NDArray[Any]:
        """Make one array of equal samples, resized where a size was chosen."""
        if self.size is not None:
            size, stored = self.size, self.stored
            if not isinstance(rows, np.ndarray) or image_size(rows.shape[1:], stored) != size:
                rows = [resized(row, size, stored) for row in rows]
        if isinstance(rows, np.ndarray):
            return rows
        first = rows[0]
        for position, row in enumerate(rows):
            if row.shape != first.shape:
                there = names[position] if names else f"sample {position}"
                raise UserError(
                    f"the image is {_extent(row)} where the first one is {_extent(first)}",
                    there,
                    "Give all images one size with --size HEIGHTxWIDTH",
                )
        return np.stack(rows)


def image_size(sample_shape: Sequence[int], stored: str) -> tuple[int, int]:
    """Return (height, width) of a stored sample of that shape and layout."""
    if stored == "nchw":
        return int(sample_shape[1]), int(sample_shape[2])
    return int(sample_shape[0]), int(sample_shape[1])


def resized(image: NDArray[Any], size: tuple[int, int], stored: str) -> NDArray[Any]:
    """Scale an image so that it covers `size`, keeping its proportions, and cut out the centre.

    Args:
        image: uint8 [H, W], [H, W, C] or (stored "nchw") [C, H, W].
        size: (height, width) wanted.
        stored: Layout of the image.

    Returns:
        uint8 in the same layout. Antialiased bilinear interpolation (Pillow), as torchvision's Resize + CenterCrop.
    """
    height, width = image_size(image.shape, stored)
    if (height, width) == size:
        return image
    planes = np.moveaxis(image, 0, -1) if stored == "nchw" else image
    factor = max(size[0] / height, size[1] / width)
    box_height, box_width = min(height, size[0] / factor), min(width, size[1] / factor)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    target = (size[1], size[0])
    if planes.ndim == 2:
        return np.asarray(Image.fromarray(planes).resize(target, Image.Resampling.BILINEAR, box))
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(planes[..., c])).resize(target, Image.Resampling.BILINEAR, box))
        for c in range(planes.shape[-1])
    ]
    return np.stack(channels, axis=0 if stored == "nchw" else -1)


def _extent(image: NDArray[Any]) -> str:
    return "x".join(str(length) for length in image.shape)
