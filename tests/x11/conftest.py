"""The whole program on the X server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from PySide6.QtCore import QCoreApplication, QEvent
from PySide6.QtGui import QGuiApplication
from x11_person import Person

from qstudio.core.resources import sample_models
from qstudio.engine.process_client import ProcessEngine
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.main_window import MainWindow
from qstudio.ui.theme import theme


@pytest.fixture
def program(qtbot: Any) -> Iterator[tuple[Session, MainWindow, Person]]:
    """The program as `qstudio.app` puts it together, on its welcome page."""
    if QGuiApplication.platformName() != "xcb":
        pytest.skip("the window is not shown on an X server (QT_QPA_PLATFORM is set to something else)")
    if not sample_models():
        pytest.skip("the sample models are not there: run sample_models/train.py")
    engine = ProcessEngine()
    session = Session(engine)
    theme().set_mode("light")
    bridge = SessionBridge(session, engine)
    window = MainWindow(session, bridge)
    window.show_welcome()
    window.setGeometry(0, 0, 1900, 1040)
    with qtbot.waitExposed(window):
        window.show()
    window.build_all()
    window.activateWindow()
    subprocess.run(["xdotool", "windowfocus", str(int(window.winId()))], check=False)
    yield session, window, Person(qtbot)
    window.close()
    window.commands.close()
    window.deleteLater()
    bridge.close()
    bridge.deleteLater()
    session.close()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
