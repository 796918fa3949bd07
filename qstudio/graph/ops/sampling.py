"""Sampling at given places: GridSample, AffineGrid, RoiAlign, Col2Im."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from qstudio.graph.ops.common import as_ints, pad_with
from qstudio.graph.translation import NodeView, Unsupported, translates

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic", "bicubic": "bicubic", "nearest": "nearest"}


def grid_sample(x: torch.Tensor, grid: torch.Tensor, mode: str, padding: str, align: bool) -> torch.Tensor:
    """Sample x [N, C, *size] at grid [N, *out, axes] in -1..1."""
    return F.grid_sample(x, grid.to(x.dtype), mode=mode, padding_mode=padding, align_corners=align)


@translates("GridSample")
def translate_grid_sample(view: NodeView) -> fx.Node:
    """Translate GridSample (4 axes, or 5 without cubic)."""
    mode = _MODES[view.attribute("mode", "linear")]
    padding, align = view.attribute("padding_mode", "zeros"), bool(view.attribute("align_corners", 0))
    return view.call(grid_sample, view.tensor(0), view.tensor(1), mode, padding, align)


def affine_grid(theta: torch.Tensor, size: Any, align: bool) -> torch.Tensor:
    """Return the sampling places of an affine map theta [N, axes, axes+1]."""
    return F.affine_grid(theta, as_ints(size), align_corners=align)


@translates("AffineGrid")
def translate_affine_grid(view: NodeView) -> fx.Node:
    """Translate AffineGrid."""
    return view.call(affine_grid, view.tensor(0), view.numbers(1), bool(view.attribute("align_corners", 0)))


def _axis_samples(
    begin: torch.Tensor, extent: torch.Tensor, bins: int, ratio: int, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for one box and axis the interpolation matrix [bins*samples, size] and the number of samples per bin."""
    samples = ratio if ratio > 0 else max(1, math.ceil(float(extent) / bins))
    step = extent / bins
    offsets = (torch.arange(samples, device=begin.device, dtype=begin.dtype) + 0.5) / samples
    places = (
        begin + (torch.arange(bins, device=begin.device, dtype=begin.dtype).unsqueeze(1) + offsets) * step
    ).flatten()
    outside = (places < -1.0) | (places > size)
    clamped = places.clamp(0, size - 1)
    distance = (clamped.unsqueeze(1) - torch.arange(size, device=begin.device, dtype=begin.dtype)).abs()
    weights = (1 - distance).clamp(min=0)
    return torch.where(outside.unsqueeze(1), torch.zeros_like(weights), weights), torch.tensor(samples)


def roi_align(
    x: torch.Tensor,
    boxes: torch.Tensor,
    batch_indices: torch.Tensor,
    height: int,
    width: int,
    ratio: int,
    scale: float,
    half_pixel: bool,
    largest: bool,
) -> torch.Tensor:
    """Pool boxes [R, 4] (x1 y1 x2 y2) out of x [N, C, H, W] by bilinear samples (He et al., ICCV 2017)."""
    shift = 0.5 if half_pixel else 0.0
    results = []
    for box, index in zip(boxes * scale - shift, batch_indices.tolist(), strict=True):
        extent = box[2:] - box[:2]
        extent = extent if half_pixel else extent.clamp(min=1.0)
        rows, per_row = _axis_samples(box[1], extent[1], height, ratio, x.shape[2])
        columns, per_column = _axis_samples(box[0], extent[0], width, ratio, x.shape[3])
        plane = x[int(index)]
        a, b = int(per_row), int(per_column)
        if largest:
            # ONNX takes the largest weighted corner value, not the largest interpolated one.
            corners = rows.reshape(1, height, a, 1, 1, -1, 1) * columns.reshape(1, 1, 1, width, b, 1, -1)
            product = corners * plane.reshape(plane.shape[0], 1, 1, 1, 1, x.shape[2], x.shape[3])
            product = torch.where(corners == 0, torch.full_like(product, -math.inf), product)
            results.append(product.amax((2, 4, 5, 6)))
        else:
            values = rows @ plane @ columns.t()
            results.append(values.reshape(plane.shape[0], height, a, width, b).mean((2, 4)))
    return torch.stack(results) if results else x.new_zeros(0, x.shape[1], height, width)


@translates("RoiAlign")
def translate_roi_align(view: NodeView) -> fx.Node:
    """Translate RoiAlign; half pixels came with opset 16."""
    half = view.attribute("coordinate_transformation_mode", "half_pixel" if view.opset >= 16 else "output_half_pixel")
    return view.call(
        roi_align,
        *[view.tensor(i) for i in range(3)],
        view.attribute("output_height", 1),
        view.attribute("output_width", 1),
        view.attribute("sampling_ratio", 0),
        float(view.attribute("spatial_scale", 1.0)),
        half == "half_pixel",
        view.attribute("mode", "avg") == "max",
    )


def columns_to_image(
    x: torch.Tensor, size: Any, block: Any, dilation: list[int] | None, pads: list[int] | None, stride: list[int] | None
) -> torch.Tensor:
    """Add the columns x [N, C*block, places] up into images [N, C, *size]."""
    image, kernel = as_ints(size), as_ints(block)
    rank = len(image)
    dilation, stride, pads = dilation or [1] * rank, stride or [1] * rank, pads or [0] * (2 * rank)
    padded = [image[a] + pads[a] + pads[rank + a] for a in range(rank)]
    counts = [(padded[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(rank)]
    blocks = math.prod(kernel)
    flat = torch.zeros(1, dtype=torch.int64, device=x.device)
    for a in range(rank):
        taps = torch.arange(kernel[a], device=x.device) * dilation[a]
        places = taps.unsqueeze(1) + torch.arange(counts[a], device=x.device) * stride[a]
        shape = [1] * (2 * rank)
        shape[a], shape[rank + a] = kernel[a], counts[a]
        flat = flat * padded[a] + places.reshape(shape)
    channels = x.shape[1] // blocks
    values = x.reshape(x.shape[0] * channels, -1)
    result = torch.zeros(values.shape[0], math.prod(padded), dtype=x.dtype, device=x.device)
    result = result.scatter_add(1, flat.reshape(1, -1).expand(values.shape), values)
    return pad_with(result.reshape([x.shape[0], channels, *padded]), [-p for p in pads])


@translates("Col2Im")
def translate_columns_to_image(view: NodeView) -> fx.Node:
    """Translate Col2Im."""
    if not view.has(2):
        raise Unsupported("no block shape")
    names = ("dilations", "pads", "strides")
    return view.call(
        columns_to_image, view.tensor(0), view.numbers(1), view.numbers(2), *[view.attribute(n) for n in names]
    )
