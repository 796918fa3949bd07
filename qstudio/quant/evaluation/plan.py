"""Which values of a graph are worth keeping, whatever the recipe."""

from __future__ import annotations

import operator

from torch import fx, nn

from qstudio.core.graph_types import GraphDescription
from qstudio.quant.executor import Executor, Step


class Plan:
    """The steps of a network with what cached evaluation has to know of each.

    Kept are the values from which a change is computed on: what heavy steps (those with multiply-accumulates or
    parameters) read, what several steps read, and what a heavy step puts into a join, so that a change on one branch
    leaves the other alone. What lies between (a sum before its Relu) costs less to compute than to keep.

    Args:
        executor: Its steps.
        description: Says which ONNX nodes have multiply-accumulates.
    """

    def __init__(self, executor: Executor, description: GraphDescription) -> None:
        self.steps = executor.steps
        macs = {node.name: node.macs for node in description.nodes}
        self._heavy = {
            step.node
            for step in self.steps
            if step.node.op in ("call_function", "call_module")
            and step.node.target is not operator.getitem
            and (step.node.op == "call_module" or macs.get(step.onnx_node) != 0)
        }
        (output,) = (step.node for step in self.steps if step.node.op == "output")
        self.outputs: tuple[fx.Node, ...] = _nodes(output.args[0])
        """Nodes whose values are the model's outputs, in order."""
        self.kept = frozenset(step.node for step in self.steps if self._is_kept(step))
        """Nodes whose values are kept while there is room."""
        self.chains: dict[fx.Node, tuple[fx.Node, ...]] = {node: self._chain(node) for node in self.kept}
        """Kept node -> what is computed for it when all other kept values are there, itself included."""
        self.node_of: dict[str, fx.Node] = {
            step.tensor: step.node for step in self.steps if step.tensor and step.node.op != "get_attr"
        }
        """ONNX tensor -> the node that computes it."""
        self.inputs: dict[fx.Node, tuple[fx.Node, ...]] = {
            step.node: tuple(step.node.all_input_nodes) for step in self.steps
        }
        """Node -> what it reads; fx finds it anew each time it is asked."""
        self.layers: dict[fx.Node, tuple[nn.Module, fx.Node]] = {}
        """Node of a layer that takes one value -> the layer and what it reads."""
        for node in (step.node for step in self.steps if step.node.op == "call_module" and not step.node.kwargs):
            if len(node.args) == 1 and isinstance(node.args[0], fx.Node):
                self.layers[node] = (executor.module.get_submodule(str(node.target)), node.args[0])

    def _is_kept(self, step: Step) -> bool:
        node = step.node
        if node.op in ("get_attr", "output") or node.target is operator.getitem:
            return False
        readers = list(node.users)
        if node.op == "placeholder" or len(readers) > 1 or any(r in self._heavy or r.op == "output" for r in readers):
            return True
        return node in self._heavy and any(r.target is operator.getitem or self._joins(r) for r in readers)

    @staticmethod
    def _joins(node: fx.Node) -> bool:
        return sum(used.op != "get_attr" for used in node.all_input_nodes) > 1

    def _chain(self, node: fx.Node) -> tuple[fx.Node, ...]:
        found = {node}
        stack = list(node.all_input_nodes)
        while stack:
            used = stack.pop()
            if used not in self.kept and used not in found:
                found.add(used)
                stack.extend(used.all_input_nodes)
        return tuple(found)


def _nodes(argument: object) -> tuple[fx.Node, ...]:
    """Return what the graph's output node lists."""
    listed = argument if isinstance(argument, (tuple, list)) else (argument,)
    return tuple(node for node in listed if isinstance(node, fx.Node))
