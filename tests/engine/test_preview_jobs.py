"""Previews through the engine: the newest edit is answered, longer work waits for it, what is known is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_watch import LIMIT_S, Watch
from small_model import write_data, write_model

from qstudio.core.inspection import DepthErrors, RecipeAccuracy
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import Scheme
from qstudio.engine.client import Job
from qstudio.engine.inline import InlineEngine
from qstudio.engine.messages import (
    DataSpec,
    ErrorOverDepth,
    FloatAccuracy,
    JobState,
    LayerPreview,
    PreviewAccuracy,
    RunPtq,
)
from qstudio.engine.process_client import ProcessEngine
from qstudio.quant import evaluate

RECIPE = Recipe()


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "small.onnx"))


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    return DataSpec(str(write_data(tmp_path / "data.npz")))


def asked(model: str, data: DataSpec, recipe: Recipe = RECIPE, samples: int = 150) -> PreviewAccuracy:
    return PreviewAccuracy(model, data, recipe, samples, calibration_samples=100)


def answer(engine: Any, request: Any) -> Any:
    job = engine.wait(engine.submit(request), LIMIT_S)
    assert job.state is JobState.DONE, job.error
    return job.value


def test_a_preview_gives_the_figures_of_a_run(model: str, data: DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = InlineEngine()
    floats = answer(engine, FloatAccuracy(model, data, 150, calibration_samples=100))
    predicted: list[Any] = []
    predict = evaluate.predict
    monkeypatch.setattr(evaluate, "predict", lambda *given: predicted.append(given) or predict(*given))
    found = answer(engine, asked(model, data))
    assert isinstance(found, RecipeAccuracy)
    assert found.done
    assert found.float == floats
    assert not predicted, "the float model's answers are known"
    run = answer(
        engine, RunPtq(model, data, calibration_samples=100, eval_samples=150, measure_latency=False, recipe=RECIPE)
    )
    # The run takes float sums in onnxruntime's order, which may move a code.
    assert found.metrics.samples == run.simulated.samples == 150
    assert found.metrics.top1 == pytest.approx(run.simulated.top1, abs=1.0)
    assert found.metrics.loss == pytest.approx(run.simulated.loss, abs=0.01)
    engine.close()


def test_depth_has_at_most_128_samples_and_every_encoded_layer(model: str, data: DataSpec) -> None:
    engine = InlineEngine()
    parts: list[DepthErrors] = []
    job = engine.submit(ErrorOverDepth(asked(model, data)), on_partial=parts.append)
    found = engine.wait(job, LIMIT_S).value
    assert found.samples == 128
    assert [noise.layer for noise in found.layers] == ["x", "/conv", "/fc"]
    assert all(noise.accumulated > 0 for noise in parts[0].layers)
    assert parts[0].layers[1].isolated is None
    assert found.layers[1].isolated is not None
    assert np.isfinite(found.layers[2].accumulated_sqnr_db)
    engine.close()


def test_a_number_of_samples_that_makes_no_sense_is_refused(model: str, data: DataSpec) -> None:
    engine = InlineEngine()
    job = engine.wait(engine.submit(asked(model, data, samples=3)), LIMIT_S)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "16 to 100,000" in job.error.sentence()
    engine.close()


def test_edits_are_answered_while_longer_work_waits(
    process_engine: ProcessEngine, model: str, data: DataSpec, tmp_path: Path
) -> None:
    """Fifty edits in one slot: the last is heard, within the error over depth, and a layer's preview within all."""
    answer(process_engine, asked(model, data))
    heard: list[Job] = []
    order: list[str] = []
    depth = process_engine.submit(ErrorOverDepth(asked(model, data)), on_finished=lambda _job: order.append("depth"))
    for bits in [2, 3, 4, 5, 6] * 10:
        recipe = RECIPE.with_layers(("/conv",), weight_bits=bits)
        process_engine.submit(asked(model, data, recipe), slot="preview", on_finished=heard.append)
    process_engine.submit(
        LayerPreview(model, "/conv", Scheme("weight", 4)), on_finished=lambda _job: order.append("layer")
    )
    Watch(process_engine).until(lambda: heard and len(order) == 2)
    assert [job.value.recipe_hash for job in heard] == [RECIPE.with_layers(("/conv",), weight_bits=6).sha256()]
    assert order == ["layer", "depth"]
    assert depth.value.recipe_hash == RECIPE.sha256(), "what was interrupted is not disturbed"
