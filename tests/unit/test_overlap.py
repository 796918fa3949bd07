"""Calibration against evaluation: two histograms of one site."""

from __future__ import annotations

import numpy as np
import pytest

from qstudio.core.histogram import EMPTY, histogram_of
from qstudio.core.overlap import cells, overlap, scaled_counts

RNG = np.random.default_rng(0)


def draw(mean: float = 0.0, size: int = 100_000, relu: bool = False) -> np.ndarray:
    values = RNG.normal(mean, 1.0, size).astype(np.float32)
    return np.maximum(values, 0) if relu else values


@pytest.mark.parametrize("relu", [False, True])
def test_samples_of_one_distribution_overlap_nearly_wholly(relu: bool) -> None:
    found = overlap(histogram_of(draw(relu=relu)), histogram_of(draw(size=30_000, relu=relu)), (-9.0, 9.0))
    assert found is not None
    assert found.intersection_percent > 97.0
    assert found.outside_percent == 0.0


def test_the_overlap_is_that_of_the_values_on_the_same_cells() -> None:
    first, second = draw(), draw(1.0, 40_000) * np.float32(1.5)
    edges = np.linspace(min(first.min(), second.min()), max(first.max(), second.max()), cells(40_000) + 1)
    p, q = (np.histogram(values, edges)[0] / len(values) for values in (first, second))
    found = overlap(histogram_of(first), histogram_of(second), (-2.0, 3.0))
    assert found is not None
    assert found.intersection_percent == pytest.approx(100 * np.minimum(p, q).sum(), abs=0.5)
    assert found.outside_percent == pytest.approx(100 * np.mean((second < -2) | (second > 3)), abs=0.1)


def test_what_has_nothing_in_common_has_no_overlap() -> None:
    found = overlap(histogram_of(draw(-20.0)), histogram_of(draw(20.0)), (-25.0, 0.0))
    assert found is not None
    assert found.intersection_percent < 0.01
    assert found.outside_percent == pytest.approx(100.0)


def test_zeros_are_compared_with_zeros() -> None:
    half = np.concatenate([np.zeros(500, np.float32), np.full(500, 2.0, np.float32)])
    found = overlap(histogram_of(half), histogram_of(np.zeros(10, np.float32)), (0.0, 1.0))
    assert found is not None
    assert found.intersection_percent == pytest.approx(50.0)
    assert found.outside_percent == 0.0


def test_without_values_there_is_no_figure_and_nan_counts_nowhere() -> None:
    assert overlap(EMPTY, histogram_of(draw(size=10)), (0.0, 1.0)) is None
    values = draw(size=1000)
    broken = np.append(values, np.array([np.nan, np.inf], np.float32))
    clip = (-1.0, 1.0)
    assert overlap(histogram_of(values), histogram_of(broken), clip) == overlap(
        histogram_of(values), histogram_of(values), clip
    )


def test_counts_on_another_grid_keep_their_sum() -> None:
    values = draw(relu=True, size=5000)
    counts = scaled_counts(histogram_of(values), np.linspace(-1.0, 8.0, 60), 700)
    assert counts.sum() == pytest.approx(700.0)
    assert counts[: np.searchsorted(np.linspace(-1.0, 8.0, 60), 0.0) - 1].sum() == 0.0


@pytest.mark.parametrize("size", [100, 1000, 10_000, 1_000_000])
def test_chance_alone_takes_little_from_the_overlap(size: int) -> None:
    found = overlap(histogram_of(draw(size=size)), histogram_of(draw(size=size)), (-9.0, 9.0))
    assert found is not None
    assert found.intersection_percent > 85.0
    assert 8 <= cells(size) <= 128
