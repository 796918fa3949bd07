"""Encodings of a run given to onnxruntime's own quantizer: it writes the scales and zero points of our export."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import qstudio
from qstudio.core.exchange import as_onnxruntime
from qstudio.core.recipe import LayerSettings
from qstudio.core.scheme import Granularity

SAMPLES = Path(__file__).parents[2] / "sample_models"


class _Samples(CalibrationDataReader):
    """What onnxruntime insists on having, though every range is given."""

    def __init__(self, name: str) -> None:
        self._batches = iter([{name: np.zeros((1, 1, 8, 8), np.float32)}, {name: np.ones((1, 1, 8, 8), np.float32)}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def scales(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return (scale, zero_point) of every tensor that the model quantizes, by its float name."""
    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            found[node.input[0]] = (constants[node.input[1]], constants[node.input[2]])
        elif node.op_type == "DequantizeLinear" and node.input[0] in constants:
            found[node.input[0].removesuffix("_quantized")] = (constants[node.input[1]], constants[node.input[2]])
    return found


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_onnxruntime_takes_our_scales_and_zero_points(
    granularity: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = SAMPLES / "digits_cnn.onnx"
    result = qstudio.quantize(
        str(model),
        "digits",
        qstudio.Recipe(replace(LayerSettings(), weight_granularity=Granularity(granularity))),
        calibration_samples=64,
        eval_samples=32,
        measure_latency=False,
    )
    assert result.encodings is not None
    overrides = {
        tensor: [{**entry, "quant_type": QuantType[entry["quant_type"]]} for entry in entries]
        for tensor, entries in as_onnxruntime(result.encodings).items()
    }
    for entries in overrides.values():
        for entry in entries:
            entry["scale"] = np.array(entry["scale"], np.float32)
            signed = entry["quant_type"] is QuantType.QInt8
            entry["zero_point"] = np.array(entry["zero_point"], np.int8 if signed else np.uint8)
    name = onnx.load(model).graph.input[0].name
    theirs_path = tmp_path / "theirs.onnx"
    logging.disable(logging.WARNING)  # it advises to simplify the model first, which would rename its tensors
    request.addfinalizer(lambda: logging.disable(logging.NOTSET))
    quantize_static(
        str(model),
        str(theirs_path),
        _Samples(name),
        quant_format=QuantFormat.QDQ,
        extra_options={"TensorQuantOverrides": overrides},
    )
    theirs = scales(onnx.load(theirs_path))
    compared = 0
    for tensor, entries in overrides.items():
        if tensor not in theirs:
            continue
        scale, zero = theirs[tensor]
        np.testing.assert_array_equal(np.ravel(scale), [entry["scale"] for entry in entries], err_msg=tensor)
        np.testing.assert_array_equal(np.ravel(zero), [entry["zero_point"] for entry in entries], err_msg=tensor)
        compared += 1
    assert compared >= 8
