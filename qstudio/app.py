"""The window as a program: engine first, then the window, an ordered end."""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qstudio.core.errors import UserError
from qstudio.engine.messages import DataSpec
from qstudio.engine.process_client import ProcessEngine
from qstudio.session.asked import default_figures_root
from qstudio.session.data_words import add_data_options, data_spec
from qstudio.session.kept_work import LAST_OPTION, Kept, keep_work
from qstudio.session.options import Notice
from qstudio.session.project_opening import default_autosave_root, default_embedded_root
from qstudio.session.project_places import SUFFIX
from qstudio.session.session import Session
from qstudio.session.training import default_checkpoint_root
from qstudio.ui.preference_values import begin_with, read_preferences

if TYPE_CHECKING:
    from types import TracebackType

    from qstudio.ui.crash_dialog import CrashDialog
    from qstudio.ui.main_window import MainWindow

AT_ONCE_S = 1.0
"""Faults that come closer than this after each other are not those of one slot: the window cannot be relied on."""

RESTART = 75
"""What the event loop ends with when the program is to be started again."""


class FaultReporter:
    """Shows exceptions that nobody caught as a notice with details, and writes them to the log.

    Qt swallows exceptions raised in slots; without this they would be silent. Two within `AT_ONCE_S`, or one that
    cannot even be shown as a notice, are given to `on_unusable` instead, with the traceback.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._thread = threading.get_ident()
        self._last_s: float | None = None
        self.on_unusable: Callable[[str], None] | None = None

    def install(self) -> None:
        """Take over the hooks of the interpreter."""
        sys.excepthook = self._on_exception
        threading.excepthook = self._on_thread_exception

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        self._tell(kind, error, trace)

    def _on_thread_exception(self, told: threading.ExceptHookArgs) -> None:
        if told.exc_value is not None:
            self._tell(told.exc_type, told.exc_value, told.exc_traceback)

    def _tell(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        details = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(details)
        if threading.get_ident() != self._thread:
            return
        now, before = time.monotonic(), self._last_s
        self._last_s = now
        unusable = before is not None and now - before < AT_ONCE_S
        try:
            for line in details.rstrip().splitlines():
                self._session.log_added.emit(f"window: {line}")
            if not (unusable and self.on_unusable):
                text = f"A fault of ours: {error or kind.__name__}. What you have set is kept; you can go on working."
                self._session.notice_posted.emit(Notice("error", text, details))
        except Exception:  # the window that should show the fault has one itself
            unusable, details = True, f"{details}\n{traceback.format_exc()}"
        if unusable and self.on_unusable is not None:
            self.on_unusable(details)


class CrashDesk:
    """Shows the crash dialog once, and remembers how the program is to go on."""

    def __init__(self, session: Session, window: MainWindow) -> None:
        self._session = session
        self._window = window
        self._dialog: CrashDialog | None = None
        self.arguments: tuple[str, ...] = ()
        """What the program is started with again."""

    def show(self, fault: str) -> None:
        """Save everything and show the dialog; what comes while it is open is added to its details."""
        from qstudio.ui.crash_dialog import CrashDialog

        if self._dialog is not None:
            self._dialog.add_fault(fault)
            return
        kept = keep_work(self._session)
        self.arguments = kept.arguments
        self._dialog = dialog = CrashDialog(kept, fault, self._session.devices, self._window)
        dialog.restart_wanted.connect(partial(self._end, RESTART))
        dialog.quit_wanted.connect(partial(self._end, 1))
        dialog.finished.connect(self._on_finished)
        dialog.show()

    def _on_finished(self, _result: int) -> None:
        self._dialog = None

    def _end(self, code: int) -> None:
        from PySide6.QtWidgets import QApplication

        QApplication.exit(code)


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read `qstudio [MODEL | PROJECT] [--data D]`."""
    parser = argparse.ArgumentParser(prog="qstudio", description="Open the window.")
    parser.add_argument("model", nargs="?", default="", help="a model (.onnx or .pt2) or a project (.qsproj) to open")
    parser.add_argument(
        LAST_OPTION, action="store_true", help="go on with the work without a project that was closed last"
    )
    add_data_options(parser)
    return parser.parse_args(arguments)


