"""Arrays as images: photographs as they are, everything else in viridis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QImage

VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 26, 108),
        (71, 47, 125),
        (65, 68, 135),
        (57, 86, 140),
        (49, 104, 142),
        (42, 120, 142),
        (35, 136, 142),
        (31, 152, 139),
        (34, 168, 132),
        (53, 183, 121),
        (84, 197, 104),
        (122, 209, 81),
        (165, 219, 54),
        (210, 226, 27),
        (253, 231, 37),
    ],
    np.float64,
)
"""Sixteen even steps of viridis (matplotlib), blended between."""


def as_plane(values: NDArray[Any]) -> NDArray[Any]:
    """Return [H, W] or [H, W, 3] of any sample: channels last, other axes flattened into rows."""
    array = np.asarray(values)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        return array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]
    if array.ndim <= 1:
        return array.reshape(1, -1)
    return array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array


def is_picture(stored: NDArray[Any]) -> bool:
    """Return whether a stored sample is a photograph or drawing: bytes in one or three channels."""
    plane = as_plane(stored)
    return stored.dtype == np.uint8 and plane.shape[0] > 1 and plane.shape[1] > 1


def to_image(values: NDArray[Any], low: float, high: float, grey: bool) -> QImage:
    """Return an array as an image; `low` is black (or the dark end of viridis), `high` white (the bright end)."""
    plane = as_plane(values).astype(np.float64)
    unit = np.clip(np.nan_to_num((plane - low) / max(high - low, 1e-12)), 0.0, 1.0)
    if unit.ndim == 3:
        pixels = unit * 255
    elif grey:
        pixels = np.repeat(unit[:, :, None] * 255, 3, axis=2)
    else:
        steps = np.arange(len(VIRIDIS))
        position = unit * (len(VIRIDIS) - 1)
        pixels = np.stack([np.interp(position, steps, VIRIDIS[:, channel]) for channel in range(3)], axis=2)
    data = np.ascontiguousarray(np.rint(pixels).astype(np.uint8))
    height, width = data.shape[:2]
    return QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
