"""The Compare perspective: timeline, scatter, difference, flips, latency; with real clicks and keys."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtWidgets import QApplication
from ui_fakes import make_result

from qstudio.core.predictions import Predictions
from qstudio.core.results import OperatorTime, SizeBytes, SpeedReason
from qstudio.core.storage import INT8, PACKED, StorageChoice, StorageFigures
from qstudio.engine.messages import LookAtSamples
from qstudio.ui.compare.difference_panel import DifferencePanel
from qstudio.ui.compare.flip_list import MARGIN_AFTER
from qstudio.ui.compare.flips_panel import FlipsPanel
from qstudio.ui.compare.latency_panel import LatencyPanel, processor_words
from qstudio.ui.compare.runs_panel import ComparedRunsPanel
from qstudio.ui.main_window import MainWindow
from qstudio.ui.runs.run_detail import RunDetail
from qstudio.ui.theme import theme

CTRL = Qt.KeyboardModifier.ControlModifier
NONE = Qt.KeyboardModifier.NoModifier


def predictions(seed: int = 1, changed: int = 6, samples: int = 60, classes: int = 10) -> Predictions:
    """Return answers of which some differ from float's; float is right but for one in ten."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    was = np.where(np.arange(samples) % 10 == 3, (labels + 1) % classes, labels)
    now = was.copy()
    places = rng.choice(samples, changed, replace=False)
    now[places] = (was[places] + rng.integers(1, classes, changed)) % classes
    margins = rng.random((2, samples)).astype(np.float32)
    names = tuple("0123456789") if classes == 10 else ()
    return Predictions(np.arange(samples), labels, was, now, margins[0], margins[1], names)


def run(studio: Any, **changes: Any) -> int:
    number = studio.session.run_ptq().id
    result = make_result(studio.session.recipe, studio.session.model)
    studio.engine.finish(studio.engine.runs[-1], replace(result, **changes))
    return number


@pytest.fixture
def two_runs(studio: Any) -> Any:
    studio.open()
    run(studio, predictions=predictions(1))
    studio.session.set_layers("4 bits", ("fc", "block1.conv"), weight_bits=4)
    run(studio, predictions=predictions(2, 9), size_bytes=SizeBytes(40_000, 6_000, 7_000))
    return studio


# ---- timeline and scatter


@pytest.fixture
def runs_panel(two_runs: Any) -> ComparedRunsPanel:
    panel = ComparedRunsPanel(two_runs.session, two_runs.bridge)
    two_runs.show(panel, 700, 700)
    return panel


def click_row(studio: Any, panel: ComparedRunsPanel, row: int, modifier: Any = NONE, double: bool = False) -> None:
    height = panel.timeline.whole_size().height() / len(panel.timeline.rows)
    spot = QPoint(80, int((row + 0.5) * height))
    press = studio.qtbot.mouseDClick if double else studio.qtbot.mouseClick
    press(panel.timeline.viewport(), Qt.MouseButton.LeftButton, modifier, spot)


def test_click_selects_a_and_ctrl_click_b(two_runs: Any, runs_panel: ComparedRunsPanel) -> None:
    session = two_runs.session
    assert [row.run for row in runs_panel.timeline.rows] == [2, 1]
    click_row(two_runs, runs_panel, 0, CTRL)
    click_row(two_runs, runs_panel, 1)
    assert (session.compare.first.id, session.compare.second.id) == (1, 2)
    assert (runs_panel.first_box.currentData(), runs_panel.second_box.currentData()) == (1, 2)
    assert (runs_panel.scatter.first, runs_panel.scatter.second) == (1, 2)
    runs_panel.swap.click()
    assert (session.compare.first.id, session.compare.second.id) == (2, 1)
    two_runs.key(runs_panel.timeline, Qt.Key.Key_Down)
    assert session.selected_run == 1


def test_double_click_restores_and_the_next_edit_branches(two_runs: Any, runs_panel: ComparedRunsPanel) -> None:
    session = two_runs.session
    click_row(two_runs, runs_panel, 1, double=True)
    assert session.settings("fc").weight_bits == 8
    session.set_layers("6 bits", ("fc",), weight_bits=6)
    run(two_runs)
    lanes = {row.run: row.lane for row in runs_panel.timeline.rows}
    assert lanes[1] == lanes[2] != lanes[3]
    assert "Run 3" in runs_panel.timeline.told(0)
    assert runs_panel.timeline.csv_text().count("\n") == 4


