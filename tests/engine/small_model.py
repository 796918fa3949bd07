"""A small network and data for it, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, CHANNELS, SIDE = 10, 8, 8


def write_model(path: Path, seed: int = 0, foreign: bool = False) -> Path:
    """Write conv - relu - pool - gemm for [N, 1, 8, 8]; `foreign` puts an operator nobody knows between."""
    random = np.random.default_rng(seed)
    weights = {
        "conv.weight": random.normal(0, 0.5, (CHANNELS, 1, 3, 3)),
        "conv.bias": random.normal(0, 0.1, CHANNELS),
        "fc.weight": random.normal(0, 0.3, (CLASSES, CHANNELS * SIDE * SIDE // 4)),
        "fc.bias": random.normal(0, 0.1, CLASSES),
    }
    pooled = helper.make_node("MaxPool", ["relu"], ["pool"], "/pool", kernel_shape=[2, 2], strides=[2, 2])
    if foreign:
        pooled = helper.make_node("Wobble", ["relu"], ["pool"], "/wobble", domain="com.example")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["conv"], "/conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["relu"], "/relu"),
            pooled,
            helper.make_node("Flatten", ["pool"], ["flat"], "/flatten"),
            helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], "/fc", transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("com.example", 1)] if foreign else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def write_data(path: Path, samples: int = 300, side: int = SIDE) -> Path:
    """Write uint8 images and labels."""
    random = np.random.default_rng(1)
    np.savez(
        path,
        x=random.integers(0, 256, (samples, side, side), dtype=np.uint8),
        y=random.integers(0, CLASSES, samples),
    )
    return path
