"""Which operators of a QDQ model compute in integers: onnxruntime's rule for x86, applied to the file itself.

An operator whose data come from DequantizeLinear and whose result goes into one QuantizeLinear is one integer operator
(a Relu or Clip in between that the range of the codes makes superfluous goes away). Gemm and MatMul may also give
values. Conv, Gemm and MatMul take unsigned activations only. Everything else runs as written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from qstudio.quant.integer.arithmetic import Grid
from qstudio.quant.integer.graph import QdqGraph, attribute
from qstudio.quant.integer.operators import (
    IntegerAdd,
    IntegerAveragePool,
    IntegerConv,
    IntegerGlobalAveragePool,
    IntegerMatMul,
    IntegerMul,
    IntegerOperator,
    IntegerProduct,
    IntegerSoftmax,
)
from qstudio.quant.integer.windows import Window


@dataclass(frozen=True, eq=False)
class IntegerStep:
    """One operator computed in integers."""

    node: str
    operator: str
    """ONNX operator type."""
    inputs: tuple[str, ...]
    """Tensors of codes."""
    output: str
    """Tensor of codes, or of values where the operator has no QuantizeLinear behind it."""
    compute: IntegerOperator
    replaced: frozenset[int]
    """Positions of the graph's nodes that it stands for, but for the DequantizeLinear nodes before it."""


def integer_steps(graph: QdqGraph, saturating: bool = False) -> dict[int, IntegerStep]:
    """Return position of the operator's node -> integer operator, in the graph's order.

    Args:
        graph: The model.
        saturating: Let u8 x i8 products saturate as x86 without VNNI does.
    """
    found = {}
    for index, node in enumerate(graph.nodes):
        builder = _BUILDERS.get(node.op_type)
        if builder is None or node.domain not in ("", "ai.onnx"):
            continue
        step = builder(graph, index, node, saturating)
        if step is not None:
            found[index] = step
    return found


def _window(node: onnx.NodeProto, kernel: tuple[int, ...]) -> Window:
    ones = (1,) * len(kernel)
    return Window(
        kernel,
        tuple(attribute(node, "strides", ones)),
        tuple(attribute(node, "dilations", ones)),
        tuple(attribute(node, "pads", ())),
        attribute(node, "auto_pad", "NOTSET"),
        bool(attribute(node, "ceil_mode", 0)),
    )


def _conv(graph: QdqGraph, index: int, node: onnx.NodeProto, saturating: bool) -> IntegerStep | None:
    data, weight, target = graph.activation(node.input[0]), graph.weight(node.input[1], 0), graph.target(index)
    if data is None or weight is None or weight.constant is None or target is None:
        return None
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = graph.bias(node.input[2], weight.constant.shape[0])
        if bias is None:
            return None
    output, grid, taken = target
    if not data.grid.dtype == grid.dtype == np.uint8:
        return None
    compute = IntegerConv(
        data.grid,
        weight.constant.astype(np.int32),
        weight.grid,
        bias,
        grid,
        _window(node, tuple(weight.constant.shape[2:])),
        int(attribute(node, "group", 1)),
        saturating,
    )
    return IntegerStep(node.name, node.op_type, (data.codes,), output, compute, taken)


def _gemm(graph: QdqGraph, index: int, node: onnx.NodeProto, saturating: bool) -> IntegerStep | None:
    transposed = bool(attribute(node, "transB", 0))
    data, weight = graph.activation(node.input[0]), graph.weight(node.input[1], 0 if transposed else 1)
    if data is None or weight is None or weight.constant is None or weight.constant.ndim != 2:
        return None
    if data.grid.dtype != np.uint8:
        return None
    rows = weight.constant if transposed else weight.constant.T
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = graph.bias(node.input[2], rows.shape[0])
        if bias is None or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "alpha", 1.0) != 1.0:
            return None
    found = _output(graph, index, node, data.grid)
    if found is None:
        return None
    output, grid, taken = found
    compute = IntegerProduct(
        data.grid,
        rows.astype(np.int32),
        weight.grid,
        bias,
        grid,
        bool(attribute(node, "transA", 0)),
        float(attribute(node, "alpha", 1.0)),
        saturating,
    )
    return IntegerStep(node.name, node.op_type, (data.codes,), output, compute, taken)