def test_any_figure_against_any(two_runs: Any, runs_panel: ComparedRunsPanel) -> None:
    for number, figure in enumerate(runs_panel.figures):
        runs_panel.x_box.setCurrentIndex(number)
        shown = bool(runs_panel.scatter.points)
        assert shown == (figure.value(two_runs.session.run(1)) is not None), figure.id
        assert shown or "choose other figures" in runs_panel.scatter.message
    runs_panel.x_box.setCurrentIndex(runs_panel.x_box.findData("bits"))
    assert [round(point.x, 2) for point in runs_panel.scatter.points] == [
        8.0,
        round(runs_panel.figure("bits").value(two_runs.session.run(2)), 2),
    ]
    assert runs_panel.scatter.points[1].x < 8
    assert "average weight bits, bits" in runs_panel.scatter.csv_text()


def test_a_point_of_the_scatter_can_be_clicked(two_runs: Any, runs_panel: ComparedRunsPanel) -> None:
    scatter = runs_panel.scatter
    for number, modifier in ((1, NONE), (2, CTRL)):
        point = next(p for p in scatter.points if p.run == number)
        spot = scatter.mapFromScene(scatter.plotItem.vb.mapViewToScene(QPointF(point.x, point.y)))
        two_runs.qtbot.mouseClick(scatter.viewport(), Qt.MouseButton.LeftButton, modifier, spot)
        QApplication.processEvents()
    assert two_runs.session.selected_run == 1
    assert two_runs.session.compare.second.id == 2
    two_runs.key(scatter, Qt.Key.Key_Left)
    assert two_runs.session.selected_run in (1, 2)


def test_words_instead_of_an_empty_timeline(studio: Any) -> None:
    panel = ComparedRunsPanel(studio.session, studio.bridge)
    studio.show(panel, 500, 500)
    assert "No runs yet" in panel.timeline.message
    assert "No runs yet" in panel.scatter.message


# ---- difference


def test_the_difference_of_two_recipes(two_runs: Any) -> None:
    session = two_runs.session
    panel = DifferencePanel(session, two_runs.bridge)
    two_runs.show(panel, 900, 600)
    assert "against the float network" in panel.words.text()
    assert not panel.take_first.isEnabled()
    session.compare.set_reference(1)
    rows = [row.texts for row in panel.layers.rows.rows]
    assert rows == [("block1.conv", "W bits", "4", "8"), ("fc", "W bits", "4", "8")]
    assert "2 layers differ" in panel.words.text()
    figures = {row.texts[0]: row.texts[1:] for row in panel.summary.rows.rows}
    assert figures["accuracy"][2].startswith("+0.00 ±")
    assert figures["size"][2].startswith("-")
    panel.copy_all()
    text = QApplication.clipboard().text()
    assert "block1.conv\tW bits\t4\t8" in text
    assert "A: Run 2" in text


def test_a_layer_is_taken_from_b_and_undone(two_runs: Any) -> None:
    session = two_runs.session
    session.compare.set_reference(1)
    panel = DifferencePanel(session, two_runs.bridge)
    two_runs.show(panel, 900, 600)
    panel.layers.selectRow(1)
    assert session.selection == ("fc",)
    panel.take_second.click()
    assert (session.settings("fc").weight_bits, session.settings("block1.conv").weight_bits) == (8, 4)
    assert session.undo_label == "Take fc from Run 1"
    session.undo()
    panel.layers.clearSelection()
    panel.take_second.click()
    assert session.undo_label == "Take 2 layers from Run 1"
    panel.take_first.click()
    assert session.settings("fc").weight_bits == 4


# ---- flips


@pytest.fixture
def flips_panel(two_runs: Any) -> FlipsPanel:
    panel = FlipsPanel(two_runs.session, two_runs.bridge)
    two_runs.show(panel, 1000, 600)
    return panel


