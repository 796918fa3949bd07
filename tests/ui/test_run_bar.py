"""The run bar and the accuracy strip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import Qt
from ui_fakes import RecordedEngine, make_result

from qstudio.core.results import Metrics
from qstudio.engine.messages import JobState, PtqPartial
from qstudio.ui import run_bar
from qstudio.ui.accuracy_strip import AccuracyStrip
from qstudio.ui.run_bar import RunBar


def test_devices_that_are_not_available_say_why(studio: Any) -> None:
    bar = RunBar(studio.session, studio.bridge)
    studio.show(bar)
    studio.session.list_devices()
    studio.settle()
    model = bar.device.model()
    assert [bar.device.itemData(row) for row in range(bar.device.count())] == ["cpu", "cuda:0"]
    assert model.index(0, 0).flags() & Qt.ItemFlag.ItemIsEnabled
    assert not model.index(1, 0).flags() & Qt.ItemFlag.ItemIsEnabled
    assert "no NVIDIA driver" in model.index(1, 0).data(Qt.ItemDataRole.ToolTipRole)
    assert "no NVIDIA driver" in bar.device.toolTip()


def test_options_go_both_ways(studio: Any) -> None:
    studio.open()
    bar = RunBar(studio.session, studio.bridge)
    studio.show(bar)
    bar.calibrate.setFocus()
    bar.calibrate.selectAll()
    studio.qtbot.keyClicks(bar.calibrate, "100")
    studio.qtbot.keyClick(bar.calibrate, Qt.Key.Key_Return)
    assert studio.session.options.calibration_samples == 100
    bar.evaluate.setValue(0)
    assert studio.session.options.eval_samples is None
    assert bar.evaluate.text() == "all"
    studio.session.set_options(seed=7, eval_samples=500)
    assert (bar.seed.value(), bar.evaluate.value()) == (7, 500)


def test_progress_phase_and_time_left_are_shown(studio: Any) -> None:
    studio.open()
    bar = RunBar(studio.session, studio.bridge)
    studio.show(bar)
    studio.session.run_ptq()
    job = studio.engine.runs[-1]
    studio.engine.set_state(job, JobState.RUNNING)
    studio.engine.progress(job, 57, 100, "Evaluating", 21.0)
    assert bar.progress.value() == 570
    assert bar.phase.text() == "57 %, 0:21 left, Evaluating"
    studio.engine.finish(job, make_result(studio.session.recipe, studio.session.model))
    assert not bar.progress.isVisible()


def test_force_stop_appears_only_when_cancelling_takes_long(
    make_studio: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_bar.FORCE_STOP_AFTER_MS == 3000
    monkeypatch.setattr(run_bar, "FORCE_STOP_AFTER_MS", 50)
    studio = make_studio()
    studio.open()
    bar = RunBar(studio.session, studio.bridge)
    studio.show(bar)
    studio.session.run_ptq()
    studio.engine.set_state(studio.engine.runs[-1], JobState.RUNNING)
    assert not bar.force_stop.isVisible()
    studio.session.cancel_run()
    assert not bar.force_stop.isVisible()
    assert "stopping" in bar.phase.text()
    studio.qtbot.waitUntil(bar.force_stop.isVisible)
    studio.qtbot.mouseClick(bar.force_stop, Qt.MouseButton.LeftButton)
    assert studio.session.runs[-1].state is JobState.KILLED
    assert not bar.force_stop.isVisible()
    assert "by force" in bar.phase.text()


def test_the_strip_tells_float_run_size_and_latency(studio: Any) -> None:
    strip = AccuracyStrip(studio.session, studio.bridge)
    studio.show(strip, 1280, 48)
    studio.open()
    assert strip.float_figure.text == "97.00 % ±4.8, 60"
    assert "not run" in strip.run_figure.text
    assert strip.latency_figure.text == "not measured"
    before = strip.size_figure.text
    studio.session.set_layers("w4", ("block0.conv",), weight_bits=4)
    assert strip.size_figure.text != before, "the size follows every edit"
    studio.session.run_ptq()
    job = studio.engine.runs[-1]
    result = make_result(studio.session.recipe, studio.session.model)
    early = replace(result, exported=None, parity=None, latency_ms=None)
    studio.engine.set_state(job, JobState.RUNNING)
    job.on_partial(PtqPartial("simulate", early))
    assert strip.run_figure.text.startswith("96.60 % (-0.40 ")
    assert "simulated" in strip.run_figure.text
    studio.engine.finish(job, result)
    assert strip.run_figure.text.startswith("96.50 % (-0.50 ")
    assert "exported, Run 1" in strip.run_figure.text
    assert strip.latency_figure.text == "1.00 → 0.50 ms (2.00x)"
    studio.session.undo()
    assert "recipe edited since" in strip.run_figure.text


def test_without_labels_only_agreement_is_spoken_of(make_studio: Callable[..., Any]) -> None:
    engine = RecordedEngine()
    engine.float_metrics = Metrics(60, agreement=100.0, top1_interval=(94.0, 100.0))
    studio = make_studio(engine)
    strip = AccuracyStrip(studio.session, studio.bridge)
    studio.show(strip, 1280, 48)
    studio.open()
    assert "no labels" in strip.float_figure.text
    studio.session.run_ptq()
    result = make_result(
        studio.session.recipe,
        studio.session.model,
        float=engine.float_metrics,
        simulated=Metrics(60, agreement=98.0, top1_interval=(90.0, 99.0)),
        exported=None,
    )
    studio.engine.finish(engine.runs[-1], result)
    assert strip.run_figure.text.startswith("98.00 % simulated agreement with float")
