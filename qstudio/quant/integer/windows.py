"""What a sliding window meets: views of padded tensors, for convolutions and pooling of any rank."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from qstudio.graph.ops.common import torch_pad_order, window_pads


@dataclass(frozen=True)
class Window:
    """The geometry of a Conv or pooling node, as its attributes say."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] = field(default=())
    """All begins, then all ends; empty = none."""
    auto_pad: str = "NOTSET"
    ceil_mode: bool = False

    def padding(self, size: tuple[int, ...]) -> list[int]:
        """Return explicit pads for an image of a size, all begins, then all ends."""
        return window_pads(
            list(size), list(self.kernel), list(self.strides), list(self.dilations), list(self.pads), self.auto_pad
        )

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the number of places of the window along each axis."""
        pads, rank = self.padding(size), len(size)
        found = []
        for axis in range(rank):
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            room = size[axis] + pads[axis] + pads[axis + rank] - reach
            stride = self.strides[axis]
            count = (-(-room // stride) if self.ceil_mode else room // stride) + 1
            if self.ceil_mode and (count - 1) * stride >= size[axis] + pads[axis]:
                count -= 1  # no window starts in the padding behind the image
            found.append(count)
        return tuple(found)

    def view(self, x: Tensor, fill: float) -> Tensor:
        """Return a view [B, C, *kernel, *output] of x [B, C, *size], padded with a value."""
        size = tuple(x.shape[2:])
        rank, pads, output = len(size), self.padding(size), self.output_size(size)
        for axis in range(rank):
            reach = (output[axis] - 1) * self.strides[axis] + self.dilations[axis] * (self.kernel[axis] - 1) + 1
            pads[axis + rank] = max(pads[axis + rank], reach - size[axis] - pads[axis])
        padded = F.pad(x, torch_pad_order(pads), value=fill) if any(pads) else x.contiguous()
        batch, channel, *steps = padded.stride()
        places = [step * dilation for step, dilation in zip(steps, self.dilations, strict=True)]
        moves = [step * stride for step, stride in zip(steps, self.strides, strict=True)]
        return padded.as_strided((*x.shape[:2], *self.kernel, *output), (batch, channel, *places, *moves))

    def count(self, size: tuple[int, ...]) -> Tensor:
        """Return how many places of the window lie inside the image, for each place of the output, in float32."""
        ones = torch.ones((1, 1, *size), dtype=torch.float32)
        rank = len(size)
        return self.view(ones, 0.0).sum(dim=tuple(range(2, 2 + rank)))
