"""A whole PTQ run: phases, determinism, cancellation, files, and the figures on the shared cases."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from quant_cases import Recorder, case, small_cnn

from qstudio.backends.ort import make_session
from qstudio.core.errors import JobCancelled, UserError
from qstudio.core.recipe import Recipe
from qstudio.data.load import load_dataset
from qstudio.graph.load import load_model
from qstudio.quant.ptq import PtqOptions, run_ptq

QUICK = PtqOptions(calibration_samples=64, eval_samples=150, measure_latency=False, threads=2)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def timeless(result):
    return dataclasses.replace(result, seconds=0.0)


def test_phases_come_in_order_and_each_adds_its_part(digits):
    seen = []
    options = dataclasses.replace(QUICK, measure_latency=True)
    result = run_ptq(small_cnn(), digits, Recipe(), options, on_phase=lambda phase, r: seen.append((phase, r)))
    assert [phase for phase, _ in seen] == ["calibrate", "simulate", "export", "verify", "time"]
    stages = dict(seen)
    assert stages["calibrate"].float is None
    assert stages["simulate"].simulated.samples == 150
    assert stages["simulate"].parity is None
    assert stages["export"].size_bytes.file > 0
    assert stages["verify"].parity.samples == 150
    assert stages["verify"].latency_ms is None
    assert result.latency_ms.exported.median > 0
    assert {layer.name for layer in result.layers} >= {"x", "conv1", "conv2", "add", "fc"}
    assert result.size_bytes.quantized < result.size_bytes.float
    assert result.recipe_hash == Recipe().sha256()
    assert dict(result.versions)["torch"] == torch.__version__


def test_the_same_recipe_and_seed_give_the_same_numbers(digits):
    recipe = Recipe().with_default(weight_bits=4, activation_bits=6)
    first = timeless(run_ptq(small_cnn(), digits, recipe, QUICK))
    second = timeless(run_ptq(small_cnn(), digits, recipe, QUICK))
    assert first == second
    other = run_ptq(small_cnn(), digits, recipe, dataclasses.replace(QUICK, seed=1))
    assert other.layers != first.layers


def test_the_float_model_is_evaluated_once(digits, monkeypatch):
    model = small_cnn(classes=11)
    run_ptq(model, digits, Recipe(), QUICK)
    counted = []
    from qstudio.quant import evaluate

    original = evaluate.predict
    monkeypatch.setattr(evaluate, "predict", lambda *a, **k: counted.append(1) or original(*a, **k))
    run_ptq(model, digits, Recipe().with_default(weight_bits=4), QUICK)
    assert not counted


def test_progress_rises_to_one_and_cancel_stops_between_batches(digits, tmp_path):
    watcher = Recorder()
    run_ptq(small_cnn(), digits, Recipe(), QUICK, ctx=watcher)
    done = [report[0] for report in watcher.reports]
    assert done[-1] == pytest.approx(1.0)
    assert done == sorted(done)
    target = tmp_path / "q.onnx"
    options = dataclasses.replace(QUICK, export_path=str(target))
    for stop_after in (1, len(done) // 2):
        with pytest.raises(JobCancelled):
            run_ptq(small_cnn(), digits, Recipe(), options, ctx=Recorder(stop_after))


def test_the_export_is_written_runs_and_is_what_was_measured(digits, tmp_path):
    target = tmp_path / "quantized.onnx"
    result = run_ptq(small_cnn(), digits, Recipe(), dataclasses.replace(QUICK, export_path=str(target)))
    assert result.export_path == str(target)
    assert result.size_bytes.file == target.stat().st_size
    onnx.checker.check_model(onnx.load(target))
    inputs = digits.test.batch(np.arange(5))
    assert make_session(target).run(None, {"x": inputs})[0].shape == (5, 10)


def test_data_that_do_not_fit_are_refused_before_anything_runs(digits):
    with pytest.raises(UserError) as caught:
        run_ptq(small_cnn(channels=3), digits, Recipe(), QUICK)
    assert "channel" in caught.value.what


def test_an_unknown_refinement_is_refused(digits):
    with pytest.raises(UserError):
        run_ptq(small_cnn(), digits, Recipe(refinements=("fold", "magic")), QUICK)


def test_threads_of_torch_do_not_change_the_numbers(digits):
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            # A model of its own for each, so that nothing comes from a cache.
            model = dataclasses.replace(small_cnn(), sha256=f"threads{threads}")
            results.append(run_ptq(model, digits, Recipe(), QUICK))
    finally:
        torch.set_num_threads(before)
    assert results[0].float == results[1].float
    assert results[0].simulated == results[1].simulated
    assert results[0].parity == results[1].parity


def test_kws_per_channel_w8a8():
    """The vendor's own int8 model reaches 90.2 %, float 91.5 % on all 1,000 samples."""
    model, data = (
        load_model(case("models/kws_dscnn.onnx")),
        load_dataset(str(case("speech_commands/kws_mfcc_1000.npz"))),
    )
    result = run_ptq(model, data, Recipe(), PtqOptions(calibration_samples=200, measure_latency=False, threads=2))
    assert result.float.samples == 800
    assert result.simulated.top1 >= 91.0
    assert result.parity.agreement >= 99.95
    assert result.parity.max_lsb <= 1


def test_mnist_with_100_calibration_images():
    model, data = load_model(case("models/mnist_cntk.onnx")), load_dataset(str(case("mnist")), scale=1)
    options = PtqOptions(calibration_samples=100, eval_samples=1000, measure_latency=False, threads=2)
    result = run_ptq(model, data, Recipe(), options)
    assert result.float.top1 > 98.0
    assert result.float.top1 - result.simulated.top1 < 0.3
    assert result.parity.agreement >= 99.95


def test_resnet20_per_channel_w8a8():
    """On 1,000 of the 10,000 images; the whole set is measured by the command line."""
    norm = json.loads(case("cifar10/imagenet_norm.dataset.json").read_text())
    options = {"mean": norm["mean"], "std": norm["std"]}
    model = load_model(case("models/resnet20_cifar10.onnx"))
    data = load_dataset(str(case("cifar10/cifar10_test_jpeg.npz")), **options)
    calibration = load_dataset(str(case("cifar10/cifar10_train4000.npz")), **options)
    result = run_ptq(
        model,
        data,
        Recipe(),
        PtqOptions(calibration_samples=512, eval_samples=1000, measure_latency=False, threads=2),
        calibration_dataset=calibration,
    )
    assert abs(result.simulated.top1 - result.float.top1) <= 1.0
    assert result.parity.agreement >= 99.95
    assert result.parity.max_lsb <= 1
    assert result.parity.fused_agreement >= result.parity.reference_agreement - 0.2
