"""Numbers to pixels through look-up tables of 256 colours."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QColor, QImage

from qstudio.ui.data.colormap import VIRIDIS

LEVELS = 256

_BELOW, _ABOVE = ("#B35806", "#F1A340"), ("#542788", "#B7A6E8")
"""Ends of the diverging map on a light and on a dark ground: orange and purple, which every kind of colour-blind eye
tells apart (ColorBrewer's PuOr)."""


@cache
def viridis_table() -> NDArray[np.uint32]:
    """Return viridis as [256] 0xAARRGGBB."""
    steps = np.linspace(0, len(VIRIDIS) - 1, LEVELS)
    colours = np.stack([np.interp(steps, np.arange(len(VIRIDIS)), VIRIDIS[:, part]) for part in range(3)], axis=1)
    return _packed(colours)


@cache
def diverging_table(dark: bool, middle: str) -> NDArray[np.uint32]:
    """Return orange - `middle` - purple as [256] 0xAARRGGBB; the middle stands for 0.

    Args:
        dark: Whether the ground is dark.
        middle: Colour of 0, a little off the ground.
    """
    ends = [QColor(_BELOW[dark]), QColor(middle), QColor(_ABOVE[dark])]
    known = np.array([(colour.red(), colour.green(), colour.blue()) for colour in ends], np.float64)
    steps = np.linspace(-1, 1, LEVELS)
    return _packed(np.stack([np.interp(steps, (-1, 0, 1), known[:, part]) for part in range(3)], axis=1))


def _packed(colours: NDArray[np.float64]) -> NDArray[np.uint32]:
    red, green, blue = np.rint(colours).astype(np.uint32).T
    packed: NDArray[np.uint32] = np.uint32(0xFF000000) | (red << 16) | (green << 8) | blue
    return packed


def mapped(values: NDArray[np.floating], low: float, high: float, table: NDArray[np.uint32]) -> QImage:
    """Return [R, C] values as an image: `low` is the first colour of the table, `high` the last; NaN is taken as 0."""
    span = high - low
    factor = np.float32((LEVELS - 1) / span) if span > 0 else np.float32(0)
    place = (np.nan_to_num(np.asarray(values, np.float32)) - np.float32(low)) * factor
    return from_pixels(table[np.clip(np.rint(place), 0, LEVELS - 1).astype(np.uint8)])


def photograph(values: NDArray[np.uint8]) -> QImage:
    """Return bytes [R, C] as grey, [R, C, 3] as colour."""
    parts = values.astype(np.uint32)
    red, green, blue = np.moveaxis(parts, -1, 0) if parts.ndim == 3 else (parts, parts, parts)
    return from_pixels((np.uint32(0xFF000000) | (red << 16) | (green << 8) | blue).astype(np.uint32))


def from_pixels(pixels: NDArray[np.uint32]) -> QImage:
    """Return [R, C] 0xAARRGGBB as an image that owns its memory."""
    pixels = np.ascontiguousarray(pixels)
    rows, columns = pixels.shape
    return QImage(pixels.data, columns, rows, 4 * columns, QImage.Format.Format_RGB32).copy()
