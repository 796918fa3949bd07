"""Quantizers that are trained: leaves, the values they give, and the encoding they end in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.affine import Encoding, spread
from qstudio.quant.qat.rounding import (
    ClippedRounding,
    FixedRounding,
    LearnedRounding,
    OffsetRounding,
    StraightRound,
    WeightRounding,
    zero_point_of,
)

SMALLEST_SHARE = 1e-4
"""A scale never falls below this share of where it started: scales stay positive."""

_LARGEST_DOREFA_BITS = 7
"""DoReFa's 2^b levels leave out zero; as codes of a grid that holds zero they take b + 1 bits, and the file int8."""


class Positive:
    """A positive value that is learned: unit times leaf.

    With Adam, whose steps have the size of the rate, the leaf is relative to the start (unit = start), so that a rate
    means the same for small and large scales; with SGD it is the value itself (unit = 1), as in LSQ.
    """

    def __init__(self, start: NDArray[np.floating] | float, relative: bool, device: torch.device) -> None:
        value = torch.tensor(np.asarray(start, np.float32), device=device)
        self.unit = value if relative else torch.ones_like(value)
        self.leaf = (value / self.unit).requires_grad_()
        self._floor = (value / self.unit * SMALLEST_SHARE).detach()

    def value(self) -> Tensor:
        """Return the value, differentiable by the leaf."""
        return self.unit * self.leaf

    def numpy(self) -> NDArray[np.float32]:
        """Return the value in float32."""
        return (self.unit * self.leaf.detach()).cpu().numpy()

    def hold(self) -> None:
        """Put the leaf back above its floor; call after each step of the optimiser."""
        with torch.no_grad():
            self.leaf.copy_(torch.maximum(self.leaf, self._floor))


