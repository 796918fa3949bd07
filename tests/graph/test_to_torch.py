"""What other parts of the program rely on in a translated model: names, parameters, training, refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from graph_cases import build, feeds_for, relative_error, session, small_cnn
from onnx import helper
from torch import fx

from qstudio.core.errors import UserError
from qstudio.graph.operators import SUPPORTED, unsupported_operators
from qstudio.graph.prepare import prepare
from qstudio.graph.to_torch import run, to_torch
from qstudio.graph.translation import TRANSLATIONS


def by_hand(module: fx.GraphModule, *arguments: torch.Tensor) -> dict[str, object]:
    """Run the graph node by node, as quant does; return every node's value."""
    values: dict[str, object] = {}
    waiting = list(arguments)
    for node in module.graph.nodes:
        args = fx.node.map_arg(node.args, lambda n: values[n.name])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n.name])
        if node.op == "placeholder":
            values[node.name] = waiting.pop(0)
        elif node.op == "get_attr":
            values[node.name] = (
                module.get_parameter(node.target)
                if node.target in dict(module.named_parameters())
                else module.get_buffer(node.target)
            )
        elif node.op == "call_module":
            values[node.name] = module.get_submodule(node.target)(*args, **kwargs)
        elif node.op == "call_function":
            values[node.name] = node.target(*args, **kwargs)
        else:
            values["output"] = args[0]
    return values


def test_every_tensor_is_found_by_its_onnx_name():
    proto = prepare(small_cnn(), fold_batchnorm=False).proto
    translated = to_torch(proto)
    assert translated.inputs == ("x",)
    assert translated.outputs == ("y",)
    assert set(translated.tensor_of.values()) == {"x", *(o for n in proto.graph.node for o in n.output)}
    assert {translated.node_of[k]: t for k, t in translated.tensor_of.items() if k in translated.node_of} == {
        n.name: n.output[0] for n in proto.graph.node
    }
    x = torch.randn(3, 3, 8, 8)
    values = by_hand(translated.module, x)
    inner = build(list(proto.graph.node), {"x": ["batch", 3, 8, 8]}, dict.fromkeys("cbrpfy"))
    inner.graph.initializer.extend(proto.graph.initializer)
    expected = dict(zip("cbrpfy", session(inner).run(list("cbrpfy"), {"x": x.numpy()}), strict=True))
    for name, tensor in translated.tensor_of.items():
        if tensor != "x":
            assert relative_error(values[name].detach().numpy(), expected[tensor]) < 1e-5


def test_weights_keep_onnx_layout_and_are_found_by_initializer():
    proto = small_cnn()
    translated = to_torch(proto)
    assert translated.parameter_of == {
        "conv.weight": "conv.weight",
        "bn.weight": "bn.weight",
        "bn.bias": "bn.bias",
        "bn.mean": "bn.running_mean",
        "bn.var": "bn.running_var",
        "fc.weight": "fc.weight",
        "fc.bias": "fc.bias",
    }
    state = translated.module.state_dict()
    for tensor in proto.graph.initializer:
        assert list(state[translated.parameter_of[tensor.name]].shape) == list(tensor.dims)
    assert {n for n, _ in translated.module.named_parameters()} == {
        "conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias"
    }  # fmt: skip


def test_a_constant_operand_is_a_buffer_and_a_shared_weight_one_parameter():
    w = np.eye(4, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "w"], ["b"], "second"),
        helper.make_node("Add", ["b", "c"], ["y"], "shift"),
    ]
    proto = build(nodes, {"x": [2, 4]}, {"y": [2, 4]}, {"w": w, "c": np.ones(4, np.float32)})
    translated = to_torch(proto)
    assert translated.parameter_of == {"w": "first.weight", "c": "c"}
    module = translated.module
    assert module.get_submodule("first").weight is module.get_submodule("second").weight
    assert [n for n, _ in module.named_buffers()] == ["c"]
    assert "c" in translated.tensor_of.values()


def test_it_trains_and_batchnorm_follows_the_data():
    torch.manual_seed(0)
    translated = to_torch(prepare(small_cnn(), fold_batchnorm=False).proto)
    module = translated.module
    assert not module.training
    x, target = torch.randn(64, 3, 8, 8), torch.randint(0, 5, (64,))
    before = module.get_submodule("bn").running_mean.clone()
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x)[0], target)
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.equal(before, module.get_submodule("bn").running_mean)
    module.eval()
    frozen = module.get_submodule("bn").running_mean.clone()
    module(x)
    assert torch.equal(frozen, module.get_submodule("bn").running_mean)


