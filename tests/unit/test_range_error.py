"""Errors estimated from a histogram against errors of the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from qstudio.core.affine import encode, fake_quantize, integer_range
from qstudio.core.histogram import histogram_of
from qstudio.core.metrics import sqnr_db
from qstudio.core.range_error import range_error, squared_errors
from qstudio.core.scheme import Scheme


def data(kind):
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.normal(size=50_000),
        "laplace": rng.laplace(size=50_000),
        "relu": np.maximum(rng.normal(size=50_000), 0.0),
        "one-sided": rng.gamma(2.0, size=50_000),
    }[kind]
    return values.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "one-sided"])
@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_estimate_is_close_to_the_real_error(kind, bits, share):
    values = data(kind)
    scheme = Scheme("activation", bits, symmetric=kind in ("normal", "laplace"))
    encoding = encode(scheme, values.min() * share, values.max() * share, None)
    real = fake_quantize(values, encoding)
    error = range_error(
        histogram_of(values), float(encoding.scale), int(encoding.zero_point), encoding.qmin, encoding.qmax
    )
    mse = float(np.square(values.astype(np.float64) - real).mean())
    assert error.mse == pytest.approx(mse, rel=0.03)
    assert error.sqnr_db == pytest.approx(sqnr_db(values, real), abs=0.2)
    outside = (values < error.low - error.scale / 2) | (values > error.high + error.scale / 2)
    assert error.clipped_percent == pytest.approx(100 * outside.mean(), abs=0.1)


def test_rounding_and_clipping_are_told_apart():
    values = data("normal")
    scheme = Scheme("activation", 8, True)
    wide, narrow = encode(scheme, -6.0, 6.0, None), encode(scheme, -1.0, 1.0, None)
    histogram = histogram_of(values)
    kept = range_error(histogram, float(wide.scale), 0, -127, 127)
    cut = range_error(histogram, float(narrow.scale), 0, -127, 127)
    assert kept.clipping == 0.0
    assert kept.clipped_percent == 0.0
    assert kept.rounding == pytest.approx(float(wide.scale) ** 2 / 12, rel=0.02)
    assert cut.clipping > 100 * cut.rounding


def test_codes_used_counts_codes_that_values_map_to():
    values = np.array([-1.0, 0.0, 1.0] * 20, np.float32)
    error = range_error(histogram_of(values), 1 / 127, 0, -127, 127)
    assert error.codes_used_percent == pytest.approx(100 * 3 / 255)
    spread = np.linspace(-1.0, 1.0, 100_000, dtype=np.float32)
    assert range_error(histogram_of(spread), 1 / 127, 0, -127, 127).codes_used_percent == 100.0


def test_all_candidates_at_once_equal_one_at_a_time():
    histogram = histogram_of(data("laplace"))
    qmin, qmax = integer_range(Scheme("activation", 4, True))
    scales = np.linspace(0.01, 1.0, 7)
    rounding, clipping = squared_errors(histogram, scales, np.zeros(7), qmin, qmax)
    for i, scale in enumerate(scales):
        one = squared_errors(histogram, np.array([scale]), np.zeros(1), qmin, qmax)
        assert rounding[i] == pytest.approx(one[0][0])
        assert clipping[i] == pytest.approx(one[1][0])


def test_a_histogram_of_zeros_costs_nothing():
    error = range_error(histogram_of(np.zeros(5, np.float32)), 1.0, 0, -127, 127)
    assert error.mse == 0.0
    assert error.sqnr_db == float("inf")
