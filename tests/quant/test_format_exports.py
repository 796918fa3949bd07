"""What is simulated in any format is what the exported file computes: scores, not only classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qstudio.core.encodings import DynamicEncoding
from qstudio.core.recipe import Recipe
from qstudio.core.rounding import dynamic_encoding
from qstudio.core.storage import INT8, PACKED
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.evaluate import predict
from qstudio.quant.network import network_for
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.storage import exported_model
from qstudio.quant.verify import code_differences, exported_scores

SAMPLES = np.arange(64)

RECIPES = {
    "fp8 weights and activations": {"weight_format": "fp8_e4m3", "activation_format": "fp8_e4m3"},
    "fp8 weights, 8-bit activations": {"weight_format": "fp8_e5m2"},
    "fp8 in blocks": {"weight_format": "fp8_e4m3:mx", "weight_granularity": "group:32"},
    "float16": {"weight_format": "fp16", "activation_format": "fp16"},
    "bfloat16": {"weight_format": "bf16", "activation_format": "bf16"},
    "NF4": {"weight_format": "nf4", "weight_granularity": "group:16"},
    "k-means": {"weight_format": "kmeans", "weight_bits": 3},
    "outliers": {"weight_bits": 4, "weight_outliers": 2},
    "dynamic": {"activation_dynamic": True},
    "dynamic 6 bits symmetric": {"activation_dynamic": True, "activation_bits": 6, "activation_symmetric": True},
    "int2": {"weight_bits": 2},
    "int4 in blocks": {"weight_bits": 4, "weight_granularity": "group:16"},
    "int16": {"weight_bits": 16, "activation_bits": 16},
    "float weights, 8-bit activations": {"weight_bits": "float"},
    "int4 weights only": {"weight_bits": 4, "activation_bits": "float"},
    "int4 blocks only": {"weight_bits": 4, "weight_granularity": "group:32", "activation_bits": "float"},
}


@pytest.fixture(scope="module")
def trained():
    """A trained network on digits, its data, and the statistics of its activations."""
    network = network_for(load_model(str(Path(__file__).parents[2] / "sample_models" / "digits_cnn.onnx")), True, "cpu")
    split = load_dataset("digits").test
    return network, split, activation_statistics(network, split, SAMPLES, "format exports")


@pytest.mark.parametrize("values", RECIPES.values(), ids=RECIPES.keys())
def test_the_file_gives_the_simulated_scores(trained, values):
    network, split, statistics = trained
    recipe = Recipe().with_default(**values)
    simulated = SimulatedModel(
        network, encodings_for(network.layers, recipe, statistics, network.weights()), ordered=True, threads=1
    )
    exported = exported_model(simulated, PACKED)
    scores = predict(network, simulated.run, split, SAMPLES)
    plain = exported_scores(exported, simulated, split, SAMPLES, optimize=False, threads=1)
    fused = exported_scores(exported, simulated, split, SAMPLES, optimize=True, precise=True, threads=1)
    output = simulated.activations.get(network.outputs[0])
    # One code of the output, or a float's last digits where it is not rounded to codes.
    step = float(output.scale) if output is not None else 1e-5 * np.abs(scores).max()
    other = simulated.others.get(network.outputs[0])
    if isinstance(other, DynamicEncoding):
        step = float(dynamic_encoding(scores, other).scale)
    assert np.rint(np.abs(scores - plain) / step).max() <= 1
    # Fused layers add floats in another order: a 16-bit float may then round to its neighbour.
    assert np.abs(scores - fused).max() <= max(1.001 * step, 1e-3 * np.abs(scores).max())


@pytest.mark.parametrize("name", ["fp8 weights and activations", "float16", "dynamic", "dynamic 6 bits symmetric"])
def test_codes_of_floats_and_dynamic_ranges_are_compared_too(trained, name):
    network, split, statistics = trained
    recipe = Recipe().with_default(**RECIPES[name])
    simulated = SimulatedModel(
        network, encodings_for(network.layers, recipe, statistics, network.weights()), ordered=True, threads=1
    )
    differences = code_differences(exported_model(simulated, INT8), simulated, split, SAMPLES[:16], threads=1)
    assert {d.tensor for d in differences} == {t for s in network.activation_sites for t in s.quantized_at}
    assert sum(d.compared for d in differences) > 1000
    assert max(d.max_lsb for d in differences) == 0
