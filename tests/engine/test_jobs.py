"""Every request of the program, asked of both engines with a small model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from engine_watch import LIMIT_S, Watch
from small_model import CHANNELS, CLASSES, SIDE, write_data, write_model

from qstudio.core.affine import fake_quantize
from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.metrics import sqnr_db
from qstudio.core.model_info import ModelInfo
from qstudio.core.results import Device, Latency, Metrics, RunResult
from qstudio.core.scheme import CHANNEL, FLOAT_BITS, Scheme
from qstudio.engine.client import EngineClient, Job
from qstudio.engine.inline import InlineEngine
from qstudio.engine.jobs.resident import Resident
from qstudio.engine.messages import (
    ActivationStatistics,
    Benchmark,
    DataSpec,
    FloatAccuracy,
    JobState,
    LayerPreview,
    ListDevices,
    LookAtSamples,
    OpenDataset,
    OpenModel,
    RunPtq,
    WeightStatistics,
)
from qstudio.engine.process_client import ProcessEngine
from qstudio.quant.weight_ranges import weight_encoding

FOLDER = Path(__file__).parent


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "small.onnx"))


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    return DataSpec(str(write_data(tmp_path / "data.npz")))


def ask(engine: EngineClient, request: Any, **callbacks: Any) -> Any:
    job = engine.wait(engine.submit(request, **callbacks), LIMIT_S)
    assert job.state is JobState.DONE, job.error
    return job.value


def refusal(engine: EngineClient, request: Any) -> str:
    job = engine.wait(engine.submit(request), LIMIT_S)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.user_fault, job.error.details
    return job.error.sentence()


def float_scores(model: str, data: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return onnxruntime's scores of all samples, and the labels."""
    with np.load(data.source) as arrays:
        x, y = arrays["x"][:, None].astype(np.float32) / 255, arrays["y"]
    return onnxruntime.InferenceSession(model).run(None, {"x": x})[0], y


def test_open_model(engine: EngineClient, model: str) -> None:
    info = ask(engine, OpenModel(model))
    assert isinstance(info, ModelInfo)
    assert [layer.name for layer in info.weighted_layers] == ["/conv", "/fc"]
    assert (info.inputs, info.outputs, info.input_shape) == (("x",), ("y",), (None, 1, SIDE, SIDE))
    assert info.parameters == CHANNELS * 10 + CLASSES * (CHANNELS * 16 + 1)
    assert info.float_size_bytes == 4 * info.parameters
    assert (info.format, info.opset, info.runnable, info.name) == ("onnx", 17, True, "small")
    assert Path(info.path) == Path(model)


def test_a_model_that_cannot_be_opened_is_told_in_words(engine: EngineClient, model: str, tmp_path: Path) -> None:
    assert "there is no such file" in refusal(engine, OpenModel(str(tmp_path / "missing.onnx")))
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(Path(model).read_bytes()[:700])
    assert refusal(engine, OpenModel(str(cut))).startswith("cut.onnx: ")
    assert ask(engine, OpenModel(model)).runnable


def test_a_model_with_a_foreign_operator_opens_for_looking(
    engine: EngineClient, data: DataSpec, tmp_path: Path
) -> None:
    model = str(write_model(tmp_path / "foreign.onnx", foreign=True))
    info = ask(engine, OpenModel(model))
    assert not info.runnable
    assert [(node, "Wobble" in operator) for node, operator, _ in info.unsupported] == [("/wobble", True)]
    assert len(ask(engine, WeightStatistics(model))) == 2
    page = ask(engine, LookAtSamples(model, data, (0, 1)))
    assert page.predictions == (None, None)
    for request in (FloatAccuracy(model, data), ActivationStatistics(model, data), RunPtq(model, data)):
        sentence = refusal(engine, request)
        assert sentence.startswith("/wobble: the operator")
        assert "Wobble" in sentence


def test_weight_statistics_stream(engine: EngineClient, model: str) -> None:
    streamed: list[Any] = []
    found = ask(engine, WeightStatistics(model), on_partial=streamed.append)
    assert [s.site for s in streamed] == [s.site for s in found] == ["conv.weight", "fc.weight"]
    weight = onnx.numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    assert (found[0].histogram.minimum, found[0].histogram.maximum) == (weight.min(), weight.max())
    assert np.array_equal(found[0].channel_max, weight.reshape(CHANNELS, -1).max(axis=1))
    assert found[0].histogram.count == weight.size


