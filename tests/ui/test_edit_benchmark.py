"""An edit in the whole window: how soon its size and its SQNR are on the screen, whatever the engine is doing."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from PySide6.QtWidgets import QApplication
from ui_fakes import RecordedEngine, make_model

from qstudio.ui.main_window import MainWindow
from qstudio.ui.text import format_bytes


@pytest.mark.benchmark
@pytest.mark.parametrize("tab", ["layer_table", "overview"])
def test_size_and_sqnr_within_100_ms_of_an_edit(make_studio: Any, tab: str) -> None:
    studio = make_studio(RecordedEngine(make_model(20)))
    window = MainWindow(studio.session, studio.bridge)
    studio.show(window, 1900, 1000)
    studio.open()
    window.build_all()
    studio.settle()
    window.show_panel(tab)
    studio.settle()
    workspace = window.workspace
    studio.engine.set_wake(None)  # the engine is busy: what is shown is what the window knows by itself
    times = []
    for number in range(16):
        name = f"block{number}.conv"
        studio.session.select((name,))
        QApplication.processEvents()
        before = workspace.inspector.weights.figures.text("sqnr")
        start = time.perf_counter()
        studio.session.set_layers("bits", (name,), weight_bits=3 + number % 3)
        QApplication.processEvents()
        times.append(1000 * (time.perf_counter() - start))
        assert format_bytes(studio.session.quantized_size_bytes()) in window.strip.size_figure.text
        assert workspace.inspector.weights.figures.text("sqnr") != before
    print(f"\n{tab}, 20 layers: median {np.median(times):.0f} ms, longest {max(times):.0f} ms")
    assert np.median(times) <= 100
