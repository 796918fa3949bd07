"""Walk through a graph and take down which channels each tensor has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qstudio.core.graph_types import TensorInfo
from qstudio.graph.shapes import infer_tensors
from qstudio.graph.structure import needed_names
from qstudio.quant.prune.channels import ChannelMap, Channels


class Tracer:
    """What is known while a graph is walked through once, from its inputs to its outputs.

    Args:
        proto: A prepared model.
        rules: By operator.
    """

    def __init__(self, proto: onnx.ModelProto, rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self.map = ChannelMap()
        self._graph = proto.graph
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._tensors: dict[str, TensorInfo] = infer_tensors(proto)
        self._channels: dict[str, Channels] = {}
        self._number = 0
        self._asked: set[str] = set()
        """Inputs of the present node whose channels its rule has looked at."""
        self._cut: dict[str, set[int]] = {}
        """Initializer -> nodes for which it is known how to cut it."""

    def visit(self, number: int, node: onnx.NodeProto) -> None:
        """Find the channels of what a node puts out."""
        self._number, self._asked = number, set()
        read = [name for name in needed_names(node) if name in self._channels]
        rule = self._rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None and not read:
            return
        if rule is None or not rule(self, node):
            for name in read:
                self.map.fix(self._channels[name].labels, f"{node.name} ({node.op_type}) needs all channels")
            for name in node.output:
                self._channels.pop(name, None)
            return
        for name in read:
            if name not in self._asked:  # a bias or a limit that is computed: what the rule did not look at
                self.map.fix(self._channels[name].labels, f"{node.name} ({node.op_type}) reads them all")

    def finish(self) -> None:
        """Fix what the outputs of the model show, and what is stored where others read it too."""
        for output in self._graph.output:
            if output.name in self._channels:
                self.map.fix(self._channels[output.name].labels, f"they are the model's output {output.name}")
        readers: dict[str, set[int]] = {output.name: {-1} for output in self._graph.output}
        for number, node in enumerate(self._graph.node):
            for name in needed_names(node):
                readers.setdefault(name, set()).add(number)
        for (initializer, _), known in self.map.slices.items():
            if readers.get(initializer, set()) - self._cut.get(initializer, set()):
                self.map.fix(known.labels, f"{initializer} is read elsewhere too")

    # ---- what is known of tensors

    def of(self, name: str) -> Channels | None:
        """Return the channels of an input of the present node, None where they are not known."""
        self._asked.add(name)
        return self._channels.get(name)

    def put(self, name: str, axis: int, labels: NDArray[np.int64]) -> bool:
        """Take down the channels of a tensor; always true, so that rules can end with it."""
        self._channels[name] = Channels(axis, labels)
        return True

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return a tensor's shape, None where not even the rank is known."""
        info = self._tensors.get(name)
        return None if info is None else info.shape

    def constant(self, node: onnx.NodeProto, index: int) -> NDArray[np.generic] | None:
        """Return the values of a constant input; None where it is missing or computed."""
        if index >= len(node.input) or node.input[index] not in self._constants:
            return None
        return np.asarray(numpy_helper.to_array(self._constants[node.input[index]]))

    def dims(self, name: str) -> list[int] | None:
        """Return an initializer's shape, None for any other tensor."""
        return list(self._constants[name].dims) if name in self._constants else None

    def attach(self, initializer: str, axis: int, labels: NDArray[np.int64]) -> None:
        """Say that an initializer of the present node is cut along an axis."""
        self._cut.setdefault(initializer, set()).add(self._number)
        self.map.attach(initializer, axis, labels)

    def axes(self, node: onnx.NodeProto, index: int, rank: int) -> list[int] | None:
        """Return the axes a node names in an attribute or a constant input, counted from the left; None if unknown."""
        given = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if given is None and index < len(node.input) and node.input[index]:
            found = self.constant(node, index)
            if found is None:
                return None
            given = [int(value) for value in found.reshape(-1)]
        return None if given is None else [axis % rank for axis in given]


Rule = Callable[[Tracer, onnx.NodeProto], bool]
"""Takes down the channels of a node's output; false where the channels it reads have to stay."""


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return a whole number among a node's attributes."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)