def run(arguments: list[str]) -> int:
    """Open the window and return the exit code when it has been closed."""
    options = read_arguments(arguments)
    try:
        data = data_spec(options)
    except UserError as error:
        print(f"qstudio: {error.sentence()}", file=sys.stderr)
        return 2
    # The engine's process loads for a second or two; it starts before Qt is even imported.
    preferences = read_preferences()
    engine = ProcessEngine(preferences.engine_threads or None)
    session = Session(engine)
    begin_with(session, preferences)
    session.checkpoint_root = default_checkpoint_root()
    session.project.recorder.autosave_root = default_autosave_root() if preferences.autosave else ""
    session.project.files.embedded_root = default_embedded_root()
    session.sensitivity.cache_root = session.search.cache_root = default_figures_root()
    # Asked before there is a window: the model is being read while the window is being built.
    if options.model and not _is_project(options.model):
        session.open_model(options.model)
    return _show(session, engine, options, data)


def _keep_for_good() -> None:
    """Leave what stands now out of garbage collections: each full one over it stalls the window by 35 ms and more."""
    gc.collect()
    gc.freeze()


def _is_project(path: str) -> bool:
    return path.lower().endswith(SUFFIX)


def _show(session: Session, engine: Any, options: argparse.Namespace, data: DataSpec | None) -> int:
    from PySide6.QtWidgets import QApplication

    from qstudio.ui.settings import settings
    from qstudio.ui.theme import theme

    app = QApplication(sys.argv[:1])
    app.setApplicationName("QStudio")
    app.setDesktopFileName("qstudio")
    reporter = FaultReporter(session)
    reporter.install()
    store = settings()
    theme().zoom = float(str(store.value("zoom", 1.0)))
    mode = str(store.value("theme", "system"))
    theme().set_mode("dark" if mode == "dark" else "light" if mode == "light" else "system")
    try:
        window = _build(session, engine, options, data)
    except Exception:
        return _fail_to_start(session, traceback.format_exc())
    desk = CrashDesk(session, window)
    reporter.on_unusable = desk.show
    code = app.exec()
    code = _close((window.commands.close, window.bridge.close, session.close), int(code))
    if code == RESTART:
        start_again(desk.arguments)
        return 0
    return code


def _build(session: Session, engine: Any, options: argparse.Namespace, data: DataSpec | None) -> MainWindow:
    """Make the window and begin with what the program was asked to open."""
    from PySide6.QtCore import QTimer

    from qstudio.ui.bridge import SessionBridge
    from qstudio.ui.main_window import MainWindow

    window = MainWindow(session, SessionBridge(session, engine))
    window.load_settings()
    report = os.environ.get("QSTUDIO_STARTUP_REPORT", "")
    if report:
        from qstudio.ui.startup_report import StartupReport

        window.startup_report = StartupReport(window, report)  # type: ignore[attr-defined]
    projects = window.commands.project
    if not options.model and options.last and projects.has_last:
        window.show_opening()
        QTimer.singleShot(0, partial(_resume, window))
    elif _is_project(options.model) or (not options.model and projects.find_crashed()):
        window.show_opening()
        # Once the window stands: a project's panels take longer than its first picture may.
        QTimer.singleShot(0, partial(projects.begin, options.model))
    elif options.model:
        window.commands.await_model(data)
        projects.offer_recovery()
    else:
        window.show_welcome()
        if data is not None:
            session.open_data(data)
    window.show()
    window.built.connect(_keep_for_good)
    # Once the first picture is out, load what it did not need.
    QTimer.singleShot(0, window.build_late)
    return window


def _resume(window: MainWindow) -> None:
    """Go on with the work without a project that was closed last."""
    window.commands.project.restore_last()
    if not window.session.opening and not window.session.runs:
        window.show_welcome()


def _fail_to_start(session: Session, fault: str) -> int:
    """Say that there is no window, and why; start again or end."""
    from PySide6.QtWidgets import QDialog

    from qstudio.ui.crash_dialog import CrashDialog

    sys.stderr.write(fault)
    kept = keep_work(session)
    dialog = CrashDialog(Kept(kept.safe, kept.text), fault)
    again = dialog.exec() == QDialog.DialogCode.Accepted
    code = _close((session.close,), 1)
    if again:
        start_again(tuple(sys.argv[1:]))
    return code


def _close(steps: tuple[Callable[[], object], ...], code: int) -> int:
    """Take every step of the end, also after one that fails; return the exit code."""
    for step in steps:
        try:
            step()
        except Exception:  # the engine's processes have to be ended whatever happened to the window
            traceback.print_exc()
            code = code or 1
    return code


def start_again(arguments: tuple[str, ...]) -> None:
    """Start the program as a process of its own."""
    subprocess.Popen([sys.executable, "-m", "qstudio", *arguments], close_fds=True)
