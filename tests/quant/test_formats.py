"""Every number format through the simulated model: what a weight and an activation become, and what it is called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper
from quant_cases import model_of, weights
from refine_cases import CONV, images

from qstudio.core.encodings import DynamicEncoding, LevelEncoding, OutlierEncoding
from qstudio.core.formats import FORMATS, scheme_text
from qstudio.core.recipe import Recipe
from qstudio.core.rounding import round_values
from qstudio.core.size import weight_bytes
from qstudio.data.dataset import Split
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import Encodings, encodings_for
from qstudio.quant.network import Network, network_for
from qstudio.quant.simulate import SimulatedModel

SEEN = np.arange(32)


@pytest.fixture(scope="module")
def network() -> Network:
    constants = {"w1": weights(4, 1, 3, 3, seed=1), "b1": weights(4, seed=3), "w2": weights(256, 5, seed=2)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], "conv", **CONV),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], "fc"),
    ]
    return network_for(model_of(nodes, constants, input_shape=(None, 1, 8, 8)))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return images(tmp_path_factory.mktemp("data"), (1, 8, 8)).test


def encodings(network: Network, split: Split, **values: object) -> Encodings:
    recipe = Recipe().with_default(**values)
    statistics = activation_statistics(network, split, SEEN, "the one split of this file")
    return encodings_for(network.layers, recipe, statistics, network.weights())


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:4"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_becomes_what_its_format_says(network, split, name, granularity):
    found = encodings(network, split, weight_format=name, weight_bits=4, weight_granularity=granularity)
    model = SimulatedModel(network, found)
    for site in ("w1", "w2"):
        encoding = found.weights.get(site) or found.others[site]
        assert (site in found.weights) == (name in ("int", "bfp"))
        expected = round_values(network.value(site), encoding)
        if site in found.weights:
            expected = round_values(network.value(site), model.weights[site])
        np.testing.assert_array_equal(model.parameters[site].numpy(), expected)
        np.testing.assert_array_equal(model.rounded_weight(site), expected)
        assert np.isfinite(expected).all()
        levels = 2 ** found.schemes[site].bits
        rows = 1 if granularity == "tensor" else 10**6
        assert len(np.unique(expected)) <= levels * rows


@pytest.mark.parametrize("calibration", ["minmax", "mse", "percentile:99.9"])
def test_a_searched_range_is_no_worse_than_the_whole_one(network, split, calibration):
    def error(calibration: str) -> float:
        found = encodings(network, split, weight_format="log", weight_bits=3, weight_calibration=calibration)
        return float(np.square(round_values(network.value("w2"), found.others["w2"]) - network.value("w2")).sum())

    assert error("mse") <= error(calibration)


@pytest.mark.parametrize("name", [name for name, item in FORMATS.items() if item.takes("activation")])
def test_an_activation_is_rounded_by_torch_as_by_numpy(network, split, name):
    found = encodings(network, split, activation_format=name, activation_bits=6)
    site = next(layer.activation for layer in network.layers if layer.name == "conv")
    encoding = found.activations.get(site.id) or found.others[site.id]
    model = SimulatedModel(network, found)
    low, high = float(np.min(encoding.low)), float(np.max(encoding.high))
    low, high = max(low, -1e5), min(high, 1e5)
    values = np.append(np.linspace(1.5 * min(low, -1.0), 1.5 * high, 4001), 0.0).astype(np.float32)
    rounder = model.quantizers[site.quantized_at[0]]
    np.testing.assert_array_equal(rounder(torch.from_numpy(values)).numpy(), round_values(values, encoding))
    odd = rounder(torch.tensor([np.nan, np.inf])).numpy()
    assert np.isnan(odd[0])
    assert odd[1] == pytest.approx(float(np.max(encoding.high)), rel=0.01)


def test_a_dynamic_scale_follows_each_batch(network, split):
    found = encodings(network, split, activation_dynamic=True)
    assert all(isinstance(encoding, DynamicEncoding) for encoding in found.others.values())
    model = SimulatedModel(network, found)
    assert not model.biases  # a bias in int32 needs a scale that is known before
    site = next(layer.activation for layer in network.layers if layer.name == "conv")
    rounder = model.quantizers[site.quantized_at[0]]
    values = torch.linspace(-1.0, 3.0, 1001)
    for factor in (1.0, 100.0):
        scaled = values * factor
        worst = float((rounder(scaled) - scaled).abs().max())
        assert worst == pytest.approx(0.5 * 4 * factor / 255, rel=0.05)


@pytest.mark.parametrize("name", ["int", "nf4", "kmeans", "fp8_e4m3"])
def test_outliers_stay_as_they_were_and_leave_the_rest_a_smaller_range(network, split, name):
    def found(percent: float) -> Encodings:
        return encodings(
            network, split, weight_format=name, weight_bits=4, weight_granularity="tensor", weight_outliers=percent
        )

    values = network.value("w2")
    encoding = found(2.0).others["w2"]
    assert isinstance(encoding, OutlierEncoding)
    assert len(encoding.positions) == round(0.02 * values.size)
    rounded = SimulatedModel(network, found(2.0)).rounded_weight("w2")
    np.testing.assert_array_equal(rounded.ravel()[encoding.positions], values.ravel()[encoding.positions])
    plain = SimulatedModel(network, found(0.0)).rounded_weight("w2")
    assert np.square(rounded - values).sum() < np.square(plain - values).sum()


def test_a_format_of_one_width_ignores_the_bits_and_float_ignores_the_format(network, split):
    assert encodings(network, split, weight_format="nf4", weight_bits=8).schemes["w1"].bits == 4
    assert not encodings(network, split, weight_format="nf4", weight_bits="float").others
    ternary = encodings(network, split, weight_format="ternary", weight_granularity="channel").others["w1"]
    assert isinstance(ternary, LevelEncoding)
    assert ternary.levels.shape == (4, 3)


def test_sizes_count_codes_scales_levels_and_outliers():
    def size(**values: object) -> int:
        scheme = Recipe().with_default(weight_granularity="channel", **values).default.weight_scheme()
        return weight_bytes((10, 100), 0, scheme)

    assert size(weight_bits=4) == 500 + 10 * 4
    assert size(weight_bits=4, weight_format="bfp") == 500 + 10 * 1
    assert size(weight_format="kmeans", weight_bits=3) == 375 + 10 * 8 * 4
    assert size(weight_format="apot", weight_bits=4) == 500 + 10 * 2 * 4
    assert size(weight_format="fp16") == 2000
    assert size(weight_format="fp8_e4m3:mx") == 1000 + 10
    assert size(weight_bits=4, weight_outliers=1.0) == 500 + 40 + 10 * 8
    assert size(weight_bits=4, weight_symmetric=False) == 500 + 40 + 5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_format": "int:torch"}, "int8:torch symmetric channel minmax"),
        ({"weight_format": "nf4", "weight_granularity": "group:64"}, "nf4 group:64 minmax"),
        ({"weight_format": "kmeans", "weight_bits": 3}, "kmeans/3 channel"),
        ({"weight_outliers": 1}, "int8 symmetric channel minmax +1% float"),
        ({"weight_format": "bf16"}, "bf16 channel"),
    ],
)
def test_a_scheme_is_named(values, words):
    assert scheme_text(Recipe().with_default(**values).default.weight_scheme()) == words
