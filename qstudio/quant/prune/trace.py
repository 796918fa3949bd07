"""Follow the channels of every tensor through a graph, operator by operator.

What is not known to treat channels one by one fixes those that it reads: they are never removed.
"""

from __future__ import annotations

import onnx

from qstudio.quant.prune.channels import ChannelMap
from qstudio.quant.prune.layer_rules import follow_convolution, follow_gemm, follow_matmul, follow_normalization
from qstudio.quant.prune.shape_rules import (
    follow_concat,
    follow_flatten,
    follow_pad,
    follow_paired,
    follow_pass,
    follow_reduce,
    follow_resize,
    follow_slice,
    follow_softmax,
    follow_spatial,
    follow_split,
    follow_squeeze,
    follow_transpose,
)
from qstudio.quant.prune.tracer import Rule, Tracer

ONE_BY_ONE = frozenset(
    {
        "Abs",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
    }
)
"""Operators that treat every value by itself."""

SPATIAL = frozenset(["AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"])
"""Operators that treat every channel (axis 1) by itself."""

PAIRED = frozenset(["Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where"])
"""Operators that combine the values at one place of several tensors, with broadcasting."""


RULES: dict[str, Rule] = {
    **dict.fromkeys(ONE_BY_ONE, follow_pass),
    **dict.fromkeys(SPATIAL, follow_spatial),
    **dict.fromkeys(PAIRED, follow_paired),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), follow_reduce),
    "BatchNormalization": follow_normalization,
    "InstanceNormalization": follow_normalization,
    "Concat": follow_concat,
    "Conv": follow_convolution,
    "ConvTranspose": follow_convolution,
    "Flatten": follow_flatten,
    "Gemm": follow_gemm,
    "MatMul": follow_matmul,
    "Pad": follow_pad,
    "Reshape": follow_flatten,
    "Resize": follow_resize,
    "Upsample": follow_resize,
    "Slice": follow_slice,
    "Softmax": follow_softmax,
    "Split": follow_split,
    "Squeeze": follow_squeeze,
    "Unsqueeze": follow_squeeze,
    "Transpose": follow_transpose,
}


def trace_channels(proto: onnx.ModelProto) -> ChannelMap:
    """Return the channels of a prepared model (see `qstudio.graph.prepare`), BatchNormalization folded or not."""
    tracer = Tracer(proto, RULES)
    for number, node in enumerate(proto.graph.node):
        tracer.visit(number, node)
    tracer.finish()
    return tracer.map
