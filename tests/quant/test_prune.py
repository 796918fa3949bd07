"""Pruned models: exact equality with the original whose removed channels are silenced, shares, ranking, notes."""

import functools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from prune_cases import CONV, depthwise, joined, node, padded, residual
from quant_cases import model_of, small_cnn, weights

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.data.samples import choose_samples
from qstudio.quant.prune.run import prune_model
from qstudio.quant.ptq import PtqOptions, run_ptq

COUNTS = {"conv1": 72, "conv2": 576, "conv3": 72, "fc": 80}
"""Weights of the layers of `small_cnn`."""


def constants_of(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def shapes_of(proto):
    return {name: values.shape for name, values in constants_of(proto).items()}


def answer(proto, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0]


@functools.cache
def digits_samples(count=64):
    return choose_samples(load_dataset("digits"), count, 64, 0, None)


def pruned(model, text, **layers):
    recipe = Recipe().with_default(pruning=text)
    for name, other in layers.items():
        recipe = recipe.with_layers((name,), pruning=other)
    return prune_model(model, recipe, digits_samples())


@pytest.mark.parametrize("text", ["l1_filter:50", "l2_channel:30", "taylor_filter:40:global"])
@pytest.mark.parametrize("network", [residual, depthwise, joined])
def test_a_pruned_model_is_the_original_with_the_removed_channels_silenced(network, text):
    case = network()
    result = prune_model(case.model, Recipe().with_default(pruning=text), digits_samples())
    onnx.checker.check_model(result.model.proto, full_check=True)
    left, silent = constants_of(result.model.proto), onnx.ModelProto()
    silent.CopyFrom(case.model.proto)
    before = constants_of(silent)
    assert sum(v.size for v in left.values()) < 0.9 * sum(v.size for v in before.values())
    for tensor in silent.graph.initializer:
        if tensor.name in case.silenced:
            axis, biases, block = case.silenced[tensor.name]
            # Biases are random numbers, all different: those that are left say which filters are.
            kept = np.repeat(np.concatenate([np.isin(before[b], left[b]) for b in biases]), block)
            shape = [-1 if i == axis else 1 for i in range(len(tensor.dims))]
            tensor.CopyFrom(numpy_helper.from_array(before[tensor.name] * kept.reshape(shape), tensor.name))
    x = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(answer(result.model.proto, x), answer(silent, x), rtol=1e-5, atol=1e-5)


def test_channels_that_a_shortcut_pads_with_zeros_are_cut_there_too():
    case = padded()
    result = pruned(case.model, "l1_filter:50")
    left = constants_of(result.model.proto)
    kept = np.isin(constants_of(case.model.proto)["b2"], left["b2"])
    # conv1's channels are the sum's 2..5: what is gone of them is gone of both; the padding gives up its own.
    assert kept[2:6].sum() == 2
    assert left["w1"].shape[0] == 2
    np.testing.assert_array_equal(
        np.flatnonzero(np.isin(constants_of(case.model.proto)["b1"], left["b1"])), np.flatnonzero(kept[2:6])
    )
    assert left["widen_pruned"].tolist() == [0, kept[:2].sum(), 0, 0, 0, kept[6:].sum(), 0, 0]
    # The sum has no weights of its own to silence: conv3's inputs are those of both operands.
    silent = onnx.ModelProto()
    silent.CopyFrom(case.model.proto)
    kept_of = {
        "w2": np.isin(constants_of(silent)["b1"], left["b1"])[None, :, None, None],
        "w3": kept[None, :, None, None],
    }
    kept_of["w4"] = np.tile(np.isin(constants_of(silent)["b3"], left["b3"]), 16)[:, None]
    for tensor in silent.graph.initializer:
        if tensor.name in kept_of:
            values = numpy_helper.to_array(tensor) * kept_of[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    x = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(answer(result.model.proto, x), answer(silent, x), rtol=1e-5, atol=1e-5)


def test_the_filters_with_the_smallest_norm_go_and_the_share_is_the_nearest_count():
    case = residual()
    result = pruned(case.model, "none", conv3="l1_filter:50")
    before, left = constants_of(case.model.proto), constants_of(result.model.proto)
    order = np.argsort(np.abs(before["w3"]).sum((1, 2, 3)))
    np.testing.assert_array_equal(np.isin(before["b3"], left["b3"]), np.isin(np.arange(6), order[3:]))
    assert left["w1"].shape == before["w1"].shape
    columns = pruned(case.model, "none", fc="l2_channel:50")
    order = np.argsort(np.square(before["w4"]).sum(0))
    np.testing.assert_array_equal(
        np.isin(before["b3"], constants_of(columns.model.proto)["b3"]), np.isin(np.arange(6), order[3:])
    )
    assert constants_of(pruned(case.model, "none", conv3="l1_filter:99").model.proto)["w3"].shape[0] == 1


def test_coupled_layers_are_pruned_together_or_not_at_all():
    case = residual()
    alone = pruned(case.model, "none", conv2="l1_filter:50")
    assert constants_of(alone.model.proto)["w2"].shape == (8, 8, 3, 3)
    assert any("conv2 keeps its filters" in note and "conv1" in note for note in alone.notes)
    both = pruned(case.model, "none", conv1="l1_filter:50", conv2="l1_filter:25")
    assert constants_of(both.model.proto)["w2"].shape == (6, 6, 3, 3), "the smaller share counts"
    assert any("filters of conv1, conv2 go together" in note for note in both.notes)


def test_layers_compete_where_the_share_is_global():
    case = residual()
    model = case.model.proto
    for tensor in model.graph.initializer:
        if tensor.name in ("w1", "w2"):
            tensor.CopyFrom(numpy_helper.from_array(100 * numpy_helper.to_array(tensor), tensor.name))
    left = constants_of(pruned(case.model, "l1_filter:30:global").model.proto)
    # 14 channels (8 shared ones, 6 of conv3): 4 go, all of conv3, whose weights are a hundredth.
    assert left["w1"].shape[0] == 8
    assert left["w3"].shape[0] == 2
    # One of six is the tenth that stays; the share goes on with the others.
    left = constants_of(pruned(case.model, "l1_filter:60:global").model.proto)
    assert left["w3"].shape[0] == 1
    assert left["w1"].shape[0] == 5


@pytest.mark.parametrize("text", ["magnitude:30", "taylor:30"])
def test_single_weights_become_zero_by_layer_and_nothing_else_changes(text):
    case = residual()
    before, left = constants_of(case.model.proto), constants_of(pruned(case.model, text, fc="none").model.proto)
    for name, values in before.items():
        zeros = round(0.3 * values.size + 1e-9) if name in ("w1", "w2", "w3") else 0
        assert np.count_nonzero(left[name] == 0) == zeros
        np.testing.assert_array_equal(left[name][left[name] != 0], values[left[name] != 0])
    if text.startswith("magnitude"):
        assert np.abs(before["w3"])[left["w3"] == 0].max() < np.abs(before["w3"])[left["w3"] != 0].min()


def test_single_weights_of_all_layers_are_ranked_together():
    case = residual()
    before, left = constants_of(case.model.proto), constants_of(pruned(case.model, "magnitude:60:global").model.proto)
    names = ("w1", "w2", "w3", "w4")
    gone = np.concatenate([np.abs(before[n])[left[n] == 0] for n in names])
    stays = np.concatenate([np.abs(before[n])[left[n] != 0] for n in names])
    assert gone.size == round(0.6 * sum(before[n].size for n in names))
    assert gone.max() < stays.min()


def test_taylor_ranks_by_what_the_loss_loses():
    # fc reads channel means; a filter whose column of fc is zero changes no loss, however large it is.
    case = residual()
    for tensor in case.model.proto.graph.initializer:
        if tensor.name == "w4":
            values = np.array(numpy_helper.to_array(tensor))
            values[:, 2] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, "w4"))
        if tensor.name == "w3":
            values = np.array(numpy_helper.to_array(tensor))
            values[2] *= 50
            tensor.CopyFrom(numpy_helper.from_array(values, "w3"))
    before = constants_of(case.model.proto)["b3"]
    by_loss = constants_of(pruned(case.model, "none", conv3="taylor_filter:17").model.proto)["b3"]
    by_size = constants_of(pruned(case.model, "none", conv3="l1_filter:17").model.proto)["b3"]
    assert np.flatnonzero(~np.isin(before, by_loss)).tolist() == [2]
    assert np.flatnonzero(~np.isin(before, by_size)).tolist() != [2]


