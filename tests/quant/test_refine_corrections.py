"""Bias correction, GPTQ and SmoothQuant against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper
from quant_cases import Recorder, model_of, small_cnn, weights
from refine_cases import CONV, calibrated, error, images, outputs, refined, task, uneven

from qstudio.core.errors import JobCancelled
from qstudio.quant.network import network_for
from qstudio.quant.refine.bias_correction import bias_correction
from qstudio.quant.refine.edited import with_biases
from qstudio.quant.refine.gptq import _columns, compensated_steps, gptq
from qstudio.quant.refine.smoothquant import smooth_places, smoothquant

LOW = {"weight_bits": 3, "weight_calibration": "mse"}


@pytest.fixture
def data(tmp_path):
    return images(tmp_path, (1, 8, 8))


# ---- bias correction


def test_every_layer_has_the_float_mean_after_correction(data):
    """On quantized inputs, layer by layer: the simulation's mean of every pre-activation is the float one."""
    network, result, simulation = refined(small_cnn(), data, ("bias_correction",), **LOW)
    plain = refined(small_cnn(), data, ("fold",), **LOW)[2]
    assert set(result.weight_values) == {"b1", "b2", "b3", "b4"}
    shifts = []
    for run in (simulation.run, plain.run):
        means, exact = {}, {}
        x = {"x": torch.from_numpy(data.test.batch(np.arange(len(data.test))))}
        with network.executor.evaluating():
            run(x, observe=lambda t, v, m=means: m.__setitem__(t, v))
            network.executor.run(x, observe=lambda t, v, m=exact: m.__setitem__(t, v))
        layers = ("c1", "c2", "c3", "y")
        found = [
            float(((means[t] - exact[t]).mean([0, *range(2, means[t].dim())])).abs().max() / exact[t].std())
            for t in layers
        ]
        shifts.append(found)
    # c2 and y carry a quantizer of their own, whose rounding the bias cannot take back to the last bit.
    assert max(shifts[0]) < 0.01
    assert max(shifts[1]) > 0.05
    assert error(network, data, simulation) < error(network, data, plain)


def test_layers_without_a_bias_are_given_one_and_the_function_stays(data):
    constants = {"w1": weights(4, 1, 3, 3, seed=1), "w2": weights(6, 4, 3, 3, seed=2), "w3": weights(64, 3, seed=3)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv", **CONV),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["d"], "conv2", **CONV),
        helper.make_node("Reshape", ["d", "shape"], ["e"], "reshape"),
        helper.make_node("MatMul", ["e", "w3"], ["y"], "product"),
    ]
    model = model_of(nodes, {**constants, "shape": np.array([-1, 6, 64])}, input_shape=(None, 1, 8, 8))
    network = network_for(model)
    biased = with_biases(network)
    added = {layer.name: layer.bias for layer in biased.layers if layer.weight is not None}
    assert {name for name, bias in added.items() if bias is not None} == {"conv", "conv2"}
    np.testing.assert_array_equal(outputs(biased, data), outputs(network, data))
    _, result, _ = refined(model, data, ("bias_correction",), **LOW)
    assert "product" in " ".join(result.notes)
    assert set(result.weight_values) == {added["conv"].id, added["conv2"].id}


def test_a_bias_that_two_layers_share_is_left_alone(data):
    constants = {"w1": weights(1, 1, 3, 3, seed=1), "w2": weights(1, 1, 3, 3, seed=2), "b": weights(1, seed=3)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b"], ["c"], "conv1", **CONV),
        helper.make_node("Conv", ["c", "w2", "b"], ["y"], "conv2", **CONV),
    ]
    network = network_for(model_of(nodes, constants, input_shape=(None, 1, 8, 8)))
    result = bias_correction(network, task(data, "bias_correction"), calibrated(network, data, **LOW))
    assert not result.weight_values
    assert "conv1, conv2" in result.notes[0]


