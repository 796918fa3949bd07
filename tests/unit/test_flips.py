"""Flips, recipe differences and bit costs: plain arithmetic on small cases."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from session_fakes import model

from qstudio.core.bit_operations import average_bits, bit_operations
from qstudio.core.flips import Answers, flips_between, most_changed, paired_half_width
from qstudio.core.metrics import mcnemar_p
from qstudio.core.recipe import LayerSettings, Recipe
from qstudio.core.recipe_difference import recipe_difference, taken_from, value_text


def answers(classes, labels=(), indices=None, margins=None):
    n = len(classes)
    return Answers(
        np.arange(n) if indices is None else np.array(indices),
        np.array(labels, np.int64),
        np.array(classes),
        np.full(n, 0.5, np.float32) if margins is None else np.array(margins, np.float32),
    )


def test_kinds_counts_and_confusion_difference():
    labels = [0, 0, 1, 1, 2]
    found = flips_between(answers([0, 0, 0, 1, 0], labels), answers([0, 1, 1, 1, 1], labels))
    assert found.indices.tolist() == [1, 2, 4]
    assert found.kinds.tolist() == [0, 1, 2]
    assert (found.to_wrong, found.to_right, found.other_wrong, found.samples) == (1, 1, 1, 5)
    assert found.confusion.tolist() == [[-1, 1, 0], [-1, 1, 0], [-1, 1, 0]]
    assert found.confusion.sum() == 0
    assert found.p == 1.0
    assert found.difference_points == 0.0
    assert found.labelled


def test_without_labels_the_table_tells_what_became_what():
    found = flips_between(answers([0, 0, 1]), answers([0, 2, 2]))
    assert found.confusion.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert set(found.kinds.tolist()) == {3}
    assert not found.labelled
    assert found.p == 1.0


def test_only_shared_samples_are_compared_whatever_their_order():
    first = answers([0, 1, 0, 1], [0, 0, 0, 0], [4, 7, 2, 9])
    second = answers([1, 1, 1], [0, 0, 0], [9, 2, 4])
    found = flips_between(first, second)
    assert found.samples == 3
    assert sorted(found.indices.tolist()) == [2, 4]
    assert found.to_wrong == 2
    nothing = flips_between(first, answers([0], [0], [100]))
    assert (nothing.samples, len(nothing.indices), nothing.p) == (0, 0, 1.0)


def test_mcnemar_of_many_pairs_is_that_of_whole_numbers():
    for wrong, right in ((260, 250), (300, 210), (700, 500)):
        n, k = wrong + right, min(wrong, right)
        exact = min(1.0, float(2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n))
        assert mcnemar_p(wrong, right) == pytest.approx(exact, rel=1e-9)
    start = time.perf_counter()
    assert mcnemar_p(40_000, 39_000) < 0.001
    assert time.perf_counter() - start < 0.05


def test_the_interval_of_a_paired_difference():
    # Agresti and Min (2005): (b + 1/2 + c + 1/2 - (c - b)^2 / (n + 2)) / (n + 2)^2
    b, c, n = 12, 5, 1000
    variance = (b + c + 1 - (c - b) ** 2 / (n + 2)) / (n + 2) ** 2
    assert paired_half_width(b, c, n) == pytest.approx(196 * math.sqrt(variance), rel=1e-3)
    assert paired_half_width(0, 0, 1000) > 0


def test_of_a_thousand_classes_the_most_changed_are_shown():
    confusion = np.zeros((1000, 1000), np.int64)
    confusion[700, 700], confusion[700, 20], confusion[3, 5] = -9, 9, 4
    assert most_changed(confusion, 3).tolist() == [5, 20, 700] or most_changed(confusion, 3).tolist() == [3, 20, 700]
    assert most_changed(confusion, 4).tolist() == [3, 5, 20, 700]
    assert most_changed(confusion[:9, :9], 40).tolist() == list(range(9))


def test_recipes_differ_field_by_field_and_a_layer_can_be_taken_over():
    layers = model().layers
    first = Recipe()
    second = first.with_layers(("conv2",), weight_bits=4, weight_clip=(-0.5, 0.5)).with_layers(
        ("fc",), activation_calibration="entropy"
    )
    found = recipe_difference(first, second, layers)
    assert [(d.layer, d.field) for d in found] == [
        ("conv2", "weight_bits"),
        ("conv2", "weight_calibration"),
        ("conv2", "weight_clip"),
        ("fc", "activation_calibration"),
    ]
    assert [value_text(d.field, d.second) for d in found] == ["4", "manual", "-0.5..0.5", "entropy"]
    there = taken_from(first, second, ("conv2",))
    assert there.settings("conv2") == second.settings("conv2")
    assert there.settings("fc") == first.settings("fc")
    back = taken_from(second, first, ("conv2", "fc"))
    assert recipe_difference(first, back, layers) == ()
    assert taken_from(first, first, ("conv2",)) == first


def test_bit_costs():
    info = model()
    recipe = Recipe(LayerSettings(weight_bits=4)).with_layers(("fc",), weight_bits="float")
    assert average_bits(info, recipe.settings) == pytest.approx((4 + 4 + 32) / 3)
    assert bit_operations(info, recipe.settings) == 0.0  # nothing is known of its multiply-accumulates
