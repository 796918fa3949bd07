"""BatchNormalization that is kept while training: its formula, its statistics, its folding, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from qat_cases import LIVE, norm, normed_cnn, same, train
from quant_cases import model_of, small_cnn, weights

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.training import METHODS, Training
from qstudio.data.load import load_dataset
from qstudio.graph.prepare import initializer_array
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.network import network_for
from qstudio.quant.ptq import PtqOptions
from qstudio.quant.qat.batchnorm import file_norms
from qstudio.quant.qat.run import run_qat
from qstudio.quant.qat.starting import starting_encodings
from qstudio.quant.qat.student import Student

HERE = Path(__file__).parent
QUICK = Training(epochs=2, samples=200, learning_rate=5e-3, batchnorm="live", batchnorm_freeze=0.5)


def student_of(model, bits, training):
    network = network_for(model)
    recipe = Recipe().with_default(weight_bits=bits, activation_bits=bits)
    statistics = activation_statistics(network, load_dataset("digits").test, np.arange(32))
    norms, notes = file_norms(model.proto, network)
    assert not notes
    encodings = starting_encodings(network, recipe, statistics, {}, training)
    return Student(network, encodings, {}, training, norms)


def images(count=32):
    return torch.from_numpy(load_dataset("digits").test.batch(np.arange(count)))


def test_what_is_trained_starts_as_the_folded_network():
    student = student_of(normed_cnn(), "float", QUICK)
    assert sorted(norm.start.layer for norm in student.norms.values()) == ["conv1", "conv2", "hidden", "up"]
    for name, values in student.float_values().items():
        np.testing.assert_allclose(values, student.network.value(name), rtol=2e-5, atol=1e-6)
    names = set(student.leaves())
    assert {"w1:gamma", "w1:beta", "w5:plain", "b5:plain"} <= names
    assert not {"b1:plain", "w2_bias:plain"} & names, "the shift of a normalisation takes the place of a bias"


@pytest.mark.parametrize("bits", ["float", 2])
def test_live_statistics_are_the_formula_of_the_paper(bits):
    """y = sigma / sigma_B conv(x, Q(w gamma / sigma)) + beta - mu_B gamma / sigma_B, of the first layer."""
    model = normed_cnn()
    student = student_of(model, bits, QUICK)
    start = student.norms["w1"].start
    weight = student.parameters()["w1"].detach().double()
    before = (student.activations["x"](images()) if bits == 2 else images()).detach().double()
    product = torch.nn.functional.conv2d(before, weight, padding=1)
    sigma = torch.from_numpy(np.sqrt(start.variance.astype(np.float64) + 1e-3))
    gain = torch.from_numpy(start.gamma.astype(np.float64)) / sigma
    raw = product / gain.reshape(-1, 1, 1)
    mean, variance = raw.mean((0, 2, 3)), raw.var((0, 2, 3), unbiased=False)
    batch_sigma = torch.sqrt(variance + 1e-3)
    wanted = product * (sigma / batch_sigma).reshape(-1, 1, 1)
    wanted += (torch.from_numpy(start.beta) - mean * gain * sigma / batch_sigma).reshape(-1, 1, 1)
    seen = {}
    student.run_live({"x": images()}, lambda name, values: seen.setdefault(name, values.detach()))
    np.testing.assert_allclose(seen["n1"].numpy(), wanted.numpy(), rtol=1e-4, atol=2e-5)
    many = raw.numel() / raw.shape[1]
    kept = student.norms["w1"]
    np.testing.assert_allclose(kept.mean.numpy(), 0.8 * start.mean + 0.2 * mean.numpy(), rtol=1e-4, atol=1e-6)
    moved = 0.8 * start.variance + 0.2 * variance.numpy() * many / (many - 1)
    np.testing.assert_allclose(kept.variance.numpy(), moved, rtol=1e-4)


def test_the_bias_of_the_file_is_in_the_mean_and_a_single_value_has_no_deviation():
    model = normed_cnn()
    student = student_of(model, 4, QUICK)
    file_mean = initializer_array(model.proto, "n1_mean") - initializer_array(model.proto, "b1")
    np.testing.assert_allclose(student.norms["w1"].mean.numpy(), file_mean, rtol=1e-6)
    before = student.norms["w4"].mean.clone()
    student.run_live({"x": images(1)})
    assert torch.equal(student.norms["w4"].mean, before), "one row in a Gemm"
    assert not np.allclose(student.norms["w1"].mean.numpy(), file_mean), "many places in a Conv"


@pytest.mark.parametrize(("method", "how"), [*((method, "live") for method in METHODS), ("lsq", "frozen")])
def test_what_was_kept_is_folded_and_exported_as_simulated(method, how):
    result = train(replace(QUICK, method=method, batchnorm=how, epochs=10), model=normed_cnn(), bits=3)
    assert result.curve[-1].loss < result.curve[1].loss
    assert result.curve[-1].held_out_loss < result.curve[0].held_out_loss
    assert result.run.parity.agreement == 100.0
    assert result.run.parity.max_lsb <= 1
    assert result.run.exported.top1 == result.run.simulated.top1
    with_words = [note for note in result.run.notes if "folded at the end" in note]
    assert len(with_words) == 1
    assert with_words[0].startswith("4 BatchNormalizations were trained")
    assert ("50 % of the steps" in with_words[0]) is (how == "live")
    assert result.training.batchnorm == how


def test_live_statistics_that_are_frozen_at_once_never_move():
    frozen = train(replace(QUICK, batchnorm="frozen"), model=normed_cnn())
    same(train(replace(QUICK, batchnorm_freeze=0.0), model=normed_cnn()), frozen)
    folded = train(replace(QUICK, batchnorm="folded"), model=normed_cnn())
    assert folded.curve[0].held_out_loss == pytest.approx(frozen.curve[0].held_out_loss, abs=2e-2)
    assert folded.curve[-1].loss != frozen.curve[-1].loss


def test_a_killed_training_with_live_statistics_resumes_to_the_same_numbers(tmp_path):
    whole = train(LIVE, model=normed_cnn())
    # In the live part of the second stage, whose statistics come from the first.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "qat_cases.py"), str(tmp_path / "c"), "live", "4"]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.split()[-1] == "3"
    resumed = train(LIVE, model=normed_cnn(), folder=tmp_path / "c", resume=True)
    assert resumed.resumed_after == 3
    same(resumed, whole)


@pytest.mark.parametrize("changes", [{"method": "dorefa"}, {"progressive_bits": (4,)}, {"batchnorm": "frozen"}])
def test_a_stopped_training_goes_on_with_the_statistics_it_had(changes, tmp_path):
    chosen = replace(QUICK, epochs=3, **changes)

    def stop(point):
        if point.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(chosen, model=normed_cnn(), folder=tmp_path / "c", on_point=stop)
    assert json.loads((tmp_path / "c" / "checkpoint.json").read_text())["identity"]["batchnorm"] == chosen.batchnorm
    same(train(chosen, model=normed_cnn(), folder=tmp_path / "c", resume=True), train(chosen, model=normed_cnn()))


def test_pruned_weights_stay_zero_and_float_layers_are_trained_too():
    recipe = Recipe().with_default(pruning="magnitude:50", weight_bits=4).with_layers(("up",), weight_bits="float")
    options = PtqOptions(calibration_samples=64, eval_samples=100, measure_latency=False, threads=1)
    result = run_qat(normed_cnn(), load_dataset("digits"), recipe, replace(QUICK, pruning_steps=2), options)
    sparsity = {layer.name: layer.sparsity for layer in result.run.layers if layer.sparsity is not None}
    assert sparsity["up"] == pytest.approx(50, abs=1)
    assert min(sparsity.values()) >= 48
    assert result.run.parity.agreement == 100.0


def test_without_a_normalisation_to_keep_nothing_changes():
    kept, folded = train(QUICK), train(replace(QUICK, batchnorm="folded"))
    same(kept, folded)
    assert any("no BatchNormalization that training could keep" in note for note in kept.run.notes)
    assert not any("BatchNormalization" in note for note in folded.run.notes)


def test_what_cannot_be_kept_is_folded_and_said():
    constants = {"w": weights(64, 10), "b": weights(10), **norm(10, 1, "n")}
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["h"], "fc", alpha=0.5),
        helper.make_node(
            "BatchNormalization", ["h", *(f"n_{p}" for p in ("gamma", "beta", "mean", "variance"))], ["y"]
        ),
    ]
    model = model_of(nodes, constants, (None, 1, 8, 8))
    norms, notes = file_norms(model.proto, network_for(model))
    assert not norms
    assert "fc has no bias of its own" in notes[0]


@pytest.mark.parametrize("method", ["dorefa", "pact"])
def test_one_scale_for_all_channels_cannot_take_the_gain_of_a_normalisation(method):
    recipe = Recipe().with_default(weight_bits=3, weight_granularity="tensor")
    options = PtqOptions(calibration_samples=32, eval_samples=32, measure_latency=False, threads=1)
    with pytest.raises(UserError, match=r"conv1.*scale of each channel"):
        run_qat(normed_cnn(), load_dataset("digits"), recipe, replace(QUICK, method=method), options)


def test_a_recipe_that_does_not_fold_is_refused():
    options = PtqOptions(calibration_samples=32, eval_samples=32, measure_latency=False, threads=1)
    with pytest.raises(UserError, match="the recipe does not fold"):
        run_qat(small_cnn(), load_dataset("digits"), replace(Recipe(), refinements=()), QUICK, options)


@pytest.mark.parametrize(
    ("values", "said"),
    [({"batchnorm": "warm"}, "no batchnorm 'warm'"), ({"batchnorm_freeze": 70.0}, "BatchNorm freeze: 70 is out")],
)
def test_settings_that_do_not_exist_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        Training(**values)
