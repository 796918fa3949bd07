"""The export: names stay, codes are the reference's, and onnxruntime finds integer kernels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from export_cases import case_model, export, model_of, node, run, small_cnn
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from qstudio.backends.activation_pairs import dequantized_name
from qstudio.backends.optimized import optimized_graph
from qstudio.backends.qdq import bias_encodings, export_qdq
from qstudio.core.affine import Encoding, dequantize, fake_quantize, quantize
from qstudio.core.scheme import FLOAT_BITS
from qstudio.graph.opset import raise_opset

SETTINGS = [
    pytest.param({}, id="W8A8"),
    pytest.param({"asymmetric": False}, id="symmetric activations"),
    pytest.param({"wsymmetric": False}, id="asymmetric weights"),
    pytest.param({"granularity": "tensor"}, id="per tensor"),
    pytest.param({"granularity": "tensor", "wsymmetric": False}, id="per tensor asymmetric"),
    pytest.param({"abits": 4}, id="A4"),
    pytest.param({"abits": 3, "asymmetric": False}, id="A3 symmetric"),
    pytest.param({"wbits": 2}, id="W2"),
    pytest.param({"wbits": 4, "packed": True}, id="W4 packed"),
    pytest.param({"wbits": 2, "packed": True}, id="W2 packed"),
    pytest.param({"abits": 16}, id="A16"),
    pytest.param({"abits": 16, "asymmetric": False}, id="A16 symmetric"),
    pytest.param({"abits": 12}, id="A12"),
    pytest.param({"wbits": 16}, id="W16"),
    pytest.param({"wbits": 10, "wsymmetric": False}, id="W10 asymmetric"),
    pytest.param({"wbits": 4, "granularity": "group:16"}, id="groups"),
    pytest.param({"wbits": 3, "granularity": "group:7", "wsymmetric": False}, id="groups, last one shorter"),
    pytest.param({"wbits": 4, "granularity": "group:16", "packed": True}, id="groups packed"),
    pytest.param({"abits": FLOAT_BITS}, id="weights only"),
    pytest.param({"wbits": FLOAT_BITS}, id="activations only"),
]


def batch(seed=1, n=4, scale=1.0):
    return (np.random.default_rng(seed).standard_normal((n, 3, 8, 8)) * scale).astype(np.float32)


@pytest.mark.parametrize("settings", SETTINGS)
def test_export_computes_what_the_encodings_say(settings):
    """Every rounded tensor is the numpy rounding of what the node before it put out, saturation included."""
    case = export(small_cnn(), batch(), **settings)
    onnx.checker.check_model(case.model, full_check=True)
    # Larger data than calibration saw, so that every site saturates on both sides where it can.
    x = batch(2, scale=3.0)
    sites = [
        (layer.activation, case.activations[layer.activation.id])
        for layer in case.layers
        if layer.activation is not None and layer.activation.id in case.activations
    ]
    nodes = {n.name: n for n in case.model.graph.node}
    floats = {t.name: numpy_helper.to_array(t) for t in case.prepared.graph.initializer}
    reads, rounded, limits = {}, {}, {}
    for site, _ in sites:
        for tensor in site.quantized_at:
            read = nodes[f"{tensor}_QuantizeLinear"].input[0]
            if f"{tensor}_Clip" in nodes and read == nodes[f"{tensor}_Clip"].output[0]:
                read = nodes[f"{tensor}_Clip"].input[0]
            before = next((n for n in case.prepared.graph.node if tensor in n.output), None)
            if before is not None and read == before.input[0]:
                limits[tensor] = [float(floats[i]) for i in before.input[1:]] or [0.0, np.inf]
            reads[tensor], rounded[tensor] = read, tensor if tensor == "y" else dequantized_name(tensor)
    wanted = [name for name in (*reads.values(), *rounded.values()) if name not in ("x", "y")]
    values = run(case.model, x, wanted, optimize=False) | {"x": x}
    assert bool(sites) == (settings.get("abits") != FLOAT_BITS)
    for site, encoding in sites:
        for tensor in site.quantized_at:
            expected = fake_quantize(np.clip(values[reads[tensor]], *limits.get(tensor, (-np.inf, np.inf))), encoding)
            np.testing.assert_array_equal(values[rounded[tensor]], expected, err_msg=tensor)


@pytest.mark.parametrize("settings", SETTINGS)
def test_weights_and_biases_are_stored_as_the_reference_rounds_them(settings):
    case = export(small_cnn(), batch(), **settings)
    weights = {site: dequantized_name(site) for site in case.weights}
    biases = bias_encodings(case.prepared, case.layers, case.activations, case.weights)
    of_layer = {layer.name: layer for layer in case.layers}
    names = [*weights.values(), *(dequantized_name(of_layer[name].bias.id) for name in biases)]
    values = run(case.model, batch(), names, optimize=False)
    floats = {t.name: numpy_helper.to_array(t) for t in case.prepared.graph.initializer}
    for site, name in weights.items():
        np.testing.assert_array_equal(values[name], fake_quantize(floats[site], case.weights[site]), err_msg=site)
    for layer, encoding in biases.items():
        site = of_layer[layer].bias.id
        np.testing.assert_array_equal(values[dequantized_name(site)], fake_quantize(floats[site], encoding))
    whole = "granularity" not in settings or "group" not in settings["granularity"]
    both = FLOAT_BITS not in (settings.get("abits"), settings.get("wbits"))
    assert len(biases) == (4 if whole and both else 0)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_runs_optimised_and_agrees_within_the_8_bit_kernels_rounding(settings):
    case = export(small_cnn(), batch(), **settings)
    plain = run(case.model, case.x, optimize=False)["y"]
    # `precise` keeps processors without VNNI from saturating in 16 bits, which is theirs and not the export's.
    fused = run(case.model, case.x, precise=True)["y"]
    step = float(case.activations["y"].scale) if "y" in case.activations else 1e-4
    assert np.abs(plain - fused).max() <= 2.001 * step


@pytest.mark.parametrize("settings", [{}, {"asymmetric": False}, {"wsymmetric": False}, {"abits": 4}, {"wbits": 4}])
def test_up_to_8_bits_everything_runs_on_integer_kernels(settings):
    case = export(small_cnn(), batch(), **settings)
    graph = optimized_graph(case.model)
    assert graph.float_layers == ()
    assert graph.between == ()
    assert len(graph.conversions) == 2, "one on the way in, one on the way out"
    count = dict(graph.operators)
    assert (count["QLinearConv"], count["QGemm"], count["QLinearAdd"]) == (3, 1, 1)


@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet8_cifar10", "kws_dscnn", "mnist_cntk"])
def test_cases_run_on_integer_kernels_throughout(name):
    model, x = case_model(name)
    case = export(model, x)
    graph = optimized_graph(case.model)
    # onnxruntime has no integer Pad behind QDQ; its own quantize_static leaves the same two in ResNet-20.
    assert {op for _, op in graph.between} <= {"Pad"}
    assert graph.float_layers == ()
    assert graph.constant_conversions == ()


def test_nodes_and_names_stay():
    model = small_cnn()
    case = export(model, batch())
    kept = {n.name: n for n in case.model.graph.node}
    for before in model.graph.node:
        after = kept[before.name]
        assert (after.op_type, list(after.output)) == (before.op_type, list(before.output)) or before.output[0] == "y"
    assert [i.name for i in case.model.graph.input] == ["x"]
    assert [o.name for o in case.model.graph.output] == ["y"]
    assert case.prepared.SerializeToString() == prepared_bytes(model), "the prepared model is not changed"


def prepared_bytes(model):
    from qstudio.graph.prepare import prepare

    return prepare(model).proto.SerializeToString()


def test_sites_left_in_float_get_nothing():
    case = export(small_cnn(), batch())
    activations = {k: v for k, v in case.activations.items() if k == "r2"}
    model = export_qdq(case.prepared, case.layers, activations, {}, raise_opset=raise_opset)
    counted = Counter(n.op_type for n in model.graph.node)
    # r2 and the MaxPool behind it share one encoding.
    assert (counted["QuantizeLinear"], counted["DequantizeLinear"]) == (2, 2)
    assert {"w1", "b1"} <= {t.name for t in model.graph.initializer}


def test_weight_values_replace_the_initializers_before_rounding():
    case = export(small_cnn(), batch())
    values = {"w1": np.zeros((8, 3, 3, 3), np.float32), "b4": np.full(5, 0.25, np.float32)}
    model = export_qdq(
        case.prepared, case.layers, case.activations, case.weights, raise_opset=raise_opset, weight_values=values
    )
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert not stored["w1_quantized"].any()
    scale = stored["b4_scale"]
    np.testing.assert_allclose(stored["b4_quantized"] * scale, 0.25, rtol=1e-3)


def test_a_bias_shared_by_two_layers_gets_a_copy_for_each():
    r = np.random.default_rng(3)
    weights = {
        "w1": r.standard_normal((4, 4)).astype(np.float32),
        "w2": 9 * r.standard_normal((4, 4)).astype(np.float32),
    }
    nodes = [node("Gemm", "x w1 b", "h"), node("Relu", "h", "r"), node("Gemm", "r w2 b", "y")]
    constants = weights | {"b": np.asarray([0.5, -1, 2, 0], np.float32)}
    model = model_of(nodes, constants, {"x": ["n", 4]}, {"y": ["n", 4]})
    case = export(model, r.standard_normal((16, 4)).astype(np.float32))
    assert sum(t.name.startswith("b_quantized") for t in case.model.graph.initializer) == 2
    plain, original = run(case.model, case.x, optimize=False)["y"], run(model, case.x)["y"]
    assert np.abs(plain - original).max() < 0.05 * np.abs(original).max()


def test_without_a_way_to_opset_21_onnxruntimes_own_operators_are_used():
    def refuse(model, version):
        raise RuntimeError("no converter for this operator")

    case = export(small_cnn(), batch(), abits=16)
    model = export_qdq(case.prepared, case.layers, case.activations, case.weights, raise_opset=refuse)
    assert {n.domain for n in model.graph.node if n.op_type == "QuantizeLinear"} == {"com.microsoft"}
    np.testing.assert_array_equal(run(model, case.x, optimize=False)["y"], run(case.model, case.x, optimize=False)["y"])


def encoding(scale, zero_point, qmin, qmax, axis=None, group_size=0):
    scale, zero_point = np.asarray(scale, np.float32), np.asarray(zero_point, np.int32)
    return Encoding(scale, zero_point, qmin, qmax, axis, group_size)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        pytest.param(encoding(0.5, 3, 0, 255), (6, 8), id="u8"),
        pytest.param(encoding(0.25, 0, -127, 127), (6, 8), id="i8"),
        pytest.param(encoding(0.001, 1000, 0, 65535), (6, 8), id="u16"),
        pytest.param(encoding([0.5, 0.25, 1, 2, 3, 4], [0, 1, -5, 2, -128, 127], -128, 127, 0), (6, 8), id="channel"),
        pytest.param(encoding(np.linspace(0.1, 1, 8), np.zeros(8), -7, 7, 1), (6, 8), id="axis 1"),
    ],
)
def test_numpy_reference_is_onnx_reference(given, shape):
    """Ties to even, saturation, axes: the codes of core.affine are those of the onnx package's evaluator."""
    r = np.random.default_rng(5)
    x = r.standard_normal(shape).astype(np.float32) * 40
    x.reshape(-1)[:8] = [0.25, 0.75, 1.25, -0.25, -0.75, -1.25, 1e5, -1e5]
    signed = given.qmin < 0
    dtype = np.dtype(("int" if signed else "uint") + ("8" if given.levels <= 256 else "16"))
    attributes = {} if given.axis is None else {"axis": given.axis}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    constants = {"s": given.scale, "z": given.zero_point.astype(dtype)}
    model = model_of(nodes, constants, {"x": shape}, {"y": shape}, opset=21)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("q", onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)
    )
    values, codes = ReferenceEvaluator(model).run(None, {"x": x})
    inside = codes.astype(np.int32).clip(given.qmin, given.qmax)
    np.testing.assert_array_equal(quantize(x, given), inside)
    full = codes.astype(np.int32)
    np.testing.assert_array_equal(dequantize(full, given), values)


def test_small_exports_agree_with_the_onnx_reference_evaluator():
    case = export(small_cnn(opset=21), batch(), abits=4, wbits=3)
    reference = ReferenceEvaluator(case.model).run(None, {"x": case.x})[0]
    step = float(case.activations["y"].scale)
    # The evaluator adds floats in another order; a tie may fall to the other side.
    assert np.abs(reference - run(case.model, case.x, optimize=False)["y"]).max() <= 1.001 * step
