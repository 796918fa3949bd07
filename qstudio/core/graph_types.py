"""A model's graph as plain values, for the window and the session: no onnx, no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorInfo:
    """What is known of one tensor.

    Attributes:
        name: The tensor's ONNX name.
        dtype: ONNX's word in lower case ("float", "int64"), empty when not known.
        shape: Sizes, with None for a dynamic one; None when not even the rank is known.
        value: The number in a floating-point constant of one element; None for every other tensor.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    value: float | None = None

    def shape_text(self) -> str:
        """Return the shape as people write it ("? x 3 x 32 x 32"), or an empty text when it is not known."""
        if self.shape is None:
            return ""
        return " x ".join("?" if size is None else str(size) for size in self.shape) or "scalar"


@dataclass(frozen=True)
class GraphNode:
    """One operator.

    Attributes:
        name: The node's name, unique within the model.
        op_type: The operator ("Conv").
        domain: The operator's domain; empty for ONNX's own.
        inputs: Tensor names, "" for an optional one that is not given.
        outputs: Tensor names, "" for an optional one that is not asked for.
        summary: One line that tells what the operator does ("3x3, 32 -> 64, s2").
        attributes: (name, value as text) of all attributes.
        parameters: Elements in the initializers that this node reads as weights.
        macs: Multiply-accumulates for batch 1; 0 for operators without any, None when shapes are not known.
        unsupported: Why the program cannot run this node; empty when it can.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    summary: str
    attributes: tuple[tuple[str, str], ...]
    parameters: int
    macs: int | None
    unsupported: str = ""


@dataclass(frozen=True)
class GraphDescription:
    """A whole model.

    Attributes:
        name: The graph's name.
        opset: Version of ONNX's own operator set.
        nodes: Operators in the order in which they run.
        tensors: What is known of each tensor, inputs and initializers included, by name.
        initializers: Names of the constant tensors.
        inputs: Names of the inputs (initializers left out).
        outputs: Names of the outputs.
        producer: The tool that wrote the file, where it says so.
    """

    name: str
    opset: int
    nodes: tuple[GraphNode, ...]
    tensors: dict[str, TensorInfo]
    initializers: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    producer: str = ""

    def node(self, name: str) -> GraphNode:
        """Return the node of a name; raises KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def parameters(self) -> int:
        """Return the number of elements in all initializers that nodes read as weights."""
        return sum(node.parameters for node in self.nodes)

    @property
    def macs(self) -> int | None:
        """Return all multiply-accumulates for batch 1, or None when a node's are not known."""
        known = [node.macs for node in self.nodes]
        return None if any(m is None for m in known) else sum(m for m in known if m is not None)
