"""Metrics against scikit-learn, scipy and hand-made examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qstudio.core.metrics import classification_metrics, cosine, mcnemar_p, sqnr_db, wilson_interval


def test_sqnr_is_six_decibels_a_bit():
    x = np.random.default_rng(0).uniform(-1, 1, 200_000)
    values = [sqnr_db(x, np.round(x * 2**b) / 2**b) for b in (6, 7, 8)]
    assert values[1] - values[0] == pytest.approx(6.02, abs=0.05)
    assert values[2] - values[1] == pytest.approx(6.02, abs=0.05)


def test_edge_cases_of_sqnr_and_cosine():
    zero, one = np.zeros(3), np.ones(3)
    assert sqnr_db(one, one) == math.inf
    assert sqnr_db(zero, one) == 0.0
    assert cosine(zero, zero) == 1.0
    assert cosine(zero, one) == 0.0
    assert cosine(one, -2 * one) == pytest.approx(-1.0)


def test_classification_metrics_equal_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 300)
    noisy = logits + rng.normal(size=logits.shape).astype(np.float32) * 0.5
    metrics = classification_metrics(noisy, labels, logits)
    odds = np.exp(noisy.astype(np.float64))
    assert metrics.top1 == pytest.approx(100 * sklearn.accuracy_score(labels, noisy.argmax(1)))
    assert metrics.top5 == pytest.approx(100 * sklearn.top_k_accuracy_score(labels, noisy, k=5))
    assert metrics.loss == pytest.approx(sklearn.log_loss(labels, odds / odds.sum(1, keepdims=True)))
    assert metrics.agreement == pytest.approx(100 * (noisy.argmax(1) == logits.argmax(1)).mean())
    was, now = logits.argmax(1) == labels, noisy.argmax(1) == labels
    assert metrics.flips_to_wrong == int((was & ~now).sum())
    assert metrics.flips_to_right == int((~was & now).sum())


def test_without_labels_agreement_carries_the_interval():
    logits = np.eye(4, dtype=np.float32)
    metrics = classification_metrics(logits[[0, 1, 2, 2]], None, logits)
    assert metrics.top1 is None
    assert metrics.agreement == 75.0
    assert metrics.top1_interval == wilson_interval(3, 4)


def test_the_float_model_agrees_with_itself():
    metrics = classification_metrics(np.eye(3, dtype=np.float32), np.arange(3), None)
    assert (metrics.agreement, metrics.top1, metrics.flips_to_wrong) == (100.0, 100.0, None)


def test_intervals_and_paired_test_equal_scipy():
    stats = pytest.importorskip("scipy.stats")
    for successes, samples in [(0, 10), (7, 10), (8103, 10_000), (10, 10)]:
        theirs = stats.binomtest(successes, samples).proportion_ci(method="wilson")
        np.testing.assert_allclose(
            wilson_interval(successes, samples), (100 * theirs.low, 100 * theirs.high), atol=1e-9
        )
    for wrong, right in [(0, 0), (5, 5), (12, 3), (40, 22)]:
        expected = 1.0 if wrong + right == 0 else stats.binomtest(wrong, wrong + right).pvalue
        assert mcnemar_p(wrong, right) == pytest.approx(expected)
    assert wilson_interval(0, 0) == (0.0, 100.0)
