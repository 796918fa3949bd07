"""The table `op type -> translation`, one file for each family of operators; importing this package fills it."""

from __future__ import annotations

from qstudio.graph.ops import (
    attention,
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
    sampling,
    shape,
)

__all__ = [
    "attention",
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
    "sampling",
    "shape",
]
