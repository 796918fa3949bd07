"""Where the models come from that the graph tests run on."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from qstudio.graph.load import LoadedModel, load_model

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(os.environ.get("QSTUDIO_CASES", ROOT.parent / "shared" / "cases"))
SAMPLES = ROOT / "sample_models"

ort.set_default_logger_severity(3)  # old files list initializers as inputs, which onnxruntime warns about one by one


def model_files() -> list[Path]:
    """All sample and case models that are present."""
    found = sorted(p for folder in (SAMPLES, CASES / "models") if folder.is_dir() for p in folder.iterdir())
    return [p for p in found if p.suffix in (".onnx", ".pt2")]


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    """onnxruntime without any graph optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds_for(runner: ort.InferenceSession, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs; dynamic first axes get the batch."""
    rng = np.random.default_rng(seed)
    return {
        i.name: rng.standard_normal([d if isinstance(d, int) else batch for d in i.shape]).astype(np.float32)
        for i in runner.get_inputs()
    }


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest magnitude."""
    assert actual.shape == expected.shape
    return float(np.abs(actual.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-12))


def build(nodes, inputs, outputs, weights=None, opset=18, ir=8) -> onnx.ModelProto:
    """A model from nodes, {name: shape, or None where it is to be inferred} and {name: array}."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    if any(shape is None for shape in outputs.values()):
        inferred = onnx.shape_inference.infer_shapes(proto).graph.output
        for output, known in zip(proto.graph.output, inferred, strict=True):
            output.CopyFrom(known)
    return proto


@functools.lru_cache
def loaded(path: Path) -> LoadedModel:
    """Load a model once for all tests; an exported program takes seconds."""
    return load_model(path)


def small_cnn(opset: int = 18, seed: int = 0) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, MaxPool, Flatten, Gemm: what a first network has, in any operator set."""
    rng = np.random.default_rng(seed)
    f = np.float32
    weights = {
        "conv.weight": rng.standard_normal((8, 3, 3, 3)).astype(f) * 0.3,
        "bn.weight": rng.uniform(0.5, 1.5, 8).astype(f),
        "bn.bias": rng.standard_normal(8).astype(f),
        "bn.mean": rng.standard_normal(8).astype(f),
        "bn.var": rng.uniform(0.2, 2.0, 8).astype(f),
        "fc.weight": rng.standard_normal((5, 128)).astype(f) * 0.1,
        "fc.bias": rng.standard_normal(5).astype(f),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"], "bn"),
        helper.make_node("Relu", ["b"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    return build(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5]}, weights, opset)
