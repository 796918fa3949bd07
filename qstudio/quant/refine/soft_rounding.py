"""Rounding up or down as something that can be learned (AdaRound, Nagel et al., 2020)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.affine import Encoding, quantize, spread

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
"""The sigmoid is stretched to this range and clipped to 0..1, so that it can reach both ends."""


class SoftWeight:
    """A weight between its two neighbours on the grid: W~ = s clamp(floor(W / s) + h(V), low, high).

    h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1); V starts where h is the fraction that rounding to nearest would cut, so
    W~ starts as W (clipped to the range).

    Args:
        values: The float weight.
        encoding: Its grid.
        device: Where to compute.
        learn_scale: Also learn a factor for each scale (FlexRound's idea, Lee et al., 2023); not with groups.
    """

    def __init__(
        self, values: NDArray[np.float32], encoding: Encoding, device: torch.device, learn_scale: bool = False
    ) -> None:
        self.encoding = encoding
        self.shape = values.shape
        scale = np.broadcast_to(spread(encoding.scale, values.shape, encoding), values.shape)
        zero = np.broadcast_to(spread(encoding.zero_point, values.shape, encoding), values.shape)
        quotient = values.astype(np.float64) / scale
        low, high = encoding.qmin - zero, encoding.qmax - zero
        # A value beyond the range is held at its end: from one step below the top it can still be rounded up to it.
        down = np.clip(np.floor(quotient), low, high - 1)
        fraction = np.clip(quotient - down, 0.0, 1.0)
        self._base = torch.tensor(down.astype(np.float32), device=device)
        self._scale = torch.tensor(np.array(spread(encoding.scale, values.shape, encoding), np.float32), device=device)
        stretched = np.clip((fraction - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW), 1e-6, 1 - 1e-6)
        start = torch.tensor(np.log(stretched / (1 - stretched)).astype(np.float32), device=device)
        self.logits: Tensor = start.requires_grad_(True)
        """V, in the weight's shape."""
        learned = torch.zeros_like(self._scale) if learn_scale and encoding.scale.ndim < 2 else None
        self.log_factor: Tensor | None = None if learned is None else learned.requires_grad_(True)

    def upward(self) -> Tensor:
        """Return h(V): the share of the way up to the next step, 0..1."""
        return (torch.sigmoid(self.logits) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW).clamp(0.0, 1.0)

    def scale(self) -> Tensor:
        """Return the scales, broadcastable to the weight."""
        return self._scale if self.log_factor is None else self._scale * self.log_factor.exp()

    def soft(self) -> Tensor:
        """Return W~; differentiable."""
        return (self._base + self.upward()) * self.scale()

    def undecided(self, beta: float) -> Tensor:
        """Return mean(1 - |2h - 1|^beta): 0 where every weight lies on the grid. (AdaRound, eq. 24)."""
        return 1.0 - (2.0 * self.upward() - 1.0).abs().pow(beta).mean()

    def steps(self) -> NDArray[np.int64]:
        """Return the codes without their zero point, each weight rounded to where h leans."""
        up = (self.upward() >= 0.5).to(self._base.dtype)
        return np.asarray((self._base + up).detach().cpu().numpy(), np.int64)

    def learned_encoding(self) -> Encoding:
        """Return the encoding with the learned scales."""
        if self.log_factor is None:
            return self.encoding
        scale = self.scale().detach().cpu().numpy().reshape(self.encoding.scale.shape)
        return replace(self.encoding, scale=np.asarray(scale, np.float32))


def on_grid(steps: NDArray[np.integer], encoding: Encoding) -> NDArray[np.float32]:
    """Return the float values that rounding to nearest maps to exactly these codes.

    Args:
        steps: Codes minus zero point, in the weight's shape.
        encoding: The grid.

    Raises:
        ArithmeticError: A scale is so small that float32 cannot tell neighbouring codes apart.
    """
    scale = spread(encoding.scale, steps.shape, encoding)
    zero = spread(encoding.zero_point, steps.shape, encoding)
    values = np.asarray(steps.astype(np.float32) * scale, np.float32)
    if not np.array_equal(quantize(values, encoding) - zero, steps):
        raise ArithmeticError("rounding to nearest does not give the chosen codes back")
    return values
