"""Pooling: maximum, average, Lp, global."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from qstudio.graph.ops.common import as_ints, pad_with, window_pads
from qstudio.graph.translation import NodeView, Unsupported, translates

_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_CONV = (F.conv1d, F.conv2d, F.conv3d)


def _plan(
    x: torch.Tensor, kernel: list[int], geometry: dict[str, Any]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return stride, dilation, explicit pads, and the rows to add at each axis' end so that ceil_mode's windows fit.

    Output size (ONNX AveragePool-22): ceil_mode rounds up, and a last window that would start in the end padding is
    dropped.
    """
    rank = len(kernel)
    stride = geometry.get("stride") or [1] * rank
    dilation = geometry.get("dilation") or [1] * rank
    size = list(x.shape[2:])
    auto_pad = geometry.get("auto_pad", "NOTSET")
    pads = window_pads(size, kernel, stride, dilation, geometry.get("pads") or [], auto_pad)
    extra = [0] * rank
    if geometry.get("ceil_mode", 0) and auto_pad in ("NOTSET", ""):
        for a in range(rank):
            extent = (kernel[a] - 1) * dilation[a] + 1
            out = -(-(size[a] + pads[a] + pads[rank + a] - extent) // stride[a]) + 1
            if (out - 1) * stride[a] >= size[a] + pads[a]:
                out -= 1
            extra[a] = max(0, (out - 1) * stride[a] + extent - (size[a] + pads[a] + pads[rank + a]))
    return stride, dilation, pads, extra


def _lowest(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else float(torch.iinfo(dtype).min)


def max_pool(x: torch.Tensor, kernel: list[int], **geometry: Any) -> torch.Tensor:
    """Compute ONNX's MaxPool over x [N, C, *size]; padding never wins."""
    rank = len(kernel)
    stride, dilation, pads, extra = _plan(x, kernel, geometry)
    plain = (
        pads[:rank] == pads[rank:] and not any(extra) and all(2 * p <= k for p, k in zip(pads, kernel, strict=False))
    )
    if x.is_floating_point() and plain:
        return _MAX_POOL[rank - 1](x, kernel, stride, pads[:rank], dilation)
    wide = x if x.is_floating_point() else x.to(torch.float64)
    ends = [p + e for p, e in zip(pads[rank:], extra, strict=True)]
    wide = pad_with(wide, pads[:rank] + ends, _lowest(wide.dtype))
    return _MAX_POOL[rank - 1](wide, kernel, stride, 0, dilation).to(x.dtype)


def max_pool_with_indices(
    x: torch.Tensor, kernel: list[int], column_major: bool = False, **geometry: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute MaxPool and the flat position of each maximum within the whole of x [N, C, *size]."""
    rank = len(kernel)
    stride, dilation, pads, extra = _plan(x, kernel, geometry)
    wide = x if x.is_floating_point() else x.to(torch.float64)
    ends = [p + e for p, e in zip(pads[rank:], extra, strict=True)]
    padded = pad_with(wide, pads[:rank] + ends, _lowest(wide.dtype))
    y, place = _MAX_POOL[rank - 1](padded, kernel, stride, 0, dilation, False, True)
    coordinates: list[torch.Tensor] = []
    for a in reversed(range(rank)):
        coordinates.insert(0, place % padded.shape[2 + a] - pads[a])
        place = torch.div(place, padded.shape[2 + a], rounding_mode="floor")
    order = reversed(range(rank)) if column_major else range(rank)
    flat = torch.zeros_like(coordinates[0])
    for a in order:
        flat = flat * x.shape[2 + a] + coordinates[a]
    plane = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(list(x.shape[:2]) + [1] * rank)
    return y.to(x.dtype), flat + plane * math.prod(x.shape[2:])


def _window_sum(x: torch.Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> torch.Tensor:
    rank = len(kernel)
    planes = x.reshape([-1, 1, *x.shape[2:]])
    ones = torch.ones([1, 1, *kernel], dtype=x.dtype, device=x.device)
    y = _CONV[rank - 1](planes, ones, None, stride, 0, dilation)
    return y.reshape([*x.shape[:2], *y.shape[2:]])


def average_pool(x: torch.Tensor, kernel: list[int], count_include_pad: int = 0, **geometry: Any) -> torch.Tensor:
    """Compute ONNX's AveragePool over x [N, C, *size].

    A window is divided by the number of its places inside x, or inside x and its pads with count_include_pad; places
    that only ceil_mode adds never count.
    """
    rank = len(kernel)
    stride, dilation, pads, extra = _plan(x, kernel, geometry)
    if all(d == 1 for d in dilation) and not any(pads) and not any(extra):
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
        return pool(x, kernel, stride)
    inside = torch.ones([1, 1, *x.shape[2:]], dtype=x.dtype, device=x.device)
    inside = pad_with(inside, pads, 1.0 if count_include_pad else 0.0)
    end_rows = [0] * rank + extra
    total = _window_sum(pad_with(pad_with(x, pads), end_rows), kernel, stride, dilation)
    return total / _window_sum(pad_with(inside, end_rows), kernel, stride, dilation)


def lp_pool(x: torch.Tensor, kernel: list[int], p: int = 2, **geometry: Any) -> torch.Tensor:
    """Compute ONNX's LpPool over x [N, C, *size]: (sum |x|^p)^(1/p)."""
    rank = len(kernel)
    stride, dilation, pads, extra = _plan(x, kernel, geometry)
    padded = pad_with(pad_with(x.abs() ** p, pads), [0] * rank + extra)
    return _window_sum(padded, kernel, stride, dilation) ** (1.0 / p)


def _geometry(view: NodeView) -> dict[str, Any]:
    kernel = view.attribute("kernel_shape") or []
    if not 1 <= len(kernel) <= 3:
        raise Unsupported(f"{len(kernel)} spatial axes; 1, 2 and 3 are supported")
    geometry = {
        "stride": view.attribute("strides"),
        "pads": view.attribute("pads"),
        "dilation": view.attribute("dilations"),
        "auto_pad": view.attribute("auto_pad"),
        "ceil_mode": view.attribute("ceil_mode"),
    }
    return {k: v for k, v in geometry.items() if v is not None}


@translates("MaxPool")
def translate_max_pool(view: NodeView) -> fx.Node | tuple[fx.Node | None, ...]:
    """Translate MaxPool, with its indices when they are asked for."""
    kernel, geometry = view.attribute("kernel_shape"), _geometry(view)
    if not view.wants(1):
        return view.call(max_pool, view.tensor(0), kernel, **geometry)
    column_major = bool(view.attribute("storage_order", 0))
    return view.items(view.call(max_pool_with_indices, view.tensor(0), kernel, column_major, **geometry))


@translates("AveragePool")
def translate_average_pool(view: NodeView) -> fx.Node:
    """Translate AveragePool."""
    include = view.attribute("count_include_pad", 0)
    return view.call(average_pool, view.tensor(0), view.attribute("kernel_shape"), include, **_geometry(view))


@translates("LpPool")
def translate_lp_pool(view: NodeView) -> fx.Node:
    """Translate LpPool."""
    return view.call(lp_pool, view.tensor(0), view.attribute("kernel_shape"), view.attribute("p", 2), **_geometry(view))


def global_average_pool(x: torch.Tensor) -> torch.Tensor:
    """Average x [N, C, *size] over its spatial axes, which stay with size 1."""
    return x.mean(list(range(2, x.dim())), keepdim=True)


def global_max_pool(x: torch.Tensor) -> torch.Tensor:
    """Take the maximum of x [N, C, *size] over its spatial axes, which stay with size 1."""
    return x.amax(list(range(2, x.dim())), keepdim=True)


def global_lp_pool(x: torch.Tensor, p: int) -> torch.Tensor:
    """Compute (sum |x|^p)^(1/p) of x [N, C, *size] over its spatial axes, which stay with size 1."""
    return (x.abs() ** p).sum(list(range(2, x.dim())), keepdim=True) ** (1.0 / p)


@translates("GlobalAveragePool")
def translate_global_average(view: NodeView) -> fx.Node:
    """Translate GlobalAveragePool."""
    return view.call(global_average_pool, view.tensor(0))


@translates("GlobalMaxPool")
def translate_global_max(view: NodeView) -> fx.Node:
    """Translate GlobalMaxPool."""
    return view.call(global_max_pool, view.tensor(0))


@translates("GlobalLpPool")
def translate_global_lp(view: NodeView) -> fx.Node:
    """Translate GlobalLpPool."""
    return view.call(global_lp_pool, view.tensor(0), view.attribute("p", 2))


def max_unpool(
    x: torch.Tensor, indices: torch.Tensor, kernel: list[int], stride: list[int], pads: list[int], shape: Any = None
) -> torch.Tensor:
    """Put each value of x [N, C, *size] back at its flat position; all other places are 0."""
    rank = len(kernel)
    natural = [(x.shape[2 + a] - 1) * stride[a] + kernel[a] - pads[a] - pads[rank + a] for a in range(rank)]
    inner = [*x.shape[:2], *natural]
    flat = torch.zeros(math.prod(inner), dtype=x.dtype, device=x.device)
    flat = flat.scatter(0, indices.reshape(-1), x.reshape(-1))
    if shape is None or as_ints(shape) == inner:
        return flat.reshape(inner)
    target = as_ints(shape)
    # Positions count within the natural size; a larger output shape is filled from its corner (ONNX reference).
    return pad_with(flat.reshape(inner), [0] * rank + [target[2 + a] - natural[a] for a in range(rank)])


@translates("MaxUnpool")
def translate_max_unpool(view: NodeView) -> fx.Node:
    """Translate MaxUnpool."""
    kernel = view.attribute("kernel_shape")
    stride = view.attribute("strides") or [1] * len(kernel)
    pads = view.attribute("pads") or [0] * (2 * len(kernel))
    return view.call(max_unpool, view.tensor(0), view.tensor(1), kernel, stride, pads, view.numbers(2))
