"""See, change, measure again, with a real mouse and keyboard: from the worst layer to a better recipe and its flips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QPoint, QPointF
from PySide6.QtWidgets import QApplication, QFileDialog, QLineEdit
from x11_person import MARKS, PATIENCE_MS, Person, middle

from qstudio.core.resources import sample_models
from qstudio.engine.messages import JobState
from qstudio.session.session import Session
from qstudio.ui.compare.flips_panel import FlipsPanel
from qstudio.ui.findings.panel import FindingsPanel
from qstudio.ui.graph.panel import GraphPanel
from qstudio.ui.inspector.panel import InspectorPanel
from qstudio.ui.main_window import MainWindow
from qstudio.ui.runs.run_chart import RunChart
from qstudio.ui.search.panel import SearchPanel

pytestmark = MARKS


def test_find_the_layer_that_hurts_repair_it_search_run_and_compare(
    program: tuple[Session, MainWindow, Person], qtbot: Any, tmp_path: Path
) -> None:
    session, window, person = program

    def wait(done: Callable[[], Any]) -> None:
        qtbot.waitUntil(lambda: bool(done()), timeout=PATIENCE_MS)

    def settled() -> bool:
        return not session.work and session.preview.accuracy is not None and session.preview.accuracy.done

    def top1() -> float:
        assert session.preview.accuracy is not None
        return session.preview.accuracy.metrics.top1 or 0.0

    # Open the depthwise network: layers, data, float accuracy, and the preview of the recipe come by themselves.
    assert window.welcome is not None
    names = [Path(model.path).name for model in sample_models()]
    person.click(middle(window.welcome.cards[names.index("digits_mobilenet.onnx")]))
    wait(lambda: session.activation_statistics and settled())
    assert top1() > 98
    assert "~" in window.strip.now_figure.text

    # Find the red node of the graph and click it: one selection everywhere.
    graph = window.workspace.panel("graph")
    assert isinstance(graph, GraphPanel)
    wait(lambda: graph.drawing is not None and not graph.working)
    drawing = graph.drawing
    assert drawing is not None
    assert session.model is not None
    graph.set_metric("downstream")
    weighted = [layer.name for layer in session.model.weighted_layers]
    wait(lambda: session.preview.depth is not None and all(session.preview.depth.layer(x) for x in weighted))
    wait(lambda: settled() and all(session.preview.depth.layer(x).downstream for x in weighted))  # type: ignore
    worst = max(weighted, key=lambda name: session.preview.depth.layer(name).downstream)  # type: ignore
    wait(lambda: graph.drawing.colors[graph.drawing.of_layer[worst]] > 0)  # type: ignore
    node = drawing.of_layer[worst]
    assert drawing.colors[node] == max(drawing.colors[drawing.of_layer[name]] for name in weighted)
    place = graph.canvas.to_screen(drawing.rect(node).center()).toPoint()
    person.click(graph.canvas.mapToGlobal(place))
    wait(lambda: session.selection == (worst,))
    inspector = window.workspace.panel("inspector")
    assert isinstance(inspector, InspectorPanel)
    assert inspector.layer is not None
    assert inspector.layer.name == worst

    # Two bits by key: the node's figure and the accuracy fall.
    before, colour = top1(), int(drawing.colors[node])
    person.press("2")
    wait(lambda: session.settings(worst).weight_bits == 2)
    wait(lambda: settled() and top1() < before - 0.5)
    wait(lambda: int(drawing.colors[node]) > colour)
    fallen = top1()

    # A finding says what to do; applying it brings most of the accuracy back; it is one undoable step.
    window.show_panel("findings")
    findings = window.workspace.panel("findings")
    assert isinstance(findings, FindingsPanel)
    wait(lambda: session.findings.complete)
    mine = [f for f in session.findings.for_layer(worst) if f.edit is not None]
    assert mine
    model = findings.list.model
    wait(lambda: any(row.finding == mine[0] for row in model.rows))
    row = next(number for number, shown in enumerate(model.rows) if shown.finding == mine[0])
    table = findings.list.table
    table.scrollTo(model.index(row, 0))
    person.click(table.viewport().mapToGlobal(table.visualRect(model.index(row, 0)).center()))
    wait(lambda: findings.list.view.apply.isEnabled() and findings.list.view.apply.isVisible())
    person.click(middle(findings.list.view.apply))
    wait(lambda: session.undo_label == mine[0].edit.label)  # type: ignore
    wait(lambda: settled() and top1() > fallen + 0.5 * (before - fallen))

    # A first run, to be compared with.
    person.click(middle(window.run_button))
    wait(lambda: session.runs and session.runs[-1].state.is_final)
    assert session.runs[0].state is JobState.DONE, session.runs[0].error

    # Search four bits on average; slide the budget; take a point of the front.
    window.show_panel("search")
    search = window.workspace.panel("search")
    assert isinstance(search, SearchPanel)
    wait(search.start.isEnabled)
    person.click(middle(search.start))
    wait(lambda: session.search.is_whole and not session.search.running)
    assert session.search.result is not None
    assert session.search.result.chosen is not None
    wait(lambda: len(session.runs) == 2 and session.runs[-1].state is JobState.DONE)
    chart = window.workspace.panel("chart")
    assert isinstance(chart, RunChart)
    slider = chart.budget.slider
    wait(slider.isEnabled)
    person.click(middle(slider))
    shown = session.recipe
    person.press("Home")
    wait(lambda: session.recipe != shown)
    low = session.recipe
    person.press("End")
    wait(lambda: session.recipe != low)
    points = [point for point in chart.points() if point.run == 2]
    assert points, "the searched recipe is a run in the chart"
    box = chart.chart.plotItem.vb

    def spot(x: float, y: float) -> QPoint:
        scene = box.mapViewToScene(QPointF(x, y))
        return chart.chart.viewport().mapToGlobal(chart.chart.mapFromScene(scene))

    QApplication.processEvents()
    person.double_click(spot(points[0].x, points[0].y))
    assert session.runs[1].request is not None
    wait(lambda: session.recipe == session.runs[1].request.recipe)  # type: ignore

    # Export it.
    target = tmp_path / "searched.onnx"
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

    # Compare the two runs and look at a flip.
    person.click(middle(window.top_bar.perspectives["compare"]))
    wait(lambda: window.perspective == "compare")
    session.compare.set_reference(1)
    window.show_panel("flips")
    flips = window.workspace.panel("flips")
    assert isinstance(flips, FlipsPanel)
    assert session.compare.flips is not None or session.compare.flips_blocked
    wait(lambda: bool(flips.words.text()))
    if flips.list.flips.rowCount():
        index = flips.list.flips.index(0, 0)
        person.click(flips.list.viewport().mapToGlobal(flips.list.visualRect(index).center()))
        wait(lambda: session.pictures.index == flips.list.flips.index_at(0))
    assert not [card for card in window.notices.cards if card.notice.level == "error"]
