"""The fifteen points on which quantizers go wrong, a test for each: on our own placement, simulation and export.

Details are tested where the code is; these say, in one place, that none of the points was forgotten.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from quant_cases import model_of, small_cnn, weights

from qstudio.backends.ort import make_session, with_outputs
from qstudio.backends.qdq import dequantized_name, export_qdq, layer_inputs
from qstudio.backends.saturation import saturating_layers
from qstudio.backends.save import save_model
from qstudio.core.affine import Encoding, integer_range, quantize
from qstudio.core.metrics import classification_metrics, mcnemar_p
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import Granularity, Scheme
from qstudio.core.size import weight_bytes
from qstudio.core.training import Training
from qstudio.data.dataset import Split
from qstudio.data.preprocess import Preprocess
from qstudio.data.sources import ArraySource
from qstudio.graph.opset import raise_opset
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.encodings import Encodings, encodings_for
from qstudio.quant.evaluate import predict
from qstudio.quant.network import Network, network_for
from qstudio.quant.outcome import size_bytes
from qstudio.quant.qat.rounding import FixedRounding
from qstudio.quant.qat.schedule import Stepper
from qstudio.quant.qat.student import Student
from qstudio.quant.quantizer import make_quantizer
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.statistics import nonfinite_notes
from qstudio.quant.verify import verify


class Quantized(NamedTuple):
    """A network from recipe to file."""

    network: Network
    statistics: dict[str, Any]
    encodings: Encodings
    model: SimulatedModel
    proto: onnx.ModelProto
    split: Split


def split_of(x):
    return Split(ArraySource(x.shape, x.dtype, lambda: x, "samples"), None, Preprocess())


def quantized(model, x, recipe=None, **options):
    """Calibrate on x, simulate and export."""
    network, split = network_for(model), split_of(x)
    statistics = activation_statistics(network, split, np.arange(len(x)))
    encodings = encodings_for(network.layers, recipe or Recipe(), statistics, network.weights())
    simulated = SimulatedModel(network, encodings, ordered=True)
    proto = export_qdq(
        network.proto,
        network.layers,
        simulated.activations,
        simulated.weights,
        raise_opset=raise_opset,
        others=simulated.others,
        **options,
    )
    onnx.checker.check_model(proto)
    return Quantized(network, statistics, encodings, simulated, proto, split)


def run(proto, x, tensors=(), optimize=False):
    # `precise` keeps processors without VNNI from saturating in 16 bits (point 9), which is theirs, not the file's.
    model = with_outputs(proto, tensors) if tensors else proto
    session = make_session(model, optimize=optimize, precise=optimize, threads=1)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def simulate(case):
    """Return the simulation's first output on all samples, a row each."""
    return predict(case.network, case.model.run, case.split, np.arange(len(case.split)))


def stored(proto):
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


def samples(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def every(recipe=None, **settings):
    return (recipe or Recipe()).with_default(**settings)


def test_01_real_zero_is_exact_and_padding_pads_with_it_and_maxpool_with_minus_infinity():
    x = samples(4, 2, 6, 6) - np.float32(1.3)  # a zero point beside 0 and beside the middle
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("MaxPool", "c", "m", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Pad", "m p", "y"),
    ]
    constants = {"w": -np.abs(weights(3, 2, 3, 3)), "p": np.int64([0, 0, 2, 2, 0, 0, 2, 2])}
    case = quantized(model_of(nodes, constants, (None, 2, 6, 6)), x)
    assert case.model.activations["x"].zero_point not in (0, 128, 255)
    for optimize in (False, True):
        zero = run(case.proto, np.zeros_like(x), optimize=optimize)["y"]
        assert (zero == 0).all(), "with zeros inside, a border padded with anything else would show"
        found = run(case.proto, x, optimize=optimize)["y"]
        np.testing.assert_allclose(found.reshape(4, -1), simulate(case), atol=1e-5)
        assert (found[:, :, :2] == 0).all()
    # Where all values are negative, a MaxPool that padded with 0 would put out zeros along the border.
    nodes = [
        node("Relu", "x", "r"),
        node("Sub", "r nine", "n"),
        node("MaxPool", "n", "m", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Conv", "m k", "y"),
    ]
    constants = {"nine": np.float32(9), "k": np.ones((1, 2, 1, 1), np.float32)}
    case = quantized(model_of(nodes, constants, (None, 2, 6, 6)), x)
    assert run(case.proto, x)["y"].max() < -5
    assert simulate(case).max() < -5


def test_02_ties_go_to_even_in_numpy_torch_and_the_file():
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 3.0]], np.float32)
    expected = [0, 2, 2, 0, -2, -2, 126, 3]
    encoding = Encoding(np.float32(1).reshape(()), np.int32(0).reshape(()), -127, 127)
    assert quantize(x, encoding)[0].tolist() == expected
    assert make_quantizer(encoding, (), "cpu").codes(torch.from_numpy(x))[0].tolist() == expected
    recipe = every(activation_symmetric=True, activation_calibration="manual", activation_clip=(-127.0, 127.0))
    gemm = model_of([node("Gemm", "x w", "y")], {"w": np.eye(8, dtype=np.float32)}, (None, 8))
    case = quantized(gemm, x, recipe)
    assert float(case.model.activations["x"].scale) == 1.0
    assert run(case.proto, x, [dequantized_name("x")])[dequantized_name("x")][0].tolist() == expected


