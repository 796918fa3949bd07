"""How long keeping a project holds up the thread that draws."""

from __future__ import annotations

import statistics as figures
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.core.predictions import Predictions
from qstudio.core.results import LayerResult
from qstudio.engine.messages import PtqPartial
from qstudio.session.project_statistics import weights_key
from qstudio.session.session import Session
from qstudio.session.store.writer import store_statistics

LIMIT_MS = 5.0


def opened(path: Path, layers: int) -> tuple[FakeEngine, Session]:
    names = tuple(f"block{n}.conv" for n in range(layers))
    engine = FakeEngine()
    session = Session(engine)
    session.open_model("net.onnx")
    engine.finish(engine.one("OpenModel"), model("net.onnx", names=names))
    session.open_data("digits")
    engine.finish(engine.one("OpenDataset"), dataset())
    session.set_layers("all", names, weight_bits=6)
    session.project.save_as(path / "work")
    return engine, session


def median_ms(call: Callable[[int], None], times: int) -> float:
    taken = []
    for number in range(times):
        start = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - start) * 1000)
    return figures.median(taken)


@pytest.mark.benchmark
@pytest.mark.parametrize("layers", [50, 1000])
def test_an_edit_and_a_step_of_a_drag_are_written_in_a_moment(tmp_path: Path, layers: int) -> None:
    _engine, session = opened(tmp_path, layers)
    recorder = session.project.recorder
    made: list[float] = []

    def edit(number: int, key: str | None) -> None:
        recorder.paused = True
        session.set_layers(f"edit {number}", (f"block{number % layers}.conv",), key, weight_bits=2 + number % 12)
        recorder.paused = False
        start = time.perf_counter()
        recorder.save()
        made.append((time.perf_counter() - start) * 1000)

    for number in range(200):
        edit(number, None)
    edits, made[:] = list(made), []
    for number in range(200):
        edit(number, "drag")
    print(f"{layers} layers: edit {figures.median(edits):.2f} ms (p99 {sorted(edits)[-3]:.2f}), ", end="")
    print(f"drag step {figures.median(made):.2f} ms (p99 {sorted(made)[-3]:.2f})")
    session.close()
    assert figures.median(edits) < LIMIT_MS
    assert figures.median(made) < LIMIT_MS


@pytest.mark.benchmark
def test_a_phase_of_a_run_is_written_in_a_moment(tmp_path: Path) -> None:
    engine, session = opened(tmp_path, 50)
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 10, 10_000)
    margins = rng.random(10_000).astype(np.float32)
    predictions = Predictions(np.arange(10_000), classes, classes, classes, margins, margins, tuple("0123456789"))
    rows = tuple(
        LayerResult(f"block{n}.conv", "Conv", (("weight", "int8"), ("activation", "uint8")), 40.0, 0.99, 30.0, 0.99)
        for n in range(50)
    )
    full = replace(result(session.recipe, 90.0), layers=rows, predictions=predictions)
    session.run_ptq()
    job = engine.one("RunPtq")
    assert job.on_partial is not None
    tell = job.on_partial
    taken = median_ms(lambda n: tell(PtqPartial("simulate", replace(full, seconds=float(n)))), 50)
    print(f"a phase of a run with 50 layers and 10,000 samples: {taken:.2f} ms")
    session.close()
    assert taken < LIMIT_MS


@pytest.mark.benchmark
def test_statistics_are_there_at_once(tmp_path: Path) -> None:
    engine, session = opened(tmp_path, 50)
    rng = np.random.default_rng(0)
    channels = 512
    sites = tuple(
        replace(
            statistics(f"block{n}.conv.weight"),
            channel_min=np.full(channels, -1, np.float32),
            channel_max=np.ones(channels, np.float32),
            channel_counts=rng.poisson(9, (channels, 128)).astype(np.int32),
        )
        for n in range(50)
    )
    start = time.perf_counter()
    engine.finish(engine.one("WeightStatistics"), sites)
    given = (time.perf_counter() - start) * 1000
    assert session.model is not None
    key = weights_key(session.model)
    session.project.recorder._statistics = (key,)
    session.project.recorder.put(store_statistics(key, sites, (key,)), lambda outcome: None)
    assert session.project.recorder.flush(20.0)
    taken = median_ms(lambda _n: None if session.project.recorder.kept_statistics(key) else pytest.fail("gone"), 5)
    print(f"50 sites of 512 channels: given to the writer in {given:.2f} ms, read in {taken:.1f} ms")
    session.close()
    assert taken < 300
