"""Small models, a plain min-max calibration, and the cases folder, for the export tests."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qstudio.backends.ort import make_session, with_outputs
from qstudio.backends.qdq import adjust_weight_scales, export_qdq
from qstudio.core.affine import Encoding, as_groups, encode
from qstudio.core.model_info import LayerInfo
from qstudio.core.scheme import Granularity, Scheme
from qstudio.graph.describe import describe
from qstudio.graph.opset import raise_opset
from qstudio.graph.prepare import prepare
from qstudio.quant.placement import fixed_encoding, place

RNG_SEED = 0


def model_of(nodes, constants, inputs, outputs, opset=17):
    """Build a checked model; `inputs` and `outputs` are {name: shape}."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    onnx.checker.check_model(model, full_check=True)
    return model


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(
        op_type, inputs.split(), outputs.split(), name=f"{op_type}_{outputs.split()[0]}", **attributes
    )


def small_cnn(opset=17):
    """Conv + Relu, Conv, Add + Relu, MaxPool, depthwise Conv + Clip, GlobalAveragePool, Flatten, Gemm."""
    r = np.random.default_rng(RNG_SEED)

    def f(*shape):
        return (r.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)

    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b2", "c2", pads=[1, 1, 1, 1]),
        node("Add", "r1 c2", "a"),
        node("Relu", "a", "r2"),
        node("MaxPool", "r2", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p w3 b3", "c3", group=8, pads=[1, 1, 1, 1]),
        node("Clip", "c3 zero six", "k"),
        node("GlobalAveragePool", "k", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w4 b4", "y", transB=1),
    ]
    constants = {
        **{"w1": f(8, 3, 3, 3), "b1": f(8), "w2": f(8, 8, 3, 3), "b2": f(8), "w3": f(8, 1, 3, 3), "b3": f(8)},
        **{"w4": f(5, 8), "b4": f(5), "zero": np.float32(0), "six": np.float32(6)},
    }
    return model_of(nodes, constants, {"x": ["n", 3, 8, 8]}, {"y": ["n", 5]}, opset)


@dataclass
class Exported:
    """A model, what it was quantized with, and the result."""

    prepared: onnx.ModelProto
    layers: tuple[LayerInfo, ...]
    activations: dict[str, Encoding]
    weights: dict[str, Encoding]
    model: onnx.ModelProto
    x: np.ndarray


def export(model, x, abits=8, asymmetric=True, wbits=8, wsymmetric=True, granularity="channel", **options) -> Exported:
    """Prepare, place, calibrate with min-max on `x` and export."""
    prepared = prepare(model).proto
    layers = place(describe(prepared))
    activations, weights = calibrate(prepared, layers, x, abits, asymmetric, wbits, wsymmetric, granularity)
    exported = export_qdq(prepared, layers, activations, weights, raise_opset=raise_opset, **options)
    return Exported(prepared, layers, activations, weights, exported, x)


def calibrate(prepared, layers, x, abits, asymmetric, wbits, wsymmetric, granularity):
    names = {t for layer in layers if layer.activation for t in layer.activation.quantized_at}
    inputs = {i.name for i in prepared.graph.input}
    session = make_session(with_outputs(prepared, sorted(names - inputs)))
    first = session.get_inputs()[0].name
    values = dict(zip([o.name for o in session.get_outputs()], session.run(None, {first: x}), strict=True))
    values[first] = x
    activations, weights = {}, {}
    constants = {t.name: numpy_helper.to_array(t) for t in prepared.graph.initializer}
    for layer in layers:
        if layer.activation is not None and abits != 32:
            scheme = Scheme("activation", abits, not asymmetric)
            seen = [values[t] for t in layer.activation.quantized_at]
            low, high = min(float(v.min()) for v in seen), max(float(v.max()) for v in seen)
            activations[layer.activation.id] = fixed_encoding(layer.activation, scheme) or encode(
                scheme, low, high, None
            )
        if layer.weight is not None and wbits != 32:
            kind = Granularity.parse(granularity)
            axis = layer.weight.channel_axis
            kind = kind if axis is not None else Granularity("tensor")
            rows = as_groups(constants[layer.weight.id], kind, axis or 0)
            low, high = rows.min(axis=-1), rows.max(axis=-1)
            if kind.kind == "tensor":
                low, high = low[0], high[0]
            weights[layer.weight.id] = encode(Scheme("weight", wbits, wsymmetric, kind), low, high, axis)
    return activations, adjust_weight_scales(prepared, layers, activations, weights)


def run(model, x, tensors=(), **options):
    """Run a model in onnxruntime and return all outputs by name."""
    session = make_session(with_outputs(model, tensors) if tensors else model, **options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


def cases_folder() -> Path:
    """Return the folder of third-party cases, or skip the test."""
    folder = Path(os.environ.get("QSTUDIO_CASES", Path(__file__).parents[2] / ".." / "shared" / "cases"))
    if not (folder / "models").is_dir():
        pytest.skip("the cases folder is not here (../shared/cases or QSTUDIO_CASES)")
    return folder


INPUT_SHAPES = {
    "resnet20_cifar10": (3, 32, 32),
    "resnet8_cifar10": (3, 32, 32),
    "kws_dscnn": (1, 49, 10),
    "mnist_cntk": (1, 28, 28),
}


def case_model(name: str) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return a model of the cases folder and random input for it."""
    model = onnx.load(str(cases_folder() / "models" / f"{name}.onnx"))
    batch = 1 if name == "mnist_cntk" else 8
    x = np.random.default_rng(RNG_SEED).standard_normal((batch, *INPUT_SHAPES[name])).astype(np.float32)
    return model, x


def quantize_static_of(model: onnx.ModelProto, x: np.ndarray, folder: Path) -> onnx.ModelProto:
    """Return what onnxruntime's own quantizer makes of a model (QDQ, per channel, u8 and i8)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{model.graph.input[0].name: x}])

        def get_next(self):
            return next(self.batches, None)

    source, prepared, result = (str(folder / f"{name}.onnx") for name in ("float", "prepared", "static"))
    onnx.save(model, source)
    quant_pre_process(source, prepared)
    quantize_static(
        prepared,
        result,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(result)


onnxruntime.set_default_logger_severity(4)
