"""Rounding of activations with a step that can be learned, and with part of the values left unrounded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qstudio.core.affine import Encoding

_POOL = 2**22
"""Random flags drawn once; each use takes a stretch from a random place."""


class RoundToStep(torch.autograd.Function):
    """x -> s clamp(round(x / s), low, high), where `keep` says so the value itself.

    Gradients are those of LSQ (Esser et al., 2020): for x 1 inside the range and 0 outside; for s round(x/s) - x/s
    inside, low or high outside. Kept values pass their gradient and give none to s.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float, keep: Tensor | None) -> Tensor:
        """Round x [any shape] with a scale []."""
        quotient = x / scale
        codes = quotient.round().clamp_(low, high)
        inside = (quotient >= low) & (quotient <= high)
        slope = torch.where(inside, codes - quotient, codes)
        result = codes.mul_(scale)
        if keep is not None:
            slope.masked_fill_(keep, 0.0)
            inside |= keep
            result = torch.where(keep, x, result)
        ctx.save_for_backward(inside, slope)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Return the gradients of x and of the scale."""
        inside, slope = ctx.saved_tensors
        for_x = gradient * inside if ctx.needs_input_grad[0] else None
        for_scale = (gradient * slope).sum() if ctx.needs_input_grad[1] else None
        return for_x, for_scale, None, None, None


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
        """Round values, but for those to keep."""
        result: Tensor = RoundToStep.apply(values, self.scale(), self.low, self.high, keep)
        return result


class CoinFlips:
    """Random flags with probability 1/2 each, by seed; a stretch of a pool costs a hundredth of fresh ones."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._places = torch.Generator().manual_seed(seed)
        self._pool = torch.empty(_POOL, dtype=torch.bool).bernoulli_(0.5, generator=self._places).to(device)

    def like(self, values: Tensor) -> Tensor:
        """Return flags in the shape of the values."""
        count = values.numel()
        if 2 * count > len(self._pool):
            self._pool = self._pool.repeat(-(-2 * count // len(self._pool)))
        start = int(torch.randint(len(self._pool) - count, (), generator=self._places))
        return self._pool[start : start + count].view(values.shape)
