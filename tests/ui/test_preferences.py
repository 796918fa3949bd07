"""The preferences: applied at once, kept in the settings file, read without Qt, reached with keys alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication, QCheckBox, QComboBox, QPushButton, QSpinBox
from ui_fakes import RecordedEngine

from qstudio.core.results import Device
from qstudio.session.session import Session
from qstudio.ui.main_window import MainWindow
from qstudio.ui.preference_values import Preferences, begin_with, read_preferences, settings_path
from qstudio.ui.preferences import PreferencesDialog
from qstudio.ui.settings import settings
from qstudio.ui.theme import DARK, theme

DEVICES = (
    Device("cpu", "CPU (a processor)", True),
    Device("cuda:0", "GPU (a card)", True),
    Device("mps", "Apple GPU", False, "Only on macOS"),
    Device("npu", "NPU", True, runs_simulation=False),
)


@pytest.fixture
def opened(make_studio: Callable[..., Any]) -> tuple[Any, MainWindow, PreferencesDialog]:
    studio = make_studio()
    window = MainWindow(studio.session, studio.bridge)
    studio.show(window, 1280, 720)
    studio.open()
    studio.key(window.layer_table.view, Qt.Key.Key_Comma, Qt.KeyboardModifier.ControlModifier)
    dialog = window.findChild(PreferencesDialog)
    assert dialog is not None
    studio.settle()
    return studio, window, dialog


def choose(studio: Any, box: QComboBox, text: str) -> None:
    """Choose an entry of a box with the keyboard."""
    box.setFocus()
    studio.qtbot.keyClicks(box, text)
    studio.qtbot.keyClick(box, Qt.Key.Key_Return)


def type_number(studio: Any, box: QSpinBox, number: int) -> None:
    box.setFocus()
    box.selectAll()
    studio.qtbot.keyClicks(box, str(number))
    studio.qtbot.keyClick(box, Qt.Key.Key_Return)


def test_the_settings_file_is_found_without_qt() -> None:
    assert Path(settings().fileName()) == settings_path()


def test_theme_and_zoom_are_applied_at_once_and_kept(opened: tuple[Any, MainWindow, PreferencesDialog]) -> None:
    studio, _window, dialog = opened
    studio.qtbot.keyClick(dialog.mode, Qt.Key.Key_End)
    if theme().palette is not DARK:  # a style may only move in an open list
        dialog.mode.activated.emit(dialog.mode.findData("dark"))
    assert theme().palette is DARK
    type_number(studio, dialog.zoom, 130)
    assert theme().zoom == pytest.approx(1.3)
    assert float(str(settings().value("zoom"))) == pytest.approx(1.3)
    assert settings().value("theme") == "dark"


def test_numbers_reach_the_session_and_the_file(opened: tuple[Any, MainWindow, PreferencesDialog]) -> None:
    studio, _window, dialog = opened
    session = studio.session
    type_number(studio, dialog.preview_samples, 2500)
    type_number(studio, dialog.timing_threads, 3)
    type_number(studio, dialog.engine_threads, 2)
    studio.qtbot.mouseClick(dialog.autosave, Qt.MouseButton.LeftButton, pos=QPoint(8, dialog.autosave.height() // 2))
    assert session.preview.samples == 2500
    assert session.options.threads == 3
    assert read_preferences() == Preferences(2, 3, "cpu", 2500, autosave=False)
    later = Session(RecordedEngine())
    begin_with(later, read_preferences())
    assert (later.preview.samples, later.options.threads) == (2500, 3)
    later.close()
    session.set_options(threads=1)
    session.project.new()
    assert session.options.threads == 3


def test_a_device_that_is_not_there_is_grey_and_says_why(opened: tuple[Any, MainWindow, PreferencesDialog]) -> None:
    studio, _window, dialog = opened
    studio.session.devices = DEVICES
    studio.session.devices_changed.emit(DEVICES)
    assert [dialog.device.model().item(row).isEnabled() for row in range(4)] == [True, True, False, False]  # type: ignore[attr-defined]
    assert "Apple GPU: Only on macOS." in dialog.device_note.text()
    assert "grey ones run and time exported files only" in dialog.device_note.text()
    assert "NPU: runs and times exported files only" in dialog.device.model().item(3).toolTip()  # type: ignore[attr-defined]
    choose(studio, dialog.device, "GPU")
    assert studio.session.options.device == "cuda:0"
    assert read_preferences().device == "cuda:0"
    studio.session.project.new()
    assert studio.session.options.device == "cuda:0"


@pytest.mark.parametrize(("device", "used", "told"), [("cuda:0", "cuda:0", 0), ("mps", "cpu", 1), ("gone", "cpu", 1)])
def test_a_session_begins_on_the_chosen_device_where_it_is_there(device: str, used: str, told: int) -> None:
    session = Session(RecordedEngine())
    notices: list[Any] = []
    session.notice_posted.connect(notices.append)
    begin_with(session, Preferences(device=device))
    assert session.options.device == "cpu"
    session.devices_changed.emit(DEVICES)
    session.devices_changed.emit(DEVICES)
    assert session.options.device == used
    assert len(notices) == told
    session.close()


def test_restore_defaults_gives_everything_its_first_value(opened: tuple[Any, MainWindow, PreferencesDialog]) -> None:
    studio, window, dialog = opened
    window.set_theme("dark")
    type_number(studio, dialog.zoom, 150)
    type_number(studio, dialog.preview_samples, 400)
    type_number(studio, dialog.timing_threads, 2)
    studio.qtbot.mouseClick(dialog.defaults, Qt.MouseButton.LeftButton)
    assert read_preferences() == Preferences()
    assert (theme().mode, theme().zoom) == ("system", 1.0)
    assert (dialog.zoom.value(), dialog.preview_samples.value(), dialog.timing_threads.value()) == (100, 1000, 0)
    assert (studio.session.preview.samples, studio.session.options.threads) == (1000, 0)


def test_keys_reach_every_control_and_close_the_page(opened: tuple[Any, MainWindow, PreferencesDialog]) -> None:
    studio, window, dialog = opened
    dialog.activateWindow()
    studio.qtbot.waitUntil(lambda: QApplication.activeWindow() is dialog)
    dialog.mode.setFocus()
    seen = []
    for _ in range(9):
        seen.append(QApplication.focusWidget())
        studio.qtbot.keyClick(seen[-1], Qt.Key.Key_Tab)
    boxes = [dialog.mode, dialog.zoom, dialog.device, dialog.preview_samples, dialog.timing_threads]
    assert seen == [*boxes, dialog.engine_threads, dialog.autosave, dialog.defaults, dialog.close_button]
    for kind in (QComboBox, QSpinBox, QCheckBox, QPushButton):
        for widget in dialog.findChildren(kind):
            assert widget.toolTip(), widget
            assert widget.accessibleName() or widget.text(), widget
    studio.qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert not dialog.isVisible()
    assert window.isVisible()


def test_opening_them_twice_shows_one_page(opened: tuple[Any, MainWindow, PreferencesDialog]) -> None:
    _studio, window, dialog = opened
    window.actions_table["preferences"].trigger()
    assert window.findChildren(PreferencesDialog) == [dialog]


def test_everything_is_reached_at_double_size_on_a_small_screen(
    opened: tuple[Any, MainWindow, PreferencesDialog],
) -> None:
    studio, _window, dialog = opened
    type_number(studio, dialog.zoom, 200)
    studio.settle()
    dialog.resize(1200, 640)
    studio.settle()
    assert dialog.area.viewport().width() >= dialog.area.widget().minimumSizeHint().width()
    dialog.activateWindow()
    studio.qtbot.waitUntil(lambda: QApplication.activeWindow() is dialog)
    dialog.mode.setFocus()
    assert dialog.autosave.mapTo(dialog.area.viewport(), QPoint(0, 0)).y() > dialog.area.viewport().height()
    for _ in range(6):
        studio.qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
    assert QApplication.focusWidget() is dialog.autosave
    corner = dialog.autosave.mapTo(dialog.area.viewport(), QPoint(0, 0))
    assert dialog.area.viewport().rect().contains(corner)
    assert dialog.close_button.geometry().bottom() <= dialog.height()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Preferences()),
        ("no section at all\n[[[", Preferences()),
        ("[preferences]\nengine_threads=-1\ntiming_threads=4\n", Preferences(timing_threads=4)),
        ("[preferences]\npreview_samples=3\nautosave=maybe\n", Preferences()),
        ("[General]\nrecent=a%b, c\n\n[preferences]\nautosave=false\ndevice=cuda:0\n",
         Preferences(0, 0, "cuda:0", 1000, False)),
        ("[preferences]\nengine_threads=many\ndevice=\n", Preferences()),
    ],
)  # fmt: skip
def test_what_is_damaged_in_the_file_is_the_default(tmp_path: Path, text: str, expected: Preferences) -> None:
    path = tmp_path / "qstudio.ini"
    path.write_text(text, encoding="utf-8")
    assert read_preferences(path) == expected
    path.write_bytes(text.encode() + b"\n\xff\xfe")
    assert read_preferences(path) == Preferences()
    assert read_preferences(tmp_path / "missing.ini") == Preferences()


@pytest.mark.parametrize("percent", [80, 130])
def test_the_page_is_as_high_as_its_text_at_any_size(
    opened: tuple[Any, MainWindow, PreferencesDialog], percent: int
) -> None:
    studio, _window, dialog = opened
    type_number(studio, dialog.zoom, percent)
    studio.settle()
    view, page = dialog.area.viewport(), dialog.area.widget().layout()
    assert page is not None
    spare = view.height() - page.totalHeightForWidth(view.width())
    assert 0 <= spare <= 16
    assert dialog.screen().availableGeometry().contains(dialog.geometry())
