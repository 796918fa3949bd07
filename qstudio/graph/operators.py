"""Operators by name: which have a translation, how nodes are called. No torch: opening a model does without it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

SUPPORTED = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "AffineGrid",
        "And",
        "ArgMax",
        "ArgMin",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Attention",
        "AveragePool",
        "BatchNormalization",
        "BitCast",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Cast",
        "CastLike",
        "Ceil",
        "Celu",
        "CenterCropPad",
        "Clip",
        "Col2Im",
        "Compress",
        "Concat",
        "ConstantOfShape",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "Cos",
        "Cosh",
        "CumProd",
        "CumSum",
        "DepthToSpace",
        "DequantizeLinear",
        "Det",
        "Div",
        "Dropout",
        "DynamicQuantizeLinear",
        "Einsum",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "EyeLike",
        "Flatten",
        "Floor",
        "GRU",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "Greater",
        "GreaterOrEqual",
        "GridSample",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Hardmax",
        "Identity",
        "InstanceNormalization",
        "IsInf",
        "IsNaN",
        "LRN",
        "LSTM",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "LpPool",
        "MatMul",
        "MatMulInteger",
        "Max",
        "MaxPool",
        "MaxUnpool",
        "Mean",
        "MeanVarianceNormalization",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "PRelu",
        "Pad",
        "Pow",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
        "RMSNormalization",
        "RNN",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Resize",
        "ReverseSequence",
        "RoiAlign",
        "RotaryEmbedding",
        "Round",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Selu",
        "Shape",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Softsign",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Swish",
        "Tan",
        "Tanh",
        "TensorScatter",
        "ThresholdedRelu",
        "Tile",
        "TopK",
        "Transpose",
        "Trilu",
        "Unique",
        "Unsqueeze",
        "Upsample",
        "Where",
        "Xor",
    ]
)
"""Keys of `qstudio.graph.translation.TRANSLATIONS`; a test holds the two together."""


def operator_key(node: onnx.NodeProto) -> str:
    """Return the key under which the table knows the node's operator."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return what a Constant node holds as a tensor named after its output; None for sparse and text values."""
    for attribute in node.attribute:
        if attribute.name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
            return None if tensor.data_type == onnx.TensorProto.STRING else tensor
        if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
            dtype = np.float32 if "float" in attribute.name else np.int64
            value = np.array(onnx.helper.get_attribute_value(attribute), dtype=dtype)
            return numpy_helper.from_array(value, node.output[0])
    return None


def node_label(node: onnx.NodeProto) -> str:
    """Return a node's name, or a description by its first output where it has none."""
    return node.name or f"{node.op_type}_{next((o for o in node.output if o), 'without_output')}"


def unsupported_operators(proto: onnx.ModelProto) -> tuple[tuple[str, str, str], ...]:
    """Name every node whose operator has no translation, as (node name, operator, reason).

    This looks at names only, so it is quick and needs neither weights nor torch; a translation may still refuse a
    combination of attributes, which `to_torch` then reports in the same words.
    """
    return tuple(
        (node_label(node), operator_key(node), "the operator has no translation")
        for node in proto.graph.node
        if operator_key(node) not in SUPPORTED
        and not (operator_key(node) == "Constant" and any(a.name != "value_string" for a in node.attribute))
    )
