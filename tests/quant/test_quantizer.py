"""Fake quantization in torch equals the numpy reference, value for value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qstudio.core.affine import Encoding, as_groups, encode, fake_quantize, quantize
from qstudio.core.scheme import Granularity, Scheme
from qstudio.quant.quantizer import fake_quantize as torch_fake_quantize
from qstudio.quant.quantizer import make_quantizer

UNHURRIED = settings(deadline=None)
NUMBERS = st.floats(-1e6, 1e6, width=32)


@UNHURRIED
@given(
    values=arrays(np.float32, st.integers(1, 100), elements=NUMBERS),
    bits=st.integers(2, 16),
    symmetric=st.booleans(),
    low=NUMBERS,
    high=NUMBERS,
)
def test_per_tensor_equals_the_reference(values, bits, symmetric, low, high):
    encoding = encode(Scheme("activation", bits, symmetric), min(low, high), max(low, high), None)
    ours = torch_fake_quantize(torch.from_numpy(values), encoding).numpy()
    np.testing.assert_array_equal(ours, fake_quantize(values, encoding))
    codes = make_quantizer(encoding, (), "cpu").codes(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(codes, quantize(values, encoding))


@UNHURRIED
@given(
    values=arrays(np.float32, (4, 3, 5), elements=st.floats(-100, 100, width=32)),
    bits=st.integers(2, 16),
    symmetric=st.booleans(),
    granularity=st.sampled_from([Granularity("channel"), Granularity("group", 4), Granularity("group", 15)]),
    axis=st.integers(0, 2),
)
def test_per_channel_and_group_equal_the_reference(values, bits, symmetric, granularity, axis):
    rows = as_groups(values, granularity, axis)
    scheme = Scheme("weight", bits, symmetric, granularity)
    encoding = encode(scheme, rows.min(axis=-1), rows.max(axis=-1), axis)
    ours = torch_fake_quantize(torch.from_numpy(values), encoding).numpy()
    np.testing.assert_array_equal(ours, fake_quantize(values, encoding))


def test_half_to_even_and_division_not_a_product_with_the_reciprocal():
    scale = np.float32(0.013)
    steps = np.arange(-3000, 3001).astype(np.float32) + np.float32(0.5)
    values = np.concatenate([np.nextafter(steps * scale, np.float32(side)) for side in (-1e9, 0.0, 1e9)])
    encoding = Encoding(scale.reshape(()), np.int32(0).reshape(()), -32767, 32767)
    expected = np.rint(values / scale).astype(np.int32)
    assert (expected != np.rint(values * (np.float32(1) / scale))).any(), "the example must show the difference"
    np.testing.assert_array_equal(make_quantizer(encoding, (), "cpu").codes(torch.from_numpy(values)), expected)


def test_the_input_is_left_alone_and_nan_stays_visible():
    encoding = encode(Scheme("activation", 8, False), -1.0, 1.0, None)
    values = torch.tensor([0.3, float("nan"), 5.0, -float("inf")])
    before = values.clone()
    result = torch_fake_quantize(values, encoding)
    assert torch.equal(values.nan_to_num(), before.nan_to_num())
    assert torch.isnan(result[1])
    assert result[2] == pytest.approx(float(encoding.high))
    assert result[3] == pytest.approx(float(encoding.low))
