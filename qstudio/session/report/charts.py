"""Charts of the report as SVG text: scatter and bars, in colours that follow the reader's light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 44
_BAR, _NAME = 20, 220
"""Height of a bar with its gap, width of the names beside the bars."""


@dataclass(frozen=True)
class Point:
    """One point of a scatter."""

    x: float
    y: float
    title: str
    """Shown on hover and read aloud."""
    kind: str
    """"float", "simulated" (hollow) or "measured" (filled)."""
    label: str = ""
    """Written beside the point."""


def scatter(points: Sequence[Point], x_title: str, y_title: str) -> str:
    """Return a scatter chart with labelled axes as an SVG element; empty text without points."""
    if not points:
        return ""
    xs, ys = _ticks([p.x for p in points]), _ticks([p.y for p in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0])
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in xs:
        x, bottom = place(tick, ys[0])
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{_plain(tick)}</text>')
    for tick in ys:
        left, y = place(xs[0], tick)
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_plain(tick)}</text>')
    for point in points:
        x, y = place(point.x, point.y)
        told = f"<title>{escape(point.title)}</title>"
        if point.kind == "float":
            parts.append(f'<path class="float" d="M{x:.1f} {y - 7:.1f} l6 7 -6 7 -6 -7z">{told}</path>')
        else:
            parts.append(f'<circle class="{point.kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">{told}</circle>')
        if point.label:
            side = "end" if x > WIDTH - 90 else "start"
            shift = -9 if side == "end" else 9
            place_text = f'x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{side}"'
            parts.append(f'<text class="label" {place_text}>{escape(point.label)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(
        f'<text class="axis" transform="translate(14 {(HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    return _svg(f"{y_title} against {x_title}", WIDTH, HEIGHT, parts)


def bars(rows: Sequence[tuple[str, float | None]], unit: str, title: str) -> str:
    """Return horizontal bars, one a row, each with its figure, as an SVG element; empty text without rows.

    Args:
        rows: (name, value); None and infinite values have words instead of a bar.
        unit: Written after each figure.
        title: Read aloud.
    """
    if not rows:
        return ""
    finite = [value for _, value in rows if value is not None and math.isfinite(value)]
    most = max((abs(value) for value in finite), default=1.0) or 1.0
    parts = []
    room = WIDTH - _NAME - 90
    for number, (name, value) in enumerate(rows):
        y = number * _BAR
        shown = name if len(name) <= 34 else f"…{name[-33:]}"
        parts.append(
            f'<text class="label" x="{_NAME - 8}" y="{y + 14}" text-anchor="end">{escape(shown)}'
            f"<title>{escape(name)}</title></text>"
        )
        if value is None or not math.isfinite(value):
            words = "exact" if value is not None and value > 0 else "-"
            parts.append(f'<text class="tick" x="{_NAME}" y="{y + 14}">{words}</text>')
            continue
        width = max(room * max(value, 0.0) / most, 1.0)
        parts.append(f'<rect class="measured" x="{_NAME}" y="{y + 4}" width="{width:.1f}" height="{_BAR - 8}"/>')
        text = f"{value:.1f} {unit}"
        parts.append(f'<text class="tick" x="{_NAME + width + 6:.1f}" y="{y + 14}">{escape(text)}</text>')
    return _svg(title, WIDTH, _BAR * len(rows) + 4, parts)


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """Return round tick places that enclose finite values: 4 to 9 of them, at least two."""
    low, high = min(values), max(values)
    span = high - low or abs(high) * 0.1 or 1.0
    low, high = low - 0.05 * span, high + 0.05 * span
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 7:
            step *= factor
            break
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def _plain(value: float) -> str:
    text = f"{value:,.10g}" if abs(value) < 1e6 else f"{value:.3g}"
    return "0" if text in ("-0", "0") else text
