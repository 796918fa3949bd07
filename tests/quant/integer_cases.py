"""QDQ models of one operator each, and the comparison of their codes with onnxruntime's fused kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from qstudio.backends.ort import make_session, with_outputs
from qstudio.quant.integer.model import IntegerModel

SX = np.float32(0.013)


@dataclass
class Case:
    """A QDQ model in the making, whose input is "x"."""

    seed: int = 0
    nodes: list = field(default_factory=list)
    constants: dict = field(default_factory=dict)

    def __post_init__(self):
        self.random = np.random.default_rng(self.seed)

    def node(self, op_type, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [output], f"{op_type.lower()}_{output}", **attributes))
        return output

    def rounded(self, tensor, scale, zero_point, dtype=np.uint8):
        """Put Q and DQ behind a tensor."""
        self.constants |= {f"{tensor}_s": np.float32(scale), f"{tensor}_z": np.array(zero_point, dtype)}
        grid = [f"{tensor}_s", f"{tensor}_z"]
        self.node("QuantizeLinear", [tensor, *grid], f"{tensor}_q")
        return self.node("DequantizeLinear", [f"{tensor}_q", *grid], f"{tensor}_d")

    def constant(self, name, codes, scale, zero_point=0, axis=0):
        """Add codes with their DQ."""
        scale = np.asarray(scale, np.float32)
        zero = np.full(scale.shape, zero_point, codes.dtype)
        self.constants |= {f"{name}_c": codes, f"{name}_s": scale, f"{name}_z": zero}
        extra = {} if scale.ndim == 0 else {"axis": axis}
        return self.node("DequantizeLinear", [f"{name}_c", f"{name}_s", f"{name}_z"], f"{name}_d", **extra)

    def weight(self, shape, dtype=np.int8, zero_point=0, axis=0, per_channel=True):
        """Add a weight of random codes over the whole range; a list of zero points is one for each channel."""
        low = np.iinfo(dtype).min + (dtype == np.int8)
        codes = self.random.integers(low, np.iinfo(dtype).max + 1, shape).astype(dtype)
        scale = self.random.random(shape[axis]) * 0.01 + 0.002 if per_channel else 0.007
        self.weight_scale = np.asarray(scale, np.float32)
        return self.constant("w", codes, scale, zero_point, axis)

    def bias(self, channels):
        """Add an int32 bias on the grid that belongs to the weight."""
        codes = self.random.integers(-20000, 20000, channels).astype(np.int32)
        return self.constant("b", codes, SX * self.weight_scale)

    def values(self, shape, zero_point, dtype=np.uint8):
        """Return input values that use every code."""
        info = np.iinfo(dtype)
        return ((self.random.integers(info.min, info.max + 1, shape) - zero_point) * SX).astype(np.float32)

    def model(self, output, shape, opset=19):
        graph = helper.make_graph(
            self.nodes,
            "case",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, *shape[1:]])],
            [onnx.ValueInfoProto(name=output)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def conv(shape, out, kernel, groups=1, per_channel=True, bias=True, relu=False, weight=np.int8, wzp=0, **attributes):
    """Return (model, x) of one convolution."""
    case = Case(int(np.prod(shape)) + out)
    zero = int(case.random.integers(0, 256))
    inputs = [case.rounded("x", SX, zero)]
    inputs.append(case.weight((out, shape[1] // groups, *kernel), weight, wzp, 0, per_channel))
    inputs += [case.bias(out)] if bias else []
    case.node("Conv", inputs, "c", kernel_shape=list(kernel), group=groups, **attributes)
    last = case.node("Relu", ["c"], "r") if relu else "c"
    spread = 0.02 * np.sqrt(shape[1] // groups * np.prod(kernel))
    output = case.rounded(last, spread, 0 if relu else int(case.random.integers(0, 256)))
    return case.model(output, shape), case.values(shape, zero)


def product(
    op_type, shape, out, per_channel=True, bias=False, transposed=False, rounds=True, relu=False, weight=np.int8, wzp=0
):
    """Return (model, x) of one Gemm or MatMul with a constant matrix."""
    case = Case(shape[-1] + out)
    zero = int(case.random.integers(0, 256))
    inputs = [case.rounded("x", SX, zero)]
    size, axis = ((out, shape[-1]), 0) if transposed else ((shape[-1], out), 1)
    inputs.append(case.weight(size, weight, wzp, axis, per_channel))
    inputs += [case.bias(out)] if bias else []
    case.node(op_type, inputs, "c", **({"transB": int(transposed)} if op_type == "Gemm" else {}))
    last = case.node("Relu", ["c"], "r") if relu else "c"
    output = case.rounded(last, 0.02 * np.sqrt(shape[-1]), 0 if relu else 110) if rounds else last
    return case.model(output, shape), case.values(shape, zero)


def activations_product(rounds=True):
    """Return (model, x) of a batched MatMul of two activations."""
    shape, case = (2, 3, 8, 33), Case(1)
    case.node("Transpose", ["x"], "t", perm=[0, 1, 3, 2])
    case.node("MatMul", [case.rounded("x", SX, 100), case.rounded("t", 0.012, 90)], "c")
    output = case.rounded("c", 0.25, 130) if rounds else "c"
    return case.model(output, shape), case.values(shape, 100)


def binary(op_type, scales, zeros, other=None, swapped=False, relu=False, shape=(2, 4, 16, 16)):
    """Return (model, x) of a sum or product; `other` is the shape of a constant second operand."""
    case = Case(sum(zeros))
    first = case.rounded("x", scales[0], zeros[0])
    if other is None:
        case.node("Transpose", ["x"], "n", perm=[0, 1, 3, 2])
        second = case.rounded("n", scales[1], zeros[1])
    else:
        second = case.constant("k", case.random.integers(0, 256, other).astype(np.uint8), scales[1], zeros[1])
    case.node(op_type, [second, first] if swapped else [first, second], "c")
    last = case.node("Relu", ["c"], "r") if relu else "c"
    output = case.rounded(last, scales[2], 0 if relu else zeros[2])
    x = (case.random.integers(0, 256, shape) - zeros[0]) * np.float32(scales[0])
    return case.model(output, shape), x.astype(np.float32)


def softmax(scale, zero=0, axis=-1, largest=255, step=SX, shape=(4, 9, 7, 12)):
    """Return (model, x) of a Softmax; few codes give many ties."""
    case = Case(largest)
    case.node("Softmax", [case.rounded("x", step, 0)], "c", axis=axis)
    x = (case.random.integers(0, largest + 1, shape) * np.float32(step)).astype(np.float32)
    return case.model(case.rounded("c", scale, zero), shape), x


def pool(op_type, shape=(3, 5, 9, 11), dtype=np.uint8, zeros=(30, 60), scale=0.009, **attributes):
    """Return (model, x) of one pooling."""
    case = Case(int(np.prod(shape)))
    case.node(op_type, [case.rounded("x", SX, zeros[0], dtype)], "c", **attributes)
    return case.model(case.rounded("c", scale, zeros[1], dtype), shape), case.values(shape, zeros[0], dtype)


@dataclass
class Compared:
    """What a comparison with a fused session brought."""

    model: IntegerModel
    different: dict
    """Tensor -> codes that differ."""
    codes: int
    same_outputs: bool
    kernels: tuple
    """Operators that onnxruntime ran."""
    levels: int
    """Distinct values of the first output."""


def compare(model, x, folder, precise=True, saturating=False):
    """Run a model in onnxruntime, fused, and in integers; compare all codes and the outputs bit by bit."""
    integer = IntegerModel(model, saturating=saturating, threads=1)
    path = str(folder / "optimized.onnx")
    session = make_session(with_outputs(model, integer.codes), threads=1, precise=precise, optimized_path=path)
    wanted = dict(zip([o.name for o in session.get_outputs()], session.run(None, {integer.inputs[0]: x}), strict=True))
    seen = {}
    outputs = integer.run({integer.inputs[0]: torch.from_numpy(x)}, observe=seen.__setitem__)
    assert seen.keys() == set(integer.codes)
    different = {name: int(np.count_nonzero(codes != wanted[name])) for name, codes in seen.items()}
    return Compared(
        integer,
        {name: count for name, count in different.items() if count},
        sum(codes.size for codes in seen.values()),
        all(np.array_equal(values.numpy(), wanted[name]) for name, values in outputs.items()),
        tuple(node.op_type for node in onnx.load(path).graph.node),
        len(np.unique(wanted[integer.outputs[0]])),
    )
