"""Every rule on a network on which it is true and on one on which it is not, predicted against measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from findings_bench import Bench, chain, dense, images, normalised, recipe
from quant_cases import weights

from qstudio.core.findings.rules import RULES
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.sensitivity import Candidate, Figures, SensitivityCell, SensitivityResult

TOLERANCE_DB = 1.0
"""Of gains at a weight or an activation; those at an output carry an assumption about the layer and have their own."""

rng = np.random.default_rng(7)
NORMAL = rng.normal(size=(256, 64)).astype(np.float32)
TAILS = rng.standard_t(4, size=(256, 64)).astype(np.float32)
LONG = weights(8, 1024, seed=9)
WIDE = np.random.default_rng(8).normal(size=(16, 1024)).astype(np.float32)
POSITIVE = (np.abs(weights(16, 64, seed=1)) + 0.02).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """Where a rule speaks, where it does not, and how its gain is measured."""

    rule: str
    layer: str
    true: tuple[Callable[[Path], Bench], Recipe]
    false: tuple[Callable[[Path], Bench], Recipe]
    measured: str = "weight"
    tolerance_db: float = TOLERANCE_DB


def plain(folder: Path) -> Bench:
    return dense(folder, weights(16, 64, seed=1), NORMAL)


def by_hand(**values: Any) -> Recipe:
    return recipe().with_layers(("first",), **values)


def weights_only(bits: int, **values: Any) -> Recipe:
    return recipe(bits, activation_bits=FLOAT_BITS, **values)


TENSOR = recipe(4, weight_granularity="tensor")
SYMMETRIC = recipe(activation_symmetric=True)
MINMAX = recipe(activation_calibration="minmax")
FEW = recipe(activation_calibration="minmax", activation_bits=4)
FLOAT_WEIGHTS = recipe(FLOAT_BITS).with_layers(("product",), activation_bits=FLOAT_BITS)
CASES = (
    Case("channel_spread", "conv", (chain, TENSOR), (lambda f: chain(f, 1.0), TENSOR)),
    Case("channel_spread", "pointwise", (chain, TENSOR), (chain, recipe(4))),
    Case("depthwise_tensor", "depthwise", (chain, TENSOR), (chain, recipe(4))),
    Case("equalize", "depthwise", (chain, TENSOR), (lambda f: chain(f, 1.0), recipe(4)), "equalized", 3.0),
    Case("depthwise_bits", "depthwise", (chain, recipe(4)), (chain, recipe(8))),
    Case("first_last_bits", "conv", (chain, recipe(4)), (chain, recipe(8))),
    Case("first_last_bits", "fc", (chain, recipe(2)), (chain, recipe(8))),
    Case("weight_range", "last", (plain, recipe(2)), (plain, recipe(2, weight_calibration="mse"))),
    Case("weight_range", "first", (plain, recipe(3, weight_granularity="tensor")), (plain, recipe(8))),
    Case("one_sided_weight", "first", (lambda f: dense(f, POSITIVE, NORMAL), recipe()), (plain, recipe())),
    Case("group_size", "first", (lambda f: dense(f, LONG, WIDE), recipe(4)), (plain, recipe(4))),
    Case("manual_clip", "first", (plain, by_hand(weight_clip=(-0.2, 0.2))), (plain, by_hand(weight_clip=(-1.2, 1.2)))),
    Case(
        "manual_clip",
        "first",
        (plain, by_hand(activation_clip=(0.0, 40.0))),
        (plain, by_hand(activation_clip=(0.0, 9.0))),
        "activation",
    ),
    Case(
        "unused_sign",
        "first",
        (plain, SYMMETRIC),
        (lambda f: dense(f, weights(16, 64), NORMAL, "Tanh"), SYMMETRIC),
        "activation",
    ),
    Case("outliers_set_scale", "x", (lambda f: dense(f, weights(16, 64), TAILS), FEW), (plain, MINMAX), "activation"),
    Case(
        "bias_shift",
        "first",
        (lambda f: dense(f, weights(16, 64), NORMAL + 3), weights_only(4)),
        (plain, weights_only(4)),
        "output",
        2.0,
    ),
    Case(
        "bias_shift", "pointwise", (lambda f: chain(f, 1.0), weights_only(3)), (chain, weights_only(8)), "output", 3.0
    ),
    Case(
        "outlier_channels",
        "product",
        (lambda f: normalised(f, 40.0), FLOAT_WEIGHTS),
        (lambda f: normalised(f, 1.0), FLOAT_WEIGHTS),
        "output",
        3.0,
    ),
    Case(
        "outlier_channels",
        "product",
        (lambda f: normalised(f, 40.0, 6), FLOAT_WEIGHTS),
        (lambda f: normalised(f, 1.0, 6), FLOAT_WEIGHTS),
        "output",
        3.0,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.rule}-{c.layer}-{c.measured}")
def test_what_is_predicted_is_what_is_measured(case: Case, tmp_path: Path) -> None:
    make, before = case.true
    bench = make(tmp_path)
    (finding,) = bench.check(case.rule, case.layer, before)
    assert finding.gain is not None
    assert finding.edit is not None
    assert finding.gain.unit == "dB"
    after = finding.edit.apply(before)
    assert after != before
    measured = measure(bench, case, before, after)
    assert measured > 0
    assert finding.gain.value == pytest.approx(measured, abs=case.tolerance_db)
    # Once applied, nothing is left to say.
    assert not bench.check(case.rule, case.layer, after)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.rule}-{c.layer}-{c.measured}")
def test_a_rule_is_silent_where_nothing_is_wrong(case: Case, tmp_path: Path) -> None:
    make, chosen = case.false
    assert not make(tmp_path).check(case.rule, case.layer, chosen)


def measure(bench: Bench, case: Case, before: Recipe, after: Recipe) -> float:
    if case.measured == "equalized":
        return equalized_gain(bench, case.layer, before)
    of = {"weight": bench.weight_db, "activation": bench.activation_db, "output": bench.output_db}[case.measured]
    return of(after, case.layer) - of(before, case.layer)


def equalized_gain(bench: Bench, layer: str, chosen: Recipe) -> float:
    """Return what equalization brings to a weight whose channels were scaled, in the units of the original."""
    from refine_cases import task

    from qstudio.core.affine import fake_quantize
    from qstudio.core.metrics import sqnr_db
    from qstudio.quant.refine.cle import cle
    from qstudio.quant.weight_ranges import weight_encoding

    site = bench.site(layer, "weight")
    data = type("Data", (), {"test": bench.split})
    network = cle(bench.network, task(data, "cle", absorb=0))
    plain_values, scaled = bench.network.value(site.id), network.value(site.id)
    scheme = chosen.settings(layer).weight_scheme()
    rounded = fake_quantize(scaled, weight_encoding(scheme, site, scaled))
    back = rounded * np.divide(plain_values, scaled, out=np.ones_like(scaled), where=scaled != 0)
    return sqnr_db(plain_values, back) - bench.weight_db(chosen, layer)


def test_every_rule_is_held_to_a_measurement() -> None:
    here = {case.rule for case in CASES}
    elsewhere = {"near_chance", "data_mismatch", "few_samples", "worst_downstream", "bits_to_spare", "saturation"}
    assert here | elsewhere == set(RULES)


def test_other_data_costs_what_is_predicted(tmp_path: Path) -> None:
    bench = plain(tmp_path)
    bench.evaluated = 6.0 * NORMAL[:128] + 1.0
    (finding,) = bench.check("data_mismatch", "x", recipe())
    assert finding.gain is not None
    assert finding.edit is None
    assert finding.place == "data_panel"
    now = bench.activation_db(recipe(), "x", bench.evaluated)
    then = dense(tmp_path, weights(16, 64, seed=1), bench.evaluated).activation_db(recipe(), "x")
    assert finding.gain.value == pytest.approx(then - now, abs=TOLERANCE_DB)
    bench.evaluated = np.random.default_rng(1).normal(size=(128, 64)).astype(np.float32)
    assert not bench.check("data_mismatch", "x", recipe())


def test_a_range_goes_on_growing_as_it_did(tmp_path: Path) -> None:
    predicted, measured = [], []
    for seed in range(12):
        values = np.random.default_rng(seed).pareto(3.0, size=(64, 64)).astype(np.float32)
        bench = dense(tmp_path, weights(16, 64, seed=1), values[:32])
        twice = dense(tmp_path, weights(16, 64, seed=1), values)
        found = bench.check("few_samples", "x", MINMAX)
        predicted.append(found[0].gain.value if found else 0.0)
        site = bench.site("x", "activation").id
        measured.append(100 * (twice.statistics()[site].histogram.maximum / values[:32].max() - 1))
    # A single range grows by leaps; over several the same share of growth is met again: ln 2 / 3 a doubling here.
    assert np.mean(predicted) == pytest.approx(np.mean(measured), rel=0.5)
    assert np.mean(measured) > 5
    bounded = np.random.default_rng(1).uniform(-1, 1, size=(64, 64)).astype(np.float32)
    assert not dense(tmp_path, weights(16, 64, seed=1), bounded).check("few_samples", "x", MINMAX)


def test_the_layer_that_hurts_at_the_output_is_found_and_helped(tmp_path: Path) -> None:
    bench = chain(tmp_path, 1.0)
    chosen = recipe().with_layers(("pointwise",), weight_bits=3)
    depth = bench.depth(chosen)
    (finding,) = bench.check("worst_downstream", "pointwise", chosen, depth=depth)
    assert finding.gain is not None
    assert finding.edit is not None
    after = finding.edit.apply(chosen)
    measured = bench.output_db(after, "fc") - bench.output_db(chosen, "fc")
    assert finding.gain.value == pytest.approx(measured, abs=3.0)
    assert not bench.check("worst_downstream", "pointwise", after, depth=bench.depth(after))
    assert not bench.check("worst_downstream", "conv", chosen, depth=depth)


def test_bits_that_are_not_needed_cost_what_is_predicted(tmp_path: Path) -> None:
    bench = chain(tmp_path, 1.0)
    chosen = recipe().with_layers(("conv", "depthwise"), weight_bits=2)  # next to them what pointwise adds is nothing
    depth = bench.depth(chosen)
    (finding,) = bench.check("bits_to_spare", "pointwise", chosen, depth=depth)
    assert finding.gain is not None
    assert finding.edit is not None
    assert finding.gain.unit == "KB"
    after = finding.edit.apply(chosen)
    from qstudio.core.size import quantized_bytes

    model = bench.evidence(chosen).model
    saved = quantized_bytes(model, chosen.settings) - quantized_bytes(model, after.settings)
    assert 1024 * finding.gain.value == pytest.approx(saved)
    assert bench.output_db(after, "fc") - bench.output_db(chosen, "fc") > -1.0
    assert not bench.check("bits_to_spare", "conv", chosen, depth=depth)
    loud = tuple(replace(noise, downstream=0.01) for noise in depth.layers)
    assert not bench.check("bits_to_spare", "pointwise", chosen, depth=replace(depth, layers=loud))


def test_seven_bits_end_the_saturation(tmp_path: Path) -> None:
    from qstudio.backends.qdq import layer_inputs
    from qstudio.backends.saturation import saturating_layers
    from qstudio.quant.encodings import encodings_for

    bench = plain(tmp_path)

    def share(chosen: Recipe) -> float:
        encodings: Any = encodings_for(bench.network.layers, chosen, bench.statistics(), bench.network.weights())
        inputs = layer_inputs(bench.network.proto, bench.network.layers)
        found = saturating_layers(
            tuple(bench.network.layers), inputs, encodings.activations, encodings.weights, bench.network.weights()
        )
        return next((each.pairs_percent for each in found if each.layer == "first"), 0.0)

    assert share(recipe()) > 0
    seen = {"saturating": (("first", share(recipe())),), "has_run": True, "vnni": False}
    (finding,) = bench.check("saturation", "first", recipe(), **seen)
    assert finding.gain is not None
    assert finding.edit is not None
    assert finding.severity == "high"
    after = finding.edit.apply(recipe())
    assert share(recipe()) - share(after) == pytest.approx(finding.gain.value)
    assert not bench.check("saturation", "first", after, **seen)
    assert not bench.check("saturation", "last", recipe(), **seen)


def figures(top1: float, agreement: float) -> Figures:
    return Figures(1000, agreement, 20.0, top1=top1)


def swept(mode: str, layer: str, found: Figures, base: Figures) -> SensitivityResult:
    four = Candidate(weight_bits=4)
    cells = (SensitivityCell(layer, four, found),)
    return SensitivityResult(mode, (four,), cells, recipe(4), "", "", 0, bases=((four, base),))


def test_a_sweep_tells_points_of_accuracy_instead_of_decibels(tmp_path: Path) -> None:
    bench = chain(tmp_path)
    sweep = swept("disable", "depthwise", figures(70.0, 90.0), figures(60.0, 80.0))
    (finding,) = bench.check("depthwise_bits", "depthwise", recipe(4), sensitivity=sweep)
    assert finding.gain is not None
    assert finding.gain.text() == "+10.00 points"  # measured: no tilde
    (other,) = bench.check("depthwise_bits", "depthwise", recipe(3), sensitivity=sweep)
    assert other.gain is not None
    assert other.gain.unit == "dB"  # the sweep was of other bits


def test_a_sweep_shows_bits_to_spare(tmp_path: Path) -> None:
    bench = chain(tmp_path)
    fine = swept("enable", "pointwise", figures(99.0, 99.95), figures(99.0, 100.0))
    (finding,) = bench.check("bits_to_spare", "pointwise", recipe(), sensitivity=fine)
    assert finding.edit is not None
    assert finding.edit.apply(recipe()).settings("pointwise").weight_bits == 4
    hurts = swept("enable", "pointwise", figures(95.0, 96.0), figures(99.0, 100.0))
    assert not bench.check("bits_to_spare", "pointwise", recipe(), sensitivity=hurts)


def test_what_bits_bring_to_groups_is_told_as_for_channels(tmp_path: Path) -> None:
    bench = dense(tmp_path, LONG, WIDE)
    grouped = recipe(4, weight_granularity="group:64")
    gain = bench.evidence(grouped).weight(bench.evidence(grouped).model.layer("first"))
    assert gain is not None
    assert gain.error() is None
    predicted = gain.gain_db(bits=8)
    measured = bench.weight_db(recipe(8, weight_granularity="group:64"), "first") - bench.weight_db(grouped, "first")
    assert predicted == pytest.approx(measured, abs=TOLERANCE_DB)


@pytest.mark.benchmark
@pytest.mark.parametrize("size", [8, 32])
def test_the_mean_shift_of_convolutions_is_predicted_better_the_smaller_the_border(tmp_path: Path, size: int) -> None:
    # Padding puts zeros where the rule takes values of the mean: 44 % of the outputs of 8 x 8, 12 % of 32 x 32.
    bench = chain(tmp_path, 3.0, images(mean=2.0, size=size))
    (finding,) = bench.check("bias_shift", "conv", weights_only(4))
    assert finding.gain is not None
    assert finding.edit is not None
    measured = bench.output_db(finding.edit.apply(weights_only(4)), "conv") - bench.output_db(weights_only(4), "conv")
    assert measured > 0
    assert finding.gain.value == pytest.approx(measured, abs=2.5 if size == 8 else 1.5)
