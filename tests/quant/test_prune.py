"""Pruned models: exact equality with the original whose removed channels are silenced, shares, ranking, notes."""

import functools
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from quant_cases import model_of, small_cnn, weights

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.data.samples import choose_samples
from qstudio.quant.prune.run import prune_model
from qstudio.quant.ptq import PtqOptions, run_ptq

CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
COUNTS = {"conv1": 72, "conv2": 576, "conv3": 72, "fc": 80}
"""Weights of the layers of `small_cnn`."""
node = helper.make_node


def norm(name, count, seed):
    """Return the constants of a BatchNormalization."""
    rng = np.random.default_rng(seed)
    parts = {
        "scale": rng.uniform(0.5, 1.5, count),
        "shift": rng.normal(size=count),
        "mean": rng.normal(size=count),
        "var": rng.uniform(0.5, 2, count),
    }
    return {f"{name}_{part}": value.astype(np.float32) for part, value in parts.items()}


def norm_node(source, target, name):
    return node("BatchNormalization", [source, *(f"{name}_{p}" for p in ("scale", "shift", "mean", "var"))], [target])


def residual():
    """A block whose sum couples conv1 and conv2; the biases tell which filters are left."""
    constants = {
        "w1": weights(8, 1, 3, 3, seed=1),
        "b1": weights(8, seed=2),
        "w2": weights(8, 8, 3, 3, seed=3),
        "b2": weights(8, seed=4),
        "w3": weights(6, 8, 3, 3, seed=5),
        "b3": weights(6, seed=6),
        "w4": weights(5, 6, seed=7),
        "b4": weights(5, seed=8),
        **norm("n1", 8, 1),
        **norm("n2", 8, 2),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", **CONV),
        norm_node("c1", "d1", "n1"),
        node("Relu", ["d1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", **CONV),
        norm_node("c2", "d2", "n2"),
        node("Add", ["d2", "r1"], ["a"]),
        node("Relu", ["a"], ["r2"]),
        node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3", **CONV),
        node("Relu", ["c3"], ["r3"]),
        node("GlobalAveragePool", ["r3"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], "fc", transB=1),
    ]
    silenced = {"w2": (1, ["b1"], 1), "w3": (1, ["b1"], 1), "w4": (1, ["b3"], 1)}
    return SimpleNamespace(model=model_of(nodes, constants, (None, 1, 8, 8)), silenced=silenced)


def depthwise():
    """A depthwise block, then Flatten before a Gemm: each channel is a block of 16 columns."""
    constants = {
        "w1": weights(6, 1, 3, 3, seed=1),
        "b1": weights(6, seed=2),
        "wd": weights(12, 1, 3, 3, seed=3),
        "bd": weights(12, seed=4),
        "w2": weights(7, 12, 1, 1, seed=5),
        "b2": weights(7, seed=6),
        "slope": weights(7, 1, 1, seed=7),
        "w3": weights(7 * 16, 4, seed=8),
        "b3": weights(4, seed=9),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "stem", **CONV),
        node("Clip", ["c1"], ["r1"]),
        node("Conv", ["r1", "wd", "bd"], ["c2"], "depthwise", group=6, **CONV),
        node("HardSwish", ["c2"], ["r2"]),
        node("Conv", ["r2", "w2", "b2"], ["c3"], "pointwise"),
        node("PRelu", ["c3", "slope"], ["r3"]),
        node("MaxPool", ["r3"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["p", "shape"], ["f"], "flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], "fc"),
    ]
    constants["shape"] = np.array([-1, 7 * 16], np.int64)
    silenced = {"w2": (1, ["bd"], 1), "w3": (0, ["b2"], 16)}
    return SimpleNamespace(model=model_of(nodes, constants, (None, 1, 8, 8)), silenced=silenced)


def joined():
    """Two branches joined by a Concat, a product by a gate of each channel, and a MatMul."""
    constants = {
        "w1": weights(4, 1, 3, 3, seed=1),
        "b1": weights(4, seed=2),
        "w2": weights(5, 1, 3, 3, seed=3),
        "b2": weights(5, seed=4),
        "w3": weights(6, 9, 3, 3, seed=5),
        "b3": weights(6, seed=6),
        "w4": weights(6, 6, 1, 1, seed=7),
        "b4": weights(6, seed=8),
        "w5": weights(6, 5, seed=9),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "left", **CONV),
        node("Conv", ["x", "w2", "b2"], ["c2"], "right", **CONV),
        node("Concat", ["c1", "c2"], ["j"], "join", axis=1),
        node("Conv", ["j", "w3", "b3"], ["c3"], "both", **CONV),
        node("GlobalAveragePool", ["c3"], ["g"]),
        node("Conv", ["g", "w4", "b4"], ["c4"], "gate"),
        node("Sigmoid", ["c4"], ["s"]),
        node("Mul", ["c3", "s"], ["m"]),
        node("ReduceMean", ["m"], ["q"], axes=[2, 3], keepdims=0),
        node("MatMul", ["q", "w5"], ["y"], "fc"),
    ]
    silenced = {"w3": (1, ["b1", "b2"], 1), "w4": (1, ["b3"], 1), "w5": (0, ["b3"], 1)}
    return SimpleNamespace(model=model_of(nodes, constants, (None, 1, 8, 8)), silenced=silenced)


def padded():
    """The shortcut of a CIFAR ResNet: every other place, and channels of zeros on both sides (2 + 4 + 2)."""
    constants = {
        "w1": weights(4, 1, 3, 3, seed=1),
        "b1": weights(4, seed=2),
        "w2": weights(8, 4, 3, 3, seed=3),
        "b2": weights(8, seed=4),
        "w3": weights(5, 8, 3, 3, seed=5),
        "b3": weights(5, seed=6),
        "w4": weights(80, 3, seed=7),
        "starts": np.zeros(2, np.int64),
        "ends": np.full(2, 99, np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.full(2, 2, np.int64),
        "pads": np.array([0, 2, 0, 0, 0, 2, 0, 0], np.int64),
        "last": np.array([0, -1], np.int64),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", **CONV),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", strides=[2, 2], **CONV),
        node("Slice", ["r1", "starts", "ends", "axes", "steps"], ["s"], "thin"),
        node("Pad", ["s", "pads"], ["p"], "widen"),
        node("Add", ["c2", "p"], ["a"]),
        node("Conv", ["a", "w3", "b3"], ["c3"], "conv3", **CONV),
        node("Transpose", ["c3"], ["t"], perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "last"], ["f"], "flatten"),
        node("MatMul", ["f", "w4"], ["y"], "fc"),
    ]
    return SimpleNamespace(model=model_of(nodes, constants, (None, 1, 8, 8)), silenced={"w2": (1, ["b1"], 1)})


def constants_of(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


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
