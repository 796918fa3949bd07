"""Faults: one in a slot is a notice; several at once, or one while starting, save first and show the crash dialog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

from qstudio import app
from qstudio.app import CrashDesk, FaultReporter
from qstudio.session.kept_work import LAST_OPTION, Kept, keep_work
from qstudio.ui.crash_dialog import CrashDialog
from qstudio.ui.main_window import MainWindow
from qstudio.ui.theme import theme


def fail(reporter: FaultReporter, words: str) -> None:
    """Raise and hand the fault to the reporter, as Qt does with a slot's."""
    try:
        raise ValueError(words)
    except ValueError as error:
        reporter._on_exception(type(error), error, error.__traceback__)


@pytest.fixture
def faulty(
    make_studio: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, MainWindow, Any, list[float]]:
    studio = make_studio()
    window = MainWindow(studio.session, studio.bridge)
    studio.show(window, 1280, 720)
    studio.open()
    reporter, desk = FaultReporter(studio.session), CrashDesk(studio.session, window)
    reporter.on_unusable = desk.show
    clock = [100.0]
    monkeypatch.setattr("qstudio.app.time.monotonic", lambda: clock[0])
    return studio, window, (reporter, desk), clock


def test_faults_far_apart_are_notices(faulty: Any, capsys: pytest.CaptureFixture[str]) -> None:
    studio, window, (reporter, _desk), clock = faulty
    fail(reporter, "first")
    clock[0] += app.AT_ONCE_S
    fail(reporter, "second")
    assert ["first" in notice.details or "second" in notice.details for notice in studio.notices[-2:]] == [True, True]
    assert not window.findChildren(CrashDialog)
    assert "second" in capsys.readouterr().err


