"""Rounding of activations with a step that can be learned, and with part of the values left unrounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qstudio.core.affine import Encoding

_POOL = 2**22
"""Random flags drawn once; each use takes a stretch from a random place."""


class RoundToStep(torch.autograd.Function):
    """x -> s clamp(round(x / s), low, high), where `keep` is 1 the value itself.

    Gradients are those of LSQ (Esser et al., 2020): for x 1 inside the range and 0 outside; for s round(x/s) - x/s
    inside, low or high outside. Kept values pass their gradient and give none to s. Masks are numbers, not flags:
    on a CPU torch works on float32 ten times as fast as on bool.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float, keep: Tensor | None) -> Tensor:
        """Round x [any shape] with a scale []; keep is None, or 0 and 1 in the shape and type of x."""
        quotient = x / scale
        codes = quotient.round().clamp_(low, high)
        # hardtanh's gradient leaves the ends out, LSQ's does not: each bound moves out by one float32.
        ctx.low = float(np.nextafter(np.float32(low), np.float32(-np.inf)))
        ctx.high = float(np.nextafter(np.float32(high), np.float32(np.inf)))
        ctx.save_for_backward(quotient, codes, keep)
        result = codes * scale
        return result if keep is None else torch.lerp(result, x, keep)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Return the gradients of x and of the scale."""
        quotient, codes, keep = ctx.saved_tensors
        kept = None if keep is None else gradient * keep
        rounded = gradient if kept is None else gradient - kept
        inside = torch.ops.aten.hardtanh_backward(rounded, quotient, ctx.low, ctx.high)
        for_scale = (rounded * codes).sum() - (inside * quotient).sum() if ctx.needs_input_grad[1] else None
        for_x = inside if kept is None else inside.add_(kept)
        return for_x if ctx.needs_input_grad[0] else None, for_scale, None, None, None


class LearnedStep:
    """The step of one activation site while it is being learned: s = s0 exp(t), so it stays positive.

    Args:
        encoding: Where it starts; per tensor.
        device: Where the tensors are.
        learn: Whether t is learned.
    """

    def __init__(self, encoding: Encoding, device: torch.device, learn: bool) -> None:
        self.encoding = encoding
        zero = int(encoding.zero_point)
        self.low, self.high = float(encoding.qmin - zero), float(encoding.qmax - zero)
        self._start = torch.tensor(float(encoding.scale), device=device)
        self.logarithm: Tensor | None = torch.zeros((), device=device, requires_grad=True) if learn else None

    def scale(self) -> Tensor:
        """Return the step, []."""
        return self._start if self.logarithm is None else self._start * self.logarithm.exp()

    def __call__(self, values: Tensor, keep: Tensor | None = None) -> Tensor:
        """Round values, but for those where keep is 1."""
        result: Tensor = RoundToStep.apply(values, self.scale(), self.low, self.high, keep)
        return result


class CoinFlips:
    """Random zeros and ones with probability 1/2 each, by seed; a stretch of a pool costs a hundredth of fresh ones."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._places = torch.Generator().manual_seed(seed)
        self._pool = torch.empty(_POOL).bernoulli_(0.5, generator=self._places).to(device)

    def like(self, values: Tensor) -> Tensor:
        """Return zeros and ones in the shape, type and layout of the values."""
        count = values.numel()
        if 2 * count > len(self._pool):
            self._pool = self._pool.repeat(-(-2 * count // len(self._pool)))
        start = int(torch.randint(len(self._pool) - count, (), generator=self._places))
        flips = self._pool[start : start + count].to(values.dtype)
        if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
            n, c, h, w = values.shape
            return flips.view(n, h, w, c).permute(0, 3, 1, 2)
        return flips.view(values.shape)
