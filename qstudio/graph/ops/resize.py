"""Resize and Upsample: one interpolation matrix for each axis, as ONNX's reference defines it."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import fx

from qstudio.graph.ops.common import as_floats, as_ints
from qstudio.graph.translation import NodeView, translates


def _source_position(
    out: int, in_size: int, out_size: int, scale: float, mode: str, region: tuple[float, float]
) -> float:
    """Return where an output place lies on the input axis (ONNX Resize, coordinate_transformation_mode)."""
    if mode == "align_corners":
        return 0.0 if out_size == 1 else out * (in_size - 1) / (out_size - 1)
    if mode == "asymmetric":
        return out / scale
    if mode == "pytorch_half_pixel":
        return (out + 0.5) / scale - 0.5 if out_size > 1 else -0.5
    if mode == "tf_half_pixel_for_nn":
        return (out + 0.5) / scale
    if mode == "tf_crop_and_resize":
        begin, end = region
        if out_size == 1:
            return 0.5 * (begin + end) * (in_size - 1)
        return begin * (in_size - 1) + out * (end - begin) * (in_size - 1) / (out_size - 1)
    if mode == "half_pixel_symmetric":
        # The output may be shorter than scale * size; the adjustment keeps it centred (ONNX Resize-19).
        adjustment = out_size / (scale * in_size)
        offset = in_size / 2 * (1 - adjustment)
        return offset + (out + 0.5) / scale - 0.5
    return (out + 0.5) / scale - 0.5


def _linear_weights(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def _cubic_weights(distance: np.ndarray, a: float) -> np.ndarray:
    """Return Keys' kernel (IEEE ASSP 29, 1981) with coefficient a."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _nearest(position: float, rounding: str) -> int:
    if rounding == "round_prefer_floor":
        return math.ceil(position - 0.5)
    if rounding == "round_prefer_ceil":
        return math.floor(position + 0.5)
    return math.floor(position) if rounding == "floor" else math.ceil(position)


@functools.lru_cache(maxsize=256)
def _axis_plan(
    in_size: int,
    out_size: int,
    scale: float,
    kind: str,
    mode: str,
    rounding: str,
    cubic: float,
    exclude_outside: bool,
    antialias: bool,
    region: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix [out, in] (for nearest: the indices [out]) and a mask [out] of places outside the input."""
    positions = [_source_position(o, in_size, out_size, scale, mode, region) for o in range(out_size)]
    outside = np.array([mode == "tf_crop_and_resize" and not 0 <= p <= in_size - 1 for p in positions], dtype=bool)
    if kind == "nearest":
        places = [min(max(_nearest(p, rounding), 0), in_size - 1) for p in positions]
        return np.array(places, dtype=np.int64), outside
    matrix = np.zeros((out_size, in_size))
    radius = 1.0 if kind == "linear" else 2.0
    stretch = min(scale, 1.0) if antialias else 1.0
    reach = radius / stretch
    for row, position in enumerate(positions):
        taps = np.arange(math.floor(position - reach), math.ceil(position + reach) + 1)
        distance = (taps - position) * stretch
        weights = _linear_weights(distance) if kind == "linear" else _cubic_weights(distance, cubic)
        if exclude_outside:
            weights = np.where((taps < 0) | (taps >= in_size), 0.0, weights)
        total = weights.sum()
        weights = weights / total if total != 0 else weights
        np.add.at(matrix[row], np.clip(taps, 0, in_size - 1), weights)
    return matrix, outside


def resize(
    x: torch.Tensor,
    scales: Any = None,
    sizes: Any = None,
    roi: Any = None,
    axes: list[int] | None = None,
    kind: str = "nearest",
    mode: str = "half_pixel",
    rounding: str = "round_prefer_floor",
    cubic: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
    extrapolation: float = 0.0,
    policy: str = "stretch",
) -> torch.Tensor:
    """Compute ONNX's Resize, axis by axis."""
    along = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes]
    wanted = as_ints(sizes) if sizes is not None else []
    factors = as_floats(scales) if scales is not None else []
    if wanted:
        factors = [w / x.shape[a] for w, a in zip(wanted, along, strict=True)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(along)
            wanted = [math.floor(factor * x.shape[a] + 0.5) for a in along]
    else:
        wanted = [math.floor(x.shape[a] * f) for a, f in zip(along, factors, strict=True)]
    bounds = as_floats(roi) if roi is not None else []
    outside_any: list[tuple[int, np.ndarray]] = []
    y = x
    for place, axis in enumerate(along):
        region = (bounds[place], bounds[place + len(along)]) if len(bounds) == 2 * len(along) else (0.0, 1.0)
        if factors[place] == 1.0 and wanted[place] == x.shape[axis] and mode != "tf_crop_and_resize":
            continue
        plan, outside = _axis_plan(
            x.shape[axis],
            wanted[place],
            factors[place],
            kind,
            mode,
            rounding,
            cubic,
            exclude_outside,
            antialias,
            region,
        )
        if outside.any():
            outside_any.append((axis, outside))
        if kind == "nearest":
            y = y.index_select(axis, torch.from_numpy(plan).to(y.device))
        else:
            work = y if y.is_floating_point() else y.to(torch.float32)
            matrix = torch.from_numpy(plan).to(device=y.device, dtype=work.dtype)
            y = torch.matmul(work.movedim(axis, -1), matrix.t()).movedim(-1, axis)
    for axis, outside in outside_any:
        shape = [-1 if a == axis else 1 for a in range(y.dim())]
        mask = torch.from_numpy(outside).to(y.device).reshape(shape)
        y = torch.where(mask, torch.full_like(y, extrapolation), y)
    if y.dtype != x.dtype:
        limits = torch.iinfo(x.dtype)
        y = torch.clamp(torch.round(y), limits.min, limits.max).to(x.dtype)
    return y


@translates("Resize")
def translate_resize(view: NodeView) -> fx.Node:
    """Translate Resize; opset 10 has scales only and asymmetric coordinates."""
    if view.opset < 11:
        return view.call(
            resize,
            view.tensor(0),
            view.numbers(1),
            kind=view.attribute("mode", "nearest"),
            mode="asymmetric",
            rounding="floor",
        )
    # An empty tensor stands for "not given" in opset 11 and 12.
    roi, scales, sizes = [None if v == [] else v for v in (view.numbers(1), view.numbers(2), view.numbers(3))]
    return view.call(
        resize,
        view.tensor(0),
        None if sizes is not None else scales,
        sizes,
        roi,
        view.attribute("axes"),
        kind=view.attribute("mode", "nearest"),
        mode=view.attribute("coordinate_transformation_mode", "half_pixel"),
        rounding=view.attribute("nearest_mode", "round_prefer_floor"),
        cubic=float(view.attribute("cubic_coeff_a", -0.75)),
        exclude_outside=bool(view.attribute("exclude_outside", 0)),
        antialias=bool(view.attribute("antialias", 0)),
        extrapolation=float(view.attribute("extrapolation_value", 0.0)),
        policy=view.attribute("keep_aspect_ratio_policy", "stretch"),
    )


@translates("Upsample")
def translate_upsample(view: NodeView) -> fx.Node:
    """Translate Upsample (opset 9 and older)."""
    scales = view.numbers(1) if view.has(1) else view.attribute("scales")
    kind = view.attribute("mode", "nearest")
    return view.call(resize, view.tensor(0), scales, kind=kind, mode="asymmetric", rounding="floor")
