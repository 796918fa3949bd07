"""The choice of storage in the run bar, and the figures of both in a run's words."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt
from ui_fakes import make_result

from qstudio.core.recipe import Recipe, Rule, make_values
from qstudio.core.storage import PACKED, STORAGES, StorageChoice, StorageFigures
from qstudio.ui.run_bar import RunBar
from qstudio.ui.runs.run_detail import RunDetail
from qstudio.ui.storage_box import has_choice


def test_the_choice_goes_both_ways_and_says_what_it_means(studio: Any) -> None:
    studio.open()
    bar = RunBar(studio.session, studio.bridge)
    studio.show(bar)
    assert not bar.storage.isVisible(), "with 8 bits both files are the same"
    studio.session.set_layers("4 bits", ("conv1",), weight_bits=4)
    assert bar.storage.isVisible()
    box = bar.storage.box
    assert [box.itemData(row) for row in range(box.count())] == list(STORAGES)
    assert all(meaning in box.toolTip() for meaning in STORAGES.values())
    box.setFocus()
    studio.qtbot.keyClick(box, Qt.Key.Key_Down)
    assert studio.session.options.storage == PACKED
    studio.session.set_options(storage="int8")
    assert box.currentData() == "int8"
    studio.session.set_options(storage=PACKED)
    studio.session.run_ptq()
    assert studio.engine.runs[-1].request.storage == PACKED


def test_there_is_a_choice_where_codes_fit_into_4_bits() -> None:
    assert not has_choice(Recipe())
    assert not has_choice(Recipe().with_default(weight_bits=5))
    assert not has_choice(Recipe().with_default(weight_bits="float", activation_bits=2))
    assert has_choice(Recipe().with_default(weight_format="nf4"))
    assert has_choice(Recipe(rules=(Rule("fc*", make_values(weight_bits=2)),)))


def test_the_run_shows_what_both_cost(studio: Any) -> None:
    studio.open()
    detail = RunDetail(studio.session, studio.bridge)
    studio.show(detail)
    studio.session.run_ptq()
    both = StorageChoice(StorageFigures(317_260, 0.71), StorageFigures(185_085, 0.72), "int8")
    result = make_result(studio.session.recipe, studio.session.model, storage=both)
    studio.engine.finish(studio.engine.runs[-1], result)
    studio.session.select_run(studio.session.runs[-1].id)
    studio.settle()
    words = detail.words.text()
    assert "0.71 ms (this file)" in words
    assert "0.72 ms" in words
