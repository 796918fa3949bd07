"""How long the start took, written to a file for the start-up benchmark."""

from __future__ import annotations

import json
import time
from pathlib import Path

from PySide6.QtCore import QEvent, QObject, QTimer

from qstudio.ui.main_window import MainWindow


class StartupReport(QObject):
    """Writes the wall-clock times (seconds since the epoch) at which window and layers were first painted."""

    def __init__(self, window: MainWindow, path: str) -> None:
        super().__init__(window)
        self._window = window
        self._path = Path(path)
        self._times: dict[str, float] = {}
        window.installEventFilter(self)
        window.layer_table.view.viewport().installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Note first paints; the time is taken once the paint is done."""
        if event.type() == QEvent.Type.Paint:
            if "window" not in self._times and self._window.isVisible():
                self._times["window"] = 0.0
                QTimer.singleShot(0, self._on_window_painted)
            if "layers" not in self._times and self._window.layer_table.model.rowCount():
                self._times["layers"] = 0.0
                QTimer.singleShot(0, self._on_layers_painted)
        return super().eventFilter(watched, event)

    def _on_window_painted(self) -> None:
        self._note("window")

    def _on_layers_painted(self) -> None:
        self._note("layers")

    def _note(self, what: str) -> None:
        self._times[what] = time.time()
        done = {name: at for name, at in self._times.items() if at}
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps(done), encoding="utf-8")
        temporary.replace(self._path)
