"""Affine quantization against the definition, against onnx and against onnxruntime's own formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qstudio.core.affine import (
    Encoding,
    as_groups,
    dequantize,
    encode,
    fake_quantize,
    integer_range,
    quantize,
    scale_zero_point,
    spread,
)
from qstudio.core.scheme import Granularity, Scheme

pytest.importorskip("onnx")
quant_utils = pytest.importorskip("onnxruntime.quantization.quant_utils")

UNHURRIED = settings(deadline=None)  # a loaded machine is no failure
FLOATS = st.floats(-1e6, 1e6, width=32)
BITS = st.integers(2, 16)


def scheme(kind="activation", bits=8, symmetric=False, granularity="tensor"):
    return Scheme(kind, bits, symmetric, Granularity.parse(granularity))


@pytest.mark.parametrize(
    ("kind", "bits", "symmetric", "expected"),
    [
        ("weight", 8, True, (-127, 127)),
        ("weight", 8, False, (-128, 127)),
        ("activation", 8, False, (0, 255)),
        ("activation", 8, True, (-127, 127)),
        ("weight", 4, True, (-7, 7)),
        ("weight", 2, True, (-1, 1)),
        ("activation", 16, False, (0, 65535)),
    ],
)
def test_integer_ranges_are_narrow_where_symmetric(kind, bits, symmetric, expected):
    assert integer_range(scheme(kind, bits, symmetric)) == expected


@UNHURRIED
@given(low=FLOATS, high=FLOATS, bits=BITS, symmetric=st.booleans(), kind=st.sampled_from(["weight", "activation"]))
def test_real_zero_is_exact(low, high, bits, symmetric, kind):
    encoding = encode(scheme(kind, bits, symmetric), min(low, high), max(low, high), None)
    assert fake_quantize(np.zeros(3, np.float32), encoding).tolist() == [0.0, 0.0, 0.0]
    assert encoding.qmin <= int(encoding.zero_point) <= encoding.qmax
    assert float(encoding.scale) > 0


def test_ties_go_to_even():
    encoding = Encoding(np.float32(1.0).reshape(()), np.int32(0).reshape(()), -127, 127)
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
    assert quantize(values, encoding).tolist() == [0, 2, 2, 0, -2, -2]


def test_rounding_comes_before_the_zero_point():
    # round(x/s) + z, never round(x/s + z): with z odd the tie falls differently.
    encoding = Encoding(np.float32(1.0).reshape(()), np.int32(1).reshape(()), 0, 255)
    assert quantize(np.array([0.5, 1.5], np.float32), encoding).tolist() == [1, 3]


@UNHURRIED
@given(
    low=st.floats(-1e5, 1e5, width=32),
    high=st.floats(-1e5, 1e5, width=32),
    symmetric=st.booleans(),
    signed=st.booleans(),
)
def test_scale_and_zero_point_equal_onnxruntime(low, high, symmetric, signed):
    low, high = min(low, high), max(low, high)
    qmin, qmax = (-127, 127) if signed and symmetric else (-128, 127) if signed else (0, 255)
    dtype = np.int8 if signed else np.uint8
    theirs_zero, theirs_scale = quant_utils.compute_scale_zp(
        np.array(low, np.float32), np.array(high, np.float32), np.array(qmin, dtype), np.array(qmax, dtype), symmetric
    )
    scale, zero = scale_zero_point(np.float32(low), np.float32(high), qmin, qmax, symmetric)
    assert scale == theirs_scale
    assert int(zero) == int(theirs_zero)


@UNHURRIED
@given(
    values=arrays(np.float32, 17, elements=st.floats(-300, 300, width=32)),
    scale=st.floats(2**-10, 16, width=32),
    zero=st.integers(0, 255),
)
def test_codes_and_values_equal_onnx_reference(values, scale, zero):
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("z", TensorProto.UINT8, []),
        ],
        [
            helper.make_tensor_value_info("q", TensorProto.UINT8, [None]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [None]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    q, y = ReferenceEvaluator(model).run(
        None, {"x": values, "s": np.array(scale, np.float32), "z": np.array(zero, np.uint8)}
    )
    encoding = Encoding(np.array(scale, np.float32), np.array(zero, np.int32), 0, 255)
    np.testing.assert_array_equal(quantize(values, encoding), q)
    np.testing.assert_array_equal(fake_quantize(values, encoding), y)


@UNHURRIED
@given(arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)), BITS, st.booleans())
def test_fake_quantization_is_idempotent(values, bits, symmetric):
    low, high = values.min(axis=1), values.max(axis=1)
    encoding = encode(scheme("weight", bits, symmetric, "channel"), low, high, 0)
    once = fake_quantize(values, encoding)
    np.testing.assert_array_equal(fake_quantize(once, encoding), once)


@UNHURRIED
@given(arrays(np.float32, 40, elements=st.floats(-100, 100, width=32)), BITS, st.booleans())
def test_error_inside_the_range_is_at_most_half_a_step(values, bits, symmetric):
    encoding = encode(scheme("activation", bits, symmetric), values.min(), values.max(), None)
    step = float(encoding.scale)
    # The zero point is rounded too, so the outermost values may be up to half a step further away.
    allowance = step * (1.0 if not symmetric else 0.5) + 1e-5 * np.abs(values).max()
    assert np.abs(fake_quantize(values, encoding) - values).max() <= allowance


@pytest.mark.parametrize("values", [np.zeros((2, 4)), np.full((2, 4), 0.25), np.full((2, 4), -3.0)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_all_zero_and_constant_channels_survive(values, symmetric):
    values = values.astype(np.float32)
    encoding = encode(scheme("weight", 8, symmetric, "channel"), values.min(axis=1), values.max(axis=1), 0)
    result = fake_quantize(values, encoding)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, values, rtol=1e-6)


def test_ranges_too_narrow_to_represent_take_scale_one():
    scale, zero = scale_zero_point(np.array([0.0, 1e-45]), np.array([0.0, 0.0]), -127, 127, True)
    assert scale.tolist() == [1.0, 1.0]
    assert zero.tolist() == [0, 0]


def test_huge_values_saturate_instead_of_wrapping():
    encoding = Encoding(np.array(1e-3, np.float32), np.array(7, np.int32), 0, 255)
    assert quantize(np.array([3e38, -3e38, np.inf, -np.inf], np.float32), encoding).tolist() == [255, 0, 255, 0]


@UNHURRIED
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    axis=st.integers(0, 2),
    size=st.integers(2, 7),
    seed=st.integers(0, 100),
)
def test_every_value_uses_the_scale_of_its_own_group(shape, axis, size, seed):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    granularity = Granularity("group", size)
    groups = as_groups(values, granularity, axis)
    assert groups.shape == (shape[axis], -(-(values.size // shape[axis]) // size), size)
    encoding = encode(Scheme("weight", 8, True, granularity), groups.min(axis=-1), groups.max(axis=-1), axis)
    scales = spread(encoding.scale, shape, encoding)
    rows = np.moveaxis(values, axis, 0).reshape(shape[axis], -1)
    spread_rows = np.moveaxis(np.broadcast_to(scales, shape), axis, 0).reshape(shape[axis], -1)
    for channel in range(rows.shape[0]):
        for column in range(rows.shape[1]):
            assert spread_rows[channel, column] == encoding.scale[channel, column // size]
    np.testing.assert_array_equal(dequantize(quantize(values, encoding), encoding), fake_quantize(values, encoding))
