"""Run a translated model node by node, so that every tensor can be seen or replaced by its ONNX name.

Simulation, statistics, cached evaluation and training all stand on this loop. It never changes the module: parameters
are replaced for one run only, and everything stays differentiable.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from qstudio.core.errors import UserError
from qstudio.graph.to_torch import Translated

Observe = Callable[[str, Tensor], None]
Transform = Callable[[str, Tensor], Tensor]
Parameters = Mapping[str | tuple[str, str], Tensor]
"""Replaced parameters: ONNX initializer, or (ONNX node, initializer) for one of several users, to tensor."""
Layers = Mapping[str, Callable[..., Any]]
"""ONNX node to a function that stands in for its layer."""


@dataclass(frozen=True, eq=False)
class Step:
    """One fx node, ready to run."""

    node: fx.Node
    tensor: str
    """ONNX name of the value; empty where it has none (helper nodes)."""
    onnx_node: str
    """Name of the ONNX node the step came from; empty for inputs and constants."""
    parameters: tuple[tuple[str, str], ...]
    """(attribute of the called module, ONNX initializer) pairs that can be replaced."""
    frees: tuple[fx.Node, ...]
    """Values that nothing needs after this step."""


class Executor:
    """Runs a `Translated` model on one device.

    Args:
        translated: What `qstudio.graph.to_torch` made. On another device than the CPU a copy is moved there.
        device: "cpu", "cuda:0", ...

    Raises:
        UserError: The model has parts that cannot run.
    """

    def __init__(self, translated: Translated, device: str | torch.device = "cpu") -> None:
        if translated.unsupported:
            node, op_type, reason = _first_unsupported(translated)
            raise UserError(f"the operator {op_type} cannot run ({reason})", node, "Open another model")
        self.device = torch.device(device)
        module = translated.module
        self.module: fx.GraphModule = module if self.device.type == "cpu" else copy.deepcopy(module).to(self.device)
        self.inputs: tuple[str, ...] = tuple(translated.inputs)
        self.outputs: tuple[str, ...] = tuple(translated.outputs)
        self.steps: tuple[Step, ...] = _plan(self.module, translated)
        self._overwrites: frozenset[fx.Node] = frozenset(s.node for s in self.steps if _may_overwrite(s))
        self.tensors: frozenset[str] = frozenset(step.tensor for step in self.steps if step.tensor)
        """ONNX names that `observe` and `transform` are called with."""

    def run(
        self,
        inputs: Mapping[str, Tensor],
        *,
        observe: Observe | None = None,
        transform: Transform | None = None,
        parameters: Parameters | None = None,
        layers: Layers | None = None,
    ) -> dict[str, Tensor]:
        """Compute the outputs.

        Args:
            inputs: ONNX input name to tensor on this device.
            observe: Called with (ONNX name, value) of every input and computed tensor, after `transform`.
            transform: Called with the same; what it returns takes the tensor's place (return it unchanged to keep it).
            parameters: Tensors used instead of initializers, for this run only.
            layers: Functions called instead of layers, with the layer's inputs, for this run only.

        Returns:
            ONNX output name to tensor.

        Raises:
            UserError: An input is missing.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise UserError("the model input has no value", missing[0], "Choose a dataset with this input")
        values: dict[fx.Node, Any] = {}
        nobody_looks = observe is None and not layers and not torch.is_grad_enabled()
        for step in self.steps:
            if step.node.op == "placeholder":
                value: Any = inputs[step.tensor]
            elif nobody_looks and step.node in self._overwrites:
                value = values[step.node.args[0]].relu_()  # type: ignore[index]
            elif layers is not None and step.node.op == "call_module" and step.onnx_node in layers:
                value = layers[step.onnx_node](*fx.map_arg(step.node.args, values.__getitem__))
            else:
                value = self.execute(step, values, parameters)
            if step.tensor and isinstance(value, Tensor) and step.node.op != "get_attr":
                if transform is not None:
                    value = transform(step.tensor, value)
                if observe is not None:
                    observe(step.tensor, value)
            values[step.node] = value
            for dead in step.frees:
                del values[dead]
        (result,) = (node for node in values if node.op == "output")
        return dict(zip(self.outputs, values[result], strict=True))

    def execute(self, step: Step, values: Mapping[fx.Node, Any], parameters: Parameters | None = None) -> Any:
        """Return the value of one step from the values of the nodes it reads."""
        node = step.node
        if node.op == "get_attr":
            for _, initializer in step.parameters:
                if parameters is not None and initializer in parameters:
                    return parameters[initializer]
            return _attribute(self.module, str(node.target))
        args = fx.map_arg(node.args, values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, values.__getitem__)
        if node.op == "output":
            (result,) = args
            return result if isinstance(result, (tuple, list)) else (result,)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        module = self.module.get_submodule(str(node.target))
        if parameters:
            replaced = self.replaced(step, parameters)
            if replaced:
                return torch.func.functional_call(module, replaced, args, kwargs)
        return module(*args, **kwargs)

    @staticmethod
    def replaced(step: Step, parameters: Parameters) -> dict[str, Tensor]:
        """Return attribute -> tensor for the parameters of a layer that are replaced."""
        found = {}
        for attribute, initializer in step.parameters:
            if (own := (step.onnx_node, initializer)) in parameters:
                found[attribute] = parameters[own]
            elif initializer in parameters:
                found[attribute] = parameters[initializer]
        return found

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold the module in eval mode without gradients, and restore the modes of all its parts afterwards."""
        training = [part for part in self.module.modules() if part.training]
        self.module.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            for part in training:
                part.training = True


def _may_overwrite(step: Step) -> bool:
    """Return whether a step is a Relu that alone, and last, reads what a layer has just computed."""
    node = step.node
    if node.op != "call_function" or node.target is not torch.relu:
        return False
    (source,) = node.args
    return isinstance(source, fx.Node) and source.op == "call_module" and source in step.frees


def _first_unsupported(translated: Translated) -> tuple[str, str, str]:
    node, op_type, reason = translated.unsupported[0]
    return node, op_type, reason


def _plan(module: fx.GraphModule, translated: Translated) -> tuple[Step, ...]:
    """Return the steps in order, with each value's last use."""
    initializers = {id(_attribute(module, qualified)): name for name, qualified in translated.parameter_of.items()}
    nodes = list(module.graph.nodes)
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for used in node.all_input_nodes:
            last[used] = node
    steps = []
    for node in nodes:
        parameters: list[tuple[str, str]] = []
        if node.op == "get_attr":
            tensor = _attribute(module, str(node.target))
            if id(tensor) in initializers:
                parameters.append(("", initializers[id(tensor)]))
        elif node.op == "call_module":
            part = module.get_submodule(str(node.target))
            for attribute, tensor in (*part.named_parameters(), *part.named_buffers()):
                if id(tensor) in initializers:
                    parameters.append((attribute, initializers[id(tensor)]))
        frees = tuple(used for used in dict.fromkeys(node.all_input_nodes) if last[used] is node)
        if node not in last and node.op != "output":
            frees = (*frees, node)
        tensor, onnx_node = translated.tensor_of.get(node.name, ""), translated.node_of.get(node.name, "")
        steps.append(Step(node, tensor, onnx_node, tuple(parameters), frees))
    return tuple(steps)


def _attribute(module: nn.Module, qualified: str) -> Any:
    """Return a parameter or buffer by its dotted name."""
    owner: Any = module
    for part in qualified.split("."):
        owner = getattr(owner, part)
    return owner
