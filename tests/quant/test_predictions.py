"""What a run keeps for being compared: predictions of every sample, and the simulation's time."""

from __future__ import annotations

import dataclasses
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from quant_cases import small_cnn

from qstudio.cli.plain import plain
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.quant.predictions import margins, predictions_of
from qstudio.quant.ptq import PtqOptions, run_ptq

CLASSES = SimpleNamespace(gives_class_scores=True)


def split_of(labels):
    return SimpleNamespace(labels=None if labels is None else np.asarray(labels))


@pytest.fixture(scope="module")
def result():
    options = PtqOptions(calibration_samples=32, eval_samples=150, latency_batch=3, threads=1)
    return run_ptq(small_cnn(), load_dataset("digits"), Recipe().with_default(weight_bits=3), options)


def test_a_run_keeps_what_its_metrics_were_counted_from(result):
    found = result.predictions
    was, now = found.float_class == found.labels, found.quantized_class == found.labels
    assert len(found.indices) == len(set(found.indices.tolist())) == 150
    assert 100 * now.mean() == pytest.approx(result.simulated.top1)
    assert 100 * was.mean() == pytest.approx(result.float.top1)
    assert int((was & ~now).sum()) == result.simulated.flips_to_wrong
    assert int((~was & now).sum()) == result.simulated.flips_to_right
    assert 100 * (found.float_class == found.quantized_class).mean() == pytest.approx(result.simulated.agreement)
    assert found.class_names == tuple("0123456789")
    assert found.labels.tolist() == load_dataset("digits").test.labels[found.indices].tolist()


def test_predictions_neither_compare_nor_stand_in_json_but_cross_the_pipe(result):
    assert dataclasses.replace(result, predictions=None) == result
    assert hash(dataclasses.replace(result, predictions=None)) == hash(result)
    assert "predictions" not in plain(result)
    assert "predictions" not in repr(result)
    json.dumps(plain(result), allow_nan=False)
    copied = pickle.loads(pickle.dumps(result))
    assert copied == result
    assert copied.predictions.quantized_margin.tolist() == result.predictions.quantized_margin.tolist()


def test_the_margin_is_that_of_the_probabilities():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    assert margins(logits) == pytest.approx([0.5, 0.25], abs=1e-6)
    probabilities = np.exp(logits).astype(np.float32)
    found = predictions_of(CLASSES, probabilities, probabilities, split_of([0, 1]), np.arange(2))
    assert found.float_margin == pytest.approx([0.5, 0.25], abs=1e-6)
    huge = np.array([[1000.0, 0.0], [-1000.0, -1000.0]], np.float32)
    assert margins(huge).tolist() == [1.0, 0.0]


def test_outputs_that_are_no_classes_have_no_predictions():
    scores = np.zeros((4, 3), np.float32)
    plain_outputs = SimpleNamespace(gives_class_scores=False)
    assert predictions_of(plain_outputs, scores, scores, split_of(None), np.arange(4)) is None
    assert predictions_of(CLASSES, scores[:, :1], scores[:, :1], split_of(None), np.arange(4)) is None
    assert not len(predictions_of(CLASSES, scores, scores, split_of(None), np.arange(4)).labels)
    assert not len(predictions_of(CLASSES, scores, scores, split_of([0, 1, 2, 7]), np.arange(4)).labels)


def test_a_million_samples_stay_under_50_mb():
    scores = np.zeros((1_000_000, 2), np.float32)
    found = predictions_of(CLASSES, scores, scores, split_of(np.zeros(1_000_000, np.int32)), np.arange(1_000_000))
    assert len(pickle.dumps(found)) < 50e6


def test_a_run_times_the_simulation_and_profiles_operators(result):
    pair = result.latency_ms
    assert pair.simulated.batch == pair.exported.batch == 3
    assert 0 < pair.simulated.p10 <= pair.simulated.median <= pair.simulated.p90
    assert {name for row in pair.operators for name in row.layers} >= {"conv1", "conv2", "fc"}
    assert "narrow" in {reason.kind for reason in pair.reasons}  # 3 bits in bytes
    shown = plain(result)["latency_ms"]
    assert shown["simulated"]["median"] == pair.simulated.median
    assert shown["reasons"][0]["kind"] == pair.reasons[0].kind
