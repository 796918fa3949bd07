"""Runs table, chart and detail, and what their figures mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtCore import Qt
from ui_fakes import make_result

from qstudio.core.results import Metrics
from qstudio.engine.messages import Failure, JobState, PtqPartial
from qstudio.ui.runs.figures import drop_interval, drop_words, latency_words, parity_words
from qstudio.ui.runs.run_chart import RunChart
from qstudio.ui.runs.run_detail import RunDetail
from qstudio.ui.runs.runs_table import RunsTable


def run(studio: Any, **changes: Any) -> int:
    number = studio.session.run_ptq().id
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model, **changes))
    return number


def cell(table: RunsTable, row: int, name: str) -> str:
    return str(table.runs.index(row, table.column_of(name)).data())


def click(studio: Any, table: RunsTable, row: int, double: bool = False) -> None:
    spot = table.visualRect(table.runs.index(row, 0)).center()
    studio.qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    if double:
        studio.qtbot.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=spot)


@pytest.fixture
def table(studio: Any) -> RunsTable:
    studio.open()
    table = RunsTable(studio.session, studio.bridge)
    studio.show(table, 1800, 300)
    return table


def test_a_row_for_each_run_with_every_figure(studio: Any, table: RunsTable) -> None:
    run(studio)
    assert [cell(table, 0, name) for name in ("run", "state", "recipe", "float", "simulated", "exported")] == [
        "Run 1", "done", "current", "97.00", "96.60", "96.50",
    ]  # fmt: skip
    assert [cell(table, 0, name) for name in ("unfused", "fused", "lsb", "float_ms", "exported_ms", "threads")] == [
        "99.90", "99.80", "1", "1.00", "0.50", "2",
    ]  # fmt: skip
    assert cell(table, 0, "spread") == "0.40..0.70"
    assert cell(table, 0, "drop").startswith("-0.50 ±")
    studio.session.set_layers("w4", ("fc",), weight_bits=4)
    assert cell(table, 0, "recipe") == "other"
    assert "1,000 samples" in str(table.runs.index(0, table.column_of("float")).data(Qt.ItemDataRole.ToolTipRole))


def test_click_selects_and_double_click_restores_as_one_undoable_step(studio: Any, table: RunsTable) -> None:
    session = studio.session
    run(studio)
    session.set_layers("w4", ("fc",), weight_bits=4)
    run(studio)
    click(studio, table, 0)
    assert session.selected_run == 1
    click(studio, table, 0, double=True)
    assert session.settings("fc").weight_bits == 8
    assert session.undo_label == "Restore recipe of Run 1"
    session.undo()
    assert session.settings("fc").weight_bits == 4
    session.select_run(2)
    assert table.currentIndex().row() == 1


def test_a_run_in_progress_updates_in_place_and_keeps_its_partials_when_it_fails(studio: Any, table: RunsTable) -> None:
    studio.session.run_ptq()
    job = studio.engine.runs[-1]
    studio.engine.set_state(job, JobState.RUNNING)
    studio.engine.progress(job, 30, 100)
    assert cell(table, 0, "state") == "running 30 %"
    partial = make_result(studio.session.recipe, studio.session.model, exported=None, parity=None, latency_ms=None)
    job.on_partial(PtqPartial("simulate", partial))
    assert (cell(table, 0, "simulated"), cell(table, 0, "exported")) == ("96.60", "–")
    studio.engine.finish(job, None, JobState.FAILED, Failure("the disk is full", "export", "Free some space"))
    assert cell(table, 0, "state") == "failed"
    assert cell(table, 0, "simulated") == "96.60"
    assert "the disk is full" in cell(table, 0, "notes")
    detail = RunDetail(studio.session, studio.bridge)
    studio.session.select_run(1)
    studio.show(detail, 500, 400)
    assert "the disk is full" in detail.words.text()
    assert "What was measured before" in detail.words.text()


def test_int8_that_is_not_faster_is_said_so(studio: Any, table: RunsTable) -> None:
    result = make_result(studio.session.recipe, studio.session.model)
    assert result.latency_ms is not None
    slow = replace(
        result.latency_ms,
        exported=replace(result.latency_ms.exported, median=2.0),
        notes=("Q and DQ were left unfused at conv1.",),
    )
    run(studio, latency_ms=slow)
    assert "int8 is not faster here" in cell(table, 0, "notes")
    assert "unfused at conv1" in cell(table, 0, "notes")
    assert "2.00 times as slow" in latency_words(slow)


def test_the_detail_speaks_in_words_and_lists_every_layer(studio: Any) -> None:
    studio.open()
    detail = RunDetail(studio.session, studio.bridge)
    studio.show(detail, 700, 500)
    assert "No run is selected" in detail.title.text()
    assert not detail.restore.isEnabled()
    run(studio)
    text = detail.words.text()
    assert "99.90 % of 1,000 samples" in text
    assert "1 LSB" in text
    assert "onnxruntime itself changes 0.20 %" in text
    assert "2.00 times as fast as float here" in text
    weighted = [layer.name for layer in studio.session.model.weighted_layers]
    assert [detail.table.item(row, 0).text() for row in range(detail.table.rowCount())] == weighted
    assert not detail.restore.isEnabled()
    assert "current recipe" in detail.restore.toolTip()
    studio.session.set_layers("w4", ("fc",), weight_bits=4)
    assert detail.restore.isEnabled()
    studio.qtbot.mouseClick(detail.restore, Qt.MouseButton.LeftButton)
    assert studio.session.settings("fc").weight_bits == 8
    detail.tabs.setCurrentIndex(1)
    detail.table.selectRow(2)
    assert studio.session.selection == (weighted[2],)


def test_the_chart_has_a_point_for_each_run_and_the_float_star(studio: Any) -> None:
    studio.open()
    chart = RunChart(studio.session, studio.bridge)
    studio.show(chart, 600, 400)
    assert [point.kind for point in chart.points()] == ["float"]
    run(studio)
    studio.session.set_layers("w4", ("fc",), weight_bits=4)
    run(studio, exported=None, latency_ms=None)
    assert [(point.run, point.kind) for point in chart.points()] == [(None, "float"), (1, "measured"), (2, "simulated")]
    studio.qtbot.mouseClick(chart.buttons["latency"], Qt.MouseButton.LeftButton)
    assert [point.run for point in chart.points()] == [None, 1], "a run without a measured latency has no place there"
    chart.chart.run_selected.emit(1)
    assert studio.session.selected_run == 1
    chart.chart.run_restored.emit(1)
    assert studio.session.settings("fc").weight_bits == 8


@pytest.mark.parametrize(
    ("wrong", "right", "n", "half"), [(0, 0, 1000, 0.196), (20, 5, 1000, 0.993), (7, 2, 100, 6.00)]
)
def test_the_interval_of_a_difference(wrong: int, right: int, n: int, half: float) -> None:
    metrics = Metrics(n, 90.0, flips_to_wrong=wrong, flips_to_right=right)
    assert drop_interval(metrics) == pytest.approx(half, abs=0.01)


def test_words_for_differences_and_parity() -> None:
    assert drop_words(None) == ""
    assert "Not compared yet" in parity_words(None)
