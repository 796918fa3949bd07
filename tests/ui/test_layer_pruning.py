"""Pruning in the layer table: chosen with a click, explained, undone; what a run measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox
from ui_fakes import make_result

from qstudio.core.pruning import check_pruning
from qstudio.core.results import SizeBytes
from qstudio.ui.accuracy_strip import AccuracyStrip
from qstudio.ui.runs.run_columns import COLUMNS as RUN_COLUMNS
from qstudio.ui.table.choices import PRUNINGS, choices, explained, value_text
from qstudio.ui.table.columns import COLUMN_IDS
from qstudio.ui.table.layer_table import LayerTable

PRUNING, SPARSITY = COLUMN_IDS.index("pruning"), COLUMN_IDS.index("sparsity")


def shown(studio: Any) -> LayerTable:
    studio.open()
    table = LayerTable(studio.session, studio.bridge)
    studio.show(table)
    studio.settle()
    table.view.choose_columns(("pruning", "sparsity"))
    return table


def test_every_offered_pruning_is_one_and_says_what_it_does() -> None:
    assert [choice.value for choice in choices("pruning")] == list(PRUNINGS)
    assert all(check_pruning(value) == value for value in PRUNINGS)
    assert len(PRUNINGS) == len(set(PRUNINGS))
    assert value_text("pruning", "taylor_filter:50:global") == "Taylor filters 50 %, all layers"
    assert value_text("pruning", "none") == "none"
    told = explained("pruning", "l1_filter:30")
    assert "sum |w|" in told
    assert "Li et al." in told
    assert explained("pruning", "none") == explained("weight_bits", 8) == ""


def test_a_pruning_is_chosen_for_all_selected_layers_and_undone(studio: Any) -> None:
    table = shown(studio)
    studio.session.select(["block0.conv", "block1.conv"])
    index = table.model.index(table.model.row_of("block0.conv"), PRUNING)
    editor = table.view.itemDelegate().createEditor(table.view.viewport(), None, index)
    assert isinstance(editor, QComboBox)
    place = editor.findData("l1_filter:30")
    assert "Li et al." in editor.itemData(place, Qt.ItemDataRole.ToolTipRole)
    assert table.model.setData(index, editor.itemData(place))
    names = ("block0.conv", "block1.conv", "block2.conv")
    assert [studio.session.settings(n).pruning for n in names] == ["l1_filter:30", "l1_filter:30", "none"]
    assert index.data() == "L1 filters 30 %"
    assert "Set here" in index.data(Qt.ItemDataRole.ToolTipRole)
    studio.session.undo()
    assert index.data() == "none"


def test_the_sparsity_of_the_selected_run_is_shown(studio: Any) -> None:
    table = shown(studio)
    index = table.model.index(table.model.row_of("block0.conv"), SPARSITY)
    assert index.data() == "–"
    assert "Run PTQ" in index.data(Qt.ItemDataRole.ToolTipRole)
    whole = next(column for column in RUN_COLUMNS if column.id == "sparsity")
    for sparsity, text in ((None, "–"), (43.75, "43.8")):
        studio.session.run_ptq()
        result = make_result(studio.session.recipe, studio.session.model)
        layers = tuple(replace(layer, sparsity=sparsity) for layer in result.layers)
        studio.engine.finish(studio.engine.runs[-1], replace(result, layers=layers, sparsity=sparsity))
        assert whole.text(studio.session.runs[-1]) == ("–" if sparsity is None else "43.75")
        assert index.data() == text
    assert "Nothing is pruned" not in index.data(Qt.ItemDataRole.ToolTipRole)


def test_the_strip_says_that_a_size_is_before_pruning_until_a_run_counted_it(studio: Any) -> None:
    studio.open()
    strip = AccuracyStrip(studio.session, studio.bridge)
    studio.show(strip, 1280, 48)
    plain = strip.size_figure.text
    assert "pruning" not in plain
    studio.session.set_layers("zeros", ("block0.conv",), pruning="magnitude:50")
    assert strip.size_figure.text == plain, "zeros are stored like other weights"
    studio.session.set_layers("filters", ("block0.conv",), pruning="l1_filter:50")
    assert strip.size_figure.text == f"{plain} before pruning"
    studio.session.run_ptq()
    result = make_result(studio.session.recipe, studio.session.model)
    studio.engine.finish(studio.engine.runs[-1], replace(result, size_bytes=SizeBytes(52_840, 5_120)))
    assert "→ 5.00 KB (" in strip.size_figure.text
    assert "before" not in strip.size_figure.text
    assert "Measured in" in strip.size_figure.toolTip()