class ActivationQuantizer:
    """Rounds one activation site.

    Args:
        encoding: Where it starts (per tensor).
        method: Of `qstudio.core.training.METHODS`.
        relative: Whether learned values are relative to their start (see Positive).
        device: Where the tensors are.
        fixed: The range is given (by mathematics or by hand) and is not learned.
    """

    def __init__(
        self, encoding: Encoding, method: str, relative: bool, device: torch.device, fixed: bool = False
    ) -> None:
        self.start = encoding
        zero = int(encoding.zero_point)
        self.low, self.high = float(encoding.qmin - zero), float(encoding.qmax - zero)
        kind = "ste" if method == "dorefa" or fixed else method
        if kind == "pact" and self.low != 0.0:
            kind = "ste"  # PACT is defined behind a ReLU; signed tensors keep the range of PTQ
        self.kind = kind
        scale = float(encoding.scale)
        self.scale: Positive | None = None
        self.alpha: Positive | None = None
        self.offset: Tensor | None = None
        self._fixed = torch.tensor(encoding.scale, device=device)
        if kind in ("lsq", "lsq+"):
            self.scale = Positive(scale, relative, device)
        if kind == "lsq+":
            self.offset = torch.tensor(self.low * scale, dtype=torch.float32, device=device)
            self._unit = torch.tensor(scale if relative else 1.0, dtype=torch.float32, device=device)
            self.offset = (self.offset / self._unit).requires_grad_()
        if kind == "pact":
            self.alpha = Positive(scale * self.high, relative, device)

    def leaves(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""
        found = {}
        if self.scale is not None:
            found["scale"] = self.scale.leaf
        if self.alpha is not None:
            found["alpha"] = self.alpha.leaf
        if self.offset is not None:
            found["offset"] = self.offset
        return found

    def __call__(self, x: Tensor) -> Tensor:
        """Return the rounded values of a batch."""
        if self.alpha is not None:
            return ClippedRounding.apply(x, self.alpha.value(), self.high)
        if self.scale is None:
            return FixedRounding.apply(x, self._fixed, self.low, self.high)
        factor = gradient_scale(x.numel() / max(x.shape[0] if x.dim() else 1, 1), self.high)
        if self.offset is None:
            return LearnedRounding.apply(x, self.scale.value(), self.low, self.high, factor)
        return OffsetRounding.apply(
            x, self.scale.value(), self._unit * self.offset, self.start.qmin, self.start.qmax, factor
        )

    def hold(self) -> None:
        """Keep what must stay positive positive."""
        for learned in (self.scale, self.alpha):
            if learned is not None:
                learned.hold()

    def encoding(self) -> Encoding:
        """Return what the site is to be rounded with now."""
        if self.alpha is not None:
            scale = torch.from_numpy(self.alpha.numpy()) / self.high
            return replace(self.start, scale=scale.numpy())
        if self.scale is None:
            return self.start
        scale_array = self.scale.numpy()
        if self.offset is None:
            return replace(self.start, scale=scale_array)
        offset = float(self._unit * self.offset.detach())
        zero = zero_point_of(float(scale_array), offset, self.start.qmin, self.start.qmax)
        return replace(self.start, scale=scale_array, zero_point=np.asarray(zero, np.int32))


class WeightQuantizer:
    """Rounds one weight with an affine grid, its scale fixed (STE) or learned (LSQ).

    The gain of a BatchNormalization that is kept multiplies the weight, and the scale of each channel as far as it
    has moved since the scale was set: rounding then does not change with the running deviation. (digits_mobilenet,
    W2A2, 15 epochs: 76 %; with scales that do not follow, the statistics' noise moves weights over rounding boundaries
    all the time: 36 %.) One scale for all channels cannot follow.

    Args:
        encoding: Where it starts.
        values: The weight, before a gain.
        learned: Whether the scale is.
        relative: Whether the learned scale is relative to its start (see Positive).
        gain: Of the normalisation at the start, broadcasting against the weight; None = there is none.
    """

    def __init__(
        self, encoding: Encoding, values: Tensor, learned: bool, relative: bool, gain: Tensor | None = None
    ) -> None:
        self.start = encoding
        self._gain = None if gain is None else gain.detach().abs()
        self._device = values.device
        self._shape = tuple(values.shape)
        zero = spread(encoding.zero_point, self._shape, encoding)
        self._low, self._high = self._bounds(encoding, zero)
        self.leaf = values.detach().clone().requires_grad_()
        self.scale = Positive(encoding.scale, relative, values.device) if learned else None
        self._fixed = self._spread(torch.tensor(encoding.scale, device=values.device))
        largest = max(encoding.qmax - int(encoding.zero_point.min()), 1)
        self._factor = gradient_scale(values.numel() / max(encoding.scale.size, 1), largest)

    def leaves(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""
        return {"weight": self.leaf} | ({"scale": self.scale.leaf} if self.scale is not None else {})

    def values(self, gain: Tensor | None = None) -> Tensor:
        """Return the rounded weight, multiplied by a gain before (of a BatchNormalization that will be folded)."""
        weight = self.leaf if gain is None else self.leaf * gain
        follows = self._follows(gain)
        scale = self._fixed if self.scale is None else self._spread(self.scale.value())
        scale = scale if follows is None else scale * follows
        if self.scale is None:
            return WeightRounding.apply(weight, scale, self._low, self._high, 1.0, True)
        return WeightRounding.apply(weight, scale, self._low, self._high, self._factor, False)

    def _follows(self, gain: Tensor | None) -> Tensor | None:
        """Return what the scales are multiplied by, broadcasting against the weight; None = nothing."""
        if gain is None or self._gain is None or self.start.axis is None:
            return None
        return gain.abs() / self._gain

    def hold(self) -> None:
        """Keep the scale positive."""
        if self.scale is not None:
            self.scale.hold()

    def move_to(self, encoding: Encoding, gain: Tensor | None = None) -> None:
        """Take another fixed range, of the weight with this gain (ranges of STE follow the weights)."""
        self.start = encoding
        self._gain = None if gain is None else gain.detach().abs()
        self._low, self._high = self._bounds(encoding, spread(encoding.zero_point, self._shape, encoding))
        self._fixed = self._spread(torch.tensor(encoding.scale, device=self._device))

    def encoding(self, gain: Tensor | None = None) -> Encoding:
        """Return what the weight, multiplied by a gain, is to be rounded with now."""
        follows = self._follows(gain)
        if self.scale is None and follows is None:
            return self.start
        scale = torch.from_numpy(self.start.scale if self.scale is None else self.scale.numpy())
        if follows is not None:
            scale = scale * follows.detach().cpu().reshape(-1, *[1] * (scale.dim() - 1))
        return replace(self.start, scale=scale.numpy())

    def float_values(self, gain: Tensor | None = None) -> NDArray[np.float32]:
        """Return the weight before rounding, as it is folded."""
        leaf = self.leaf.detach()
        return (leaf.clone() if gain is None else leaf * gain.detach()).cpu().numpy()

    def latent_values(self, gain: Tensor | None = None) -> NDArray[np.float32]:
        """Return what another stage of training starts from: the weight before rounding."""
        return self.float_values(gain)

    def _bounds(self, encoding: Encoding, zero: NDArray[np.int32]) -> tuple[Tensor | float, Tensor | float]:
        if zero.size and (zero == zero.flat[0]).all():
            return float(encoding.qmin - int(zero.flat[0])), float(encoding.qmax - int(zero.flat[0]))
        low, high = (np.asarray(bound - zero, np.float32) for bound in (encoding.qmin, encoding.qmax))
        return torch.tensor(low, device=self._device), torch.tensor(high, device=self._device)

    def _spread(self, scale: Tensor) -> Tensor:
        """Return scales so that they broadcast against the weight (see `qstudio.core.affine.spread`)."""
        axis = self.start.axis
        if axis is None:
            return scale.reshape(())
        if scale.dim() == 1:
            return scale.reshape([-1 if i == axis else 1 for i in range(len(self._shape))])
        others = [n for i, n in enumerate(self._shape) if i != axis]
        flat = scale.repeat_interleave(self.start.group_size, dim=1)[:, : math.prod(others)]
        return flat.reshape([self._shape[axis], *others]).movedim(0, axis)


class DorefaWeight:
    """Rounds one weight as DoReFa: w' = tanh(v) / (2 max|tanh v|) + 1/2, w = S (2 Q(w') - 1).

    Q rounds [0, 1] to 2^b levels. S is a constant: in the paper it is 1, since a BatchNormalization follows; here that
    is folded into the weight, and S is the largest magnitude of each channel (or of the tensor) at the start. v starts
    so that w without Q is the float weight exactly: v = atanh(0.9 w / max|w|). Where a BatchNormalization is kept, its
    gain multiplies S, which therefore has to be one of each channel.

    Zero is not among the levels, so that in files the codes are the odd numbers of a grid with half the step.
    """

    def __init__(self, encoding: Encoding, values: Tensor, bits: int) -> None:
        axis = encoding.axis
        self._dims = [i for i in range(values.dim()) if i != axis] if axis is not None else list(range(values.dim()))
        largest = values.detach().abs().amax(self._dims, keepdim=True)
        self._size = torch.where(largest > 0, largest, torch.ones_like(largest))
        self._levels = float(2**bits - 1)
        self.leaf = torch.atanh(0.9 * values.detach() / self._size).requires_grad_()
        self._step = self._size / self._levels
        self._axis = axis

    @staticmethod
    def suits(bits: int) -> bool:
        """Return whether DoReFa's levels fit an int8 file; wider weights are rounded with an affine grid."""
        return bits <= _LARGEST_DOREFA_BITS

    def leaves(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""
        return {"weight": self.leaf}

    def values(self, gain: Tensor | None = None) -> Tensor:
        """Return the rounded weight, multiplied by a gain (of a BatchNormalization that will be folded)."""
        bent = torch.tanh(self.leaf)
        share = bent / (2 * bent.abs().amax(self._dims, keepdim=True).clamp_min(1e-12)) + 0.5
        step = self._step if gain is None else self._step * gain
        return (2 * StraightRound.apply(share * self._levels) - self._levels) * step

    def hold(self) -> None:
        """Do nothing: there is no learned scale."""

    def encoding(self, gain: Tensor | None = None) -> Encoding:
        """Return the grid with half the step that holds all levels and zero."""
        step = self._step if gain is None else (self._step * gain.detach()).abs()
        scale = step.reshape(-1 if self._axis is not None else ()).cpu().numpy()
        levels = int(self._levels)
        return Encoding(scale, np.zeros(scale.shape, np.int32), -levels, levels, self._axis)

    def float_values(self, gain: Tensor | None = None) -> NDArray[np.float32]:
        """Return the levels themselves: what is rounded to the grid without change."""
        with torch.no_grad():
            return self.values(gain).cpu().numpy().copy()

    def latent_values(self, gain: Tensor | None = None) -> NDArray[np.float32]:
        """Return what another stage of training starts from: w without Q."""
        with torch.no_grad():
            bent = torch.tanh(self.leaf)
            size = self._size if gain is None else self._size * gain
            return (bent / bent.abs().amax(self._dims, keepdim=True).clamp_min(1e-12) * size).cpu().numpy()


def gradient_scale(count: float, largest: float) -> float:
    """Return LSQ's gradient scale 1 / sqrt(N Qp) (Esser et al., 2020, section 2.2).

    Args:
        count: Values that share the scale, of one sample.
        largest: Qp, the largest code above zero.
    """
    return 1.0 / math.sqrt(max(count, 1.0) * max(largest, 1.0))
