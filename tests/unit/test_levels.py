"""Level formats against their formulas, written out value by value."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, product
from statistics import NormalDist

import numpy as np
import pytest

from qstudio.core import levels
from qstudio.core.codebook import kmeans_levels
from qstudio.core.encodings import LevelEncoding
from qstudio.core.formats import FORMATS
from qstudio.core.levels import NF4, activation_levels, level_codes, level_encoding, round_to_levels
from qstudio.core.scheme import Granularity, Scheme

FORMATS_OF_LEVELS = [f for f in FORMATS.values() if f.family == "levels"]
NAMES = [f.id for f in FORMATS_OF_LEVELS]
HOLD_ZERO = ("log", "log2", "pow2", "quadratic", "nf4", "ternary")


def scheme(name, bits, granularity="tensor", kind="weight"):
    return Scheme(kind, bits, granularity=Granularity.parse(granularity), format=name)


def values(shape=(6, 4, 3), seed=0):
    """Return weights with a long tail, a mean beside zero and a few exact zeros."""
    rng = np.random.default_rng(seed)
    found = (rng.standard_t(4, shape) * 0.2 + 0.03).astype(np.float32)
    found[0, :, 0] = 0.0
    return found


def whole(steps):
    """Return round half to even of a number of steps; None where float64 cannot tell which way it goes."""
    fraction = abs(steps - math.floor(steps) - 0.5)
    return None if 0 < fraction < 1e-12 * max(abs(steps), 1) else round(steps)


def literal(name, x, bits, reach, row):
    """Return what the formula of a format makes of one value; None where float64 cannot tell."""
    n = max(2 ** (bits - 1) - 1, 1)
    size, sign = abs(x), math.copysign(1, x) if x else 0.0
    mean = math.fsum(row) / len(row)
    if name == "binary":
        return math.fsum(map(abs, row)) / len(row) * (1 if x >= 0 else -1)
    if name == "ternary":
        threshold = 0.7 * math.fsum(map(abs, row)) / len(row)
        above = [abs(v) for v in row if abs(v) > threshold]
        return sign * math.fsum(above) / len(above) if size > threshold else 0.0
    if name in ("log", "log2"):
        base = math.e if name == "log" else 2.0
        alpha = n / (math.log1p(reach) / math.log(base))
        if name == "log2":
            alpha = 2.0 ** math.floor(math.log2(alpha))
        k = whole(alpha * math.log1p(size) / math.log(base))
        return None if k is None else sign * (base ** (min(k, n) / alpha) - 1)
    if name == "pow2":
        top = round(math.log2(reach))
        if size < 2.0 ** (top - n + 1) / 2:
            return 0.0
        return sign * 2.0 ** min(max(round(math.log2(size)), top - n + 1), top)
    if name == "quadratic":
        k = whole(n / reach**2 * size**2)
        return None if k is None else sign * math.sqrt(min(k, n) / n) * reach
    if name == "statistical":
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / len(row))
        k = whole((x - mean) / (3 * deviation) * n)
        return None if k is None else mean + 3 * deviation * min(max(k, -n), n) / n
    if name == "nf4":
        return reach * min(NF4, key=lambda level: abs(level - x / reach))
    if name == "apot":
        first = {3: [0, 1 / 2, 1 / 4, 1 / 8], 4: [0, 1 / 2, 1 / 4, 1 / 16], 5: [0, 1 / 2, 1 / 8, 1 / 32]}[bits]
        second = {3: [0], 4: [0, 1 / 8], 5: [0, 1 / 4, 1 / 16, 1 / 64]}[bits]
        sums = [a + b for a in first for b in second]
        scale = max(abs(min(max(v, -reach), reach) - mean) for v in row)
        grid = [mean + scale * side * p / max(sums) for p in sums for side in (-1, 1)]
        return min(grid, key=lambda level: abs(level - x))
    raise AssertionError(name)


def widths(name):
    return range(FORMATS[name].bits[0], FORMATS[name].bits[1] + 1)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "kmeans"])
def test_every_value_takes_the_level_of_the_formula(name):
    weight = values()
    flat = [float(v) for v in weight.reshape(-1)]
    reach = 0.7 if FORMATS[name].uses_range else max(map(abs, flat))
    for bits in widths(name):
        encoding = level_encoding(scheme(name, bits), weight, None, -reach, reach)
        wanted = [literal(name, x, bits, reach, flat) for x in flat]
        known = [i for i, w in enumerate(wanted) if w is not None]
        assert len(known) > len(flat) * 0.9
        ours = round_to_levels(weight, encoding).reshape(-1)
        np.testing.assert_allclose(ours[known], [wanted[i] for i in known], rtol=3e-7, atol=1e-8, err_msg=str(bits))


def test_ties_of_logarithms_go_to_the_even_code():
    # reach 3 at 2 bits: alpha ln(1 + 1) = 1/2 exactly; at 3 bits with reach 63 also 3/2 (x = 7) and 5/2 (x = 31)
    assert round_to_levels(np.array([1.0, -1.0], np.float32), activation_levels(scheme("log", 2), 0, 3)).tolist() == [
        0,
        0,
    ]
    encoding = activation_levels(scheme("log", 3, kind="activation"), -63, 63)
    assert encoding.levels[0].tolist() == pytest.approx([-63, -15, -3, 0, 3, 15, 63])
    x = np.array([1, 7, 31, -1, -7, -31], np.float32)
    assert round_to_levels(x, encoding).tolist() == pytest.approx([0, 15, 15, 0, -15, -15])


def test_ties_of_even_steps_go_to_the_even_code():
    # mean 0, deviation 1: levels k at 2^(b-1)-1 = 3 for 3 deviations, one apart
    row = np.array([[1, -1, 1, -1, 1, -1]], np.float32)
    grid, bounds = levels.statistical(row, None, np.array([1.0]), 3)
    assert grid.tolist() == [[-3, -2, -1, 0, 1, 2, 3]]
    encoding = LevelEncoding(grid, bounds, 3, "statistical")
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert round_to_levels(x, encoding).tolist() == [-2, -2, 0, 0, 2, 2]


def test_a_magnitude_at_the_threshold_of_ternary_is_zero():
    # E|x| = 5/7 of the largest: D = 0.7 E|x| is exactly half of it, and 0.5 is not above
    row = np.array([[0.5, -0.5, 1, 1, 1, -1, 0]], np.float32)
    assert 0.7 * np.abs(row).mean(dtype=float) == pytest.approx(0.5, rel=1e-15)
    encoding = LevelEncoding(*levels.ternary(row, None, np.ones(1), 2), 2, "ternary")
    assert round_to_levels(row, encoding).tolist() == [[0, 0, 1, 1, 1, -1, 0]]
    beside = np.nextafter(np.float32(0.5), np.float32(1))
    assert round_to_levels(np.array([beside, -beside]), encoding).tolist() == [1, -1]


def test_zero_is_positive_for_binary():
    encoding = level_encoding(scheme("binary", 1), np.array([1, -3, 0, -0.0], np.float32), None, None, None)
    assert round_to_levels(np.array([0.0, -0.0, 1e-40, -1e-40], np.float32), encoding).tolist() == [1, 1, 1, -1]


def test_powers_of_two_have_the_exponents_of_the_formula():
    encoding = activation_levels(scheme("pow2", 3, kind="activation"), -6.0, 5.0)  # round(log2 6) = 3
    assert encoding.levels[0].tolist() == [-8, -4, -2, 0, 2, 4, 8]
    x = np.array([0.99, 1.0, 2.82, 2.83, 100.0, -1.0, -0.99], np.float32)
    assert round_to_levels(x, encoding).tolist() == [0, 2, 2, 4, 8, -2, 0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_base_two_takes_the_finest_shift_that_fits(bits):
    n = 2 ** (bits - 1) - 1
    for power in range(1, 14):  # log2(1 + reach) = power, exactly: alpha is the largest 2^e with 2^e power <= n
        exponent = max(e for e in range(-20, 20) if Fraction(2) ** e * power <= n)
        found = activation_levels(scheme("log2", bits), 1 - 2.0**power, 2.0**power - 1).levels[0]
        assert float(found[n + 1]) == pytest.approx(2.0 ** (2.0**-exponent) - 1, rel=1e-6), power


def test_nf4_has_the_levels_of_qlora():
    # Dettmers et al., 2023, appendix E: eight quantiles of a normal distribution on each side of 0, 0.9677083 wide
    normal = np.array([_quantile(p) for p in np.linspace(0.9677083, 0.5, 9)[:-1]])
    negative = np.array([-_quantile(p) for p in np.linspace(0.9677083, 0.5, 8)[:-1]])
    expected = np.sort(np.concatenate([normal, [0.0], negative])) / normal.max()
    np.testing.assert_allclose(NF4, expected, atol=1e-6)
    encoding = level_encoding(scheme("nf4", 4), values(), None, -0.5, 0.25)
    np.testing.assert_array_equal(encoding.levels[0], (0.5 * np.array(NF4)).astype(np.float32))


def _quantile(probability):
    return NormalDist().inv_cdf(probability)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("granularity", ["channel", "group:5"])
def test_levels_and_bounds_ascend_and_zero_is_exact(name, granularity):
    weight = values((5, 7, 3)) * 10.0 ** np.arange(-3, 2, dtype=np.float32)[:, None, None]
    rows = 5 if granularity == "channel" else 5 * 5
    for bits in widths(name):
        encoding = level_encoding(scheme(name, bits, granularity), weight, 0, None, None)
        assert encoding.levels.shape[0] == encoding.bounds.shape[0] == rows
        assert encoding.levels.shape[1] == encoding.bounds.shape[1] + 1 <= 2**encoding.bits
        assert encoding.levels.dtype == encoding.bounds.dtype == np.float32
        assert (np.diff(encoding.levels, axis=1) >= 0).all()
        assert (np.diff(encoding.bounds, axis=1) >= 0).all()
        once = round_to_levels(weight, encoding)
        if name in HOLD_ZERO:
            assert (once[weight == 0] == 0).all()
        # a level is its own level: rounding twice changes nothing
        np.testing.assert_array_equal(round_to_levels(once, encoding), once)


@pytest.mark.parametrize("found", FORMATS_OF_LEVELS, ids=lambda f: f.id)
def test_rows_of_zeros_and_of_one_value_survive(found):
    layouts = (("tensor", None), ("channel", 0), ("group:4", 0))
    for constant, (granularity, axis) in product([0.0, 0.25, -1.0, 1e-38, 1e-45, 3e38], layouts):
        weight = np.full((2, 9), constant, np.float32)
        encoding = level_encoding(scheme(found.id, found.bits[0], granularity), weight, axis, None, None)
        rounded = round_to_levels(weight, encoding)
        assert np.isfinite(rounded).all()
        assert np.isfinite(encoding.levels).all()
        if constant in (0.0, 0.25, -1.0) and found.id != "log2":  # base 2 reaches a value at whole shifts only
            np.testing.assert_allclose(rounded, weight, rtol=1e-6)


@pytest.mark.parametrize("found", FORMATS_OF_LEVELS, ids=lambda f: f.id)
def test_a_row_has_the_levels_of_its_own_values_wherever_they_are(found):
    """Channels on another axis, short last groups and values left out: each as if its values stood alone."""
    bits = found.bits[1] if found.bits[1] <= 5 else 4
    weight = values((4, 3, 5), seed=3)
    groups = level_encoding(scheme(found.id, bits, "group:7"), weight, 1, None, None)
    channels = np.moveaxis(weight, 1, 0).reshape(3, -1)
    position = np.arange(weight.size).reshape(weight.shape)
    places = np.moveaxis(position, 1, 0).reshape(3, -1)
    rounded = round_to_levels(weight, groups).reshape(-1)
    codes = level_codes(weight, groups).reshape(-1)
    for channel in range(3):
        for group in range(3):
            part = slice(7 * group, 7 * group + 7)
            alone = level_encoding(scheme(found.id, bits), channels[channel, part], None, None, None)
            np.testing.assert_allclose(groups.levels[3 * channel + group], alone.levels[0], rtol=1e-6, atol=1e-9)
            own = round_to_levels(channels[channel, part], groups_row(groups, 3 * channel + group))
            np.testing.assert_array_equal(rounded[places[channel, part]], own)
            own_codes = level_codes(channels[channel, part], groups_row(groups, 3 * channel + group))
            np.testing.assert_array_equal(codes[places[channel, part]], own_codes)
    left_out = np.argsort(-np.abs(weight).reshape(-1))[:5]
    rest = np.delete(weight.reshape(-1), left_out)
    without = level_encoding(scheme(found.id, bits), weight, None, None, None, left_out)
    alone = level_encoding(scheme(found.id, bits), rest, None, None, None)
    np.testing.assert_allclose(without.levels, alone.levels, rtol=1e-6, atol=1e-9)


def groups_row(encoding, row):
    return LevelEncoding(encoding.levels[[row]], encoding.bounds[[row]], encoding.bits, encoding.format)


def test_codes_are_the_indices_of_levels_and_saturate():
    encoding = activation_levels(scheme("pow2", 3, kind="activation"), -4, 4)
    x = np.array([-np.inf, -9, 0, 9, np.inf, np.nan], np.float32)
    assert level_codes(x, encoding).tolist()[:5] == [0, 0, 3, 6, 6]
    assert round_to_levels(x, encoding).tolist()[:5] == [-4, -4, 0, 4, 4]
    assert np.isnan(round_to_levels(x, encoding)[5])
    assert level_codes(x, encoding).dtype == np.int32


def test_a_width_the_format_does_not_have_is_the_nearest_one():
    assert level_encoding(scheme("ternary", 8), values(), None, None, None).bits == 2
    assert level_encoding(scheme("apot", 2), values(), None, None, None).levels.shape == (1, 7)


# -- k-means ----------------------------------------------------------------------------------------------------------


def error(row, means):
    return float((np.abs(row[:, None] - means).min(axis=1).astype(float) ** 2).sum())


@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_kmeans_is_no_worse_than_quantiles_and_than_even_steps(bits):
    rng = np.random.default_rng(bits)
    rows = np.stack([rng.normal(size=500), rng.standard_t(3, 500), rng.uniform(-1, 3, 500), rng.exponential(1, 500)])
    rows = rows.astype(np.float32)
    found = kmeans_levels(rows, None, 1 << bits)
    places = (np.arange(1 << bits) + 0.5) / (1 << bits)
    for row, means in zip(rows, found, strict=True):
        ours = error(row, means)
        assert ours <= error(row, np.quantile(row, places)) * (1 + 1e-9)
        assert ours <= error(row, np.linspace(row.min(), row.max(), 1 << bits)) * (1 + 1e-9)


def test_kmeans_stands_still_at_its_means():
    row = np.random.default_rng(9).normal(size=(1, 700)).astype(np.float32)
    means = kmeans_levels(row, None, 8)[0]
    home = np.abs(row[0][:, None] - means).argmin(axis=1)
    again = [row[0][home == k].astype(float).mean() for k in range(8)]
    np.testing.assert_allclose(means, again, rtol=1e-9)


def test_kmeans_finds_the_best_split_of_small_sets():
    """Every way to cut a sorted row in three, tried: Lloyd's local optimum is on average within 5 % of the best."""
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(40):
        row = np.sort(rng.normal(size=12)).astype(np.float32)
        best = min(
            sum(float(((part - part.mean()) ** 2).sum()) for part in np.split(row.astype(float), cuts))
            for cuts in combinations(range(1, 12), 2)
        )
        ratios.append(error(row, kmeans_levels(row[None], None, 3)[0]) / best)
    assert min(ratios) >= 1 - 1e-6
    assert np.mean(ratios) <= 1.05


def test_kmeans_represents_few_distinct_values_exactly():
    row = np.repeat(np.array([-0.3, 0.0, 0.1, 7.0], np.float32), [5, 300, 40, 1])
    encoding = level_encoding(scheme("kmeans", 2), row, None, None, None)
    np.testing.assert_array_equal(round_to_levels(row, encoding), row)
    # zeros of pruning do not use up the means
    pruned = np.concatenate([np.zeros(900), np.random.default_rng(0).normal(size=100)]).astype(np.float32)
    few = level_encoding(scheme("kmeans", 4), pruned, None, None, None)
    assert len(np.unique(round_to_levels(pruned, few))) == 16
