"""Ranges per channel from the channels' small histograms, held to the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from qstudio.core.calibrators.direct import lsq_range
from qstudio.core.channel_error import CHANNEL_BINS, ChannelHistograms, channel_ends, channel_histograms, count_channels
from qstudio.core.scheme import CHANNEL, Scheme


def rows(pruned: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.standard_t(6, (12, 900)) * rng.uniform(0.1, 3.0, (12, 1)) + rng.uniform(-0.2, 0.2, (12, 1))
    values[3] = np.abs(values[3])
    values[rng.random(values.shape) < pruned] = 0.0
    return values.astype(np.float32)


def histograms(values: np.ndarray) -> ChannelHistograms:
    return channel_histograms(count_channels(values), values.min(1), values.max(1), values.shape[1])


def ends(values: np.ndarray, calibration: str, symmetric: bool = False, bits: int = 4) -> np.ndarray:
    found = channel_ends(histograms(values), Scheme("weight", bits, symmetric, CHANNEL, calibration))
    assert found is not None
    return np.stack(found, axis=1)


@pytest.mark.parametrize("pruned", [0.0, 0.5])
def test_moments_count_the_zeros_that_histograms_leave_out(pruned: float) -> None:
    values = rows(pruned).astype(np.float64)
    for found, real in zip(
        histograms(rows(pruned)).moments(),
        (values.mean(1), np.square(values).mean(1), np.abs(values).mean(1)),
        strict=True,
    ):
        np.testing.assert_allclose(found, real, atol=2e-3 * np.abs(values).max(1).max())


@pytest.mark.parametrize("pruned", [0.0, 0.5])
def test_mean_and_deviation_of_each_channel(pruned: float) -> None:
    values = rows(pruned).astype(np.float64)
    mean, reach = values.mean(1), 2 * values.std(1)
    low = np.clip(mean - reach, np.minimum(values.min(1), 0), 0)
    high = np.clip(mean + reach, 0, np.maximum(values.max(1), 0))
    width = np.ptp(values, axis=1) / CHANNEL_BINS
    found = ends(rows(pruned), "mean_std:2")
    assert (np.abs(found - np.stack([low, high], 1)) <= 0.5 * width[:, None]).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4])
def test_lsq_of_each_channel(symmetric: bool, bits: int) -> None:
    values = rows(0.3)
    scheme = Scheme("weight", bits, symmetric, CHANNEL)
    real = lsq_range(np.abs(values.astype(np.float64)).mean(1), values.min(1), values.max(1), scheme)
    np.testing.assert_allclose(ends(values, "lsq", symmetric, bits), np.stack(real, 1), rtol=0.01, atol=1e-6)


def test_quantiles_cut_twice_what_percentiles_cut_where_values_lie_on_both_sides() -> None:
    values = rows()
    both = np.delete(np.arange(12), 3)
    np.testing.assert_allclose(ends(values, "quantile:99")[both], ends(values, "percentile:98")[both])
    np.testing.assert_allclose(ends(values, "quantile:99")[3], ends(values, "percentile:99")[3])


def test_a_moving_average_over_a_weight_is_its_extremes() -> None:
    np.testing.assert_array_equal(ends(rows(), "moving_average"), ends(rows(), "minmax"))