def test_faults_at_once_save_and_show_one_dialog(
    faulty: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    studio, window, (reporter, desk), clock = faulty
    studio.session.project.recorder.autosave_root = str(tmp_path)
    studio.session.select(["fc"])
    studio.key(window.layer_table.view, Qt.Key.Key_4)
    for number in range(4):
        fail(reporter, f"fault {number}")
        clock[0] += 0.1
    (dialog,) = window.findChildren(CrashDialog)
    assert dialog.isVisible()
    assert "Your work is saved: 1 edit and 0 runs" in dialog.saved.text()
    assert desk.arguments == (LAST_OPTION,)
    assert list(tmp_path.glob("*.qsproj"))
    assert "fault 1" in dialog.details.toPlainText()
    assert "fault 3" in dialog.details.toPlainText()
    assert window.workspace.log.toPlainText().count("ValueError: fault") == 4
    studio.qtbot.mouseClick(dialog.copy, Qt.MouseButton.LeftButton)
    copied = QGuiApplication.clipboard().text()
    assert "fault 1" in copied
    assert "onnxruntime: " in copied
    studio.qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    studio.settle()
    assert not window.findChildren(CrashDialog)
    fail(reporter, "later")
    assert len(window.findChildren(CrashDialog)) == 1
    window.findChild(CrashDialog).reject()
    capsys.readouterr()


def test_a_notice_that_cannot_be_shown_shows_the_dialog(faulty: Any, capsys: pytest.CaptureFixture[str]) -> None:
    studio, window, (reporter, _desk), _clock = faulty

    def broken(_notice: object) -> None:
        raise RuntimeError("the bar of notices is gone")

    disconnect = studio.session.notice_posted.connect(broken)
    fail(reporter, "alone")
    disconnect()
    (dialog,) = window.findChildren(CrashDialog)
    assert "the bar of notices is gone" in dialog.details.toPlainText()
    assert "alone" in dialog.details.toPlainText()
    dialog.reject()
    capsys.readouterr()


def test_every_button_is_reached_with_keys_and_says_what_it_does(studio: Any) -> None:
    theme().set_zoom(2.0)
    host = MainWindow(studio.session, studio.bridge)
    studio.show(host, 1280, 720)
    dialog = CrashDialog(Kept(False, "Your work could not be saved (disk full)."), "Traceback", (), host)
    wanted: list[str] = []
    dialog.restart_wanted.connect(lambda: wanted.append("restart"))
    dialog.show()
    dialog.activateWindow()
    studio.qtbot.waitUntil(lambda: QApplication.activeWindow() is dialog)
    assert dialog.focusWidget() is dialog.restart
    seen = set()
    for _ in range(6):
        seen.add(QApplication.focusWidget())
        studio.qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
    assert {dialog.copy, dialog.quit, dialog.restart, dialog.go_on, dialog.details} <= seen
    assert all(button.toolTip() for button in dialog.buttons.buttons())
    assert dialog.saved.property("role") == "worse"
    dialog.restart.setFocus()
    studio.qtbot.keyClick(dialog.restart, Qt.Key.Key_Space)
    assert wanted == ["restart"]
    theme().set_zoom(1.0)


def test_what_is_said_of_the_work(studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = studio.session
    assert keep_work(session) == Kept(True, "No model was open: there is nothing to lose.")
    studio.open()
    assert keep_work(session).text == "Nothing had been changed: there is nothing to lose."
    assert keep_work(session).arguments == (session.model.path,)
    session.set_layers("4 bits", ("fc",), weight_bits=4)
    kept = keep_work(session)
    assert not kept.safe
    assert kept.text.endswith("as the preferences say: 1 edit and 0 runs are only in memory.")
    session.project.save_as(tmp_path / "mine.qsproj")
    kept = keep_work(session)
    assert kept.safe
    assert "mine.qsproj" in kept.text
    assert kept.arguments == (str(tmp_path / "mine.qsproj"),)

    def fails() -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(session.project.recorder, "save", fails)
    assert keep_work(session) == Kept(False, "Your work could not be saved (out of order).")
    monkeypatch.undo()


SCRIPT = """
import json, sys
from qstudio import app
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication
import qstudio.ui.theme as theme
from qstudio.ui.crash_dialog import CrashDialog
from ui_fakes import RecordedEngine

def faults(window):
    for number in range(2):
        QTimer.singleShot(0, lambda: 1 / 0)

def look():
    dialog = next((w for w in QApplication.topLevelWidgets() if isinstance(w, CrashDialog) and w.isVisible()), None)
    if dialog is not None:
        said.append((dialog.windowTitle(), dialog.saved.text(), dialog.details.toPlainText()))
        (dialog.restart if sys.argv[1] == "restart" else dialog.quit).click()
        return
    window = next((w for w in QApplication.topLevelWidgets() if w.objectName() == "main" and w.isVisible()), None)
    if window is not None and not begun and (not sys.argv[2:] or window.session.model is not None):
        begun.append(1)
        if window.session.model is not None:
            layer = window.session.model.weighted_layers[0].name
            window.session.set_layers("4 bits", (layer,), weight_bits=4)
        faults(window)
    QTimer.singleShot(10, look)

said, begun, started = [], [], []
before = theme.Theme.set_mode

def set_mode(self, mode):
    before(self, mode)
    QTimer.singleShot(0, look)

def main():
    theme.Theme.set_mode = set_mode
    app.start_again = started.append
    app.ProcessEngine = lambda threads: RecordedEngine()  # the faults are the window's, the engine has no part in them
    if sys.argv[1] == "broken":
        from qstudio.ui.main_window import MainWindow
        def fails(*_):
            raise RuntimeError("no window today")
        MainWindow._assemble = fails
    code = app.run(sys.argv[2:])
    json.dump({"code": code, "said": said, "started": started}, sys.stdout)

if __name__ == "__main__":
    main()
"""


def run_program(place: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    script = place / "program.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "XDG_STATE_HOME": str(place / "state"), "XDG_CACHE_HOME": str(place / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_program_starts_again_with_the_work_that_was_saved(qapp: Any, tmp_path: Path) -> None:
    told, errors = run_program(tmp_path, "restart", "/models/fake.onnx")
    assert told["code"] == 0
    assert told["started"] == [[LAST_OPTION]]
    assert "Your work is saved: 1 edit and 0 runs" in told["said"][0][1]
    assert "ZeroDivisionError" in errors
    assert (tmp_path / "state" / "qstudio" / "autosave" / "last.qsproj").exists()


def test_a_fault_while_starting_shows_the_dialog_and_ends_with_quit(qapp: Any, tmp_path: Path) -> None:
    told, errors = run_program(tmp_path, "broken")
    assert told["code"] == 1
    assert told["started"] == []
    assert "nothing to lose" in told["said"][0][1]
    assert "no window today" in told["said"][0][2]
    assert "no window today" in errors


def test_last_is_an_option_of_the_window() -> None:
    assert app.read_arguments([LAST_OPTION]).last
    assert not app.read_arguments([]).last
