"""Training itself: methods, stages, losses, samples, and what comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from qat_cases import SHORT, same, train
from quant_cases import model_of, small_cnn, weights

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.resources import shipped_directory
from qstudio.core.training import METHODS, Training
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.evaluate import predict
from qstudio.quant.network import network_for
from qstudio.quant.ptq import PtqOptions, run_ptq
from qstudio.quant.qat.losses import divergence, loss_of
from qstudio.quant.qat.run import run_qat
from qstudio.quant.qat.samples import TrainingSamples
from qstudio.quant.qat.schedule import Stepper, rate_factor, stages_of
from qstudio.quant.qat.starting import formula_encoding, stage_recipe, starting_encodings
from qstudio.quant.qat.student import Student
from qstudio.quant.qat.train import better

LEARNING = Training(epochs=8, learning_rate=2e-3)


def trained_model():
    """Return the CNN that comes with the program."""
    return load_model(str(shipped_directory("sample_models") / "digits_cnn.onnx"))


@pytest.mark.parametrize("method", METHODS)
def test_each_method_learns_and_exports_what_it_simulates(method):
    result = train(replace(LEARNING, method=method), bits=2, model=trained_model())
    first, last = result.curve[0], result.curve[-1]
    assert last.loss < result.curve[1].loss
    assert last.quantized_top1 > first.quantized_top1 + 20
    assert result.run.parity.agreement == 100.0
    assert result.run.parity.max_lsb <= 1
    assert result.run.simulated.top1 > result.run.float.top1 - 25
    assert [point.epoch for point in result.curve] == list(range(9))
    assert all(scale > 0 for point in result.curve for _, scale in point.scales)


def test_learned_scales_move_and_fixed_ones_do_not():
    for method, moves in (("lsq", True), ("dorefa", False)):
        curve = train(replace(LEARNING, epochs=1, method=method)).curve
        before, after = (dict(point.scales) for point in (curve[0], curve[-1]))
        assert (before["r1"] != after["r1"]) is moves


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    same(train(SHORT), train(SHORT))
    network = network_for(small_cnn())
    data = load_dataset("digits")
    orders = [next(iter(TrainingSamples(network, data, None, SHORT, seed, True).batches(1)))[0] for seed in (0, 1)]
    assert orders[0].tolist() != orders[1].tolist()


def test_the_network_is_left_as_it_was():
    model = small_cnn()
    network = network_for(model)
    data = load_dataset("digits")
    chosen = np.arange(32)
    before = predict(network, network.executor.run, data.test, chosen)
    proto = model.proto.SerializeToString()
    train(replace(SHORT, epochs=1), model=model)
    np.testing.assert_array_equal(predict(network, network.executor.run, data.test, chosen), before)
    assert model.proto.SerializeToString() == proto


def test_held_out_trained_and_evaluated_samples_are_apart():
    network, data = network_for(small_cnn()), load_dataset("digits")
    samples = TrainingSamples(network, data, None, Training(), 0, False)
    assert samples.split is data.train
    assert samples.split is not data.test
    assert not set(samples.held_out) & set(samples.trained)
    assert len(samples.held_out) + len(samples.trained) == len(data.train)
    seen = np.concatenate([positions for positions, _, _ in samples.batches(1)])
    assert sorted(seen) == list(range(len(samples.trained)))
    assert [p.tolist() for p, _, _ in samples.batches(1)] != [p.tolist() for p, _, _ in samples.batches(2)]


def test_crops_are_black_bordered_shifts_and_flips_mirror():
    network, data = network_for(small_cnn()), load_dataset("digits")
    samples = TrainingSamples(network, data, None, Training(crop_padding=2, flip=True, samples=200), 0, False)
    shifts, mirrored = set(), 0
    for positions, inputs, _ in samples.batches(1):
        for position, image in zip(positions, inputs.numpy(), strict=True):
            original = data.train.batch([samples.trained[position]])[0]
            found = None
            for mirror in (False, True):
                framed = np.pad(original, ((0, 0), (2, 2), (2, 2)))
                for down in range(5):
                    for right in range(5):
                        part = framed[:, down : down + 8, right : right + 8]
                        if np.array_equal(part[:, :, ::-1] if mirror else part, image):
                            found = (down, right, mirror)
            assert found is not None
            shifts.add(found[:2])
            mirrored += found[2]
    assert len(shifts) > 15
    assert 50 < mirrored < 130


def test_the_loss_is_its_formula():
    scores, teacher = torch.randn(5, 4), torch.randn(5, 4)
    labels = torch.tensor([0, 3, 1, 2, 2])
    chosen = Training(distill=0.3, temperature=3.0, feature_weight=0.5)
    p, q = torch.softmax(teacher / 3, 1), torch.softmax(scores / 3, 1)
    expected = 0.7 * -torch.log_softmax(scores, 1)[torch.arange(5), labels].mean()
    expected += 0.3 * 9 * (p * (p.log() - q.log())).sum(1).mean()
    features = {"a": torch.ones(2, 2), "b": torch.zeros(3)}
    wanted = {"a": torch.full((2, 2), 2.0), "b": torch.ones(3)}
    expected += 0.5 * (1 / 4 + 1) / 2
    torch.testing.assert_close(loss_of(scores, labels, teacher, features, wanted, chosen), expected)
    torch.testing.assert_close(
        loss_of(scores, None, teacher, {}, {}, Training(temperature=1.0)), divergence(scores, teacher)
    )


def test_rates_warm_up_and_fall_along_a_cosine():
    chosen = Training(warmup_epochs=1.0)
    rates = [rate_factor(chosen, step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    constant = replace(chosen, schedule="constant")
    assert {rate_factor(constant, step, 100, 10) for step in range(10, 100)} == {1.0}


def test_scales_and_biases_are_never_decayed():
    network = network_for(small_cnn())
    recipe = Recipe().with_default(weight_bits=4, activation_bits=4)
    from qstudio.quant.calibrate import activation_statistics

    statistics = activation_statistics(network, load_dataset("digits").test, np.arange(32))
    chosen = Training(method="lsq+", weight_decay=0.1)
    student = Student(network, starting_encodings(network, recipe, statistics, {}, chosen), {}, chosen)
    decayed = [
        id(leaf)
        for group in Stepper(student, chosen).optimizer.param_groups
        if group["weight_decay"]
        for leaf in group["params"]
    ]
    assert sorted(decayed) == sorted(id(weight.leaf) for weight in student.weights.values())
    groups = Stepper(student, chosen).optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(student.leaves())


def test_stages_share_the_epochs_and_only_raise_bits():
    assert [(s.bits, s.first_epoch, s.last_epoch) for s in stages_of((8, 4, 2), 11)] == [
        (8, 1, 3),
        (4, 4, 6),
        (2, 7, 11),
    ]
    recipe = Recipe().with_default(weight_bits=2, activation_bits=3).with_layers(("fc",), weight_bits=8)
    raised = stage_recipe(recipe, 4)
    assert (raised.settings("conv1").weight_bits, raised.settings("conv1").activation_bits) == (4, 4)
    assert raised.settings("fc").weight_bits == 8
    bits = [point.bits for point in train(Training(epochs=3, samples=100, progressive_bits=(8, 4)), bits=2).curve]
    assert bits == [8, 8, 4, 2]


def test_the_formulas_of_initial_steps():
    network = network_for(small_cnn())
    site = network.weight_sites[0]
    w = network.value(site.id)
    scheme = Recipe().with_default(weight_bits=4).settings("conv1").weight_scheme()
    rows = w.reshape(len(w), -1).astype(np.float64)
    lsq = formula_encoding(scheme, site, w, "lsq").scale
    np.testing.assert_allclose(lsq, 2 * np.abs(rows).mean(1) / np.sqrt(7), rtol=1e-6)
    plus = formula_encoding(scheme, site, w, "lsq+").scale
    edges = np.abs([rows.mean(1) - 3 * rows.std(1), rows.mean(1) + 3 * rows.std(1)]).max(0)
    np.testing.assert_allclose(plus, edges / 8, rtol=1e-6)


def test_a_network_that_starts_at_eight_bits_starts_at_the_accuracy_of_ptq():
    model, data = trained_model(), load_dataset("digits")
    options = PtqOptions(calibration_samples=128, measure_latency=False, threads=1)
    ptq = run_ptq(model, data, Recipe(), options)
    chosen = Training(epochs=1, learning_rate=1e-9, scale_rate=0.0, initial_scales="ptq", samples=128)
    trained = run_qat(model, data, Recipe(), chosen, options)
    assert trained.run.simulated.top1 == pytest.approx(ptq.simulated.top1, abs=0.2)
    assert trained.run.float == ptq.float
    assert trained.run.size_bytes.quantized == ptq.size_bytes.quantized


def test_without_labels_the_float_model_is_the_teacher(tmp_path):
    data = load_dataset("digits")
    np.savez(tmp_path / "plain.npz", x_train=data.train.batch(np.arange(300)), x_test=data.test.batch(np.arange(100)))
    plain = load_dataset(str(tmp_path / "plain.npz"))
    options = PtqOptions(calibration_samples=64, measure_latency=False, threads=1)
    recipe = Recipe().with_default(weight_bits=2, activation_bits=2)
    with pytest.raises(UserError, match="no labels"):
        run_qat(trained_model(), plain, recipe, Training(epochs=1), options)
    chosen = Training(epochs=5, distill=1.0, learning_rate=2e-3)
    result = run_qat(trained_model(), plain, recipe, chosen, options)
    assert result.curve[0].float_top1 == 100.0
    assert result.curve[-1].held_out_loss < result.curve[0].held_out_loss / 2
    assert result.run.simulated.top1 is None
    assert result.run.simulated.agreement > 60


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": "lsq++"}, "no method 'lsq\\+\\+'"),
        ({"epochs": 0}, "epochs: 0 is out of bounds"),
        ({"learning_rate": 0.0}, "learning rate: 0 is out of bounds"),
        ({"learning_rate": float("nan")}, "learning rate: nan is out of bounds"),
        ({"distill": 1.5}, "distillation share"),
        ({"progressive_bits": (2, 4)}, "not falling"),
        ({"epochs": 2, "progressive_bits": (8, 4)}, "too few"),
        ({"held_out": 0.9}, "held-out share"),
    ],
)
def test_settings_out_of_bounds_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        Training(**{"warmup_epochs": 0.0, **values})


def test_settings_survive_json():
    chosen = Training(method="lsq+", progressive_bits=(8, 4), samples=100)
    assert Training.from_json(chosen.to_json()) == chosen
    with pytest.raises(UserError, match="not settings"):
        Training.from_json({"colour": 1})


def test_data_without_a_training_split_is_refused_and_other_data_taken(tmp_path):
    data = load_dataset("digits")
    np.savez(tmp_path / "test.npz", x=data.test.batch(np.arange(100)), y=data.test.labels[:100])
    single = load_dataset(str(tmp_path / "test.npz"))
    options = PtqOptions(calibration_samples=32, measure_latency=False, threads=1)
    with pytest.raises(UserError, match="no training split"):
        run_qat(small_cnn(), single, Recipe(), Training(epochs=1), options)
    result = run_qat(small_cnn(), single, Recipe(), Training(epochs=1, samples=100), options, calibration_dataset=data)
    assert result.training_samples == 90
    assert result.run.simulated.samples == 100


def test_a_fixed_batch_size_is_kept_to():
    base = small_cnn().proto
    fixed = onnx.ModelProto()
    fixed.CopyFrom(base)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    from qstudio.graph.load import LoadedModel

    model = LoadedModel("", onnx.shape_inference.infer_shapes(fixed), "fixed", "onnx")
    result = train(replace(SHORT, epochs=1, samples=100), model=model)
    assert result.training_samples == 90
    assert result.curve[-1].loss is not None


def test_an_output_that_is_no_row_of_scores_is_refused():
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv", kernel_shape=[8, 8])
    model = model_of([node], {"w": weights(1, 1, 8, 8)}, (None, 1, 8, 8))
    with pytest.raises(UserError, match="class"):
        train(replace(SHORT, epochs=1), model=model)


def test_a_diverging_training_says_so():
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["f"], "flatten"),
        onnx.helper.make_node("MatMul", ["f", "w1"], ["h"], "first"),
        onnx.helper.make_node("MatMul", ["h", "w2"], ["y"], "second"),
    ]
    model = model_of(nodes, {"w1": weights(64, 32), "w2": weights(32, 10)}, (None, 1, 8, 8))
    chosen = Training(epochs=8, samples=300, learning_rate=10.0, optimizer="sgd", clip_norm=0.0, warmup_epochs=0.0)
    with pytest.raises(UserError, match="infinite"):
        train(chosen, bits="float", model=model)


@pytest.mark.parametrize(
    ("score", "best", "samples", "wanted"),
    [
        ((10.0, -2.0), None, 100, True),
        ((95.0, -0.5), (80.0, -0.1), 100, True),
        ((79.0, -0.05), (95.0, -0.5), 100, False),
        ((99.0, -0.05), (100.0, -0.5), 120, True),
        ((100.0, -0.5), (99.5, -0.05), 120, False),
        ((99.0, -0.05), (100.0, -0.5), 100_000, False),
    ],
)
def test_accuracy_decides_where_the_samples_can_tell_and_the_loss_elsewhere(score, best, samples, wanted):
    assert better(score, best, samples) is wanted
