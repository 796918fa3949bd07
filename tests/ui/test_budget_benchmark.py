"""The budget slider and painted bits in the whole window: what UX.md allows them to take."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from precision_fakes import LongEngine, make_search, make_sweep
from PySide6.QtWidgets import QApplication
from ui_fakes import make_model

from qstudio.ui.main_window import MainWindow


def window_of(make_studio: Any, layers: int) -> tuple[Any, MainWindow]:
    studio = make_studio(LongEngine(make_model(layers)))
    window = MainWindow(studio.session, studio.bridge)
    studio.show(window, 1900, 1000)
    studio.open()
    window.build_all()
    window.show_perspective("tune")
    studio.settle()
    return studio, window


def times_ms(step: Any, count: int) -> np.ndarray:
    found = []
    for number in range(count):
        start = time.perf_counter()
        step(number)
        QApplication.processEvents()
        found.append(1000 * (time.perf_counter() - start))
    return np.array(found)


@pytest.mark.benchmark
@pytest.mark.parametrize("tab", ["layer_table", "bits", "sensitivity"])
def test_the_budget_slider_at_200_layers(make_studio: Any, tab: str) -> None:
    """Each position is another recipe: table, bars and chart are repainted within 50 ms."""
    studio, window = window_of(make_studio, 199)
    studio.session.sensitivity.start()
    sweep = make_sweep(studio.engine.model, studio.session.recipe, (8, 4, 3, 2))
    studio.engine.finish(studio.engine.long[-1], sweep)
    studio.session.search.start()
    studio.engine.finish(studio.engine.long[-1], make_search(studio.engine.model, studio.session.recipe, 25))
    window.show_panel(tab)
    studio.settle()
    slider = window.workspace.chart.budget.slider
    slider.setSliderDown(True)
    found = times_ms(lambda n: slider.setValue(round(1000 * (n % 25) / 24)), 50)[1:]
    slider.setSliderDown(False)
    print(f"{tab}: median {np.median(found):.1f} ms, largest {found.max():.1f} ms")
    assert np.median(found) <= 50


@pytest.mark.benchmark
def test_painting_bits_at_1000_layers(make_studio: Any) -> None:
    studio, window = window_of(make_studio, 999)
    window.show_panel("bits")
    studio.settle()
    panel = window.workspace.panel("bits")
    names = [bar.name for bar in panel.bars.bars]
    found = times_ms(lambda n: panel.bars.bar_painted.emit(names[1 + n], 4, False), 40)[1:]
    panel.bars.paint_ended.emit()
    scrolled = times_ms(lambda n: panel.bars.horizontalScrollBar().setValue(200 * n), 40)
    print(f"paint: median {np.median(found):.1f} ms, largest {found.max():.1f}; scroll {np.median(scrolled):.1f} ms")
    assert np.median(scrolled) <= 16.7
    assert np.median(found) <= 50


@pytest.mark.benchmark
def test_scrolling_the_sensitivity_of_1000_layers(make_studio: Any) -> None:
    studio, window = window_of(make_studio, 999)
    studio.session.sensitivity.start()
    sweep = make_sweep(studio.engine.model, studio.session.recipe, (8, 4, 3, 2))
    studio.engine.finish(studio.engine.long[-1], sweep)
    window.show_panel("sensitivity")
    studio.settle()
    bar = window.workspace.panel("sensitivity").map.verticalScrollBar()
    assert bar.maximum() > 20_000
    found = times_ms(lambda n: bar.setValue(400 * n), 50)
    print(f"scroll: median {np.median(found):.1f} ms, largest {found.max():.1f}")
    assert np.median(found) <= 16.7
