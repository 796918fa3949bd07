"""The whole story with a real mouse and a real keyboard on an X server: from the welcome page to the exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QFileDialog, QLineEdit
from x11_person import MARKS, PATIENCE_MS, Person, middle

from qstudio.engine.messages import JobState
from qstudio.session.session import Session
from qstudio.ui.main_window import MainWindow

pytestmark = MARKS


def test_from_the_welcome_page_to_the_exported_file(
    program: tuple[Session, MainWindow, Person], qtbot: Any, tmp_path: Path
) -> None:
    session, window, person = program

    def wait(done: Callable[[], Any]) -> None:
        qtbot.waitUntil(lambda: bool(done()), timeout=PATIENCE_MS)

    # Open a sample: layers, data and float accuracy come by themselves.
    assert window.welcome is not None
    person.click(middle(window.welcome.cards[0]))
    wait(lambda: session.model is not None)
    wait(lambda: session.float_metrics is not None and session.activation_statistics and not session.work)
    assert session.float_metrics is not None
    assert (session.float_metrics.top1 or 0) > 96
    assert window.run_button.isEnabled()

    # Inspect a layer.
    table = window.layer_table
    layer = session.model.weighted_layers[1].name  # type: ignore[union-attr]
    row = table.model.row_of(layer)
    assert row is not None
    person.click(table.view.viewport().mapToGlobal(table.view.visualRect(table.model.index(row, 0)).center()))
    wait(lambda: session.selection == (layer,))
    assert window.workspace.inspector is not None
    assert window.workspace.inspector.layer is not None
    assert window.workspace.inspector.layer.name == layer

    # Drag the upper clip edge inwards, then take it back: one drag is one step.
    plot = window.workspace.inspector.weights.histogram
    wait(lambda: plot.edge_position("high") is not None)
    QApplication.processEvents()
    edge = plot.edge_position("high")
    assert edge is not None
    box = plot.plotItem.vb
    height = box.viewRange()[1][1]

    def spot(x: float) -> QPoint:
        scene = box.mapViewToScene(QPointF(x, 0.3 * height))
        return plot.viewport().mapToGlobal(plot.mapFromScene(scene))

    person.drag(spot(edge), spot(0.6 * edge))
    wait(lambda: session.settings(layer).weight_clip is not None)
    clip = session.settings(layer).weight_clip
    assert clip is not None
    assert clip[1] == pytest.approx(0.6 * edge, rel=0.05)
    assert session.settings(layer).weight_calibration == "manual"
    person.press("ctrl+z")
    wait(lambda: session.settings(layer).weight_clip is None)
    assert session.undo_label is None, "the whole drag was one step"

    # Change bits by key, run.
    person.click(table.view.viewport().mapToGlobal(table.view.visualRect(table.model.index(row, 0)).center()))
    person.press("4")
    wait(lambda: session.settings(layer).weight_bits == 4)
    person.click(middle(window.run_button))
    wait(lambda: session.runs and session.runs[-1].state.is_final)
    first = session.runs[-1]
    assert first.state is JobState.DONE, first.error
    assert first.result is not None
    assert first.result.parity is not None
    assert first.result.latency_ms is not None
    assert window.perspective == "tune"

    # Another recipe; a double-click on the point of the first run brings its recipe back.
    person.press("ctrl+z")
    wait(lambda: session.settings(layer).weight_bits == 8)
    chart = window.workspace.chart
    assert chart is not None
    point = next(point for point in chart.points() if point.run == first.id)
    scene = chart.chart.plotItem.vb.mapViewToScene(QPointF(point.x, point.y))
    where = chart.chart.viewport().mapToGlobal(chart.chart.mapFromScene(scene))
    person.double_click(where)
    wait(lambda: session.settings(layer).weight_bits == 4)
    assert session.undo_label == f"Restore recipe of {first.title}"

    # Export what was run.
    target = tmp_path / "exported.onnx"
    person.press("ctrl+e")
    wait(lambda: window.findChild(QFileDialog) is not None and window.findChild(QFileDialog).isVisible())
    dialog = window.findChild(QFileDialog)
    line = dialog.findChild(QLineEdit, "fileNameEdit")
    wait(line.isVisible)
    person.click(middle(line))
    person.press("ctrl+a")
    person.type(str(target))
    wait(lambda: line.text() == str(target))
    person.press("Return")
    wait(target.exists)
    assert target.stat().st_size > 1000
    assert any("exported to" in card.notice.text for card in window.notices.cards)
    assert not [card for card in window.notices.cards if card.notice.level == "error"]
    assert Qt.ApplicationState.ApplicationActive == QGuiApplication.applicationState()
