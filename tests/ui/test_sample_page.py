"""One sample through the layers, and weights as images, with real clicks, keys and pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QImage, QMouseEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from ui_fakes import RecordedEngine, make_model, make_result

from qstudio.core.inspection import LayerMaps, SampleTrace, WeightPictures
from qstudio.core.predictions import Predictions
from qstudio.engine.messages import Failure, PictureWeights, TraceSample
from qstudio.ui.data.sample_grid import SampleGrid
from qstudio.ui.inspector import InspectorPanel
from qstudio.ui.inspector.panel import CHANNELS, IMAGE, SAMPLE
from qstudio.ui.inspector.sample_page import SamplePage
from qstudio.ui.inspector.sample_words import best_scores, channels_across, input_image, map_images, map_words, verdict
from qstudio.ui.inspector.weight_images import channel_at, weight_images, weight_words
from qstudio.ui.main_window import MainWindow
from qstudio.ui.plots.colour_maps import diverging_table, mapped, viridis_table
from qstudio.ui.plots.image_grid import ImageGrid
from qstudio.ui.plots.images import Image
from qstudio.ui.theme import theme

LAYER = "block0.conv"


def maps_of(name: str, seed: int, channels: int = 6, side: int = 8, flips: bool = False) -> LayerMaps:
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.standard_normal((channels, side, side)), 0).astype(np.float32)
    quantized = np.round(values * 4) / 4
    return LayerMaps(
        name, f"{name}.out", (channels, side, side), values, quantized.astype(np.float32), 30.0 - seed, channels, flips
    )


def trace_of(index: int, names: tuple[str, ...], classes: int = 10, **changes: Any) -> SampleTrace:
    scores = np.full(classes, 0.1 / (classes - 1), np.float32)
    before, after = scores.copy(), scores.copy()
    before[3], after[8 % classes] = 0.9, 0.9
    layers = tuple(maps_of(name, n, flips=n >= 2) for n, name in enumerate(names))
    trace = SampleTrace(
        index,
        3,
        np.arange(64, dtype=np.uint8).reshape(8, 8) * 4,
        layers,
        before,
        after,
        "hash",
        names[2],
        tuple(f"class {n}" for n in range(classes)),
    )
    return replace(trace, **changes)


def kernels(layer: str, shape: tuple[int, ...] = (6, 4, 3, 3)) -> WeightPictures:
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((shape[0] * 3, shape[1] * 3)).astype(np.float32)
    codes = np.round(plane * 4).astype(np.int32)
    error = np.abs(rng.standard_normal(shape[:2])).astype(np.float32)
    return WeightPictures(
        layer, shape, plane, (codes / 4).astype(np.float32), (3, 3), 1, "rows of kernels", (), error, codes, 0, shape[0]
    )


class PictureEngine(RecordedEngine):
    """Answers with pictures."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.failure: Failure | None = None
        self.changes: dict[str, Any] = {}
        """Of every trace."""

    def answer(self, request: Any) -> Any:
        names = tuple(layer.name for layer in self.model.layers)
        if isinstance(request, TraceSample):
            return self.failure or trace_of(request.index, names, **self.changes)
        if isinstance(request, PictureWeights):
            return self.failure or kernels(request.layer)
        return super().answer(request)


@pytest.fixture
def engine() -> PictureEngine:
    return PictureEngine(make_model(4))


@pytest.fixture
def studio(make_studio: Callable[..., Any], engine: PictureEngine) -> Any:
    return make_studio(engine)


@pytest.fixture
def panel(studio: Any) -> InspectorPanel:
    studio.open()
    studio.session.select((LAYER,))
    panel = InspectorPanel(studio.session, studio.bridge)
    studio.show(panel, 440, 900)
    return panel


@pytest.fixture
def page(studio: Any) -> SamplePage:
    """The page alone, told of changes as the panel tells it."""
    studio.open()
    studio.session.select((LAYER,))
    page = SamplePage(studio.session)
    bridge = studio.bridge
    for signal in (bridge.sample_traced, bridge.selection_changed, bridge.recipe_changed, bridge.runs_changed):
        signal.connect(lambda _value: page.refresh(studio.session.current_layer))
    studio.show(page, 440, 820)
    studio.settle()
    return page