def _matmul(graph: QdqGraph, index: int, node: onnx.NodeProto, saturating: bool) -> IntegerStep | None:
    data = graph.activation(node.input[0])
    found = None if data is None else _output(graph, index, node, data.grid)
    if data is None or found is None or data.grid.dtype != np.uint8:
        return None
    output, grid, taken = found
    weight = graph.weight(node.input[1], -1)
    if weight is not None and weight.constant is not None and weight.constant.ndim == 2:
        rows = weight.constant.T.astype(np.int32)
        compute: IntegerOperator = IntegerProduct(data.grid, rows, weight.grid, None, grid, saturating=saturating)
        return IntegerStep(node.name, node.op_type, (data.codes,), output, compute, taken)
    second = graph.activation(node.input[1])
    if second is None or second.constant is not None:
        return None
    compute = IntegerMatMul((data.grid, second.grid), grid)
    return IntegerStep(node.name, node.op_type, (data.codes, second.codes), output, compute, taken)


def _output(
    graph: QdqGraph, index: int, node: onnx.NodeProto, data: Grid
) -> tuple[str, Grid | None, frozenset[int]] | None:
    """Return where a product goes: into codes of the data's type, or on as values."""
    target = graph.target(index)
    if target is not None:
        return target if target[1].dtype == data.dtype else None
    return (node.output[0], None, frozenset([index])) if graph.is_read_as_values(index) else None


def _binary(graph: QdqGraph, index: int, node: onnx.NodeProto, saturating: bool) -> IntegerStep | None:
    first, second, target = graph.activation(node.input[0]), graph.activation(node.input[1]), graph.target(index)
    if first is None or second is None or target is None:
        return None
    output, grid, taken = target
    if not first.grid.dtype == second.grid.dtype == grid.dtype:
        return None
    kind = IntegerAdd if node.op_type == "Add" else IntegerMul
    compute = kind((first.grid, second.grid), grid)
    return IntegerStep(node.name, node.op_type, (first.codes, second.codes), output, compute, taken)


def _pool(graph: QdqGraph, index: int, node: onnx.NodeProto, saturating: bool) -> IntegerStep | None:
    data, target = graph.activation(node.input[0]), graph.target(index)
    if data is None or data.constant is not None or target is None or data.grid.dtype != target[1].dtype:
        return None
    output, grid, taken = target
    if node.op_type == "GlobalAveragePool":
        compute: IntegerOperator = IntegerGlobalAveragePool((data.grid,), grid)
    else:
        window = _window(node, tuple(attribute(node, "kernel_shape", ())))
        compute = IntegerAveragePool(data.grid, grid, window, bool(attribute(node, "count_include_pad", 0)))
    return IntegerStep(node.name, node.op_type, (data.codes,), output, compute, taken)


def _softmax(graph: QdqGraph, index: int, node: onnx.NodeProto, saturating: bool) -> IntegerStep | None:
    data, target = graph.activation(node.input[0]), graph.target(index)
    if data is None or target is None or graph.opset < 13:
        return None
    output, grid, taken = target
    if not data.grid.dtype == grid.dtype == np.uint8:
        return None
    compute = IntegerSoftmax(data.grid, grid, int(attribute(node, "axis", -1)))
    return IntegerStep(node.name, node.op_type, (data.codes,), output, compute, taken)


_BUILDERS = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _binary,
    "Mul": _binary,
    "AveragePool": _pool,
    "GlobalAveragePool": _pool,
    "Softmax": _softmax,
}
