"""Which channels of a graph are one and the same, where their numbers are stored, and which of them have to stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor: along one axis, the label of each place."""

    axis: int
    """Counted from the left, 0 is the batch."""
    labels: Labels
    """After Flatten a label stands for several places."""


@dataclass(frozen=True, eq=False)
class Slices:
    """An initializer whose places along one axis belong to channels."""

    initializer: str
    axis: int
    labels: Labels


@dataclass(frozen=True, eq=False)
class LayerChannels:
    """A layer with a weight: which of its places belong to which channels."""

    name: str
    op_type: str
    weight: str
    """Name of the initializer."""
    outputs: Labels
    """Of its filters."""
    output_axis: int
    """Axis of the weight."""
    inputs: Labels | None
    """Of the channels it reads; None where they are not known."""
    input_axis: int
    passes: bool = False
    """Whether it hands its input channels on (a depthwise convolution): it makes none of its own."""


class ChannelMap:
    """Labels joined where channels must go together, with everything that has to be cut when one goes.

    Labels are plain numbers. `join` puts two channels into one class (both operands of an Add), `fix` says that a class
    has to stay, and why.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: dict[int, str] = {}
        self.slices: dict[tuple[str, int], Slices] = {}
        """By (initializer, axis)."""
        self.layers: dict[str, LayerChannels] = {}
        self.groups: list[tuple[onnx.NodeProto, Labels]] = []
        """Depthwise convolutions, whose number of groups is that of their channels."""
        self.pads: list[tuple[onnx.NodeProto, int, Labels]] = []
        """(Pad node, place in its pads, channels that it adds there)."""
        self.flattened: list[tuple[onnx.NodeProto, Labels]] = []
        """Reshapes that flatten, whose shape may name the number of channels."""

    @property
    def count(self) -> int:
        """Number of labels."""
        return len(self._parent)

    def fresh(self, count: int) -> Labels:
        """Return labels of channels that have just come into being."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def root(self, label: int) -> int:
        """Return the label that stands for a class."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def roots(self, labels: Iterable[int]) -> Labels:
        """Return the class of each label."""
        return np.array([self.root(int(label)) for label in labels], np.int64)

    def join(self, first: Iterable[int], second: Iterable[int]) -> None:
        """Say that channels are the same, place by place."""
        for a, b in zip(first, second, strict=True):
            one, other = sorted((self.root(int(a)), self.root(int(b))))
            if one != other:
                self._parent[other] = one
                if other in self._fixed:
                    self._fixed.setdefault(one, self._fixed.pop(other))

    def fix(self, labels: Iterable[int], reason: str) -> None:
        """Say that channels have to stay; the first reason given counts."""
        for label in labels:
            self._fixed.setdefault(self.root(int(label)), reason)

    def obstacle(self, label: int) -> str:
        """Return why a channel has to stay, empty when it may go."""
        return self._fixed.get(self.root(int(label)), "")

    def attach(self, initializer: str, axis: int, labels: Labels) -> None:
        """Say that an initializer's places along an axis belong to channels."""
        known = self.slices.setdefault((initializer, axis), Slices(initializer, axis, labels))
        self.join(known.labels, labels)  # where two nodes share it, it is cut once, for both alike

    def add_layer(
        self,
        node: onnx.NodeProto,
        outputs: Labels,
        output_axis: int,
        inputs: Labels | None,
        input_axis: int,
        passes: bool = False,
    ) -> None:
        """Take down a layer; see `LayerChannels`."""
        self.layers[node.name] = LayerChannels(
            node.name, node.op_type, node.input[1], outputs, output_axis, inputs, input_axis, passes
        )
