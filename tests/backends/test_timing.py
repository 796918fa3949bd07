"""Latency, and why an export is not faster, from what is really in the optimised graph."""

from __future__ import annotations

import numpy as np
import pytest
from export_cases import export, model_of, node, small_cnn

from qstudio.backends.optimized import optimized_graph
from qstudio.backends.ort import make_session
from qstudio.backends.speed_reasons import speed_notes
from qstudio.backends.timing import file_size_bytes, measure_latency, measure_pair, random_feed
from qstudio.core.context import SilentContext
from qstudio.core.errors import JobCancelled, UserError
from qstudio.core.processor import processor, read_cpuinfo


def images(n=4):
    return np.random.default_rng(0).standard_normal((n, 3, 8, 8)).astype(np.float32)


def test_latency_has_what_was_asked_for():
    found = measure_latency(small_cnn(), batch=3, threads=1, runs=20, warmup=2)
    assert (found.batch, found.threads, found.runs, found.warmup) == (3, 1, 20, 2)
    assert 0 < found.p10 <= found.median <= found.p90


def test_latency_grows_with_the_work():
    assert measure_latency(small_cnn(), batch=512, runs=10).median > 5 * measure_latency(small_cnn(), runs=10).median


def test_a_fixed_batch_is_told():
    model = small_cnn()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    assert measure_latency(model, batch=64, runs=2).batch == 2


def test_pair_names_the_processor():
    case = export(small_cnn(), images())
    pair = measure_pair(case.prepared, case.model, runs=5, warmup=1)
    assert pair.processor
    assert pair.instructions[0] in ("x86", "arm")
    assert (pair.float.runs, pair.exported.runs) == (5, 5)


def test_wrong_numbers_and_cancel():
    with pytest.raises(UserError, match="runs is 0"):
        measure_latency(small_cnn(), runs=0)
    ctx = SilentContext()
    ctx.cancelled = True
    with pytest.raises(JobCancelled):
        measure_latency(small_cnn(), ctx=ctx)


def test_random_feed_knows_types_and_dynamic_axes():
    model = model_of([node("Relu", "x", "y")], {}, {"x": ["n", "length", 3]}, {"y": ["n", "length", 3]})
    (feed,) = random_feed(make_session(model), 5).values()
    assert (feed.shape, feed.dtype) == ((5, 1, 3), np.float32)


def test_notes_tell_what_was_not_fused():
    wide = optimized_graph(export(small_cnn(), images(), abits=16).model)
    text = " ".join(speed_notes(wide, ("x86", "avx512_vnni")))
    assert "4 layers compute in float" in text
    assert "Conv_c" in text
    assert "unpacked to float in every run" in text
    assert "VNNI" not in text
    narrow = optimized_graph(export(small_cnn(), images()).model)
    assert speed_notes(narrow, ("x86", "avx512_vnni")) == ()
    assert speed_notes(narrow, ("arm", "neon_dotprod")) == ()
    (note,) = speed_notes(narrow, ("x86", "avx2"))
    assert "no VNNI" in note


def test_notes_name_operators_without_an_integer_kernel():
    nodes = [
        node("Conv", "x w", "c"),
        node("Tanh", "c", "t"),
        node("Conv", "t v", "y"),
    ]
    r = np.random.default_rng(0)
    constants = {name: r.standard_normal((3, 3, 1, 1)).astype(np.float32) for name in "wv"}
    model = model_of(nodes, constants, {"x": ["n", 3, 8, 8]}, {"y": ["n", 3, 8, 8]})
    graph = optimized_graph(export(model, images()).model)
    assert graph.between == (("Tanh_t", "Tanh"),)
    assert "Tanh_t (Tanh)" in " ".join(speed_notes(graph, ("x86", "avx512_vnni")))


def test_notes_warn_of_asymmetric_depthwise_weights():
    graph = optimized_graph(export(small_cnn(), images(), wsymmetric=False).model)
    assert graph.uneven_depthwise == ("Conv_c3",)
    assert "Choose symmetric weights" in " ".join(speed_notes(graph, ("x86", "avx512_vnni")))


def test_cpuinfo_is_read():
    intel = (
        "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 sse\n"
    )
    assert read_cpuinfo(intel) == ("Intel(R) Xeon(R) Gold", ["avx2", "avx512f", "avx512_vnni", "amx_int8"])
    arm = "processor : 0\nFeatures : fp asimd asimddp i8mm\nHardware : Ampere\n"
    assert read_cpuinfo(arm) == ("Ampere", ["neon", "neon_dotprod", "neon_i8mm"])
    assert read_cpuinfo("") == ("", [])
    assert processor()[0]


def test_file_size_counts_external_data(tmp_path):
    from qstudio.backends.save import save_model

    model = small_cnn()
    together = save_model(model, tmp_path / "one.onnx")
    apart = save_model(model, tmp_path / "two.onnx", largest_bytes=100)
    assert file_size_bytes(tmp_path / "one.onnx") == together == (tmp_path / "one.onnx").stat().st_size
    assert file_size_bytes(tmp_path / "two.onnx") == apart > (tmp_path / "two.onnx").stat().st_size
    with pytest.raises(UserError, match="cannot be read"):
        file_size_bytes(tmp_path / "three.onnx")
