"""From a figure to a colour of viridis, and to the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QColor

from qstudio.core.scheme import FLOAT_BITS
from qstudio.session.graph_metrics import Figure, Worse
from qstudio.ui.data.colormap import VIRIDIS
from qstudio.ui.text import format_db, format_large, format_percent, tr

STEPS = 64
"""Colours that are told apart."""
PLAIN = -1
"""Colour of a node without a figure."""


@cache
def viridis() -> tuple[QColor, ...]:
    """Return `STEPS` colours from dark violet to bright yellow."""
    at = np.linspace(0, len(VIRIDIS) - 1, STEPS)
    channels = [np.interp(at, np.arange(len(VIRIDIS)), VIRIDIS[:, channel]) for channel in range(3)]
    return tuple(QColor(*(round(float(value)) for value in color)) for color in np.transpose(channels))


@cache
def inks() -> tuple[QColor, ...]:
    """Return the colour of text on each colour: white on dark ones, black on bright ones (WCAG's luminance)."""

    def linear(part: float) -> float:
        return part / 12.92 if part <= 0.03928 else float(((part + 0.055) / 1.055) ** 2.4)

    found = []
    for color in viridis():
        red, green, blue = (linear(part) for part in (color.redF(), color.greenF(), color.blueF()))
        bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18
        found.append(QColor("#10141A" if bright else "#FFFFFF"))
    return tuple(found)


@dataclass(frozen=True)
class ColorScale:
    """Which figure has which colour. Bright is bad where one end is; elsewhere bright is much."""

    low: float
    high: float
    worse: Worse = ""
    log: bool = False

    def steps(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of figures' colours; beyond the ends it is that of the end, `PLAIN` for NaN."""
        low, high, at = self.low, self.high, values
        if self.log:
            low, high = math.log10(max(low, 1e-30)), math.log10(max(high, 1e-30))
            at = np.log10(np.maximum(values, 1e-30))
        share = np.clip((at - low) / (high - low), 0.0, 1.0) if high > low else np.where(np.isnan(at), np.nan, 0.5)
        if self.worse == "low":
            share = 1.0 - share
        steps = np.minimum(np.nan_to_num(share) * STEPS, STEPS - 1).astype(np.int64)
        return np.where(np.isnan(values), PLAIN, steps)

    def step(self, value: float) -> int:
        """Return the number of one figure's colour."""
        return int(self.steps(np.array([value]))[0])


def make_scale(
    values: NDArray[np.float64], bounds: tuple[float, float] | None, worse: Worse, log: bool
) -> ColorScale | None:
    """Return the scale for figures; NaN stands for none, and None is returned where there are only those."""
    known = values[np.isfinite(values)]
    if bounds is not None:
        return ColorScale(*bounds, worse, log)
    if not known.size:
        return None
    return ColorScale(float(known.min()), float(known.max()), worse, log)


def figure_text(value: float, unit: str) -> str:
    """Return a figure with its unit and sensible digits."""
    if unit == "dB":
        return format_db(value)
    if unit == "%":
        return format_percent(value, digits=1)
    if unit == "bits":
        return tr("float") if value == FLOAT_BITS else f"{value:.0f} {tr('bits')}"
    if unit:
        return f"{value:.3g} {unit}"
    return format_large(value) if abs(value) >= 1000 else f"{value:.3g}"


def full_text(figure: Figure, unit: str) -> str:
    """Return a figure as a node shows it: "~" for an estimate, brackets while a new one is on its way."""
    text = figure_text(figure.value, unit)
    if figure.estimated:
        text = f"~{text}"
    return f"({text})" if figure.stale else text