def test_03_bias_is_int32_at_the_product_of_the_scales_which_rise_where_it_would_not_fit():
    gemm = [node("Gemm", "x w b", "y", transB=1)]
    w, b, x = weights(3, 4), np.float32([0.5, -2, 3000]), samples(20, 4)
    w[2] *= np.float32(1e-7)
    case = quantized(model_of(gemm, {"w": w, "b": b}, (None, 4)), x)
    tensors = stored(case.proto)
    codes, scale = tensors["b_quantized"], tensors["b_scale"]
    assert codes.dtype == np.int32
    assert not tensors["b_zero_point"].any()
    s_x, s_w = case.model.activations["x"].scale, case.model.weights["w"].scale
    np.testing.assert_array_equal(scale, s_x * s_w)
    assert case.encodings.weights["w"].scale[2] * s_x * 2.0**31 < 3000, "as calibrated the third would not fit"
    assert scale[2] == pytest.approx(1.0001 * 2 * 3000 / (2**32 - 2), rel=1e-6)
    np.testing.assert_array_equal(s_w[:2], case.encodings.weights["w"].scale[:2])
    np.testing.assert_allclose(codes * scale.astype(float), b, rtol=1e-4, atol=float(scale[:2].max()))


def test_04_batchnorm_is_folded_before_weights_are_calibrated_and_frozen_in_training():
    gain, mean, variance = np.float32([1, 3, 0.1]), np.float32([0.1, 0, 2]), np.float32([1, 0.25, 0])
    normalization = {"g": gain, "o": np.zeros(3, np.float32), "m": mean, "v": variance}
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c g o m v", "y", epsilon=1e-5)]
    w = weights(3, 2, 1, 1)
    case = quantized(model_of(nodes, {"w": w, **normalization}, (None, 2, 4, 4)), samples(8, 2, 4, 4))
    folded = w[:, :, 0, 0] * (gain / np.sqrt(variance + 1e-5))[:, None]
    np.testing.assert_allclose(case.model.weights["w"].scale, np.abs(folded).max(axis=1) / 127, rtol=1e-5)
    assert np.isfinite(run(case.proto, samples(8, 2, 4, 4))["y"]).all(), "the channel without variance survives"
    # One that cannot be folded keeps its statistics through a step of training.
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("BatchNormalization", "r g o m v", "y")]
    case = quantized(model_of(nodes, {"w": w, **normalization}, (None, 2, 4, 4)), samples(8, 2, 4, 4))
    student = Student(case.network, case.encodings, {}, Training())
    before = {k: v.clone() for k, v in case.network.executor.module.state_dict().items()}
    student.run({"x": torch.from_numpy(samples(8, 2, 4, 4))})["y"].square().mean().backward()
    Stepper(student, Training(learning_rate=0.1)).step(1.0)
    assert all(torch.equal(before[k], v) for k, v in case.network.executor.module.state_dict().items())
    assert not np.array_equal(student.float_values()["w"], w)


def test_05_quantizers_stand_behind_fused_activations_and_ranges_known_beforehand_are_fixed():
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("Conv", "r k", "d"),
        node("Sigmoid", "d", "s"),
        node("Mul", "d s", "u"),
        node("Flatten", "u", "f"),
        node("Gemm", "f q", "h"),
        node("Softmax", "h", "p"),
        node("Gemm", "p z", "y"),
    ]
    constants = {"w": weights(3, 2, 1, 1), "k": weights(3, 3, 1, 1), "q": weights(48, 5), "z": weights(5, 2)}
    case = quantized(model_of(nodes, constants, (None, 2, 4, 4)), samples(8, 2, 4, 4))
    sites = {site.id for site in case.network.activation_sites}
    assert "c" not in sites, "between Conv and Relu nothing is rounded"
    assert {"r", "d", "s", "u"} <= sites, "before and behind Sigmoid (and so in SiLU) values are rounded"
    for tensor in ("s", "p"):
        encoding = case.model.activations[tensor]
        assert (float(encoding.scale), int(encoding.zero_point)) == (1 / 256, 0)
    (relu,) = (n for n in case.proto.graph.node if n.op_type == "Relu")
    assert relu.input[0] == "c", "no Q/DQ in front of it"