def test_open_dataset(engine: EngineClient, model: str, data: DataSpec, tmp_path: Path) -> None:
    info = ask(engine, OpenDataset(data, model))
    assert isinstance(info, DatasetInfo)
    assert (info.samples, info.sample_shape, info.has_labels) == (300, (1, SIDE, SIDE), True)
    assert ask(engine, OpenDataset(data)) == info
    large = DataSpec(str(write_data(tmp_path / "large.npz", samples=4, side=12)))
    assert "the model wants 1 channel 8x8" in refusal(engine, OpenDataset(large, model))
    assert ask(engine, OpenDataset(large)).sample_shape == (1, 12, 12)
    assert ask(engine, OpenDataset(replace(large, size=(8, 8)), model)).sample_shape == (1, 8, 8)


def test_look_at_samples(engine: EngineClient, model: str, data: DataSpec) -> None:
    page = ask(engine, LookAtSamples(model, data, (3, 299, 300, -1, 7)))
    scores, labels = float_scores(model, data)
    assert page.indices == (3, 299, 7)
    assert page.labels == tuple(labels[list(page.indices)])
    assert page.predictions == tuple(scores[list(page.indices)].argmax(axis=1))
    powers = np.exp(scores[list(page.indices)])
    np.testing.assert_allclose(page.confidences, powers.max(axis=1) / powers.sum(axis=1), rtol=1e-4)
    assert (page.stored[0].dtype, page.stored[0].shape) == (np.uint8, (SIDE, SIDE))
    np.testing.assert_allclose(page.network[0][0], page.stored[0] / 255, rtol=1e-6)
    assert ask(engine, LookAtSamples(model, data, ())).indices == ()


def test_float_accuracy_is_that_of_onnxruntime_and_streams(engine: EngineClient, model: str, data: DataSpec) -> None:
    streamed: list[Metrics] = []
    request = FloatAccuracy(model, data, calibration_samples=20)
    metrics = ask(engine, request, on_partial=streamed.append)
    assert isinstance(metrics, Metrics)
    assert (metrics.samples, metrics.agreement) == (280, 100.0)
    # Of a single split the calibration samples are left out: those that PTQ with the same numbers leaves out.
    front = np.random.Generator(np.random.PCG64(0)).permutation(300)[:20]
    scores, labels = float_scores(model, data)
    right = np.delete(scores.argmax(axis=1) == labels, front)
    assert metrics.top1 == pytest.approx(100 * right.mean())
    assert [m.samples for m in streamed] == [256]


def test_activation_statistics_cover_every_site(engine: EngineClient, model: str, data: DataSpec) -> None:
    info = ask(engine, OpenModel(model))
    found = ask(engine, ActivationStatistics(model, data, calibration_samples=40))
    assert {s.site for s in found} == {layer.activation.id for layer in info.layers if layer.activation}
    assert {s.samples for s in found} == {40}
    evaluated = ask(engine, ActivationStatistics(model, data, None, 40, of="evaluation", eval_samples=30))
    assert [s.site for s in evaluated] == [s.site for s in found]
    assert {s.samples for s in evaluated} == {30}


def test_layer_preview_is_the_reference(engine: EngineClient, model: str) -> None:
    site = ask(engine, OpenModel(model)).layer("/conv").weight
    scheme = Scheme("weight", 4, granularity=CHANNEL)
    preview = ask(engine, LayerPreview(model, "/conv", scheme))
    weight = onnx.numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    encoding = weight_encoding(scheme, site, weight)
    assert encoding is not None
    quantized = fake_quantize(weight, encoding)
    assert preview.sqnr_db == sqnr_db(weight, quantized)
    assert preview.channel_sqnr_db[2] == sqnr_db(weight[2], quantized[2])
    assert preview.quantized.count == weight.size
    assert np.array_equal(preview.low, encoding.low)
    assert np.array_equal(preview.high, encoding.high)
    groups = ask(engine, LayerPreview(model, "/conv", replace(scheme, granularity=type(CHANNEL)("group", 4))))
    assert groups.low.shape == groups.high.shape == (CHANNELS,)
    assert "no such layer" in refusal(engine, LayerPreview(model, "/nowhere", scheme))
    assert "no weight" in refusal(engine, LayerPreview(model, "x", scheme))
    assert "stays in float" in refusal(engine, LayerPreview(model, "/conv", replace(scheme, bits=FLOAT_BITS)))


def test_benchmark_and_devices(engine: EngineClient, model: str) -> None:
    latency = ask(engine, Benchmark(model, batch=2, threads=1, runs=5, warmup=1))
    assert isinstance(latency, Latency)
    assert (latency.batch, latency.threads, latency.runs, latency.warmup) == (2, 1, 5, 1)
    assert 0 < latency.p10 <= latency.median <= latency.p90
    devices = ask(engine, ListDevices())
    assert all(isinstance(device, Device) and (device.available or device.reason) for device in devices)
    assert devices[0].id == "cpu"


