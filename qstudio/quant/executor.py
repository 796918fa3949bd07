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
from qstudio.quant.evaluation.steps import called_with, overwritten, rounded
from qstudio.quant.quantizer import Rounder

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
        self._layers: dict[fx.Node, nn.Module] = {
            s.node: self.module.get_submodule(str(s.node.target)) for s in self.steps if s.node.op == "call_module"
        }
        self._tensor_inputs: frozenset[fx.Node] = frozenset(s.node for s in self.steps if _reads_tensors_only(s.node))
        """Nodes whose arguments are values of other nodes and nothing else."""
        self.tensors: frozenset[str] = frozenset(step.tensor for step in self.steps if step.tensor)
        """ONNX names that `observe` and `transform` are called with."""

    def run(
        self,
        inputs: Mapping[str, Tensor],
        *,
        observe: Observe | None = None,
        transform: Transform | None = None,
        rounders: Mapping[str, Rounder] | None = None,
        parameters: Parameters | None = None,
        layers: Layers | None = None,
    ) -> dict[str, Tensor]:
        """Compute the outputs.

        Args:
            inputs: ONNX input name to tensor on this device.
            observe: Called with (ONNX name, value) of every input and computed tensor, after `transform`.
            transform: Called with the same; what it returns takes the tensor's place (return it unchanged to keep it).
            rounders: By ONNX name, as a `transform` that rounds these tensors. Unlike one they may round in place,
                where gradients are off and nothing else looks: the same bits, and less memory to touch.
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
        nobody_looks = observe is None and transform is None and not layers and not torch.is_grad_enabled()
        own: set[fx.Node] = set()
        """Whose values lie in memory that nothing else looks at."""
        for step in self.steps:
            node = step.node
            value: Any = None
            if node.op == "placeholder":
                value = inputs[step.tensor]
            elif layers is not None and node.op == "call_module" and step.onnx_node in layers:
                value = layers[step.onnx_node](*fx.map_arg(node.args, values.__getitem__))
            elif nobody_looks:
                free = own.intersection(step.frees)
                value = overwritten(node, values, free) if free else None
                if value is not None:
                    own.add(node)
            if value is None:
                value = self.execute(step, values, parameters)
                if nobody_looks:
                    read = node.all_input_nodes
                    if _is_new(value, [values[used] for used in read]):
                        own.add(node)
                    else:
                        own.difference_update(read)  # it may be a view of them
            if step.tensor and isinstance(value, Tensor) and node.op != "get_attr":
                if rounders is not None and (rounder := rounders.get(step.tensor)) is not None:
                    value = rounded(rounder, value, node in own)
                    if nobody_looks:
                        own.add(node)
                if transform is not None:
                    value = transform(step.tensor, value)
                if observe is not None:
                    observe(step.tensor, value)
            values[node] = value
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
        if node in self._tensor_inputs:
            args: Any = tuple(values[used] for used in node.args)  # type: ignore[index]
            kwargs: Any = {}
        else:
            args, kwargs = fx.map_arg(node.args, values.__getitem__), fx.map_arg(node.kwargs, values.__getitem__)
        if node.op == "output":
            (result,) = args
            return result if isinstance(result, (tuple, list)) else (result,)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        module = self._layers[node]
        if parameters:
            replaced = self.replaced(step, parameters)
            if replaced:
                return called_with(module, replaced, args, kwargs)
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


def _reads_tensors_only(node: fx.Node) -> bool:
    return not node.kwargs and all(isinstance(used, fx.Node) for used in node.args)


def _is_new(value: Any, inputs: list[Any]) -> bool:
    """Return whether a step's value fills memory of its own: neither a view nor what an input already holds."""
    if not isinstance(value, Tensor) or not inputs or not all(isinstance(used, Tensor) for used in inputs):
        return False
    storage = value.untyped_storage()
    if storage.nbytes() != value.numel() * value.element_size():
        return False
    place = storage.data_ptr()
    return all(used.untyped_storage().data_ptr() != place for used in inputs)


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
