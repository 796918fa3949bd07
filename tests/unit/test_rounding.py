"""Rounding with any encoding: the right arithmetic is found, outliers stay, ranges at run time, errors estimated."""

from __future__ import annotations

import numpy as np
import pytest

from qstudio.core.affine import Encoding, encode, fake_quantize
from qstudio.core.encodings import DynamicEncoding, OutlierEncoding
from qstudio.core.float_formats import float_encoding, round_with_float
from qstudio.core.formats import FORMATS
from qstudio.core.histogram import BINS, Histogram, histogram_of
from qstudio.core.levels import level_encoding, round_to_levels
from qstudio.core.range_error import range_error
from qstudio.core.rounding import dynamic_encoding, histogram_error, outlier_positions, round_values
from qstudio.core.scheme import Granularity, Scheme


def weight(seed=0, shape=(8, 30)):
    return (np.random.default_rng(seed).standard_t(3, shape) * 0.1).astype(np.float32)


def encodings(values):
    """Return one encoding of each family for a weight, per channel."""
    rows = Granularity("channel")
    low, high = values.min(axis=1), values.max(axis=1)
    return {
        "int": encode(Scheme("weight", 4, True, rows), low, high, 0),
        "nf4": level_encoding(Scheme("weight", 4, True, rows, format="nf4"), values, 0, low, high),
        "fp8_e4m3": float_encoding(Scheme("weight", 8, True, rows, format="fp8_e4m3"), low, high, 0),
    }


def test_every_encoding_finds_its_arithmetic():
    values = weight()
    found = encodings(values)
    np.testing.assert_array_equal(round_values(values, found["int"]), fake_quantize(values, found["int"]))
    np.testing.assert_array_equal(round_values(values, found["nf4"]), round_to_levels(values, found["nf4"]))
    np.testing.assert_array_equal(round_values(values, found["fp8_e4m3"]), round_with_float(values, found["fp8_e4m3"]))
    dynamic = DynamicEncoding(8, False)
    expected = fake_quantize(values, dynamic_encoding(values, dynamic))
    np.testing.assert_array_equal(round_values(values, dynamic), expected)


@pytest.mark.parametrize("family", ["int", "nf4", "fp8_e4m3"])
def test_outliers_stay_float_beside_any_encoding(family):
    values = weight()
    before = values.copy()
    inner = encodings(values)[family]
    positions = outlier_positions(values, 2.5)
    rounded = round_values(values, OutlierEncoding(inner, positions))
    kept = np.zeros(values.size, bool)
    kept[positions] = True
    kept = kept.reshape(values.shape)
    assert kept.sum() == 6
    np.testing.assert_array_equal(rounded[kept], values[kept])
    np.testing.assert_array_equal(rounded[~kept], round_values(values, inner)[~kept])
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (0.01, 0), (1, 2), (2.5, 6), (33.3, 80), (100, 240)])
def test_outliers_are_the_largest_by_magnitude(percent, count):
    values = weight(3)
    positions = outlier_positions(values, percent)
    assert positions.dtype == np.int64
    assert len(positions) == count
    assert (np.diff(positions) > 0).all()
    size = np.abs(values).reshape(-1)
    rest = np.delete(size, positions)
    assert not count or not rest.size or size[positions].min() >= rest.max()


def test_of_equal_magnitudes_the_first_are_outliers():
    assert outlier_positions(np.array([1, -2, 2, 0, -2, 2], np.float32), 50).tolist() == [1, 2, 4]
    assert outlier_positions(np.zeros(10, np.float32), 30).tolist() == [0, 1, 2]


def test_symmetric_ranges_at_run_time_are_centred_on_zero():
    x = np.array([-3.0, 1.0, 2.0], np.float32)
    encoding = dynamic_encoding(x, DynamicEncoding(8, True))
    assert float(encoding.scale) == np.float32(3.0) / np.float32(127)
    assert int(encoding.zero_point) == 0
    assert (encoding.qmin, encoding.qmax) == (-127, 127)
    assert dynamic_encoding(x, DynamicEncoding(4, False)).qmax == 15
    tie = np.array([-0.5, 254.5], np.float32)  # s = 1, z = round(0.5): even
    assert int(dynamic_encoding(tie, DynamicEncoding(8, False)).zero_point) == 0
    one = dynamic_encoding(x, DynamicEncoding(1, True))
    assert (one.qmin, one.qmax) == (0, 1)


