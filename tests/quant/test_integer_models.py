"""Whole models in integers against onnxruntime's fused run, and what a run reports of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from integer_cases import compare
from onnx import helper
from quant_cases import case, model_of, small_cnn, weights

from qstudio.cli.quantizing import parity_lines
from qstudio.core.errors import JobCancelled
from qstudio.core.processor import processor
from qstudio.core.recipe import Recipe
from qstudio.core.storage import INT8
from qstudio.data.load import load_dataset
from qstudio.data.samples import choose_samples
from qstudio.graph.load import load_model
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import encodings_for
from qstudio.quant.evaluate import predict
from qstudio.quant.integer import parity
from qstudio.quant.integer.model import IntegerModel
from qstudio.quant.integer.operators import IntegerGlobalAveragePool
from qstudio.quant.integer.parity import integer_parity, saturation_shares
from qstudio.quant.keep import samples_key
from qstudio.quant.network import network_for
from qstudio.quant.ptq import PtqOptions, run_ptq
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.storage import exported_model
from qstudio.quant.verify import exported_scores, saturates

SAMPLES = Path(__file__).parents[2] / "sample_models"
X86 = processor()[1][:1] == ("x86",)
pytestmark = pytest.mark.skipif(not X86, reason="the formulas are those of onnxruntime's kernels for x86")


def exported(model, dataset, recipe=None, count=64):
    """Return (simulation, exported model, split, indices) after calibration."""
    network = network_for(model)
    chosen = choose_samples(dataset, 48, count, 0)
    key = samples_key(dataset, chosen.calibration, chosen.calibration_indices)
    statistics = activation_statistics(network, chosen.calibration, chosen.calibration_indices, key)
    simulated = SimulatedModel(
        network, encodings_for(network.layers, recipe or Recipe(), statistics, network.weights())
    )
    return simulated, exported_model(simulated, INT8), chosen.evaluation, chosen.evaluation_indices


def attention():
    """Return a transformer block with a classifier, on 8x8 images as eight tokens."""
    node = helper.make_node
    constants = {"tokens": np.array([0, 8, 8]), "quarter": np.float32(0.25), "g": np.ones(16, np.float32)}
    shapes = {"wq": (8, 16), "wk": (8, 16), "wv": (8, 16), "bq": (16,), "b": (16,), "w1": (16, 16), "wc": (10, 128)}
    constants |= {name: weights(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    nodes = [
        node("Reshape", ["x", "tokens"], ["t"], "reshape"),
        node("MatMul", ["t", "wq"], ["q0"], "query"),
        node("Add", ["q0", "bq"], ["q"], "query_bias"),
        node("MatMul", ["t", "wk"], ["k"], "key"),
        node("MatMul", ["t", "wv"], ["v"], "value"),
        node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["s0"], "scores"),
        node("Mul", ["s0", "quarter"], ["s"], "scale"),
        node("Softmax", ["s"], ["p"], "softmax", axis=-1),
        node("MatMul", ["p", "v"], ["o"], "mix"),
        node("LayerNormalization", ["o", "g", "b"], ["n"], "norm"),
        node("MatMul", ["n", "w1"], ["h"], "hidden"),
        node("Add", ["h", "o"], ["r"], "residual"),
        node("Flatten", ["r"], ["f"], "flatten"),
        node("Gemm", ["f", "wc"], ["y"], "head", transB=1),
    ]
    return model_of(nodes, constants, (None, 1, 8, 8))


def gated():
    """Return a CNN with a gate for each channel, concatenation, a transposed convolution and average pooling."""
    node = helper.make_node
    shapes = {"w1": (8, 1, 3, 3), "b1": (8,), "wa": (4, 8, 1, 1), "wb": (8, 4, 1, 1), "w2": (8, 8, 3, 3)}
    shapes |= {"wt": (16, 6, 2, 2), "wf": (10, 6)}
    constants = {name: weights(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Sigmoid", ["c1"], ["sg"], "sigmoid"),
        node("Mul", ["c1", "sg"], ["sw"], "swish"),
        node("GlobalAveragePool", ["sw"], ["g"], "squeeze"),
        node("Conv", ["g", "wa"], ["s1"], "excite1"),
        node("Relu", ["s1"], ["s2"], "relu"),
        node("Conv", ["s2", "wb"], ["s3"], "excite2"),
        node("HardSigmoid", ["s3"], ["s4"], "gate"),
        node("Mul", ["sw", "s4"], ["m"], "gated"),
        node("Conv", ["m", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["c2"], ["lr"], "leaky", alpha=0.1),
        node("Concat", ["lr", "sw"], ["cat"], "concat", axis=1),
        node("ConvTranspose", ["cat", "wt"], ["ct"], "up", strides=[2, 2]),
        node("AveragePool", ["ct"], ["ap"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        node("GlobalAveragePool", ["ap"], ["rm"], "mean"),
        node("Flatten", ["rm"], ["f"], "flatten"),
        node("Gemm", ["f", "wf"], ["y"], "fc", transB=1),
    ]
    return model_of(nodes, constants, (None, 1, 8, 8))


MODELS = {
    "digits_cnn": lambda: load_model(SAMPLES / "digits_cnn.onnx"),
    "digits_mlp": lambda: load_model(SAMPLES / "digits_mlp.onnx"),
    "digits_mobilenet": lambda: load_model(SAMPLES / "digits_mobilenet.onnx"),
    "attention": attention,
    "gated": gated,
}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weight_bits", [8, 4])
def test_every_code_of_a_model_equals_the_fused_run(name, weight_bits, digits, tmp_path):
    """Below 8 bits the codes live in 8-bit types: the kernels are the same, and a Clip on codes follows."""
    recipe = Recipe().with_default(weight_bits=weight_bits, activation_bits=8 if weight_bits == 8 else 6)
    _, proto, split, indices = exported(MODELS[name](), digits, recipe)
    for precise in (True, False) if saturates() else (True,):
        result = compare(proto, split.batch(indices), tmp_path, precise=precise, saturating=not precise)
        assert result.codes > 1000
        assert not result.different
        assert result.same_outputs
    assert result.model.float_layers == (("up",) if name == "gated" else ())


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (SAMPLES / "digits_resnet.pt2", "digits"),
        ("models/kws_dscnn.onnx", "speech_commands/kws_mfcc_1000.npz"),
        ("models/resnet20_cifar10.onnx", "cifar10/cifar10_test_jpeg.npz"),
        ("models/resnet8_cifar10.onnx", "cifar10/cifar10_test_jpeg.npz"),
        ("models/mnist_cntk.onnx", "mnist"),
    ],
)
def test_every_code_of_the_cases_equals_the_fused_run(model, data, tmp_path):
    simulated, proto, split, indices = exported(
        load_model(case(model)), load_dataset(data if data == "digits" else str(case(data))), count=256
    )
    size = simulated.network.fixed_batch or 64
    codes = 0
    for start in range(0, len(indices), size):
        x = split.batch(indices[start : start + size])
        for precise in (True, False) if saturates() else (True,):
            result = compare(proto, x, tmp_path, precise=precise, saturating=not precise)
            assert not result.different
            assert result.same_outputs
            assert not result.model.float_layers
        codes += result.codes
    print(f"\n{model}: {codes:,} codes of {len(indices)} samples equal, {len(result.model.steps)} operators")


def test_seeing_the_codes_does_not_change_what_is_fused(digits, tmp_path):
    """The comparison puts out every code; the scores are those of a session that does not."""
    simulated, proto, split, indices = exported(small_cnn(), digits)
    scores = exported_scores(proto, simulated, split, indices, optimize=True, precise=True, threads=1)
    integer = IntegerModel.of(simulated, threads=1)
    assert np.array_equal(predict(simulated.network, integer.run, split, indices), scores)


def test_a_run_reports_the_comparison_and_names_the_layers_that_saturate(digits):
    options = PtqOptions(calibration_samples=48, eval_samples=64, measure_latency=False, threads=1)
    result = run_ptq(small_cnn(), digits, Recipe(), options)
    exact = result.parity.integer_exact
    assert exact.codes_equal == 100.0
    assert exact.max_lsb == 0
    assert exact.outputs_equal
    assert (exact.samples, exact.operators, exact.float_layers, exact.differing) == (64, 6, (), ())
    layers = dict(result.parity.saturating)
    assert "conv1" in layers  # few inputs, and both of full range
    assert "conv3" not in layers  # depthwise
    assert all(0 < share <= 100 for share in layers.values())
    (note,) = [note for note in result.notes if "VNNI" in note]
    assert "conv1" in note
    assert "7-bit weights" in note
    (line,) = [line for line in parity_lines(result.parity) if "integer arithmetic" in line]
    assert "100.00 % of its codes" in line
    assert "6 operators, 64 samples, 0 LSB at most" in line
    worse = dataclasses.replace(exact, codes_equal=98.5, max_lsb=1, differing=("c1", "g"), float_layers=("up",))
    (line,) = [
        line
        for line in parity_lines(dataclasses.replace(result.parity, integer_exact=worse))
        if "integer arithmetic" in line
    ]
    assert "2 tensors differ: c1, g; 1 layer computes in float" in line
    safe = run_ptq(small_cnn(), digits, Recipe().with_default(weight_bits=7), options)
    assert safe.parity.saturating == ()
    assert not [note for note in safe.notes if "VNNI" in note]


def test_nothing_is_compared_where_nothing_computes_in_integers(digits):
    simulated, proto, split, indices = exported(small_cnn(), digits, Recipe().with_default(activation_bits=16))
    assert integer_parity(proto, simulated, split, indices) is None
    assert saturation_shares(proto, simulated, split, indices) == ()


def test_large_models_are_compared_on_fewer_samples(digits, monkeypatch):
    simulated, proto, split, indices = exported(small_cnn(), digits)
    monkeypatch.setattr(parity, "_MULTIPLICATIONS", 1)
    exact = integer_parity(proto, simulated, split, indices, threads=1)
    assert exact.samples == 1
    assert exact.codes_equal == 100.0


def test_a_difference_is_found_and_named(digits, monkeypatch):
    """One code of one tensor moved by two is seen there and behind it."""
    original = IntegerGlobalAveragePool.__call__

    def wrong(self, *codes):
        result = original(self, *codes).clone()
        result[0, 0] += 2 if result[0, 0] < 128 else -2
        return result

    monkeypatch.setattr(IntegerGlobalAveragePool, "__call__", wrong)
    simulated, proto, split, indices = exported(small_cnn(), digits)
    exact = integer_parity(proto, simulated, split, indices, threads=1)
    assert exact.differing[0] == "g_QuantizeLinear_Output"
    assert exact.max_lsb == 2
    assert 99 < exact.codes_equal < 100
    assert not exact.outputs_equal


def test_a_comparison_can_be_stopped(digits):
    def stop():
        raise JobCancelled

    simulated, proto, split, indices = exported(small_cnn(), digits)
    for compute in (integer_parity, saturation_shares):
        with pytest.raises(JobCancelled):
            compute(proto, simulated, split, indices, check=stop)
