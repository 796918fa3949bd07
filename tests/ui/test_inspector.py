"""The inspector with real drags, clicks and typing."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyqtgraph as pg
import pytest
from plot_fakes import Mouse, ValuesEngine
from PySide6.QtCore import QCoreApplication, QEvent, Qt
from PySide6.QtWidgets import QApplication
from ui_fakes import DATASET, make_model

from qstudio.core.affine import encode
from qstudio.core.model_info import SiteInfo
from qstudio.core.range_error import range_error
from qstudio.core.scheme import FLOAT_BITS, Granularity
from qstudio.engine.messages import ActivationStatistics
from qstudio.session.readout import calibration_title, calibrations, inspect
from qstudio.ui.inspector import InspectorPanel
from qstudio.ui.inspector.readout_view import error_text
from qstudio.ui.text import NO_VALUE, format_db
from qstudio.ui.theme import DARK, theme

LAYER = "block0.conv"


@pytest.fixture(autouse=True)
def _every_move_counts() -> Any:
    """Take every mouse event; pyqtgraph drops those closer than 10 ms."""
    pg.setConfigOption("mouseRateLimit", -1)
    yield
    pg.setConfigOption("mouseRateLimit", 100)


@pytest.fixture
def studio(make_studio: Callable[..., Any]) -> Any:
    return make_studio(ValuesEngine())


@pytest.fixture
def panel(studio: Any) -> InspectorPanel:
    studio.open()
    studio.session.select((LAYER,))
    panel = InspectorPanel(studio.session, studio.bridge)
    studio.show(panel, 420, 900)
    studio.settle()
    return panel


def per_tensor(studio: Any, bits: int = 4, **values: Any) -> None:
    studio.session.set_layers("per tensor", (LAYER,), weight_bits=bits, weight_granularity="tensor", **values)
    studio.session.end_drag()
    studio.settle()


def undo_steps(session: Any) -> list[str]:
    labels = []
    while session.undo_label is not None:
        labels.append(session.undo_label)
        session.undo()
    while session.redo_label is not None:
        session.redo()
    return labels


def test_a_drag_of_the_clip_edge_is_one_undo_step(studio: Any, panel: InspectorPanel) -> None:
    per_tensor(studio)
    before = undo_steps(studio.session)
    plot = panel.weights.histogram
    start = plot.edge_position("high")
    assert start is not None
    Mouse(plot).drag(start, *np.linspace(0.95, 0.5, 12) * start)
    clip = studio.session.settings(LAYER).weight_clip
    assert clip is not None
    assert clip[1] == pytest.approx(0.5 * start, rel=0.05)
    assert clip[0] == -clip[1], "the symmetric scheme mirrors the other edge"
    assert studio.session.settings(LAYER).weight_calibration == "manual"
    assert undo_steps(studio.session) == [f"Clip weights: {LAYER}", *before]
    studio.session.undo()
    assert studio.session.settings(LAYER).weight_clip is None
    assert plot.edge_position("high") == pytest.approx(start)


def test_two_drags_are_two_steps(studio: Any, panel: InspectorPanel) -> None:
    per_tensor(studio)
    plot = panel.weights.histogram
    before = len(undo_steps(studio.session))
    for target in (0.7, 0.4):
        start = plot.edge_position("high")
        Mouse(plot).drag(start, start * 0.9, start * target)
    assert len(undo_steps(studio.session)) == before + 2


def test_the_read_out_while_dragging_is_the_range_error(studio: Any, panel: InspectorPanel) -> None:
    per_tensor(studio)
    page = panel.weights
    start = page.histogram.edge_position("high")
    mouse = Mouse(page.histogram)
    mouse.press(mouse.spot(start, 0.3))
    seen = set()
    for share in (0.9, 0.7, 0.5):
        mouse.move(mouse.spot(start * share, 0.3), Qt.MouseButton.LeftButton)
        edge = page.histogram.edge_position("high")
        scheme = replace(studio.session.settings(LAYER).weight_scheme(), calibration="manual", clip=(-edge, edge))
        statistics = studio.session.weight_statistics[f"{LAYER}.weight"]
        encoding = encode(scheme, -edge, edge, None)
        expected = range_error(
            statistics.histogram, float(encoding.scale), int(encoding.zero_point), encoding.qmin, encoding.qmax
        )
        assert page.figures.text("sqnr") == "~" + format_db(expected.sqnr_db)
        assert page.figures.text("rounding") == "~" + error_text(expected.rounding)
        assert page.figures.text("clipping") == "~" + error_text(expected.clipping)
        assert page.curve.dot is not None
        assert page.curve.dot[0] == pytest.approx(edge)
        seen.add(page.figures.text("sqnr"))
    assert len(seen) == 3, "the read-out follows every move"
    mouse.release(mouse.spot(start * 0.5, 0.3))


def test_zero_stays_inside_however_far_an_edge_is_dragged(studio: Any, panel: InspectorPanel) -> None:
    per_tensor(studio, weight_symmetric=False)
    plot = panel.weights.histogram
    high, low = plot.edge_position("high"), plot.edge_position("low")
    Mouse(plot).drag(high, 0.5 * high, 0.0, low)
    clip = studio.session.settings(LAYER).weight_clip
    assert clip is not None
    assert clip[0] == pytest.approx(low), "the asymmetric scheme leaves the other edge alone"
    assert 0 < clip[1] < 0.1 * high


def test_a_double_click_on_a_ghost_takes_its_calibrator(studio: Any, panel: InspectorPanel) -> None:
    per_tensor(studio)
    plot = panel.weights.histogram
    wanted = next(g for g in plot._ghosts if g.calibration == "mse" and g.isVisible() and g.value() > 0)
    reach = 12 * plot.getViewBox().viewPixelSize()[0]
    # Of lines that nearly touch, the one on top is taken.
    near = {g.calibration: g for g in plot._ghosts if g.isVisible() and abs(g.value() - wanted.value()) < reach}
    Mouse(plot).double_click(Mouse(plot).spot(wanted.value(), 0.8))
    taken = studio.session.settings(LAYER).weight_calibration
    line = near[taken]
    assert undo_steps(studio.session)[0] == f"Calibrate by {calibration_title(taken)}: {LAYER}"
    studio.settle()
    assert plot.edge_position("high") == pytest.approx(line.value())
    assert "SQNR ~" in line.toolTip()


def test_the_calibrators_stand_side_by_side_and_can_be_applied(studio: Any, panel: InspectorPanel) -> None:
    panel.tabs.setCurrentIndex(1)
    studio.settle()
    table = panel.activations.calibrators
    assert table.text("minmax")[3] == "0 %"
    assert not table.button("mse").isEnabled()
    assert "already" in table.button("mse").toolTip()
    for calibration in calibrations():
        assert table.text(calibration)[2].startswith("~")
    studio.qtbot.mouseClick(table.button("percentile:99.9"), Qt.MouseButton.LeftButton)
    assert studio.session.settings(LAYER).activation_calibration == "percentile:99.9"


def test_exact_figures_replace_the_estimate(studio: Any, panel: InspectorPanel) -> None:
    page = panel.weights
    studio.session.set_layers("bits", (LAYER,), weight_bits=5)
    assert page.figures.text("sqnr").startswith("~")

    def is_exact() -> bool:
        studio.engine.dispatch()
        known = studio.session.previews.get(LAYER)
        return known is not None and known.scheme.bits == 5

    studio.qtbot.waitUntil(is_exact, timeout=3000)
    preview = studio.session.previews[LAYER]
    assert page.figures.text("sqnr") == format_db(preview.sqnr_db)
    assert inspect(studio.session, LAYER, "weight").error.sqnr_db == pytest.approx(preview.sqnr_db, abs=0.5)


def test_every_control_edits_the_recipe_and_says_where_its_value_comes_from(studio: Any, panel: InspectorPanel) -> None:
    controls = panel.weights.controls
    click = studio.qtbot.mouseClick
    assert controls.origin("bits").text() == "default"
    assert not controls.origin("bits").isEnabled()
    click(controls.bits.button(3), Qt.MouseButton.LeftButton)
    click(controls.symmetry.button(False), Qt.MouseButton.LeftButton)
    click(controls.granularity.button("group"), Qt.MouseButton.LeftButton)
    settings = studio.session.settings(LAYER)
    assert (settings.weight_bits, settings.weight_symmetric) == (3, False)
    assert settings.weight_granularity == Granularity("group", 32)
    assert controls.origin("bits").text().startswith("set")
    click(controls.origin("bits"), Qt.MouseButton.LeftButton)
    assert studio.session.settings(LAYER).weight_bits == 8
    assert studio.session.settings(LAYER).weight_symmetric is False
    click(panel.weights.reset, Qt.MouseButton.LeftButton)
    assert studio.session.recipe.overrides == ()
    assert not panel.weights.reset.isEnabled()
    assert "inherited already" in panel.weights.reset.toolTip()


def test_a_group_size_and_a_percentile_can_be_typed(studio: Any, panel: InspectorPanel) -> None:
    controls = panel.weights.controls
    assert not controls.group_size.isEnabled()
    assert controls.group_size.toolTip() == "Choose Group first"
    studio.qtbot.mouseClick(controls.granularity.button("group"), Qt.MouseButton.LeftButton)
    controls.group_size.selectAll()
    studio.qtbot.keyClicks(controls.group_size, "48")
    studio.qtbot.keyClick(controls.group_size, Qt.Key.Key_Return)
    assert studio.session.settings(LAYER).weight_granularity == Granularity("group", 48)
    controls.calibration.setFocus()
    studio.qtbot.keyClicks(controls.calibration, "Perc")
    controls.calibration.activated.emit(controls.calibration.currentIndex())
    assert studio.session.settings(LAYER).weight_calibration == "percentile:99.99"
    controls.parameter.selectAll()
    studio.qtbot.keyClicks(controls.parameter, "99.5")
    studio.qtbot.keyClick(controls.parameter, Qt.Key.Key_Return)
    assert studio.session.settings(LAYER).weight_calibration == "percentile:99.5"


def test_a_clip_can_be_typed(studio: Any, panel: InspectorPanel) -> None:
    per_tensor(studio)
    box = panel.weights.controls.clip_high
    box.selectAll()
    studio.qtbot.keyClicks(box, "0.25")
    studio.qtbot.keyClick(box, Qt.Key.Key_Return)
    assert studio.session.settings(LAYER).weight_clip == (-0.25, 0.25)
    assert panel.weights.histogram.edge_position("high") == pytest.approx(0.25)


def test_a_clip_without_zero_is_refused_in_words(studio: Any, panel: InspectorPanel) -> None:
    per_tensor(studio, weight_symmetric=False)
    before = studio.session.recipe
    box = panel.weights.controls.clip_low
    box.selectAll()
    studio.qtbot.keyClicks(box, "0.1")
    studio.qtbot.keyClick(box, Qt.Key.Key_Return)
    assert studio.session.recipe == before
    assert "does not hold zero" in studio.notices[-1].text
    assert box.value() < 0, "the box shows what is true again"


def test_edits_apply_to_all_selected_layers(studio: Any, panel: InspectorPanel) -> None:
    studio.session.select((LAYER, "add", "fc"))
    studio.settle()
    assert panel.title.full_text == "3 layers"
    assert LAYER in panel.subtitle.full_text
    studio.qtbot.mouseClick(panel.weights.controls.bits.button(4), Qt.MouseButton.LeftButton)
    assert studio.session.settings("fc").weight_bits == 4
    assert studio.session.settings(LAYER).weight_bits == 4
    assert "add" not in dict(studio.session.recipe.overrides), "a layer without weights is left alone"
    studio.session.set_layers("one", ("fc",), weight_bits=6)
    assert panel.weights.controls.origin("bits").text().startswith("mixed")


def test_empty_states_say_what_to_do(studio: Any) -> None:
    panel = InspectorPanel(studio.session, studio.bridge)
    studio.show(panel, 420, 900)
    assert panel.weights.histogram.message == "Open a model to see its layers"
    studio.session.open_model("/models/fake.onnx")
    studio.engine.dispatch()
    assert panel.weights.histogram.message == "Reading the weights…"
    studio.settle()
    assert panel.weights.histogram.message == ""
    panel.tabs.setCurrentIndex(1)
    assert panel.activations.histogram.message == "Choose a dataset to see activations"
    assert panel.activations.controls.bits.button(4).isEnabled(), "bits can be chosen without data"
    studio.session.select(("add",))
    assert "block0.conv" in panel.activations.histogram.message
    studio.qtbot.mouseClick(panel.follow, Qt.MouseButton.LeftButton)
    assert studio.session.selection == (LAYER,)
    panel.tabs.setCurrentIndex(0)
    studio.session.select(("x",))
    assert panel.weights.histogram.message == "This layer has no weights"
    assert not panel.weights.controls.bits.button(4).isEnabled()
    assert panel.weights.controls.bits.button(4).toolTip() == "This layer has no weights"


def test_progress_of_statistics_is_told(studio: Any) -> None:
    studio.open(data="")
    panel = InspectorPanel(studio.session, studio.bridge)
    studio.show(panel, 420, 900)
    panel.tabs.setCurrentIndex(1)
    studio.session.select((LAYER,))
    studio.session.open_data("digits")
    opening = studio.engine._queue.pop(0)
    studio.engine.finish(opening, DATASET)
    job = next(j for j in studio.session.work if isinstance(j.request, ActivationStatistics))
    studio.engine.progress(job, 128, 512)
    assert panel.activations.histogram.message == "Collecting statistics… 25 %"
    studio.settle()
    assert panel.activations.histogram.message == ""


def test_float_layers_show_values_and_no_range(studio: Any, panel: InspectorPanel) -> None:
    studio.session.set_layers("float", (LAYER,), weight_bits=FLOAT_BITS)
    studio.settle()
    page = panel.weights
    assert page.histogram.message == ""
    assert page.histogram.edge_position("high") is None
    assert page.figures.text("sqnr") == NO_VALUE
    assert "float" in page.curve.message
    assert not page.controls.calibration.isEnabled()


def test_what_the_engine_decides_is_shown_as_decided(make_studio: Callable[..., Any]) -> None:
    model = make_model()
    layers = list(model.layers)
    soft = SiteInfo("soft", "activation", "soft", (None, 10), 1, fixed_range=(0.0, 1.0))
    out = replace(layers[-1].activation, is_output=True)
    layers[1] = replace(layers[1], activation=replace(soft, id=layers[1].activation.id))
    layers[-1] = replace(layers[-1], activation=out)
    studio = make_studio(ValuesEngine(replace(model, layers=tuple(layers))))
    studio.open()
    panel = InspectorPanel(studio.session, studio.bridge)
    studio.show(panel, 420, 900)
    panel.tabs.setCurrentIndex(1)
    studio.session.select((LAYER,))
    studio.settle()
    page = panel.activations
    assert page.note.full_text == "Mathematics fixes this range: 0 to 1"
    assert page.histogram.edge_position("high") is None
    assert page.readout.encoding.scale == np.float32(2.0**-8)
    studio.session.select(("fc",))
    studio.settle()
    assert page.readout.clip[1] == pytest.approx(studio.engine.activations["fc"].max()), "outputs are not clipped"
    assert "whole range" in page.note.full_text


def test_channels_name_the_worst(studio: Any, panel: InspectorPanel) -> None:
    panel.tabs.setCurrentIndex(2)
    per_tensor(studio)
    page = panel.channels
    values = studio.engine.weights[LAYER].reshape(-1, 72)
    scheme = studio.session.settings(LAYER).weight_scheme()
    readout = inspect(studio.session, LAYER, "weight")
    encoding = encode(scheme, *readout.clip, None)
    steps = np.clip(np.rint(values / encoding.scale), encoding.qmin, encoding.qmax) * encoding.scale
    exact = 10 * np.log10((values**2).sum(1) / ((values - steps) ** 2).sum(1))
    assert page.plot.ranges.worst is not None
    assert exact[page.plot.ranges.worst] <= np.sort(exact)[1], "the estimate names one of the two worst"
    assert f"channel {page.plot.ranges.worst}:" in page.worst.text()
    studio.qtbot.mouseClick(page.order.button(True), Qt.MouseButton.LeftButton)
    spans = np.ptp(values, axis=1)[page.plot.order]
    assert (np.diff(spans) <= 0).all()
    mouse = Mouse(page.plot)
    mouse.move(mouse.spot(0.0))
    assert page.hovered.text().startswith(f"channel {page.plot.order[0]}:")


def test_the_panel_follows_the_theme(studio: Any, panel: InspectorPanel) -> None:
    theme().set_mode("dark")
    QApplication.processEvents()
    page = panel.weights
    assert page.histogram._kept.opts["brush"].color().name().upper() == DARK.float
    assert page.histogram.backgroundBrush().color().name().upper() == DARK.surface
    assert page.curve._clipping.opts["pen"].color().name().upper() == DARK.worse
    theme().set_mode("light")


def test_nothing_keeps_the_panel_alive(studio: Any) -> None:
    studio.open()
    panel = InspectorPanel(studio.session, studio.bridge)
    panel.resize(420, 900)
    panel.show()
    studio.settle()
    gone = [weakref.ref(panel), weakref.ref(panel.weights), weakref.ref(panel.weights.histogram)]
    panel.close()
    panel.deleteLater()
    del panel
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]
    studio.session.select(("fc",))
    theme().set_mode("light")


def test_the_layout_stays_where_it_is_between_layers(studio: Any, panel: InspectorPanel) -> None:
    def places() -> list[Any]:
        page = panel.weights
        return [w.geometry() for w in (page.histogram, page.figures, page.controls, page.curve)]

    before = places()
    for name in ("fc", "add", "x", LAYER):
        studio.session.select((name,))
        studio.settle()
        assert places() == before, name


@pytest.mark.parametrize("width", [380, 420])
def test_nothing_is_cut_in_a_narrow_panel(studio: Any, panel: InspectorPanel, width: int) -> None:
    studio.session.set_layers("all", (LAYER,), weight_granularity="group:32", weight_calibration="percentile:99.999")
    panel.resize(width, 560)
    studio.settle()
    body = panel.weights.widget()
    assert body.minimumSizeHint().width() <= panel.weights.viewport().width()
    for child in (panel.weights.controls, panel.weights.figures, panel.weights.calibrators, panel.weights.statistics):
        assert child.geometry().right() <= panel.weights.viewport().width()


def test_zoom_enlarges_the_charts_with_the_text(studio: Any, panel: InspectorPanel) -> None:
    page = panel.weights
    height, text = page.histogram.height(), page.figures.height()
    theme().set_zoom(1.5)
    studio.settle()
    assert page.histogram.height() == pytest.approx(1.5 * height, abs=1)
    assert page.figures.height() > 1.2 * text
    theme().set_zoom(1.0)


def test_the_window_process_loads_no_engine_library_for_plots() -> None:
    code = (
        "import sys; import qstudio.ui.inspector, qstudio.ui.plots.scatter;"
        "print([m for m in ('torch','onnx','onnxruntime','sklearn','scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.benchmark
def test_selecting_a_layer_draws_its_charts_in_50_ms(studio: Any, panel: InspectorPanel) -> None:
    for tab in (0, 1):
        panel.tabs.setCurrentIndex(tab)
        times = []
        for name in [layer.name for layer in studio.session.model.weighted_layers] * 2:
            start = time.perf_counter()
            studio.session.select((name,))
            page = panel.weights if tab == 0 else panel.activations
            page.histogram.viewport().repaint()
            page.curve.viewport().repaint()
            times.append(1000 * (time.perf_counter() - start))
            studio.settle()
        print(f"select, tab {tab}: median {np.median(times):.1f} ms, worst {max(times):.1f} ms")
        assert np.median(times) <= 50


@pytest.mark.benchmark
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_dragging_an_edge_updates_the_read_out_in_16_ms(studio: Any, panel: InspectorPanel, granularity: str) -> None:
    studio.session.set_layers("bits", (LAYER,), weight_bits=4, weight_granularity=granularity)
    studio.settle()
    plot = panel.weights.histogram
    start = plot.edge_position("high")
    mouse = Mouse(plot)
    mouse.press(mouse.spot(start, 0.3))
    times = []
    for share in np.linspace(0.98, 0.4, 60):
        begin = time.perf_counter()
        mouse.move(mouse.spot(start * share, 0.3), Qt.MouseButton.LeftButton)
        plot.viewport().repaint()
        times.append(1000 * (time.perf_counter() - begin))
    mouse.release(mouse.spot(start * 0.4, 0.3))
    print(f"drag, {granularity}: median {np.median(times):.1f} ms, 95 % {np.percentile(times, 95):.1f} ms")
    assert np.median(times) <= 16


def test_the_evaluation_data_is_laid_over_the_calibration_data(studio: Any, panel: InspectorPanel) -> None:
    panel.tabs.setCurrentIndex(1)
    studio.settle()
    page = panel.activations
    assert not page.histogram._second.isVisible()
    page.overlap.switch.setChecked(True)
    studio.settle()
    asked = [r for r in studio.engine.asked if isinstance(r, ActivationStatistics)][-1]
    assert asked.of == "evaluation"
    assert page.overlap.figures.full_text.startswith("overlap 100")
    assert page.histogram._second.isVisible()
    assert page.histogram._second.counts.sum() == pytest.approx(page.histogram.bars.counts.sum(), rel=0.02)
    studio.session.set_options(seed=5)
    studio.settle()
    again = [r for r in studio.engine.asked if isinstance(r, ActivationStatistics) and r.of == "evaluation"]
    assert [r.seed for r in again] == [0, 5]
    assert page.overlap.figures.full_text.startswith("overlap 100")
    page.overlap.switch.setChecked(False)
    assert not page.histogram._second.isVisible()
    assert not panel.weights.overlap.isVisible()
