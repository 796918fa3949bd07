"""The jobs of pictures: a sample through the layers, a weight as an image; what cannot be done is a sentence."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_watch import LIMIT_S
from small_model import CHANNELS, CLASSES, SIDE, write_data, write_model

from qstudio.core.inspection import SampleTrace, WeightPictures
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import CHANNEL, Scheme
from qstudio.engine.client import Job
from qstudio.engine.inline import InlineEngine
from qstudio.engine.jobs import pictures as jobs
from qstudio.engine.messages import DataSpec, JobState, PictureWeights, PreviewAccuracy, TraceSample

RECIPE = Recipe(replace(Recipe().default, weight_bits=3, activation_bits=3))


@pytest.fixture
def asked(tmp_path: Path) -> PreviewAccuracy:
    model, data = write_model(tmp_path / "small.onnx"), write_data(tmp_path / "data.npz")
    return PreviewAccuracy(str(model), DataSpec(str(data)), RECIPE, samples=16, calibration_samples=16)


def done(request: Any, **callbacks: Any) -> Job:
    engine = InlineEngine()
    job = engine.wait(engine.submit(request, **callbacks), LIMIT_S)
    engine.close()
    return job


def refusal(request: Any) -> str:
    job = done(request)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.user_fault, job.error.details
    return job.error.sentence()


def test_a_sample_goes_through_the_layers(asked: PreviewAccuracy, monkeypatch: pytest.MonkeyPatch) -> None:
    partial: list[SampleTrace] = []
    job = done(TraceSample(asked, 3, max_channels=2), on_partial=partial.append)
    trace = job.value
    assert isinstance(trace, SampleTrace), job.error
    assert [maps.layer for maps in trace.layers] == ["x", "/conv", "/fc"]
    assert trace.layers[1].float.shape == (2, SIDE, SIDE)
    assert trace.layers[1].channels == CHANNELS
    assert trace.layers[2].float.shape == (1, 1, CLASSES)
    assert trace.recipe_hash == RECIPE.sha256()
    assert np.array_equal(trace.stored, np.load(asked.data.source)["x"][3])
    assert len(partial) == 1
    assert np.array_equal(partial[0].quantized_scores, trace.quantized_scores)
    # A second look, at another layer, runs nothing.
    monkeypatch.setattr(jobs, "run_sample", None)
    again = done(TraceSample(asked, 3, layers=("/conv",)))
    assert again.state is JobState.DONE, again.error
    assert again.value.flips_at == trace.flips_at


@pytest.mark.parametrize("index", [-1, 300])
def test_an_index_that_is_not_there_is_refused(asked: PreviewAccuracy, index: int) -> None:
    assert refusal(TraceSample(asked, index)) == (
        f"sample: there is no sample {index}. Choose 0 to 299 of the evaluation split."
    )


def test_data_that_is_gone_is_told(asked: PreviewAccuracy, tmp_path: Path) -> None:
    assert done(TraceSample(asked)).state is JobState.DONE
    (tmp_path / "data.npz").unlink()
    assert "data.npz" in refusal(TraceSample(asked))


def test_a_model_that_cannot_run_is_told(asked: PreviewAccuracy, tmp_path: Path) -> None:
    foreign = write_model(tmp_path / "foreign.onnx", foreign=True)
    sentence = refusal(TraceSample(replace(asked, model=str(foreign))))
    assert "Wobble" in sentence
    assert "/wobble" in sentence


def test_a_weight_becomes_a_picture(asked: PreviewAccuracy) -> None:
    job = done(PictureWeights(asked.model, "/fc", Scheme("weight", 4, True, CHANNEL)))
    picture = job.value
    assert isinstance(picture, WeightPictures), job.error
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(asked.model).graph.initializer}
    assert np.array_equal(picture.float, stored["fc.weight"])
    assert picture.channel_side == 0
    assert picture.codes is not None
    assert np.abs(picture.codes).max() == 7


@pytest.mark.parametrize(("layer", "words"), [("gone", "no such layer"), ("x", "no weight")])
def test_a_layer_without_a_weight_is_refused(asked: PreviewAccuracy, layer: str, words: str) -> None:
    assert words in refusal(PictureWeights(asked.model, layer, Scheme("weight", 4, True, CHANNEL)))


@pytest.mark.benchmark
def test_resnet20_answers_in_a_second(cases: Path) -> None:
    """One sample through ResNet-20 with the layer at which its class flips: median over samples, warm process."""
    model = str(cases / "models" / "resnet20_cifar10.onnx")
    data = DataSpec(str(cases / "cifar10" / "cifar10_test_jpeg.npz"))
    asked = PreviewAccuracy(model, data, RECIPE, samples=16, calibration_samples=64)
    engine = InlineEngine()

    def seconds(request: Any) -> tuple[float, SampleTrace]:
        began = time.perf_counter()
        job = engine.wait(engine.submit(request), LIMIT_S)
        assert job.state is JobState.DONE, job.error
        return time.perf_counter() - began, job.value

    seconds(TraceSample(asked, 0))
    times, flips = [], 0
    for index in range(1, 16):
        took, trace = seconds(TraceSample(asked, index))
        times.append(took)
        flips += bool(trace.flips_at)
    again, trace = seconds(TraceSample(asked, 15, layers=(trace.layers[20].layer,)))
    engine.close()
    size = sum(maps.float.nbytes + maps.quantized.nbytes for maps in trace.layers)
    print(
        f"trace: median {1000 * np.median(times):.0f} ms, worst {1000 * max(times):.0f} ms, {flips} of 15 flip; "
        f"another layer {1000 * again:.0f} ms; {size / 2**20:.1f} MB of maps"
    )
    assert np.median(times) < 1.0
    assert again < 0.1
