"""From recipe to encodings: outputs, fixed ranges, shared sites, first and last layers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from quant_cases import model_of, small_cnn, weights

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for, with_first_last_bits
from qstudio.quant.network import network_for

MSE = Recipe().with_default(activation_calibration="mse", weight_bits=4, activation_bits=4)


@pytest.fixture
def network():
    return network_for(small_cnn())


@pytest.fixture
def statistics(network):
    return activation_statistics(network, load_dataset("digits").test, np.arange(64))


def of(network, recipe, statistics):
    return encodings_for(network.layers, recipe, statistics, network.weights())


def test_class_scores_are_never_clipped(network, statistics):
    encodings = of(network, MSE, statistics)
    assert encodings.schemes["y"].calibration == "minmax"
    seen = statistics["y"].histogram
    step = float(encodings.activations["y"].scale)
    assert float(encodings.activations["y"].low) <= seen.minimum + step / 2
    assert float(encodings.activations["y"].high) >= seen.maximum - step / 2
    inner = encodings.activations["r1"]
    assert float(inner.high) < statistics["r1"].histogram.maximum, "other tensors are clipped at 4 bits"


def test_a_clip_set_by_hand_is_used_even_for_class_scores(network, statistics):
    recipe = MSE.with_layers(("fc",), activation_clip=(-1.0, 1.0))
    encoding = of(network, recipe, statistics).activations["y"]
    assert float(encoding.high) - float(encoding.low) == pytest.approx(2.0)


def test_value_preserving_operators_share_one_encoding(network, statistics):
    encodings = of(network, MSE, statistics)
    site = next(s for s in network.activation_sites if s.id == "r3")
    assert set(site.members) == {"r3", "m"}
    assert "m" not in encodings.activations


def test_sites_left_float_have_no_encoding(network, statistics):
    recipe = MSE.with_layers(("conv2",), weight_bits="float", activation_bits="float")
    encodings = of(network, recipe, statistics)
    assert "w2" not in encodings.weights
    assert "c2" not in encodings.activations
    assert encodings.schemes["w2"].is_float


def test_softmax_has_its_fixed_range():
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "fc", transB=1),
        helper.make_node("Softmax", ["h"], ["p"], "softmax"),
        helper.make_node("Gemm", ["p", "v"], ["y"], "mix", transB=1),
    ]
    network = network_for(model_of(nodes, {"w": weights(4, 4), "v": weights(4, 4, seed=1)}, (None, 4)))
    encoding = encodings_for(network.layers, Recipe(), _any(network), network.weights()).activations["p"]
    assert float(encoding.scale) == 1 / 256
    assert int(encoding.zero_point) == 0


def _any(network):
    from qstudio.core.histogram import histogram_of
    from qstudio.core.statistics import SiteStatistics

    histogram = histogram_of(np.linspace(-1, 1, 100, dtype=np.float32))
    ends = np.zeros(1, np.float32)
    return {s.id: SiteStatistics(s.id, histogram, ends, ends) for s in network.activation_sites}


def test_missing_statistics_are_named(network):
    with pytest.raises(UserError) as caught:
        of(network, Recipe(), {})
    assert caught.value.where == "x"


def test_first_and_last_layer_are_held(network, statistics):
    recipe = with_first_last_bits(MSE, network.layers, 8)
    encodings = of(network, recipe, statistics)
    assert encodings.weights["w1"].qmax == encodings.weights["w4"].qmax == 127
    assert encodings.weights["w2"].qmax == encodings.weights["w3"].qmax == 7
    assert encodings.activations["x"].qmax == encodings.activations["y"].qmax == 255
    assert encodings.activations["g"].qmax == 255, "what the last layer reads"
    assert encodings.activations["r1"].qmax == 15
    assert with_first_last_bits(MSE, (), 8) == MSE
