"""Every calibrator, against brute force or its definition."""

from __future__ import annotations

import time

import numpy as np
import pytest

from qstudio.core.affine import encode, fake_quantize
from qstudio.core.calibration import check_calibration, entropy_bins, find_range
from qstudio.core.errors import UserError
from qstudio.core.histogram import EMPTY, histogram_of
from qstudio.core.scheme import Scheme

BUILT_IN = ("minmax", "percentile:99.9", "mse", "entropy", "manual")


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
    assert min(values.min(), 0.0) - 1e-6 <= low <= 0.0 <= high <= max(values.max(), 0.0) + 1e-6
    assert low < high


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


def test_all_candidates_come_from_the_histogram_in_milliseconds():
    histogram = histogram_of(sample("heavy"))
    for calibration in BUILT_IN:
        find_range(histogram, scheme(calibration))
        started = time.perf_counter()
        for _ in range(5):
            find_range(histogram, scheme(calibration))
        assert (time.perf_counter() - started) / 5 < 0.5, calibration


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
