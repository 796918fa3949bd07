"""Preparing: what is folded, what stays, and that outputs do not change."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
import torch
from graph_cases import build, feeds_for, relative_error, session, small_cnn
from onnx import TensorProto, helper, numpy_helper

from qstudio.core.errors import UserError
from qstudio.graph.batch import with_dynamic_batch
from qstudio.graph.describe import describe
from qstudio.graph.opset import opset_of, raise_opset
from qstudio.graph.prepare import prepare
from qstudio.graph.to_torch import run, to_torch

F = np.float32


def statistics(channels: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "g": rng.uniform(0.5, 1.5, channels).astype(F),
        "h": rng.standard_normal(channels).astype(F),
        "m": rng.standard_normal(channels).astype(F),
        "v": rng.uniform(0.1, 2.0, channels).astype(F),
    }


def norm(source: str, target: str = "y", name: str = "bn") -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [source, "g", "h", "m", "v"], [target], name, epsilon=1e-3)


def unchanged(proto: onnx.ModelProto, batch: int = 2) -> onnx.ModelProto:
    """Prepare, and check the outputs against the original in onnxruntime and in torch."""
    prepared = prepare(proto)
    onnx.checker.check_model(prepared.proto, full_check=True)
    runner = session(proto)
    feeds = feeds_for(runner, batch)
    expected = runner.run(None, feeds)
    for value, actual in zip(expected, session(prepared.proto).run(None, feeds), strict=True):
        assert relative_error(actual, value) < 1e-4
    results = run(to_torch(prepared.proto), {k: torch.from_numpy(v) for k, v in feeds.items()})
    for output, value in zip(runner.get_outputs(), expected, strict=True):
        assert relative_error(results[output.name].numpy(), value) < 1e-4
    return prepared


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_batchnorm_folds_into_convolutions_of_any_grouping(groups, bias, transposed):
    rng = np.random.default_rng(groups)
    shape = (4, 8 // groups, 3, 3) if transposed else (8, 4 // groups, 3, 3)
    weights = {"w": rng.standard_normal(shape).astype(F), "b": rng.standard_normal(8).astype(F), **statistics(8)}
    op = "ConvTranspose" if transposed else "Conv"
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    if not bias:
        del weights["b"]
    layer = helper.make_node(op, inputs, ["c"], "layer", group=groups)
    prepared = unchanged(build([layer, norm("c")], {"x": ["n", 4, 6, 6]}, {"y": None}, weights))
    assert prepared.folded == (("bn", "layer"),)
    assert [(n.name, list(n.output)) for n in prepared.proto.graph.node] == [("layer", ["y"])]


@pytest.mark.parametrize("trans_b", [0, 1])
def test_batchnorm_folds_into_gemm_with_alpha_and_beta(trans_b):
    rng = np.random.default_rng(3)
    w = rng.standard_normal((6, 5) if trans_b else (5, 6)).astype(F)
    weights = {"w": w, "b": rng.standard_normal(6).astype(F), **statistics(6)}
    layer = helper.make_node("Gemm", ["x", "w", "b"], ["c"], "layer", transB=trans_b, alpha=0.5, beta=2.0)
    prepared = unchanged(build([layer, norm("c")], {"x": ["n", 5]}, {"y": None}, weights))
    assert prepared.folded == (("bn", "layer"),)


def test_a_channel_without_variance_survives_folding():
    weights = {"w": np.ones((3, 2, 1, 1), F), **statistics(3)}
    weights["v"][1] = 0.0
    layer = helper.make_node("Conv", ["x", "w"], ["c"], "layer")
    prepared = unchanged(build([layer, norm("c")], {"x": ["n", 2, 4, 4]}, {"y": None}, weights))
    assert prepared.folded
    assert all(np.isfinite(numpy_helper.to_array(t)).all() for t in prepared.proto.graph.initializer)


def test_batchnorm_stays_where_the_convolution_is_used_twice():
    weights = {"w": np.ones((3, 2, 1, 1), F), **statistics(3)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "layer"),
        norm("c", "n"),
        helper.make_node("Add", ["c", "n"], ["y"], "add"),
    ]
    prepared = unchanged(build(nodes, {"x": ["n", 2, 4, 4]}, {"y": None}, weights))
    assert prepared.folded == ()
    assert any("bn stays" in note for note in prepared.notes)


def test_a_weight_that_two_layers_share_is_folded_into_a_copy():
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((3, 3, 1, 1)).astype(F), **statistics(3)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "one"),
        norm("c", "n"),
        helper.make_node("Conv", ["n", "w"], ["y"], "two"),
    ]
    prepared = unchanged(build(nodes, {"x": ["n", 3, 4, 4]}, {"y": None}, weights))
    assert prepared.folded == (("bn", "one"),)
    one, two = prepared.proto.graph.node
    assert two.input[1] == "w"
    assert one.input[1] != "w"


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_the_mean_over_height_and_width_becomes_a_pool(keepdims, opset, axes):
    if opset < 18:
        node, weights = helper.make_node("ReduceMean", ["x"], ["y"], "mean", axes=axes, keepdims=keepdims), {}
    else:
        node = helper.make_node("ReduceMean", ["x", "a"], ["y"], "mean", keepdims=keepdims)
        weights = {"a": np.array(axes, np.int64)}
    prepared = unchanged(build([node], {"x": ["n", 3, 4, 5]}, {"y": None}, weights, opset))
    kinds = [n.op_type for n in prepared.proto.graph.node]
    assert kinds == ["GlobalAveragePool"] if keepdims else ["GlobalAveragePool", "Flatten"]
    assert prepared.proto.graph.node[0].name == "mean"
    assert prepared.proto.graph.node[-1].output[0] == "y"


@pytest.mark.parametrize("axes", [[1], [1, 2], [2], [1, 2, 3]])
def test_other_means_stay(axes):
    node = helper.make_node("ReduceMean", ["x"], ["y"], "mean", axes=axes)
    prepared = unchanged(build([node], {"x": ["n", 3, 4, 5]}, {"y": None}, {}, 13))
    assert [n.op_type for n in prepared.proto.graph.node] == ["ReduceMean"]


def test_constants_are_folded_and_named_after_what_the_layer_reads():
    value = helper.make_tensor("v", TensorProto.INT64, [2], [6, 4])
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=value),
        helper.make_node("Reshape", ["w", "shape"], ["matrix"], "view"),
        helper.make_node("Identity", ["matrix"], ["same"]),
        helper.make_node("MatMul", ["x", "same"], ["y"]),
    ]
    proto = build(nodes, {"x": ["n", 6]}, {"y": None}, {"w": np.arange(24, dtype=F).reshape(2, 3, 4)})
    prepared = unchanged(proto)
    assert [(n.name, n.op_type) for n in prepared.proto.graph.node] == [("MatMul_y", "MatMul")]
    assert len(prepared.proto.graph.initializer) == 1


def test_dequantized_weights_are_not_folded_back_to_float():
    weights = {"q": np.arange(-6, 6, dtype=np.int8).reshape(3, 4), "s": np.array(0.1, F)}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], "dq"),
        helper.make_node("MatMul", ["x", "w"], ["y"], "layer"),
    ]
    prepared = unchanged(build(nodes, {"x": ["n", 3]}, {"y": None}, weights))
    assert [n.name for n in prepared.proto.graph.node] == ["dq", "layer"]


def test_old_files_lose_their_weights_from_the_inputs_and_names_become_unique():
    proto = small_cnn(9)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for node in proto.graph.node:
        node.name = "same" if node.op_type != "Relu" else ""
    prepared = prepare(proto)
    original = session(small_cnn(9))  # onnxruntime refuses two nodes of one name
    feeds = feeds_for(original, 2)
    assert relative_error(session(prepared.proto).run(None, feeds)[0], original.run(None, feeds)[0]) < 1e-4
    assert [i.name for i in prepared.proto.graph.input] == ["x"]
    names = [n.name for n in prepared.proto.graph.node]
    assert "Relu_r" in names
    assert len(set(names)) == len(names)
    assert opset_of(prepared.proto) == 13


def test_nodes_out_of_order_are_put_in_order():
    proto = small_cnn()
    nodes = list(reversed(proto.graph.node))
    scrambled = build(nodes, {"x": ["n", 3, 8, 8]}, {"y": None})
    scrambled.graph.initializer.extend(proto.graph.initializer)
    prepared = prepare(scrambled, fold_batchnorm=False)
    assert [n.name for n in prepared.proto.graph.node] == [n.name for n in proto.graph.node]


def test_local_functions_are_inlined():
    body = [helper.make_node("Add", ["a", "a"], ["t"]), helper.make_node("Relu", ["t"], ["r"])]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Twice", ["a"], ["r"], body, opsets[:1])
    proto = build([helper.make_node("Twice", ["x"], ["y"], "call", domain="local")], {"x": ["n", 3]}, {"y": ["n", 3]})
    proto.opset_import.append(opsets[1])
    proto.functions.append(function)
    prepared = unchanged(proto)
    assert [n.op_type for n in prepared.proto.graph.node] == ["Add", "Relu"]


@pytest.mark.parametrize("minimum", [13, 19, 21, 25])
def test_raising_the_operator_set_keeps_names_and_outputs(minimum):
    proto = prepare(small_cnn(9)).proto
    raised = raise_opset(proto, minimum)
    assert opset_of(raised) == max(minimum, 13)
    assert [(n.name, n.op_type) for n in raised.graph.node] == [(n.name, n.op_type) for n in proto.graph.node]
    assert [t.name for t in raised.graph.initializer] == [t.name for t in proto.graph.initializer]
    feeds = feeds_for(session(proto), 2)
    assert relative_error(session(raised).run(None, feeds)[0], session(proto).run(None, feeds)[0]) < 1e-6


def test_what_cannot_be_raised_says_so():
    proto = build([helper.make_node("Relu", ["x"], ["y"], "r")], {"x": [1]}, {"y": [1]}, opset=9)
    with pytest.raises(UserError, match="operator set 99"):
        raise_opset(proto, 99)


def test_the_description_counts_parameters_and_work():
    described = describe(prepare(small_cnn()).proto)
    conv = described.node("conv")
    assert conv.summary == "3x3, 3 -> 8, p1"
    assert conv.parameters == 8 * 3 * 9 + 8
    assert conv.macs == 8 * 64 * 27
    fc = described.node("fc")
    assert (fc.summary, fc.parameters, fc.macs) == ("128 -> 5", 645, 640)
    assert described.macs == 8 * 64 * 27 + 640
    assert described.inputs == ("x",)
    assert described.tensors["x"].shape == (None, 3, 8, 8)
    assert described.tensors["p"].shape == (None, 8, 4, 4)
    assert described.tensors["fc.weight"].dtype == "float"
    assert described.tensors["x"].shape_text() == "? x 3 x 8 x 8"
    assert [n.op_type for n in described.nodes] == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]


def test_the_description_marks_what_cannot_be_run():
    odd = helper.make_node("Frobnicate", ["x"], ["y"], "odd", domain="com.example")
    described = describe(build([odd], {"x": [1, 3]}, {"y": [1, 3]}))
    assert described.node("odd").unsupported
    assert described.node("odd").domain == "com.example"


def flattened_by_number() -> onnx.ModelProto:
    """A model with a batch of 1 written into its Reshape, as old exporters do."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 1, 3, 3)).astype(F),
        "s": np.array([1, 144], np.int64),
        "f": rng.standard_normal((144, 5)).astype(F),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Reshape", ["c", "s"], ["r"], "flat"),
        helper.make_node("MatMul", ["r", "f"], ["y"], "fc"),
    ]
    return build(nodes, {"x": [1, 1, 8, 8]}, {"y": [1, 5]}, weights)


