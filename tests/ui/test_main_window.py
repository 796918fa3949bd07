"""The main window with recorded answers: actions, welcome, perspectives, notices, what is remembered."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QSpinBox,
    QWidget,
)
from ui_fakes import make_result

from qstudio.app import FaultReporter
from qstudio.core.resources import SampleModel
from qstudio.engine.messages import JobState, OpenDataset, OpenModel
from qstudio.session.options import Notice
from qstudio.ui import welcome as welcome_module
from qstudio.ui.action_table import ACTIONS
from qstudio.ui.main_window import MainWindow
from qstudio.ui.settings import add_recent_file, recent_files
from qstudio.ui.sheets import Sheet
from qstudio.ui.theme import DARK, LIGHT, theme


@pytest.fixture
def make_window(make_studio: Callable[..., Any]) -> Callable[..., tuple[Any, MainWindow]]:
    def make(open_model: bool = True) -> tuple[Any, MainWindow]:
        studio = make_studio()
        window = MainWindow(studio.session, studio.bridge)
        window.load_settings()
        if not open_model:
            window.show_welcome()
        studio.show(window, 1280, 720)
        window.build_all()
        if open_model:
            studio.open()
        studio.settle()
        return studio, window

    return make


@pytest.fixture
def opened(make_window: Callable[..., tuple[Any, MainWindow]]) -> tuple[Any, MainWindow]:
    return make_window()


def finish_run(studio: Any, **changes: Any) -> None:
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model, **changes))
    studio.settle()


# ---- actions


def test_no_two_actions_share_a_key_or_an_id() -> None:
    keys = [key for spec in ACTIONS for key in spec.shortcuts]
    assert len(keys) == len(set(keys))
    assert len({spec.id for spec in ACTIONS}) == len(ACTIONS)


def test_every_action_stands_in_a_menu_and_a_disabled_one_says_why(
    make_window: Callable[..., tuple[Any, MainWindow]],
) -> None:
    _studio, window = make_window(open_model=False)
    actions = window.actions_table
    assert all(action.spec.menu for action in actions.all())
    for action in actions.all():
        reason = action.spec.blocked(window.commands)
        assert action.isEnabled() == (not reason)
        assert reason in action.toolTip()
    assert "Open a model first" in actions["run_ptq"].toolTip()
    assert "Open a model first" in window.run_button.toolTip()


def test_every_control_has_a_tooltip_and_a_name(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    window.show_perspective("tune")
    studio.settle()
    bare = []
    own = [
        window.workspace.layer_table,
        window.workspace.data_panel,
        window.workspace.detail,
        window.run_bar,
        window.top_bar,
    ]
    for root in own:
        assert root is not None
        for kind in (QAbstractButton, QComboBox, QLineEdit, QSpinBox):
            for widget in root.findChildren(kind):
                if widget.objectName().startswith("qt_") or isinstance(widget.parent(), QComboBox | QSpinBox):
                    continue
                if type(widget).__name__ in ("QTableCornerButton", "CloseButton") or not widget.isVisibleTo(root):
                    continue
                name = widget.accessibleName() or (widget.text() if isinstance(widget, QAbstractButton) else "")
                if (not widget.toolTip() or not name) and not inside(widget, "QTabBar"):
                    bare.append((type(widget).__name__, name, widget.toolTip()))
    assert not bare


def inside(widget: QWidget, kind: str) -> bool:
    parent = widget.parentWidget()
    while parent is not None:
        if type(parent).__name__ == kind:
            return True
        parent = parent.parentWidget()
    return False


def test_undo_names_the_edit(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    studio.session.select(["fc"])
    studio.key(window.layer_table.view, Qt.Key.Key_4)
    studio.settle()
    assert window.actions_table["undo"].text() == "Undo weight bits 4: fc"
    studio.qtbot.mouseClick(window.undo_button, Qt.MouseButton.LeftButton)
    studio.settle()
    assert studio.session.settings("fc").weight_bits == 8
    assert window.actions_table["redo"].text() == "Redo weight bits 4: fc"
    studio.key(
        window.layer_table.view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    )
    assert studio.session.settings("fc").weight_bits == 4


def test_the_palette_finds_commands_and_layers(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    studio.key(
        window.layer_table.view, Qt.Key.Key_P, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    )
    palette = window.palette_popup
    assert palette is not None
    assert palette.isVisible()
    studio.qtbot.keyClicks(palette.line, "block3")
    studio.qtbot.keyClick(palette.line, Qt.Key.Key_Return)
    assert studio.session.selection == ("block3.conv",)
    palette.open()
    studio.qtbot.keyClicks(palette.line, "theme dark")
    studio.qtbot.keyClick(palette.line, Qt.Key.Key_Return)
    assert theme().palette is DARK
    palette.open()
    studio.qtbot.keyClicks(palette.line, "cancel")
    assert "Nothing is running" in palette.list.item(0).text()
    palette.hide()


def test_the_cheat_sheet_lists_every_key(opened: tuple[Any, MainWindow]) -> None:
    _studio, window = opened
    window.actions_table["cheat_sheet"].trigger()
    sheet = window.findChild(Sheet)
    assert sheet is not None
    assert not sheet.isModal()
    shown = {label.text() for label in sheet.findChildren(QLabel)}
    for action in window.actions_table.all():
        if action.shortcuts():
            assert any(
                action.shortcuts()[0].toString(action.shortcuts()[0].SequenceFormat.NativeText) in text
                for text in shown
            )
    sheet.close()
    window.actions_table["about"].trigger()
    about = next(sheet for sheet in window.findChildren(Sheet) if sheet.windowTitle() == "About QStudio")
    assert any("onnxruntime" in label.text() for label in about.findChildren(QLabel))
    about.close()


# ---- opening


def test_a_sample_opens_with_its_data_and_run_ptq_is_ready(
    make_window: Callable[..., tuple[Any, MainWindow]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sample = tmp_path / "sample.onnx"
    sample.write_bytes(b"x" * 2048)
    monkeypatch.setattr(
        welcome_module, "sample_models", lambda: (SampleModel(sample, "Digits CNN", "A plain CNN.", "digits", 97.5),)
    )
    studio, window = make_window(open_model=False)
    assert window.welcome is not None
    assert not window.strip.isVisible()
    [card] = window.welcome.cards
    studio.qtbot.mouseClick(card, Qt.MouseButton.LeftButton)
    studio.settle()
    asked = [type(request) for request in studio.engine.asked]
    assert asked.index(OpenModel) < asked.index(OpenDataset)
    assert window.pages.currentWidget() is window.workspace
    assert window.run_button.isEnabled()
    assert window.run_bar.isVisible()
    assert recent_files() == (str(sample),)
    studio.qtbot.mouseClick(window.run_button, Qt.MouseButton.LeftButton)
    assert studio.session.running is not None
    assert window.perspective == "tune"


def test_recent_files_that_are_gone_are_grey(
    make_window: Callable[..., tuple[Any, MainWindow]], tmp_path: Path
) -> None:
    there = tmp_path / "there.onnx"
    there.touch()
    add_recent_file(str(tmp_path / "gone.onnx"))
    add_recent_file(str(there))
    studio, window = make_window(open_model=False)
    assert window.welcome is not None
    buttons = {
        button.property("path"): button
        for button in window.welcome.findChildren(QAbstractButton)
        if button.property("path")
    }
    assert buttons[str(there)].isEnabled()
    assert not buttons[str(tmp_path / "gone.onnx")].isEnabled()
    assert "no longer there" in buttons[str(tmp_path / "gone.onnx")].toolTip()
    studio.qtbot.mouseClick(buttons[str(there)], Qt.MouseButton.LeftButton)
    assert studio.engine.asked[-1] == OpenModel(str(there)) or OpenModel(str(there)) in studio.engine.asked


def drop(window: MainWindow, *paths: Path) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    window.dropEvent(
        QDropEvent(
            QPointF(50, 50), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        )
    )


def test_models_data_and_recipes_can_be_dropped(opened: tuple[Any, MainWindow], tmp_path: Path) -> None:
    studio, window = opened
    drop(window, tmp_path / "data.npz", tmp_path / "net.onnx")
    studio.settle()
    assert OpenModel(str(tmp_path / "net.onnx")) in studio.engine.asked
    assert studio.session.data_spec.source == str(tmp_path / "data.npz")
    recipe = studio.session.recipe.with_layers(("fc",), weight_bits=3)
    (tmp_path / "r.json").write_text(json.dumps(recipe.to_json()))
    drop(window, tmp_path / "r.json")
    assert studio.session.settings("fc").weight_bits == 3
    assert studio.session.undo_label == "Load recipe"


def test_a_model_that_cannot_be_read_is_a_notice_with_details_and_nothing_is_lost(
    opened: tuple[Any, MainWindow],
) -> None:
    studio, window = opened
    studio.session.set_layers("w4", ("fc",), weight_bits=4)
    window.commands.open_model("/models/broken.onnx")
    studio.settle()
    [card] = window.notices.cards
    assert "truncated" in card.notice.text
    assert card.notice.level == "error"
    assert studio.session.settings("fc").weight_bits == 4
    assert QApplication.activeModalWidget() is None
    studio.qtbot.mouseClick(card.details, Qt.MouseButton.LeftButton)
    assert card._more.isVisible()
    assert "Traceback" in card._more.toPlainText()
    studio.qtbot.mouseClick(card.close_button, Qt.MouseButton.LeftButton)
    assert not window.notices.isVisible()


# ---- running, exporting


def test_export_copies_the_selected_run_or_runs_first(opened: tuple[Any, MainWindow], tmp_path: Path) -> None:
    studio, window = opened
    target = tmp_path / "first.onnx"
    window.commands.export_to(str(target))
    assert studio.engine.runs[-1].request.export_path == str(target)
    assert not window.actions_table["export_model"].isEnabled() or studio.session.running is not None
    target.write_bytes(b"exported")
    finish_run(studio, export_path=str(target))
    assert any("exported to" in card.notice.text for card in window.notices.cards)
    second = tmp_path / "second.onnx"
    window.commands.export_to(str(second))
    assert second.read_bytes() == b"exported"
    assert len(studio.engine.runs) == 1, "a finished run is copied, not run again"
    window.commands.export_to(str(tmp_path / "no" / "where.onnx"))
    assert any("was not exported" in card.notice.text for card in window.notices.cards)


def test_the_export_dialog_does_not_block(opened: tuple[Any, MainWindow], tmp_path: Path) -> None:
    _studio, window = opened
    window.actions_table["save_recipe"].trigger()
    dialog = window.findChild(QFileDialog)
    assert dialog is not None
    path = tmp_path / "r.json"
    dialog.fileSelected.emit(str(path))
    dialog.close()
    assert json.loads(path.read_text())["qstudio_recipe"] == 1
    assert any("saved to" in card.notice.text for card in window.notices.cards)


def test_escape_cancels_the_run(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    studio.key(window.layer_table.view, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
    studio.settle()
    studio.engine.set_state(studio.engine.runs[-1], JobState.RUNNING)
    studio.settle()
    assert not window.run_button.isEnabled()
    assert "A run is in progress" in window.run_button.toolTip()
    studio.key(window.layer_table.view, Qt.Key.Key_Escape)
    assert studio.session.runs[-1].state is JobState.CANCELLING
    studio.engine.finish(studio.engine.runs[-1], None, JobState.CANCELLED)
    studio.settle()
    assert window.run_button.isEnabled()


def test_copy_as_python_gives_a_script_of_the_run(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    studio.session.set_layers("w4", ("fc",), weight_bits=4)
    window.actions_table["copy_python"].trigger()
    script = QApplication.clipboard().text()
    compile(script, "script", "exec")
    assert "fake.onnx" in script
    assert "weight_bits" in script


def test_escape_cancels_background_work_where_nothing_runs(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    job = studio.session.measure_float()
    studio.engine._queue.remove(job)
    studio.engine.set_state(job, JobState.RUNNING)
    window.actions_table.refresh()
    studio.key(window.layer_table.view, Qt.Key.Key_Escape)
    assert job.state is JobState.CANCELLING
    studio.engine.finish(job, None, JobState.CANCELLED)


# ---- looks and memory


def test_copy_takes_the_focused_table(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    studio.session.select(["fc"])
    studio.key(window.layer_table.view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QApplication.clipboard().text().splitlines()[1].startswith("fc\t")


def test_theme_zoom_perspective_and_columns_are_remembered(make_window: Callable[..., tuple[Any, MainWindow]]) -> None:
    _first, window = make_window()
    window.actions_table["theme_dark"].trigger()
    assert theme().palette is DARK
    window.actions_table["zoom_in"].trigger()
    assert theme().zoom == pytest.approx(1.1)
    window.layer_table.view.choose_columns(("macs",))
    window.actions_table["tune"].trigger()
    window.close()
    window.actions_table["zoom_reset"].trigger()
    window.actions_table["theme_light"].trigger()
    assert theme().palette is LIGHT
    _studio, again = make_window()
    assert again.perspective == "tune"
    assert again.layer_table.view.shown_columns == ("layer", "macs")
    again.actions_table["reset_layout"].trigger()
    assert len(again.layer_table.view.shown_columns) > 2


def test_the_perspectives_show_the_same_table(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    table = window.layer_table
    assert table.isVisible()
    assert window.workspace.inspector.isVisible()
    studio.qtbot.mouseClick(window.top_bar.perspectives["tune"], Qt.MouseButton.LeftButton)
    assert table.isVisible()
    assert window.workspace.chart.isVisible()
    assert window.workspace.runs_table.isVisible()
    assert not window.workspace.inspector.isVisible()
    studio.qtbot.mouseClick(window.top_bar.perspectives["explore"], Qt.MouseButton.LeftButton)
    assert window.workspace.inspector.isVisible()
    assert not window.workspace.runs_table.isVisible()
    window.show_panel("data_panel")
    assert not table.isVisible()
    studio.qtbot.mouseClick(window.top_bar.perspectives["tune"], Qt.MouseButton.LeftButton)
    assert table.isVisible()
    assert window.workspace.chart.isVisible()


def test_a_fault_in_a_slot_is_told_with_its_traceback(
    opened: tuple[Any, MainWindow], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    studio, window = opened
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    reporter = FaultReporter(studio.session)
    try:
        raise ValueError("a slot went wrong")
    except ValueError as error:
        reporter._on_exception(type(error), error, error.__traceback__)
    card = window.notices.cards[0]
    assert "a slot went wrong" in card.notice.text
    assert "Traceback" in card.notice.details
    assert "a slot went wrong" in window.workspace.log.toPlainText()
    assert "a slot went wrong" in capsys.readouterr().err


def test_notices_do_not_pile_up(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    for number in range(5):
        studio.session.notice_posted.emit(Notice("warning", f"number {number}"))
    studio.session.notice_posted.emit(Notice("warning", "number 4"))
    assert [card.notice.text for card in window.notices.cards] == ["number 4", "number 3", "number 2"]


def test_a_notice_lies_over_the_panels_and_moves_none_of_them(opened: tuple[Any, MainWindow]) -> None:
    studio, window = opened
    before = window.layer_table.mapTo(window, QPoint()), window.layer_table.size()
    studio.session.notice_posted.emit(Notice("warning", "a long sentence " * 30))
    studio.settle()
    bar = window.notices
    assert (window.layer_table.mapTo(window, QPoint()), window.layer_table.size()) == before
    assert window.pages.rect().contains(bar.geometry())
    assert bar.cards[0].height() >= bar.cards[0].heightForWidth(bar.width()) > 0, "the whole sentence is seen"
    studio.session.notice_posted.emit(Notice("info", "a short one"))
    studio.settle()
    assert all(card.height() >= card.heightForWidth(bar.width()) for card in bar.cards), "none is squeezed"
    window.show_welcome()
    studio.settle()
    assert window.childAt(bar.cards[0].close_button.mapTo(window, QPoint(4, 4))) is bar.cards[0].close_button
    window.resize(window.width() - 200, window.height() - 100)
    studio.settle()
    assert window.pages.rect().contains(bar.geometry())
