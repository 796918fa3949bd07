"""Where quantizers sit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qstudio.core.scheme import Scheme
from qstudio.graph.describe import describe
from qstudio.quant.placement import fixed_encoding, place


def rows(nodes, constants, x=("n", 4, 8, 8), outputs=("y",), extra_inputs=()):
    """Place quantizers on a graph with one float input "x"; return {row name: LayerInfo}."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    inputs += [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in extra_inputs]
    graph = helper.make_graph(
        nodes,
        "test",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return {row.name: row for row in place(describe(model))}


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


def f(*shape):
    return np.ones(shape, np.float32)


CONV = {"w": f(4, 4, 3, 3), "b": f(4)}


def conv(inputs="x w b", output="c", **attributes):
    return node("Conv", inputs, output, pads=[1, 1, 1, 1], **attributes)


def test_input_conv_and_output():
    found = rows([conv(output="y")], CONV)
    assert list(found) == ["x", "y"]
    assert (found["x"].op_type, found["x"].activation.id, found["x"].inputs) == ("Input", "x", ())
    row = found["y"]
    assert (row.weight.id, row.weight.channel_axis, row.weight.shape) == ("w", 0, (4, 4, 3, 3))
    assert (row.bias.id, row.activation.id, row.inputs) == ("b", "y", ("x",))
    assert row.activation.is_output
    assert not found["x"].activation.is_output


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_only_the_fused_output_has_a_site(activation):
    found = rows([conv(), node(activation, "c", "y")], CONV)
    assert list(found) == ["x", "c"]
    assert found["c"].activation.id == "y"
    assert found["c"].activation.members == ("y",)


def test_add_and_relu_are_one_row():
    found = rows([conv(), node("Add", "x c", "a"), node("Relu", "a", "y")], CONV)
    assert list(found) == ["x", "c", "a"]
    assert found["a"].activation.id == "y"
    assert found["a"].inputs == ("x", "c")


def test_a_branch_before_the_relu_is_not_fused():
    nodes = [conv(), node("Relu", "c", "r"), node("Add", "r c", "y")]
    found = rows(nodes, CONV)
    assert list(found) == ["x", "c", "r", "y"]
    assert found["c"].activation.id == "c"
    assert found["r"].activation.id == "r"


def test_a_relu_behind_a_model_output_is_not_fused():
    found = rows([conv(output="c"), node("Relu", "c", "y")], CONV, outputs=("c", "y"))
    assert found["c"].activation.id == "c"
    assert found["y"].activation.id == "y"


@pytest.mark.parametrize(
    ("moving", "constants"),
    [
        (node("MaxPool", "c", "m", kernel_shape=[2, 2]), {}),
        (node("Reshape", "c s", "m"), {"s": np.int64([0, -1])}),
        (node("Transpose", "c", "m", perm=[0, 2, 3, 1]), {}),
        (node("Flatten", "c", "m"), {}),
        (node("Slice", "c s e", "m"), {"s": np.int64([0]), "e": np.int64([2])}),
        (node("Pad", "c p", "m"), {"p": np.int64([0, 0, 1, 1, 0, 0, 1, 1])}),
        (node("Pad", "c p v", "m"), {"p": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.float32(0)}),
        (node("Pad", "c p", "m", mode="reflect"), {"p": np.int64([0, 0, 1, 1, 0, 0, 1, 1])}),
        (node("DepthToSpace", "c", "m", blocksize=2), {}),
        (node("Identity", "c", "m"), {}),
        (node("Gather", "c i", "m"), {"i": np.int64([0])}),
        (node("Resize", "c  f", "m", mode="nearest"), {"f": np.float32([1, 1, 2, 2])}),
    ],
    ids=lambda value: f"{value.op_type}" if isinstance(value, onnx.NodeProto) else "",
)
def test_value_preserving_operators_pass_the_encoding_on(moving, constants):
    if moving.op_type == "Resize":
        moving = helper.make_node("Resize", ["c", "", "f"], ["m"], name="m", mode="nearest")
    found = rows([conv(), moving, node("Sigmoid", "m", "y")], CONV | constants)
    assert list(found) == ["x", "c", "y"]
    site = found["c"].activation
    assert (site.id, site.members, site.quantized_at) == ("c", ("c", "m"), ("c",))
    assert found["y"].inputs == ("c",)


@pytest.mark.parametrize(
    ("changing", "constants"),
    [
        (node("AveragePool", "c", "m", kernel_shape=[2, 2]), {}),
        (node("GlobalAveragePool", "c", "m"), {}),
        (node("Pad", "c p v", "m"), {"p": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.float32(1)}),
        (node("LeakyRelu", "c", "m"), {}),
        (helper.make_node("Resize", ["c", "", "f"], ["m"], name="m", mode="linear"), {"f": np.float32([1, 1, 2, 2])}),
    ],
    ids=["AveragePool", "GlobalAveragePool", "Pad with 1", "LeakyRelu", "linear Resize"],
)
def test_operators_with_new_values_have_their_own_encoding(changing, constants):
    found = rows([conv(), changing, node("Sigmoid", "m", "y")], CONV | constants)
    assert found["c"].activation.members == ("c",)
    assert found["m"].activation.members == ("m",)


def test_concat_owns_one_encoding_for_all():
    nodes = [
        conv(),
        conv("x w b", "d"),
        node("Relu", "d", "r"),
        node("MaxPool", "r", "p", kernel_shape=[1, 1]),
        node("Concat", "c p", "k", axis=1),
        node("Flatten", "k", "y"),
    ]
    found = rows(nodes, CONV)
    site = found["k"].activation
    assert site.id == "k"
    assert set(site.members) == {"c", "r", "p", "k", "y"}
    assert set(site.quantized_at) == {"c", "r"}
    assert site.is_output
    for name in ("c", "d"):
        assert found[name].activation is None
        assert found[name].shares_with == "k"


def test_chained_concats_share_one_encoding():
    nodes = [
        conv(),
        node("Concat", "x c", "k", axis=1),
        node("Sigmoid", "k", "s"),
        node("Concat", "k s", "l", axis=1),
        node("Relu", "l", "y"),
    ]
    found = rows(nodes, CONV)
    assert found["k"].activation.id == "k"
    assert set(found["k"].activation.members) == {"x", "c", "k", "s", "l"}
    assert found["k"].activation.fixed_range is None, "the range of a Sigmoid is not that of what it shares with"
    assert {found[n].shares_with for n in ("x", "c", "s", "l")} == {"k"}


def test_a_constant_in_a_concat_is_rounded_behind_it():
    found = rows([conv(), node("Concat", "c e", "y", axis=0)], CONV | {"e": f(1, 4, 8, 8)})
    assert found["y"].activation.quantized_at == ("c", "y")


@pytest.mark.parametrize(
    ("made", "weight", "axis"),
    [
        (node("Gemm", "x w", "y", transB=1), f(6, 5), 0),
        (node("Gemm", "x w", "y"), f(5, 6), 1),
        (node("MatMul", "x w", "y"), f(5, 6), 1),
        (node("MatMul", "x w", "y"), f(2, 5, 6), 2),
        (node("MatMul", "w x", "y"), f(6, 3), 0),
    ],
    ids=["Gemm transposed", "Gemm", "MatMul", "batched MatMul", "constant first"],
)
def test_channel_axis_of_products(made, weight, axis):
    shape = (3, 5) if weight.shape[-1] == 3 else (2, 3, 5) if weight.ndim == 3 else (3, 5)
    found = rows([made], {"w": weight}, x=shape)
    assert found["y"].weight.channel_axis == axis


def test_transposed_convolution():
    made = node("ConvTranspose", "x w b", "y")
    found = rows([made], {"w": f(4, 6, 3, 3), "b": f(6)})
    assert found["y"].weight.channel_axis == 1
    assert found["y"].bias.id == "b"
    grouped = node("ConvTranspose", "x w b", "y", group=2)
    found = rows([grouped], {"w": f(4, 3, 3, 3), "b": f(6)})
    assert found["y"].weight.channel_axis == 1
    assert found["y"].bias is None, "one scale serves several output channels"


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}])
def test_scaled_products_keep_their_bias_in_float(attributes):
    constants = {"w": f(5, 6), "b": f(6)}
    assert rows([node("Gemm", "x w b", "y")], constants, x=(3, 5))["y"].bias.id == "b"
    assert rows([node("Gemm", "x w b", "y", **attributes)], constants, x=(3, 5))["y"].bias is None


