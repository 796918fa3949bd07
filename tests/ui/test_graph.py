"""The graph panel with real clicks, wheel, drags and keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from large_model import make_large_model
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QImage, QMouseEvent, QWheelEvent
from PySide6.QtWidgets import QApplication, QMenu, QWidget
from ui_fakes import RecordedEngine

from qstudio.core.inspection import DepthErrors, LayerNoise
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.sensitivity import Candidate, Figures, SensitivityCell, SensitivityResult
from qstudio.session.graph_view import BLOCK
from qstudio.ui.action_table import ACTIONS
from qstudio.ui.actions import Actions
from qstudio.ui.graph.colors import PLAIN, STEPS, ColorScale
from qstudio.ui.graph.looks import bits_text
from qstudio.ui.graph.panel import GraphPanel
from qstudio.ui.main_window import MainWindow
from qstudio.ui.theme import theme

LEFT = Qt.MouseButton.LeftButton
PLAIN_KEY = Qt.KeyboardModifier.NoModifier
CONTROL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier
CONV1 = "stages.0.blocks.0.conv1"
CONV2 = "stages.0.blocks.0.conv2"
BESIDE = "stages.0.blocks.0.beside"


@pytest.fixture
def studio(make_studio: Callable[..., Any]) -> Any:
    studio = make_studio(RecordedEngine(make_large_model(27)))
    studio.open()
    return studio


@pytest.fixture
def panel(studio: Any) -> GraphPanel:
    panel = GraphPanel(studio.session, studio.bridge)
    studio.show(panel, 700, 800)
    settle(studio, panel)
    return panel


def settle(studio: Any, panel: GraphPanel) -> None:
    studio.settle()
    studio.qtbot.waitUntil(lambda: not panel.working)


def spot(panel: GraphPanel, key: str) -> QPoint:
    assert panel.drawing is not None
    return panel.canvas.to_screen(panel.drawing.rect(panel.drawing.index[key]).center()).toPoint()


def click(studio: Any, panel: GraphPanel, key: str, modifier: Qt.KeyboardModifier = PLAIN_KEY) -> None:
    node = panel.drawing.index[key]  # type: ignore[union-attr]
    panel.canvas.bring_into_view(node)
    studio.qtbot.mouseClick(panel.canvas, LEFT, modifier, spot(panel, key))


def drag(widget: QWidget, start: QPointF, end: QPointF, modifier: Qt.KeyboardModifier = PLAIN_KEY) -> None:
    """Drag as a hand does: QTest's moves carry no buttons."""
    kinds = (QMouseEvent.Type.MouseButtonPress, QMouseEvent.Type.MouseMove, QMouseEvent.Type.MouseMove)
    places = (start, (start + end) / 2, end)
    for kind, place in zip(kinds, places, strict=True):
        button = LEFT if kind == QMouseEvent.Type.MouseButtonPress else Qt.MouseButton.NoButton
        QApplication.sendEvent(widget, QMouseEvent(kind, place, widget.mapToGlobal(place), button, LEFT, modifier))
    up = QMouseEvent.Type.MouseButtonRelease
    QApplication.sendEvent(
        widget, QMouseEvent(up, end, widget.mapToGlobal(end), LEFT, Qt.MouseButton.NoButton, modifier)
    )


