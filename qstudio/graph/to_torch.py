"""Translate an ONNX model into a torch.fx.GraphModule that can be run node by node and trained."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import torch
from torch import fx

from qstudio.core.errors import UserError
from qstudio.graph import ops
from qstudio.graph.operators import node_label, operator_key, unsupported_operators
from qstudio.graph.structure import sorted_nodes
from qstudio.graph.translation import TRANSLATIONS, GraphBuilder, NodeView, Unsupported

assert ops.__all__, "importing the package fills the table"


@dataclass(frozen=True)
class Translated:
    """A model in torch, with the way back to its ONNX names.

    Attributes:
        module: The graph, in eval mode. Layers are submodules named after their ONNX nodes; they keep their parameters
            in ONNX's layout, so that channel axes are ONNX's.
        inputs: ONNX names of the inputs, in the order of the module's arguments (initializers left out).
        outputs: ONNX names of the outputs, in the order of the tuple that the module returns.
        tensor_of: Name of an fx node to the ONNX tensor it computes. Each placeholder, each get_attr and each node that
            stands for an ONNX output is listed; a node that returns a tuple is not, its `getitem` nodes are.
        node_of: Name of an fx node to the name of the ONNX node it came from (getitem nodes and tuples included).
        parameter_of: Name of an initializer to the qualified name of the parameter or buffer that holds it. An
            initializer used by several layers is one shared parameter, listed under its first name.
        unsupported: (node name, operator, reason) of what was left out; empty unless a partial translation was asked
            for.
    """

    module: fx.GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensor_of: dict[str, str]
    node_of: dict[str, str]
    parameter_of: dict[str, str]
    unsupported: tuple[tuple[str, str, str], ...] = ()


def to_torch(proto: onnx.ModelProto, *, partial: bool = False) -> Translated:
    """Translate an ONNX model into torch.

    Args:
        proto: The model, usually from `prepare`; raw models of opset 7 to 25 are translated too. It is not changed.
        partial: Leave nodes without a translation out, together with what depends on them and the outputs that are lost
            with them, instead of raising.

    Returns:
        The graph module with its name maps.

    Raises:
        UserError: for an operator without a translation (naming operator and node), and for a node that cannot be
            translated because the model is damaged.
    """
    missing = {name: (op_type, reason) for name, op_type, reason in unsupported_operators(proto)}
    if missing and not partial:
        raise _refusal(next(iter(missing)), *next(iter(missing.values())))
    builder = GraphBuilder(proto)
    inputs = _placeholders(builder, proto)
    left_out: list[tuple[str, str, str]] = []
    for node in sorted_nodes(proto.graph):
        label = node_label(node)
        if label in missing:
            left_out.append((label, *missing[label]))
            continue
        if partial and any(i and i not in builder.values and i not in builder.initializers for i in node.input):
            left_out.append((label, operator_key(node), "it depends on a part that is not supported"))
            continue
        try:
            _translate(builder, node)
        except Unsupported as reason:
            if not partial:
                raise _refusal(label, operator_key(node), str(reason)) from reason
            left_out.append((label, operator_key(node), str(reason)))
        except UserError:
            raise
        except Exception as error:
            text = f"the {node.op_type} node cannot be translated ({type(error).__name__}: {_first_line(error)})"
            raise UserError(text, label, "Check the model with onnx.checker") from error
    return _finish(builder, proto, inputs, tuple(left_out), partial)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160]


def _refusal(label: str, op_type: str, reason: str) -> UserError:
    return UserError(
        f"the operator {op_type} is not supported here: {reason}",
        label,
        "Replace it in the model, or open it for looking only",
    )


def _placeholders(builder: GraphBuilder, proto: onnx.ModelProto) -> list[str]:
    names: list[str] = []
    for value in proto.graph.input:
        if value.name in builder.initializers or value.name in builder.values:
            continue
        node = builder.graph.create_node("placeholder", builder.attribute_name(value.name))
        builder.values[value.name] = node
        builder.tensor_of[node.name] = value.name
        builder.element_types[value.name] = value.type.tensor_type.elem_type
        names.append(value.name)
    return names


def _translate(builder: GraphBuilder, node: onnx.NodeProto) -> None:
    """Write one ONNX node into the graph and note which tensors its fx nodes compute."""
    if operator_key(node) == "Constant":
        builder.add_constant(node)
        return
    for name in node.input:
        if name and name not in builder.values and name not in builder.initializers:
            raise UserError(f"the input {name!r} is not computed anywhere", node_label(node), "The model is damaged")
    before = len(builder.graph.nodes)
    result = TRANSLATIONS[operator_key(node)](NodeView(builder, node))
    for fx_node in list(builder.graph.nodes)[before:]:
        if fx_node.op in ("call_function", "call_module"):
            builder.node_of[fx_node.name] = node_label(node)
    computed = result if isinstance(result, tuple) else (result,)
    for index, name in enumerate(node.output):
        if not name:
            continue
        if index >= len(computed) or computed[index] is None:
            raise Unsupported(f"its output {index}")
        value = computed[index]
        assert value is not None
        builder.values[name] = value
        builder.tensor_of[value.name] = name
    builder.note_element_types(node)


def _finish(
    builder: GraphBuilder,
    proto: onnx.ModelProto,
    inputs: list[str],
    left_out: tuple[tuple[str, str, str], ...],
    partial: bool,
) -> Translated:
    outputs: list[str] = []
    for value in proto.graph.output:
        if value.name in builder.values or value.name in builder.initializers:
            outputs.append(value.name)
        elif not partial:
            raise UserError(f"the output {value.name!r} is not computed by any node", "", "The model is damaged")
    try:
        builder.graph.output(tuple(builder.value(name) for name in outputs))
        module = fx.GraphModule(builder.root, builder.graph)
        module.eval()
        builder.graph.lint()
    except Exception as error:
        text = f"the graph cannot be put together ({type(error).__name__}: {_first_line(error)})"
        raise UserError(text, proto.graph.name, "Check the model with onnx.checker") from error
    return Translated(
        module=module,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        tensor_of=dict(builder.tensor_of),
        node_of=dict(builder.node_of),
        parameter_of=dict(builder.parameter_of),
        unsupported=left_out,
    )


def run(translated: Translated, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run a translated model on named inputs and return its named outputs, without gradients."""
    with torch.no_grad():
        results = translated.module(*[feeds[name] for name in translated.inputs])
    return dict(zip(translated.outputs, results, strict=True))
