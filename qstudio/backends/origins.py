"""Which nodes of a file a kernel of onnxruntime's optimised graph computes."""

from __future__ import annotations

import re

import onnx

HEAVY = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "LSTM", "GRU", "RNN")
"""Operators that multiply and accumulate, in float."""
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


def own_name(name: str) -> str:
    """Return a node's name without what onnxruntime adds to it ("conv1_token_4", "fused conv1", "relu1_nchwc")."""
    return re.sub(r"(_token_\d+|_nchwc|_nhwc|/duplicated)+$", "", name.removeprefix("fused "))


class Origins:
    """Finds the nodes of a file that a kernel computes: by its name, or back from the tensor that it is named after.

    Kernels are to be asked about in the order in which they run: what an earlier one computes, a later one reads.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._nodes = {node.name: node for node in proto.graph.node if node.name}
        self._producer = {name: node for node in proto.graph.node for name in node.output if name}
        self._claimed: set[str] = set()

    def of(self, name: str, operator: str) -> tuple[str, ...]:
        """Return names of nodes, the first computed first; empty for what is not in the file.

        Args:
            name: Of the kernel, through `own_name`.
            operator: Of the kernel.
        """
        if name in self._nodes:
            found = [name]
        elif name in self._producer:
            found = self._back(self._producer[name], operator)
        else:
            found = []
        self._claimed.update(found)
        return tuple(found)

    def main(self, name: str, operator: str) -> str:
        """Return the node that the kernel is there for: the one that multiplies and accumulates, else the last one.

        What is not in the file is returned as it is called.
        """
        found = self.of(name, operator)
        heavy = [node for node in found if self._nodes[node].op_type in HEAVY]
        return (heavy or [*found])[-1] if found else name

    def _back(self, node: onnx.NodeProto, operator: str) -> list[str]:
        """Return the unclaimed nodes from the one that the kernel is named after back to that of its operator."""
        found: list[str] = []
        waiting = [node]
        while waiting:
            node = waiting.pop(0)
            if not node.name or node.name in self._claimed or node.name in found or node.op_type in CONVERSIONS:
                continue
            found.insert(0, node.name)
            if node.op_type == operator or operator not in HEAVY:
                break
            waiting += [self._producer[name] for name in node.input if name in self._producer]
        return found