def wheel(widget: QWidget, place: QPointF, notches: int) -> None:
    event = QWheelEvent(
        place, widget.mapToGlobal(place), QPoint(), QPoint(0, 120 * notches), Qt.MouseButton.NoButton, PLAIN_KEY,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(widget, event)


def look(panel: GraphPanel, key: str) -> Any:
    return panel.drawing.looks[panel.drawing.index[key]]  # type: ignore[union-attr]


def color(panel: GraphPanel, key: str) -> int:
    return int(panel.drawing.colors[panel.drawing.index[key]])  # type: ignore[union-attr]


# ---- what is shown


def test_every_layer_is_a_node_with_bits_figure_and_colour(studio: Any, panel: GraphPanel) -> None:
    drawing = panel.drawing
    assert drawing is not None
    assert [item.key for item in drawing.view.items] == [layer.name for layer in studio.session.model.layers]
    assert (look(panel, CONV1).weight, look(panel, CONV1).activation) == ("W8", "A8")
    assert look(panel, CONV1).value.endswith(" dB")
    assert color(panel, CONV1) != PLAIN
    assert look(panel, "x").value == ""
    assert color(panel, "x") == PLAIN
    assert [frame.block.title for frame in drawing.frames] == [f"stages.0.blocks.{number}" for number in range(5)]


def test_an_edit_heats_its_node_and_undo_cools_it_and_nothing_moves(studio: Any, panel: GraphPanel) -> None:
    canvas = panel.canvas
    for name in (CONV1, CONV2):  # the engine's answers; estimates with "~" before, of another colour perhaps
        studio.qtbot.waitUntil(lambda name=name: look(panel, name).value[:1].isdigit())
    canvas.zoom_by(1.3)
    where, zoom, cool = QPointF(canvas.origin), canvas.scale, color(panel, CONV2)
    others = color(panel, CONV1)
    studio.session.set_layers("w2", (CONV2,), weight_bits=2)
    settle(studio, panel)
    assert look(panel, CONV2).weight == "W2"
    assert look(panel, CONV2).weight_set
    assert look(panel, CONV2).value.startswith("■"), "under 20 dB is marked with a sign, not by colour alone"
    assert color(panel, CONV2) > cool
    assert color(panel, CONV1) == others, "the other nodes keep their colours"
    assert (canvas.origin, canvas.scale) == (where, zoom)
    studio.session.undo()
    settle(studio, panel)
    assert color(panel, CONV2) == cool
    assert not look(panel, CONV2).weight_set


@pytest.mark.parametrize(
    ("metric", "text"), [("macs", "k"), ("share", " %"), ("weight_bits", "8 bits"), ("activation_bits", "8 bits")]
)
def test_metrics_of_the_model_itself(studio: Any, panel: GraphPanel, metric: str, text: str) -> None:
    panel.set_metric(metric)
    assert text in look(panel, CONV1).value
    values = {
        layer.name: figure.value
        for layer in studio.session.model.weighted_layers
        if (figure := panel.figures.figure(metric, layer)) is not None
    }
    if metric == "macs":
        assert values[CONV1] == studio.session.model.layer(CONV1).macs
        largest = max(values, key=values.__getitem__)
        assert color(panel, largest) == STEPS - 1
    if metric == "share":
        assert sum(values.values()) == pytest.approx(100, abs=3), "all but encodings of outputs"


def test_exact_weight_errors_are_asked_for_what_is_seen(studio: Any, panel: GraphPanel) -> None:
    studio.qtbot.waitUntil(lambda: look(panel, CONV1).value == "44.0 dB")  # the engine's answer; "~" before
    asked = [request for request in studio.engine.asked if type(request).__name__ == "LayerPreview"]
    assert len(asked) == len({request.layer for request in asked})
    last = studio.session.model.layers[-1].name
    assert last not in {request.layer for request in asked}, "it is out of sight"
    studio.session.select([last])
    studio.qtbot.waitUntil(lambda: look(panel, last).value == "44.0 dB")


def test_no_colour_shows_nodes_without_figures(studio: Any, panel: GraphPanel) -> None:
    panel.set_metric("none")
    assert (panel.drawing.colors == PLAIN).all()  # type: ignore[union-attr]
    assert look(panel, CONV1).value == ""


def test_a_float_layer_says_so_and_has_no_colour(studio: Any, panel: GraphPanel) -> None:
    studio.session.set_layers("float", (CONV1,), weight_bits=FLOAT_BITS)
    settle(studio, panel)
    assert look(panel, CONV1).weight == "Wf"
    assert look(panel, CONV1).value == ""
    panel.set_metric("weight_bits")
    assert look(panel, CONV1).value == "float"
    assert color(panel, CONV1) == PLAIN


def test_bits_of_several_layers_in_short() -> None:
    assert bits_text("W", (4, 8, None, 4)) == "W4–8"
    assert bits_text("A", (FLOAT_BITS,)) == "Af"
    assert bits_text("A", (None,)) == ""


def test_bright_is_bad_or_much() -> None:
    assert ColorScale(10, 50, "low").step(10) == STEPS - 1
    assert ColorScale(10, 50, "low").step(float("inf")) == 0
    assert ColorScale(10, 50, "high").step(60) == STEPS - 1
    assert ColorScale(1, 100, log=True).step(10) == STEPS // 2
    assert ColorScale(1, 1).step(1) == STEPS // 2
    assert ColorScale(0, 1).step(float("nan")) == PLAIN


def depth_of(session: Any, noise: dict[str, float]) -> DepthErrors:
    layers = tuple(
        LayerNoise(layer.name, f"{layer.name}.out", 1.0, noise.get(layer.name, 1e-5), 1e-4, 1e-3)
        for layer in session.model.layers
    )
    return DepthErrors(session.recipe.sha256(), 100, layers)


def test_error_over_depth_colours_nodes_and_widens_edges(studio: Any, panel: GraphPanel) -> None:
    panel.set_metric("accumulated")
    settle(studio, panel)
    assert look(panel, CONV1).value.endswith(" dB"), "it was asked for"
    depth = depth_of(studio.session, {CONV1: 0.1})
    studio.session.preview._depth._set(depth)
    settle(studio, panel)
    assert look(panel, CONV1).value == "■ 10.0 dB"
    assert color(panel, CONV1) == STEPS - 1
    drawing = panel.drawing
    assert drawing is not None
    by_carrier = dict(zip(drawing.view.carriers, drawing.widths.tolist(), strict=True))
    assert by_carrier[CONV1] == 3
    assert by_carrier[CONV2] == 0
    panel.set_metric("isolated")
    assert look(panel, CONV1).value == "40.0 dB"
    panel.set_metric("downstream")
    assert look(panel, CONV1).value == "30.0 dB"
    studio.session.preview._depth._set(None)
    settle(studio, panel)
    assert look(panel, CONV1).value == "(30.0 dB)", "in brackets until that of the present recipe is there"


def test_depth_is_wanted_only_while_it_is_seen(studio: Any, panel: GraphPanel) -> None:
    wishes = studio.session.preview._wishes
    panel.set_metric("accumulated")
    assert len(wishes) == 1
    panel.hide()
    assert not wishes
    panel.show()
    assert len(wishes) == 1
    panel.set_metric("macs")
    assert not wishes


def test_sensitivity_is_shown_when_it_is_measured(studio: Any, panel: GraphPanel) -> None:
    panel.set_metric("sensitivity")
    assert "run a sensitivity sweep" in panel.head.scale.accessibleDescription()
    low, high = Candidate(8), Candidate(2)
    cells = [
        SensitivityCell(name, candidate, Figures(100, 99.0, 20.0, kl))
        for name, kl in ((CONV1, 0.5), (CONV2, 0.01))
        for candidate in (low, high)
    ]
    result = SensitivityResult("enable", (low, high), tuple(cells), studio.session.recipe, "m", "d", 0)
    studio.session.sensitivity._result = result
    studio.session.sensitivity._emit()
    settle(studio, panel)
    assert look(panel, CONV1).value == "0.5 nats"
    assert color(panel, CONV1) == STEPS - 1
    assert color(panel, CONV2) == 0
    assert panel.figures.sweep_candidate() == high


# ---- blocks


def test_blocks_close_and_open_and_the_node_stays_under_the_pointer(studio: Any, panel: GraphPanel) -> None:
    studio.session.set_layers("w3", (CONV2,), weight_bits=3)
    settle(studio, panel)
    key = "block stages.0.blocks.0"
    before = spot(panel, CONV1)
    frame = panel.drawing.frames[0].rect  # type: ignore[union-attr]
    title = panel.canvas.to_screen(QPointF(frame.left() + 30, frame.top() + 9)).toPoint()
    studio.qtbot.mouseDClick(panel.canvas, LEFT, PLAIN_KEY, title)
    settle(studio, panel)
    drawing = panel.drawing
    assert drawing is not None
    assert CONV1 not in drawing.index
    item = drawing.view.items[drawing.index[key]]
    assert (item.type, item.nodes) == (BLOCK, 5)
    assert look(panel, key).weight == "W3–8"
    worst = panel.figures.figure("weight_sqnr", studio.session.model.layer(CONV2))
    assert worst is not None
    assert f"{worst.value:.1f} dB" in look(panel, key).value, "a block shows its worst layer"
    assert (spot(panel, key) - before).manhattanLength() <= 3
    studio.qtbot.mouseDClick(panel.canvas, LEFT, PLAIN_KEY, spot(panel, key))
    settle(studio, panel)
    assert CONV1 in panel.drawing.index  # type: ignore[union-attr]
    panel.close_all()
    settle(studio, panel)
    assert [item.type for item in panel.drawing.view.items].count(BLOCK) == 5  # type: ignore[union-attr]
    panel.open_all()
    settle(studio, panel)
    assert BLOCK not in {item.type for item in panel.drawing.view.items}  # type: ignore[union-attr]


def test_a_closed_block_selects_all_its_layers_and_keys_set_their_bits(studio: Any, panel: GraphPanel) -> None:
    panel.close_all()
    settle(studio, panel)
    key = "block stages.0.blocks.1"
    click(studio, panel, key)
    names = [layer.name for layer in studio.session.model.layers if ".blocks.1." in layer.name]
    assert list(studio.session.selection) == names
    studio.session.select(names[:1])
    node = panel.drawing.index[key]  # type: ignore[union-attr]
    assert panel.drawing.touched[node]  # type: ignore[union-attr]
    assert not panel.drawing.selected[node]  # type: ignore[union-attr]
    studio.key(panel.canvas, Qt.Key.Key_Return)
    settle(studio, panel)
    assert names[0] in panel.drawing.index  # type: ignore[union-attr]


def test_large_models_start_with_their_blocks_closed(make_studio: Callable[..., Any]) -> None:
    studio = make_studio(RecordedEngine(make_large_model(202)))
    studio.open("")
    panel = GraphPanel(studio.session, studio.bridge)
    studio.show(panel, 500, 700)
    settle(studio, panel)
    assert panel.drawing is not None
    assert len(panel.drawing.view.items) == 2 + 40
    assert panel.canvas.scale >= 0.6, "what does not fit is shown from its top, so that it can be read"


# ---- the person


def test_clicks_select_everywhere_and_the_session_selects_in_the_graph(studio: Any, panel: GraphPanel) -> None:
    click(studio, panel, CONV1)
    assert studio.session.selection == (CONV1,)
    click(studio, panel, BESIDE, CONTROL)
    assert studio.session.selection == (BESIDE, CONV1), "the one clicked last is what the inspector shows"
    click(studio, panel, CONV1, CONTROL)
    assert studio.session.selection == (BESIDE,)
    last = studio.session.model.layers[-1].name
    studio.session.select([last])
    drawing = panel.drawing
    assert drawing is not None
    node = drawing.index[last]
    assert drawing.selected[node]
    assert panel.canvas.seen().contains(drawing.rect(node)), "what is selected elsewhere comes into view"


def test_keys_of_the_window_set_bits_while_the_graph_has_the_focus(studio: Any, panel: GraphPanel) -> None:
    commands = type("C", (), {"session": studio.session, "window": panel})()
    Actions(tuple(spec for spec in ACTIONS if spec.menu.startswith("Edit")), commands, panel)
    click(studio, panel, CONV1)
    studio.key(panel.canvas, Qt.Key.Key_4)
    assert studio.session.settings(CONV1).weight_bits == 4
    studio.key(panel.canvas, Qt.Key.Key_F)
    assert studio.session.settings(CONV1).weight_bits == FLOAT_BITS
    studio.key(panel.canvas, Qt.Key.Key_Delete)
    assert studio.session.settings(CONV1).weight_bits == 8
    studio.key(panel.canvas, Qt.Key.Key_Slash)
    assert panel.head.search.hasFocus(), "here / finds nodes; elsewhere it filters the table"


def test_arrows_walk_along_edges(studio: Any, panel: GraphPanel) -> None:
    click(studio, panel, CONV1)
    studio.key(panel.canvas, Qt.Key.Key_Down)
    assert studio.session.selection == (CONV2,)
    studio.key(panel.canvas, Qt.Key.Key_Up)
    assert studio.session.selection == (CONV1,)
    studio.key(panel.canvas, Qt.Key.Key_Up)
    assert studio.session.selection == ("x",)
    studio.key(panel.canvas, Qt.Key.Key_Up)
    assert studio.session.selection == ("x",), "there is nothing above the input"
    beside = next(n for n in (CONV1, BESIDE) if panel.drawing.layout.rank[panel.drawing.index[n]] == 1)  # type: ignore[union-attr]
    click(studio, panel, beside)
    studio.key(panel.canvas, Qt.Key.Key_Down, SHIFT)
    assert len(studio.session.selection) == 2


def test_the_wheel_zooms_about_the_pointer_and_a_drag_moves(studio: Any, panel: GraphPanel) -> None:
    canvas = panel.canvas
    place = QPointF(200, 300)
    fixed = canvas.to_plane(place)
    zoom = canvas.scale
    wheel(canvas, place, 2)
    assert canvas.scale == pytest.approx(zoom * 1.44)
    assert (canvas.to_plane(place) - fixed).manhattanLength() < 1e-6
    origin = QPointF(canvas.origin)
    drag(canvas, QPointF(20, 400), QPointF(80, 350))
    assert canvas.origin - origin == QPointF(60, -50)
    assert studio.session.selection, "panning selects nothing else"
    studio.key(canvas, Qt.Key.Key_0)
    assert canvas.seen().contains(panel.drawing.bounds().center())  # type: ignore[union-attr]
    assert canvas.scale == pytest.approx(canvas.fitting_scale())
    for _ in range(60):
        wheel(canvas, place, -1)
    assert canvas.scale == pytest.approx(min(canvas.fitting_scale(), 0.1))
    for _ in range(80):
        studio.key(canvas, Qt.Key.Key_Plus)
    assert canvas.scale == 3.0
    canvas.pan_by(1e6, 1e6)
    assert canvas.seen().intersects(panel.drawing.bounds()), "the graph is never lost"  # type: ignore[union-attr]


def test_a_rectangle_with_shift_selects_what_it_meets(studio: Any, panel: GraphPanel) -> None:
    first, second = spot(panel, CONV1), spot(panel, CONV2)
    drag(panel.canvas, QPointF(first) - QPointF(5, 5), QPointF(second) + QPointF(5, 5), SHIFT)
    assert {CONV1, CONV2} <= set(studio.session.selection)
    assert "x" not in studio.session.selection


def test_search_finds_steps_on_and_says_when_there_is_nothing(studio: Any, panel: GraphPanel) -> None:
    panel.head.search.setFocus()
    studio.qtbot.keyClicks(panel.head.search, "CONV2")
    names = [layer.name for layer in studio.session.model.layers if layer.name.endswith("conv2")]
    assert studio.session.selection == (names[0],)
    studio.qtbot.keyClick(panel.head.search, Qt.Key.Key_Return)
    assert studio.session.selection == (names[1],)
    studio.qtbot.keyClick(panel.head.search, Qt.Key.Key_Return, SHIFT)
    studio.qtbot.keyClick(panel.head.search, Qt.Key.Key_Return, SHIFT)
    assert studio.session.selection == (names[-1],), "it goes round"
    studio.qtbot.keyClick(panel.head.search, Qt.Key.Key_Escape)
    assert panel.canvas.hasFocus()
    studio.key(panel.canvas, Qt.Key.Key_N)
    assert studio.session.selection == (names[0],)
    panel.head.search.setText("nothing like it")
    assert panel.head.search.accessibleDescription() == "No node fits"
    assert studio.session.selection == (names[0],)


def test_the_map_shows_and_moves_what_is_seen(studio: Any, panel: GraphPanel) -> None:
    canvas = panel.canvas
    canvas.scale = 1.5
    canvas.center_on(QPointF(100, 100))
    top = canvas.seen().center().y()
    middle = QPointF(canvas.map.width() / 2, canvas.map.height() - 12)
    drag(canvas.map, QPointF(middle.x(), 10), middle)
    assert canvas.seen().center().y() > top + 200
    assert not canvas.map.isHidden()


def test_the_menu_sets_bits_resets_and_opens_blocks(studio: Any, panel: GraphPanel) -> None:
    click(studio, panel, CONV1)
    menu = panel.canvas.menu()
    panel._extend_menu(menu)
    texts = [action.text() for action in menu.actions() if action.text()]
    assert texts[:4] == ["Weight bits", "Activation bits", "Leave in float", "Reset to inherited"]
    assert {"Close this block", "Close all blocks", "Copy picture", "Show everything"} <= set(texts)
    sub = menu.actions()[0].menu()
    assert isinstance(sub, QMenu)
    next(action for action in sub.actions() if action.text() == "5").trigger()
    assert studio.session.settings(CONV1).weight_bits == 5
    next(action for action in menu.actions() if action.text() == "Reset to inherited").trigger()
    assert studio.session.settings(CONV1).weight_bits == 8
    next(action for action in menu.actions() if action.text() == "Close this block").trigger()
    settle(studio, panel)
    assert CONV1 not in panel.drawing.index  # type: ignore[union-attr]
    menu.deleteLater()


def test_tooltips_tell_everything_about_a_node(studio: Any, panel: GraphPanel) -> None:
    node = panel.drawing.index[CONV1]  # type: ignore[union-attr]
    told = panel.canvas.tell(node)
    layer = studio.session.model.layer(CONV1)
    for words in (CONV1, f"Conv {layer.title}", f"{layer.parameters:,} parameters", "MACs", "int8", "Weight SQNR:"):
        assert words in told
    panel.close_all()
    settle(studio, panel)
    assert "5 nodes" in panel.canvas.tell(panel.drawing.index["block stages.0.blocks.0"])  # type: ignore[union-attr]


# ---- out, and nothing to show


def test_pictures_and_numbers_are_taken_away(studio: Any, panel: GraphPanel, tmp_path: Path) -> None:
    panel.canvas.save(tmp_path / "g.png")
    image = QImage(str(tmp_path / "g.png"))
    bounds = panel.drawing.bounds()  # type: ignore[union-attr]
    assert abs(image.width() - 2 * bounds.width()) <= 2
    assert abs(image.height() - 2 * (bounds.height() + 64)) <= 2, "the key of the colours stands above"
    panel.canvas.save(tmp_path / "g.svg")
    svg = (tmp_path / "g.svg").read_text()
    assert "stages.0.blocks.0" in svg
    assert "bad 10 dB" in svg
    panel.canvas.save(tmp_path / "g.csv")
    lines = (tmp_path / "g.csv").read_text().splitlines()
    assert lines[0].startswith("layer,type,shape,block,parameters,macs,weight_bits,activation_bits,")
    assert len(lines) == 1 + len(studio.session.model.layers)
    row = next(line for line in lines if line.startswith(f"{CONV1},"))
    assert ",stages.0.blocks.0," in row
    panel.canvas.copy_picture()
    assert not QApplication.clipboard().image().isNull()
    assert len(studio.notices) == 4


def test_without_a_model_there_are_words(make_studio: Callable[..., Any]) -> None:
    studio = make_studio()
    panel = GraphPanel(studio.session, studio.bridge)
    studio.show(panel, 400, 500)
    assert panel.canvas.message == "No model is open"
    assert panel.canvas.accessibleDescription() == "No model is open"
    assert not panel.canvas.menu().actions()[0].isEnabled()


def test_data_is_asked_for_where_a_metric_needs_it(make_studio: Callable[..., Any]) -> None:
    studio = make_studio(RecordedEngine(make_large_model(12)))
    studio.open("")
    panel = GraphPanel(studio.session, studio.bridge)
    studio.show(panel, 400, 500)
    panel.set_metric("accumulated")
    assert "Choose a dataset first" in panel.head.scale.accessibleDescription()
    panel.set_metric("weight_sqnr")
    settle(studio, panel)
    assert panel.head.scale.accessibleDescription() == "50 dB good – bad 10 dB"


def test_hidden_it_does_nothing_and_catches_up(studio: Any, panel: GraphPanel) -> None:
    drawing = panel.drawing
    panel.hide()
    studio.session.set_layers("w2", (CONV1,), weight_bits=2)
    studio.engine.model = replace(make_large_model(12), sha256="2" * 64)
    studio.session.open_model("/models/other.onnx")
    studio.settle()
    assert not panel.working
    panel.show()
    settle(studio, panel)
    assert panel.drawing is not drawing
    assert len(panel.drawing.view.items) == 12  # type: ignore[union-attr]


def test_it_is_readable_at_every_zoom_and_in_both_themes(studio: Any, panel: GraphPanel) -> None:
    """Each level of detail paints something, and the theme reaches all of it."""
    for zoom in (1.2, 0.5, 0.2):
        panel.canvas.scale = zoom
        panel.canvas.center_on(panel.drawing.bounds().center())  # type: ignore[union-attr]
        grounds = []
        for mode in ("light", "dark"):
            theme().set_mode(mode)
            image = panel.canvas.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
            pixels = np.frombuffer(bytes(image.constBits()), np.uint32)
            assert len(np.unique(pixels)) > 6
            grounds.append(np.bincount(pixels & 0xFF).argmax())
        assert grounds[0] > 200 > 80 > grounds[1]
    theme().set_mode("light")


def test_zooming_the_window_zooms_the_graph(studio: Any, panel: GraphPanel) -> None:
    scale, width = panel.canvas.scale, panel.canvas.map.width()
    theme().set_zoom(1.5)
    assert panel.canvas.scale == pytest.approx(1.5 * scale)
    assert panel.canvas.map.width() > width
    theme().set_zoom(1.0)
    assert panel.canvas.scale == pytest.approx(scale)


def test_in_the_window_it_stands_beside_the_layers_or_in_a_tab(make_studio: Callable[..., Any]) -> None:
    studio = make_studio(RecordedEngine(make_large_model(12)))
    window = MainWindow(studio.session, studio.bridge)
    studio.show(window, 1280, 720)
    window.build_all()
    studio.open()
    panel = window.workspace.panel("graph")
    assert isinstance(panel, GraphPanel)
    assert not panel.isVisible()
    window.actions_table["graph"].trigger()
    settle(studio, panel)
    assert panel.isVisible()
    assert panel.canvas.hasFocus()
    studio.session.select([CONV1])
    studio.qtbot.keyClick(panel.canvas, Qt.Key.Key_3)
    assert studio.session.settings(CONV1).weight_bits == 3
    studio.qtbot.keyClick(panel.canvas, Qt.Key.Key_Slash)
    assert panel.head.search.hasFocus()
    studio.qtbot.keyClicks(panel.head.search, "4")
    assert studio.session.settings(CONV1).weight_bits == 3, "a digit in the search is a digit"
    window.workspace.show_panel("layer_table")
    assert not panel.isVisible()
    window.resize(1600, 900)
    studio.settle()
    settle(studio, panel)
    assert panel.isVisible()
    assert window.layer_table.isVisible()
