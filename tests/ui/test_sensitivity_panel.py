"""The sensitivity tab: choices, live filling, stale figures, taking a cell."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from precision_fakes import LongEngine, make_sweep
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QStandardItemModel
from ui_fakes import make_model

from qstudio.core.recipe import Recipe
from qstudio.engine.messages import JobState
from qstudio.ui.plots.heat_map import HeatRow, HeatScale
from qstudio.ui.sensitivity.panel import SensitivityPanel
from qstudio.ui.sensitivity.rows import harm, sheet_of, value_text


@pytest.fixture
def studio(make_studio):
    return make_studio(LongEngine())


@pytest.fixture
def panel(studio):
    studio.open()
    made = SensitivityPanel(studio.session, studio.bridge)
    studio.show(made, 700, 500)
    return made


def finish(studio, **changes):
    lens = studio.session.sensitivity
    result = make_sweep(studio.engine.model, studio.session.recipe, lens.settings.bits, **changes)
    studio.engine.finish(studio.engine.long[-1], result)
    studio.settle()


def cell_at(panel, row: int, column: int) -> QPoint:
    start, width, _, _ = panel.map._places(panel.map.viewport().width())
    return QPoint(start + column * width + width // 2, int(panel.map._head_px + (row + 0.5) * panel.map._row_px))


def settled(studio, panel):
    studio.qtbot.waitUntil(lambda: not panel._timer.isActive())


def test_without_data_it_says_what_to_do(studio):
    studio.open(data="")
    made = SensitivityPanel(studio.session, studio.bridge)
    studio.show(made, 700, 500)
    assert made.map.message == "Choose a dataset first"
    assert not made.start.isEnabled()
    assert made.start.toolTip() == "Choose a dataset first"


def test_the_map_fills_while_the_sweep_runs_and_says_how_long_it_takes(studio, panel):
    panel.widths.button(3).click()
    panel.start.click()
    request = studio.engine.long[0].request
    assert [c.weight_bits for c in request.candidates] == [8, 4, 2]
    sweep = make_sweep(studio.engine.model, studio.session.recipe)
    job = studio.engine.long[0]
    for cell in sweep.cells[-3:]:
        job.on_partial(cell)
    studio.engine.progress(job, 0.25, 1.0, "Measuring fc W4", 12.0)
    settled(studio, panel)
    assert len(panel.map.rows) == 7
    assert [row.values.count(None) for row in panel.map.rows] == [3] * 6 + [0]
    assert panel.status.text() == "Measuring fc W4: 25 %, 0:12 left"
    assert panel.stop.isVisible()
    assert not panel.start.isEnabled()
    panel.stop.click()
    assert job.state is JobState.CANCELLING
    studio.engine.finish(job, None, JobState.CANCELLED)
    settled(studio, panel)
    assert "goes on from here" in panel.status.text()
    assert sum(value is not None for row in panel.map.rows for value in row.values) == 3


def test_clicks_select_and_a_double_click_takes_the_width_as_one_step(studio, panel):
    panel.start.click()
    finish(studio)
    settled(studio, panel)
    before = studio.session.recipe
    studio.qtbot.mouseClick(panel.map.viewport(), Qt.MouseButton.LeftButton, pos=cell_at(panel, 2, 1))
    assert studio.session.selection == ("block2.conv",)
    assert panel.map.bar_title == "KL divergence cost, nats, W4"
    studio.qtbot.mouseDClick(panel.map.viewport(), Qt.MouseButton.LeftButton, pos=cell_at(panel, 2, 3))
    assert studio.session.settings("block2.conv").weight_bits == 2
    assert studio.session.undo_label == "W2: block2.conv"
    assert studio.session.sensitivity.stale == ""
    settled(studio, panel)
    assert [row.mark for row in panel.map.rows[1:4]] == [0, 3, 0], "what the recipe has now is underlined"
    studio.session.undo()
    assert studio.session.recipe == before
    studio.key(panel.map, Qt.Key.Key_Down)
    assert studio.session.selection == ("block3.conv",)
    studio.key(panel.map, Qt.Key.Key_Left)
    studio.key(panel.map, Qt.Key.Key_Return)
    assert studio.session.settings("block3.conv").weight_bits == 8


def test_stale_figures_are_shown_as_stale(studio, panel):
    panel.start.click()
    finish(studio)
    studio.session.set_options(seed=5)
    studio.settle()
    settled(studio, panel)
    assert panel.map.faded
    assert panel.status.text().startswith("Stale: Samples, seed or device have changed since")
    assert panel.start.text() == "Measure again"


def test_a_measure_that_is_not_there_is_grey_and_says_why(studio, panel):
    panel.start.click()
    sweep = make_sweep(studio.engine.model, studio.session.recipe)

    blind = tuple(replace(c, figures=replace(c.figures, top1=None, loss=None)) for c in sweep.cells)
    studio.engine.finish(studio.engine.long[-1], replace(sweep, cells=blind))
    studio.settle()
    settled(studio, panel)
    items = panel.measure.model()
    assert isinstance(items, QStandardItemModel)
    grey = [items.item(n).text() for n in range(items.rowCount()) if not items.item(n).isEnabled()]
    assert grey == ["loss, nats", "top-1, %"]
    assert "no labels" in panel.measure.itemData(0, Qt.ItemDataRole.ToolTipRole)


def test_the_figure_can_be_taken_away(studio, panel, tmp_path):
    panel.start.click()
    finish(studio)
    settled(studio, panel)
    rows = list(csv.reader(io.StringIO(panel.map.csv_text())))
    assert rows[0] == ["layer", "W8", "W4", "W3", "W2", "Tr(H)", "KL divergence cost, nats, W4"]
    assert len(rows) == 8
    assert panel.map.picture().width() == 2 * panel.map.viewport().width()
    for ending in ("svg", "png"):
        panel.map.save(tmp_path / f"map.{ending}")
    assert b"<svg" in (tmp_path / "map.svg").read_bytes()
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_harm_by_hand():
    model = make_model()
    sweep = make_sweep(model, Recipe())
    cell = sweep.cells[0]
    assert harm(cell, "top1", "enable", 97.0) == pytest.approx(97.0 - cell.figures.top1)
    assert harm(cell, "sqnr", "enable", None) == pytest.approx(10 ** (-cell.figures.sqnr_db / 10))
    assert harm(cell, "kl", "disable", 2.0) == pytest.approx(2.0 - cell.figures.kl)
    assert harm(cell, "kl", "disable", 0.0) == 0.0, "never below 0"
    assert harm(cell, "loss", "change", None) is None
    sheet = sheet_of(sweep, model, "kl", sweep.candidates[2], True, True)
    assert [row.name for row in sheet.rows] == list(reversed(sweep.layers)), "the longest bar first"
    assert sheet.scale.share(sheet.scale.high) == 1.0
    low_is_bad = sheet_of(sweep, model, "sqnr", sweep.candidates[2], False, True)
    assert low_is_bad.scale.share(low_is_bad.scale.low) == 1.0
    assert value_text("sqnr", 24.13, unit=True) == "24.1 dB"


def test_a_scale_of_equal_values_and_one_row_is_drawn(studio, panel):
    panel.map.set_message("")
    panel.map.set_rows((HeatRow("only", (1.0,), ("1",), 0.0),), ("W8",), HeatScale(1.0, 1.0))
    assert panel.map.scale.share(1.0) == 0.0
    assert not panel.map.picture().isNull()
