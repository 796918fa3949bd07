"""Every calibrator, against brute force or its definition."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from qstudio.core.affine import encode, fake_quantize
from qstudio.core.calibration import (
    CALIBRATORS,
    all_ranges,
    calibrations,
    check_calibration,
    entropy_bins,
    find_range,
)
from qstudio.core.errors import UserError
from qstudio.core.histogram import EMPTY, EXTREMES, histogram_of
from qstudio.core.scheme import Scheme

BUILT_IN = (
    "minmax",
    "moving_average",
    "percentile:99.9",
    "quantile:99.9",
    "mse",
    "entropy",
    "mean_std",
    "lsq",
    "manual",
)


def sample(kind, size=60_000):
    rng = np.random.default_rng(5)
    values = {
        "normal": rng.normal(size=size),
        "heavy": rng.standard_t(3, size=size),
        "relu": np.maximum(rng.normal(size=size), 0),
        "shifted": rng.normal(size=size) * 0.3 + 2.0,
    }[kind]
    return values.astype(np.float32)


def scheme(calibration, bits=8, symmetric=False, clip=None):
    return Scheme("activation", bits, symmetric, calibration=calibration, clip=clip)


@pytest.mark.parametrize("calibration", BUILT_IN)
@pytest.mark.parametrize("kind", ["normal", "heavy", "relu", "shifted"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_every_range_holds_zero_and_stays_inside_the_data(calibration, kind, bits):
    values = sample(kind)
    low, high = find_range(histogram_of(values), scheme(calibration, bits))
    assert low <= 0.0 <= high
    assert low < high
    if calibration != "lsq":  # its first range may reach beyond the values
        assert min(values.min(), 0.0) - 1e-6 <= low
        assert high <= max(values.max(), 0.0) + 1e-6


@pytest.mark.parametrize("calibration", BUILT_IN)
@pytest.mark.parametrize("histogram", [EMPTY, histogram_of(np.zeros(4, np.float32))])
def test_nothing_and_zeros_give_an_empty_range(calibration, histogram):
    assert find_range(histogram, scheme(calibration)) == (0.0, 0.0)


def test_minmax_is_exact():
    values = sample("heavy")
    assert find_range(histogram_of(values), scheme("minmax")) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("percent", [99.0, 99.9, 99.99])
def test_percentile_cuts_its_share_from_both_tails(percent):
    values = sample("normal")
    low, high = find_range(histogram_of(values), scheme(f"percentile:{percent}"))
    share = (100 - percent) / 2
    expected = np.percentile(values, [share, 100 - share])
    bin_width = histogram_of(values).width
    # Between two values that are far apart the cut may lie anywhere; numpy interpolates.
    ordered = np.sort(values)
    for edge, number in zip((low, high), expected, strict=True):
        gap = np.diff(ordered)[max(np.searchsorted(ordered, number) - 1, 0)]
        assert abs(edge - number) <= gap + bin_width
    inside = np.mean((values >= low - bin_width) & (values <= high + bin_width))
    assert inside >= percent / 100


def test_percentile_cuts_all_from_the_only_tail():
    values = sample("relu")
    low, high = find_range(histogram_of(values), scheme("percentile:99"))
    assert low == 0.0
    assert high == pytest.approx(float(np.percentile(values, 99)), abs=0.01)


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu", "shifted"])
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_as_good_as_a_search_on_the_values(kind, bits, symmetric):
    values = sample(kind, 20_000)
    chosen = scheme("mse", bits, symmetric)

    def cost(low, high):
        rounded = fake_quantize(values, encode(chosen, low, high, None)).astype(np.float64)
        return float(np.square(values - rounded).sum())

    low, high = find_range(histogram_of(values), chosen)
    best = min(cost(values.min() * f, values.max() * f) for f in np.linspace(0.02, 1.0, 50))
    assert cost(low, high) <= 1.02 * best


def divergence(counts, size, levels):
    """Kullback-Leibler divergence as it is defined, bin by bin."""
    p = counts[:size].astype(np.float64).copy()
    p[-1] += counts[size:].sum()
    q = np.zeros(size)
    for level in range(levels):
        start, stop = -(-level * size // levels), -(-(level + 1) * size // levels)
        part = counts[start:stop]
        filled = np.count_nonzero(part)
        if filled:
            q[start:stop] = np.where(part > 0, part.sum() / filled, 0.0)
    p, q = p / p.sum(), q / q.sum()
    return sum(a * np.log(a / max(b, 1e-10)) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("levels", [8, 128])
def test_entropy_finds_the_least_divergence_of_all_its_thresholds(levels):
    rng = np.random.default_rng(2)
    rows = np.stack([np.histogram(np.abs(rng.standard_t(nu, 20_000)), 2048)[0] for nu in (2, 4, 30)])
    chosen = entropy_bins(rows, levels)
    candidates = np.unique(np.linspace(levels, 2048, 128).astype(int))
    for row, size in zip(rows, chosen, strict=True):
        costs = {c: divergence(row, c, levels) for c in candidates}
        assert costs[int(size)] == pytest.approx(min(costs.values()), abs=1e-9)


def test_entropy_clips_outliers_and_is_not_minmax():
    values = np.concatenate([sample("normal"), np.array([60.0], np.float32)])
    low, high = find_range(histogram_of(values), scheme("entropy", symmetric=True))
    assert max(-low, high) < 20.0


def test_manual_takes_the_clip():
    values = sample("normal")
    assert find_range(histogram_of(values), scheme("manual", clip=(-0.5, 0.75))) == (-0.5, 0.75)


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu", "shifted"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_all_ranges_are_those_found_one_by_one(kind, symmetric):
    values = sample(kind, 20_000)
    histogram = with_extremes(values)
    found = all_ranges(histogram, scheme("mse", symmetric=symmetric), range(1, 11))
    assert set(found) == {(c, b) for c in calibrations() for b in range(1, 11)}
    assert {c.partition(":")[0] for c in calibrations()} == set(CALIBRATORS) - {"manual"}
    for (calibration, bits), ends in found.items():
        # A copy of the histogram shares no running sums with the others.
        assert ends == find_range(replace(histogram), scheme(calibration, bits, symmetric)), (calibration, bits)


@pytest.mark.parametrize("number_format", ["int:torch", "int:aimet", "bfp"])
def test_all_ranges_follow_the_convention(number_format):
    histogram = histogram_of(sample("heavy", 5_000))
    chosen = replace(scheme("mse", symmetric=True), format=number_format)
    for (_, bits), ends in all_ranges(histogram, chosen, (2, 4, 8), ["mse"]).items():
        assert ends == find_range(replace(histogram), replace(chosen, bits=bits))


def with_extremes(values, per_sample=100):
    rows = values.reshape(-1, per_sample)
    return replace(histogram_of(values), extremes=np.stack([rows.min(1), rows.max(1)], 1))


@pytest.mark.parametrize("constant", [0.01, 0.1, 0.5, 1.0])
def test_moving_average_is_the_recursion_over_samples(constant):
    histogram = with_extremes(sample("heavy", 30_000))
    low, high = histogram.extremes[0].astype(np.float64)
    for pair in histogram.extremes[1:].astype(np.float64):
        low, high = low + constant * (pair[0] - low), high + constant * (pair[1] - high)
    found = find_range(histogram, scheme(f"moving_average:{constant}"))
    assert found == pytest.approx((low, high), rel=1e-12)


def test_what_a_long_moving_average_forgets_is_below_float32s_precision():
    assert (1 - CALIBRATORS["moving_average"].bounds[0]) ** (EXTREMES - 1) < np.finfo(np.float32).eps / 50


@pytest.mark.parametrize("percent", [99.0, 99.9])
@pytest.mark.parametrize("kind", ["normal", "heavy", "silu"])
def test_quantiles_cut_each_tail_on_its_own(percent, kind):
    values = sample("normal")
    values = (values / (1 + np.exp(-values))).astype(np.float32) if kind == "silu" else sample(kind)
    histogram = histogram_of(values)
    low, high = find_range(histogram, scheme(f"quantile:{percent}"))
    share = len(values) * (100 - percent) / 100
    assert np.count_nonzero(values < low - histogram.width) <= share <= np.count_nonzero(values < low + histogram.width)
    assert np.count_nonzero(values > high + histogram.width) <= share
    assert share <= np.count_nonzero(values > high - histogram.width)


def test_mean_and_deviation_count_zeros_and_stay_inside_the_values():
    values = sample("relu")
    low, high = find_range(histogram_of(values), scheme("mean_std:2"))
    assert (low, high) == (
        0.0,
        pytest.approx(values.mean(dtype=np.float64) + 2 * values.std(dtype=np.float64), rel=1e-6),
    )
    assert find_range(histogram_of(values), scheme("mean_std:20")) == (0.0, float(values.max()))


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_lsq_starts_with_the_step_of_its_paper(kind, bits, symmetric):
    values = sample(kind)
    chosen = scheme("lsq", bits, symmetric)
    unsigned = kind == "relu" and not symmetric
    positive = 2**bits - 1 if unsigned else 2 ** (bits - 1) - 1
    step = 2 * np.abs(values.astype(np.float64)).mean() / np.sqrt(positive)
    encoding = encode(chosen, *find_range(histogram_of(values), chosen), None)
    assert float(encoding.scale) == pytest.approx(step, rel=2e-3)
    assert encoding.qmax - int(encoding.zero_point) == positive


def test_one_far_outlier_on_one_side_does_not_hide_the_best_range():
    values = np.append(sample("normal"), np.float32(40.0))
    chosen = scheme("mse", 4)

    def cost(low, high):
        rounded = fake_quantize(values, encode(chosen, low, high, None)).astype(np.float64)
        return float(np.square(values - rounded).sum())

    grid = [cost(-low, high) for low in np.linspace(0.5, 4.5, 25) for high in (*np.linspace(0.5, 6, 25), 20.0, 40.0)]
    assert cost(*find_range(histogram_of(values), chosen)) <= 1.02 * min(grid)


def test_nan_and_infinity_change_no_range():
    clean = sample("heavy", 20_000)
    broken = np.concatenate([clean, np.array([np.nan, np.inf, -np.inf], np.float32)])
    for calibration in calibrations():
        assert find_range(histogram_of(broken), scheme(calibration, 4)) == find_range(
            histogram_of(clean), scheme(calibration, 4)
        )


@pytest.mark.parametrize("name", [name for name in CALIBRATORS if name != "manual"])
def test_every_calibrator_says_what_it_does_and_where_it_is_from(name):
    calibrator = CALIBRATORS[name]
    assert calibrator.summary
    assert calibrator.formula in calibrator.words
    assert calibrator.source in calibrator.words
    assert (calibrator.bounds is None) == (calibrator.default is None) == (not calibrator.parameter)


@pytest.mark.benchmark
@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_all_methods_at_all_widths_take_at_most_5_ms(kind, symmetric):
    """Fourteen calibrations x bits 2..8 of one tensor from its cached histogram, nothing prepared."""
    histogram = with_extremes(sample(kind))
    times = []
    for _ in range(200):
        fresh = replace(histogram)
        started = time.perf_counter()
        found = all_ranges(fresh, scheme("mse", symmetric=symmetric))
        times.append(1000 * (time.perf_counter() - started))
    print(f"\n{kind}, {'symmetric' if symmetric else 'asymmetric'}: {len(found)} ranges in {min(times):.2f} ms")
    assert min(times) <= 5.0


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("percentile", "percentile:99.99"), (" MSE ", "mse"), ("percentile:99.5", "percentile:99.5")],
)
def test_names_are_read(text, canonical):
    assert check_calibration(text) == canonical


@pytest.mark.parametrize("text", ["median", "percentile:abc", "percentile:12", "percentile:101", "mse:3", ""])
def test_unknown_names_and_parameters_are_refused(text):
    with pytest.raises(UserError):
        check_calibration(text)
