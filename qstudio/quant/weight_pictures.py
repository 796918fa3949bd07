"""A layer's weight as a picture: kernels in a grid, or the matrix, float beside quantized."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, quantize
from qstudio.core.encodings import LevelEncoding, Other
from qstudio.core.inspection import WeightPictures
from qstudio.core.levels import level_codes
from qstudio.core.model_info import SiteInfo
from qstudio.core.rounding import round_values
from qstudio.core.scheme import Scheme
from qstudio.quant.other_encodings import other_weight_encoding
from qstudio.quant.weight_ranges import weight_encoding

Array = NDArray[Any]

LARGEST_SIDE = 512
"""Pixels of a picture along each side; what is larger is cut (kernels) or averaged (matrices)."""


def weight_pictures(site: SiteInfo, values: NDArray[np.floating], scheme: Scheme) -> WeightPictures:
    """Return a weight and what a scheme makes of it as pictures.

    Kernels stand as in the file: of [out, in, h, w] one row of kernels for each output channel, of a transposed
    convolution's [in, out, h, w] one column. Kernels that have one input channel each (depthwise) stand in reading
    order. A matrix stands as it is stored.

    Args:
        site: The weight's site.
        values: The weight in float32.
        scheme: How it is quantized; with a float scheme `quantized` is `float`.
    """
    weight = np.asarray(values, np.float32)
    encoding: Encoding | Other | None
    encoding = (weight_encoding if scheme.is_affine else other_weight_encoding)(scheme, site, weight)
    rounded = weight if encoding is None else round_values(weight, encoding)
    codes = _codes(weight, encoding)
    channels = weight.shape[site.channel_axis] if site.channel_axis is not None and weight.ndim > 1 else 1
    notes = () if encoding is not None else ("The weight stays in float",)
    picture = _kernels if weight.ndim >= 3 and site.channel_axis in (0, 1) else _matrix
    return picture(site, weight, rounded, codes, channels, notes)


def _codes(values: NDArray[np.float32], encoding: Encoding | Other | None) -> NDArray[np.int32] | None:
    """Return the code of each value; None where values are no integers of one table."""
    if isinstance(encoding, Encoding):
        return quantize(values, encoding)
    return level_codes(values, encoding) if isinstance(encoding, LevelEncoding) else None


def _kernels(
    site: SiteInfo,
    weight: NDArray[np.float32],
    rounded: NDArray[np.float32],
    codes: NDArray[np.int32] | None,
    channels: int,
    notes: tuple[str, ...],
) -> WeightPictures:
    """Return [A, B, ...] as A x B kernels."""
    rows, columns = weight.shape[:2]
    height, width = (math.prod(weight.shape[2:-1]), weight.shape[-1])
    side: int | None = site.channel_axis
    layout = (
        "one row of kernels for each output channel, one column for each input channel"
        if side == 0
        else "one row of kernels for each input channel, one column for each output channel"
    )
    fit = (max(LARGEST_SIDE // height, 1), max(LARGEST_SIDE // width, 1))
    wraps = side == 0 and columns == 1 and rows > 1
    # About as wide as high, so that 3 x 3 kernels of 500 channels are not a ribbon.
    across = min(max(math.ceil(math.sqrt(rows * height / width)), 1), fit[1])
    if wraps:
        side, layout = None, f"one kernel for each output channel, {across} in a row"
        shown = min(rows, across * fit[0])
        if shown < rows:
            notes = (*notes, f"The first {shown:,} of {rows:,} kernels")
    else:
        for what, there, kept in (("rows", rows, fit[0]), ("columns", columns, fit[1])):
            if there > kept:
                notes = (*notes, f"The first {kept:,} of {there:,} {what} of kernels")

    def cut(values: Array) -> Array:
        kernels = _wrapped(values[: across * fit[0], 0], across) if wraps else values[: fit[0], : fit[1]]
        return kernels.reshape(*kernels.shape[:2], height, width)

    first, second = cut(weight), cut(rounded)
    error = np.sqrt(np.square(second.astype(np.float64) - first).mean(axis=(2, 3))).astype(np.float32)
    return WeightPictures(
        layer=site.layer,
        shape=weight.shape,
        float=_mosaic(first),
        quantized=_mosaic(second),
        tile=(height, width),
        layout=layout,
        notes=notes,
        error=error,
        codes=None if codes is None else _mosaic(cut(codes)),
        channel_side=side,
        channels=channels,
    )


def _wrapped(kernels: Array, across: int) -> Array:
    """Return [N, ...] as [rows, across, ...] in reading order, filled up with zeros."""
    rows = -(-len(kernels) // across)
    filled = np.zeros((rows * across, *kernels.shape[1:]), kernels.dtype)
    filled[: len(kernels)] = kernels
    return filled.reshape(rows, across, *kernels.shape[1:])


def _mosaic(kernels: Array) -> Array:
    """Return [A, B, h, w] as [A h, B w]."""
    a, b, height, width = kernels.shape
    return np.ascontiguousarray(kernels.transpose(0, 2, 1, 3).reshape(a * height, b * width))


def _matrix(
    site: SiteInfo,
    weight: NDArray[np.float32],
    rounded: NDArray[np.float32],
    codes: NDArray[np.int32] | None,
    channels: int,
    notes: tuple[str, ...],
) -> WeightPictures:
    rows, columns = math.prod(weight.shape[:-1]), weight.shape[-1]
    first, second = weight.reshape(rows, columns), rounded.reshape(rows, columns)
    step = max(-(-max(rows, columns) // LARGEST_SIDE), 1)
    if step > 1:
        notes = (*notes, f"Each pixel is the mean of {step} x {step} values")
    side = 0 if site.channel_axis == 0 and weight.ndim == 2 else 1
    squared = np.square(second.astype(np.float64) - first)
    return WeightPictures(
        layer=site.layer,
        shape=weight.shape,
        float=averaged(first, step, step),
        quantized=averaged(second, step, step),
        step=step,
        layout=(
            "rows are output channels, columns input channels"
            if side == 0
            else "rows are input channels, columns output channels"
        ),
        notes=notes,
        error=np.sqrt(averaged(squared, step, step)).astype(np.float32),
        codes=None if codes is None or step > 1 else codes.reshape(rows, columns),
        channel_side=side,
        channels=channels,
    )


def averaged(plane: NDArray[np.floating], down: int, across: int) -> NDArray[np.float32]:
    """Return means of blocks of the last two axes; those at the far edges hold fewer values.

    Args:
        plane: [..., H, W].
        down: Rows of a block.
        across: Columns of a block.

    Returns:
        float32 [..., ceil(H / down), ceil(W / across)].
    """
    if down == 1 and across == 1:
        return np.ascontiguousarray(plane, np.float32)
    height, width = plane.shape[-2:]
    rows, columns = np.arange(0, height, down), np.arange(0, width, across)
    sums = np.add.reduceat(np.add.reduceat(plane.astype(np.float64), rows, axis=-2), columns, axis=-1)
    counts = np.outer(np.diff(np.append(rows, height)), np.diff(np.append(columns, width)))
    return (sums / counts).astype(np.float32)
