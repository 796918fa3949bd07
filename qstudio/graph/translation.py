"""What a translation sees of one ONNX node, and the table of translations.

A translation is a function that takes a `NodeView` and returns the torch.fx node that computes the ONNX node's output
(or a tuple of fx nodes, one for each ONNX output). It is entered in `TRANSLATIONS` under the operator's name:

    @translates("Relu")
    def relu(view: NodeView) -> fx.Node:
        return view.call(torch.relu, view.tensor(0))

A translation that cannot express a combination of attributes raises `Unsupported` with the reason in plain words.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from qstudio.graph.operators import constant_tensor
from qstudio.graph.torch_dtypes import as_torch

FxValue = fx.Node | tuple["fx.Node | None", ...]
Translation = Callable[["NodeView"], "FxValue"]

TRANSLATIONS: dict[str, Translation] = {}
"""Operator name ("Conv", or "domain::Op" outside the ONNX domain) to its translation."""

_LARGEST_BAKED_CONSTANT = 65536


class Unsupported(Exception):  # noqa: N818 - a state of the model, not a fault
    """Say why a node has no translation."""


def translates(*op_types: str) -> Callable[[Translation], Translation]:
    """Enter the decorated function in the table under the given operator names."""

    def enter(function: Translation) -> Translation:
        for op_type in op_types:
            TRANSLATIONS[op_type] = function
        return function

    return enter


class GraphBuilder:
    """Hold what the translations of one model write into: the fx graph, the root module and the name maps."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.root.eval()
        self.opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self.initializers = {t.name: t for t in proto.graph.initializer}
        self.values: dict[str, fx.Node] = {}
        self.tensor_of: dict[str, str] = {}
        self.node_of: dict[str, str] = {}
        self.parameter_of: dict[str, str] = {}
        self.element_types: dict[str, int] = {name: t.data_type for name, t in self.initializers.items()}
        self._shared: dict[str, nn.Parameter | torch.Tensor] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._taken: set[str] = set(dir(nn.Module())) | {"module", "code", "graph"}

    def attribute_name(self, name: str) -> str:
        """Return an unused Python attribute name that resembles an ONNX name."""
        base = re.sub(r"\W+", "_", name).strip("_") or "value"
        if base[0].isdigit():
            base = f"n{base}"
        candidate, count = base, 1
        while candidate in self._taken:
            candidate = f"{base}_{count}"
            count += 1
        self._taken.add(candidate)
        return candidate

    def add_constant(self, node: onnx.NodeProto) -> None:
        """Take a Constant node in as an initializer."""
        tensor = constant_tensor(node)
        if tensor is None:
            raise Unsupported("a sparse or text constant")
        self.initializers[node.output[0]] = tensor
        self.element_types[node.output[0]] = tensor.data_type

    def note_element_types(self, node: onnx.NodeProto) -> None:
        """Remember the element type of what a Cast or QuantizeLinear writes, and pass it through renames."""
        attributes = {a.name: a for a in node.attribute}
        if node.op_type == "Cast" and "to" in attributes:
            self.element_types[node.output[0]] = attributes["to"].i
        elif node.op_type in ("Identity", "Reshape", "Squeeze", "Unsqueeze") and node.input[0] in self.element_types:
            self.element_types[node.output[0]] = self.element_types[node.input[0]]

    def array(self, name: str) -> np.ndarray | None:
        """Return a constant tensor as numpy, or None when the tensor is not constant."""
        if name not in self.initializers:
            return None
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self.initializers[name])
        return self._arrays[name]

    def torch_constant(self, name: str) -> torch.Tensor:
        """Return a constant tensor in torch; the same object each time, so that shared weights stay shared."""
        if name not in self._shared:
            array = self.array(name)
            if array is None:
                raise Unsupported(f"the tensor {name!r} is not a constant")
            self._shared[name] = as_torch(array)
        return self._shared[name]

    def parameter(self, name: str) -> nn.Parameter:
        """Return a constant tensor as a trainable parameter; shared by all layers that use it."""
        tensor = self.torch_constant(name)
        if not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
            self._shared[name] = tensor
        return tensor

    def value(self, name: str) -> fx.Node:
        """Return the fx node of an ONNX tensor; an initializer becomes a buffer that is fetched by get_attr."""
        if name in self.values:
            return self.values[name]
        tensor = self.torch_constant(name)
        if name in self.parameter_of:
            qualified = self.parameter_of[name]
        else:
            qualified = self.attribute_name(name)
            if isinstance(tensor, nn.Parameter):
                self.root.register_parameter(qualified, tensor)
            else:
                self.root.register_buffer(qualified, tensor)
            self.parameter_of[name] = qualified
        node = self.graph.create_node("get_attr", qualified, name=re.sub(r"\W+", "_", qualified))
        self.values[name] = node
        self.tensor_of[node.name] = name
        return node