def test_what_cannot_be_followed_is_left_whole_and_named():
    constants = {
        "w1": weights(4, 1, 3, 3, seed=1),
        "w2": weights(4, 2, 3, 3, seed=2),
        "w3": weights(3, 4, 1, 1, seed=3),
    }
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], "first", **CONV),
        node("Conv", ["c1", "w2"], ["c2"], "grouped", group=2, **CONV),
        node("Conv", ["c2", "w3"], ["c3"], "third"),
        node("DepthToSpace", ["c2"], ["e"], "spread", blocksize=2),
        node("GlobalAveragePool", ["c3"], ["y"]),
    ]
    model = model_of(nodes, constants, (None, 1, 8, 8))
    result = pruned(model, "l1_filter:50")
    told = " | ".join(result.notes)
    assert {n: v.shape for n, v in constants_of(result.model.proto).items()} == {
        n: v.shape for n, v in constants.items()
    }
    assert "first keeps its filters: grouped, which reads them, is a convolution in 2 groups" in told
    assert "grouped keeps its filters" in told
    assert "third keeps its filters: they are the model's output y" in told


def test_channels_that_come_in_by_another_door_stay():
    # The Gemm adds what conv makes to its product: its bias is computed, one number for each output.
    constants = {"w1": weights(4, 1, 3, 3, seed=1), "w2": weights(4, 4, seed=2), "w3": weights(3, 4, seed=3)}
    nodes = [
        node("Conv", ["x", "w1"], ["c"], "conv", **CONV),
        node("GlobalAveragePool", ["c"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("GlobalMaxPool", ["x"], ["p"]),
        node("Flatten", ["p"], ["q"]),
        node("Concat", ["q", "q", "q", "q"], ["r"], axis=1),
        node("Gemm", ["r", "w2", "f"], ["s"], "sum", transB=1),
        node("Gemm", ["s", "w3"], ["y"], "fc", transB=1),
    ]
    result = pruned(model_of(nodes, constants, (None, 1, 8, 8)), "l1_filter:50")
    assert shapes_of(result.model.proto) == {n: v.shape for n, v in constants.items()}
    told = " | ".join(result.notes)
    assert "conv keeps its filters: sum (Gemm) reads them all" in told
    assert "sum keeps its filters: the bias of sum is not one number for each output" in told


def test_the_same_recipe_and_seed_give_the_same_bytes():
    case = residual()
    texts = [pruned(case.model, "taylor_filter:30:global", fc="taylor:50").model for _ in range(2)]
    assert texts[0].proto.SerializeToString() == texts[1].proto.SerializeToString()
    assert texts[0].sha256 == texts[1].sha256 != case.model.sha256
    assert pruned(case.model, "l1_filter:30").model.sha256 != pruned(case.model, "l1_filter:50").model.sha256


def test_taylor_without_samples_or_scores_is_refused_in_words():
    with pytest.raises(UserError, match="needs samples"):
        prune_model(residual().model, Recipe().with_default(pruning="taylor:10"), None)
    picture = model_of([node("Conv", ["x", "w"], ["y"], "conv", **CONV)], {"w": weights(2, 1, 3, 3)}, (None, 1, 8, 8))
    with pytest.raises(UserError, match="needs class scores"):
        prune_model(picture, Recipe().with_default(pruning="taylor:10"), digits_samples(8))


@pytest.mark.parametrize("text", ["l1_filter:25", "magnitude:50"])
def test_a_pruned_run_is_measured_like_any_other(tmp_path, text):
    model, recipe = small_cnn(), Recipe().with_default(pruning=text, weight_bits=4)
    options = PtqOptions(64, 100, 0, "cpu", str(tmp_path / "q.onnx"), measure_latency=False, threads=1)
    plain = run_ptq(model, load_dataset("digits"), Recipe().with_default(weight_bits=4), options)
    result = run_ptq(model, load_dataset("digits"), recipe, options)
    assert result.float == plain.float, "float is the network before pruning"
    assert result.model_hash == model.sha256
    assert result.recipe == recipe
    assert result.parity.agreement == 100.0
    assert result.parity.max_lsb <= 1
    assert result.exported == result.simulated
    sparsity = {layer.name: layer.sparsity for layer in result.layers if layer.sparsity is not None}
    assert all(layer.sparsity is None for layer in plain.layers)
    codes = constants_of(onnx.load(tmp_path / "q.onnx"))
    if text.startswith("l1"):
        # conv1 and conv2 share 8 channels, conv3 is depthwise: 2 of 8 go everywhere.
        assert sparsity == {"conv1": 25.0, "conv2": pytest.approx(43.75), "conv3": 25.0, "fc": 25.0}
        assert result.size_bytes.sparse is None
        assert result.size_bytes.quantized < 0.75 * plain.size_bytes.quantized
        assert result.size_bytes.file < plain.size_bytes.file
    else:
        assert set(sparsity.values()) == {50.0}
        assert result.size_bytes.quantized == plain.size_bytes.quantized, "zeros are stored like other codes"
        assert result.size_bytes.sparse < result.size_bytes.quantized
        assert any("neither the file nor the latency" in note for note in result.notes)
        stored = [v for v in codes.values() if v.size == 576]
        assert any(np.count_nonzero(np.asarray(v, np.int8)) <= 288 for v in stored)
    assert result.size_bytes.float == plain.size_bytes.float
    assert plain.sparsity is None
    assert result.sparsity == pytest.approx(sum(sparsity[n] * c for n, c in COUNTS.items()) / sum(COUNTS.values()))


@pytest.mark.parametrize("refinement", ["gptq", "cle"])
def test_what_was_pruned_stays_zero_through_refinements(refinement):
    recipe = Recipe(refinements=("fold", refinement)).with_default(pruning="magnitude:50", weight_bits=3)
    options = PtqOptions(64, 100, measure_latency=False, threads=1)
    result = run_ptq(small_cnn(), load_dataset("digits"), recipe, options)
    assert {layer.sparsity for layer in result.layers if layer.sparsity is not None} >= {50.0}
    assert all(layer.sparsity >= 50.0 for layer in result.layers if layer.sparsity is not None)


def test_a_format_without_zero_says_that_pruned_weights_do_not_stay_zero():
    recipe = Recipe().with_default(pruning="magnitude:50", weight_format="binary")
    result = run_ptq(small_cnn(), load_dataset("digits"), recipe, PtqOptions(64, 100, measure_latency=False, threads=1))
    assert any("zero is not a value of the weight format of conv1" in note for note in result.notes)
