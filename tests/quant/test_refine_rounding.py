"""AdaRound and block reconstruction: what they choose is what is exported, it is better, and it repeats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from quant_cases import Recorder, model_of, small_cnn, weights
from refine_cases import CONV, calibrated, depthwise_chain, error, images, refined, task

from qstudio.backends.qdq import export_qdq
from qstudio.core.affine import Encoding, quantize
from qstudio.core.errors import JobCancelled
from qstudio.graph.opset import raise_opset
from qstudio.quant.network import network_for
from qstudio.quant.refine.adaround import adaround
from qstudio.quant.refine.brecq import brecq
from qstudio.quant.refine.march import BUDGET_BYTES, March, refining
from qstudio.quant.refine.soft_rounding import SoftWeight, on_grid
from qstudio.quant.refine.step_size import CoinFlips, LearnedStep, RoundToStep
from qstudio.quant.refine.units import block_units, layer_units

LOW = {"weight_bits": 3, "activation_bits": 4}


@pytest.fixture
def data(tmp_path):
    return images(tmp_path, (1, 8, 8))


# ---- the grid


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("layout", ["tensor", "channel", "group", "asymmetric"])
def test_rounding_to_nearest_gives_the_chosen_codes_back(bits, layout):
    """The exporter rounds to nearest: every code of every grid has to survive that."""
    rng = np.random.default_rng(bits)
    half = 2 ** (bits - 1)
    shape = (6, 4, 3, 3)
    scale_shape = {"tensor": (), "channel": (6,), "group": (6, 4), "asymmetric": (6,)}[layout]
    scale = np.exp(rng.uniform(-25, 5, scale_shape)).astype(np.float32)
    zero = rng.integers(-half, half, 6) if layout == "asymmetric" else np.zeros(scale_shape)
    encoding = Encoding(
        scale,
        zero.astype(np.int32),
        -half if layout == "asymmetric" else -(half - 1),
        half - 1,
        None if layout == "tensor" else 0,
        10 if layout == "group" else 0,
    )
    codes = rng.integers(encoding.qmin, encoding.qmax + 1, shape)
    offset = zero.reshape(-1, 1, 1, 1) if layout == "asymmetric" else 0
    np.testing.assert_array_equal(quantize(on_grid(codes - offset, encoding), encoding), codes)


def test_a_soft_weight_starts_as_the_weight_and_ends_one_step_from_it():
    values = weights(4, 3, 3, 3, seed=1)
    reach = np.abs(values).max((1, 2, 3))
    encoding = Encoding((reach / 5).astype(np.float32), np.zeros(4, np.int32), -3, 3, 0)
    soft = SoftWeight(values, encoding, torch.device("cpu"))
    limits = 3 * encoding.scale.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(soft.soft().detach().numpy(), np.clip(values, -limits, limits), atol=2e-6)
    steps = soft.steps()
    assert steps.min() >= -3
    assert steps.max() <= 3
    assert (np.abs(steps - np.clip(values / encoding.scale.reshape(-1, 1, 1, 1), -3, 3)) <= 0.5 + 1e-5).all()
    with torch.no_grad():
        soft.logits.neg_()
    assert (np.abs(soft.steps() - np.clip(values / encoding.scale.reshape(-1, 1, 1, 1), -3, 3)) <= 1 + 1e-5).all()


def test_the_rounding_term_is_zero_on_the_grid_and_one_between():
    encoding = Encoding(np.float32(1.0), np.int32(0), -7, 7)
    half = SoftWeight(np.full((5,), 0.5, np.float32), encoding, torch.device("cpu"))
    assert float(half.undecided(2.0).detach()) == pytest.approx(1.0, abs=1e-5)
    whole = SoftWeight(np.arange(5, dtype=np.float32), encoding, torch.device("cpu"))
    with torch.no_grad():
        whole.logits.mul_(10.0)
    assert float(whole.undecided(2.0).detach()) == pytest.approx(0.0, abs=1e-6)


# ---- rounding activations


def test_rounding_with_a_step_has_the_gradients_of_lsq():
    torch.manual_seed(0)
    x = (torch.randn(1000) * 3).requires_grad_(True)
    scale = torch.tensor(0.4, requires_grad=True)
    upstream = torch.randn(1000)
    y = RoundToStep.apply(x, scale, -3.0, 4.0, None)
    y.backward(upstream)
    v = (x / scale).detach()
    inside = (v >= -3) & (v <= 4)
    torch.testing.assert_close(y.detach(), v.round().clamp(-3, 4) * 0.4)
    torch.testing.assert_close(x.grad, upstream * inside)
    slope = torch.where(inside, v.round() - v, v.round().clamp(-3, 4))
    torch.testing.assert_close(scale.grad, (upstream * slope).sum(), rtol=1e-4, atol=1e-4)


def test_kept_values_pass_untouched_and_give_the_step_no_gradient():
    x = torch.linspace(-9, 9, 50).requires_grad_(True)
    scale = torch.tensor(0.7, requires_grad=True)
    y = RoundToStep.apply(x, scale, -3.0, 4.0, torch.ones(50))
    y.sum().backward()
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(x.grad, torch.ones(50))
    assert float(scale.grad) == 0.0


def test_half_of_the_flags_fall_by_seed():
    first, again, other = (CoinFlips(seed, torch.device("cpu")) for seed in (3, 3, 4))
    x = torch.zeros(100, 1000)
    flags = first.like(x)
    assert 0.49 < float(flags.float().mean()) < 0.51
    assert torch.equal(flags, again.like(x))
    assert not torch.equal(first.like(x), flags)
    assert not torch.equal(other.like(x), flags)
    assert CoinFlips(0, torch.device("cpu")).like(torch.zeros(5_000_000)).shape == (5_000_000,)


def test_a_learned_step_stays_positive():
    step = LearnedStep(Encoding(np.float32(0.1), np.int32(3), 0, 15), torch.device("cpu"), True)
    assert (step.low, step.high) == (-3.0, 12.0)
    with torch.no_grad():
        step.logarithm.fill_(-50.0)
    assert float(step.scale().detach()) > 0.0


# ---- units


def test_residual_blocks_are_found_whole():
    network = network_for(small_cnn())
    blocks = [[s.onnx_node for s in u.steps] for u in block_units(network, 8)]
    assert blocks == [
        ["conv1", "relu1"],
        ["conv2", "add", "relu2"],
        ["conv3", "relu3"],
        ["pool", "mean", "flatten", "fc"],
    ]
    joined = [[s.onnx_node for s in u.steps] for u in block_units(network, 8, together=2)]
    assert joined[0] == ["conv1", "relu1", "conv2", "add", "relu2"]


def test_a_block_with_too_many_layers_is_cut_into_layers():
    constants = {f"w{i}": weights(3, 3, 3, 3, seed=i) for i in range(4)}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "a", **CONV),
        helper.make_node("Relu", ["a"], ["ar"], "ar"),
        helper.make_node("Conv", ["ar", "w1"], ["b"], "b", **CONV),
        helper.make_node("Conv", ["b", "w2"], ["c"], "c", **CONV),
        helper.make_node("Conv", ["c", "w3"], ["d"], "d", **CONV),
        helper.make_node("Add", ["d", "ar"], ["y"], "add"),
    ]
    network = network_for(model_of(nodes, constants))
    assert [[s.onnx_node for s in u.steps] for u in block_units(network, 3)] == [["a", "ar"], ["b", "c", "d", "add"]]
    assert [[s.onnx_node for s in u.steps] for u in block_units(network, 2)] == [
        ["a", "ar"],
        ["b"],
        ["c"],
        ["d"],
        ["add"],
    ]


@pytest.mark.parametrize("cut", [layer_units, lambda n: block_units(n, 8), lambda n: block_units(n, 1)])
def test_units_in_a_row_compute_what_the_network_and_its_simulation_compute(data, cut):
    from qstudio.quant.refine.state import RefineState

    network = network_for(small_cnn())
    state = RefineState(network, calibrated(network, data, **LOW))
    simulation = refined(small_cnn(), data, ("fold",), **LOW)[2]
    with refining(network):
        inputs, counts = task(data).batches(network)
        units = cut(network)
        march = March(network, units, inputs, counts)
        for unit in units[:-1]:
            march.advance(unit, state.parameters, state.rounding)
        exact = march.float_output(units[-1])
        parts = [
            state.rounding(
                "y", units[-1].run(network.executor, q, state.parameters, state.rounding)[units[-1].outputs[0]]
            )
            for _, q, _ in march.pairs(units[-1])
        ]
        wanted = torch.cat([network.executor.run(i)["y"] for i in inputs])
        rounded = torch.cat([simulation.run(i)["y"] for i in inputs])
        assert march.held_bytes() < BUDGET_BYTES
    torch.testing.assert_close(exact, wanted)
    torch.testing.assert_close(torch.cat(parts), rounded)


# ---- the methods


@pytest.mark.parametrize(("method", "name"), [(adaround, "adaround"), (brecq, "brecq")])
def test_the_output_comes_closer_and_repeats(data, method, name):
    names = (f"{name}:iterations=120",)
    network, result, simulation = refined(small_cnn(), data, names, **LOW)
    _, _, plain = refined(small_cnn(), data, ("fold",), **LOW)
    assert error(network, data, simulation) < 0.8 * error(network, data, plain)
    again = refined(small_cnn(), data, names, **LOW)[1]
    other = refined(small_cnn(), data, names, seed=1, **LOW)[1]
    assert result.weight_values.keys() == again.weight_values.keys()
    for weight, values in result.weight_values.items():
        np.testing.assert_array_equal(values, again.weight_values[weight])
    assert any(not np.array_equal(result.weight_values[w], other.weight_values[w]) for w in result.weight_values)


def test_adaround_chooses_between_the_two_neighbours_and_leaves_the_scales(data):
    network = network_for(small_cnn())
    start = calibrated(network, data, weight_bits=4)
    result = adaround(network, task(data, iterations=200, search=0), start)
    assert set(result.weight_values) == {"w1", "w2", "w3", "w4"} == set(result.rounded)
    moved = 0
    for name, values in result.weight_values.items():
        encoding = result.encodings.weights[name]
        np.testing.assert_array_equal(encoding.scale, start.encodings.weights[name].scale)
        scale = encoding.scale.reshape(-1, *[1] * (values.ndim - 1))
        quotient = network.value(name) / scale
        codes = quantize(values, encoding)
        assert (np.abs(codes - quotient) <= 1 + 1e-4).all()
        moved += int((codes != quantize(network.value(name), encoding)).sum())
    assert moved > 0


def test_the_export_holds_exactly_the_learned_codes(data):
    network, result, simulation = refined(small_cnn(), data, ("brecq:iterations=40",), **LOW)
    exported = export_qdq(
        network.proto,
        network.layers,
        simulation.activations,
        simulation.weights,
        raise_opset=raise_opset,
        weight_values=simulation.weight_values,
    )
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in exported.graph.initializer}
    assert result.rounded == {"w1", "w2", "w3", "w4"}
    for name in result.rounded:
        encoding = result.encodings.weights[name]
        scale = encoding.scale.reshape(-1, *[1] * (network.value(name).ndim - 1))
        codes = np.rint(result.weight_values[name].astype(np.float64) / scale)
        np.testing.assert_array_equal(stored[f"{name}_quantized"], codes)
        assert (codes != quantize(network.value(name), encoding)).any()


def test_blocks_learn_steps_scales_and_biases_where_asked(data):
    network = network_for(small_cnn())
    start = calibrated(network, data, **LOW)

    def learned(**settings):
        chosen = {"iterations": 40, "search": 0, "steps": 0, "scales": 0, "biases": 0, **settings}
        result = brecq(network, task(data, "brecq", **chosen), start)
        before, after = start.encodings, result.encodings
        return (
            {t for t in after.activations if after.activations[t].scale != before.activations[t].scale},
            {w for w in after.weights if not np.array_equal(after.weights[w].scale, before.weights[w].scale)},
            {name for name in result.weight_values if name.startswith("b")},
        )

    assert learned() == (set(), set(), set())
    steps, scales, biases = learned(steps=1, scales=1, biases=1)
    assert {"r1", "r2", "r3"} <= steps
    assert scales == {"w1", "w2", "w3", "w4"}
    assert biases == {"b1", "b2", "b3", "b4"}


def test_steps_of_low_activations_are_learned_under_8_bit_weights(data):
    network = network_for(small_cnn())
    start = calibrated(network, data, weight_bits=8, activation_bits=3)
    result = brecq(network, task(data, "brecq", iterations=60), start)
    assert not result.rounded
    assert result.encodings.activations["r2"].scale != start.encodings.activations["r2"].scale


def test_8_bit_weights_and_those_two_layers_share_are_left_to_nearest(data):
    constants = {"w1": weights(1, 1, 3, 3, seed=1)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv1", **CONV),
        helper.make_node("Conv", ["c", "w1"], ["y"], "conv2", **CONV),
    ]
    shared = network_for(model_of(nodes, constants, input_shape=(None, 1, 8, 8)))
    assert not adaround(shared, task(data, iterations=5), calibrated(shared, data, weight_bits=3)).weight_values
    network = network_for(small_cnn())
    assert not adaround(network, task(data, iterations=5), calibrated(network, data, weight_bits=8)).weight_values


def test_a_network_that_demands_a_batch_size_is_refined_too(data):
    constants = {
        "w1": weights(4, 1, 3, 3, seed=1),
        "w2": weights(256, 5, seed=2),
        "shape": np.array([2, 256]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv", **CONV),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Reshape", ["r", "shape"], ["f"], "reshape"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], "fc"),
    ]
    network = network_for(model_of(nodes, constants, input_shape=(2, 1, 8, 8)))
    assert network.fixed_batch == 2
    start = calibrated(network, data, **LOW)
    result = brecq(network, task(data, "brecq", iterations=200), start)
    assert result.rounded == {"w1", "w2"}
    assert not result.notes


def test_the_float_network_is_left_as_it_was(data):
    network = network_for(small_cnn())
    before = {name: p.detach().clone() for name, p in network.executor.module.named_parameters()}
    brecq(network, task(data, "brecq", iterations=10), calibrated(network, data, **LOW))
    for name, parameter in network.executor.module.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


@pytest.mark.parametrize("method", [adaround, brecq])
def test_a_run_can_be_stopped_between_steps(data, method):
    network = network_for(small_cnn())
    start = calibrated(network, data, **LOW)
    recorder = Recorder(stop_after=3)
    with pytest.raises(JobCancelled):
        method(network, task(data, "brecq", recorder, iterations=1000), start)
    assert 0 < recorder.reports[-1][0] < 0.1 * recorder.reports[-1][1]


def test_progress_grows_and_names_the_layers(data):
    network = network_for(small_cnn())
    recorder = Recorder()
    adaround(network, task(data, "adaround", recorder, iterations=41), calibrated(network, data, **LOW))
    shares = [done / total for done, total, _ in recorder.reports]
    assert shares == sorted(shares)
    assert {note for *_, note in recorder.reports} == {f"AdaRound: {n}" for n in ("conv1", "conv2", "conv3", "fc")}


@pytest.mark.parametrize("granularity", ["tensor", "group:5"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_granularity_can_be_learned(tmp_path, granularity, symmetric):
    data = images(tmp_path, (3, 8, 8), 32)
    settings = {"weight_bits": 3, "weight_granularity": granularity, "weight_symmetric": symmetric}
    network, result, simulation = refined(
        depthwise_chain(), data, ("brecq:iterations=400:batch=16:drop=0",), **settings
    )
    plain = refined(depthwise_chain(), data, ("fold",), **settings)[2]
    assert result.rounded == {"w1", "w2", "w3", "w4"}
    assert error(network, data, simulation) < error(network, data, plain)
