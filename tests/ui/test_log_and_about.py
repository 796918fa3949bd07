"""The log drawer and the page about the program: errors marked, follow, clear, and what is copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFont, QGuiApplication
from PySide6.QtWidgets import QLabel

from qstudio import __version__
from qstudio.core.processor import processor
from qstudio.core.results import Device
from qstudio.ui.environment import details_text, versions
from qstudio.ui.log_drawer import LINES_KEPT, LogDrawer
from qstudio.ui.sheets import Sheet, show_about
from qstudio.ui.theme import theme

LINES = (
    "run: loading",
    "run: Traceback (most recent call last):",
    'run:   File "x.py", line 3, in f',
    "run: ValueError: bad shape",
    "inspect: [E:onnxruntime:, executor.cc:5] Non-zero status",
    "inspect: [W:onnxruntime:, a.cc:1] only a warning",
    "run: weight error over depth: 0.2",
)


@pytest.fixture
def log(make_studio: Callable[..., Any]) -> tuple[Any, LogDrawer]:
    studio = make_studio()
    drawer = LogDrawer(studio.bridge)
    studio.show(drawer, 800, 120)
    return studio, drawer


def is_bold(drawer: LogDrawer, line: int) -> bool:
    formats = drawer.edit.document().findBlockByNumber(line).layout().formats()
    return any(
        part.format.fontWeight() == QFont.Weight.Bold
        and part.format.foreground().color() == theme().palette.color("worse")
        for part in formats
    )


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_errors_are_marked_and_counted_a_traceback_once(log: tuple[Any, LogDrawer], mode: Any) -> None:
    studio, drawer = log
    theme().set_mode(mode)
    for line in LINES:
        studio.session.log_added.emit(line)
    studio.qtbot.waitUntil(lambda: drawer.errors.text() == "2 errors")
    assert [is_bold(drawer, line) for line in range(len(LINES))] == [False, True, True, True, True, False, False]
    assert drawer.error_lines == (1, 4)


def test_next_error_goes_round(log: tuple[Any, LogDrawer]) -> None:
    studio, drawer = log
    assert not drawer.next_error.isEnabled()
    for line in LINES:
        studio.session.log_added.emit(line)
    studio.qtbot.waitUntil(drawer.next_error.isEnabled)
    seen = []
    for _ in range(3):
        studio.qtbot.mouseClick(drawer.next_error, Qt.MouseButton.LeftButton)
        seen.append(drawer.edit.textCursor().block().text())
    assert seen == [LINES[1], LINES[4], LINES[1]]
    assert not drawer.follow.isChecked()


def test_follow_keeps_the_newest_line_in_sight_and_can_be_left(log: tuple[Any, LogDrawer]) -> None:
    studio, drawer = log
    bar = drawer.edit.verticalScrollBar()
    for number in range(60):
        studio.session.log_added.emit(f"run: {number}")
    assert bar.value() == bar.maximum() > 0
    studio.key(drawer.follow, Qt.Key.Key_Space)
    bar.setValue(5)
    studio.session.log_added.emit("run: more")
    assert bar.value() == 5
    studio.key(drawer.follow, Qt.Key.Key_Space)
    assert bar.value() == bar.maximum()


def test_clear_and_copy_details(log: tuple[Any, LogDrawer]) -> None:
    studio, drawer = log
    for line in LINES:
        studio.session.log_added.emit(line)
    devices = (Device("cpu", "CPU (fast)", True), Device("cuda:0", "CUDA", False, "no driver"))
    studio.session.devices_changed.emit(devices)
    studio.qtbot.mouseClick(drawer.copy_details, Qt.MouseButton.LeftButton)
    copied = QGuiApplication.clipboard().text()
    assert copied.endswith("\n".join(LINES) + "\n")
    for part in (
        f"QStudio: {__version__}",
        "onnxruntime: ",
        "System: ",
        processor()[0],
        "CUDA: not available: no driver",
    ):
        assert part in copied
    studio.qtbot.mouseClick(drawer.clear_button, Qt.MouseButton.LeftButton)
    assert drawer.toPlainText() == ""
    assert drawer.errors.text() == "0 errors"
    assert not drawer.next_error.isEnabled()


def test_old_lines_go_and_their_errors_with_them(log: tuple[Any, LogDrawer]) -> None:
    studio, drawer = log
    drawer.edit.setMaximumBlockCount(10)
    for line in (LINES[4], *(f"run: {number}" for number in range(20))):
        studio.session.log_added.emit(line)
    studio.qtbot.waitUntil(lambda: drawer.errors.text() == "0 errors")
    assert drawer.edit.document().blockCount() == 10 < LINES_KEPT


def test_every_control_of_the_log_is_named_and_explained(log: tuple[Any, LogDrawer]) -> None:
    _studio, drawer = log
    for widget in (drawer.next_error, drawer.follow, drawer.clear_button, drawer.copy_details):
        assert widget.text()
        assert widget.toolTip()
        assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus
    assert drawer.edit.accessibleName() == "Log"


def test_about_tells_versions_processor_licence_and_copies_them(studio: Any) -> None:
    host = QLabel("window")
    studio.show(host)
    devices = (Device("cuda:0", "CUDA", False, "no driver"),)
    sheet = show_about(host, devices)
    assert isinstance(sheet, Sheet)
    shown = "\n".join(label.text() for label in sheet.findChildren(QLabel))
    assert "Apache License 2.0" in shown
    assert processor()[0] in shown
    for package in ("numpy", "torch", "onnx", "onnxruntime", "qtawesome"):
        assert dict(versions())[package] in shown
    assert "not available: no driver" in shown
    studio.qtbot.mouseClick(sheet.copy_button, Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text() == details_text(devices)
    studio.qtbot.keyClick(sheet, Qt.Key.Key_Escape)
    assert not sheet.isVisible()