class NodeView:
    """Show one ONNX node to its translation: attributes, inputs, constants, and ways to write fx nodes."""

    def __init__(self, builder: GraphBuilder, node: onnx.NodeProto) -> None:
        self.builder = builder
        self.node = node
        self.op_type = node.op_type
        self.opset = builder.opset
        self.inputs = list(node.input)
        self.outputs = list(node.output)
        self._attributes = {a.name: a for a in node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute as a plain Python value (text decoded, tensors as numpy)."""
        if name not in self._attributes:
            return default
        value = onnx.helper.get_attribute_value(self._attributes[name])
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, onnx.TensorProto):
            return numpy_helper.to_array(value)
        if isinstance(value, (str, int, float)):
            return value
        if isinstance(value, Iterable):
            return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        return value

    def has(self, index: int) -> bool:
        """Tell whether the optional input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def wants(self, index: int) -> bool:
        """Tell whether the optional output is asked for."""
        return index < len(self.outputs) and self.outputs[index] != ""

    def tensor(self, index: int) -> fx.Node:
        """Return an input as an fx node; raises Unsupported when it is not given."""
        if not self.has(index):
            raise Unsupported(f"input {index} is missing")
        return self.builder.value(self.inputs[index])

    def optional(self, index: int) -> fx.Node | None:
        """Return an input as an fx node, or None when it is not given."""
        return self.builder.value(self.inputs[index]) if self.has(index) else None

    def constant(self, index: int) -> np.ndarray | None:
        """Return an input's value when it is an initializer, else None."""
        return self.builder.array(self.inputs[index]) if self.has(index) else None

    def is_layer_weight(self, index: int) -> bool:
        """Tell whether an input is a floating-point initializer, which can become a layer's parameter."""
        if not self.has(index) or self.inputs[index] not in self.builder.initializers:
            return False
        return self.builder.torch_constant(self.inputs[index]).is_floating_point()

    def numbers(self, index: int) -> Any:
        """Return an input as Python numbers when it is constant and small, else as an fx node; None when not given.

        Shapes, axes, pads and the like are written into the graph as numbers, so that the graph can be read.
        """
        array = self.constant(index)
        if array is not None and array.size <= _LARGEST_BAKED_CONSTANT:
            return array.tolist()
        return self.optional(index)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Write a function call and name it after the node's first output."""
        name = re.sub(r"\W+", "_", next((o for o in self.outputs if o), self.op_type)).strip("_") or "value"
        if name[0].isdigit():
            name = f"n{name}"
        return self.builder.graph.create_node("call_function", function, args, kwargs, name=name)

    def layer(self, module: nn.Module, weights: dict[str, int], *args: fx.Node) -> fx.Node:
        """Write a layer: a module that owns the parameters found at the given inputs.

        Args:
            module: The layer without its tensors.
            weights: Attribute of the module to input index. An attribute that the module lists in `buffer_names`
                becomes a buffer, all others become parameters.
            *args: What the layer is called with.

        Returns:
            The call_module node.
        """
        qualified = self.builder.attribute_name(self.node.name or self.outputs[0])
        for attribute, index in weights.items():
            name = self.inputs[index]
            if attribute in getattr(module, "buffer_names", ()):
                module.register_buffer(attribute, self.builder.torch_constant(name).detach().clone())
            else:
                module.register_parameter(attribute, self.builder.parameter(name))
            self.builder.parameter_of.setdefault(name, f"{qualified}.{attribute}")
        module.eval()
        self.builder.root.add_module(qualified, module)
        return self.builder.graph.create_node("call_module", qualified, args, {}, name=qualified)

    def items(self, node: fx.Node, count: int | None = None) -> tuple[fx.Node | None, ...]:
        """Split a node that returns a tuple into one fx node for each ONNX output."""
        result: list[fx.Node | None] = []
        for index in range(len(self.outputs) if count is None else count):
            if not self.wants(index):
                result.append(None)
                continue
            name = re.sub(r"\W+", "_", self.outputs[index]).strip("_") or "value"
            name = f"n{name}" if name[0].isdigit() else name
            result.append(
                self.builder.graph.create_node("call_function", operator.getitem, (node, index), {}, name=name)
            )
        return tuple(result)
