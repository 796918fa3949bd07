"""The words and numbers of the window: translation, and figures with sensible digits."""

from __future__ import annotations

import math

from PySide6.QtCore import QCoreApplication

NO_VALUE = "–"
"""Shown where there is no value (an en-dash)."""


def tr(text: str) -> str:
    """Return `text` in the language of the window."""
    return QCoreApplication.translate("qstudio", text)


def format_db(value: float | None, unit: bool = True) -> str:
    """Return a ratio in decibels, "24.1 dB"; "∞ dB" for no error at all."""
    if value is None or math.isnan(value):
        return NO_VALUE
    text = ("∞" if value > 0 else "-∞") if math.isinf(value) else f"{value:.1f}"
    return f"{text} dB" if unit else text


def format_percent(value: float | None, unit: bool = True, digits: int = 2) -> str:
    """Return a rate that is already in percent, "81.03 %"."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return f"{value:.{digits}f} %" if unit else f"{value:.{digits}f}"


def format_points(value: float | None, digits: int = 2) -> str:
    """Return a difference of two rates in percentage points with its sign, "-0.30"."""
    if value is None or math.isnan(value):
        return NO_VALUE
    text = f"{value:+.{digits}f}"
    return f"{0.0:.{digits}f}" if float(text) == 0.0 else text


def format_bytes(value: float | None, unit: bool = True) -> str:
    """Return a size in binary steps with three digits, "1.16 MB", "284 KB"; without unit: in KB."""
    if value is None or math.isnan(value):
        return NO_VALUE
    if not unit:
        return f"{value / 1024:,.1f}"
    if abs(value) < 1024:
        return f"{value:.0f} B"
    for name in ("KB", "MB", "GB"):
        value /= 1024
        if abs(value) < 1000 or name == "GB":
            digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
            return f"{value:.{digits}f} {name}"
    raise AssertionError("the loop always returns")


def format_ms(value: float | None, unit: bool = True) -> str:
    """Return a time in milliseconds, "0.78 ms"; three significant digits."""
    if value is None or math.isnan(value):
        return NO_VALUE
    digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f} ms" if unit else f"{value:.{digits}f}"


def format_count(value: float | None) -> str:
    """Return a whole number with thousands apart, "10,000"."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return f"{value:,.0f}"


def format_large(value: float | None) -> str:
    """Return a large count with a letter, "1.25 M", "640"."""
    if value is None or math.isnan(value):
        return NO_VALUE
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.{2 if letter != 'k' else 1}f} {letter}"
    return f"{value:,.0f}"


def format_value(value: float | None) -> str:
    """Return a real number in the tensor's own units with four significant digits."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return f"{value:.4g}"


def format_seconds(value: float | None) -> str:
    """Return a duration as a clock, "0:21", "1:02:03"."""
    if value is None or math.isnan(value) or math.isinf(value):
        return NO_VALUE
    whole = max(0, round(value))
    hours, minutes, seconds = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """Return the half width of an interval in percentage points, "±1.2"; empty for none."""
    if interval is None:
        return ""
    return f"±{(interval[1] - interval[0]) / 2:.1f}"
