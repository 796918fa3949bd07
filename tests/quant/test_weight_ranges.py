"""Weight calibration per tensor, channel and group."""

from __future__ import annotations

import numpy as np
import pytest

from qstudio.core.affine import as_groups, encode, fake_quantize
from qstudio.core.calibration import find_range
from qstudio.core.histogram import histogram_of
from qstudio.core.model_info import SiteInfo
from qstudio.core.scheme import FLOAT_BITS, Granularity, Scheme
from qstudio.quant.weight_ranges import weight_encoding

SITE = SiteInfo("w", "weight", "conv", (6, 4, 3, 3), 0)
METHODS = (
    "minmax",
    "moving_average",
    "percentile:99",
    "quantile:99",
    "mse",
    "entropy",
    "mean_std:2",
    "lsq",
    "manual",
)
GRANULARITIES = ("tensor", "channel", "group:12", "group:8")


def weight(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, size=(6, 4, 3, 3)) * np.array([0.01, 0.1, 1, 2, 5, 0.5])[:, None, None, None]).astype(
        np.float32
    )


def scheme(calibration="minmax", bits=4, symmetric=True, granularity="channel", clip=None):
    return Scheme("weight", bits, symmetric, Granularity.parse(granularity), calibration, clip)


def row_errors(values, encoding, granularity):
    rounded = fake_quantize(values, encoding)
    difference = values.astype(np.float64) - rounded
    return np.square(as_groups(difference, Granularity.parse(granularity), 0)).sum(axis=-1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_method_gives_each_row_a_range_inside_its_values(method, granularity, symmetric):
    values = weight()
    encoding = weight_encoding(scheme(method, 4, symmetric, granularity), SITE, values)
    expected = {"tensor": (), "channel": (6,), "group:12": (6, 3), "group:8": (6, 5)}[granularity]
    assert encoding.scale.shape == encoding.zero_point.shape == expected
    assert (encoding.scale > 0).all()
    rows = as_groups(values, Granularity.parse(granularity), 0)
    low, high = np.minimum(rows.min(axis=-1), 0), np.maximum(rows.max(axis=-1), 0)
    reach = np.maximum(-low, high) if symmetric else high - low
    span = np.asarray(encoding.high) if symmetric else np.asarray(encoding.high - encoding.low)
    if method != "lsq":  # its first range may reach beyond the values
        assert (span.reshape(reach.shape) <= reach * (1 + 1e-5)).all()
    if method == "minmax":
        np.testing.assert_allclose(span.reshape(reach.shape), reach, rtol=1e-5)


@pytest.mark.parametrize("granularity", ["channel", "group:12", "group:8"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_is_the_best_of_all_shrunk_ranges_for_every_row(granularity, symmetric, bits):
    values = weight(1)
    chosen = weight_encoding(scheme("mse", bits, symmetric, granularity), SITE, values)
    errors = row_errors(values, chosen, granularity)
    rows = as_groups(values, Granularity.parse(granularity), 0)
    from qstudio.core.affine import encode

    for factor in np.linspace(0.2, 1.0, 17):
        tried = encode(
            scheme("mse", bits, symmetric, granularity), rows.min(axis=-1) * factor, rows.max(axis=-1) * factor, 0
        )
        assert (errors <= row_errors(values, tried, granularity) * (1 + 1e-3) + 1e-12).all()


def test_per_tensor_takes_the_range_that_the_window_shows():
    values = weight()
    for method in ("minmax", "percentile:99", "mse", "entropy"):
        chosen = scheme(method, 4, True, "tensor")
        low, high = find_range(histogram_of(values), chosen)
        encoding = weight_encoding(chosen, SITE, values)
        assert float(encoding.high) == pytest.approx(max(-low, high), rel=1e-5)


def test_a_manual_clip_limits_wide_rows_and_leaves_narrow_ones():
    values = weight()
    encoding = weight_encoding(scheme("manual", clip=(-0.5, 0.5)), SITE, values)
    reach = np.abs(values).reshape(6, -1).max(axis=1)
    np.testing.assert_allclose(encoding.high, np.minimum(reach, 0.5), rtol=1e-5)


def test_the_channel_axis_of_the_site_is_used():
    values = np.moveaxis(weight(), 0, 1).copy()
    site = SiteInfo("w", "weight", "up", values.shape, 1)
    encoding = weight_encoding(scheme(), site, values)
    assert encoding.axis == 1
    np.testing.assert_allclose(encoding.high, np.abs(values).max(axis=(0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_zero_and_constant_channels_survive(method, granularity):
    values = weight()
    values[0], values[1], values[2] = 0.0, 0.25, -3.0
    rounded = fake_quantize(values, weight_encoding(scheme(method, 8, False, granularity), SITE, values))
    assert np.isfinite(rounded).all()
    assert not rounded[0].any()


def test_what_is_not_finite_does_not_decide_a_range():
    values = weight()
    broken = values.copy()
    broken[3, 0, 0, 0], broken[4, 1, 1, 1] = np.nan, np.inf
    encoding = weight_encoding(scheme(), SITE, broken)
    assert np.isfinite(encoding.scale).all()


def test_float_has_no_encoding():
    assert weight_encoding(scheme(bits=FLOAT_BITS), SITE, weight()) is None


@pytest.mark.parametrize("method", ["moving_average", "mean_std:1.5", "lsq"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4])
def test_rows_have_the_range_their_own_histogram_gives(method, symmetric, bits):
    values = weight(2)
    values[2] = np.abs(values[2])
    chosen = scheme(method, bits, symmetric)
    encoding = weight_encoding(chosen, SITE, values)
    for row, low, high in zip(values.reshape(6, -1), encoding.low, encoding.high, strict=True):
        single = encode(scheme(method, bits, symmetric, "tensor"), *find_range(histogram_of(row), chosen), None)
        assert (low, high) == pytest.approx((float(single.low), float(single.high)), rel=2e-3)


def test_quantiles_of_rows_are_numpys():
    values = weight(3)
    rows = values.reshape(6, -1).astype(np.float64)
    found = weight_encoding(scheme("quantile:95", 8, False), SITE, values)
    width = np.quantile(rows, 0.95, axis=1) - np.quantile(rows, 0.05, axis=1)
    np.testing.assert_allclose(found.high - found.low, width, rtol=1e-5)
