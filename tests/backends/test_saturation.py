"""The checker for 16-bit saturation against onnxruntime's own kernels, where the processor shows it."""

from __future__ import annotations

import numpy as np
import pytest
from export_cases import export, model_of, node, run
from onnx import numpy_helper

from qstudio.backends.qdq import layer_inputs
from qstudio.backends.saturation import saturating_layers
from qstudio.core.processor import processor


def gemm(wbits):
    r = np.random.default_rng(0)
    w = (np.abs(r.standard_normal((16, 64))) + 2).astype(np.float32)
    x = (np.abs(r.standard_normal((32, 64))) + 2).astype(np.float32)
    model = model_of([node("Gemm", "x w", "y", transB=1)], {"w": w}, {"x": ["n", 64]}, {"y": ["n", 16]})
    return export(model, x, wbits=wbits)


def check(case):
    values = {t.name: numpy_helper.to_array(t) for t in case.prepared.graph.initializer}
    inputs = layer_inputs(case.prepared, case.layers)
    return saturating_layers(case.layers, inputs, case.activations, case.weights, values)


def test_full_8_bit_weights_are_reported_and_7_bits_are_safe():
    (found,) = check(gemm(8))
    assert found.layer == "Gemm_y"
    assert found.pairs_percent > 1
    assert found.safe_bits == 7
    assert check(gemm(7)) == ()


def test_the_kernels_do_what_the_checker_says():
    """Safe weights agree with the unfused run on any processor; unsafe ones go wrong where there is no VNNI."""
    family, *sets = processor()[1]
    safe, unsafe = gemm(7), gemm(8)
    steps = [
        np.abs(run(c.model, c.x)["y"] - run(c.model, c.x, optimize=False)["y"]).max() / c.activations["y"].scale
        for c in (safe, unsafe)
    ]
    assert steps[0] <= 1.001
    if family != "x86" or any("vnni" in s or "amx" in s for s in sets):
        pytest.skip("this processor adds products in 32 bits")
    assert steps[1] > 2
