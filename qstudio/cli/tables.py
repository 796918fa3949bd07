"""Text for people: columns that line up, figures with their units."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = "-"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Return rows as text columns, two spaces apart.

    Args:
        head: Titles, with units.
        rows: Cells as text.
        right: Of each column "r" (aligned right: numbers) or "l"; missing ones are "l".
    """
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    sides = right.ljust(len(head), "l")
    return "\n".join(
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, sides, strict=True)
        ).rstrip()
        for line in lines
    )


def number(value: float | None, digits: int) -> str:
    """Return a figure with a fixed number of decimals, a dash for none; infinity (no error at all) is "exact"."""
    if value is None or math.isnan(value):
        return NOTHING
    return "exact" if math.isinf(value) else f"{value:,.{digits}f}"


def size(count: int | None) -> str:
    """Return bytes in the unit that fits (1 kB = 1,000 bytes)."""
    if count is None:
        return NOTHING
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"


def amount(count: int) -> str:
    """Return a large number of things in short: 270.9 k, 40.81 M."""
    for unit, factor in ((" G", 10**9), (" M", 10**6), (" k", 10**3)):
        if count >= factor:
            return f"{count / factor:.4g}{unit}"
    return str(count)


def milliseconds(value: float) -> str:
    """Return a duration with three significant digits."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def signed_range(low: float | None, high: float | None) -> str:
    """Return "low .. high" with four significant digits."""
    return NOTHING if low is None or high is None else f"{low:.4g} .. {high:.4g}"