def asked(engine: PictureEngine, kind: type) -> list[Any]:
    return [request for request in engine.asked if isinstance(request, kind)]


def click(figure: Any, x: float, y: float) -> None:
    QTest.mouseClick(
        figure.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(round(x), round(y))
    )


def move(figure: Any, x: float, y: float) -> None:
    spot, none = QPointF(x, y), Qt.MouseButton.NoButton
    there = QPointF(figure.viewport().mapToGlobal(spot))
    event = QMouseEvent(QEvent.Type.MouseMove, spot, there, none, none, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(figure.viewport(), event)


# ---- the sample


def test_the_tab_asks_only_while_it_is_open_and_leads_on(
    studio: Any, panel: InspectorPanel, engine: PictureEngine
) -> None:
    assert not asked(engine, TraceSample)
    assert not asked(engine, PictureWeights)
    panel.tabs.setCurrentIndex(SAMPLE)
    studio.settle()
    assert len(asked(engine, TraceSample)) == 1
    panel.tabs.setCurrentIndex(0)
    studio.session.set_layers("4 bits", (LAYER,), weight_bits=4)
    studio.settle()
    assert len(asked(engine, TraceSample)) == 1
    panel.tabs.setCurrentIndex(SAMPLE)
    studio.settle()
    assert asked(engine, TraceSample)[-1].preview.recipe == studio.session.recipe

    # A sample that is asked for comes to the front.
    panel.tabs.setCurrentIndex(0)
    studio.session.pictures.show_sample(12)
    studio.settle()
    assert panel.tabs.currentIndex() == SAMPLE
    assert panel.sample.number.value() == 12
    assert panel.sample.verdict.full_text

    # Space flips from the tabs too.
    studio.key(panel.tabs.tabBar(), Qt.Key.Key_Space)
    assert panel.sample.maps.view == "quantized"
    panel.sample.maps.set_view("all")

    # A click on a map selects the channel.
    studio.settle()
    grid = panel.sample.maps.grid
    rect = grid._rects(grid.viewport().size())[0]
    click(grid, rect.left() + 0.5 * rect.width() / 3 + rect.width() / 3, rect.top() + 3)
    assert panel.tabs.currentIndex() == CHANNELS
    assert panel.channels.side == "activation"
    assert panel.channels.hovered.text().startswith("channel 1: ")


def test_a_sample_is_shown_with_its_scores_layers_and_maps(studio: Any, page: Any) -> None:
    assert page.message == ""
    assert page.verdict.full_text == "✗ Flips to wrong: class 3 → class 8"
    assert page.verdict.property("role") == "worse"
    assert [score.name for score in page.scores.scores][:2] == ["class 3", "class 8"]
    assert page.scores.scores[0].is_label
    assert page.scores.scores[0].float_first
    assert page.scores.scores[1].quantized_first
    assert len(page.scores.scores) == 5
    assert "class 3: float 90.0 %" in page.scores.accessibleDescription()
    assert page.strip.flips_at == page.strip.layers[2].name
    assert page.strip.current == LAYER
    assert page.count.text() == "of 60"
    assert not page.maps.grid.message
    assert [image.title for image in page.maps.grid.images] == ["float", "quantized", "quantized − float"]

    # A click in the strip, or an arrow, selects the layer.
    plot = page.strip._plot(page.strip.viewport().size())
    step = plot.width() / len(page.strip.layers)
    click(page.strip, plot.left() + 3.5 * step, plot.center().y())
    assert studio.session.selection == (page.strip.layers[3].name,)
    studio.settle()
    assert page.title.full_text.startswith(f"Output of {page.strip.layers[3].name}: 27.0 dB")
    studio.key(page.strip, Qt.Key.Key_Left)
    assert studio.session.selection == (page.strip.layers[2].name,)
    assert "from here on the class is the quantized one" in page.strip.words(page.strip.layers[2])

    # Space flips float and quantized on one scale.
    both = page.maps.grid.ranges["value"]
    studio.key(page.maps.grid, Qt.Key.Key_Space)
    assert page.maps.view == "quantized"
    assert page.maps.grid.ranges["value"] == both
    studio.key(page.strip, Qt.Key.Key_Space)
    assert page.maps.view == "float"
    assert [image.title for image in page.maps.grid.images] == ["float"]
    assert page.maps.grid.ranges["value"] == both
    page.maps.views.button("difference").click()
    low, high = page.maps.grid.ranges["difference"]
    assert low == -high


def test_samples_are_stepped_through_and_typed(studio: Any, page: Any, engine: PictureEngine) -> None:
    assert not page.previous.isEnabled()
    page.next.click()
    studio.settle()
    assert asked(engine, TraceSample)[-1].index == 1
    assert page.number.value() == 1
    page.number.setFocus()
    page.number.selectAll()
    QTest.keyClicks(page.number, "59")
    QTest.keyClick(page.number, Qt.Key.Key_Return)
    studio.settle()
    assert studio.session.pictures.index == 59
    assert not page.next.isEnabled()
    page.previous.click()
    studio.settle()
    assert asked(engine, TraceSample)[-1].index == 58

    # An edit leaves the old picture pale until the new one is there.
    studio.session.set_layers("4 bits", (LAYER,), weight_bits=4)
    page.refresh(page.layer)
    assert page.maps.grid.faded
    assert page.scores.faded
    assert page.strip.faded
    studio.settle()
    assert not page.maps.grid.faded
    assert not page.scores.faded

    # Token ids are words.
    engine.changes = {"stored": np.arange(100, 150)}
    page.previous.click()
    studio.settle()
    assert page.input.message.startswith("50 token ids: 100 101 102")


def test_the_next_flipped_sample_is_found_when_a_run_is_there(studio: Any, page: Any, engine: PictureEngine) -> None:
    assert not page.flipped.isEnabled()
    assert page.flipped.toolTip() == "Run PTQ to know which samples flip"
    studio.session.run_ptq()
    margin = np.ones(3, np.float32)
    predictions = Predictions(
        np.array([4, 7, 9]), np.zeros(0, np.int64), np.zeros(3, np.int64), np.array([1, 0, 1]), margin, margin
    )
    result = make_result(studio.session.recipe, engine.model)
    engine.finish(engine.runs[0], replace(result, predictions=predictions))
    studio.settle()
    assert page.flipped.isEnabled()
    assert page.flipped.toolTip().startswith("2 samples changed their class")
    page.flipped.click()
    page.flipped.click()
    assert studio.session.pictures.index == 9
    page.flipped.click()
    assert studio.session.pictures.index == 4


def test_a_low_panel_gives_its_room_to_the_maps(studio: Any, panel: InspectorPanel) -> None:
    panel.tabs.setCurrentIndex(SAMPLE)
    studio.settle()
    page = panel.sample
    assert len(page.scores.scores) == 5
    assert panel.why.isVisible()
    panel.resize(560, 560)
    studio.settle()
    assert [score.name for score in page.scores.scores[:2]] == ["class 3", "class 8"]
    assert len(page.scores.scores) == 3
    assert not panel.why.isVisible()
    seen = page.maps.grid.mapTo(page, QPoint(0, 0)).y()
    assert seen < page.viewport().height() - 100
    panel.tabs.setCurrentIndex(0)
    assert panel.why.isVisible()


def test_the_window_leaves_another_perspective_for_a_sample(studio: Any) -> None:
    window = MainWindow(studio.session, studio.bridge)
    studio.show(window, 1280, 720)
    window.build_all()
    studio.open()
    window.show_panel("data_panel")
    grid = window.findChild(SampleGrid)
    grid.activated.emit(grid.samples.index(5))
    studio.settle()
    assert window.perspective == "explore"
    inspector = window.workspace.panel("inspector")
    assert inspector.isVisible()
    assert inspector.tabs.currentIndex() == SAMPLE
    assert studio.session.pictures.index == 5


def test_what_is_under_the_mouse_is_read_out_and_all_can_be_taken_away(studio: Any, page: Any) -> None:
    grid = page.maps.grid
    rect = grid._rects(grid.viewport().size())[1]
    rows, columns = grid.images[1].values.shape
    x, y = rect.left() + 9.5 * rect.width() / columns, rect.top() + 2.5 * rect.height() / rows
    move(grid, x, y)
    maps = page._session.pictures.maps(LAYER)
    across = columns // 8
    assert across > 1
    words = page.maps.hovered.full_text
    assert words.startswith("channel 1, row 2, column 1: float ")
    assert f"quantized {maps.quantized[1, 2, 1]:.4g}" in words
    QApplication.sendEvent(grid.viewport(), QEvent(QEvent.Type.Leave))
    assert page.maps.hovered.full_text == "6 × 8 × 8"

    # The keyboard reads and takes a place too.
    taken: list[Any] = []
    grid.place_clicked.connect(taken.append)
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Down, Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Return):
        studio.key(grid, key)
    assert page.maps.hovered.full_text.startswith("channel 0, row 0, column 1: float ")
    assert taken == [(0, 1)]

    # Every figure gives its numbers and its picture away.
    for figure in (page.input, page.scores, page.strip, page.maps.grid):
        assert figure.accessibleName()
        assert figure.toolTip()
        assert figure.picture().width() > 16
        assert figure.svg().startswith(b"<?xml")
        assert len(figure.csv_text().splitlines()) > 2
    lines = page.maps.grid.csv_text().splitlines()
    assert lines[0] == "row,column,float,quantized,quantized − float"
    values = page.maps.grid.images[0].values
    assert len(lines) == 1 + values.size
    assert float(lines[1].split(",")[2]) == pytest.approx(float(values[0, 0]))
    assert page.strip.csv_text().splitlines()[3].endswith(",28.0,1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("no model", "Open a model to follow a sample"),
        ("no data", "Choose a dataset to follow a sample"),
        ("not runnable", "The model cannot run here, so no sample goes through it: Wobble (/wobble)"),
        ("failed", "sample: there is no sample 77. Choose 0 to 59."),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(
    make_studio: Callable[..., Any], engine: PictureEngine, change: str, words: str
) -> None:
    if change == "not runnable":
        engine.model = replace(engine.model, unsupported=(("/wobble", "Wobble", "nobody knows it"),))
    if change == "failed":
        engine.failure = Failure("there is no sample 77", "sample", "Choose 0 to 59", "", True)
    studio = make_studio(engine)
    if change != "no model":
        studio.open("" if change == "no data" else "digits")
    page = SamplePage(studio.session)
    studio.show(page, 440, 700)
    studio.settle()
    page.refresh(studio.session.current_layer)
    assert page.message.startswith(words)
    assert not [notice for notice in studio.notices if notice.level == "error"], "it is said where one looks"


def test_a_sample_waits_for_the_statistics_and_says_so(studio: Any, engine: PictureEngine) -> None:
    studio.open("")
    studio.session.open_data("digits")
    engine.dispatch()
    page = SamplePage(studio.session)
    studio.show(page, 440, 700)
    assert page.message.startswith("The sample is shown as soon as the calibration samples")
    studio.settle()
    page.refresh(studio.session.current_layer)
    assert page.message == ""


# ---- kinds of samples and outputs


def test_verdicts() -> None:
    names = tuple(layer.name for layer in make_model(4).layers)
    trace = trace_of(0, names)
    assert verdict(replace(trace, label=8))[1] == "better"
    assert verdict(replace(trace, label=5)) == ("✗ Flips, wrong both times: class 3 → class 8, label class 5", "watch")
    assert verdict(replace(trace, label=None)) == ("The class flips: class 3 → class 8", "watch")
    same = replace(trace, quantized_scores=trace.float_scores)
    assert verdict(same) == ("✓ Both say class 3", "")
    assert verdict(replace(same, label=1))[0] == "✗ Both say class 3, label class 1"
    assert verdict(replace(same, class_names=(), label=None))[0] == "Both say 3"
    plain = replace(trace, float_scores=np.array([-4.0, 2.0], np.float32), quantized_scores=np.zeros(2, np.float32))
    assert verdict(plain)[0] == "The outputs are no class scores"
    assert [score.name for score in best_scores(plain)] == ["output 1", "output 0"]


def test_a_thousand_classes_show_the_best_five() -> None:
    names = tuple(layer.name for layer in make_model(4).layers)
    scores = best_scores(trace_of(0, names, classes=1000))
    assert len(scores) == 5
    assert scores[0].name == "class 3"
    assert any(score.name == "class 8" for score in scores)


@pytest.mark.parametrize(
    ("stored", "kind", "shape"),
    [
        (np.zeros((32, 32, 3), np.uint8), "picture", (32, 32, 3)),
        (np.zeros((28, 28), np.uint8), "picture", (28, 28)),
        (np.zeros((1, 49, 10), np.float32), "value", (49, 10)),
        (np.zeros(784, np.float32), "value", (1, 784)),
        (np.zeros((3, 16, 16), np.float32), "value", (16, 48)),
        (np.zeros((2, 3, 4, 5), np.float32), "value", (24, 5)),
    ],
)
def test_every_kind_of_sample_has_a_picture(stored: np.ndarray, kind: str, shape: tuple[int, ...]) -> None:
    image = input_image(stored)
    assert image is not None
    assert (image.kind, image.values.shape) == (kind, shape)


@pytest.mark.parametrize(
    ("shape", "across"), [((16, 8, 8), 4), ((16, 40, 54), 4), ((7, 8, 8), 3), ((16, 64, 4), 16), ((1, 8, 8), 1)]
)
def test_channels_fill_a_grid_about_as_wide_as_high(shape: tuple[int, ...], across: int) -> None:
    values = np.zeros(shape, np.float32)
    maps = LayerMaps("conv", "y", shape, values, values, 20.0, shape[0])
    assert channels_across(maps) == across
    image = map_images(maps)["float"]
    assert image.values.shape[1] == across * shape[2]
    assert map_words(maps, (image.values.shape[0] - 1, image.values.shape[1] - 1)) == "" or shape[0] % across == 0


def test_a_vector_is_drawn_as_curves() -> None:
    values = np.linspace(-1, 1, 10, dtype=np.float32).reshape(1, 1, 10)
    maps = LayerMaps("fc", "y", (10,), values, values + np.float32(0.1), 20.0, 1)
    images = map_images(maps)
    assert all(image.is_curve for image in images.values())
    assert map_words(maps, (0, 4)).startswith("value 4: float -0.1111, quantized -0.01111, difference +0.1")


# ---- colours


def rgb(image: QImage, x: int, y: int) -> tuple[int, int, int]:
    colour = image.pixelColor(x, y)
    return colour.red(), colour.green(), colour.blue()


def test_maps_put_numbers_where_they_belong() -> None:
    values = np.array([[-1.0, 0.0, 1.0]], np.float32)
    image = mapped(values, -1, 1, viridis_table())
    assert [rgb(image, n, 0) for n in (0, 2)] == [(68, 1, 84), (253, 231, 37)]
    diverging = mapped(np.repeat(values, 2, axis=0), -1, 1, diverging_table(False, "#F0F0F0"))
    low, middle, high = (rgb(diverging, n, 1) for n in range(3))
    assert low[0] > low[2], "orange below 0"
    assert high[2] > high[1], "purple above 0"
    assert max(abs(part - 0xF0) for part in middle) <= 1
    flat = mapped(np.full((2, 2), 3.0, np.float32), 3.0, 3.0, viridis_table())
    assert rgb(flat, 0, 0) == (68, 1, 84)
    assert rgb(mapped(np.array([[np.nan]], np.float32), 0, 1, viridis_table()), 0, 0) == (68, 1, 84)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_images_are_painted_where_the_mouse_finds_them(studio: Any, mode: str) -> None:
    theme().set_mode(mode)
    grid = ImageGrid("test")
    values = np.zeros((4, 6), np.float32)
    values[1, 5] = 1.0
    studio.show(grid, 500, 240)
    grid.set_images((Image("float", values), Image("quantized", values)))
    shown = grid.grab().toImage()
    for rect in grid._rects(grid.viewport().size()):
        x, y = rect.left() + 5.5 / 6 * rect.width(), rect.top() + 1.5 / 4 * rect.height()
        assert rgb(shown, round(x), round(y)) == (253, 231, 37)
        assert grid.place_at(QPoint(round(x), round(y))) == (1, 5)
    assert grid.place_at(QPoint(1, 239)) is None
    theme().set_mode("light")


# ---- weights


def test_a_weight_is_drawn_follows_its_scheme_and_selects_channels(
    studio: Any, panel: InspectorPanel, engine: PictureEngine
) -> None:
    panel.tabs.setCurrentIndex(IMAGE)
    studio.settle()
    page = panel.image
    assert page.message == ""
    grid = page.images.grid
    assert [image.title for image in grid.images] == ["float", "quantized", "quantized − float", "error of each kernel"]
    assert set(grid.ranges) == {"value", "difference", "error"}
    rect = grid._rects(grid.viewport().size())[3]
    x, y = rect.left() + 2.5 / 4 * rect.width(), rect.top() + 4.5 / 6 * rect.height()
    move(grid, x, y)
    words = page.images.hovered.full_text
    assert words.startswith("channel 4, input channel 2, row 0, column 0: float ")
    assert "code " in words
    assert "error " in words
    click(grid, x, y)
    assert panel.tabs.currentIndex() == CHANNELS
    assert panel.channels.side == "weight"

    # Space flips, also where a figure has the focus.
    panel.tabs.setCurrentIndex(IMAGE)
    studio.key(grid, Qt.Key.Key_Space)
    studio.key(grid, Qt.Key.Key_Space)
    assert page.images.view == "float"

    # The picture follows the scheme.
    panel.tabs.setCurrentIndex(IMAGE)
    studio.settle()
    studio.session.set_layers("3 bits", (LAYER,), weight_bits=3)
    panel.image.refresh(panel.layer)
    assert panel.image.images.grid.faded
    studio.settle()
    assert asked(engine, PictureWeights)[-1].scheme.bits == 3
    assert not panel.image.images.grid.faded
    studio.session.select(("add",))
    assert panel.image.message == "This layer has no weights"
    engine.failure = Failure("the file is gone", "fake.onnx", "Open it again", "", True)
    studio.session.select(("fc",))
    studio.settle()
    assert panel.image.message == "fake.onnx: the file is gone. Open it again."


def test_places_of_weights() -> None:
    plane = np.zeros((9, 9), np.float32)
    wrapped = WeightPictures("dw", (7, 1, 3, 3), plane, plane, (3, 3), channel_side=None, channels=7)
    assert channel_at(wrapped, (4, 8)) == 5
    assert channel_at(wrapped, (8, 8)) is None
    assert weight_words(wrapped, (8, 8)) == ""
    assert weight_words(wrapped, (4, 8)).startswith("channel 5, row 1, column 2: ")
    assert weight_images(wrapped)["float"].tiles == 7
    matrix = WeightPictures("fc", (9, 9), plane, plane, channel_side=1, channels=9)
    assert channel_at(matrix, (2, 7)) == 7
    assert weight_words(matrix, (2, 7)).startswith("row 2, column 7: float 0")
    averaged = replace(matrix, shape=(27, 27), step=3, error=plane, channels=27)
    assert channel_at(averaged, (2, 7)) == 21


# ---- speed


@pytest.mark.benchmark
def test_selecting_a_layer_shows_its_maps_in_50_ms(studio: Any, page: Any, engine: PictureEngine) -> None:
    """ResNet-20's largest maps: 16 channels of 32 x 32, drawn three times."""
    names = tuple(layer.name for layer in engine.model.layers)
    engine.changes = {"layers": tuple(maps_of(name, n, 16, 32) for n, name in enumerate(names))}
    page.next.click()
    studio.settle()
    worst = 0.0
    for name in names * 3:
        began = time.perf_counter()
        studio.session.select((name,))
        page.refresh(page.layer)
        page.maps.grid.viewport().repaint()
        page.strip.viewport().repaint()
        worst = max(worst, time.perf_counter() - began)
        studio.settle()
    print(f"select -> maps: {1000 * worst:.1f} ms at worst")
    assert worst < 0.05


@pytest.mark.benchmark
def test_a_picture_of_512_by_512_weights_is_shown_in_50_ms(studio: Any) -> None:
    grid = ImageGrid("large")
    studio.show(grid, 440, 700)
    plane = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    images = tuple(Image(kind, plane, kind) for kind in ("value", "value", "difference", "error"))  # type: ignore[arg-type]
    times = []
    for _ in range(8):
        began = time.perf_counter()
        grid.set_images(images)
        grid.viewport().repaint()
        times.append(time.perf_counter() - began)
    print(f"four pictures of 512 x 512: {1000 * min(times):.1f} to {1000 * max(times):.1f} ms")
    assert sorted(times)[len(times) // 2] < 0.05