def test_flips_in_words_map_and_list(two_runs: Any, flips_panel: FlipsPanel) -> None:
    flips = two_runs.session.compare.flips
    assert "9 of 60 samples changed" in flips_panel.words.text()
    assert "McNemar p" in flips_panel.words.text()
    model = flips_panel.list.flips
    assert model.rowCount() == 9
    flips_panel.kind.setCurrentIndex(flips_panel.kind.findData("to_wrong"))
    assert model.rowCount() == flips.to_wrong > 0
    flips_panel.kind.setCurrentIndex(0)
    model.sort(MARGIN_AFTER, Qt.SortOrder.AscendingOrder)
    margins = [float(model.text(row, MARGIN_AFTER)) for row in range(9)]
    assert margins == sorted(margins)
    assert flips_panel.as_text("\t").count("\n") == 10
    assert flips_panel.map.csv_text().startswith("label,answer,difference\n")


def test_a_cell_of_the_map_filters_the_list(two_runs: Any, flips_panel: FlipsPanel) -> None:
    flips = two_runs.session.compare.flips
    cell = (int(flips.labels[0]), int(flips.after[0]))
    table, edge = flips_panel.map, flips_panel.map._cell_px(flips_panel.map.viewport().size())
    start = table._names_px() + table._lines_px()
    spot = QPoint(start + cell[1] * edge + edge // 2, start + cell[0] * edge + edge // 2)
    two_runs.qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, NONE, spot)
    assert table.selected == cell
    model = flips_panel.list.flips
    assert 0 < model.rowCount() < 9
    assert all(int(flips.labels[place]) == cell[0] for place in model.places)
    two_runs.key(table, Qt.Key.Key_Escape)
    assert model.rowCount() == 9


