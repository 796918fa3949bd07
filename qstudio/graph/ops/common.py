"""What several families share: devices, window geometry, integer lists."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

WIDE_INTEGERS = (torch.uint16, torch.uint32, torch.uint64)
"""Types that torch stores but hardly computes with: arithmetic goes through int64."""


def aligned(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Move host tensors (shape arithmetic) to where the others live; return them unchanged when all agree."""
    target = next((t.device for t in tensors if t.device.type != "cpu"), None)
    if target is None:
        return tensors
    return tuple(t if t.device == target else t.to(target) for t in tensors)


def as_ints(value: Any) -> list[int]:
    """Return a tensor or a (nested) number list as a flat list of ints."""
    if isinstance(value, torch.Tensor):
        return [int(v) for v in value.reshape(-1).tolist()]
    if isinstance(value, (list, tuple)):
        return [int(v) for v in value]
    return [int(value)]


def as_floats(value: Any) -> list[float]:
    """Return a tensor or a number list as a flat list of floats."""
    if isinstance(value, torch.Tensor):
        return [float(v) for v in value.reshape(-1).tolist()]
    if isinstance(value, (list, tuple)):
        return [float(v) for v in value]
    return [float(value)]


def window_pads(
    size: list[int],
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
    pads: list[int],
    auto_pad: str,
) -> list[int]:
    """Return explicit pads (all begins, then all ends) for a sliding window.

    Follows ONNX's Conv/pooling definition of auto_pad: SAME_* makes the output ceil(size / stride).
    """
    rank = len(size)
    if auto_pad in ("NOTSET", ""):
        return list(pads) if pads else [0] * (2 * rank)
    if auto_pad == "VALID":
        return [0] * (2 * rank)
    begins, ends = [], []
    for axis in range(rank):
        out = -(-size[axis] // stride[axis])
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        total = max(0, (out - 1) * stride[axis] + extent - size[axis])
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad == "SAME_UPPER" else large)
        ends.append(large if auto_pad == "SAME_UPPER" else small)
    return begins + ends


def torch_pad_order(pads: list[int]) -> list[int]:
    """Turn ONNX pads (begins, then ends) into the order of F.pad (last axis first, begin and end paired)."""
    rank = len(pads) // 2
    order: list[int] = []
    for axis in reversed(range(rank)):
        order += [pads[axis], pads[axis + rank]]
    return order


def pad_with(x: torch.Tensor, pads: list[int], value: float = 0.0) -> torch.Tensor:
    """Pad the last axes of x by ONNX pads with a constant; returns x itself when there is nothing to pad."""
    if not any(pads):
        return x
    return F.pad(x, torch_pad_order(pads), value=value)
