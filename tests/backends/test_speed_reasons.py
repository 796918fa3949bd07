"""Each reason why an export is not faster: on a model where it is true, and on one where it is not."""

from __future__ import annotations

import glob
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from export_cases import export, model_of, node, small_cnn

from qstudio.backends.feeds import random_feed
from qstudio.backends.optimized import optimized_graph
from qstudio.backends.ort import make_session
from qstudio.backends.profile import kernel_times, operator_times
from qstudio.backends.speed_reasons import note_of, speed_reasons, threads_reason, timed_reasons
from qstudio.backends.timing import latency_pair
from qstudio.core.results import Latency, OperatorTime

VNNI = ("x86", "avx2", "avx512f", "avx512_vnni")


def images():
    return np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)


def macs(case):
    return {layer.name: layer.macs for layer in case.layers if layer.macs}


def reasons(case, instructions=VNNI):
    return {r.kind: r for r in speed_reasons(optimized_graph(case.model), instructions, macs(case))}


@pytest.fixture(scope="module")
def fused():
    return export(small_cnn(), images())


def test_nothing_holds_back_what_is_fused(fused):
    assert reasons(fused) == {}
    assert reasons(fused, ("arm", "neon", "neon_dotprod")) == {}


def test_16_bit_activations_leave_every_pair_unfused():
    case = export(small_cnn(), images(), abits=16)
    found = reasons(case)
    assert set(found) == {"float_layers", "between", "conversions", "constants"}
    layers = found["float_layers"]
    assert set(layers.layers) == {"Conv_c1", "Conv_c2", "Conv_c3", "Gemm_y"}
    assert layers.macs_percent == pytest.approx(100)
    assert "100 % of all multiply-accumulates" in layers.what
    assert "8 bits or fewer" in layers.fix
    graph = optimized_graph(case.model)
    assert found["conversions"].what.startswith(f"{len(graph.conversions)} QuantizeLinear")
    assert {"Conv_c1", "Conv_c2", "Add_a"} <= set(found["conversions"].layers)
    assert set(found["constants"].layers) == set(layers.layers)


def test_one_float_layer_is_named_with_its_share(fused):
    names = {layer.name: layer for layer in fused.layers}
    weights = {n: e for n, e in fused.weights.items() if n != names["Conv_c2"].weight.id}
    from qstudio.backends.qdq import export_qdq
    from qstudio.graph.opset import raise_opset

    model = export_qdq(fused.prepared, fused.layers, fused.activations, weights, raise_opset=raise_opset)
    found = reasons(replace(fused, model=model))
    share = 100 * names["Conv_c2"].macs / sum(macs(fused).values())
    assert found["float_layers"].layers == ("Conv_c2",)
    assert found["float_layers"].macs_percent == pytest.approx(share)
    assert found["float_layers"].what.startswith("1 layer computes in float")
    assert "Conv_c2" in found["conversions"].layers


def test_operators_without_an_integer_kernel_are_named():
    r = np.random.default_rng(0)
    constants = {name: r.standard_normal((3, 3, 1, 1)).astype(np.float32) for name in "wv"}
    nodes = [node("Conv", "x w", "c"), node("Tanh", "c", "t"), node("Conv", "t v", "y")]
    case = export(model_of(nodes, constants, {"x": ["n", 3, 8, 8]}, {"y": ["n", 3, 8, 8]}), images())
    assert reasons(case)["between"].layers == ("Tanh_t",)


def test_asymmetric_depthwise_weights():
    found = reasons(export(small_cnn(), images(), wsymmetric=False))
    assert found["depthwise"].layers == ("Conv_c3",)
    assert found["depthwise"].fix == "Choose symmetric weights"


def test_few_bits_are_no_faster_packed_or_not(fused):
    packed = reasons(export(small_cnn(), images(), wbits=4, packed=True))
    assert "4 constants are stored in 4 bits" in packed["packed"].what
    assert "narrow" not in packed
    narrow = reasons(export(small_cnn(), images(), wbits=4))
    assert "codes of 4 bits in a byte" in narrow["narrow"].what
    assert "packed" not in narrow


def test_missing_instructions(fused):
    old = reasons(fused, ("x86", "avx2"))["instructions"]
    assert "no VNNI instructions nor AVX-512" in old.what
    assert "nor AVX-512" not in reasons(fused, ("x86", "avx2", "avx512f"))["instructions"].what
    assert "dot product" in reasons(fused, ("arm", "neon"))["instructions"].what
    wide = export(small_cnn(), images(), abits=16)  # nothing is on integer kernels: VNNI would not help
    assert "instructions" not in reasons(wide, ("x86", "avx2"))


