"""Formats beside 8-bit integers in an export: stored for real, equal to the simulated values to the bit, and run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from export_cases import export, model_of, node, run, small_cnn
from onnx import TensorProto, numpy_helper

from qstudio.backends.activation_pairs import dequantized_name
from qstudio.backends.codebook import factored
from qstudio.backends.optimized import optimized_graph
from qstudio.backends.qdq import export_qdq, not_exported
from qstudio.backends.unpacked import with_unpacked_weights
from qstudio.core.affine import as_groups, encode
from qstudio.core.encodings import DynamicEncoding, LevelEncoding, OutlierEncoding
from qstudio.core.errors import UserError
from qstudio.core.float_formats import float_encoding
from qstudio.core.formats import format_of
from qstudio.core.levels import activation_levels, level_encoding
from qstudio.core.rounding import outlier_positions, round_values
from qstudio.core.scheme import FLOAT_BITS, Granularity, Scheme
from qstudio.graph.opset import raise_opset

WEIGHTS = [
    ("kmeans", 4, "tensor"),
    ("kmeans", 3, "channel"),
    ("nf4", 4, "tensor"),
    ("nf4", 4, "channel"),
    ("nf4", 4, "group:16"),
    ("nf4", 4, "group:7"),
    ("ternary", 2, "channel"),
    ("binary", 1, "tensor"),
    ("log", 8, "channel"),
    ("pow2", 4, "group:5"),
    ("apot", 5, "channel"),
    ("statistical", 4, "group:16"),
    ("fp8_e4m3", 8, "tensor"),
    ("fp8_e4m3", 8, "channel"),
    ("fp8_e4m3:mx", 8, "group:16"),
    ("fp8_e5m2", 8, "channel"),
    ("fp8_e5m2", 8, "group:7"),
    ("fp16", 16, "tensor"),
    ("bf16", 16, "group:16"),
]


def batch(seed=1, n=4, scale=1.0):
    return (np.random.default_rng(seed).standard_normal((n, 3, 8, 8)) * scale).astype(np.float32)


def every_operator():
    """Conv, depthwise Conv, ConvTranspose, MatMul and Add, Gemm both ways: channels on axes 0 and 1."""
    r = np.random.default_rng(4)

    def f(*shape):
        return (r.standard_normal(shape) / 3).astype(np.float32)

    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p w2", "c2", group=8, pads=[1, 1, 1, 1]),
        node("ConvTranspose", "c2 w3 b3", "t", strides=[2, 2]),
        node("Relu", "t", "r2"),
        node("GlobalAveragePool", "r2", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f w4", "m"),
        node("Add", "m b4", "a"),
        node("Relu", "a", "r3"),
        node("Gemm", "r3 w5 b5", "h", transB=1),
        node("Relu", "h", "r4"),
        node("Gemm", "r4 w6 b6", "y"),
    ]
    constants = {
        **{"w1": f(8, 3, 3, 3), "b1": f(8), "w2": f(8, 1, 3, 3), "w3": f(8, 32, 2, 2), "b3": f(32)},
        **{"w4": f(32, 32), "b4": f(32), "w5": f(32, 32), "b5": f(32), "w6": f(32, 5), "b6": f(5)},
    }
    return model_of(nodes, constants, {"x": ["n", 3, 8, 8]}, {"y": ["n", 5]})


def weight_encoding(text, bits, granularity, values, axis, percent=0.0):
    """Encode a weight as the program does."""
    scheme = Scheme("weight", bits, granularity=Granularity.parse(granularity), format=text)
    left_out = outlier_positions(values, percent) if percent else None
    rows = np.abs(as_groups(values, scheme.granularity, axis))
    reach = rows.max() if granularity == "tensor" else rows.max(axis=-1)
    family = format_of(text)[0].family
    if family == "levels":
        inner = level_encoding(scheme, values, axis, None, None, left_out)
    elif family == "float":
        inner = float_encoding(scheme, -reach, reach, axis)
    else:
        inner = encode(scheme, -reach, reach, axis)
    return OutlierEncoding(inner, left_out) if percent else inner


def exported(model, encode_weight, x=None, packed=False, abits=8):
    """Export with 8-bit activations and the given encodings of weights."""
    x = batch() if x is None else x
    case = export(model, x, abits=abits, wbits=FLOAT_BITS)
    floats = {t.name: numpy_helper.to_array(t) for t in case.prepared.graph.initializer}
    sites = {layer.weight.id: layer.weight for layer in case.layers if layer.weight is not None}
    others = {name: encode_weight(floats[name], site.channel_axis) for name, site in sites.items()}
    affine = {name: e for name, e in others.items() if hasattr(e, "qmin")}
    rest = {name: e for name, e in others.items() if name not in affine}
    case.model = export_qdq(
        *(case.prepared, case.layers, case.activations, affine), raise_opset=raise_opset, others=rest, packed=packed
    )
    return case, floats, others


def check_weights(case, floats, encodings):
    """Hold every weight that the export computes to the simulated one, bit for bit, with and without optimisation."""
    onnx.checker.check_model(case.model, full_check=True)
    names = {site: dequantized_name(site) for site in encodings}
    for optimize in (False, True):
        values = run(case.model, case.x, list(names.values()), optimize=optimize)
        for site, name in names.items():
            np.testing.assert_array_equal(values[name], round_values(floats[site], encodings[site]), err_msg=site)


def check_runs(case):
    """Hold the default run, integer kernels and all, to the one without optimisation."""
    plain, fused = run(case.model, case.x, optimize=False)["y"], run(case.model, case.x, precise=True)["y"]
    step = float(case.activations["y"].scale) if "y" in case.activations else 1e-5
    assert np.rint(np.abs(plain - fused) / step).max() <= 1


@pytest.mark.parametrize(
    ("text", "bits", "granularity", "packed"),
    [
        *((*w, True) for w in WEIGHTS),
        ("kmeans", 4, "channel", False),
        ("nf4", 4, "group:7", False),
        ("int", 4, "group:7", False),
        ("fp8_e4m3", 8, "group:16", False),
    ],
)
def test_weights_are_the_simulated_ones_to_the_bit(text, bits, granularity, packed):
    case, floats, encodings = exported(
        every_operator(), lambda values, axis: weight_encoding(text, bits, granularity, values, axis), packed=packed
    )
    check_weights(case, floats, encodings)
    check_runs(case)


@pytest.mark.parametrize(
    ("text", "bits", "granularity"),
    [
        ("int", 4, "channel"),
        ("int", 2, "group:16"),
        ("kmeans", 4, "channel"),
        ("fp8_e4m3", 8, "channel"),
        ("fp16", 16, "tensor"),
    ],
)
def test_outliers_stay_float_to_the_bit(text, bits, granularity):
    case, floats, encodings = exported(
        every_operator(), lambda values, axis: weight_encoding(text, bits, granularity, values, axis, 3.0), packed=True
    )
    assert all(isinstance(encoding, OutlierEncoding) and encoding.positions.size for encoding in encodings.values())
    check_weights(case, floats, encodings)
    check_runs(case)


@pytest.mark.parametrize(
    ("bits", "granularity", "abits"),
    [
        *((2, granularity, abits) for granularity in ("channel", "group:16") for abits in (8, 16, FLOAT_BITS)),
        *((4, granularity, 8) for granularity in ("tensor", "channel", "group:16", "group:7")),
        (4, "tensor", FLOAT_BITS),
        (4, "group:16", FLOAT_BITS),
        (2, "tensor", 8),
    ],
)
def test_packed_integers_load_and_run(bits, granularity, abits):
    case, floats, encodings = exported(
        every_operator(),
        lambda values, axis: weight_encoding("int", bits, granularity, values, axis),
        packed=True,
        abits=abits,
    )
    check_weights(case, floats, encodings)
    check_runs(case)
    wanted = {2: TensorProto.INT2, 4: TensorProto.INT4}[bits]
    stored = {t.name: t.data_type for t in case.model.graph.initializer}
    assert all(stored[f"{site}_quantized"] == wanted for site in encodings)


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_weights_run_on_the_integer_kernels(bits):
    case = export(small_cnn(), batch(), wbits=bits, packed=True)
    graph = optimized_graph(case.model)
    assert (graph.float_layers, graph.between, graph.constant_conversions) == ((), (), ())
    assert len(graph.conversions) == 2


def test_unpacked_again_the_file_is_the_one_with_int8_weights():
    packed, whole = (export(small_cnn(), batch(), wbits=4, packed=packed) for packed in (True, False))
    unpacked = with_unpacked_weights(packed.model)
    values = {t.name: numpy_helper.to_array(t) for t in unpacked.graph.initializer}
    reads = {n.name: n.input[0] for n in unpacked.graph.node if n.op_type == "DequantizeLinear"}
    for tensor in whole.model.graph.initializer:
        if tensor.name.endswith("_quantized"):
            found = values[reads[tensor.name.replace("_quantized", "_DequantizeLinear")]]
            expected = numpy_helper.to_array(tensor)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    assert with_unpacked_weights(whole.model) is whole.model
    np.testing.assert_array_equal(*(run(model, batch(), optimize=False)["y"] for model in (unpacked, packed.model)))


def test_arithmetic_of_weights_is_done_when_the_file_is_loaded():
    """Codebooks, 16-bit floats and groups of a convolution cost nothing at run time."""
    for text, bits, granularity in (("nf4", 4, "channel"), ("fp16", 16, "tensor"), ("int", 4, "group:16")):
        for abits in (8, FLOAT_BITS):
            case, _, _ = exported(
                *(small_cnn(), lambda values, axis, e=(text, bits, granularity): weight_encoding(*e, values, axis)),
                abits=abits,
            )
            graph = optimized_graph(case.model)
            assert not {"Gather", "Cast", "Mul", "Transpose"} & {operator for operator, _ in graph.operators}, text
            assert graph.constant_conversions == (), text


def test_float8_on_both_sides_is_dequantize_linear_on_both_sides():
    case = export(every_operator(), batch(), wbits=FLOAT_BITS)
    floats = {t.name: numpy_helper.to_array(t) for t in case.prepared.graph.initializer}
    scheme = Scheme("activation", 8, format="fp8_e4m3")
    others = {
        site: float_encoding(scheme, float(encoding.low), float(encoding.high), None)
        for site, encoding in case.activations.items()
    }
    weights = {
        layer.weight.id: weight_encoding("fp8_e4m3", 8, "channel", floats[layer.weight.id], layer.weight.channel_axis)
        for layer in case.layers
        if layer.weight is not None
    }
    case.model = export_qdq(
        *(case.prepared, case.layers, {}, {}), raise_opset=raise_opset, others={**others, **weights}
    )
    case.activations = {}
    check_weights(case, floats, weights)
    kinds = {node.output[0]: node.op_type for node in case.model.graph.node}
    assert {kinds[dequantized_name(site)] for site in weights} == {"DequantizeLinear"}
    plain, fused = run(case.model, case.x, optimize=False)["y"], run(case.model, case.x)["y"]
    assert np.abs(plain - fused).max() <= float(others["y"].scale) * 32, "one step of the largest float8 values"


def test_packed_groups_of_a_matrix_are_blocked_dequantize_linear():
    case, _, _ = exported(
        every_operator(), lambda values, axis: weight_encoding("int", 4, "group:16", values, axis), packed=True
    )
    blocks = {
        node.output[0]: onnx.helper.get_node_attr_value(node, "block_size")
        for node in case.model.graph.node
        if any(attribute.name == "block_size" for attribute in node.attribute)
    }
    assert list(blocks.values()) == [16, 16, 16]
    assert case.model.opset_import[0].version == 21


@pytest.mark.parametrize(
    ("text", "bits", "granularity", "limit"),
    [
        ("kmeans", 4, "tensor", 0.14),
        ("nf4", 4, "group:32", 0.18),
        ("ternary", 2, "channel", 0.08),
        ("binary", 1, "channel", 0.08),
        ("fp8_e4m3", 8, "channel", 0.27),
        ("fp16", 16, "tensor", 0.51),
        ("int", 2, "channel", 0.08),
        ("int", 4, "group:32", 0.18),
    ],
)
def test_files_are_small_for_real(text, bits, granularity, limit):
    r = np.random.default_rng(6)
    weights = {name: r.standard_normal((160, 160)).astype(np.float32) for name in ("w1", "w2")}
    nodes = [node("Gemm", "x w1", "h", transB=1), node("Relu", "h", "r"), node("Gemm", "r w2", "y", transB=1)]
    model = model_of(nodes, weights, {"x": ["n", 160]}, {"y": ["n", 160]})
    x = r.standard_normal((2, 160)).astype(np.float32)
    case, floats, encodings = exported(
        *(model, lambda values, axis: weight_encoding(text, bits, granularity, values, axis), x), packed=True
    )
    check_weights(case, floats, encodings)
    assert case.model.ByteSize() <= limit * model.ByteSize()


def activation_names(case):
    return {t: "y" if t == "y" else dequantized_name(t) for layer in case.layers for t in sites_of(layer)}


def sites_of(layer):
    return layer.activation.quantized_at if layer.activation is not None else ()


@pytest.mark.parametrize("wbits", [8, FLOAT_BITS])
@pytest.mark.parametrize(
    "text",
    [
        "fp16",
        "bf16",
        "fp8_e4m3",
        "fp8_e5m2",
        "dynamic 8",
        "dynamic 8 symmetric",
        "dynamic 5",
        "dynamic 12",
        "dynamic 8 bfp",
    ],
)
def test_activations_are_rounded_as_the_reference_rounds_them(text, wbits):
    case = export(small_cnn(), batch(), wbits=wbits)
    others = {}
    for site, encoding in case.activations.items():
        if text.startswith("dynamic"):
            others[site] = DynamicEncoding(int(text.split()[1]), "symmetric" in text, "bfp" if "bfp" in text else "int")
        else:
            scheme = Scheme("activation", format_of(text)[0].bits[0], format=text)
            others[site] = float_encoding(scheme, float(encoding.low), float(encoding.high), None)
    case.model = export_qdq(*(case.prepared, case.layers, {}, case.weights), raise_opset=raise_opset, others=others)
    onnx.checker.check_model(case.model, full_check=True)
    # Beyond the calibrated range, so that the floats saturate.
    x = batch(2, scale=3.0)
    readers = {n.output[0]: n.input[0] for n in case.model.graph.node}
    rounded = activation_names(case)
    reads = {t: source_of(case.model, name, readers, t) for t, name in rounded.items()}
    wanted = [name for name in (*reads.values(), *rounded.values()) if name not in ("x", "y")]
    values = run(case.model, x, wanted, optimize=False) | {"x": x}
    for layer in case.layers:
        for tensor in sites_of(layer):
            expected = round_values(values[reads[tensor]], others[layer.activation.id])
            np.testing.assert_array_equal(values[rounded[tensor]], expected, err_msg=tensor)
    # Sums in another order may cross a boundary of a coarse float; nothing else differs.
    fused = run(case.model, x, precise=True)["y"]
    assert np.abs(fused - values["y"]).max() <= 0.07 * np.abs(values["y"]).max()


def source_of(model, name, readers, tensor):
    """Return what the nodes that round a tensor read: the original tensor, or its renamed producer."""
    floats = {tensor, f"{tensor}_QuantizeLinear_Input"}
    while name not in floats or (name == tensor == "y" and name in readers and readers[name] not in ("",)):
        consumers = [n for n in model.graph.node if name in n.output]
        name = next((i for i in consumers[0].input if i.startswith(tensor)), consumers[0].input[0])
        if name in floats:
            break
    return name


def test_biases_stay_float_behind_dynamic_ranges():
    case = export(small_cnn(), batch())
    others = dict.fromkeys(case.activations, DynamicEncoding(8, False))
    model = export_qdq(case.prepared, case.layers, {}, case.weights, raise_opset=raise_opset, others=others)
    assert {"b1", "b2", "b3", "b4"} <= {t.name for t in model.graph.initializer}
    assert sum(n.op_type == "DynamicQuantizeLinear" for n in model.graph.node) == len(activation_names(case))


def test_float_weights_are_not_rounded_by_onnxruntime_itself():
    """Between DequantizeLinear and QuantizeLinear its optimiser makes float constants int8, unless kept from it."""
    model = small_cnn()
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            # One large weight: an int8 grid over all of them would lose the others.
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0, 0, 0] = 300.0
            tensor.CopyFrom(numpy_helper.from_array(values, "w2"))
    case = export(model, batch(), abits=8, wbits=FLOAT_BITS)
    check_runs(case)
    assert not any(op.startswith("QLinearConv") for op, _ in optimized_graph(case.model).operators)


def test_what_has_no_operator_is_left_float_and_said():
    case = export(small_cnn(), batch())
    levels = activation_levels(Scheme("activation", 4, format="log"), 0.0, 2.0)
    others = {"r1": levels, "r2": replace(levels, format="pow2"), "x": DynamicEncoding(8, False)}
    notes = not_exported(case.layers, others)
    assert len(notes) == 2
    assert "Logarithmic" in notes[0]
    assert "1 activations" in notes[0]
    activations = {k: v for k, v in case.activations.items() if k not in others}
    model = export_qdq(*(case.prepared, case.layers, activations, case.weights), raise_opset=raise_opset, others=others)
    assert "r1_QuantizeLinear" not in {n.name for n in model.graph.node}
    assert not_exported(case.layers, {}) == ()


def test_a_model_that_stays_at_an_old_opset_keeps_its_codes_in_8_bits_and_refuses_float8():
    def refuse(model, version):
        raise RuntimeError("no converter for this operator")

    case = export(small_cnn(), batch(), wbits=FLOAT_BITS)
    floats = {t.name: numpy_helper.to_array(t) for t in case.prepared.graph.initializer}
    arguments = (case.prepared, case.layers, case.activations, {})
    others = {
        "w1": weight_encoding("nf4", 4, "channel", floats["w1"], 0),
        "w2": OutlierEncoding(weight_encoding("int", 4, "channel", floats["w2"], 0), np.asarray([3, 50])),
    }
    weights = {
        "w3": weight_encoding("int", 2, "channel", floats["w3"], 0),
        "w4": weight_encoding("int", 4, "group:4", floats["w4"], 0),
    }
    case.model = export_qdq(*arguments[:-1], weights, raise_opset=refuse, others=others, packed=True)
    check_weights(case, floats, {**others, **weights})
    check_runs(case)
    with pytest.raises(UserError, match="operator set 19"):
        export_qdq(
            *arguments, raise_opset=refuse, others={"w1": weight_encoding("fp8_e4m3", 8, "tensor", floats["w1"], 0)}
        )


def test_a_table_that_is_a_product_is_stored_as_one():
    base = np.asarray([-1, -0.3333333, 0, 0.1, 1], np.float32)
    scale = np.random.default_rng(0).uniform(1e-3, 10, 500).astype(np.float32)
    found = factored(base * scale[:, None])
    assert found is not None
    np.testing.assert_array_equal(found[0] * found[1][:, None], base * scale[:, None])
    assert factored(np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)) is None
    assert factored(base[None]) is None
    assert isinstance(weight_encoding("nf4", 4, "tensor", base, 0), LevelEncoding)