def test_06_what_keeps_values_keeps_the_encoding_and_branches_and_concats_have_one():
    nodes = [
        node("Conv", "x w", "a"),
        node("MaxPool", "a", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "m k", "b"),
        node("Conv", "m v", "c"),
        node("Concat", "b c", "j", axis=1),
        node("Transpose", "j", "t", perm=[0, 1, 3, 2]),
        node("Conv", "t u", "y"),
    ]
    constants = {"w": weights(2, 2, 1, 1), "k": weights(2, 2, 1, 1, seed=1), "v": weights(3, 2, 1, 1) * 9}
    case = quantized(model_of(nodes, {**constants, "u": weights(1, 5, 1, 1)}, (None, 2, 4, 4)), samples(8, 2, 4, 4))
    members = {site.id: set(site.members) for site in case.network.activation_sites}
    assert members["a"] == {"a", "m"}
    assert members["j"] == {"j", "b", "c", "t"}
    scales = stored(case.proto)
    used = {
        n.input[0].removesuffix("_before"): (float(scales[n.input[1]]), int(scales[n.input[2]]))
        for n in case.proto.graph.node
        if n.op_type == "QuantizeLinear"
    }
    assert len(used) >= 5
    assert len(set(used.values())) == 4, "x, a, the Concat's and y: four encodings, however many pairs"
    x = samples(8, 2, 4, 4)
    np.testing.assert_allclose(run(case.proto, x)["y"].reshape(8, -1), simulate(case), atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_07_symmetric_weights_take_the_narrow_range(bits):
    w = weights(4, 6)
    w[0, :2] = 1.0, -1.0  # both ends are reached
    gemm = model_of([node("Gemm", "x w", "y", transB=1)], {"w": w}, (None, 6))
    case = quantized(gemm, samples(8, 6), every(weight_bits=bits))
    top = 2 ** (bits - 1) - 1
    codes = stored(case.proto)["w_quantized"].astype(int)
    assert (codes.min(), codes.max()) == (-top, top)
    assert integer_range(Scheme("weight", bits, True)) == (-top, top)
    assert not case.model.weights["w"].zero_point.any()


def test_08_channels_are_on_the_axis_of_the_outputs_and_activations_have_none():
    operators = {
        "Conv": (node("Conv", "x w", "y"), weights(5, 2, 1, 1), 0, (None, 2, 4, 4)),
        "ConvTranspose": (node("ConvTranspose", "x w", "y"), weights(2, 5, 1, 1), 1, (None, 2, 4, 4)),
        "in groups": (node("ConvTranspose", "x w", "y", group=2), weights(4, 3, 1, 1), 1, (None, 4, 4, 4)),
        "Gemm": (node("Gemm", "x w", "y"), weights(6, 5), 1, (None, 6)),
        "Gemm transposed": (node("Gemm", "x w", "y", transB=1), weights(5, 6), 0, (None, 6)),
        "MatMul": (node("MatMul", "x w", "y"), weights(6, 5), 1, (None, 6)),
    }
    for name, (operator, w, axis, shape) in operators.items():
        w = w * np.float32(10.0) ** np.arange(w.shape[axis], dtype=np.float32).reshape(
            [-1 if i == axis else 1 for i in range(w.ndim)]
        )
        x = samples(8, *shape[1:])
        case = quantized(model_of([operator], {"w": w}, shape), x)
        (site,) = case.network.weight_sites
        assert site.channel_axis == axis, name
        others = tuple(i for i in range(w.ndim) if i != axis)
        np.testing.assert_allclose(case.model.weights["w"].scale, np.abs(w).max(axis=others) / 127, rtol=1e-6)
        (reads,) = (n for n in case.proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == "w_quantized")
        assert [a.i for a in reads.attribute if a.name == "axis"] == [axis]
        assert all(encoding.scale.shape == () for encoding in case.model.activations.values())
        # One scale for each output: with channels 10 x apart, a wrong axis would lose the small ones.
        plain = run(case.network.proto, x)["y"]
        error = np.abs(run(case.proto, x)["y"] - plain)
        assert error.max() <= 1.5 * float(case.model.activations["y"].scale) + 0.02 * np.abs(plain).max(), name


def test_09_saturation_of_x86_without_vnni_is_foreseen():
    """VPMADDUBSW adds two products of u8 and i8 in 16 bits; emulated here, on any processor."""
    w, x = np.abs(weights(6, 16)) + np.float32(0.2), np.abs(samples(32, 16)) + 1
    for bits, safe in ((8, False), (7, True)):
        gemm = model_of([node("Gemm", "x w", "y", transB=1)], {"w": w}, (None, 16))
        case = quantized(gemm, x, every(weight_bits=bits))
        network, model = case.network, case.model
        found = saturating_layers(
            network.layers, layer_inputs(network.proto, network.layers), model.activations, model.weights, {"w": w}
        )
        a = quantize(x, model.activations["x"]).reshape(32, 1, 8, 2)
        pairs = (a * quantize(w, model.weights["w"]).reshape(1, 6, 8, 2)).sum(axis=-1)
        wrong = (np.clip(pairs, -32768, 32767) != pairs).any()
        assert wrong != safe
        assert bool(found) == wrong
        if found:
            assert found[0].layer == "y"
            assert found[0].safe_bits == 7


def test_10_the_file_has_the_standard_form_at_the_opset_its_types_need():
    x = np.random.default_rng(1).normal(size=(8, 1, 8, 8)).astype(np.float32)
    case = quantized(small_cnn(), x)
    tensors, nodes = stored(case.proto), list(case.proto.graph.node)
    made = {o: n for n in nodes for o in n.output}
    for operator in (n for n in nodes if n.op_type in ("Conv", "Gemm")):
        data, weight, bias = (made[name] for name in operator.input)
        assert {n.op_type for n in (data, weight, bias)} <= {"DequantizeLinear", "MaxPool", "Flatten"}
        assert tensors[weight.input[0]].dtype == np.int8, "integers, with DequantizeLinear only"
        assert tensors[bias.input[0]].dtype == np.int32
    counts = Counter(n.op_type for n in nodes)
    constants = sum(n.op_type == "DequantizeLinear" and n.input[0] in tensors for n in nodes)
    assert counts["DequantizeLinear"] == counts["QuantizeLinear"] + constants, "activations have both"
    for settings, packed, opset, expected in (
        ({}, False, 13, TensorProto.INT8),
        ({"weight_format": "fp8_e4m3"}, False, 19, TensorProto.FLOAT8E4M3FN),
        ({"activation_bits": 16}, False, 21, TensorProto.UINT16),
        ({"weight_bits": 4}, True, 21, TensorProto.INT4),
        ({"weight_bits": 2}, True, 25, TensorProto.INT2),
    ):
        proto = quantized(small_cnn(), x, every(**settings), packed=packed).proto
        assert next(o.version for o in proto.opset_import if o.domain == "") == max(opset, 17), "17 is the model's own"
        assert expected in {t.data_type for t in proto.graph.initializer}
        assert np.isfinite(run(proto, x)["y"]).all()
    pooled = model_of([node("ReduceMean", "x", "y", axes=[2, 3], keepdims=1)], {}, (None, 1, 8, 8))
    assert [n.op_type for n in network_for(pooled).proto.graph.node] == ["GlobalAveragePool"]


def test_11_calibration_evaluates_counts_the_last_part_and_names_what_is_not_finite():
    x = samples(70, 2)  # one batch of 64 and a part of 6
    x[69] = 50.0
    nodes = [
        node("Dropout", "x ratio", "d"),
        node("Gemm", "d w", "h"),
        node("Sqrt", "h", "q"),
        node("Relu", "q", "y"),
    ]
    model = model_of(nodes, {"ratio": np.float32(0.5), "w": np.ones((2, 1), np.float32)}, (None, 2))
    network_for(model).executor.module.train()
    case = quantized(model, x)
    histogram = case.statistics["x"].histogram
    assert case.statistics["x"].samples == 70
    assert (histogram.count, histogram.maximum) == (140, 50.0), "nothing was dropped, the last part was seen"
    broken = case.statistics["y"].histogram
    invalid = int((x.sum(axis=1) < 0).sum())
    assert broken.nonfinite == invalid > 0
    assert broken.count == 70 - invalid
    assert broken.maximum == 10.0
    assert np.isfinite(case.model.activations["y"].scale)
    (note,) = nonfinite_notes([case.statistics["y"]])
    assert note.startswith(f"y: {invalid} values")


def test_12_gradients_stop_outside_the_range_scales_do_not_decay_and_stay_positive():
    x = torch.tensor([-9.0, -0.4, 0.3, 0.9, 9.0], requires_grad=True)
    FixedRounding.apply(x, torch.tensor(0.1), 0.0, 15.0).sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 1, 0]
    case = quantized(small_cnn(), samples(8, 1, 8, 8), every(weight_bits=4, activation_bits=4))
    training = Training(method="lsq", optimizer="sgd", learning_rate=10.0, weight_decay=0.1, clip_norm=0.0)
    student = Student(case.network, case.encodings, {}, training)
    stepper = Stepper(student, training)
    scales = {id(leaf) for leaf in student.scale_leaves()}
    assert len(scales) == len(case.model.weights) + len(case.model.activations)
    decayed = {id(p) for g in stepper.optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(leaf) for leaf in student.weight_leaves()}
    assert not scales & decayed
    student.run({"x": torch.from_numpy(samples(8, 1, 8, 8))})["y"].sum().mul(1e6).backward()
    stepper.step(1.0)  # far too long a step
    assert any(float(leaf.detach().min()) <= 0 for leaf in student.scale_leaves())
    student.hold()
    now = student.learned_encodings()
    assert all((e.scale > 0).all() for part in (now.activations, now.weights) for e in part.values())