def test_block_floating_point_takes_its_exponent_at_run_time():
    for x, exponent in (([3.0, -5.0], 2), ([8.0], 3), ([-7.99, 1], 2), ([1e-30], -100), ([0.0], None)):
        encoding = dynamic_encoding(np.array(x, np.float32), DynamicEncoding(8, False, "bfp"))
        assert float(encoding.scale) == (1.0 if exponent is None else 2.0 ** (exponent - 6))
        assert (int(encoding.zero_point), encoding.qmin, encoding.qmax) == (0, -127, 127)


def test_batches_of_zeros_and_broken_values_have_a_range_too():
    for symmetric in (True, False):
        for x in (np.zeros(4), np.array([]), np.array([np.nan, np.inf]), np.full(3, 1e-44)):
            encoding = dynamic_encoding(x.astype(np.float32), DynamicEncoding(8, symmetric))
            assert float(encoding.scale) == 1.0
            assert int(encoding.zero_point) == 0
        mixed = dynamic_encoding(np.array([np.nan, -1, np.inf, 2], np.float32), DynamicEncoding(8, symmetric))
        assert float(mixed.scale) == pytest.approx(2 / 127 if symmetric else 3 / 255)


ESTIMATED = [f for f in FORMATS.values() if f.family != "affine"]


@pytest.mark.parametrize("found", ESTIMATED, ids=lambda f: f.id)
def test_errors_from_a_histogram_are_those_of_the_values(found):
    values = weight(5, (40_000,))
    values[:8000] = 0.0
    histogram = histogram_of(values)
    low, high = histogram.minimum / 2, histogram.maximum / 2  # some values are clipped
    for bits in {found.bits[0], min(found.bits[1], 5), found.bits[1]}:
        scheme = Scheme("weight", bits, format=found.id)
        if found.family == "float":
            encoding = float_encoding(scheme, low, high, None)
        else:
            encoding = level_encoding(scheme, values, None, low, high)
        exact = float(((values.astype(float) - round_values(values, encoding)) ** 2).mean())
        assert histogram_error(histogram, encoding) == pytest.approx(exact, rel=0.06)


def test_affine_errors_agree_with_the_integral_over_the_bins():
    values = np.random.default_rng(6).normal(size=50_000).astype(np.float32)
    histogram = histogram_of(values)
    for bits in (2, 4, 8):
        encoding = encode(Scheme("activation", bits, False), histogram.minimum, histogram.maximum, None)
        exact = range_error(
            histogram, float(encoding.scale), int(encoding.zero_point), encoding.qmin, encoding.qmax
        ).mse
        assert histogram_error(histogram, encoding) == pytest.approx(exact, rel=0.02)


def test_grids_in_step_with_the_bins_are_not_met_at_one_phase():
    width = 2.0**-10
    counts = np.ones(BINS, np.int64)
    even = Histogram(counts, -1.0, width, 0, -1.0, 1.0, 0.0, BINS / 3)
    for steps_in_a_bin in (1, 2, 4, 8):
        scale = np.asarray(width / steps_in_a_bin, np.float32)
        encoding = Encoding(scale, np.asarray(0, np.int32), -32767, 32767)
        assert histogram_error(even, encoding) == pytest.approx(float(scale) ** 2 / 12, rel=0.1)


def test_bins_end_where_the_values_end():
    histogram = histogram_of(np.full(50, 0.25, np.float32))
    exact = Encoding(np.asarray(0.25, np.float32), np.asarray(0, np.int32), -1, 1)
    assert histogram_error(histogram, exact) == 0.0


def test_an_empty_histogram_and_zeros_cost_what_zero_becomes():
    binary = level_encoding(Scheme("weight", 1, format="binary"), np.array([1.0, -1.0]), None, None, None)
    assert histogram_error(histogram_of(np.zeros(0, np.float32)), binary) == 0.0
    assert histogram_error(histogram_of(np.zeros(9, np.float32)), binary) == 1.0


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["kmeans", "log", "fp8_e4m3", "fp16"])
def test_a_histogram_is_rounded_in_three_milliseconds(name):
    from time import perf_counter

    values = weight(7, (20_000,))
    histogram = histogram_of(values)
    scheme = Scheme("weight", 8, format=name)
    low, high = histogram.minimum, histogram.maximum
    if FORMATS[name].family == "float":
        encoding = float_encoding(scheme, low, high, None)
    else:
        encoding = level_encoding(scheme, values, None, low, high)
    times = []
    for _ in range(20):
        start = perf_counter()
        histogram_error(histogram, encoding)
        times.append((perf_counter() - start) * 1000)
    assert np.median(times) < 3.0
