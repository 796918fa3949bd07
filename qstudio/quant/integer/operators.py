"""Operators on 8-bit codes, each with the arithmetic of onnxruntime's fused kernel for x86.

Sums are int32; what follows them is float32, one rounding for each operation written here. Sources are the formulas of
onnxruntime's MLAS (qgemm, quantize, qladd, qlmul, qlgavgpool) and of its QLinearAveragePool and QLinearSoftmax.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.quant.integer.arithmetic import (
    Grid,
    Matrix,
    code_type,
    pairs_that_can_saturate,
    requantize,
    saturation,
    wrapped,
)
from qstudio.quant.integer.windows import Window

_CACHED_ELEMENTS = 2**19
"""Unfolded elements computed with at a time: 2 MiB."""


@dataclass
class Saturated:
    """How many sums 16-bit saturation changed, over all runs."""

    changed: int = 0
    sums: int = 0


class IntegerOperator(ABC):
    """One operator, its weights and grids fixed.

    Args:
        inputs: Grids of the inputs that are activations.
        output: Grid of the result.
    """

    def __init__(self, inputs: tuple[Grid, ...], output: Grid | None) -> None:
        self.inputs = inputs
        self.output = output
        self.saturated = Saturated()

    @abstractmethod
    def __call__(self, *codes: Tensor) -> Tensor:
        """Return the codes of the result (float values where the operator has no output grid)."""


class _Weighted(IntegerOperator):
    """An operator with a constant integer weight.

    Args:
        inputs: Grid of the activation.
        weight: Codes as [G, M, K], K in the order in which the kernel adds.
        weight_grid: Its grid; per-channel scales run over G M.
        bias: int32 codes [G M], or None.
        output: Grid of the result; None = float values.
        saturating: Add pairs of products in 16 bits, as x86 without VNNI does.
        alpha: Factor of the sums.
    """

    def __init__(
        self,
        inputs: Grid,
        weight: NDArray[np.int32],
        weight_grid: Grid,
        bias: NDArray[np.int64] | None,
        output: Grid | None,
        saturating: bool,
        alpha: float = 1.0,
    ) -> None:
        super().__init__((inputs,), output)
        groups, rows, _ = weight.shape
        zero = np.broadcast_to(weight_grid.zero_point.reshape(-1, 1), (groups * rows, 1)).reshape(groups, rows, 1)
        largest = max(inputs.high - inputs.zero, inputs.zero - inputs.low)
        added = 0 if bias is None else int(np.abs(bias).max(initial=0))
        self._matrix = Matrix.of(weight - zero, largest, added)
        self._bias = None if bias is None else torch.from_numpy(bias.astype(np.float64))
        factor = np.float32(alpha) * inputs.step * weight_grid.scale.reshape(-1)
        if output is not None:
            factor = factor / output.step
        self._factor = torch.from_numpy(np.ascontiguousarray(factor, np.float32))
        # Unsigned weights go through kernels that widen to 16 bits before they multiply: those cannot saturate.
        can = pairs_that_can_saturate(weight) if saturating and weight_grid.dtype == np.int8 else None
        self._saturable = (weight, can) if can is not None and can.any() else None

    def _sums(self, centred: Tensor, columns: Tensor) -> Tensor:
        """Return the sums [B, G M, N], bias included, for [B, G, K, N] centred codes and the codes themselves."""
        sums = self._matrix.times(centred)
        if self._saturable is not None:
            excess, changed = saturation(*self._saturable, columns)
            sums = sums.to(torch.float64) + excess
            self.saturated.changed += changed
        self.saturated.sums += sums.numel()
        sums = sums.reshape(sums.shape[0], -1, sums.shape[3])
        if self._bias is not None:
            sums = sums + self._bias.to(sums.dtype)[:, None]
        return wrapped(sums)

    def _finished(self, sums: Tensor) -> Tensor:
        factor = self._factor[:, None]
        if self.output is None:
            return sums.to(torch.float32) * factor
        return requantize(sums, factor, self.output)


class IntegerConv(_Weighted):
    """Convolution of any rank; padding counts as real 0.

    Args:
        inputs: Grid of the image.
        weight: Codes [M, C / groups, *kernel].
        weight_grid: Per tensor or per output channel.
        bias: int32 codes, or None.
        output: Grid of the result.
        window: Kernel, strides, pads, dilations.
        groups: Of the convolution.
        saturating: As x86 without VNNI.
    """

    def __init__(
        self,
        inputs: Grid,
        weight: NDArray[np.int32],
        weight_grid: Grid,
        bias: NDArray[np.int64] | None,
        output: Grid,
        window: Window,
        groups: int,
        saturating: bool = False,
    ) -> None:
        channels = weight.shape[0]
        # Channels last, as the kernel unfolds images. Depthwise convolutions have a kernel of their own, whose products
        # are widened before they are added; with several outputs or zero points they go the general way.
        last = np.moveaxis(weight, 1, -1).reshape(groups, channels // groups, -1)
        depthwise = groups == channels and weight.shape[1] == 1 and len(np.unique(weight_grid.zero_point)) == 1
        super().__init__(inputs, last, weight_grid, bias, output, saturating and not depthwise)
        self._window, self._groups = window, groups

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return the codes [B, M, *output] for codes [B, C, *size]."""
        (x,) = codes
        rank = x.dim() - 2
        size = self._window.output_size(tuple(x.shape[2:]))
        view = self._window.view(x, float(self.inputs[0].zero))
        zero = self.inputs[0].zero
        channels = x.shape[1] // self._groups
        together = max(_CACHED_ELEMENTS // max(view[:1].numel(), 1), 1)
        results = []
        for part in view.split(together):
            # [B, G, C / G, *kernel, *output] -> [B, G, *kernel, C / G, *output]
            split = part.reshape(len(part), self._groups, channels, *part.shape[2:])
            order = (0, 1, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
            columns = split.permute(order).reshape(len(part), self._groups, -1, int(np.prod(size)))
            centred = columns.to(torch.float32) - zero
            results.append(self._finished(self._sums(centred, columns)).reshape(len(part), -1, *size))
        return torch.cat(results)


class IntegerProduct(_Weighted):
    """Gemm or MatMul with a constant matrix: [..., K] codes times [N, K] weights.

    Args:
        inputs: Grid of the rows.
        weight: Codes [N, K].
        weight_grid: Per tensor or per row of `weight`.
        bias: int32 codes [N], or None.
        output: Grid of the result; None = float values.
        transposed: The activation comes as [K, M].
        alpha: Of Gemm.
        saturating: As x86 without VNNI.
    """

    def __init__(
        self,
        inputs: Grid,
        weight: NDArray[np.int32],
        weight_grid: Grid,
        bias: NDArray[np.int64] | None,
        output: Grid | None,
        transposed: bool = False,
        alpha: float = 1.0,
        saturating: bool = False,
    ) -> None:
        super().__init__(inputs, weight[None], weight_grid, bias, output, saturating, alpha)
        self._transposed = transposed

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return codes (or values) [..., N]."""
        (x,) = codes
        if self._transposed:
            x = x.t()
        columns = x.reshape(-1, x.shape[-1]).t()[None, None]
        centred = columns.to(torch.float32) - self.inputs[0].zero
        result = self._finished(self._sums(centred, columns))[0]
        return result.t().reshape(*x.shape[:-1], -1)


class IntegerMatMul(IntegerOperator):
    """Product of two activations, batched and broadcast like numpy.matmul; unsigned kernels do not saturate."""

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return codes, or values where there is no output grid."""
        first, second = (c.to(torch.float64) - grid.zero for c, grid in zip(codes, self.inputs, strict=True))
        sums = wrapped(torch.matmul(first, second))
        factor = self.inputs[0].step * self.inputs[1].step
        if self.output is None:
            return sums.to(torch.float32) * torch.tensor(factor)
        return requantize(sums, torch.tensor(factor / self.output.step), self.output)


class IntegerAdd(IntegerOperator):
    """Sum of two activations.

    MLAS (AVX2), all in float32 with fma rounding once: ra = s_a / s_c, rb = s_b / s_c,
    c = round(fma(a, ra, fma(b, rb, z_c - fma(ra, z_a, rb z_b)))), half to even, then cut to the type. Where a is
    broadcast along the last axis, a and b change places. The innermost fma is the compiler's (GCC contracts the sum); a
    build without it rounds once more there, which moves one code in a million.
    """

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return the codes of the sum, broadcast like numpy."""
        assert self.output is not None
        sides = list(zip(codes, self.inputs, strict=True))
        if _is_broadcast(*codes):
            sides.reverse()
        (first, grid_a), (second, grid_b) = sides
        ratio_a, ratio_b = grid_a.step / self.output.step, grid_b.step / self.output.step
        shift = float(ratio_a) * grid_a.zero + float(ratio_b * np.float32(grid_b.zero))
        fixed = np.float32(self.output.zero) - np.float32(shift)
        total = _fused(first, ratio_a, _fused(second, ratio_b, torch.tensor(fixed)))
        return total.round_().clamp_(self.output.low, self.output.high).to(code_type(self.output.dtype))


class IntegerMul(IntegerOperator):
    """Product of two activations: c = round(float32((a - z_a)(b - z_b)) * (s_a s_b / s_c) + z_c), half to even."""

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return the codes of the product, broadcast like numpy."""
        assert self.output is not None
        first, second = (c.to(torch.float32) - grid.zero for c, grid in zip(codes, self.inputs, strict=True))
        factor = self.inputs[0].step * self.inputs[1].step / self.output.step
        total = (first * second).mul_(float(factor)).add_(self.output.zero)
        return total.round_().clamp_(self.output.low, self.output.high).to(code_type(self.output.dtype))


class IntegerGlobalAveragePool(IntegerOperator):
    """Mean over all places: requantized int32 sum of n codes, factor s_x / (s_y n), -n z_x as bias."""

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return the codes [B, C, 1, ...]."""
        assert self.output is not None
        (x,) = codes
        count = int(np.prod(x.shape[2:]))
        sums = x.reshape(*x.shape[:2], -1).sum(-1, dtype=torch.int64) - count * self.inputs[0].zero
        factor = self.inputs[0].step / (self.output.step * np.float32(count))
        result = requantize(sums.to(torch.int32), torch.tensor(factor), self.output)
        return result.reshape(*x.shape[:2], *(1 for _ in x.shape[2:]))


class IntegerAveragePool(IntegerOperator):
    """Mean over a window: float32 sum of values in the order of the window, / count, / s_y + z_y, half to even.

    Args:
        inputs: Grid of the image.
        output: Grid of the result.
        window: Geometry.
        counts_padding: Divide by the whole window everywhere (count_include_pad).
    """

    def __init__(self, inputs: Grid, output: Grid, window: Window, counts_padding: bool) -> None:
        super().__init__((inputs,), output)
        self._window, self._counts_padding = window, counts_padding

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return the codes [B, C, *output]."""
        assert self.output is not None
        (x,) = codes
        grid, kernel = self.inputs[0], self._window.kernel
        values = (x.to(torch.float32) - grid.zero).mul_(float(grid.step))
        view = self._window.view(values, 0.0)
        terms = view.reshape(*x.shape[:2], int(np.prod(kernel)), *view.shape[2 + len(kernel) :])
        total = terms[:, :, 0].clone()
        for k in range(1, terms.shape[2]):
            total.add_(terms[:, :, k])
        count = torch.tensor(float(np.prod(kernel)))
        total.div_(count if self._counts_padding else self._window.count(tuple(x.shape[2:])))
        total.div_(float(self.output.step)).add_(self.output.zero)
        return total.round_().clamp_(self.output.low, self.output.high).to(code_type(self.output.dtype))


class IntegerSoftmax(IntegerOperator):
    """Softmax by table: onnxruntime looks exp(s_x (q - q_max)) up, scaled so that float32 sums of D terms stay finite.

    y = round(float32(t floor(1 / s_y)) / sum t) + z_y, half to even, then cut to the type. Two habits of that kernel
    are kept: 1 / s_y is cut to an integer, and a product beyond float32 counts as 0.

    Args:
        inputs: Grid of the logits, unsigned.
        output: Grid of the result.
        axis: Along which the results add up to 1.
    """

    def __init__(self, inputs: Grid, output: Grid, axis: int) -> None:
        super().__init__((inputs,), output)
        self._axis = axis

    def __call__(self, *codes: Tensor) -> Tensor:
        """Return the codes of the result, shaped as the input."""
        assert self.output is not None
        logits = codes[0].movedim(self._axis, -1).to(torch.int64)
        length = logits.shape[-1]
        table = torch.from_numpy(_exponentials(self.inputs[0].step, length))
        terms = table[logits + (255 - logits.amax(-1, keepdim=True))]
        total = terms[..., 0].clone()
        for k in range(1, length):
            total.add_(terms[..., k])
        factor = float(np.floor(np.float32(1.0) / self.output.step))
        result = (terms * factor).div_(total[..., None])
        result = torch.where(result.isfinite(), result, 0.0).round_().add_(self.output.zero)
        return result.clamp_(self.output.low, self.output.high).to(code_type(self.output.dtype)).movedim(-1, self._axis)


def _exponentials(step: np.float32, length: int) -> NDArray[np.float32]:
    """Return onnxruntime's table of exponentials by code, the largest near float32's limit / (length e^5)."""
    largest = np.finfo(np.float32).max / np.float32(length)
    # The logarithm is float32's, everything after it float64's.
    shift = max(0.0, float(np.log(largest)) - 5) / float(step)
    return np.exp((np.arange(256, dtype=np.float64) - 255 + shift) * float(step)).astype(np.float32)


def _fused(codes: Tensor, ratio: np.float32, addend: Tensor) -> Tensor:
    """Return codes * ratio + addend rounded once to float32: a float64 holds the product exactly."""
    return (codes.to(torch.float64) * float(ratio) + addend.to(torch.float64)).to(torch.float32)


def _is_broadcast(small: Tensor, large: Tensor) -> bool:
    """Return whether one value of `small` meets a whole run of `large` along the last axis that has a length."""
    sizes = [1] * (large.dim() - small.dim()) + list(small.shape)
    rest = [1] * (small.dim() - large.dim()) + list(large.shape)
    for a, b in zip(reversed(sizes), reversed(rest), strict=True):
        if a != 1 or b != 1:
            return a == 1 and b > 1
    return False
