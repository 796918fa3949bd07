"""A studio: session, bridge and an engine with recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from PySide6.QtCore import QCoreApplication, QEvent, Qt
from PySide6.QtWidgets import QApplication, QWidget
from ui_fakes import RecordedEngine

from qstudio.session.options import Notice
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.theme import theme


@dataclass
class Studio:
    """What a panel needs, and what a test looks at."""

    engine: Any
    session: Session
    bridge: SessionBridge
    notices: list[Notice]
    qtbot: Any
    shown: list[QWidget]

    def show(self, widget: QWidget, width: int = 1200, height: int = 700) -> QWidget:
        """Show a widget and delete it at the end of the test."""
        self.shown.append(widget)
        widget.resize(width, height)
        with self.qtbot.waitExposed(widget):
            widget.show()
        widget.activateWindow()
        return widget

    def open(self, data: str = "digits") -> None:
        """Open the model and data and take in every answer."""
        self.session.open_model("/models/fake.onnx")
        self.settle()
        if data:
            self.session.open_data(data)
            self.settle()

    def settle(self) -> None:
        """Handle everything that waits."""
        for _ in range(6):
            self.engine.dispatch()
            QCoreApplication.processEvents()

    def key(self, widget: QWidget, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key on a focused widget."""
        widget.setFocus()
        self.qtbot.keyClick(widget, key, modifier)


@pytest.fixture
def make_studio(qtbot: Any) -> Iterator[Callable[..., Studio]]:
    made: list[Studio] = []
    theme().set_mode("light")
    theme().set_zoom(1.0)

    def make(engine: Any = None) -> Studio:
        engine = engine or RecordedEngine()
        session = Session(engine)
        studio = Studio(engine, session, SessionBridge(session, engine), [], qtbot, [])
        session.notice_posted.connect(studio.notices.append)
        made.append(studio)
        return studio

    yield make
    for studio in made:
        for widget in studio.shown:
            widget.close()
            widget.deleteLater()
        studio.bridge.close()
        studio.bridge.deleteLater()
        studio.session.close()
    for popup in QApplication.topLevelWidgets():
        if popup.isVisible():
            popup.close()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def studio(make_studio: Callable[..., Studio]) -> Studio:
    return make_studio()
