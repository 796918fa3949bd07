"""Mixed precision in the window: the search tab, the budget slider, the front in the chart, bits as bars."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
from plot_fakes import Mouse
from precision_fakes import LongEngine, make_search
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QLineEdit, QSlider
from ui_fakes import make_result

from qstudio.core.bit_operations import average_bits
from qstudio.engine.messages import Failure, JobState, SearchBits
from qstudio.ui.plots.bars import LEVELS, level
from qstudio.ui.runs.run_chart import RunChart
from qstudio.ui.runs.run_points import difference_words
from qstudio.ui.search.bits_panel import BitsPanel
from qstudio.ui.search.budget import STEPS
from qstudio.ui.search.panel import SearchPanel
from qstudio.ui.sensitivity.panel import SensitivityPanel


@pytest.fixture
def studio(make_studio):
    made = make_studio(LongEngine())
    made.open()
    return made


@pytest.fixture
def panel(studio):
    made = SearchPanel(studio.session, studio.bridge)
    studio.show(made, 690, 640)
    return made


@pytest.fixture
def chart(studio):
    made = RunChart(studio.session, studio.bridge)
    studio.show(made, 640, 480)
    return made


def search(studio: Any, **changes: Any) -> Any:
    studio.session.search.start()
    result = make_search(studio.engine.model, studio.session.recipe, **changes)
    studio.engine.finish(studio.engine.long[-1], result)
    studio.settle()
    return result


def settled(studio, panel):
    studio.settle()
    studio.qtbot.waitUntil(lambda: not panel._timer.isActive())


# ---- the tab


def test_limits_and_candidates_go_to_the_engine(studio, panel):
    panel.form.limits["average_bits"].setValue(0)
    settled(studio, panel)
    assert not panel.start.isEnabled()
    assert "Set a limit first" in panel.start.toolTip()
    panel.form.limits["size_bytes"].setValue(12.5)
    panel.form.limits["bops"].setValue(30)
    panel.form.limits["drop"].setValue(0.5)
    panel.form.weights.button(6).click()
    panel.form.activations.button(8).click()
    panel.form.activations.button(4).click()
    panel.form.keep_ends.click()
    panel.form.couple.setCurrentIndex(panel.form.couple.findData("both"))
    panel.form.couple.activated.emit(0)
    settled(studio, panel)
    panel.start.click()
    request = studio.engine.long[-1].request
    assert isinstance(request, SearchBits)
    settings = request.search
    assert dict(settings.limits) == {"size_bytes": 12.5 * 1024, "bops": 30e6}
    assert (settings.max_drop, settings.couple) == (0.5, "both")
    assert settings.weight_bits == (8, 4, 3, 2)
    assert settings.activation_bits == (8, 4)
    assert "fc" in settings.keep_weights


def test_what_is_being_typed_stays_while_other_work_goes_on(studio, panel):
    box = panel.form.limits["average_bits"]
    box.setFocus()
    box.selectAll()
    studio.qtbot.keyClicks(box, "3.2")
    panel._refresh()
    assert box.text() == "3.2"
    studio.qtbot.keyClick(box, Qt.Key.Key_Return)
    assert dict(studio.session.search.settings.limits) == {"average_bits": 3.2}


def test_it_shows_how_far_it_is_and_what_came_of_it(studio, panel):
    panel.start.click()
    job = studio.engine.long[-1]
    studio.engine.progress(job, 0.5, 1.0, "Solving", 9.0)
    settled(studio, panel)
    assert panel.status.text() == "Solving: 50 %, 0:09 left"
    whole = make_search(studio.engine.model, studio.session.recipe)
    job.on_partial(replace(whole, chosen=None))
    settled(studio, panel)
    assert "8 points of the front, 8 of them measured" in panel.result.text()
    result = make_result(whole.chosen.recipe, studio.session.model)
    studio.engine.finish(job, replace(whole, run=result))
    settled(studio, panel)
    words = panel.result.text()
    assert "Chosen: the searched recipe of" in words
    assert "rank correlation 0.97" in words
    assert "Exported and verified as Run 1" in words
    assert "Candidates are compared on 256 calibration samples" in words
    assert [run.title for run in studio.session.runs] == ["Run 1"]
    panel.take.click()
    assert studio.session.recipe == whole.chosen.recipe
    settled(studio, panel)
    assert not panel.take.isEnabled()
    assert studio.session.search.stale == ""


def test_cancel_keeps_what_is_known_and_a_budget_that_cannot_be_kept_is_said(studio, panel):
    panel.start.click()
    job = studio.engine.long[-1]
    job.on_partial(make_search(studio.engine.model, studio.session.recipe, chosen=None))
    settled(studio, panel)
    panel.stop.click()
    settled(studio, panel)
    assert panel.status.text() == "Stopping…"
    studio.engine.finish(job, None, JobState.CANCELLED)
    settled(studio, panel)
    assert panel.status.text() == "Stopped; Search goes on from here"
    panel.start.click()
    failure = Failure("the least that is possible is 2", "average_bits", "Raise the limit", user_fault=True)
    studio.engine.finish(studio.engine.long[-1], None, JobState.FAILED, failure)
    settled(studio, panel)
    assert (
        studio.notices[-1].text == "The search stopped. average_bits: the least that is possible is 2. Raise the limit."
    )
    assert "8 points of the front" in panel.result.text(), "what was known stays"


def test_what_does_not_exist_is_refused_in_the_form(studio, panel):
    panel.form.kept.setText("nothing*")
    panel.form.kept.editingFinished.emit()
    panel.start.click()
    assert "no layer of the model matches 'nothing*'" in studio.notices[-1].text
    for bits in (8, 6, 4, 3, 2):
        panel.form.weights.button(bits).click()
    assert panel.form.message.isVisible()
    assert panel.form.weights.widths == (2,), "the last one stays"


# ---- slider and chart


def test_the_slider_takes_recipes_as_one_step(studio, chart):
    slider = chart.budget.slider
    assert not slider.isEnabled()
    result = search(studio)
    assert slider.isEnabled()
    before = studio.session.recipe
    slider.setSliderDown(True)
    for position in range(0, STEPS + 1, 100):
        slider.setValue(position)
    assert studio.session.recipe == result.front[-1].recipe
    assert chart.budget.value.text() == "8.00 bits a weight"
    assert "rank correlation 0.97" in chart.budget.words.text()
    slider.setSliderDown(False)
    studio.session.undo()
    assert studio.session.recipe == before
    studio.session.search.take(result.front[3])
    assert slider.value() == pytest.approx(STEPS * (result.front[3].budget - 2) / 6, abs=1), "it follows the recipe"


def test_the_front_stands_in_the_chart_and_its_points_are_recipes(studio, chart):
    assert chart.axis == "size"
    result = search(studio)
    settled(studio, chart)
    assert chart.axis == "bits", "along the search's own axis"
    points = chart.chart.points
    assert sum(point.uniform for point in points) == 2, "uniform 8 is the front's last point too"
    assert {point.kind for point in points} == {"float", "simulated"}
    assert chart.chart._front.getData()[0].size >= 8
    spot = next(p for p in points if p.point == result.front[2].recipe.sha256())
    mouse = Mouse(chart.chart)

    def at(point: Any) -> Any:
        return chart.chart.getViewBox().mapViewToScene(QPointF(point.x, point.y))

    mouse.click(at(spot))
    assert chart.chart.chosen == (("point", spot.point),)
    assert "damage (kl) predicted" in chart.words.text()
    mouse.double_click(at(spot))
    assert studio.session.recipe == result.front[2].recipe
    assert studio.session.undo_label.startswith("Take the searched recipe")
    settled(studio, chart)
    for name in ("bops", "size", "latency"):
        chart.buttons[name].click()
        assert bool([p for p in chart.chart.points if p.point]) == (name != "latency"), "latency was not looked up"


def test_two_points_show_what_differs(studio, chart):
    result = search(studio)
    settled(studio, chart)
    first, second = result.front[0], result.front[-1]
    chart.chart.set_chosen((("point", first.recipe.sha256()), ("point", second.recipe.sha256())))
    chart.chart.second_selected.emit(("point", second.recipe.sha256()))
    assert "the searched recipe of 2.00 bits → the searched recipe of 8.00 bits" in chart.words.text()
    assert "block0.conv W2→8" in chart.words.toolTip()
    same = difference_words(first.bits, first.bits, ("a", "b"))
    assert same == ("a → b: the same bits in every layer", "")


def test_float_far_beyond_is_pinned_to_the_edge_and_says_where_it_is(studio, chart):
    search(studio)
    settled(studio, chart)
    star = next(p for p in chart.chart.points if p.kind == "float")
    drawn = float(chart.chart._items["float"].getData()[0][0])
    assert star.x == 32.0
    assert drawn < 10
    assert any("beyond the right edge at 32" in words for _, _, words in chart.chart._legend)
    assert "32.0" in chart.chart.csv_text()


# ---- bits


@pytest.fixture
def bits(studio):
    made = BitsPanel(studio.session, studio.bridge)
    studio.show(made, 690, 480)
    return made


def spot(bits, number: int, width: int, activation: bool = False) -> QPoint:
    figure = bits.bars
    lane = figure._lanes(figure.viewport().height())[1 if activation else 0]
    x = figure._axis_px + number * figure._bar_px + figure._bar_px // 2
    y = lane.bottom() + 1 - round((LEVELS.index(width) + 0.5) * lane.height() / len(LEVELS))
    return QPoint(x, y)


def test_a_drag_paints_bits_over_layers_as_one_step(studio, bits):
    before = studio.session.recipe
    view = bits.bars.viewport()
    assert "average 8.00 bits" in bits.totals.text()
    studio.qtbot.mousePress(view, Qt.MouseButton.LeftButton, pos=spot(bits, 1, 4))
    for number in (2, 3, 4):
        drag(view, spot(bits, number, 4))
    studio.qtbot.mouseRelease(view, Qt.MouseButton.LeftButton, pos=spot(bits, 4, 4))
    names = [bar.name for bar in bits.bars.bars]
    assert [studio.session.settings(name).weight_bits for name in names[1:6]] == [4, 4, 4, 4, 8]
    assert studio.session.undo_label == "Paint weight bits"
    settled(studio, bits)
    mean = average_bits(studio.session.model, studio.session.settings)
    assert f"average {mean:.2f} bits" in bits.totals.text()
    studio.session.undo()
    assert studio.session.recipe == before
    studio.qtbot.mousePress(view, Qt.MouseButton.LeftButton, pos=spot(bits, 2, 16, activation=True))
    studio.qtbot.mouseRelease(view, Qt.MouseButton.LeftButton, pos=spot(bits, 2, 16, activation=True))
    assert studio.session.settings(names[2]).activation_bits == 16
    assert studio.session.selection == (names[2],)


def drag(view: Any, place: QPoint) -> None:
    left = Qt.MouseButton.LeftButton
    where = QPointF(place)
    event = QMouseEvent(QEvent.Type.MouseMove, where, where, left, left, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(view, event)


def test_layers_without_a_side_are_left_alone_and_keys_move(studio, bits):
    studio.qtbot.mousePress(bits.bars.viewport(), Qt.MouseButton.LeftButton, pos=spot(bits, 0, 4))
    studio.qtbot.mouseRelease(bits.bars.viewport(), Qt.MouseButton.LeftButton, pos=spot(bits, 0, 4))
    assert studio.session.undo_label is None, "the input has no weight"
    studio.key(bits.bars, Qt.Key.Key_Right)
    assert studio.session.selection == ("block0.conv",)
    rows = list(csv.reader(io.StringIO(bits.bars.csv_text())))
    assert rows[:2] == [["layer", "weight bits", "activation bits"], ["x", "", "8"]]


def test_levels_rise_with_the_bits():
    assert [level(bits) for bits in (1, 8, 10, 16, 32)] == [1, 8, 9, 9, 10]


@pytest.mark.parametrize("made", [SearchPanel, SensitivityPanel, RunChart])
def test_every_control_says_what_it_is(studio, made):
    root = made(studio.session, studio.bridge)
    studio.show(root, 690, 640)
    search(studio)
    studio.settle()
    bare = []
    for kind in (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox, QSlider):
        for widget in root.findChildren(kind):
            if widget.objectName().startswith("qt_") or isinstance(widget.parent(), QComboBox | QAbstractSpinBox):
                continue
            name = widget.accessibleName() or (widget.text() if isinstance(widget, QAbstractButton) else "")
            if widget.isVisibleTo(root) and not (name and widget.toolTip()):
                bare.append((type(widget).__name__, name, widget.toolTip()))
    assert not bare


def test_ctrl_and_a_click_choose_a_second_point(studio, chart):
    result = search(studio)
    settled(studio, chart)
    hashes = [result.front[n].recipe.sha256() for n in (0, 3)]

    def spot_of(recipe_hash: str) -> QPoint:
        point = next(p for p in chart.chart.points if p.point == recipe_hash)
        scene = chart.chart.getViewBox().mapViewToScene(QPointF(point.x, point.y))
        return chart.chart.mapFromScene(scene)

    view = chart.chart.viewport()
    for recipe_hash, modifier in zip(
        hashes, (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ControlModifier), strict=True
    ):
        studio.qtbot.mouseMove(view, spot_of(recipe_hash))
        studio.qtbot.mouseClick(view, Qt.MouseButton.LeftButton, modifier, spot_of(recipe_hash))
    assert chart.chart.chosen == tuple(("point", recipe_hash) for recipe_hash in hashes)
    assert "→" in chart.words.text()