def test_products_of_two_activations_have_no_weight():
    found = rows([node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")], {})
    assert found["y"].weight is None
    assert found["x"].activation.members == ("x", "t")


def test_softmax_and_sigmoid_have_a_fixed_range():
    found = rows([conv(), node("Sigmoid", "c", "s"), node("Softmax", "s", "y")], CONV)
    assert found["s"].activation.fixed_range == (0.0, 1.0)
    site = found["y"].activation
    encoding = fixed_encoding(site, Scheme("activation", 8, False))
    assert (float(encoding.scale), int(encoding.zero_point), encoding.qmin, encoding.qmax) == (1 / 256, 0, 0, 255)
    assert float(fixed_encoding(site, Scheme("activation", 4, False)).scale) == 1 / 16
    assert float(fixed_encoding(site, Scheme("activation", 8, True)).scale) == np.float32(1 / 127)
    assert fixed_encoding(found["c"].activation, Scheme("activation", 8, False)) is None
    manual = Scheme("activation", 8, False, calibration="manual", clip=(0.0, 0.5))
    assert fixed_encoding(site, manual) is None


def test_integers_booleans_and_shapes_have_no_sites():
    nodes = [
        node("Shape", "x", "s"),
        node("Greater", "x zero", "g"),
        node("Where", "g x zero", "h"),
        node("Cast", "h", "i", to=TensorProto.INT64),
        node("Add", "i one", "j"),
        node("Cast", "j", "k", to=TensorProto.FLOAT),
        node("Reshape", "k s", "y"),
    ]
    found = rows(nodes, {"zero": np.float32(0), "one": np.int64(1)})
    assert set(found) == {"x", "h"}
    assert found["h"].activation.members == ("h",)


def test_float_operators_stay_float_unless_a_neighbour_asks():
    nodes = [conv(), node("Exp", "c", "e"), node("Sqrt", "e", "s"), node("Mul", "s x", "m"), node("Exp", "m", "y")]
    found = rows(nodes, CONV)
    assert "e" not in found, "between Exp and Sqrt nobody computes with integers"
    assert found["s"].activation.id == "s", "Mul reads it"
    assert "y" not in found


def test_recurrent_layers_have_a_row_and_no_weight_site():
    nodes = [node("LSTM", "x w r", "y h c", hidden_size=3)]
    found = rows(nodes, {"w": f(1, 12, 5), "r": f(1, 12, 3)}, x=(7, 2, 5))
    row = found["y"]
    assert (row.op_type, row.weight, row.activation) == ("LSTM", None, None)
    assert row.parameters == 96


def test_an_unsupported_operator_keeps_its_row():
    nodes = [conv(), helper.make_node("Foo", ["c"], ["d"], name="foo", domain="my.domain"), node("Relu", "d", "y")]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in CONV.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    found = {row.name: row for row in place(describe(helper.make_model(graph, opset_imports=opsets)))}
    assert found["foo"].unsupported
    assert found["foo"].weight is None
    assert found["c"].weight.id == "w"


def test_a_tensor_read_twice_has_one_site():
    found = rows([conv(), node("Relu", "c", "r"), conv("r w b", "d"), node("Add", "r d", "y")], CONV)
    ids = [row.activation.id for row in found.values() if row.activation]
    assert ids == ["x", "r", "d", "y"]
