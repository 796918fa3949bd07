"""How fast pictures of samples and weights are there, with the engine in its own process: ResNet-20, 2 cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtWidgets import QApplication

from qstudio.engine.process_client import ProcessEngine
from qstudio.ui.inspector import InspectorPanel
from qstudio.ui.inspector.panel import IMAGE, SAMPLE

PATIENCE_S = 60.0


class Watch:
    """Runs the event loop until something is there; knows the longest time it was held up."""

    def __init__(self) -> None:
        self.stall = 0.0

    def until(self, there: Callable[[], bool]) -> float:
        """Return how long it took, in milliseconds."""
        began = time.perf_counter()
        while not there():
            before = time.perf_counter()
            assert before - began < PATIENCE_S
            QApplication.processEvents()
            self.stall = max(self.stall, 1000 * (time.perf_counter() - before))
        return 1000 * (time.perf_counter() - began)


@pytest.mark.benchmark
def test_pictures_of_resnet20_are_there_at_once(make_studio: Callable[..., Any], cases: Path) -> None:
    studio = make_studio(ProcessEngine())
    session, pictures, watch = studio.session, studio.session.pictures, Watch()
    session.open_model(str(cases / "models" / "resnet20_cifar10.onnx"))
    session.open_data(str(cases / "cifar10" / "cifar10_test_jpeg.npz"))
    panel = InspectorPanel(session, studio.bridge)
    studio.show(panel, 520, 900)
    watch.until(lambda: bool(session.activation_statistics) and not session.work)
    panel.tabs.setCurrentIndex(SAMPLE)
    watch.until(lambda: pictures.is_complete)
    watch.stall = 0.0
    maps, whole = [], []
    for index in range(1, 9):
        pictures.look_at(index)
        maps.append(watch.until(lambda: pictures.is_current))
        whole.append(maps[-1] + watch.until(lambda: not pictures.is_busy))
    edits = []
    names = [layer.name for layer in session.model.layers]
    for number, name in enumerate(names[1:12]):
        session.set_layers("bits", (name,), weight_bits=3 + number % 3)
        edits.append(watch.until(lambda: pictures.is_current))
        watch.until(lambda: not pictures.is_busy)
    selections = []
    for name in names:
        began = time.perf_counter()
        session.select((name,))
        watch.until(lambda: bool(panel.sample.maps.images))
        panel.sample.maps.grid.viewport().repaint()
        selections.append(1000 * (time.perf_counter() - began))
    panel.tabs.setCurrentIndex(IMAGE)
    images = []
    for name in [layer.name for layer in session.model.weighted_layers]:
        began = time.perf_counter()
        session.select((name,))
        watch.until(lambda: pictures.weights_are_current)
        panel.image.images.grid.viewport().repaint()
        images.append(1000 * (time.perf_counter() - began))
    print(
        f"another sample: maps {np.median(maps):.0f} ms, with the flip {np.median(whole):.0f} ms; "
        f"edit -> maps {np.median(edits):.0f} ms; select -> maps {np.median(selections):.1f} ms; "
        f"select -> weight image {np.median(images):.1f} ms; longest stall {watch.stall:.0f} ms"
    )
    assert np.median(whole) < 1000
    assert np.median(edits) < 1000
    assert np.median(selections) < 50
    assert np.median(images) < 50
    assert watch.stall < 50
