"""The stretches of a graph that do not compute in integers: run by onnxruntime node by node, unoptimised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qstudio.backends.ort import make_session


class AsWritten:
    """Neighbouring nodes, run as the file has them.

    Args:
        model: Whose nodes they are.
        nodes: In order.
        inputs: Tensors they read from others.
        outputs: Tensors that others need from them.
        threads: 0 = all cores.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        nodes: list[onnx.NodeProto],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        threads: int,
    ) -> None:
        self.nodes, self.inputs, self.outputs = nodes, inputs, outputs
        self._model, self._threads = model, threads
        self._sessions: dict[tuple[Any, ...], Any] = {}

    def __call__(self, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name.

        Raises:
            UserError: onnxruntime does not take the nodes.
        """
        given = {name: np.ascontiguousarray(values[name]) for name in self.inputs}
        key = tuple((array.dtype, array.ndim) for array in given.values())
        if key not in self._sessions:
            self._sessions[key] = self._session(given)
        return dict(zip(self.outputs, self._sessions[key].run(list(self.outputs), given), strict=True))

    def _session(self, given: Mapping[str, NDArray[Any]]) -> Any:
        read = {name for node in self.nodes for name in reads(node)}
        graph = helper.make_graph(
            self.nodes,
            "as_written",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
                for name, array in given.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            [tensor for tensor in self._model.graph.initializer if tensor.name in read],
        )
        proto = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        proto.functions.extend(self._model.functions)
        return make_session(proto, threads=self._threads, optimize=False)


def reads(node: onnx.NodeProto) -> list[str]:
    """Return every tensor a node reads, those that the bodies of If, Loop and Scan take from outside included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = {name for body in attribute.g.node for name in body.output}
            inner.update(i.name for i in attribute.g.input)
            inner.update(t.name for t in attribute.g.initializer)
            names += [name for body in attribute.g.node for name in reads(body) if name not in inner]
    return names