def test_13_simulation_and_deployment_are_compared_in_codes_and_by_argmax():
    x = samples(40, 1, 8, 8)
    case = quantized(small_cnn(), x)
    scores = predict(case.network, case.model.run, case.split, np.arange(40))
    good = verify(case.proto, case.model, scores, case.split, np.arange(40), threads=1).parity
    assert good.agreement == 100.0
    assert good.max_lsb <= 1
    assert good.codes_equal >= 99.99
    # A file that is wrong by three steps in one class: too little for most tolerances, and told here.
    wrong = onnx.ModelProto()
    wrong.CopyFrom(case.proto)
    (bias,) = (t for t in wrong.graph.initializer if t.name == "b4_quantized")
    codes = numpy_helper.to_array(bias).copy()
    scale = stored(wrong)["b4_scale"]
    codes[0] += round(3 * float(case.model.activations["y"].scale) / float(scale[0]))
    bias.CopyFrom(numpy_helper.from_array(codes, bias.name))
    bad = verify(wrong, case.model, scores, case.split, np.arange(40), threads=1).parity
    assert 2 <= bad.max_lsb <= 4
    assert bad.codes_equal < good.codes_equal


def test_14_size_counts_codes_scales_zero_points_and_what_stays_float(tmp_path):
    def bits(n):
        return Scheme("weight", n, True, Granularity("channel"))

    assert weight_bytes((8, 4, 3, 3), 0, bits(4)) == 8 * 36 // 2 + 8 * 4
    asymmetric = Scheme("weight", 3, False, Granularity("group", 10))
    assert weight_bytes((8, 36), 0, asymmetric) == 8 * 36 * 3 // 8 + 8 * 4 * 4 + 8 * 4 * 3 // 8
    x, recipe = samples(8, 1, 8, 8), every(weight_bits=4)
    case = quantized(small_cnn(), x, recipe)
    sizes = size_bytes(case.network, recipe, save_model(case.proto, tmp_path / "q.onnx"))
    parameters = {name: value.size for name, value in stored(case.network.proto).items() if name[0] in "wb"}
    channels = sum(case.network.value(site.id).shape[0] for site in case.network.weight_sites)
    halves = sum(-(-n // 2) for name, n in parameters.items() if name[0] == "w")
    biases = sum(4 * n for name, n in parameters.items() if name[0] == "b")
    activations = 5 * len(case.model.activations)
    assert sizes.float == 4 * sum(parameters.values())
    assert sizes.quantized == halves + 4 * channels + biases + activations
    assert sizes.file == (tmp_path / "q.onnx").stat().st_size
    packed = quantized(small_cnn(), x, recipe, packed=True).proto
    assert save_model(packed, tmp_path / "p.onnx") != sizes.file, "both are shown: they differ"


def test_15_accuracy_on_a_subset_carries_its_interval():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1000)
    first = np.eye(10, dtype=np.float32)[labels]
    first[:190] = np.roll(first[:190], 1, axis=1)  # 81.0 %
    second = first.copy()
    second[190:197] = np.roll(second[190:197], 1, axis=1)  # seven become wrong
    second[:4] = np.roll(second[:4], -1, axis=1)  # four become right: 80.7 %
    judged = classification_metrics(second, labels, first)
    assert judged.top1 == pytest.approx(80.7)
    low, high = judged.top1_interval
    assert low < 80.7 - 2 < 80.7 + 2 < high
    assert (judged.flips_to_wrong, judged.flips_to_right) == (7, 4)
    assert mcnemar_p(7, 4) > 0.5, "0.3 points on 1,000 images order nothing"
    assert mcnemar_p(40, 10) < 0.001
