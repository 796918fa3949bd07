"""Scales and zero points against onnxruntime, torch and AIMET; rounding against onnx's reference, type by type."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import quant_utils
from torch.ao.quantization.observer import PerChannelMinMaxObserver

from qstudio.core.affine import Encoding, dequantize, encode, integer_range, quantize, scale_zero_point
from qstudio.core.encodings import DynamicEncoding, FloatEncoding
from qstudio.core.rounding import dynamic_encoding, round_values
from qstudio.core.scheme import Granularity, Scheme

RANGES = 10_000
INTEGERS = {
    "u8": TensorProto.UINT8,
    "i8": TensorProto.INT8,
    "u16": TensorProto.UINT16,
    "i16": TensorProto.INT16,
    "u4": TensorProto.UINT4,
    "i4": TensorProto.INT4,
    "u2": TensorProto.UINT2,
    "i2": TensorProto.INT2,
}
WITH_FORMULA = [name for name in INTEGERS if INTEGERS[name] in quant_utils.ONNX_INT_TYPE_RANGE]
FLOATS = {"fp8_e4m3": TensorProto.FLOAT8E4M3FN, "fp8_e5m2": TensorProto.FLOAT8E5M2}

DRAWS = {"seed": st.integers(0, 2**32 - 1), "smallest": st.integers(-44, 0), "largest": st.integers(1, 37)}
FEW = settings(max_examples=5, deadline=None)


def ranges(seed, smallest=-30, largest=30, count=RANGES):
    """Return (low, high) float32: magnitudes over many decades; one-sided, empty, equal and unordered by sign."""
    rng = np.random.default_rng(seed)
    ends = 10.0 ** rng.uniform(smallest, largest, (2, count)) * rng.choice([-1, 1, 1, 1, 0], (2, count))
    close = rng.random(count) < 0.5  # half of the ranges have ends of one magnitude: real tensors do
    ends[1] = np.where(close, -ends[0] * rng.uniform(0.01, 3, count), ends[1])
    with np.errstate(under="ignore"):
        ends = ends.astype(np.float32)
    return ends.min(axis=0), ends.max(axis=0)


# -- onnxruntime ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", WITH_FORMULA)
@FEW
@given(**DRAWS)
def test_scale_and_zero_point_equal_onnxruntimes(name, symmetric, seed, smallest, largest):
    low, high = ranges(seed, smallest, largest, RANGES // 10)  # 5 draws of 1,000, both symmetries: 10,000 a type
    qmin, qmax = quant_utils.get_qmin_qmax_for_qType(INTEGERS[name], symmetric=symmetric)
    assert_onnxruntimes(low, high, qmin, qmax, symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", WITH_FORMULA)
def test_reduced_ranges_too(name, symmetric):
    low, high = ranges(7, count=500)
    qmin, qmax = quant_utils.get_qmin_qmax_for_qType(INTEGERS[name], reduce_range=True, symmetric=symmetric)
    assert_onnxruntimes(low, high, qmin, qmax, symmetric)


def assert_onnxruntimes(low, high, qmin, qmax, symmetric):
    scale, zero = scale_zero_point(low, high, int(qmin), int(qmax), symmetric)
    theirs = [quant_utils.compute_scale_zp(a, b, qmin, qmax, symmetric) for a, b in zip(low, high, strict=True)]
    np.testing.assert_array_equal(scale, np.array([s for _, s in theirs], np.float32))
    np.testing.assert_array_equal(zero, np.array([int(z) for z, _ in theirs]))


@pytest.mark.parametrize(
    ("scheme", "name", "symmetric"),
    [
        (Scheme("weight", 8, True), "i8", True),
        (Scheme("weight", 16, True), "i16", True),
        (Scheme("weight", 4, True, format="int:onnxruntime"), "i4", True),
        (Scheme("weight", 8, True, format="int:onnxruntime"), "i8", True),
        (Scheme("weight", 8, False), "i8", False),
        (Scheme("weight", 4, False), "i4", False),
        (Scheme("weight", 16, False), "i16", False),
        (Scheme("activation", 8, False), "u8", False),
        (Scheme("activation", 4, False), "u4", False),
        (Scheme("activation", 16, False), "u16", False),
    ],
)
def test_schemes_have_the_codes_of_onnxruntimes_types(scheme, name, symmetric):
    expected = quant_utils.get_qmin_qmax_for_qType(INTEGERS[name], symmetric=symmetric)
    assert integer_range(scheme) == tuple(int(q) for q in expected)
    low, high = ranges(3, count=100)
    rows = Granularity("channel")
    ours = encode(Scheme(scheme.kind, scheme.bits, symmetric, rows, format=scheme.format), low, high, 0)
    theirs = [quant_utils.compute_scale_zp(a, b, *expected, symmetric) for a, b in zip(low, high, strict=True)]
    np.testing.assert_array_equal(ours.scale, np.array([s for _, s in theirs], np.float32))


def test_reduce_range_is_seven_bits():
    u8 = quant_utils.get_qmin_qmax_for_qType(TensorProto.UINT8, reduce_range=True)
    assert integer_range(Scheme("activation", 7, False)) == tuple(int(q) for q in u8)
    # The signed one has a 129th code, which 7 bits do not: -64..64 beside our -63..63.
    i8 = quant_utils.get_qmin_qmax_for_qType(TensorProto.INT8, reduce_range=True)
    assert tuple(int(q) for q in i8) == (-64, 64)
    assert integer_range(Scheme("weight", 7, True)) == (-63, 63)


# -- torch and AIMET --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", ["weight", "activation"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_torch_convention_is_that_of_its_observers(kind, bits, symmetric):
    scheme = Scheme(kind, bits, symmetric, Granularity("channel"), format="int:torch")
    qmin, qmax = integer_range(scheme)
    observer = PerChannelMinMaxObserver(
        ch_axis=0,
        dtype=torch.quint8 if qmin == 0 else torch.qint8,
        qscheme=torch.per_channel_symmetric if symmetric else torch.per_channel_affine,
        quant_min=qmin,
        quant_max=qmax,
    )
    low, high = ranges(11, -12, 12)
    observer(torch.tensor(np.stack([low, high], axis=1)))
    scale, zero = observer.calculate_qparams()
    ours = encode(scheme, low, high, 0)
    np.testing.assert_array_equal(ours.scale, scale.numpy())
    np.testing.assert_array_equal(ours.zero_point, zero.numpy())
    assert ours.scale.min() == 2.0**-23, "narrow ranges are among them"


def aimet(low, high, bits, symmetric):
    """Return (scale, offset) by the published formulas of aimet_torch 2, one range at a time.

    MinMaxEncodingAnalyzer.compute_encodings_from_stats gives min and max; MinMaxQuantizer.get_scale and get_offset
    follow from them. AIMET's codes start at 0, so its offset is minus the zero point of codes from 0.
    """
    steps = 2**bits - 1
    low, high = torch.clamp(low, max=0), torch.clamp(high, min=0)
    least = torch.finfo(torch.float32).eps
    widen = least if float((high - low) / steps) < least else 0.0
    if symmetric:
        positive, negative = math.floor(steps / 2), math.ceil(steps / 2)
        high, low = high + positive * widen, low - negative * widen
        delta = max(high / positive, -low / negative)
        low, high = -negative * delta, positive * delta
        return float((high - low) / steps), -negative
    high = high + steps * widen
    scale = (high - low) / steps
    return float(scale), int(torch.round(low / scale))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_aimet_convention_is_its_published_formula(bits, symmetric):
    low, high = ranges(13, -10, 10, 1000)
    ours = encode(Scheme("weight", bits, symmetric, Granularity("channel"), format="int:aimet"), low, high, 0)
    theirs = [aimet(a, b, bits, symmetric) for a, b in zip(torch.tensor(low), torch.tensor(high), strict=True)]
    np.testing.assert_array_equal(ours.scale, np.array([s for s, _ in theirs], np.float32))
    # q from 0: q0 = round(x / s) - offset; q from -2^(b-1): q = round(x / s) + z, so z = -offset - 2^(b-1).
    np.testing.assert_array_equal(ours.zero_point, [-offset - 2 ** (bits - 1) for _, offset in theirs])
    if symmetric:
        qmin, qmax = integer_range(Scheme("weight", bits, True, format="int:aimet"))
        wide = (high - low) > 1e-3
        exact = np.maximum(np.maximum(high, 0) / qmax, np.minimum(low, 0) / qmin)
        np.testing.assert_allclose(ours.scale[wide], exact[wide], rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_block_floating_point_shares_the_exponent_of_the_largest_value(bits):
    low, high = ranges(17, -30, 30, 1000)
    ours = encode(Scheme("weight", bits, True, Granularity("channel"), format="bfp"), low, high, 0)
    reach = np.maximum(np.abs(low), np.abs(high)).astype(float)
    expected = [2.0 ** (math.frexp(a)[1] - 1 - bits + 2) if a else 1.0 for a in reach]
    np.testing.assert_array_equal(ours.scale, np.array(expected, np.float32))
    steps = (reach / ours.scale)[reach > 0]
    assert (steps >= 2 ** (bits - 2)).all(), "the leading bit of the mantissa is used"
    assert (steps < 2 ** (bits - 1)).all()
    assert (ours.qmin, ours.qmax) == (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1)


# -- onnx's reference -------------------------------------------------------------------------------------------------


def reference(x, scale, zero, axis, block):
    """Return (codes, values) of onnx's reference QuantizeLinear and DequantizeLinear (opset 25)."""
    attributes = {} if axis is None else {"axis": axis, **({"block_size": block} if block else {})}
    kind = helper.np_dtype_to_tensor_dtype(zero.dtype)
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
            ],
            "qdq",
            [
                value("x", TensorProto.FLOAT, x.shape),
                value("s", TensorProto.FLOAT, scale.shape),
                value("z", kind, zero.shape),
            ],
            [value("q", kind, x.shape), value("y", TensorProto.FLOAT, x.shape)],
        ),
        opset_imports=[helper.make_opsetid("", 25)],
    )
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, {"x": x, "s": scale, "z": zero})


