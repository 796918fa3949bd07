"""The simulation against the exported file in onnxruntime, on the integer grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quant_cases import small_cnn, weights

from qstudio.backends.qdq import export_qdq
from qstudio.core.affine import dequantize, quantize
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.graph.opset import raise_opset
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.evaluate import predict
from qstudio.quant.network import network_for
from qstudio.quant.ordered import stride_k
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.verify import code_differences, exported_scores

SAMPLES = np.arange(100)
RECIPES = {
    "W8A8": Recipe(),
    "W8A8 per tensor": Recipe().with_default(weight_granularity="tensor"),
    "W8A8 symmetric activations": Recipe().with_default(activation_symmetric=True),
    "W4A8": Recipe().with_default(weight_bits=4, weight_calibration="mse"),
    "W4A4 asymmetric": Recipe().with_default(weight_bits=4, activation_bits=4, weight_symmetric=False),
    "groups": Recipe().with_default(weight_bits=4, weight_granularity="group:16"),
    "A16": Recipe().with_default(activation_bits=16),
    "mixed": Recipe().with_layers(("conv2",), weight_bits="float").with_layers(("add",), activation_bits="float"),
}


@pytest.fixture(scope="module")
def network():
    return network_for(small_cnn())


@pytest.fixture(scope="module")
def split():
    return load_dataset("digits").test


def simulated(network, split, recipe, **options):
    statistics = activation_statistics(network, split, np.arange(64), "simulate tests")
    return SimulatedModel(network, encodings_for(network.layers, recipe, statistics, network.weights()), **options)


def exported(model):
    network = model.network
    return export_qdq(network.proto, network.layers, model.activations, model.weights, raise_opset=raise_opset)


@pytest.mark.parametrize("name", RECIPES)
def test_the_simulation_equals_the_unfused_export(network, split, name):
    model = simulated(network, split, RECIPES[name], ordered=True)
    proto = exported(model)
    differences = code_differences(proto, model, split, SAMPLES)
    assert {d.tensor for d in differences} >= {"x", "y"}
    assert max(d.max_lsb for d in differences) <= 1
    assert sum(d.differing for d in differences) <= 1e-4 * sum(d.compared for d in differences)
    scores = predict(network, model.run, split, SAMPLES)
    plain = exported_scores(proto, model, split, SAMPLES, optimize=False)
    assert (scores.argmax(1) == plain.argmax(1)).mean() >= 0.9995


def test_torchs_own_sums_differ_by_a_step_at_most_here(network, split):
    model = simulated(network, split, Recipe())
    differences = code_differences(exported(model), model, split, SAMPLES)
    assert max(d.max_lsb for d in differences) <= 1


def test_bias_is_int32_with_the_scale_of_input_and_weight(network, split):
    model = simulated(network, split, Recipe())
    encoding = model.biases["conv2"]
    expected = np.float32(model.activations["r1"].scale) * model.weights["w2"].scale
    np.testing.assert_array_equal(encoding.scale, expected)
    assert not encoding.zero_point.any()
    used = model.parameters[("conv2", "b2")].numpy()
    np.testing.assert_array_equal(used, dequantize(quantize(network.value("b2"), encoding), encoding))
    assert np.abs(used - network.value("b2")).max() <= expected.max()


def test_weight_scales_too_small_for_the_bias_are_raised(network, split):
    values = {"w2": weights(8, 8, 3, 3, seed=3) * np.float32(1e-9)}
    statistics = activation_statistics(network, split, np.arange(64), "simulate tests")
    encodings = encodings_for(network.layers, Recipe(), statistics, {**network.weights(), **values})
    model = SimulatedModel(network, encodings, values)
    largest = 2 * np.abs(network.value("b2").astype(np.float64)) / (2.0**32 - 2)
    assert (model.biases["conv2"].scale >= largest).all()
    assert np.abs(quantize(network.value("b2"), model.biases["conv2"]).astype(np.int64)).max() < 2**31


def test_real_zero_is_exact_and_padding_pads_with_it(network, split):
    model = simulated(network, split, Recipe().with_default(activation_bits=4, weight_bits=4))
    for tensor, quantizer in model.quantizers.items():
        assert quantizer(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0], tensor


def test_weights_are_rounded_once_and_the_model_is_left_alone(network, split):
    before = {name: p.clone() for name, p in network.executor.module.state_dict().items()}
    model = simulated(network, split, Recipe().with_default(weight_bits=2))
    assert len(torch.unique(model.parameters["w1"][0])) <= 3
    predict(network, model.run, split, SAMPLES)
    assert all(torch.equal(before[name], p) for name, p in network.executor.module.state_dict().items())


def test_everything_float_gives_the_float_model(network, split):
    recipe = Recipe().with_default(weight_bits="float", activation_bits="float")
    model = simulated(network, split, recipe)

    def plain(inputs):
        """Run the float model in the memory layout of the simulation: float sums depend on it in the last bit."""
        return network.executor.run(model.as_computed(inputs)[0])

    found = predict(network, model.run, split, SAMPLES)
    np.testing.assert_array_equal(found, predict(network, plain, split, SAMPLES))
    np.testing.assert_allclose(found, predict(network, network.executor.run, split, SAMPLES), atol=1e-6)


def test_the_float_forward_equals_onnxruntime(network, split):
    from qstudio.backends.ort import make_session

    session = make_session(network.proto)
    expected = session.run(None, {"x": split.batch(SAMPLES)})[0]
    ours = predict(network, network.executor.run, split, SAMPLES)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "inner", "expected"),
    [(1024, 27, 32), (1024, 144, 128), (256, 288, 128), (64, 576, 256), (49, 576, 256), (16, 576, 1024)],
)
def test_block_sizes_are_those_measured_in_onnxruntime(columns, inner, expected):
    assert stride_k(columns, inner) == expected
