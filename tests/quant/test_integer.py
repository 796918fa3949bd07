"""Every integer operator against onnxruntime's fused kernel: all codes equal, saturation of old processors included."""

from __future__ import annotations

import numpy as np
import pytest
from integer_cases import activations_product, binary, compare, conv, pool, product, softmax

from qstudio.core.processor import processor
from qstudio.quant.verify import saturates

X86 = processor()[1][:1] == ("x86",)
pytestmark = pytest.mark.skipif(not X86, reason="the formulas are those of onnxruntime's kernels for x86")

SAME = {"pads": [1, 1, 1, 1]}
CASES = {
    "conv": ("QLinearConv", lambda: conv((4, 8, 9, 9), 16, (3, 3), **SAME)),
    "conv strided, uneven pads, per tensor": (
        "QLinearConv",
        lambda: conv((4, 8, 9, 9), 16, (3, 3), per_channel=False, pads=[0, 1, 2, 1], strides=[2, 1]),
    ),
    "conv dilated, without bias": (
        "QLinearConv",
        lambda: conv((4, 3, 9, 9), 5, (5, 3), bias=False, dilations=[1, 2]),
    ),
    "conv grouped, Relu": ("QLinearConv", lambda: conv((4, 8, 9, 9), 12, (3, 3), groups=4, relu=True, **SAME)),
    "depthwise": ("QLinearConv", lambda: conv((4, 16, 9, 9), 16, (3, 3), groups=16, **SAME)),
    "depthwise, odd, per tensor, Relu": (
        "QLinearConv",
        lambda: conv((4, 17, 9, 9), 17, (3, 3), groups=17, per_channel=False, relu=True, **SAME),
    ),
    "depthwise, two outputs each": ("QLinearConv", lambda: conv((4, 8, 9, 9), 16, (3, 3), groups=8, **SAME)),
    "depthwise, SAME_UPPER": (
        "QLinearConv",
        lambda: conv((4, 16, 9, 9), 16, (5, 5), groups=16, auto_pad="SAME_UPPER", strides=[2, 2]),
    ),
    "pointwise": ("QLinearConv", lambda: conv((4, 7, 9, 9), 33, (1, 1))),
    "one dimension": ("QLinearConv", lambda: conv((3, 6, 20), 9, (4,), pads=[1, 2], strides=[2])),
    "three dimensions": ("QLinearConv", lambda: conv((2, 4, 5, 6, 7), 6, (2, 3, 2))),
    "conv, long sums": ("QLinearConv", lambda: conv((1, 512, 4, 4), 8, (3, 3), **SAME)),
    "conv, unsigned weights": (
        "QLinearConv",
        lambda: conv((4, 8, 9, 9), 16, (3, 3), per_channel=False, weight=np.uint8, wzp=117, **SAME),
    ),
    "depthwise, unsigned weights": (
        "QLinearConv",
        lambda: conv((4, 16, 9, 9), 16, (3, 3), groups=16, per_channel=False, weight=np.uint8, wzp=117),
    ),
    "depthwise, a zero point for each channel": (
        "QLinearConv",
        lambda: conv((4, 16, 9, 9), 16, (3, 3), groups=16, wzp=np.arange(-40, 40, 5), **SAME),
    ),
    "Gemm": ("QGemm", lambda: product("Gemm", (7, 40), 16, bias=True, transposed=True)),
    "Gemm per tensor, Relu": ("QGemm", lambda: product("Gemm", (60, 41), 3, False, True, relu=True)),
    "Gemm, one row, no bias": ("QGemm", lambda: product("Gemm", (1, 40), 64)),
    "Gemm to values": ("QGemm", lambda: product("Gemm", (7, 40), 16, bias=True, rounds=False)),
    "Gemm, long sums": ("QGemm", lambda: product("Gemm", (3, 2001), 16, bias=True)),
    "Gemm, unsigned weights": ("QGemm", lambda: product("Gemm", (7, 40), 16, False, True, weight=np.uint8, wzp=120)),
    "MatMul": ("QLinearMatMul", lambda: product("MatMul", (2, 5, 40), 16)),
    "MatMul per tensor": ("QLinearMatMul", lambda: product("MatMul", (2, 3, 5, 40), 16, per_channel=False)),
    "MatMul to values": ("MatMulIntegerToFloat", lambda: product("MatMul", (7, 40), 16, rounds=False)),
    "MatMul of activations": ("QLinearMatMul", activations_product),
    "MatMul of activations to values": ("MatMulIntegerToFloat", lambda: activations_product(rounds=False)),
    "Add": ("QLinearAdd", lambda: binary("Add", (0.0113, 0.0297, 0.0171), (13, 200, 77))),
    "Add, Relu, ties": ("QLinearAdd", lambda: binary("Add", (0.01, 0.015, 0.02), (128, 100, 0), relu=True)),
    "Add of a channel": (
        "QLinearAdd",
        lambda: binary("Add", (0.011213209, 0.013216233, 0.012729358), (137, 217, 232), (4, 1, 1)),
    ),
    "Add to a channel": (
        "QLinearAdd",
        lambda: binary("Add", (0.06939627, 0.01659011, 0.024813551), (67, 98, 32), (4, 1, 1), swapped=True),
    ),
    "Add of a row": ("QLinearAdd", lambda: binary("Add", (0.02, 0.03, 0.04), (67, 98, 32), (16,))),
    "Mul": ("QLinearMul", lambda: binary("Mul", (0.011, 0.023, 0.03), (13, 200, 77))),
    "Mul with a channel": ("QLinearMul", lambda: binary("Mul", (0.011, 0.023, 0.03), (13, 200, 77), (4, 1, 1))),
    "AveragePool": ("QLinearAveragePool", lambda: pool("AveragePool", kernel_shape=[2, 2], strides=[2, 2])),
    "AveragePool, padded": ("QLinearAveragePool", lambda: pool("AveragePool", kernel_shape=[3, 3], **SAME)),
    "AveragePool, padding counts": (
        "QLinearAveragePool",
        lambda: pool("AveragePool", kernel_shape=[3, 3], count_include_pad=1, strides=[2, 2], **SAME),
    ),
    "AveragePool, ceiling": (
        "QLinearAveragePool",
        lambda: pool("AveragePool", kernel_shape=[3, 2], ceil_mode=1, strides=[2, 2]),
    ),
    "AveragePool of everything, signed": (
        "QLinearAveragePool",
        lambda: pool("AveragePool", (9, 5, 9, 11), np.int8, (3, -4), 0.003, kernel_shape=[9, 11]),
    ),
    "Softmax": ("QLinearSoftmax", lambda: softmax(1 / 256)),
    "Softmax, ties, another axis": ("QLinearSoftmax", lambda: softmax(1 / 32, axis=1, largest=15, step=0.25)),
    "Softmax, small range, zero point": ("QLinearSoftmax", lambda: softmax(0.3 / 255, 3, axis=2)),
    "Softmax, scale without whole inverse": ("QLinearSoftmax", lambda: softmax(1 / 255.5)),
    "GlobalAveragePool": (
        "QLinearGlobalAveragePool",
        lambda: pool("GlobalAveragePool", (3, 17, 8, 8), zeros=(128, 120), scale=0.003),
    ),
    "GlobalAveragePool, signed": (
        "QLinearGlobalAveragePool",
        lambda: pool("GlobalAveragePool", (9, 5, 33), np.int8, (3, -4), 0.003),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_code_equals_the_fused_kernels(name, tmp_path):
    kernel, build = CASES[name]
    model, x = build()
    result = compare(model, x, tmp_path)
    assert kernel in result.kernels
    assert len(result.model.steps) == 1
    assert result.codes >= x.size
    assert result.levels > 16
    assert not result.different
    assert result.same_outputs


@pytest.mark.parametrize("name", [name for name, (kernel, _) in CASES.items() if kernel not in ("QLinearAdd",)])
@pytest.mark.skipif(not saturates(), reason="this processor adds products in 32 bits")
def test_saturating_kernels_are_simulated_to_the_last_bit(name, tmp_path):
    model, x = CASES[name][1]()
    result = compare(model, x, tmp_path, precise=False, saturating=True)
    assert not result.different
    assert result.same_outputs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv", True),
        ("depthwise", False),
        ("depthwise, two outputs each", True),
        ("conv, unsigned weights", False),
        ("Gemm", True),
        ("MatMul of activations", False),
    ],
)
def test_only_products_of_u8_and_i8_in_the_general_kernel_saturate(name, expected, tmp_path):
    """With full-range codes everything that can saturate does."""
    model, x = CASES[name][1]()
    result = compare(model, x, tmp_path, saturating=True)
    assert bool(result.model.saturated()) is expected
    if expected:
        assert result.different
        (counted,) = result.model.saturated().values()
        assert 0 < counted.changed < counted.sums


