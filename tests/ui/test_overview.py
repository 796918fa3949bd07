"""The overview tab: boxes against ranges, error over depth, one selection; it works only while it is seen."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPointF, Qt
from ui_fakes import RecordedEngine, make_model

from qstudio.core.histogram import histogram_of
from qstudio.core.inspection import DepthErrors
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.messages import ErrorOverDepth
from qstudio.session.overview import boxes, places_of, quantiles
from qstudio.session.readout import inspect
from qstudio.ui.overview.panel import OverviewPanel
from qstudio.ui.plots.layer_axis import LayerPlot


def shown(studio: Any, width: int = 900, height: int = 800) -> OverviewPanel:
    panel = OverviewPanel(studio.session, studio.bridge)
    studio.show(panel, width, height)
    found_all(studio, panel)
    return panel


def found_all(studio: Any, panel: OverviewPanel) -> None:
    studio.settle()
    studio.qtbot.waitUntil(lambda: not panel._timer.isActive() and not panel._unknown)


def heights(panel: OverviewPanel, series: str) -> Any:
    """Return what is drawn of a series."""
    drawn = panel.noise._items[series].getData()[1]
    return () if drawn is None else drawn


def click(studio: Any, plot: LayerPlot, place: int) -> None:
    """Press and release the left button over a place."""
    view = plot.getViewBox()
    middle = sum(view.viewRange()[1]) / 2
    point = plot.mapFromScene(view.mapViewToScene(QPointF(place, middle)))
    studio.qtbot.mouseClick(plot.viewport(), Qt.MouseButton.LeftButton, pos=point)


def test_quantiles_are_those_of_the_values() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.5, 1, 4000), np.zeros(3000)]).astype(np.float32)
    histogram = histogram_of(values)
    found = quantiles(histogram)
    assert found == pytest.approx(np.quantile(values, (0.01, 0.5, 0.99)), abs=2 * histogram.width)
    assert quantiles(histogram_of(np.zeros(5, np.float32))) == (0.0, 0.0, 0.0)
    relu = histogram_of(np.maximum(values - 1, 0))
    assert quantiles(relu)[:2] == (0.0, 0.0), "most values are exactly zero"


def test_boxes_stand_before_what_can_be_represented(studio: Any) -> None:
    studio.open()
    session = studio.session
    session.set_layers("float", ("fc",), weight_bits="float")
    panel = shown(studio)
    made = panel.ranges.boxes
    assert made is not None
    assert made.names == tuple(layer.name for layer in session.model.weighted_layers)
    for row, name in enumerate(made.names):
        statistics = session.weight_statistics[session.model.layer(name).weight.id]
        assert made.low[row] == statistics.histogram.minimum
        assert made.places[row] == places_of(session.model)[name]
        readout = inspect(session, name, "weight")
        if name == "fc":
            assert readout is None
            assert made.is_float[row]
            assert math.isnan(made.reach_low[row])
        else:
            assert made.reach_low[row] == pytest.approx(float(np.min(readout.encoding.low)))
            assert made.reach_high[row] == pytest.approx(float(np.max(readout.encoding.high)))


def test_a_clip_narrows_the_band_and_what_sticks_out_is_marked(studio: Any) -> None:
    studio.open()
    panel = shown(studio)
    assert not len(panel.ranges._clipped.opts["x"])
    studio.session.set_layers("clip", ("block1.conv",), weight_clip=(-0.1, 0.1), weight_granularity="tensor")
    found_all(studio, panel)
    place = places_of(studio.session.model)["block1.conv"]
    assert set(panel.ranges._clipped.opts["x"]) == {place}
    assert "representable -0.1 … 0.1" in panel.ranges.describe(place)


@pytest.mark.parametrize("scale", ["share", "linear", "log"])
def test_every_scale_keeps_the_order_and_the_signs(studio: Any, scale: str) -> None:
    studio.open()
    panel = shown(studio)
    panel.scale.button(scale).click()
    whiskers, bodies = panel.ranges._whiskers.opts, panel.ranges._boxes.opts
    assert (whiskers["y0"] <= bodies["y0"]).all()
    assert (bodies["y1"] <= whiskers["y1"]).all()
    assert (whiskers["y0"] < 0).all()
    if scale == "share":
        assert panel.ranges._reach.opts["y1"] == pytest.approx(np.ones(len(bodies["x"])), abs=0.02)


def test_weights_and_activations_are_switched(studio: Any) -> None:
    studio.open()
    panel = shown(studio)
    panel.side.button("activation").click()
    found_all(studio, panel)
    layers = [layer.name for layer in studio.session.model.layers if layer.activation is not None]
    assert panel.ranges.boxes is not None
    assert list(panel.ranges.boxes.names) == layers
    assert not np.isnan(panel.ranges.boxes.reach_low).any()


def test_a_click_in_either_picture_selects_the_layer_and_marks_it_in_both(studio: Any) -> None:
    studio.open()
    panel = shown(studio)
    places = places_of(studio.session.model)
    click(studio, panel.ranges, places["block3.conv"])
    assert studio.session.selection == ("block3.conv",)
    click(studio, panel.noise, places["block1.conv"])
    assert studio.session.selection == ("block1.conv",)
    for plot in (panel.ranges, panel.noise):
        assert list(plot._mark.opts["x"]) == [places["block1.conv"]]
    studio.key(panel.noise, Qt.Key.Key_Right)
    assert studio.session.selection == ("block2.conv",)


def test_depth_shows_three_figures_and_leaves_out_what_is_not_there(studio: Any) -> None:
    studio.open()
    panel = shown(studio)
    depth = studio.session.preview.depth
    assert panel.noise.errors is depth
    for series in ("accumulated", "isolated", "downstream"):
        assert len(heights(panel, series)) == len(depth.layers)
    job_recipe = studio.session.recipe.sha256()
    bare = DepthErrors(job_recipe, 64, tuple(replace(n, isolated=None, downstream=None) for n in depth.layers[:2]))
    panel.noise.set_depth(bare, places_of(studio.session.model))
    assert len(heights(panel, "accumulated")) == 2
    assert not len(heights(panel, "isolated"))
    noiseless = DepthErrors(job_recipe, 64, (replace(depth.layers[0], accumulated=0.0),))
    panel.noise.set_depth(noiseless, places_of(studio.session.model))
    assert not len(heights(panel, "accumulated")), "no noise has no height"
    assert "∞" in panel.noise.describe(0)


def test_it_wants_depth_only_while_it_is_seen(studio: Any) -> None:
    studio.open()
    engine = studio.engine
    panel = OverviewPanel(studio.session, studio.bridge)
    studio.settle()
    assert not [r for r in engine.asked if isinstance(r, ErrorOverDepth)]
    studio.show(panel, 900, 700)
    found_all(studio, panel)
    assert len([r for r in engine.asked if isinstance(r, ErrorOverDepth)]) == 1
    panel.hide()
    before = panel.ranges.boxes
    studio.session.set_layers("four", ("fc",), weight_bits=4)
    studio.settle()
    assert len([r for r in engine.asked if isinstance(r, ErrorOverDepth)]) == 1
    assert panel.ranges.boxes is before
    panel.show()
    found_all(studio, panel)
    assert len([r for r in engine.asked if isinstance(r, ErrorOverDepth)]) == 2
    assert panel.ranges.boxes is not before


def test_the_last_depth_is_faint_until_the_next_comes(make_studio: Callable[..., Any]) -> None:
    class Slow(RecordedEngine):
        hold = False

        def submit(self, request: Any, *, slot: str = "", **callbacks: Any) -> Any:
            job = super().submit(request, slot=slot, **callbacks)
            if self.hold and isinstance(request, ErrorOverDepth):
                self._queue.remove(job)
                self.held = job
            return job

    studio = make_studio(Slow())
    studio.open()
    panel = shown(studio)
    assert not panel.noise.is_stale
    studio.engine.hold = True
    studio.session.set_layers("four", ("fc",), weight_bits=4)
    found_all(studio, panel)
    assert panel.noise.is_stale
    assert "earlier recipe" in panel._depth_note.text()
    studio.engine.finish(studio.engine.held, studio.engine.answer(studio.engine.held.request))
    found_all(studio, panel)
    assert not panel.noise.is_stale


def test_words_say_why_there_is_nothing(studio: Any) -> None:
    panel = OverviewPanel(studio.session, studio.bridge)
    studio.show(panel, 900, 700)
    studio.settle()
    assert "Open a model" in panel.ranges.message
    assert "Open a model" in panel.noise.message
    studio.open(data="")
    found_all(studio, panel)
    assert panel.ranges.message == ""
    assert "Choose data" in panel.noise.message
    panel.side.button("activation").click()
    assert "Choose data" in panel.ranges.message


def test_both_pictures_give_their_numbers_away(studio: Any) -> None:
    studio.open()
    panel = shown(studio)
    rows = panel.ranges.csv_text().splitlines()
    assert rows[0].startswith("layer,minimum,1 %")
    assert len(rows) == 1 + len(studio.session.model.weighted_layers)
    rows = panel.noise.csv_text().splitlines()
    assert rows[0].startswith('layer,"accumulated, dB"')
    assert len(rows) == 1 + len(studio.session.preview.depth.layers)
    for plot in (panel.ranges, panel.noise):
        assert plot.picture().width() > 100
        assert b"<svg" in plot.svg()
        assert plot.accessibleName()
        assert plot.help_text()


@pytest.mark.benchmark
@pytest.mark.parametrize(("layers", "most_ms"), [(200, 50), (1000, 250)])
def test_layers_are_drawn_within_the_budget(make_studio: Callable[..., Any], layers: int, most_ms: float) -> None:
    studio = make_studio(RecordedEngine(make_model(layers)))
    studio.open()
    panel = shown(studio)
    studio.session.set_layers("four", ("block7.conv",), weight_bits=4)
    found_all(studio, panel)
    times = {}
    others = itertools.count(layers // 2)
    for name, draw in (
        ("boxes", panel._show_ranges),
        ("log", lambda: panel._on_scale("share" if panel.ranges.scale == "log" else "log")),
        ("depth", panel._show_depth),
        ("select", lambda: studio.session.select((f"block{next(others)}.conv",))),
    ):
        took: list[float] = []
        for _ in range(5):
            start = time.perf_counter()
            draw()
            panel.ranges.grab()
            panel.noise.grab()
            took.append(1000 * (time.perf_counter() - start))
        times[name] = min(took)
    print(f"\n{layers} layers: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in times.items()))
    assert max(times.values()) <= most_ms


def test_a_site_without_values_has_no_box(studio: Any) -> None:
    """A row whose site has seen no values has no box."""
    studio.open()
    session = studio.session
    site = session.model.layer("fc").weight.id
    empty = SiteStatistics(
        site, histogram_of(np.zeros(0, np.float32)), np.zeros(1, np.float32), np.zeros(1, np.float32)
    )
    session.weight_statistics[site] = empty
    found = boxes(session, "weight")
    assert found is not None
    assert "fc" not in found.names
