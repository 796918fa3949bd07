"""A person at the X server: its own pointer and its own keys."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import pytest
from PySide6.QtCore import QCoreApplication, QPoint
from PySide6.QtWidgets import QWidget

MARKS = [
    pytest.mark.x11,
    pytest.mark.skipif(not shutil.which("xdotool"), reason="xdotool is not installed: no real mouse and keyboard"),
    pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="there is no X server"),
]

PATIENCE_MS = 120_000


class Person:
    """Moves the X server's own pointer and presses its own keys; the window hears of it as of any person."""

    def __init__(self, qtbot: Any) -> None:
        self._qtbot = qtbot

    def _do(self, *arguments: str) -> None:
        """Run xdotool while the window goes on working."""
        process = subprocess.Popen(["xdotool", *arguments])
        self._qtbot.waitUntil(lambda: process.poll() is not None, timeout=10_000)
        assert process.returncode == 0
        QCoreApplication.processEvents()

    def move(self, spot: QPoint) -> None:
        self._do("mousemove", str(spot.x()), str(spot.y()))

    def click(self, spot: QPoint) -> None:
        self.move(spot)
        self._do("click", "1")

    def double_click(self, spot: QPoint) -> None:
        self.move(spot)
        self._do("click", "--repeat", "2", "--delay", "60", "1")

    def drag(self, start: QPoint, end: QPoint) -> None:
        self.move(start)
        self._do("mousedown", "1")
        for step in range(1, 11):
            self.move(start + (end - start) * step / 10)
        self._do("mouseup", "1")

    def press(self, *keys: str) -> None:
        for key in keys:
            self._do("key", "--clearmodifiers", key)

    def type(self, text: str) -> None:
        self._do("type", "--delay", "5", text)


def middle(widget: QWidget) -> QPoint:
    return widget.mapToGlobal(widget.rect().center())