LAYOUTS = {
    "tensor": ((), None, 0, None, 0),
    "axis 0": ((6,), 0, 0, 0, 0),
    "axis 1": ((24,), 1, 0, 1, 0),
    "blocks of 8": ((6, 3), 0, 8, 1, 8),
}
"""Shape of the scales, our axis and group size, onnx's axis and block size, for values of [6, 24]."""


def scales(shape, seed):
    """Return scales: powers of two (whose ties are exact) and others."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.5, 2.0 ** rng.integers(-9, 5, shape), rng.uniform(1e-3, 3, shape)).astype(
        np.float32
    )


def spread_like(scale, layout):
    return {"tensor": lambda: scale, "axis 0": lambda: scale[:, None], "axis 1": lambda: scale[None, :]}.get(
        layout, lambda: np.repeat(scale, 8, axis=1)
    )()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", INTEGERS)
def test_codes_and_values_equal_onnx_reference(name, layout):
    shape, axis, group, onnx_axis, block = LAYOUTS[layout]
    dtype = helper.tensor_dtype_to_np_dtype(INTEGERS[name])
    bits = int(name[1:])
    qmin, qmax = (0, 2**bits - 1) if name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    rng = np.random.default_rng(bits)
    for seed in range(4):
        scale = scales(shape, seed)
        zero = rng.integers(qmin, qmax + 1, shape)
        steps = rng.integers(2 * qmin - 2, 2 * qmax + 3, (6, 24)) / 2  # every second one is a tie; some saturate
        x = (steps * spread_like(scale, layout)).astype(np.float32)
        x[seed] *= rng.uniform(0.9, 1.1, 24).astype(np.float32)
        encoding = Encoding(scale, np.asarray(zero, np.int32), qmin, qmax, axis, group)
        codes, values = reference(x, scale, np.asarray(zero).astype(dtype), onnx_axis, block)
        np.testing.assert_array_equal(quantize(x, encoding), codes.astype(np.int32))
        np.testing.assert_array_equal(dequantize(quantize(x, encoding), encoding), values)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FLOATS)
def test_float8_values_equal_onnx_reference(name, layout):
    shape, axis, group, onnx_axis, block = LAYOUTS[layout]
    dtype = helper.tensor_dtype_to_np_dtype(FLOATS[name])
    rng = np.random.default_rng(3)
    exact = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    exact = np.sort(exact[np.isfinite(exact)])
    ties = np.concatenate([(exact[:-1] + exact[1:]) / 2, exact, [500.0, 6e4, 7e4, -1e9]])
    for seed in range(4):
        scale = scales(shape, seed)
        x = (rng.choice(ties, (6, 24)) * spread_like(scale, layout)).astype(np.float32)
        _, values = reference(x, scale, np.zeros(shape, dtype), onnx_axis, block)
        np.testing.assert_array_equal(round_values(x, FloatEncoding(name, scale, axis, group)), values)


def test_dynamic_ranges_equal_onnx_dynamic_quantize_linear():
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])],
        "dynamic",
        [info("x", TensorProto.FLOAT, ["n"])],
        [info("q", TensorProto.UINT8, ["n"]), info("s", TensorProto.FLOAT, []), info("z", TensorProto.UINT8, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=9)
    run = ReferenceEvaluator(model).run
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(5)
    for seed in range(300):
        x = (rng.normal(rng.normal(), 1, 40) * 10.0 ** rng.uniform(-6, 6)).astype(np.float32)
        x = np.abs(x) if seed % 5 == 0 else -np.abs(x) if seed % 5 == 1 else x
        ours = dynamic_encoding(x, DynamicEncoding(8, False))
        for codes, scale, zero in (run(None, {"x": x}), session.run(None, {"x": x})):
            assert float(ours.scale) == float(scale)
            assert int(ours.zero_point) == int(zero)
            np.testing.assert_array_equal(quantize(x, ours), codes)
