"""Read-outs from statistics alone, held to the real values."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from qstudio.core.affine import encode, fake_quantize, quantize
from qstudio.core.calibration import CALIBRATORS, find_range
from qstudio.core.channel_error import CHANNEL_BINS, channel_histograms, count_channels
from qstudio.core.histogram import histogram_of
from qstudio.core.metrics import sqnr_db
from qstudio.core.model_info import SiteInfo
from qstudio.core.range_error import range_error
from qstudio.core.scheme import CHANNEL, TENSOR, Granularity, Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.session.curves import channel_ranges, error_curve, quantized_counts
from qstudio.session.readout import calibration_title, calibrations, compare, read

SITE = SiteInfo("w", "weight", "conv", (24, 16, 3, 3), 0)


def weights(channels: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(5, (channels, 16, 3, 3)) * rng.uniform(0.2, 2, (channels, 1, 1, 1))).astype(np.float32)


def statistics_of(values: np.ndarray, counted: bool = True) -> SiteStatistics:
    rows = values.reshape(len(values), -1)
    counts = count_channels(rows) if counted else None
    return SiteStatistics("w", histogram_of(values), rows.min(1), rows.max(1), (), 0, counts)


def exact(values: np.ndarray, scheme: Scheme, clip: tuple[float, float]) -> tuple[float, float, float]:
    """Return SQNR, percent clipped and percent of codes used when each channel keeps its range within `clip`."""
    rows = values.reshape(len(values), -1)
    low = np.maximum(np.minimum(rows.min(1), 0), clip[0]).astype(np.float64)
    high = np.minimum(np.maximum(rows.max(1), 0), clip[1]).astype(np.float64)
    encoding = encode(scheme, low, high, 0)
    ends = encoding.low[:, None], encoding.high[:, None]
    half = encoding.scale[:, None] / 2
    clipped = 100 * ((rows < ends[0] - half) | (rows > ends[1] + half)).mean()
    codes = 100 * len(np.unique(quantize(values, encoding))) / encoding.levels
    return sqnr_db(values, fake_quantize(values, encoding)), float(clipped), codes


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("clip", [None, (-1.0, 0.8)])
def test_the_estimate_per_channel_is_close_to_the_real_values(
    bits: int, symmetric: bool, clip: tuple[float, float] | None
) -> None:
    values = weights()
    calibration = "minmax" if clip is None else "manual"
    readout = read(statistics_of(values), SITE, Scheme("weight", bits, symmetric, CHANNEL, calibration, clip))
    sqnr, clipped, codes = exact(values, Scheme("weight", bits, symmetric, CHANNEL), clip or (-np.inf, np.inf))
    assert readout.per_channel
    assert readout.error.sqnr_db == pytest.approx(sqnr, abs=0.35)
    assert readout.error.clipped_percent == pytest.approx(clipped, abs=0.5)
    assert readout.error.codes_used_percent == pytest.approx(codes, abs=6)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 8])
def test_searched_ranges_per_channel_are_no_worse_than_minmax(symmetric: bool, bits: int) -> None:
    statistics = statistics_of(weights())
    minmax = read(statistics, SITE, Scheme("weight", bits, symmetric, CHANNEL, "minmax"))
    mse = read(statistics, SITE, Scheme("weight", bits, symmetric, CHANNEL, "mse"))
    assert mse.error.mse <= minmax.error.mse * (1 + 1e-9)
    assert mse.clip[1] <= minmax.clip[1]


@pytest.mark.parametrize("percent", ["99", "99.9", "99.99"])
@pytest.mark.parametrize("bits", [4, 8])
def test_percentiles_per_channel_are_those_of_the_real_values(percent: str, bits: int) -> None:
    values = weights()
    rows = values.reshape(len(values), -1).astype(np.float64)
    cut = (1 - float(percent) / 100) / 2
    scheme = Scheme("weight", bits, True, CHANNEL, f"percentile:{percent}")
    encoding = encode(scheme, np.quantile(rows, cut, axis=1), np.quantile(rows, 1 - cut, axis=1), 0)
    readout = read(statistics_of(values), SITE, scheme)
    assert readout.encoding.high == pytest.approx(encoding.high, rel=0.05)
    assert readout.error.sqnr_db == pytest.approx(sqnr_db(values, fake_quantize(values, encoding)), abs=1.0)


@pytest.mark.parametrize("calibration", ["minmax", "percentile:99.9", "mse", "entropy"])
def test_one_scale_reads_as_range_error_does(calibration: str) -> None:
    values = weights()
    statistics = statistics_of(values)
    scheme = Scheme("weight", 6, False, TENSOR, calibration)
    readout = read(statistics, SITE, scheme)
    low, high = find_range(statistics.histogram, scheme)
    encoding = encode(scheme, low, high, None)
    expected = range_error(
        statistics.histogram, float(encoding.scale), int(encoding.zero_point), encoding.qmin, encoding.qmax
    )
    assert readout.error == expected
    assert readout.clip == (low, high)
    assert readout.levels is not None
    assert readout.levels[0] == pytest.approx(expected.low)
    assert len(readout.levels) == 64


def test_channel_counts_leave_zeros_out_and_survive_constant_channels() -> None:
    rows = np.zeros((3, 50), np.float32)
    rows[1] = 0.7
    rows[2, :25] = np.linspace(-1, 2, 25)
    counts = count_channels(rows)
    assert counts.shape == (3, CHANNEL_BINS)
    assert list(counts.sum(1)) == [0, 50, 25 - (rows[2, :25] == 0).sum()]
    site = SiteInfo("w", "weight", "fc", (3, 50), 0)
    readout = read(statistics_of(rows), site, Scheme("weight", 8, True, CHANNEL, "minmax"))
    assert np.isfinite(readout.error.mse)
    assert readout.error.rounding < 1e-4
    histograms = channel_histograms(counts, rows.min(1), rows.max(1))
    assert histograms.merged(24).counts.sum() == counts.sum()


def test_without_counts_the_ranges_still_serve() -> None:
    values = weights()
    readout = read(statistics_of(values, counted=False), SITE, Scheme("weight", 4, True, CHANNEL, "minmax"))
    sqnr, _, _ = exact(values, Scheme("weight", 4, True, CHANNEL), (-np.inf, np.inf))
    assert readout.error.sqnr_db == pytest.approx(sqnr, abs=2.0)
    assert readout.clip[1] == pytest.approx(np.abs(values).max())


def test_all_calibrators_come_side_by_side() -> None:
    rows = compare(statistics_of(weights()), SITE, Scheme("weight", 8, True, TENSOR, "minmax"))
    assert tuple(row.calibration for row in rows) == calibrations()
    assert {row.calibration.partition(":")[0] for row in rows} == set(CALIBRATORS) - {"manual"}
    assert all(row.error is not None for row in rows)
    best = max(rows, key=lambda row: row.error.sqnr_db if row.error else 0)
    assert best.calibration == "mse"
    assert calibration_title("percentile:99.99") == "Percentile 99.99"


def test_what_cannot_be_estimated_per_channel_says_so() -> None:
    rows = {row.calibration: row for row in compare(statistics_of(weights()), SITE, Scheme("weight", 8, True, CHANNEL))}
    assert rows["entropy"].error is None
    assert "finer histograms" in rows["entropy"].reason
    assert rows["mse"].error is not None


def test_a_vector_has_no_channels() -> None:
    site = SiteInfo("w", "weight", "bn", (24,), 0)
    values = weights()[:, 0, 0, 0]
    statistics = SiteStatistics("w", histogram_of(values), values, values, (), 0, count_channels(values[:, None]))
    readout = read(statistics, site, Scheme("weight", 8, True, CHANNEL, "minmax"))
    assert not readout.per_channel
    assert "one scale" in readout.note


def test_groups_are_said_to_be_estimated() -> None:
    readout = read(statistics_of(weights()), SITE, Scheme("weight", 4, True, Granularity("group", 16), "minmax"))
    assert readout.per_channel
    assert "Groups" in readout.note


def test_the_curve_goes_through_the_read_out() -> None:
    statistics = statistics_of(weights())
    for granularity in (TENSOR, CHANNEL):
        scheme = Scheme("weight", 4, True, granularity, "manual", (-1.5, 1.5))
        readout = read(statistics, SITE, scheme)
        curve = error_curve(readout, "high")
        total = np.interp(1.5, curve.clip, curve.rounding + curve.clipping)
        assert 10 * np.log10(total / readout.error.mse) == pytest.approx(0, abs=0.4)


def test_quantized_counts_hold_every_value_and_lie_on_the_levels() -> None:
    readout = read(statistics_of(weights()), SITE, Scheme("weight", 5, False, TENSOR, "mse"))
    values, counts = quantized_counts(readout) or (np.zeros(0), np.zeros(0))
    assert counts.sum() == readout.statistics.histogram.count
    assert readout.levels is not None
    assert np.abs(values[:, None] - readout.levels[None]).min(axis=1).max() < 1e-9


def test_one_scale_for_all_hurts_the_narrow_channel_most() -> None:
    values = weights()
    values[7] *= 0.02
    statistics = statistics_of(values)
    readout = read(statistics, SITE, Scheme("weight", 4, True, TENSOR, "minmax"))
    assert channel_ranges(statistics, readout).worst == 7
    finer = read(statistics, SITE, Scheme("weight", 4, True, CHANNEL, "minmax"))
    each = channel_ranges(statistics, finer)
    assert each.sqnr_db is not None
    assert each.sqnr_db[7] > 12


@pytest.mark.benchmark
@pytest.mark.parametrize("channels", [16, 512])
@pytest.mark.parametrize("granularity", [TENSOR, CHANNEL])
def test_a_read_out_of_a_trial_clip_takes_under_5_ms(channels: int, granularity: Granularity) -> None:
    statistics = statistics_of(weights(channels))
    site = replace(SITE, shape=(channels, 16, 3, 3))
    times = []
    for clip in np.linspace(0.5, 3, 50):
        start = time.perf_counter()
        read(statistics, site, Scheme("weight", 8, True, granularity, "manual", (-clip, clip)))
        times.append(1000 * (time.perf_counter() - start))
    print(f"{channels} channels, {granularity}: median {np.median(times):.2f} ms")
    assert np.median(times) < 5


@pytest.mark.parametrize("number_format", ["int:full", "int:torch", "int:aimet", "bfp"])
@pytest.mark.parametrize("granularity", [TENSOR, CHANNEL])
def test_other_conventions_are_estimated_with_their_own_scales(number_format: str, granularity: Granularity) -> None:
    values = weights()
    readout = read(statistics_of(values), SITE, Scheme("weight", 4, True, granularity, format=number_format))
    assert readout.sqnr_db == pytest.approx(sqnr_db(values, fake_quantize(values, readout.encoding)), abs=0.3)
