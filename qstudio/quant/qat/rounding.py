"""Rounding with a gradient: own autograd functions that save only what the graph holds anyway.

All compute s clamp(round(x / s), low, high) with the ops of `qstudio.quant.quantizer`, so training sees the numbers of
simulation. low = qmin - z and high = qmax - z are whole numbers, z is the zero point.

The gradient of a scale needs no tensor of its own: with y the rounded values and g the incoming gradient,

    sum g (round(x/s) - x/s) inside + sum g bound outside  =  (sum g y  -  sum g_x x) / s,

g_x being g inside the range and 0 outside (Esser et al., 2020, equations 3 and 5): two dot products of tensors that the
ReLU before and the convolution after keep for themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _round(x: Tensor, scale: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    return (x / scale).round_().clamp_(low, high).mul_(scale)  # type: ignore[arg-type]


def _inside(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Return grad where low < x < high and 0 elsewhere, in one pass."""
    return torch.ops.aten.hardtanh_backward(grad, x, low, high)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


class FixedRounding(torch.autograd.Function):
    """Round a tensor with one fixed scale; the gradient passes inside the range (straight-through estimator)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        """Return the rounded values."""
        step = float(scale)
        ctx.bounds = (low * step, high * step)
        ctx.save_for_backward(x)
        return _round(x, scale, low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of x."""
        (x,) = ctx.saved_tensors
        return _inside(grad, x, *ctx.bounds), None, None, None


class LearnedRounding(torch.autograd.Function):
    """Round a tensor with one learned scale (LSQ); `factor` is LSQ's gradient scale 1 / sqrt(N Qp)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float, factor: float) -> Tensor:
        """Return the rounded values."""
        step = float(scale)
        ctx.step, ctx.factor = step, factor
        ctx.bounds = (low * step, high * step)
        y = _round(x, scale, low, high)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients of x and scale."""
        x, y = ctx.saved_tensors
        grad_x = _inside(grad, x, *ctx.bounds)
        grad_scale = (_dot(grad, y) - _dot(grad_x, x)) * (ctx.factor / ctx.step)
        return grad_x, grad_scale, None, None, None


class OffsetRounding(torch.autograd.Function):
    """Round a tensor with a learned scale and offset (LSQ+, Bhalgat et al., 2020, equations 3 to 6).

    The offset is the value of the lowest code; it acts through a zero point rounded to a whole number, as deployed:
    z = clamp(round(qmin - offset / scale), qmin, qmax). Its gradient is 1 outside the range and 0 inside; that of the
    scale is the number of steps from the offset, instead of from zero, outside.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, qmin: int, qmax: int, factor: float) -> Tensor:
        """Return the rounded values."""
        step = float(scale)
        zero_point = zero_point_of(step, float(offset), qmin, qmax)
        low, high = float(qmin - zero_point), float(qmax - zero_point)
        ctx.step, ctx.low, ctx.factor = step, low, factor
        ctx.bounds = (low * step, high * step)
        y = _round(x, scale, low, high)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Return the gradients of x, scale and offset."""
        x, y = ctx.saved_tensors
        grad_x = _inside(grad, x, *ctx.bounds)
        outside = grad.sum() - grad_x.sum()
        grad_scale = ((_dot(grad, y) - _dot(grad_x, x)) / ctx.step - ctx.low * outside) * ctx.factor
        return grad_x, grad_scale, outside * ctx.factor, None, None, None


def zero_point_of(scale: float, offset: float, qmin: int, qmax: int) -> int:
    """Return the zero point whose lowest value is nearest to `offset`, inside [qmin, qmax] so that 0 is exact."""
    return min(max(round(qmin - offset / scale), qmin), qmax)


class ClippedRounding(torch.autograd.Function):
    """Round clip(x, 0, alpha) to `steps` steps; alpha's gradient is that of the values at or beyond it (PACT)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, steps: float) -> Tensor:
        """Return the rounded values."""
        scale = alpha / steps
        ctx.alpha = float(scale) * steps
        ctx.save_for_backward(x)
        return _round(x, scale, 0.0, steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of x and alpha."""
        (x,) = ctx.saved_tensors
        return _inside(grad, x, 0.0, ctx.alpha), _dot(grad, (x >= ctx.alpha).to(grad.dtype)), None


class WeightRounding(torch.autograd.Function):
    """Round a weight with a scale per tensor, channel or group (scale broadcasts against the weight).

    `straight`: the gradient of the weight passes outside the range too, for ranges that follow the weight (STE). The
    scale's gradient is LSQ's, one for each scale.
    """

    @staticmethod
    def forward(
        ctx: Any,
        w: Tensor,
        scale: Tensor,
        low: Tensor | float,
        high: Tensor | float,
        factor: float,
        straight: bool,
    ) -> Tensor:
        """Return the rounded values."""
        y = _round(w, scale, low, high)
        ctx.low, ctx.high, ctx.factor, ctx.straight = low, high, factor, straight
        ctx.save_for_backward(w, y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        """Return the gradients of weight and scale."""
        w, y, scale = ctx.saved_tensors
        if ctx.straight:
            return grad, None, None, None, None, None
        grad_w = grad * ((w > scale * ctx.low) & (w < scale * ctx.high))
        grad_scale = None
        if ctx.needs_input_grad[1]:
            grad_scale = ((grad * y - grad_w * w) / scale).sum_to_size(scale.shape) * ctx.factor
        return grad_w, grad_scale, None, None, None, None


class StraightRound(torch.autograd.Function):
    """Round to whole numbers, ties to even, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the rounded values."""
        return x.round()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient unchanged."""
        return grad
