"""Cross-layer equalization: the function stays, the ranges become even."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from quant_cases import model_of, weights
from refine_cases import CONV, depthwise_chain, images, outputs, refined, task, uneven

from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.network import network_for
from qstudio.quant.refine.channels import WeightLayout
from qstudio.quant.refine.cle import HEADROOM, cle
from qstudio.quant.refine.equalize_pairs import equalizable_pairs


def relative(found, wanted):
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("activation", ["Relu", "PRelu", "LeakyRelu", "Clip"])
def test_the_function_stays(tmp_path, activation):
    data = images(tmp_path, (3, 8, 8))
    network = network_for(depthwise_chain(activation))
    equalized = cle(network, task(data, "cle", absorb=0))
    assert relative(outputs(equalized, data), outputs(network, data)) < 1e-4
    changed = [s.id for s in network.weight_sites if not np.array_equal(network.value(s.id), equalized.value(s.id))]
    assert len(changed) >= 2


def test_ranges_of_a_depthwise_triple_become_equal(tmp_path):
    data = images(tmp_path, (3, 8, 8))
    network = network_for(depthwise_chain())
    equalized = cle(network, task(data, "cle", absorb=0))
    first = np.abs(equalized.value("w1")).max((1, 2, 3))
    middle = np.abs(equalized.value("w2")).max((1, 2, 3))
    last = np.abs(equalized.value("w3")).max((0, 2, 3))
    np.testing.assert_allclose(first, middle, rtol=0.01)
    np.testing.assert_allclose(last, middle, rtol=0.01)
    before = np.abs(network.value("w1")).max((1, 2, 3))
    assert first.max() / first.min() < before.max() / before.min()


def test_a_clip_that_cuts_nothing_becomes_a_relu(tmp_path):
    data = images(tmp_path, (3, 8, 8))
    equalized = cle(network_for(depthwise_chain("Clip", bound=1e4)), task(data, "cle", absorb=0))
    assert [n.op_type for n in equalized.proto.graph.node].count("Clip") == 0
    assert not {"low", "high"} & {t.name for t in equalized.proto.graph.initializer}


def test_a_clip_that_cuts_stays_and_no_scaled_channel_meets_it(tmp_path):
    data = images(tmp_path, (3, 8, 8))
    network = network_for(depthwise_chain("Clip", bound=6.0))
    equalized = cle(network, task(data, "cle", absorb=0))
    assert [n.op_type for n in equalized.proto.graph.node].count("Clip") == 2
    before = values_at(network, data, "c1")
    after = values_at(equalized, data, "c1")
    moved = ~np.isclose(network.value("w1"), equalized.value("w1"), rtol=1e-6).all((1, 2, 3))
    assert moved.any()
    assert not moved.all()
    assert (before.max((0, 2, 3))[moved] < 6.0).all()
    margin = HEADROOM * (after.max((0, 2, 3)) - after.min((0, 2, 3)))
    assert ((after.max((0, 2, 3)) + margin)[moved] <= 6.0 * (1 + 1e-5)).all()


def test_the_allowed_share_makes_a_relu_of_a_clip_that_cuts(tmp_path):
    data = images(tmp_path, (3, 8, 8))
    network = network_for(depthwise_chain("Clip", bound=6.0))
    above = float((values_at(network, data, "c1") > 6.0).mean())
    assert 0.0 < above < 0.5
    equalized = cle(network, task(data, "cle", absorb=0, clip_share=100.0 * above + 1e-3))
    assert {n.name: n.op_type for n in equalized.proto.graph.node}["act1"] == "Relu"


def values_at(network, data, tensor):
    kept = {}
    x = data.test.batch(np.arange(len(data.test)))
    import torch

    with network.executor.evaluating():
        network.executor.run(
            {network.inputs[0]: torch.from_numpy(x)}, observe=lambda t, v: kept.__setitem__(t, v.numpy())
        )
    return kept[tensor]


def test_high_biases_are_absorbed_where_the_next_layer_does_not_pad(tmp_path):
    data = images(tmp_path, (3, 8, 8))
    constants = {
        "w1": weights(6, 3, 3, 3, seed=1, scale=0.02),
        "b1": np.array([0.0, 5.0, 9.0, 0.1, 4.0, 0.0], np.float32),
        "w2": weights(4, 6, 1, 1, seed=3),
        "b2": weights(4, seed=4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", **CONV),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["y"], "conv2", kernel_shape=[1, 1]),
    ]
    network = network_for(model_of(nodes, constants))
    plain = cle(network, task(data, "cle", absorb=0))
    absorbed = cle(network, task(data, "cle", absorb=1))
    # Every value of these channels lies more than 3 deviations above 0, so the function stays.
    assert values_at(network, data, "c1")[:, 1].min() > 0
    moved = plain.value("b1") - absorbed.value("b1")
    assert (moved[[1, 2, 4]] > 0).all()
    assert (moved[[0, 3, 5]] == 0).all()
    assert values_at(absorbed, data, "r1").max() < values_at(plain, data, "r1").max()
    assert relative(outputs(absorbed, data), outputs(network, data)) < 0.02


def test_absorbing_stops_at_padding():
    network = network_for(depthwise_chain())
    pairs = {pair.second.name: pair.padded for pair in equalizable_pairs(network)}
    assert pairs == {"depthwise": True, "pointwise": False, "fc": False}


def test_a_flatten_between_gives_each_channel_its_columns(tmp_path):
    data = images(tmp_path, (3, 8, 8))
    constants = {"w1": uneven(weights(4, 3, 3, 3, seed=1), 0, 5), "w2": weights(256, 5, seed=2)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv", **CONV),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], "fc"),
    ]
    network = network_for(model_of(nodes, constants))
    (pair,) = equalizable_pairs(network)
    assert pair.repeat == 64
    equalized = cle(network, task(data, "cle"))
    assert not np.array_equal(equalized.value("w1"), network.value("w1"))
    assert relative(outputs(equalized, data), outputs(network, data)) < 1e-4


@pytest.mark.parametrize("obstacle", ["Sigmoid", "branch", "output", "shared"])
def test_what_cannot_be_rescaled_is_left_alone(obstacle):
    constants = {"w1": weights(3, 3, 3, 3, seed=1), "w2": weights(3, 3, 3, 3, seed=2)}
    second = "w1" if obstacle == "shared" else "w2"
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv1", **CONV),
        helper.make_node("Sigmoid" if obstacle == "Sigmoid" else "Relu", ["c"], ["r"], "act"),
        helper.make_node("Conv", ["r", second], ["y"], "conv2", **CONV),
    ]
    if obstacle == "branch":
        nodes[-1] = helper.make_node("Conv", ["r", "w2"], ["d"], "conv2", **CONV)
        nodes.append(helper.make_node("Add", ["d", "r"], ["y"], "add"))
    used = {name: value for name, value in constants.items() if name == "w1" or obstacle != "shared"}
    outs = ("y", "r") if obstacle == "output" else ("y",)
    assert equalizable_pairs(network_for(model_of(nodes, used, outputs=outs))) == ()


@pytest.mark.parametrize(
    ("layout", "shape", "groups"),
    [
        (WeightLayout("Conv", 2), (6, 2, 3, 3), 2),
        (WeightLayout("ConvTranspose", 2), (4, 3, 3, 3), 2),
        (WeightLayout("Gemm", transposed=True), (6, 4), 1),
        (WeightLayout("Gemm"), (4, 6), 1),
        (WeightLayout("MatMul"), (4, 6), 1),
    ],
)
def test_layouts_scale_the_channels_they_show(layout, shape, groups):
    weight = np.random.default_rng(0).normal(size=shape)
    outs, ins = layout.outputs_first(weight), layout.inputs_first(weight)
    assert outs.shape[0] == 6
    assert ins.shape[0] == 4
    assert np.allclose(np.sort(outs, axis=None), np.sort(weight, axis=None))
    factor = np.arange(1.0, 7.0)
    np.testing.assert_allclose(layout.outputs_first(layout.scale_outputs(weight, factor)), outs * factor[:, None])
    factor = np.arange(1.0, 5.0)
    np.testing.assert_allclose(layout.inputs_first(layout.scale_inputs(weight, factor)), ins * factor[:, None])


def test_it_brings_back_what_one_scale_per_tensor_costs_a_depthwise_network():
    """At least 80 % of the loss of digits_mobilenet at 8 bits (46 % of 99.67 % correct without it)."""
    from qstudio.core.resources import shipped_directory

    data = load_dataset("digits")
    model = load_model(str(shipped_directory("sample_models") / "digits_mobilenet.onnx"))
    labels = data.test.labels

    def correct(names):
        network, _, simulation = refined(model, data, names, weight_granularity="tensor")
        return 100.0 * float((outputs(network, data, simulation.run).argmax(1) == labels).mean())

    network = network_for(model)
    exact = 100.0 * float((outputs(network, data).argmax(1) == labels).mean())
    plain = correct(("fold",))
    assert exact - plain > 40.0
    assert exact - correct(("cle", "bias_correction")) <= 0.2 * (exact - plain)