def row(name, float_ms, exported_ms, kernel="QLinearConv"):
    return OperatorTime((name,), ("Conv",), (kernel,), float_ms, exported_ms)


def test_tiny_operators():
    tiny = [row("a", 0.008, 0.009), row("b", 0.006, 0.007)]
    (found,) = timed_reasons(tiny, 0.05)
    assert (found.kind, found.layers) == ("small", ("a", "b"))
    assert "100 % of the exported model's time" in found.what
    large = [row("a", 0.9, 0.4), *tiny]
    assert timed_reasons(large, 1.0) == ()
    assert [r.kind for r in timed_reasons([], 0.2)] == ["small"]
    assert timed_reasons([], 5.0) == ()


def test_kernels_that_are_slower_in_integers():
    rows = [row("a", 0.30, 0.42), row("b", 0.50, 0.20), row("c", 0.20, 0.40, "Conv")]
    (found,) = timed_reasons(rows, 1.0, {"a": 30, "b": 70})
    assert (found.kind, found.layers, found.macs_percent) == ("slower", ("a",), 30.0)
    assert "a (0.300 to 0.420 ms)" in found.what
    assert timed_reasons([row("a", 0.30, 0.32), row("b", 0.50, 0.20)], 1.0) == ()


def test_threads():
    assert "8 threads were timed where there are 2 cores" in threads_reason(1.0, 8, 2, None).what
    assert threads_reason(1.0, 2, 2, 0.5).fix.startswith("Choose 1 thread")
    assert threads_reason(1.0, 2, 2, 0.95) is None
    assert threads_reason(1.0, 1, 2, None) is None


def test_kernels_are_profiled_and_the_file_is_removed(fused):
    before = set(glob.glob(f"{tempfile.gettempdir()}/qstudio-*"))
    found = kernel_times(fused.model, runs=3)
    assert set(glob.glob(f"{tempfile.gettempdir()}/qstudio-*")) <= before
    operators = [kernel.operator for kernel in found]
    assert operators[0] == "QuantizeLinear"
    assert operators[-1] == "DequantizeLinear"
    assert operators.count("QLinearConv") == 3
    assert all(kernel.ms >= 0 for kernel in found)


def test_float_and_exported_operators_stand_side_by_side(fused):
    rows = operator_times(fused.prepared, fused.model)
    by_layer = {r.layers[0]: r for r in rows if r.layers}
    first = by_layer["Conv_c1"]
    assert first.layers == ("Conv_c1", "Relu_r1")  # one kernel in float
    assert (first.float_operators, first.exported_operators) == (("Conv",), ("QLinearConv",))
    assert first.float_ms is not None
    assert first.exported_ms is not None
    assert by_layer["Gemm_y"].exported_operators == ("QGemm",)
    between = [r for r in rows if not r.layers]
    assert {"QuantizeLinear", "DequantizeLinear"} <= {name for r in between for name in r.exported_operators}
    order = [r.layers[0] for r in rows if r.layers]
    assert order.index("Conv_c1") < order.index("Conv_c3") < order.index("Gemm_y")


def test_the_pair_carries_reasons_operators_and_the_simulation(fused):
    exported = Latency(1.0, 0.9, 1.1, 1, 1, 50, 10)
    slow = latency_pair(
        replace(exported, median=0.8),
        exported,
        fused.model,
        float_model=fused.prepared,
        macs=macs(fused),
        simulated=replace(exported, median=40.0),
    )
    assert slow.simulated.median == 40.0
    assert slow.notes[0].startswith("The exported model is slower than float here (1.25 times")
    assert slow.notes[1:] == tuple(note_of(reason) for reason in slow.reasons)
    assert "small" in {reason.kind for reason in slow.reasons}
    fast = latency_pair(replace(exported, median=4.0), exported, fused.model)
    assert fast.notes == ()
    assert fast.operators == ()


def test_random_data_are_the_same_every_time(fused):
    session = make_session(fused.model)
    (first,), (second,) = random_feed(session, 2).values(), random_feed(session, 2).values()
    assert first.shape == (2, 3, 8, 8)
    assert first.tolist() == second.tolist()
