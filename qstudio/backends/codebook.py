"""Tables of levels in an exported model: what holds the codes, and tables that are one table times a scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qstudio.backends.storage import UINT2, UINT4, UINT8, Storage


def level_storage(levels: int, packed: bool) -> Storage:
    """Return the type for codes 0 .. levels - 1: u8, and u2 or u4 where they suffice and `packed` asks for them."""
    return next(s for s in ((UINT2, UINT4, UINT8) if packed else (UINT8,)) if levels - 1 <= s.high)


def factored(levels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return (base [L], scale [R]) with base * scale = levels in float32, bit for bit, or None where there are none.

    Formats of one scale for each row (NF4, ternary, powers of two) then store L + R numbers and not L x R.

    Args:
        levels: [R, L], ascending.
    """
    if len(levels) < 2:
        return None
    scale = np.abs(levels).max(axis=1)
    if not (scale > 0).all() or not np.isfinite(scale).all():
        return None
    # The mean over rows cancels the rounding of each quotient; what a last digit may still miss is tried.
    middle = (levels.astype(np.float64) / scale[:, None]).mean(axis=0).astype(np.float32)
    base = np.zeros_like(middle)
    for i, candidate in enumerate(middle):
        near = (candidate, np.nextafter(candidate, np.float32(-np.inf)), np.nextafter(candidate, np.float32(np.inf)))
        fitting = [b for b in near if np.array_equal(b * scale, levels[:, i])]
        if not fitting:
            return None
        base[i] = fitting[0]
    return base, scale
