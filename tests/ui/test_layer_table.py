"""The layer table with real keys and clicks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication, QComboBox
from ui_fakes import RecordedEngine, make_model, make_result

from qstudio.core.errors import UserError
from qstudio.core.recipe import Rule, make_values
from qstudio.core.scheme import FLOAT_BITS, Granularity
from qstudio.ui.action_table import ACTIONS
from qstudio.ui.actions import Actions
from qstudio.ui.table.columns import COLUMN_IDS
from qstudio.ui.table.layer_table import LayerTable

Role = Qt.ItemDataRole
WEIGHT_BITS = COLUMN_IDS.index("weight_bits")


@pytest.fixture
def table(studio: Any) -> LayerTable:
    studio.open()
    table = LayerTable(studio.session, studio.bridge)
    studio.show(table)
    studio.settle()
    return table


def column(table: LayerTable, name: str) -> list[str]:
    number = COLUMN_IDS.index(name)
    return [table.model.index(row, number).data() for row in range(table.model.rowCount())]


def click(studio: Any, table: LayerTable, layer: str, name: str = "layer", modifier: Any = None) -> QPoint:
    row = table.model.row_of(layer)
    assert row is not None
    spot = table.view.visualRect(table.model.index(row, COLUMN_IDS.index(name))).center()
    studio.qtbot.mouseClick(
        table.view.viewport(), Qt.MouseButton.LeftButton, modifier or Qt.KeyboardModifier.NoModifier, spot
    )
    return spot


def test_rows_are_the_layers_in_order(studio: Any, table: LayerTable) -> None:
    assert column(table, "layer") == [layer.name for layer in studio.session.model.layers]
    assert "9 layers, 0 changed" in table._footer.text()


def test_a_click_selects_everywhere_and_the_session_selects_in_the_table(studio: Any, table: LayerTable) -> None:
    click(studio, table, "block2.conv")
    assert studio.session.selection == ("block2.conv",)
    click(studio, table, "fc", modifier=Qt.KeyboardModifier.ControlModifier)
    assert set(studio.session.selection) == {"block2.conv", "fc"}
    assert studio.session.selection[0] == "fc", "the layer clicked last is the one the inspector shows"
    told: list[object] = []
    studio.bridge.selection_changed.connect(told.append)
    studio.session.select(["block1.conv"])
    assert table.view.selected_rows() == [table.model.row_of("block1.conv")]
    assert told == [("block1.conv",)], "following a selection tells nothing back"


def test_arrow_keys_move_the_selection(studio: Any, table: LayerTable) -> None:
    click(studio, table, "block0.conv")
    studio.key(table.view, Qt.Key.Key_Down)
    assert studio.session.selection == ("block1.conv",)
    studio.key(table.view, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    assert set(studio.session.selection) == {"block1.conv", "block2.conv"}


def test_set_values_are_bold_and_inherited_ones_say_where_they_come_from(studio: Any, table: LayerTable) -> None:
    session = studio.session
    session.edit("rule", session.recipe.__class__(rules=(Rule("block1*", make_values(weight_bits=6)),)))
    session.set_layers("set", ("block0.conv",), weight_bits=4)
    set_, ruled, plain = (table.model.index(table.model.row_of(f"block{n}.conv"), WEIGHT_BITS) for n in (0, 1, 2))
    assert (set_.data(), ruled.data(), plain.data()) == ("4", "6", "8")
    assert set_.data(Role.FontRole) is not None
    assert plain.data(Role.FontRole) is None
    assert plain.data(Role.ForegroundRole) is not None
    assert set_.data(Role.ForegroundRole) is None
    assert "default" in plain.data(Role.ToolTipRole)
    assert "rule block1*" in ruled.data(Role.ToolTipRole)


def test_a_cell_is_edited_in_place_for_the_whole_selection_as_one_step(studio: Any, table: LayerTable) -> None:
    click(studio, table, "block0.conv")
    click(studio, table, "block3.conv", modifier=Qt.KeyboardModifier.ControlModifier)
    index = table.model.index(table.model.row_of("block3.conv"), WEIGHT_BITS)
    table.view.edit(index)
    box = table.view.findChild(QComboBox)
    assert box is not None
    popup = box.view()
    studio.qtbot.waitUntil(popup.isVisible)
    row = box.findText("4")
    studio.qtbot.mouseClick(
        popup.viewport(), Qt.MouseButton.LeftButton, pos=popup.visualRect(box.model().index(row, 0)).center()
    )
    studio.qtbot.waitUntil(lambda: studio.session.settings("block3.conv").weight_bits == 4)
    assert studio.session.settings("block0.conv").weight_bits == 4
    assert studio.session.undo_label == "weight bits 4: 2 layers"
    studio.session.undo()
    assert studio.session.settings("block0.conv").weight_bits == 8
    assert studio.session.undo_label is None


def test_the_context_menu_edits_all_selected_layers(studio: Any, table: LayerTable) -> None:
    studio.session.select(["block0.conv", "block1.conv", "x"])
    menu = table.view.edit_menu()
    granularity = next(action.menu() for action in menu.actions() if action.text() == "Weight granularity")
    next(action for action in granularity.actions() if action.text() == "group of 32").trigger()
    assert studio.session.settings("block1.conv").weight_granularity == Granularity("group", 32)
    assert studio.session.settings("x").weight_granularity == Granularity("channel"), "an input has no weights"
    menu.deleteLater()


def test_cells_that_do_not_apply_say_why(studio: Any, table: LayerTable) -> None:
    add = table.model.index(table.model.row_of("add"), COLUMN_IDS.index("activation_bits"))
    assert add.data() == "–"
    assert "Shares the encoding of block0.conv" in add.data(Role.ToolTipRole)
    assert not table.model.flags(add) & Qt.ItemFlag.ItemIsEditable
    assert "no weights" in table.model.index(0, WEIGHT_BITS).data(Role.ToolTipRole)


def test_an_unsupported_layer_is_marked_with_its_reason(make_studio: Callable[..., Any]) -> None:
    from dataclasses import replace

    model = make_model()
    broken = replace(model.layers[2], unsupported="NonMaxSuppression cannot run")
    studio = make_studio(RecordedEngine(replace(model, layers=(*model.layers[:2], broken, *model.layers[3:]))))
    studio.open()
    table = LayerTable(studio.session, studio.bridge)
    studio.show(table)
    index = table.model.index(2, 0)
    assert index.data(Role.UserRole) == "unsupported"
    assert "NonMaxSuppression" in index.data(Role.ToolTipRole)


def test_the_filter_takes_text_types_and_expressions(studio: Any, table: LayerTable) -> None:
    table.focus_filter()
    studio.qtbot.keyClicks(table._filter, "BLOCK1")
    assert column(table, "layer") == ["block1.conv"]
    assert "1 of" in table._footer.text()
    table.set_filter(r"block[0-2]\.", regex=True)
    assert column(table, "layer") == ["block0.conv", "block1.conv", "block2.conv"]
    table.set_filter("block[", regex=True)
    assert "not a regular expression" in table._footer.text()
    assert table.model.rowCount() == table.model.layer_count, "a bad expression hides nothing"
    table.set_filter("")
    table._type.setCurrentIndex(table._type.findData("Gemm"))
    assert column(table, "layer") == ["fc"]


def test_sorting_is_by_value_and_keeps_the_selection(studio: Any, table: LayerTable) -> None:
    studio.session.select(["block4.conv"])
    number = COLUMN_IDS.index("parameters")
    table.view.choose_columns(("parameters",))
    header = table.view.horizontalHeader()
    x = header.sectionViewportPosition(number) + 20
    studio.qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(x, header.height() // 2))
    counts = [studio.session.model.layer(name).parameters for name in column(table, "layer")]
    assert counts == sorted(counts) or counts == sorted(counts, reverse=True)
    assert table.view.selected_rows() == [table.model.row_of("block4.conv")]
    table.view.horizontalHeader().setSortIndicator(COLUMN_IDS.index("weight_sqnr"), Qt.SortOrder.DescendingOrder)
    assert column(table, "weight_sqnr")[-1] == "–", "cells without a value come last either way"


def test_figures_arrive_by_themselves(studio: Any, table: LayerTable) -> None:
    studio.qtbot.waitUntil(lambda: "44.0" in column(table, "weight_sqnr"))
    studio.session.set_layers("w4", ("block0.conv",), weight_bits=4)
    row = table.model.row_of("block0.conv")
    studio.qtbot.waitUntil(lambda: column(table, "weight_sqnr")[row] == "20.0")
    assert column(table, "output_sqnr")[row] == "–"
    run = studio.session.run_ptq()
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model))
    assert column(table, "output_sqnr")[row] == "20.0"
    assert studio.session.selected_run == run.id


def test_edits_since_the_last_run_are_marked(studio: Any, table: LayerTable) -> None:
    studio.session.run_ptq()
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model))
    assert table._badge.text() == ""
    studio.session.set_layers("w4", ("fc",), weight_bits=4)
    assert "edits not yet run" in table._badge.text()
    row = table.model.row_of("fc")
    assert table.model.index(row, 0).data(Role.UserRole) == "edited"
    studio.session.undo()
    assert table._badge.text() == ""
    assert table.model.index(row, 0).data(Role.UserRole) is None


def test_tsv_and_csv(studio: Any, table: LayerTable, tmp_path: Path) -> None:
    studio.session.select(["fc"])
    lines = table.view.as_text("\t", selected_only=True).splitlines()
    assert lines[0].startswith("Layer\t")
    assert [line.split("\t")[0] for line in lines[1:]] == ["fc"]
    table.save_csv(tmp_path / "layers.csv")
    assert len((tmp_path / "layers.csv").read_text().splitlines()) == table.model.rowCount() + 1
    with pytest.raises(UserError, match="not saved"):
        table.save_csv(tmp_path / "nowhere" / "layers.csv")


def test_columns_fit_the_width_until_the_person_chooses(studio: Any, table: LayerTable) -> None:
    wide = len(table.view.shown_columns)
    table.resize(520, 700)
    studio.settle()
    assert 3 <= len(table.view.shown_columns) < wide
    assert table.view.horizontalScrollBar().maximum() == 0
    menu = table.view.column_menu()
    next(action for action in menu.actions() if action.data() == "macs").trigger()
    assert "macs" in table.view.shown_columns
    menu.deleteLater()


def test_every_layer_key_is_an_action_and_one_undo_step(studio: Any, table: LayerTable) -> None:
    class Holder:
        session = studio.session

    actions = Actions(
        tuple(spec for spec in ACTIONS if spec.menu.startswith("Edit") and spec.id != "copy_table"), Holder(), table
    )  # type: ignore[arg-type]
    actions.refresh()
    session = studio.session
    for bits in range(2, 9):
        click(studio, table, "block0.conv")
        click(studio, table, "block1.conv", modifier=Qt.KeyboardModifier.ControlModifier)
        studio.key(table.view, Qt.Key(ord(str(bits))))
        assert [session.settings(f"block{n}.conv").weight_bits for n in (0, 1)] == [bits, bits]
        studio.key(table.view, Qt.Key(ord(str(bits))), Qt.KeyboardModifier.AltModifier)
        assert session.settings("block0.conv").activation_bits == bits
    studio.key(table.view, Qt.Key.Key_F)
    assert session.settings("block1.conv").weight_bits == session.settings("block1.conv").activation_bits == FLOAT_BITS
    actions["undo"].refresh()
    assert actions["undo"].text() == "Undo float: 2 layers"
    studio.key(table.view, Qt.Key.Key_Delete)
    assert session.recipe.overrides == ()
    studio.key(table.view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert session.settings("block1.conv").weight_bits == FLOAT_BITS


@pytest.mark.benchmark
def test_a_thousand_layers_scroll_at_sixty_frames(make_studio: Callable[..., Any]) -> None:
    studio = make_studio(RecordedEngine(make_model(1000)))
    studio.open("")
    table = LayerTable(studio.session, studio.bridge)
    studio.show(table, 1200, 900)
    studio.settle()
    bar = table.view.verticalScrollBar()
    times = []
    for step in range(120):
        start = time.perf_counter()
        bar.setValue(3 * step)  # as one notch of a wheel
        table.view.viewport().repaint()
        QApplication.processEvents()
        times.append(time.perf_counter() - start)
    median_ms = 1000 * sorted(times)[60]
    print(f"1,000 layers, one scroll step with repaint: median {median_ms:.1f} ms, worst {1000 * max(times):.1f} ms")
    assert median_ms < 1000 / 60
