"""Small models and data for the tests of this folder, and the way to the shared cases."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qstudio.graph.load import LoadedModel

CASES = Path(os.environ.get("QSTUDIO_CASES", Path(__file__).parents[2] / ".." / "shared" / "cases"))


def case(relative):
    """Return the path of a shared case, or skip the test."""
    path = CASES / relative
    if not path.exists():
        pytest.skip(f"the case {relative} is not here; set QSTUDIO_CASES to the folder of cases")
    return path


def model_of(nodes, constants, input_shape=(None, 3, 8, 8), outputs=("y",), opset=17, path=""):
    """Return a LoadedModel of a graph that reads "x"."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    proto = onnx.shape_inference.infer_shapes(proto)
    onnx.checker.check_model(proto)
    return LoadedModel(path, proto, hashlib.sha256(proto.SerializeToString()).hexdigest(), "onnx")


def weights(*shape, seed=0, scale=0.3):
    """Return random weights."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def small_cnn(classes=10, channels=1, size=8):
    """Return a CNN with a residual add, a depthwise layer, pooling and a classifier."""
    w = {
        "w1": weights(8, channels, 3, 3, seed=1),
        "b1": weights(8, seed=2),
        "w2": weights(8, 8, 3, 3, seed=3, scale=0.15),
        "b2": weights(8, seed=4),
        "w3": weights(8, 1, 3, 3, seed=5),
        "b3": weights(8, seed=6),
        "w4": weights(classes, 8, seed=7),
        "b4": weights(classes, seed=8),
    }
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", **conv),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", **conv),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3", group=8, **conv),
        helper.make_node("Relu", ["c3"], ["r3"], "relu3"),
        helper.make_node("MaxPool", ["r3"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], "fc", transB=1),
    ]
    return model_of(nodes, w, (None, channels, size, size))


class Recorder:
    """A job context that keeps what it is told, and can be told to stop after some reports."""

    def __init__(self, stop_after=None):
        self.reports = []
        self.stop_after = stop_after

    def report(self, done, total, note=""):
        self.reports.append((done, total, note))
        self.check()

    def partial(self, value):
        raise AssertionError("nothing is streamed here")

    def check(self):
        from qstudio.core.errors import JobCancelled

        if self.stop_after is not None and len(self.reports) >= self.stop_after:
            raise JobCancelled
