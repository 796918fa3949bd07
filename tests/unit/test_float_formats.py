"""Floating-point rounding against ml_dtypes and numpy: every value, every tie, random bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qstudio.core.encodings import FloatEncoding
from qstudio.core.float_formats import (
    BF16,
    E4M3,
    E5M2,
    FP16,
    float_encoding,
    float_type,
    round_to_float,
    round_with_float,
)
from qstudio.core.scheme import Granularity, Scheme

ml_dtypes = pytest.importorskip("ml_dtypes")

PEERS = {
    "fp16": (FP16, np.dtype(np.float16)),
    "bf16": (BF16, np.dtype(ml_dtypes.bfloat16)),
    "fp8_e4m3": (E4M3, np.dtype(ml_dtypes.float8_e4m3fn)),
    "fp8_e5m2": (E5M2, np.dtype(ml_dtypes.float8_e5m2)),
}


def theirs(x, number_type, dtype):
    """Return what the peer's cast makes of x, with overflow (inf, or NaN where there is none) saturated."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.clip(x, -number_type.largest, number_type.largest).astype(dtype).astype(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), cast)


def every_value(dtype):
    """Return all finite values of a type, ascending."""
    bits = np.arange(2 ** (8 * dtype.itemsize), dtype=np.uint32).astype(f"u{dtype.itemsize}")
    found = bits.view(dtype).astype(np.float32)
    return np.unique(found[np.isfinite(found)])


@pytest.mark.parametrize("name", PEERS)
def test_the_type_is_described_as_it_is(name):
    number_type, dtype = PEERS[name]
    assert float_type(name) is number_type
    found = every_value(dtype)
    assert number_type.largest == found[-1] == -found[0]
    assert number_type.smallest == found[found > 0][0]
    assert number_type.smallest_normal == float(ml_dtypes.finfo(dtype).smallest_normal)
    assert number_type.bits == 8 * dtype.itemsize
    assert number_type.bias == 2 ** (number_type.exponent - 1) - 1


@pytest.mark.parametrize("name", PEERS)
def test_every_value_is_itself_and_every_tie_goes_to_even(name):
    number_type, dtype = PEERS[name]
    found = every_value(dtype)
    np.testing.assert_array_equal(round_to_float(found, number_type), found)
    ties = ((found[:-1].astype(float) + found[1:]) / 2).astype(np.float32)
    for x in (ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))):
        np.testing.assert_array_equal(round_to_float(x, number_type), theirs(x, number_type, dtype))
    nearest = round_to_float(ties, number_type).astype(dtype)
    assert (nearest.view(f"u{dtype.itemsize}") % 2 == 0).all(), "an even mantissa"


@pytest.mark.parametrize("name", PEERS)
def test_random_bits_round_as_in_ml_dtypes(name):
    number_type, dtype = PEERS[name]
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    x = bits.view(np.float32)
    ours = round_to_float(x, number_type)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs(x, number_type, dtype))
    # and where the type has values: its own decades
    spread = np.random.default_rng(1)
    decades = spread.uniform(math.log2(number_type.smallest) - 2, math.log2(number_type.largest) + 1, 100_000)
    x = (2.0**decades * spread.choice([-1, 1], decades.size)).clip(-3e38, 3e38).astype(np.float32)
    np.testing.assert_array_equal(round_to_float(x, number_type), theirs(x, number_type, dtype))


@pytest.mark.parametrize("name", PEERS)
def test_what_is_too_large_saturates_and_nan_stays(name):
    number_type, _ = PEERS[name]
    x = np.array([np.inf, -np.inf, 3.4e38, np.nan, 0.0, -0.0], np.float32)
    top = number_type.largest
    np.testing.assert_array_equal(round_to_float(x, number_type), np.array([top, -top, top, np.nan, 0, 0], np.float32))
    assert round_to_float(np.float32(1.0), number_type).shape == ()


def scheme(name, granularity="tensor"):
    return Scheme("weight", 8, granularity=Granularity.parse(granularity), format=name)


def test_the_largest_value_of_a_range_is_exact():
    for name, top in (("fp8_e4m3", 448.0), ("fp8_e5m2", 57344.0)):
        encoding = float_encoding(scheme(name), -3.0, 1.7, None)
        assert float(encoding.scale) == np.float32(3.0 / top)
        assert encoding.high == pytest.approx(3.0)
        assert encoding.low == pytest.approx(-3.0)
        assert round_with_float(np.array([-3.0], np.float32), encoding)[0] == pytest.approx(-3.0, rel=1e-6)


@pytest.mark.parametrize(("name", "top"), [("fp8_e4m3:mx", 8), ("fp8_e5m2:mx", 15)])
def test_mx_scales_are_the_powers_of_two_of_the_specification(name, top):
    """OCP Microscaling v1.0, 6.3: the largest power of two in the block over that of the element type."""
    reach = np.array([1.0, 1.99, 2.0, 0.3, 448.0, 1e-30, 0.0])
    encoding = float_encoding(scheme(name, "channel"), -reach, reach / 2, 0)
    expected = [2.0 ** (math.floor(math.log2(a)) - top) if a else 1.0 for a in reach]
    np.testing.assert_array_equal(encoding.scale, np.array(expected, np.float32))
    assert math.floor(math.log2(float_type(name).largest)) == top
    tiny = float_encoding(scheme(name), 0.0, 1e-44, None)
    assert float(tiny.scale) == 2.0**-126, "an exponent of a byte, and normal in float32"


def test_sixteen_bits_take_no_scale_and_empty_ranges_take_one():
    assert float(float_encoding(scheme("bf16"), -5.0, 3.0, None).scale) == 1.0
    channels = float_encoding(scheme("fp16", "channel"), np.zeros(3), np.ones(3), 0)
    assert channels.scale.tolist() == [1, 1, 1]
    assert float(float_encoding(scheme("fp8_e4m3"), 0.0, 0.0, None).scale) == 1.0
    assert float(float_encoding(scheme("fp8_e4m3"), 0.0, 1e-42, None).scale) == 1.0


def test_every_group_has_its_own_scale():
    weight = np.random.default_rng(2).normal(size=(3, 2, 5)).astype(np.float32)
    rows = np.moveaxis(weight, 1, 0).reshape(2, -1)
    reach = np.stack([np.abs(rows[:, i : i + 4]).max(axis=1) for i in range(0, 15, 4)], axis=1)
    encoding = float_encoding(scheme("fp8_e4m3", "group:4"), -reach, reach, 1)
    rounded = np.moveaxis(round_with_float(weight, encoding), 1, 0).reshape(2, -1)
    for channel in range(2):
        for column in range(15):
            alone = FloatEncoding("fp8_e4m3", encoding.scale[channel, column // 4])
            assert rounded[channel, column] == round_with_float(rows[channel, column : column + 1], alone)[0]
    assert np.abs(rounded - rows).max() <= (np.abs(rows) / 16 + 1e-6).max()
