"""Small networks whose channels are coupled in every way, with what reads them."""

from types import SimpleNamespace

import numpy as np
from onnx import helper
from quant_cases import model_of, weights

CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
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