# ---- GPTQ


def by_the_book(weight, scale, low, high, hessian, damping):
    """Round column by column, the inverse Hessian shrunk by elimination each time (GPTQ's equations 2 and 3)."""
    weight, hessian = weight.copy(), hessian + damping * hessian.diagonal().mean() * np.eye(len(hessian))
    inverse = np.linalg.inv(hessian)
    steps = np.zeros_like(weight)
    for k in range(weight.shape[1]):
        steps[:, k] = np.clip(np.rint(weight[:, k] / scale[:, k]), low, high)
        share = (weight[:, k] - steps[:, k] * scale[:, k]) / inverse[k, k]
        weight -= share[:, None] * inverse[k][None]
        inverse = inverse - np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
        inverse[k, :] = inverse[:, k] = 0.0
    return steps


def problem(rows=6, inner=150, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, inner))
    mixing = rng.normal(size=(inner, inner)) / np.sqrt(inner) + np.eye(inner)
    x = mixing @ rng.normal(size=(inner, 600))
    scale = np.broadcast_to(np.abs(weight).max(1, keepdims=True) / 3, weight.shape).copy()
    return weight, scale, 2 * x @ x.T, x


def solve(weight, scale, hessian, damping=0.01, act_order=False):
    full = np.ones_like(weight)
    arrays = [torch.tensor(a) for a in (weight, scale, -3 * full, 3 * full, hessian)]
    return compensated_steps(*arrays, damping, act_order).numpy()


def test_blocks_and_cholesky_give_what_elimination_gives():
    weight, scale, hessian, _ = problem()
    np.testing.assert_array_equal(solve(weight, scale, hessian), by_the_book(weight, scale, -3, 3, hessian, 0.01))


@pytest.mark.parametrize("act_order", [False, True])
def test_the_layer_error_is_far_below_that_of_rounding_to_nearest(act_order):
    weight, scale, hessian, x = problem()
    nearest = np.clip(np.rint(weight / scale), -3, 3)
    found = solve(weight, scale, hessian, act_order=act_order)

    def cost(steps):
        return float((((steps * scale - weight) @ x) ** 2).sum())

    assert np.abs(found).max() <= 3
    assert cost(found) < 0.6 * cost(nearest)


def test_independent_inputs_are_rounded_to_nearest():
    weight, scale, _, _ = problem()
    np.testing.assert_array_equal(solve(weight, scale, np.eye(150)), np.clip(np.rint(weight / scale), -3, 3))


def test_an_input_that_is_always_zero_does_no_harm():
    weight, scale, hessian, _ = problem()
    hessian[7, :] = hessian[:, 7] = 0.0
    assert np.isfinite(solve(weight, scale, hessian)).all()