def test_a_run_gives_the_same_numbers_in_every_engine(model: str, data: DataSpec, tmp_path: Path) -> None:
    request = RunPtq(
        model, data, calibration_samples=50, export_path=str(tmp_path / "q.onnx"), measure_latency=False, threads=1
    )
    results: list[RunResult] = []
    floats: list[Metrics] = []
    for make in (InlineEngine, ProcessEngine):
        engine: EngineClient = make()
        try:
            phases: list[str] = []
            results.append(ask(engine, request, on_partial=lambda partial, phases=phases: phases.append(partial.phase)))
            floats.append(ask(engine, FloatAccuracy(model, data, calibration_samples=50)))
            assert phases == ["calibrate", "simulate", "export", "verify"]
        finally:
            engine.close()
    first, second = (replace(result, seconds=0.0) for result in results)
    assert first == second
    assert floats[0] == floats[1] == first.float
    assert first.exported is not None
    assert onnx.load(str(tmp_path / "q.onnx")).graph.node


def test_a_run_is_cancelled_and_leaves_nothing(
    engine: EngineClient, model: str, data: DataSpec, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    request = RunPtq(model, data, calibration_samples=50, export_path=str(tmp_path / "q.onnx"))
    job = engine.submit(request, on_partial=lambda partial: engine.cancel(job))
    assert engine.wait(job, LIMIT_S).state is JobState.CANCELLED
    assert set(tmp_path.iterdir()) == before


def test_a_file_that_has_changed_is_read_again(engine: EngineClient, model: str) -> None:
    first = ask(engine, OpenModel(model))
    assert ask(engine, OpenModel(model)) == first
    write_model(Path(model), seed=1)
    os.utime(model, ns=(1, 1))
    assert ask(engine, OpenModel(model)).sha256 != first.sha256


def test_a_process_that_was_started_anew_answers_the_same_request(
    process_engine: ProcessEngine, model: str, data: DataSpec
) -> None:
    before = ask(process_engine, LookAtSamples(model, data, (0, 1, 2)))
    died: list[str] = []
    process_engine.on_process_died = lambda process, sentence: died.append(sentence)
    pid = process_engine.pid("inspect")
    assert pid is not None
    psutil.Process(pid).kill()
    Watch(process_engine).until(lambda: died)
    assert ask(process_engine, LookAtSamples(model, data, (0, 1, 2))).predictions == before.predictions


def test_resident_keeps_few_and_forgets_what_was_used_longest_ago() -> None:
    made: list[str] = []

    def maker(name: str) -> Callable[[], tuple[str, list[str]]]:
        def make() -> tuple[str, list[str]]:
            made.append(name)
            return name, []

        return make

    resident: Resident[str] = Resident(2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert resident.get(name, maker(name)) == name
    assert made == ["a", "b", "c", "b"]


def test_the_parent_never_loads_torch_and_the_child_never_qt(model: str, data: DataSpec) -> None:
    text = f"""
import sys
import engine_jobs as jobs
from qstudio.engine.messages import *
from qstudio.engine.process_client import ProcessEngine
engine = ProcessEngine()
data = DataSpec({data.source!r})
for request in (OpenModel({model!r}), WeightStatistics({model!r}), OpenDataset(data, {model!r}),
                LookAtSamples({model!r}, data, (0,)), FloatAccuracy({model!r}, data, 10), ListDevices()):
    job = engine.wait(engine.submit(request), 60)
    assert job.state.value == "done", job.error
about = engine.wait(engine.submit(jobs.About()), 60).value
engine.close()
heavy = ("torch", "onnx", "onnxruntime", "onnxscript", "sklearn", "scipy", "PySide6")
print([name for name in heavy if name in sys.modules], about["modules"])
"""
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] ['torch', 'onnx', 'onnxruntime']"


def test_every_request_has_a_job_that_can_be_imported() -> None:
    from typing import get_args

    from qstudio.engine import messages
    from qstudio.engine.jobs import JOBS, function_of

    for request_type in get_args(messages.Request):
        assert request_type.__name__ in JOBS
        blank = request_type.__new__(request_type)
        assert callable(function_of(blank))


def test_previews_of_one_layer_follow_the_latest_choice(process_engine: ProcessEngine, model: str) -> None:
    heard: list[Job] = []
    for bits in (2, 3, 4, 5, 6, 7, 8):
        process_engine.submit(
            LayerPreview(model, "/conv", Scheme("weight", bits)), slot="preview /conv", on_finished=heard.append
        )
    Watch(process_engine).until(lambda: heard)
    assert [job.value.scheme.bits for job in heard] == [8]
