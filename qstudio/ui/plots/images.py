"""Arrays to be shown as images, and the scales they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["value", "error", "difference", "picture"]

Place = tuple[int, int]
"""Row and column in an array."""


@dataclass(frozen=True, eq=False)
class Image:
    """One array to be shown."""

    title: str
    values: NDArray[Any]
    """[R, C]; [R, C, 3] bytes of a photograph. One row is drawn as a curve."""
    kind: Kind = "value"
    """"value" and "error" in viridis, "difference" around 0 in a diverging map, "picture" as bytes."""
    tile: tuple[int, int] = (0, 0)
    """Rows and columns of one channel or kernel; (0, 0) = the array is one."""
    tiles: int = 0
    """How many tiles there are, in reading order; those beyond are not painted. 0 = all."""
    colour: str = "text"
    """Of a curve, as the palette names it."""
    factor: tuple[int, int] = (1, 1)
    """Rows and columns of the first image that stand behind one of this one's values."""

    @property
    def is_curve(self) -> bool:
        """Whether it is drawn as a curve: a vector has no second dimension to show."""
        return self.values.ndim == 2 and self.values.shape[0] == 1 and self.kind != "picture"


def short(value: float) -> str:
    """Return a number with three digits, for the end of a scale."""
    return f"{value:.3g}".replace("-", "−")


def range_of(images: tuple[Image, ...], kind: str) -> tuple[float, float]:
    """Return the ends of a scale: symmetric for differences, from 0 for errors."""
    arrays = [image.values for image in images if image.kind == kind and image.values.size]
    if kind == "picture" or not arrays:
        return 0.0, 255.0
    low = min(float(np.nan_to_num(values).min()) for values in arrays)
    high = max(float(np.nan_to_num(values).max()) for values in arrays)
    if kind == "difference":
        reach = max(-low, high)
        return -reach, reach
    return (0.0, high) if kind == "error" else (low, high)
