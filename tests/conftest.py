"""What every test is held to: nothing left behind, nothing warned of, nobody's settings touched."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

QT_FIXTURES = {"qapp", "qtbot"}
PATIENCE_S = 3.0
"""Threads and processes that were told to end are given this long."""


def pytest_configure(config: pytest.Config) -> None:
    """Draw into a virtual X server where there is one (pytest-xvfb), without any screen elsewhere."""
    if sys.platform.startswith("linux") and not shutil.which("Xvfb") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the window's settings, and those of the programs that tests start, out of the person's own."""
    place = tmp_path_factory.mktemp("settings")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    if "PySide6.QtCore" in sys.modules:
        from PySide6.QtCore import QSettings

        QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(place))


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a window, a running timer, a thread or a child process."""
    uses_qt = bool(QT_FIXTURES & set(request.fixturenames))
    if uses_qt:
        request.getfixturevalue("qapp")
        _settle()
    before = _left_over(uses_qt)
    yield
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if uses_qt:
            _settle()
        after = _left_over(uses_qt)
        more = {kind: things for kind, things in after.items() if len(things) > len(before[kind])}
        if not more or time.monotonic() > deadline:
            break
        threading.Event().wait(0.02)
    new = {kind: sorted(set(things) - set(before[kind])) for kind, things in more.items()}
    assert not more, f"left behind: {new}"


@pytest.fixture(autouse=True)
def _no_warnings_logged(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which this program or Qt logs a warning."""
    qt_log = request.getfixturevalue("qtlog") if QT_FIXTURES & set(request.fixturenames) else None
    yield
    warned = [
        f"{record.name}: {record.getMessage()}"
        for when in ("setup", "call")
        for record in caplog.get_records(when)  # type: ignore[arg-type]
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] in ("qstudio", "root")
    ]
    assert not warned, f"logged: {warned}"
    if qt_log is not None:
        told = [
            record.message
            for record in qt_log.records
            if record.type.name in ("QtWarningMsg", "QtCriticalMsg", "QtFatalMsg")
        ]
        assert not told, f"Qt said: {told}"


def _settle() -> None:
    """Delete what is to be deleted and run what is queued."""
    from PySide6.QtCore import QCoreApplication, QEvent

    gc.collect()
    for _ in range(2):
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QCoreApplication.processEvents()


def _left_over(uses_qt: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {
        "threads": [f"{thread.name} {thread.ident}" for thread in threading.enumerate()],
        "processes": [
            f"{child.pid} {child.name()}"
            for child in psutil.Process().children(recursive=True)
            if _is_running(child) and not _is_helper(child)
        ],
    }
    if uses_qt:
        from PySide6.QtCore import QTimer
        from PySide6.QtWidgets import QApplication, QMenu
        from shiboken6 import isValid

        # Each plot of pyqtgraph makes hidden menus without a parent, which live until Python ends.
        windows = [w for w in QApplication.topLevelWidgets() if isValid(w) and (w.isVisible() or type(w) is not QMenu)]
        found["windows"] = [f"{type(w).__name__} {id(w):x}" for w in windows]
        timers = [o for o in gc.get_objects() if type(o) is QTimer and isValid(o) and o.isActive()]
        found["timers"] = [f"{timer.interval()} ms {id(timer):x}" for timer in timers]
    return found


def _is_running(child: psutil.Process) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_helper(child: psutil.Process) -> bool:
    """Return whether Python or the test run itself keeps the process: it ends with this one."""
    try:
        line = " ".join(child.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return True
    return "resource_tracker" in line or "Xvfb" in line or "forkserver" in line


@pytest.fixture(scope="session")
def cases() -> Path:
    """Return the folder of large cases beside the repository (or QSTUDIO_CASES); skip where it is not."""
    place = Path(os.environ.get("QSTUDIO_CASES", Path(__file__).resolve().parents[2] / "shared" / "cases"))
    if not place.is_dir():
        pytest.skip("the folder of large cases is not at hand (set QSTUDIO_CASES)")
    return place