def test_a_fixed_batch_is_freed():
    proto = flattened_by_number()
    freed = with_dynamic_batch(proto)
    assert freed is not None
    assert [n.name for n in freed.graph.node] == ["conv", "flat", "fc"]
    x = feeds_for(session(freed), 4)["x"]
    one_by_one = np.concatenate([session(proto).run(None, {"x": x[i : i + 1]})[0] for i in range(4)])
    assert relative_error(session(freed).run(None, {"x": x})[0], one_by_one) < 1e-5


def test_a_model_that_mixes_samples_keeps_its_batch():
    node = helper.make_node("Softmax", ["x"], ["y"], "over_samples", axis=0)
    assert with_dynamic_batch(build([node], {"x": [1, 4]}, {"y": [1, 4]})) is None
    assert with_dynamic_batch(small_cnn()) is None  # it is dynamic already


def test_a_thousand_layers_are_prepared_and_translated_in_seconds():
    nodes, weights, last = [], {}, "x"
    for i in range(1000):
        weights |= {f"w{i}": np.ones((4, 4, 1, 1), F)} | {f"{k}{i}": v for k, v in statistics(4).items()}
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], f"conv{i}"))
        last = f"y{i}"
        inputs = [f"c{i}", *(f"{k}{i}" for k in "ghmv")]
        nodes.append(helper.make_node("BatchNormalization", inputs, [last], f"bn{i}"))
    proto = build(nodes, {"x": ["n", 4, 2, 2]}, {last: ["n", 4, 2, 2]}, weights)
    started = time.perf_counter()
    prepared = prepare(proto)
    translated = to_torch(prepared.proto)
    assert time.perf_counter() - started < 15  # about 1 s; a pass over all nodes per layer takes above 30 s
    assert len(prepared.folded) == 1000
    assert len(translated.parameter_of) == 2000
