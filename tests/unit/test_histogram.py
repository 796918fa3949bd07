"""The streaming histogram against numpy on all the data at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qstudio.core.histogram import BINS, EMPTY, cover, extend, histogram_of, merge

UNHURRIED = settings(deadline=None)
VALUES = arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e4, 1e4, width=32))


@UNHURRIED
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_streaming_counts_every_value_once_and_keeps_exact_moments(parts):
    histogram = EMPTY
    for part in parts:
        histogram = extend(histogram, part)
    everything = np.concatenate(parts).astype(np.float64)
    assert histogram.count == len(everything)
    assert histogram.minimum == everything.min()
    assert histogram.maximum == everything.max()
    assert histogram.zeros == int((everything == 0).sum())
    np.testing.assert_allclose(histogram.total, everything.sum(), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(histogram.total_square, np.square(everything).sum(), rtol=1e-9, atol=1e-6)


@UNHURRIED
@given(st.lists(VALUES, min_size=2, max_size=4))
def test_each_bin_holds_the_values_between_its_edges(parts):
    histogram = EMPTY
    for part in parts:
        histogram = extend(histogram, part)
    if histogram.width == 0.0:
        assert not np.concatenate(parts).any()
        return
    nonzero = np.concatenate(parts).astype(np.float64)
    nonzero = nonzero[nonzero != 0]
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    # float32 positions are good to a few thousandths of a bin: values that close to an edge may be in either bin
    slack = 0.01 * histogram.width
    for edge in (1, BINS // 4, BINS // 2, BINS - 1):
        at = histogram.edges[edge]
        assert (nonzero < at - slack).sum() <= below[edge] <= (nonzero < at + slack).sum()


def test_growing_merges_bins_in_pairs_without_splitting_counts():
    start = histogram_of(np.linspace(0.001, 1.0, 5000, dtype=np.float32))
    grown = cover(start, -3.0, 5.0)
    assert grown.counts.sum() == start.counts.sum()
    assert grown.low <= -3.0
    assert grown.low + BINS * grown.width >= 5.0
    doublings = np.log2(grown.width / start.width)
    assert doublings == pytest.approx(round(doublings))


def test_nan_and_infinity_are_counted_and_do_not_poison():
    clean = np.array([1.0, 2.0, -3.0], np.float32)
    histogram = extend(histogram_of(clean), np.array([np.nan, np.inf, -np.inf, 0.5], np.float32))
    assert histogram.nonfinite == 3
    assert (histogram.minimum, histogram.maximum) == (-3.0, 2.0)
    assert histogram.count == 4
    assert histogram.total == pytest.approx(0.5)
    only = histogram_of(np.array([np.nan], np.float32))
    assert (only.count, only.nonfinite) == (0, 1)


def test_all_zeros_have_no_width():
    histogram = histogram_of(np.zeros(10, np.float32))
    assert (histogram.zeros, histogram.width, histogram.count) == (10, 0.0, 10)
    assert (histogram.mean, histogram.std) == (0.0, 0.0)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_any_magnitude_works(scale):
    values = (np.random.default_rng(0).normal(size=1000) * scale).astype(np.float32)
    histogram = histogram_of(values)
    assert histogram.count == 1000
    assert histogram.std == pytest.approx(float(values.astype(np.float64).std()), rel=1e-6)


def test_merging_equals_streaming_but_for_half_a_bin():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=4000).astype(np.float32), (3 * rng.normal(size=4000)).astype(np.float32)
    together = merge(histogram_of(first), histogram_of(second))
    streamed = extend(histogram_of(first), second)
    assert together.count == streamed.count
    assert together.total == pytest.approx(streamed.total)
    assert (together.minimum, together.maximum) == (streamed.minimum, streamed.maximum)
    difference = np.abs(np.cumsum(together.counts) - np.cumsum(streamed.counts)).max()
    assert difference <= streamed.counts.max() + together.counts.max()
    assert merge(EMPTY, streamed).counts.tolist() == streamed.counts.tolist()
    assert merge(streamed, EMPTY).counts.tolist() == streamed.counts.tolist()