def test_the_two_batchnorm_momenta_mean_the_same():
    translated = to_torch(prepare(small_cnn(), fold_batchnorm=False).proto)
    ours, theirs = translated.module.get_submodule("bn"), torch.nn.BatchNorm2d(8, momentum=0.1)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x = torch.randn(4, 8, 5, 5)
    ours.train()
    theirs.train()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def with_a_stranger():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "fine"),
        helper.make_node("Frobnicate", ["a"], ["b"], "odd", domain="com.example"),
        helper.make_node("NonMaxSuppression", ["a", "a"], ["c"], "boxes"),
        helper.make_node("Relu", ["b"], ["y"], "after"),
    ]
    return build(nodes, {"x": [1, 1, 4]}, {"y": [1, 1, 4], "a": [1, 1, 4]})


def test_an_operator_without_translation_is_named_with_its_node():
    proto = with_a_stranger()
    assert [(n, op) for n, op, _ in unsupported_operators(proto)] == [
        ("odd", "com.example::Frobnicate"),
        ("boxes", "NonMaxSuppression"),
    ]
    with pytest.raises(UserError) as caught:
        to_torch(proto)
    assert caught.value.where == "odd"
    assert "com.example::Frobnicate" in caught.value.what


def test_the_part_before_an_unsupported_operator_can_still_be_run():
    translated = to_torch(with_a_stranger(), partial=True)
    assert translated.outputs == ("a",)
    assert [(n, op) for n, op, _ in translated.unsupported] == [
        ("odd", "com.example::Frobnicate"),
        ("boxes", "NonMaxSuppression"),
        ("after", "Relu"),
    ]
    assert torch.equal(run(translated, {"x": -torch.ones(1, 1, 4)})["a"], torch.zeros(1, 1, 4))


def test_a_node_that_cannot_be_translated_is_named():
    node = helper.make_node("Conv", ["x"], ["y"], "headless")
    with pytest.raises(UserError) as caught:
        to_torch(build([node], {"x": [1, 1, 4, 4]}, {"y": [1, 1, 4, 4]}))
    assert caught.value.where == "headless"


def test_names_that_python_does_not_know_survive():
    nodes = [
        helper.make_node("Relu", ["0/in:put"], ["class"], "1.layer/relu"),
        helper.make_node("Neg", ["class"], ["import"], "forward"),
    ]
    translated = to_torch(build(nodes, {"0/in:put": [2]}, {"import": [2]}))
    assert set(translated.tensor_of.values()) == {"0/in:put", "class", "import"}
    assert set(translated.node_of.values()) == {"1.layer/relu", "forward"}
    assert run(translated, {"0/in:put": torch.tensor([-1.0, 2.0])})["import"].tolist() == [0.0, -2.0]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_layers_with_constant_weights_match_onnxruntime(op, gates, direction):
    rng = np.random.default_rng(1)
    ways = 2 if direction == "bidirectional" else 1
    weights = {
        "w": rng.standard_normal((ways, gates * 6, 5)).astype(np.float32) * 0.4,
        "r": rng.standard_normal((ways, gates * 6, 6)).astype(np.float32) * 0.4,
        "b": rng.standard_normal((ways, 2 * gates * 6)).astype(np.float32) * 0.4,
        "lengths": np.array([7, 3], np.int32),
    }
    node = helper.make_node(op, ["x", "w", "r", "b", "lengths"], ["y"], "cell", hidden_size=6, direction=direction)
    proto = build([node], {"x": [7, 2, 5]}, {"y": [7, ways, 2, 6]}, weights)
    translated = to_torch(proto)
    assert translated.parameter_of["w"] == "cell.weight"
    feeds = feeds_for(session(proto), 1)
    expected = session(proto).run(None, feeds)[0]
    actual = run(translated, {"x": torch.from_numpy(feeds["x"])})["y"]
    assert relative_error(actual.numpy(), expected) < 1e-5


def test_the_names_known_without_torch_are_those_of_the_table() -> None:
    assert set(TRANSLATIONS) == SUPPORTED


def test_opening_a_model_does_not_load_torch() -> None:
    text = (
        "import sys, qstudio.graph.load, qstudio.graph.prepare, qstudio.graph.describe, qstudio.quant.placement;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
