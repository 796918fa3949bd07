"""The table `op type -> translation`, one file for each family of operators; importing this package fills it."""

from __future__ import annotations

from qstudio.graph.ops import (
    conv,
    elementwise,
    indexing,
    linear,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    shape,
)

__all__ = [
    "conv",
    "elementwise",
    "indexing",
    "linear",
    "norm",
    "pool",
    "quantize",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]
