"""The node-by-node executor: hooks, replaced parameters, memory, modes, gradients."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from onnx import helper
from quant_cases import model_of, small_cnn, weights

from qstudio.backends.ort import make_session
from qstudio.core.affine import Encoding
from qstudio.core.errors import UserError
from qstudio.data.load import load_dataset
from qstudio.graph.prepare import prepare
from qstudio.graph.to_torch import to_torch
from qstudio.quant.evaluate import predict
from qstudio.quant.evaluator import FLOAT, CachedEvaluator
from qstudio.quant.executor import Executor
from qstudio.quant.network import network_for
from qstudio.quant.quantizer import make_quantizer


@pytest.fixture
def executor():
    return Executor(to_torch(prepare(small_cnn().proto).proto))


@pytest.fixture
def image():
    return torch.from_numpy(weights(4, 1, 8, 8, seed=9, scale=1.0))


def test_outputs_equal_onnxruntime(executor, image):
    expected = make_session(small_cnn().proto).run(None, {"x": image.numpy()})[0]
    with executor.evaluating():
        result = executor.run({"x": image})
    np.testing.assert_allclose(result["y"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_every_tensor_is_seen_once_by_its_onnx_name(executor, image):
    seen = []
    executor.run({"x": image}, observe=lambda name, values: seen.append(name))
    assert seen == ["x", "c1", "r1", "c2", "a", "r2", "c3", "r3", "m", "g", "f", "y"]
    assert set(seen) <= executor.tensors


def test_a_transform_takes_the_place_of_a_tensor_before_it_is_observed(executor, image):
    seen = {}

    def transform(name, values):
        return torch.zeros_like(values) if name == "f" else values

    result = executor.run({"x": image}, transform=transform, observe=seen.__setitem__)
    assert not seen["f"].any()
    bias = torch.from_numpy(weights(10, seed=8))
    torch.testing.assert_close(result["y"], bias.expand(4, 10))


def test_parameters_are_replaced_for_one_run_and_the_module_stays_untouched(executor, image):
    before = {name: p.clone() for name, p in executor.module.state_dict().items()}
    plain = executor.run({"x": image})["y"]
    changed = executor.run({"x": image}, parameters={"w1": torch.zeros(8, 1, 3, 3)})["y"]
    again = executor.run({"x": image})["y"]
    assert not torch.equal(plain, changed)
    assert torch.equal(plain, again)
    assert all(torch.equal(before[name], p) for name, p in executor.module.state_dict().items())


def test_two_layers_that_share_a_bias_can_be_given_one_each():
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b"], ["h"], "first", transB=1),
        helper.make_node("Gemm", ["h", "w2", "b"], ["y"], "second", transB=1),
    ]
    constants = {"w1": weights(4, 4, seed=1), "w2": weights(4, 4, seed=2), "b": weights(4, seed=3)}
    executor = Executor(to_torch(prepare(model_of(nodes, constants, (None, 4)).proto).proto))
    x = torch.ones(1, 4)
    seen = {}
    executor.run({"x": x}, observe=seen.__setitem__)
    plain = dict(seen)
    executor.run({"x": x}, observe=seen.__setitem__, parameters={("second", "b"): torch.zeros(4)})
    torch.testing.assert_close(seen["h"], plain["h"])
    torch.testing.assert_close(seen["y"], plain["y"] - torch.from_numpy(constants["b"]))


def test_gradients_flow_to_replaced_parameters(executor, image):
    weight = torch.from_numpy(weights(8, 1, 3, 3, seed=1)).requires_grad_()
    executor.run({"x": image}, parameters={"w1": weight})["y"].sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_dead_values_are_freed_while_running(executor, image):
    alive = {}
    counts = []

    def observe(name, values):
        gc.collect()
        alive[name] = weakref.ref(values)
        counts.append(sum(ref() is not None for ref in alive.values()))

    with executor.evaluating():
        executor.run({"x": image.clone()}, observe=observe)
    assert max(counts) <= 4, counts


def test_evaluating_restores_the_modes_of_all_parts(executor):
    executor.module.train()
    with executor.evaluating():
        assert not any(part.training for part in executor.module.modules())
        assert torch.is_inference_mode_enabled()
    assert all(part.training for part in executor.module.modules())


def test_rounding_in_place_gives_the_bits_of_rounding_into_new_memory(executor, image):
    rounders = {
        name: make_quantizer(Encoding(np.float32(scale), np.int32(zero), -8, 7), (), "cpu")
        for name, scale, zero in (("x", 0.2, 0), ("r1", 0.3, -8), ("r2", 0.4, -8), ("r3", 0.1, -8), ("y", 0.05, 1))
    }
    before = image.clone()
    with executor.evaluating():
        seen = {}
        apart = executor.run({"x": image}, rounders=rounders, observe=seen.__setitem__)
        asked = executor.run({"x": image}, transform=lambda name, v: rounders[name](v) if name in rounders else v)
        found = executor.run({"x": image}, rounders=rounders)
        again = executor.run({"x": image}, rounders=rounders)
    assert set(torch.unique((seen["r2"] / rounders["r2"].scale).round()).tolist()) <= set(range(16))
    for result in (apart, asked, again):
        np.testing.assert_array_equal(found["y"].numpy(), result["y"].numpy())
    assert torch.equal(image, before)


def test_what_a_view_still_shows_is_not_overwritten():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Transpose", ["c"], ["t"], "turned", perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["t"], ["ft"], "flat_turned"),
        helper.make_node("Flatten", ["r"], ["fr"], "flat"),
        helper.make_node("Sub", ["ft", "fr"], ["y"], "difference"),
    ]
    model = model_of(nodes, {"w": weights(4, 1, 3, 3)}, (None, 1, 8, 8))
    network, split, chosen = network_for(model), load_dataset("digits").test, np.arange(8)
    expected = make_session(model.proto).run(None, {"x": split.batch(chosen)})[0]
    found = predict(network, network.executor.run, split, chosen)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for keep in (False, True):
        cached = CachedEvaluator(network, split, chosen).scores(FLOAT, keep=keep)
        np.testing.assert_allclose(cached, expected, atol=1e-5)


def test_a_missing_input_is_named(executor):
    with pytest.raises(UserError) as caught:
        executor.run({})
    assert caught.value.where == "x"
