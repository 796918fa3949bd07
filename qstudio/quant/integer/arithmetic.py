"""Integer sums and what onnxruntime's kernels make of them: requantization, saturating pairs of products.

Sums of products of 8-bit codes are integers. As long as every partial sum stays below 2^24, float32 holds all of them
exactly, in any order and with or without fused multiply-add, so a float32 matrix product IS the int32 accumulator;
beyond that bound float64 takes its place (exact to 2^53, then wrapped to 32 bits like the accumulator).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FLOAT32_EXACT = 2**24
_INT16_MIN, _INT16_MAX = -(2**15), 2**15 - 1
_TOGETHER = 2**19
"""Sums of pairs computed with at a time: 2 MiB."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid that codes of one tensor stand on: value = scale * (code - zero_point)."""

    scale: NDArray[np.float32]
    """0-d, or one for each channel."""
    zero_point: NDArray[np.int64]
    """Same shape as `scale`."""
    dtype: np.dtype[Any]
    """uint8 or int8."""

    @property
    def low(self) -> int:
        """Return the smallest code."""
        return int(np.iinfo(self.dtype).min)

    @property
    def high(self) -> int:
        """Return the largest code."""
        return int(np.iinfo(self.dtype).max)

    @property
    def zero(self) -> int:
        """Return the zero point of a tensor with one grid."""
        return int(self.zero_point.reshape(-1)[0])

    @property
    def step(self) -> np.float32:
        """Return the scale of a tensor with one grid."""
        return np.float32(self.scale.reshape(-1)[0])


@dataclass(frozen=True, eq=False)
class Matrix:
    """Integer weights of G groups, [G, M, K], ready to be multiplied with columns of centred codes."""

    values: Tensor
    """float32 where all sums are exact in it, else float64."""

    @staticmethod
    def of(centred: NDArray[np.integer], largest: int, addend: int = 0) -> Matrix:
        """Return the weights in the smallest type whose sums are exact.

        Args:
            centred: Codes less their zero points, [G, M, K].
            largest: Largest magnitude of a centred code of the other factor.
            addend: Largest magnitude of what is added to the sums (bias).
        """
        reach = int(np.abs(centred).sum(axis=-1).max(initial=0)) * largest + addend
        kind = np.float32 if reach < _FLOAT32_EXACT else np.float64
        return Matrix(torch.from_numpy(np.ascontiguousarray(centred, dtype=kind)))

    def times(self, columns: Tensor) -> Tensor:
        """Return the exact sums [B, G, M, N] for centred codes [B, G, K, N]."""
        columns = columns.to(self.values.dtype)
        if self.values.shape[1] == 1 and self.values.shape[2] <= 64:
            # A depthwise layer: one short row for each channel, faster term by term than as many small products.
            total = columns[:, :, 0] * self.values[None, :, :, 0]
            for k in range(1, self.values.shape[2]):
                total.addcmul_(columns[:, :, k], self.values[None, :, :, k])
            return total[:, :, None]
        return torch.matmul(self.values, columns)


def wrapped(sums: Tensor) -> Tensor:
    """Return exact sums as an int32 accumulator holds them: float32 sums are below 2^24, float64 ones wrap around."""
    if sums.dtype == torch.float32:
        return sums
    return sums.to(torch.int64).to(torch.int32)


def requantize(sums: Tensor, factor: Tensor, grid: Grid) -> Tensor:
    """Return the codes of int32 sums: round(float32(sum) * factor), half to even, moved and cut to the type.

    MLAS multiplies in float32 once (MlasRequantizeOutput), cuts to [low - z, high - z], rounds to even and adds z.

    Args:
        sums: From `wrapped`, bias included.
        factor: s_x s_w / s_y in float32, broadcastable to the sums.
        grid: Of the result.
    """
    scaled = sums.to(torch.float32) * factor
    scaled.clamp_(grid.low - grid.zero, grid.high - grid.zero)
    return scaled.round_().add_(grid.zero).to(code_type(grid.dtype))


def code_type(dtype: np.dtype[Any]) -> torch.dtype:
    """Return torch's name of an 8-bit type."""
    return torch.int8 if dtype == np.int8 else torch.uint8


def pairs_that_can_saturate(weight: NDArray[np.int32], largest: int = 255) -> NDArray[np.bool_]:
    """Return which pairs of neighbours of [G, M, K] weights can leave 16 bits, as [G, M, K // 2 rounded up].

    VPMADDUBSW (AVX2 and AVX-512 without VNNI) adds a[2j] w[2j] + a[2j+1] w[2j+1] in 16 bits with saturation, a being
    unsigned codes up to `largest`.
    """
    pairs = _paired(weight)
    positive, negative = np.maximum(pairs, 0).sum(-1), np.minimum(pairs, 0).sum(-1)
    return (positive * largest > _INT16_MAX) | (negative * largest < _INT16_MIN)


def saturation(weight: NDArray[np.int32], can: NDArray[np.bool_], codes: Tensor) -> tuple[Tensor, int]:
    """Return (what saturating pairs add to the exact sums [B, G, M, N], number of sums that are changed).

    Args:
        weight: Signed codes, [G, M, K].
        can: From `pairs_that_can_saturate`.
        codes: Unsigned codes, [B, G, K, N], zero points not taken off.
    """
    pairs = _paired(weight)
    batch, groups, inner, count = codes.shape
    if inner % 2:
        codes = torch.cat([codes, torch.zeros_like(codes[:, :, :1])], dim=2)
    total = torch.zeros((batch, groups, weight.shape[1], count), dtype=torch.float64)
    together = max(_TOGETHER // max(batch * count, 1), 1)
    for group in range(groups):
        rows, places = np.nonzero(can[group])
        for start in range(0, len(rows), together):
            row, place = (torch.from_numpy(found[start : start + together]) for found in (rows, places))
            factors = torch.from_numpy(pairs[group, row.numpy(), place.numpy()].astype(np.float32))[None, :, :, None]
            sums = codes[:, group].index_select(1, 2 * place).to(torch.float32).mul_(factors[:, :, 0])
            sums.addcmul_(codes[:, group].index_select(1, 2 * place + 1).to(torch.float32), factors[:, :, 1])
            excess = sums.clamp(_INT16_MIN, _INT16_MAX).sub_(sums)
            total[:, group].index_add_(1, row, excess.to(torch.float64))
    return total, int(torch.count_nonzero(total))


def _paired(weight: NDArray[np.int32]) -> NDArray[np.int32]:
    if weight.shape[-1] % 2:
        weight = np.concatenate([weight, np.zeros_like(weight[..., :1])], axis=-1)
    return weight.reshape(*weight.shape[:-1], -1, 2)
