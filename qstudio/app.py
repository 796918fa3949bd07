"""The window as a program: engine first, then the window, an ordered end."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

from qstudio.core.errors import UserError
from qstudio.engine.messages import DataSpec
from qstudio.engine.process_client import ProcessEngine
from qstudio.session.asked import default_figures_root
from qstudio.session.data_words import add_data_options, data_spec
from qstudio.session.options import Notice
from qstudio.session.project_opening import default_autosave_root, default_embedded_root
from qstudio.session.project_places import SUFFIX
from qstudio.session.session import Session
from qstudio.session.training import default_checkpoint_root
from qstudio.ui.preference_values import begin_with, read_preferences

if TYPE_CHECKING:
    from types import TracebackType


class FaultReporter:
    """Shows exceptions that nobody caught as a notice with details, and writes them to the log.

    Qt swallows exceptions raised in slots; without this they would be silent.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._thread = threading.get_ident()

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
        for line in details.rstrip().splitlines():
            self._session.log_added.emit(f"window: {line}")
        text = f"A fault of ours: {error or kind.__name__}. What you have set is kept; you can go on working."
        self._session.notice_posted.emit(Notice("error", text, details))


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read `qstudio [MODEL | PROJECT] [--data D]`."""
    parser = argparse.ArgumentParser(prog="qstudio", description="Open the window.")
    parser.add_argument("model", nargs="?", default="", help="a model (.onnx or .pt2) or a project (.qsproj) to open")
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
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

    from qstudio.ui.bridge import SessionBridge
    from qstudio.ui.main_window import MainWindow
    from qstudio.ui.settings import settings
    from qstudio.ui.theme import theme

    app = QApplication(sys.argv[:1])
    app.setApplicationName("QStudio")
    app.setDesktopFileName("qstudio")
    FaultReporter(session).install()
    store = settings()
    theme().zoom = float(str(store.value("zoom", 1.0)))
    mode = str(store.value("theme", "system"))
    theme().set_mode("dark" if mode == "dark" else "light" if mode == "light" else "system")
    bridge = SessionBridge(session, engine)
    window = MainWindow(session, bridge)
    window.load_settings()
    report = os.environ.get("QSTUDIO_STARTUP_REPORT", "")
    if report:
        from qstudio.ui.startup_report import StartupReport

        window.startup_report = StartupReport(window, report)  # type: ignore[attr-defined]
    projects = window.commands.project
    if _is_project(options.model) or (not options.model and projects.find_crashed()):
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
    code = app.exec()
    window.commands.close()
    bridge.close()
    session.close()
    return int(code)
