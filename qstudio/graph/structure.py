"""The order of a graph's nodes."""

from __future__ import annotations

import onnx

from qstudio.core.errors import UserError


def sorted_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes so that each comes after those it depends on, in the file's order where that already holds.

    Raises:
        UserError: when a tensor is written twice, is written by nobody, or the nodes form a cycle.
    """
    known = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    known |= {i.name for i in graph.input} | {""}
    producer: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        for name in node.output:
            if not name:
                continue
            if name in producer or name in known:
                raise UserError(f"the tensor {name!r} is written twice", _label(node), "Give each tensor one name")
            producer[name] = node
    waiting = list(graph.node)
    done: list[onnx.NodeProto] = []
    while waiting:
        later: list[onnx.NodeProto] = []
        for node in waiting:
            needed = needed_names(node)
            if needed <= known:
                done.append(node)
                known.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            lost = sorted(n for n in needed_names(later[0]) - known if n not in producer)
            if lost:
                raise UserError(f"the tensor {lost[0]!r} is read but written by no node", _label(later[0]))
            raise UserError("the nodes form a cycle", _label(later[0]), "A model must run from inputs to outputs")
        waiting = later
    return done


def needed_names(node: onnx.NodeProto) -> set[str]:
    """Return the tensors a node reads, those that its subgraphs (If, Loop, Scan) take from outside included."""
    names = {n for n in node.input if n}
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            inside = {t.name for t in graph.initializer} | {i.name for i in graph.input}
            inside |= {name for inner in graph.node for name in inner.output}
            names |= {n for inner in graph.node for n in needed_names(inner)} - inside
            names |= {o.name for o in graph.output} - inside
    return {n for n in names if n}


def _label(node: onnx.NodeProto) -> str:
    return node.name or f"{node.op_type} node"
