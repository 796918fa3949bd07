"""Insert nodes into an ONNX graph without disturbing the names that are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


class GraphEdit:
    """One editing session on a ModelProto: new nodes are collected and woven in by `finish`.

    The model given is changed; nodes keep their order, new ones stand right behind the tensor they read.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self.initializers = {t.name: t for t in self.graph.initializer}
        self.inputs = [i.name for i in self.graph.input if i.name not in self.initializers]
        self.outputs = {o.name for o in self.graph.output}
        self.nodes = {n.name: n for n in self.graph.node if n.name}
        self.producers = {out: n for n in self.graph.node for out in n.output if out}
        self._names = (
            {n.name for n in self.graph.node} | set(self.initializers) | set(self.producers) | set(self.inputs)
        )
        self._front: list[onnx.NodeProto] = []
        self._behind: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._removed: set[str] = set()
        self._consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
        self._index(self.graph.node)
        self._unread_before = self._unread()

    def _index(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            for position, name in enumerate(node.input):
                if name:
                    self._consumers[name].append((node, position))
            for attribute in node.attribute:
                # Bodies of If, Loop and Scan read tensors of the outer graph by name.
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self._index(attribute.g.node)

    def consumers(self, tensor: str) -> list[tuple[onnx.NodeProto, int]]:
        """Return (node, input position) of every original node that reads a tensor, bodies of If and Loop included."""
        return self._consumers[tensor]

    def constant(self, tensor: str) -> NDArray[Any]:
        """Return the values of an initializer (KeyError when there is none)."""
        return numpy_helper.to_array(self.initializers[tensor])

    def fresh(self, name: str) -> str:
        """Return `name`, or the name with a number behind it when it is taken, and reserve it."""
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def add_initializer(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant under a fresh name and return the name."""
        tensor = numpy_helper.from_array(np.asarray(values, order="C"), self.fresh(name))
        self.graph.initializer.append(tensor)
        return tensor.name

    def add_front(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put nodes that read only constants before all others."""
        self._front.extend(nodes)

    def add_behind(self, tensor: str, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put nodes right behind the producer of `tensor` (an original name), or first for a model input."""
        self._behind[tensor].extend(nodes)

    def rewire(self, tensor: str, replacement: str) -> None:
        """Let every original consumer of `tensor` read `replacement`."""
        for node, position in self._consumers[tensor]:
            node.input[position] = replacement

    def remove_node(self, node: onnx.NodeProto) -> None:
        """Drop an original node."""
        self._removed.add(node.output[0])

    def rename_output(self, tensor: str, name: str) -> None:
        """Let the producer of `tensor` put out `name` instead; the consumers keep reading `tensor`."""
        producer = self.producers[tensor]
        producer.output[list(producer.output).index(tensor)] = name

    def finish(self) -> None:
        """Weave the new nodes in and drop the initializers that nobody reads any more."""
        woven = list(self._front)
        for name in self.inputs:
            woven.extend(self._behind.get(name, ()))
        for node in self.graph.node:
            if node.output and node.output[0] in self._removed:
                continue
            woven.append(node)
            for out in node.output:
                woven.extend(self._behind.get(out, ()))
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in woven]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        gone = self._unread() - self._unread_before
        if gone:
            kept = [t for t in self.graph.initializer if t.name not in gone]
            del self.graph.initializer[:]
            self.graph.initializer.extend(kept)
            named = [i for i in self.graph.input if i.name not in gone]
            del self.graph.input[:]
            self.graph.input.extend(named)

    def _unread(self) -> set[str]:
        """Return the initializers that no node, body or graph output reads."""
        read = set(self.outputs)
        stack = list(self.graph.node)
        while stack:
            node = stack.pop()
            read.update(node.input)
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    stack.extend(attribute.g.node)
                    read.update(o.name for o in attribute.g.output)
        return {t.name for t in self.graph.initializer if t.name not in read}
