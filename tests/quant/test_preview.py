"""Previews give the figures of a full evaluation, whatever was asked before; error over depth is what it says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from quant_cases import small_cnn

from qstudio.core.context import SilentContext
from qstudio.core.errors import JobCancelled
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.quant import preview as preview_module
from qstudio.quant.depth import MOST_SAMPLES, depth_errors, samples_for
from qstudio.quant.encodings import encodings_for
from qstudio.quant.evaluate import feeds, float_predictions, keep_float_predictions, metrics_of, predict
from qstudio.quant.evaluation.schemes import joined
from qstudio.quant.evaluator import FLOAT
from qstudio.quant.preview import PreviewOptions, bench_for, left_out, preview_accuracy
from qstudio.quant.simulate import SimulatedModel

OPTIONS = PreviewOptions(200, 64)


class Watched(SilentContext):
    """Counts checks and stops, or does something else, at one of them."""

    def __init__(self, at=-1, then=None):
        super().__init__()
        self.checks, self.at, self.then = 0, at, then

    def check(self):
        self.checks += 1
        if self.checks == self.at:
            if self.then is None:
                raise JobCancelled
            self.then()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_benches(monkeypatch):
    monkeypatch.setattr(preview_module, "_benches", type(preview_module._benches)())


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def model():
    return small_cnn()


def bench_of(model, digits, recipe, ctx=None):
    return bench_for(model, digits, recipe, OPTIONS, None, ctx or SilentContext())


def full(bench, recipe):
    """Return the metrics of a full run with encodings made anew."""
    network = bench.network
    encodings = encodings_for(network.layers, recipe, bench._statistics, network.weights())
    floats = predict(bench.original, bench.original.executor.run, bench.split, bench.indices)
    scores = predict(network, SimulatedModel(network, encodings).run, bench.split, bench.indices)
    return metrics_of(network, scores, bench.split, bench.indices, floats)


RECIPES = [
    Recipe(),
    Recipe().with_layers(("conv2",), weight_bits=2),
    Recipe().with_layers(("conv2",), weight_bits=2).with_layers(("fc",), weight_bits=3),
    Recipe().with_layers(("conv1",), activation_bits=2),
    Recipe().with_default(weight_bits="float"),
    Recipe().with_layers(("conv3",), weight_format="nf4", weight_bits=4),
    Recipe().with_layers(("conv2",), weight_bits=2),
]


def test_figures_are_those_of_a_full_evaluation(model, digits):
    bench = bench_of(model, digits, Recipe())
    floats = full(bench, Recipe().with_default(weight_bits="float", activation_bits="float"))
    for recipe in RECIPES:
        assert bench_of(model, digits, recipe) is bench
        found = preview_accuracy(bench, recipe, SilentContext())
        assert found.metrics == full(bench, recipe)
        assert (found.recipe_hash, found.done, found.notes) == (recipe.sha256(), True, ())
        assert found.float.top1 == floats.top1


def test_a_change_runs_what_depends_on_it_only(model, digits):
    bench = bench_of(model, digits, Recipe())
    preview_accuracy(bench, Recipe(), SilentContext())
    whole = bench.evaluator.work.computed
    preview_accuracy(bench, Recipe().with_layers(("fc",), weight_bits=4), SilentContext())
    assert bench.evaluator.work.computed < whole / 2


def test_what_is_tried_once_is_not_kept(model, digits):
    bench = bench_of(model, digits, Recipe())
    preview_accuracy(bench, Recipe(), SilentContext())
    before = len(bench.evaluator.store)
    tried = RECIPES[1]
    assert preview_accuracy(bench, tried, SilentContext(), once=True).metrics == full(bench, tried)
    assert len(bench.evaluator.store) == before


def test_figures_so_far_are_those_of_the_first_samples(model, digits, monkeypatch):
    monkeypatch.setattr(preview_module, "STREAMED_S", 0.0)
    bench = bench_of(model, digits, Recipe())
    parts = []
    last = preview_accuracy(bench, Recipe(), SilentContext(), on_part=parts.append)
    assert [part.metrics.samples for part in parts] == [64, 128, 192]
    assert [part.done for part in parts] == [False] * 3
    assert last.metrics.samples == last.float.samples == 200
    labels = digits.test.labels[bench.indices[:64]]
    floats = float_predictions(bench.original, bench.split, bench.indices, bench.data_key)[:64]
    assert parts[0].float.top1 == 100 * (floats.argmax(1) == labels).mean()


def test_another_recipe_may_be_evaluated_in_the_midst_of_one(model, digits):
    """An edit comes while the error over depth is measured: it runs between two of its steps."""
    bench = bench_of(model, digits, Recipe())
    calm = depth_errors(bench, RECIPES[2], SilentContext())
    plain = preview_accuracy(bench, RECIPES[3], SilentContext())
    other = bench_of(model, digits, Recipe())
    found = []
    within = Watched(40, lambda: found.append(preview_accuracy(other, RECIPES[3], SilentContext())))
    other.depth = None
    assert depth_errors(other, RECIPES[2], within) == calm
    inner = Watched(20, lambda: found.append(preview_accuracy(other, RECIPES[2], SilentContext())))
    other.evaluator.store.clear()
    found.append(preview_accuracy(other, RECIPES[3], inner))
    assert [part.metrics for part in found] == [plain.metrics, full(bench, RECIPES[2]), plain.metrics]


def test_a_stopped_preview_stops_between_steps_and_leaves_nothing_wrong(model, digits):
    bench = bench_of(model, digits, Recipe())
    counted = Watched()
    preview_accuracy(bench, Recipe(), counted)
    assert counted.checks > 4 * len(bench.network.layers), "asked at every step of every batch"
    for at in (1, 7, counted.checks // 2):
        bench.evaluator.store.clear()
        with pytest.raises(JobCancelled):
            preview_accuracy(bench, RECIPES[1], Watched(at))
        assert preview_accuracy(bench, RECIPES[1], SilentContext()).metrics == full(bench, RECIPES[1])


def test_what_runs_after_calibration_is_left_out_and_said(model, digits):
    recipe = Recipe(refinements=("fold", "adaround", "bias_correction")).with_default(pruning="magnitude:50")
    bench = bench_of(model, digits, recipe)
    found = preview_accuracy(bench, recipe, SilentContext())
    assert found.metrics == full(bench, Recipe())
    assert found.notes == left_out(recipe)
    assert "AdaRound, Bias correction" in found.notes[0]
    assert "Pruning" in found.notes[1]


def test_what_changes_the_network_is_done_and_the_values_of_one_network_are_kept(model, digits):
    plain = bench_of(model, digits, Recipe())
    preview_accuracy(plain, Recipe(), SilentContext())
    recipe = Recipe(refinements=("fold", "cle")).with_default(weight_granularity="tensor", weight_bits=4)
    equalized = bench_of(model, digits, recipe)
    assert equalized is not plain
    found = preview_accuracy(equalized, recipe, SilentContext())
    assert found.metrics == full(equalized, recipe)
    assert found.metrics != full(plain, recipe)
    assert len(plain.evaluator.store) == 0, "memory is for one network"
    preview_accuracy(plain, Recipe(), SilentContext(), once=True)
    assert len(equalized.evaluator.store) > 0, "what is tried once takes none"


def test_float_scores_that_are_known_are_not_computed_again(model, digits):
    bench = bench_of(model, digits, Recipe())
    scores = np.eye(10, dtype=np.float32)[np.zeros(200, np.int64)]
    keep_float_predictions(bench.original, "elsewhere", scores)
    assert float_predictions(bench.original, bench.split, bench.indices, "elsewhere") is scores


# ---- error over depth


def powers(network, split, indices, encodings, tensor):
    """Return mean power of a float tensor and of its noise."""
    signal = noise = count = 0.0
    with network.executor.evaluating():
        for _, inputs, _ in feeds(network, split, indices):
            seen = []
            for made in (FLOAT, encodings):
                values = {}
                SimulatedModel(network, made).run(inputs, observe=values.__setitem__)
                seen.append(values[tensor].double())
            signal += float((seen[0] ** 2).sum())
            noise += float(((seen[1] - seen[0]) ** 2).sum())
            count += seen[0].numel()
    return signal / count, noise / count


def test_depth_is_what_it_says(model, digits):
    recipe = Recipe().with_default(weight_bits=4, activation_bits=6)
    bench = bench_of(model, digits, recipe)
    found = depth_errors(bench, recipe, SilentContext())
    indices, whole = bench.indices[:MOST_SAMPLES], bench.encodings(recipe)
    assert found.samples == MOST_SAMPLES
    assert [noise.layer for noise in found.layers] == [
        layer.name for layer in bench.network.layers if layer.activation is not None
    ]
    output = bench.network.outputs[0]
    for layer in bench.network.layers:
        noise = found.layer(layer.name)
        if noise is None:
            continue
        assert noise.tensor == layer.activation.id
        signal, accumulated = powers(bench.network, bench.split, indices, whole, noise.tensor)
        sites = frozenset(site.id for site in (layer.weight, layer.activation) if site is not None)
        alone = joined(FLOAT, whole, sites)
        isolated = powers(bench.network, bench.split, indices, alone, noise.tensor)[1]
        out_signal, out_noise = powers(bench.network, bench.split, indices, alone, output)
        assert (noise.signal, noise.accumulated) == pytest.approx((signal, accumulated), rel=1e-9)
        assert (noise.isolated, noise.downstream) == pytest.approx((isolated, out_noise / out_signal), rel=1e-9)
        assert noise.accumulated_sqnr_db == pytest.approx(10 * math.log10(signal / accumulated))


def test_large_networks_get_fewer_samples(model, digits):
    layers = bench_of(model, digits, Recipe()).network.layers
    assert samples_for(layers) == MOST_SAMPLES
    resnet50 = [replace(layers[1], macs=77_000_000)] * 53
    assert 8 <= samples_for(resnet50) < 16
    assert samples_for([replace(layers[1], macs=10**12)] * 20) == 8


def test_depth_comes_layer_by_layer_and_float_layers_add_nothing(model, digits):
    recipe = Recipe().with_layers(("conv2",), weight_bits="float", activation_bits="float")
    bench = bench_of(model, digits, recipe)
    parts = []
    found = depth_errors(bench, recipe, SilentContext(), parts.append)
    assert all(noise.isolated is None for noise in parts[0].layers)
    assert all(noise.accumulated > 0 for noise in parts[0].layers)
    known = [sum(noise.isolated is not None for noise in part.layers) for part in parts]
    assert known == list(range(len(known)))
    assert parts[-1] == found
    assert found.layer("conv2").isolated is None
    assert found.layer("conv1").isolated > 0


def test_after_an_edit_only_the_edited_layer_is_measured_alone(model, digits, monkeypatch):
    bench = bench_of(model, digits, Recipe())
    first = depth_errors(bench, Recipe(), SilentContext())
    measured = []
    compare = type(bench.depth)._compare
    monkeypatch.setattr(
        type(bench.depth),
        "_compare",
        lambda self, made, tensors, ctx: measured.append(tensors) or compare(self, made, tensors, ctx),
    )
    second = depth_errors(bench, Recipe().with_layers(("conv2",), weight_bits=3), SilentContext())
    alone = [tensors for tensors in measured if len(tensors) == 1]
    assert alone == [[second.layer("conv2").tensor]]
    assert second.layer("conv2").isolated > first.layer("conv2").isolated
    assert second.layer("conv1") == first.layer("conv1")