@pytest.mark.parametrize(
    ("shape", "x_shape", "attributes"),
    [
        ((6, 2, 3, 3), (2, 4, 9, 8), {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}),
        ((4, 3, 3), (2, 3, 11), {"dilations": [2], "pads": [1, 2]}),
        ((4, 2, 2, 3, 2), (2, 4, 5, 6, 5), {"group": 2, "strides": [1, 2, 1]}),
        ((5, 3, 3, 3), (2, 3, 7, 7), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ],
)
def test_unfolded_inputs_times_rows_are_the_convolution(shape, x_shape, attributes):
    weight = weights(*shape, seed=1)
    kernel = {"kernel_shape": list(shape[2:])}
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", **kernel, **attributes)
    network = network_for(model_of([node], {"w": weight}, input_shape=(None, *x_shape[1:])))
    x = torch.from_numpy(weights(*x_shape, seed=2))
    step = next(s for s in network.executor.steps if s.onnx_node == "conv")
    groups = attributes.get("group", 1)
    columns = _columns(network.executor.module.get_submodule(str(step.node.target)), x, shape, groups)
    rows = torch.from_numpy(weight.reshape(groups, shape[0] // groups, -1))
    with network.executor.evaluating():
        wanted = network.executor.run({"x": x})["y"]
    found = (rows @ columns).reshape(shape[0], len(x), -1).movedim(0, 1).reshape(wanted.shape)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_gptq_brings_the_output_closer_where_inputs_are_alike(tmp_path):
    data = images(tmp_path, (1, 8, 8), alike=True)
    network, result, simulation = refined(small_cnn(), data, ("gptq",), **LOW)
    plain = refined(small_cnn(), data, ("fold",), **LOW)[2]
    assert set(result.weight_values) == {"w1", "w2", "w3", "w4"}
    assert error(network, data, simulation) < 0.8 * error(network, data, plain)


def test_gptq_can_be_stopped(data):
    network = network_for(small_cnn())
    with pytest.raises(JobCancelled):
        gptq(network, task(data, "gptq", Recorder(stop_after=2)), calibrated(network, data, **LOW))


# ---- SmoothQuant


def transformer_part(last="LayerNormalization", extra_reader=False):
    """Return a normalised tensor read by two products, with a few outlier channels."""
    gain = uneven(np.ones(16, np.float32), 0, 3, 100.0)
    constants = {
        "gain": gain,
        "offset": weights(16, seed=1),
        "wq": weights(16, 16, seed=2),
        "wk": weights(16, 16, seed=3),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "offset"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "wq"], ["q"], "query"),
        helper.make_node("MatMul", ["n", "wk"], ["k"], "key"),
        helper.make_node("Add", ["q", "k"], ["y"], "add"),
    ]
    if last == "Mul":
        nodes[0] = helper.make_node("Add", ["m", "offset"], ["n"], "shift")
        nodes.insert(0, helper.make_node("Mul", ["x", "gain"], ["m"], "scale"))
    if extra_reader:
        nodes[-1] = helper.make_node("Add", ["q", "n"], ["y"], "add")
        nodes.pop(-2)
        constants.pop("wk")
    return model_of(nodes, constants, input_shape=(None, 5, 16))


@pytest.mark.parametrize("last", ["LayerNormalization", "Mul"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_stays_and_outliers_move_into_the_weights(tmp_path, last, alpha):
    data = images(tmp_path, (5, 16))
    network = network_for(transformer_part(last))
    smooth = smoothquant(network, task(data, "smoothquant", alpha=alpha))
    exact = outputs(network, data)
    assert np.abs(outputs(smooth, data) - exact).max() < 1e-4 * np.abs(exact).max()
    x = {"x": torch.from_numpy(data.test.batch(np.arange(len(data.test))))}
    reach = []
    for net in (network, smooth):
        kept = {}
        with net.executor.evaluating():
            net.executor.run(x, observe=lambda t, v, k=kept: k.__setitem__(t, v))
        reach.append(kept["n"].abs().amax((0, 1)).numpy())
    rows = np.maximum(*(np.abs(network.value(w)).max(1) for w in ("wq", "wk")))
    np.testing.assert_allclose(reach[1], reach[0] ** (1 - alpha) * rows ** (1 - alpha), rtol=1e-3)


def test_a_tensor_that_something_else_reads_is_left_alone(tmp_path):
    data = images(tmp_path, (5, 16))
    network = network_for(transformer_part(extra_reader=True))
    assert smooth_places(network) == ()
    smooth = smoothquant(network, task(data, "smoothquant"))
    assert "no normalised tensor" in smooth.notes[-1]
    np.testing.assert_array_equal(outputs(smooth, data), outputs(network, data))


def test_smoothing_helps_coarse_activations(tmp_path):
    data = images(tmp_path, (5, 16))
    network, _, simulation = refined(transformer_part(), data, ("smoothquant",), activation_bits=6)
    plain = refined(transformer_part(), data, ("fold",), activation_bits=6)[2]
    assert error(network, data, simulation) < 0.7 * error(network, data, plain)