def test_only_samples_in_view_are_fetched_and_a_click_shows_one(two_runs: Any, flips_panel: FlipsPanel) -> None:
    rows = flips_panel.list.rows_seen()
    wanted = {flips_panel.list.flips.index_at(row) for row in rows}
    two_runs.qtbot.waitUntil(
        lambda: any(isinstance(r, LookAtSamples) and set(r.indices) == wanted for r in two_runs.engine.asked)
    )
    two_runs.settle()
    model = flips_panel.list.flips
    assert model.index(0, 0).data(Qt.ItemDataRole.DecorationRole) is not None
    asked: list[int] = []
    two_runs.session.pictures.sample_asked.connect(asked.append)
    spot = flips_panel.list.visualRect(model.index(0, 1)).center()
    two_runs.qtbot.mouseClick(flips_panel.list.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    assert asked == [model.index_at(0)]


def test_flips_between_runs_and_why_there_are_none(two_runs: Any, flips_panel: FlipsPanel) -> None:
    two_runs.session.compare.set_reference(1)
    assert "Run 1 → Run 2" in flips_panel.words.text()
    two_runs.session.compare.set_reference(2)
    assert "does not differ from itself" in flips_panel.empty.text()
    run(two_runs)
    assert "no predictions" in flips_panel.empty.text()
    assert not flips_panel.split.isVisible()


def test_a_thousand_classes_are_capped_with_words(two_runs: Any, flips_panel: FlipsPanel) -> None:
    run(two_runs, predictions=predictions(4, 300, 3000, 1000))
    assert len(flips_panel.map.shown) == 40
    assert "40 of the 1,000" in flips_panel.caption.text() or "the 40 of 1,000 classes" in flips_panel.map.caption
    flips_panel.map.picture()


# ---- latency


def reason(kind: str = "float_layers") -> SpeedReason:
    return SpeedReason(
        kind, "2 layers compute in float: fc (Gemm), block1.conv (Conv)", "Choose 8 bits", ("fc", "block1.conv"), 40.0
    )


def test_latency_with_reasons_operators_and_storages(two_runs: Any) -> None:
    session = two_runs.session
    panel = LatencyPanel(session, two_runs.bridge)
    two_runs.show(panel, 800, 600)
    assert [bar.name for bar in panel.bars.bars] == ["float", "exported"]
    assert "2.00 times as fast" in panel.words.text()
    assert "Nothing was found" in panel.reasons.text()
    pair = make_result(session.recipe, session.model).latency_ms
    slow = replace(
        pair,
        exported=replace(pair.exported, median=2.0, p90=2.4),
        simulated=replace(pair.float, median=80.0),
        reasons=(reason(),),
        operators=(
            OperatorTime(("fc",), ("Gemm",), ("QGemm",), 0.2, 0.1),
            OperatorTime((), (), ("QuantizeLinear",), None, 0.3),
        ),
    )
    storage = StorageChoice(StorageFigures(9000, 2.0), StorageFigures(5000, 2.1), INT8)
    run(two_runs, latency_ms=slow, storage=storage)
    names = [bar.name for bar in panel.bars.bars]
    assert names == ["float", f"exported, {INT8}", f"exported, {PACKED}", "simulated"]
    assert not panel.bars.bars[-1].deployable
    assert panel.bars.end_ms < 3  # the simulation does not set the scale
    assert "takes 2.00 times as long" in panel.words.text()
    assert "no VNNI" not in panel.words.text()
    assert "no VNNI" in processor_words(replace(slow, instructions=("x86", "avx2")))
    panel.reasons.linkActivated.emit("0")
    assert set(session.selection) == {"fc", "block1.conv"}
    table = panel.operators
    assert table.rows.rows[0].texts == ("fc", "0.200", "0.100", "2.00x", "Gemm", "QGemm")
    table.selectRow(0)
    assert session.selection == ("fc",)
    assert panel.bars.csv_text().count("\n") == 5
    session.compare.set_reference(1)
    assert panel.bars.bars[-1].name == "B: Run 1"
    run(two_runs, latency_ms=None)
    assert "has not been timed" in panel.bars.message


# ---- all of them


def test_the_window_has_a_compare_perspective(two_runs: Any) -> None:
    window = MainWindow(two_runs.session, two_runs.bridge)
    two_runs.show(window, 1280, 720)
    window.build_all()
    window.actions_table["compare"].trigger()
    two_runs.settle()
    workspace = window.workspace
    assert window.top_bar.perspectives["compare"].isChecked()
    assert workspace.is_shown("compared_runs")
    for name in ("flips", "latency", "compare_detail", "difference"):
        window.show_panel(name)
        two_runs.settle()
        assert workspace.is_shown(name)
    assert not workspace.layer_table.isVisible()


@pytest.mark.parametrize("panel", [ComparedRunsPanel, DifferencePanel, FlipsPanel, LatencyPanel, RunDetail])
def test_a_hidden_panel_does_no_work_and_catches_up(studio: Any, panel: Any, monkeypatch: Any) -> None:
    studio.open()
    hidden = panel(studio.session, studio.bridge)
    studio.shown.append(hidden)
    refreshed: list[int] = []
    monkeypatch.setattr(hidden, "refresh", lambda: refreshed.append(1))
    run(studio, predictions=predictions())
    assert refreshed == []
    studio.show(hidden)
    assert refreshed == [1]
    run(studio, predictions=predictions())
    assert len(refreshed) > 1


def test_pictures_can_be_taken_away_in_both_themes(
    two_runs: Any, runs_panel: Any, flips_panel: Any, tmp_path: Any
) -> None:
    latency = LatencyPanel(two_runs.session, two_runs.bridge)
    two_runs.show(latency, 600, 400)
    for mode in ("light", "dark"):
        theme().set_mode(mode)
        for figure in (runs_panel.timeline, runs_panel.scatter, flips_panel.map, latency.bars):
            assert figure.picture().width() > 100
            assert figure.svg().startswith(b"<?xml")
            figure.save(tmp_path / f"{figure.name}.csv")
            assert figure.accessibleName()
    assert all(notice.level == "info" for notice in two_runs.notices)


@pytest.mark.benchmark
def test_another_run_is_shown_within_50_ms(studio: Any) -> None:
    """200 runs of 10,000 predictions: timeline and scatter with each of the tabs at the right."""
    studio.open()
    answers = [predictions(seed, 900, 10_000) for seed in range(200)]
    for seed in range(200):
        studio.session.set_layers("bits", ("fc",), weight_bits=2 + seed % 7, activation_bits=3 + seed % 5)
        run(studio, predictions=answers[seed])
    left = ComparedRunsPanel(studio.session, studio.bridge)
    studio.show(left, 800, 700)
    for kind in (DifferencePanel, FlipsPanel, LatencyPanel, RunDetail):
        right = kind(studio.session, studio.bridge)
        studio.show(right, 1000, 700)
        studio.session.compare.set_reference(100)
        times = []
        for number in range(20, 60):
            start = time.perf_counter()
            studio.session.select_run(number)
            QApplication.processEvents()
            times.append((time.perf_counter() - start) * 1e3)
        right.hide()
        print(f"\n{kind.__name__}: median {np.median(times):.1f} ms, largest {max(times):.1f} ms")
        assert np.median(times) <= 50
