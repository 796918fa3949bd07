"""Steps taken in place give the bits of steps taken anew, and touch nothing that somebody still looks at."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from qstudio.graph.ops.elementwise import add
from qstudio.quant.evaluation.steps import called_with, overwritten


@pytest.fixture(scope="module")
def nodes():
    graph = fx.Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    made = {
        "a": a,
        "b": b,
        "relu": graph.call_function(torch.relu, (a,)),
        "sum": graph.call_function(add, (a, b)),
        "twice": graph.call_function(add, (a, a)),
        "constant": graph.call_function(add, (a, 1.0)),
        "sigmoid": graph.call_function(torch.sigmoid, (a,)),
    }
    return made


def values(nodes, *, second=(2, 3, 4, 4)):
    draw = torch.Generator().manual_seed(0)
    return {
        nodes["a"]: torch.randn((2, 3, 4, 4), generator=draw),
        nodes["b"]: torch.randn(second, generator=draw),
    }


@pytest.mark.parametrize(
    ("name", "free", "place"), [("relu", "a", "a"), ("sum", "a", "a"), ("sum", "b", "b"), ("twice", "a", "a")]
)
def test_a_free_input_is_overwritten_with_the_same_bits(nodes, name, free, place):
    given = values(nodes)
    a, b = given[nodes["a"]].clone(), given[nodes["b"]].clone()
    expected = {"relu": torch.relu(a), "sum": a + b, "twice": a + a}[name]
    found = overwritten(nodes[name], given, {nodes[free]})
    assert found is given[nodes[place]]
    assert torch.equal(found, expected)
    other = {"a": "b", "b": "a"}[place]
    assert torch.equal(given[nodes[other]], {"a": a, "b": b}[other])


@pytest.mark.parametrize(("name", "free"), [("relu", "b"), ("constant", "a"), ("sigmoid", "a")])
def test_what_is_not_free_or_not_alike_is_left_alone(nodes, name, free):
    given = values(nodes)
    before = {node: value.clone() for node, value in given.items()}
    assert overwritten(nodes[name], given, {nodes[free]}) is None
    assert all(torch.equal(given[node], before[node]) for node in given)


@pytest.mark.parametrize("change", ["shape", "layout", "type"])
def test_sums_of_unlike_tensors_are_computed_anew(nodes, change):
    given = values(nodes, second=(1, 3, 1, 1) if change == "shape" else (2, 3, 4, 4))
    if change == "layout":
        given[nodes["b"]] = given[nodes["b"]].contiguous(memory_format=torch.channels_last)
    if change == "type":
        given = {node: value.double() for node, value in given.items()}
    assert overwritten(nodes["sum"], given, {nodes["a"], nodes["b"]}) is None


def test_other_parameters_are_in_place_only_while_a_layer_is_called():
    layer = nn.Conv2d(3, 4, 3)
    weight, bias = layer.weight, layer.bias
    other = torch.randn(4, 3, 3, 3)
    x = torch.randn(1, 3, 5, 5)
    with torch.no_grad():
        found = called_with(layer, {"weight": other}, (x,), {})
        assert torch.equal(found, torch.func.functional_call(layer, {"weight": other}, (x,)))
        assert layer.weight is weight
        with pytest.raises(RuntimeError):
            called_with(layer, {"weight": other, "bias": torch.zeros(4)}, (x[:, :1],), {})
        assert layer.weight is weight
        assert layer.bias is bias
        inner = nn.Sequential(layer)
        assert torch.equal(called_with(inner, {"0.weight": other}, (x,), {}), found), "a tree of modules"
