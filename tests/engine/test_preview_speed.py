"""How fast an edit is answered on ResNet-20 with 1,000 images, from the click to the figure, through the process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_watch import LIMIT_S, Watch

from qstudio.core.scheme import Scheme
from qstudio.engine.client import Job
from qstudio.engine.messages import JobState, LayerPreview, PreviewAccuracy
from qstudio.engine.process_client import ProcessEngine
from qstudio.session.session import Session

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def opened(cases: Path) -> Iterator[tuple[ProcessEngine, Session]]:
    engine = ProcessEngine(threads=min(2, os.cpu_count() or 1))
    session = Session(engine)
    session.open_model(cases / "models" / "resnet20_cifar10.onnx")
    session.wait(LIMIT_S)
    session.open_data(str(cases / "cifar10" / "cifar10_test_jpeg.npz"))
    session.preview.follow()
    Watch(engine).until(lambda: session.preview.accuracy is not None and session.preview.accuracy.done, 120)
    yield engine, session
    session.close()


def test_a_change_of_one_layer_is_answered_within_a_second(opened: tuple[ProcessEngine, Session]) -> None:
    engine, session = opened
    watch = Watch(engine)
    base = session.recipe
    times, first = {}, []
    for layer in session.model.weighted_layers:  # type: ignore[union-attr]
        parts: list[float] = []
        begin = time.perf_counter()
        disconnect = session.preview.changed.connect(
            lambda value, parts=parts, begin=begin: parts.append(time.perf_counter() - begin) if value else None
        )
        session.set_layers("four", (layer.name,), weight_bits=4)
        watch.until(lambda: session.preview.accuracy is not None and session.preview.accuracy.done)
        times[layer.name] = time.perf_counter() - begin
        first.append(parts[0])
        disconnect()
        session.undo()
        assert session.preview.accuracy is not None, "undo is answered at once"
        # Back to where the next edit starts from, as a person who goes through the layers: all values of the base.
        engine.wait(engine.submit(_request(session, base)), LIMIT_S)
    print("\n" + "\n".join(f"{name}: {seconds:.2f} s" for name, seconds in times.items()))
    median = float(np.median(list(times.values())))
    print(f"median {median:.2f} s, longest {max(times.values()):.2f} s; first figure {max(first):.2f} s at most")
    assert median <= 1.0


def test_the_next_edit_does_not_wait_for_the_last(opened: tuple[ProcessEngine, Session]) -> None:
    """An edit while another is evaluated: how long until the engine has begun it."""
    engine, session = opened
    watch = Watch(engine)
    took = []
    recipe = session.recipe
    for bits in (2, 3, 5, 6, 7):
        started: list[float] = []
        old = recipe.with_layers((session.model.weighted_layers[0].name,), weight_bits=bits, activation_bits=7)  # type: ignore[union-attr]
        first = engine.submit(_request(session, old), slot="x")
        watch.until(lambda first=first: first.state is JobState.RUNNING)
        end = time.perf_counter() + 0.15
        watch.until(lambda end=end: time.perf_counter() > end)
        begin = time.perf_counter()
        new = old.with_layers((session.model.weighted_layers[1].name,), weight_bits=bits)  # type: ignore[union-attr]

        def on_state(job: Job, started: list[float] = started) -> None:
            if job.state is JobState.RUNNING:
                started.append(time.perf_counter())

        job = engine.submit(_request(session, new), slot="x", on_state=on_state)
        watch.until(lambda started=started: started)
        took.append(1000 * (started[0] - begin))
        engine.wait(job, LIMIT_S)
    print(f"\nthe next edit begins after {np.median(took):.0f} ms, {max(took):.0f} ms at most")
    assert max(took) <= 100


def test_a_layers_picture_does_not_wait_for_a_preview(opened: tuple[ProcessEngine, Session]) -> None:
    engine, session = opened
    watch = Watch(engine)
    took = []
    for number, layer in enumerate(session.model.weighted_layers[:8]):  # type: ignore[union-attr]
        recipe = session.recipe.with_default(weight_bits=3 + number % 4, activation_bits=5 + number % 3)
        long = engine.submit(_request(session, recipe))
        watch.until(lambda long=long: long.state is JobState.RUNNING)
        begin = time.perf_counter()
        engine.wait(engine.submit(LayerPreview(session.model.path, layer.name, Scheme("weight", 5))), LIMIT_S)  # type: ignore[union-attr]
        took.append(1000 * (time.perf_counter() - begin))
        assert not long.state.is_final
        engine.cancel(long)
        watch.until(lambda long=long: long.state.is_final)
    print(f"\nexact weight figures within a preview: median {np.median(took):.0f} ms, {max(took):.0f} ms at most")
    assert np.median(took) <= 100


def _request(session: Session, recipe: Any) -> PreviewAccuracy:
    request = session.preview.request()
    assert request is not None
    return PreviewAccuracy(
        request.model, request.data, recipe, request.samples, calibration_samples=request.calibration_samples
    )
