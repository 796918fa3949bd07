"""The refinements panel: switches, parameters, what excludes what."""

from __future__ import annotations

from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox

from qstudio.core.refinement import REFINEMENTS
from qstudio.core.registry import BrokenPlugin
from qstudio.ui.refinements.panel import RefinementsPanel
from qstudio.ui.refinements.row import is_switch
from qstudio.ui.theme import theme


@pytest.fixture
def panel(studio: Any) -> RefinementsPanel:
    studio.open()
    panel = RefinementsPanel(studio.session, studio.bridge)
    studio.show(panel, 560, 700)
    return panel


def click(studio: Any, box: QCheckBox) -> None:
    box.click()
    studio.settle()


def test_the_registry_makes_the_rows(studio: Any, panel: RefinementsPanel) -> None:
    assert list(panel.rows) == list(REFINEMENTS)
    for name, row in panel.rows.items():
        spec = REFINEMENTS[name]
        assert row.switch.text() == spec.title
        assert spec.summary in row.summary.text()
        for part in (spec.formula, spec.source):
            assert part in row.switch.toolTip()
        assert row.scope.text() == ("PTQ and training" if name == "fold" else "PTQ only")
        assert set(row.boxes) | set(row.checks) == {p.name for p in spec.parameters}
        for parameter in spec.parameters:
            widget = (row.checks if is_switch(parameter) else row.boxes)[parameter.name]
            assert parameter.help in widget.toolTip()
            assert not widget.isEnabled()
            assert "Switch the refinement on first" in widget.toolTip()
    assert panel.rows["fold"].switch.isChecked()


def test_a_switch_is_an_undoable_edit_of_the_recipe(studio: Any, panel: RefinementsPanel) -> None:
    session = studio.session
    before = session.recipe.sha256()
    click(studio, panel.rows["adaround"].switch)
    assert session.recipe.refinements == ("fold", "adaround")
    assert session.recipe.sha256() != before
    assert session.undo_label == "AdaRound on"
    assert not panel.rows["fold"].switch.isEnabled()
    assert "AdaRound work on folded weights" in panel.rows["fold"].switch.toolTip()
    click(studio, panel.rows["brecq"].switch)
    assert session.recipe.refinements == ("fold", "brecq"), "two cannot choose the rounding"
    assert not panel.rows["adaround"].switch.isChecked()
    assert session.undo_label == "Block reconstruction instead of AdaRound"
    session.undo()
    assert panel.rows["adaround"].switch.isChecked()
    assert not panel.rows["brecq"].switch.isChecked()
    session.undo()
    assert session.recipe.sha256() == before
    assert panel.rows["fold"].switch.isEnabled()


def test_parameters_are_one_step_each_and_shown_beside_the_title(studio: Any, panel: RefinementsPanel) -> None:
    session = studio.session
    row = panel.rows["brecq"]
    click(studio, row.switch)
    row.details.click()
    box = row.boxes["iterations"]
    assert box.isVisible()
    box.setFocus()
    for value in (1100, 1200, 2000):
        box.setValue(value)
    assert session.recipe.refinements[-1] == "brecq:iterations=2000"
    row.boxes["batch"].setFocus()
    click(studio, row.checks["drop"])
    assert session.recipe.refinements[-1] == "brecq:iterations=2000:drop=0"
    assert row.changed.text() == "Iterations 2,000, QDrop off"
    session.undo()
    session.undo()
    assert session.recipe.refinements[-1] == "brecq", "what was stepped through is one step"
    default = next(p.default for p in REFINEMENTS["brecq"].parameters if p.name == "iterations")
    assert (box.value(), row.changed.text()) == (default, "")
    box.selectAll()
    studio.qtbot.keyClicks(box, "321")
    studio.qtbot.keyClick(box, Qt.Key.Key_Return)
    assert session.recipe.refinements[-1] == "brecq:iterations=321"


def test_a_broken_plugin_is_shown_with_its_reason(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    len(REFINEMENTS)
    monkeypatch.setattr(REFINEMENTS, "_broken", [BrokenPlugin("magic", "a-package", "it cannot be imported")])
    panel = RefinementsPanel(studio.session, studio.bridge)
    studio.show(panel, 560, 700)
    [box] = [box for box in panel.findChildren(QCheckBox) if "magic" in box.text()]
    assert not box.isEnabled()
    assert "it cannot be imported" in box.toolTip()


def test_an_empty_check_box_is_seen_on_a_dark_ground(studio: Any, panel: RefinementsPanel) -> None:
    for mode, seen in (("dark", True), ("light", False)):
        theme().set_mode("dark" if mode == "dark" else "light")
        window = panel.rows["cle"].switch.palette().window().color()
        # The style draws the edge darker than this by 1.4.
        assert (window.darker(140).lightness() > theme().palette.color("line").lightness()) == seen