def test_maximum_pooling_compares_codes(tmp_path):
    model, x = pool("MaxPool", scale=0.013, zeros=(30, 30), kernel_shape=[3, 3], **SAME)
    result = compare(model, x, tmp_path)
    assert "MaxPool" in result.kernels
    assert not result.different


def test_sums_beyond_float32_are_exact(tmp_path):
    """Sums of 2^24 and more go through float64, which holds them exactly."""
    model, x = product("Gemm", (3, 4001), 4, bias=True)
    x = np.abs(x)  # all of one sign: the sums grow
    for tensor in model.graph.initializer:
        if tensor.name == "w_c":
            tensor.raw_data = np.full((4001, 4), 113, np.int8).tobytes()
        if tensor.name == "c_s":
            tensor.raw_data = np.float32(20.0).tobytes()
    result = compare(model, x, tmp_path)
    assert "QGemm" in result.kernels
    assert not result.different


def test_operators_that_onnxruntime_keeps_in_float_stay_in_float(tmp_path):
    """A Relu that cuts inside the range of the codes keeps the Conv before it in float."""
    model, x = conv((4, 8, 9, 9), 16, (3, 3), relu=True)
    for tensor in model.graph.initializer:
        if tensor.name == "r_z":
            tensor.raw_data = np.uint8(100).tobytes()
    result = compare(model, x, tmp_path)
    assert "QLinearConv" not in result.kernels
    assert not result.model.steps
    assert result.model.float_layers == ("conv_c",)
