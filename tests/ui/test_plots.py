"""Plots on their own: what they draw, what they give away, how they answer the mouse."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyqtgraph as pg
import pytest
from plot_fakes import Mouse, activation_statistics, activation_values, weight_statistics, weight_values
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication

from qstudio.core.histogram import EMPTY, extend, histogram_of
from qstudio.core.model_info import SiteInfo
from qstudio.core.scheme import TENSOR, Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.session.curves import ChannelRanges, error_curve, quantized_counts
from qstudio.session.readout import Readout, compare, read
from qstudio.ui.plots.channel_plot import ChannelPlot
from qstudio.ui.plots.error_curve import ErrorCurvePlot
from qstudio.ui.plots.histogram_bars import bars_of, outline_of, split
from qstudio.ui.plots.histogram_plot import HistogramPlot
from qstudio.ui.plots.scatter import RunPoint, RunScatter, front
from qstudio.ui.theme import DARK, LIGHT, theme

WEIGHT = SiteInfo("w", "weight", "conv", (16, 8, 3, 3), 0)
ACTIVATION = SiteInfo("a", "activation", "conv", (None, 16, 8, 8), 1)


@pytest.fixture(autouse=True)
def _every_move_counts() -> Any:
    """Take every mouse event; pyqtgraph drops those closer than 10 ms."""
    pg.setConfigOption("mouseRateLimit", -1)
    theme().set_mode("light")
    yield
    pg.setConfigOption("mouseRateLimit", 100)


def weight_readout(bits: int = 4, symmetric: bool = True, calibration: str = "minmax") -> Readout:
    statistics = weight_statistics("w", weight_values((16, 8, 3, 3), 1))
    return read(statistics, WEIGHT, Scheme("weight", bits, symmetric, TENSOR, calibration))


def activation_readout(bits: int = 8) -> Readout:
    statistics = activation_statistics("a", activation_values(16, 1))
    return read(statistics, ACTIVATION, Scheme("activation", bits, False, TENSOR, "mse"))


def show(qtbot: Any, plot: Any, width: int = 420, height: int = 240) -> Any:
    qtbot.addWidget(plot)
    plot.resize(width, height)
    with qtbot.waitExposed(plot):
        plot.show()
    QApplication.processEvents()
    return plot


def histogram_plot(qtbot: Any, readout: Readout) -> HistogramPlot:
    plot = HistogramPlot("Weights", "weight")
    plot.set_statistics(readout.statistics)
    plot.set_readout(readout)
    return show(qtbot, plot)


# ---- bars


@pytest.mark.parametrize(
    "values",
    [
        weight_values((16, 8, 3, 3), 3),
        activation_values(16, 3),
        -activation_values(4, 4),
        np.array([5.0, 5.0], np.float32),
        np.array([1e-30, -3e30, 0.0], np.float32),
        np.linspace(2.0, 3.0, 999, dtype=np.float32),
    ],
    ids=["weights", "relu", "negative", "constant", "extreme", "far from zero"],
)
def test_bars_hold_every_value(values: np.ndarray) -> None:
    bars = bars_of(histogram_of(values))
    assert bars.counts.sum() == values.size
    assert len(bars.edges) == len(bars.counts) + 1
    assert bars.edges[0] <= min(values.min(), 0)
    assert bars.edges[-1] >= values.max() * (1 - 1e-6)


def test_bars_of_a_histogram_that_grew_hold_every_value() -> None:
    small = extend(EMPTY, np.full(10, 0.01, np.float32))
    grown = extend(small, np.array([-3.0, 900.0, 0.0], np.float32))
    assert bars_of(grown).counts.sum() == 13


def test_a_tensor_of_zeros_has_no_bars() -> None:
    assert len(bars_of(histogram_of(np.zeros(7, np.float32))).counts) == 0


def test_a_cut_moves_no_bar_and_loses_none() -> None:
    bars = bars_of(histogram_of(weight_values((16, 8, 3, 3), 3)))
    x0, x1, inside, y0, y1, outside = split(bars, -0.1, 0.2)
    assert (x0 >= -0.1).all()
    assert (x1 <= 0.2).all()
    assert ((y1 <= -0.1 + 1e-12) | (y0 >= 0.2 - 1e-12)).all()
    # The outermost bars end where the data end.
    widths = np.minimum(bars.edges[1:], bars.high) - np.maximum(bars.edges[:-1], bars.low)
    area = (bars.counts * widths).sum()
    assert ((x1 - x0) * inside).sum() + ((y1 - y0) * outside).sum() == pytest.approx(area)


@pytest.mark.parametrize("bits", [2, 4, 6, 8, 12, 16])
def test_the_outline_of_quantized_values_keeps_their_number(bits: int) -> None:
    readout = weight_readout(bits)
    quantized = quantized_counts(readout)
    assert quantized is not None
    assert quantized[1].sum() == readout.statistics.histogram.count
    bars = bars_of(readout.statistics.histogram)
    outline = outline_of(bars, *quantized, float(readout.encoding.scale))
    if outline.spikes:
        assert outline.counts.sum() == quantized[1].sum()
    else:
        piece = outline.edges[1] - outline.edges[0]
        assert outline.counts.sum() * piece / bars.width == pytest.approx(quantized[1].sum())


# ---- histogram


def test_the_two_bar_items_share_the_bars_at_the_clip_edges(qtbot: Any) -> None:
    readout = weight_readout(calibration="mse")
    plot = histogram_plot(qtbot, readout)
    kept, clipped = plot._kept.opts, plot._clipped.opts
    assert readout.clip[0] <= kept["x0"].min()
    assert kept["x1"].max() <= readout.clip[1]
    assert ((clipped["x1"] <= readout.clip[0]) | (clipped["x0"] >= readout.clip[1])).all()
    assert len(clipped["x0"]) > 5
    assert plot._clipped.opts["x1"].max() == pytest.approx(readout.statistics.histogram.maximum)
    heights = 10 ** plot._kept.opts["height"] - 1
    assert heights.max() == pytest.approx(plot.bars.counts.max())
    plot.set_logarithmic(False)
    assert plot._kept.opts["height"].max() == plot.bars.counts.max()


def test_level_ticks_are_drawn_only_while_they_stay_apart(qtbot: Any) -> None:
    plot = histogram_plot(qtbot, weight_readout(4))
    assert len(plot._ticks.getData()[0]) == 2 * 15
    plot.set_readout(weight_readout(16))
    assert len(plot._ticks.getData()[0]) == 0
    plot.set_readout(weight_readout(8))
    assert len(plot._ticks.getData()[0]) == 0
    low, high = plot.readout.clip
    plot.setXRange(low / 8, high / 8, padding=0)
    seen = len(plot._ticks.getData()[0]) / 2
    assert 20 <= seen <= 40, "zoomed in, the codes that are in view are apart"


def test_ghosts_stand_where_the_calibrators_put_the_range(qtbot: Any) -> None:
    readout = weight_readout()
    plot = histogram_plot(qtbot, readout)
    rows = compare(readout.statistics, WEIGHT, readout.scheme)
    plot.set_ghosts(rows)
    shown = {(g.calibration, g.value()) for g in plot._ghosts if g.isVisible()}
    assert shown == {(row.calibration, edge) for row in rows if row.clip for edge in row.clip}
    plot.set_ghosts(rows[:1])
    assert sum(g.isVisible() for g in plot._ghosts) == 2


def test_a_one_sided_tensor_has_one_edge(qtbot: Any) -> None:
    plot = histogram_plot(qtbot, activation_readout())
    assert plot.edge_position("low") is None
    assert plot.edge_position("high") is not None


def test_a_click_without_a_move_changes_nothing(qtbot: Any) -> None:
    plot = histogram_plot(qtbot, weight_readout())
    said: list[object] = []
    plot.clip_dragged.connect(said.append)
    plot.clip_drag_finished.connect(said.append)
    mouse = Mouse(plot)
    mouse.click(mouse.spot(plot.edge_position("high"), 0.3))
    assert said == []


def test_the_wheel_zooms_and_show_everything_undoes_it(qtbot: Any) -> None:
    plot = histogram_plot(qtbot, weight_readout())
    whole = plot.getViewBox().viewRange()[0]
    plot.getViewBox().scaleBy(x=0.2)
    assert plot.getViewBox().viewRange()[0] != whole
    plot.show_everything()
    assert plot.getViewBox().viewRange()[0] == pytest.approx(whole)


# ---- error curve


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("edge", ["low", "high"])
def test_the_dot_lies_on_the_curve(qtbot: Any, symmetric: bool, edge: Any) -> None:
    readout = weight_readout(4, symmetric, "mse")
    plot = show(qtbot, ErrorCurvePlot("Error"))
    curve = error_curve(readout, edge)
    plot.set_curve(curve)
    plot.set_dot(readout)
    x, y = plot.dot
    order = np.argsort(curve.clip)
    total = 10 * np.log10((curve.rounding + curve.clipping) / curve.signal)
    assert y == pytest.approx(np.interp(x, curve.clip[order], total[order]), abs=0.35)
    assert y == pytest.approx(-readout.error.sqnr_db, abs=0.01)


def test_the_least_error_is_where_mse_calibration_goes(qtbot: Any) -> None:
    readout = weight_readout(4, True, "mse")
    curve = error_curve(readout, "high", points=400)
    best = curve.clip[np.argmin(curve.rounding + curve.clipping)]
    assert best == pytest.approx(readout.clip[1], rel=0.03)


# ---- channels


def test_channels_are_found_under_the_mouse_in_either_order(qtbot: Any) -> None:
    low, high = np.array([-1.0, -2.0, -0.5]), np.array([1.0, 3.0, 0.25])
    plot = show(qtbot, ChannelPlot("Channels"))
    plot.set_ranges(ChannelRanges(low, high, band=(-1.0, 1.0), sqnr_db=np.array([20.0, 9.0, 12.0]), worst=1))
    assert [plot.channel_at(x) for x in (-1.0, 0.2, 1.4, 2.0, 3.0)] == [None, 0, 1, 2, None]
    plot.set_sorted(True)
    assert list(plot.order) == [1, 0, 2]
    mouse = Mouse(plot)
    seen: list[object] = []
    plot.channel_hovered.connect(seen.append)
    mouse.move(mouse.spot(0.0))
    assert seen[-1] == 1
    assert plot.toolTip() == "channel 1: -2 … 3, 2.5× the median span, ~9.0 dB"
    assert plot._worst.opts["x"] == [0.0]


# ---- runs


POINTS = (
    RunPoint(None, 100.0, 81.0, "float", "float"),
    RunPoint(1, 25.0, 80.9, "simulated", "Run 1"),
    RunPoint(1, 26.0, 80.8, "measured", "Run 1"),
    RunPoint(2, 13.0, 77.0, "simulated", "Run 2", False),
    RunPoint(3, 20.0, 70.0, "measured", "Run 3"),
)


def test_the_front_is_what_no_run_beats() -> None:
    assert [(p.run, p.x) for p in front(POINTS)] == [(2, 13.0), (1, 25.0)]
    assert front(POINTS[:1]) == ()


def test_click_selects_and_double_click_restores(qtbot: Any) -> None:
    plot = show(qtbot, RunScatter("size, KB", "accuracy, %"), 560, 320)
    assert "No runs yet" in plot.message
    plot.set_points(POINTS)
    QApplication.processEvents()
    assert plot.message == ""
    selected: list[object] = []
    restored: list[object] = []
    plot.run_selected.connect(selected.append)
    plot.run_restored.connect(restored.append)
    mouse = Mouse(plot)

    def at(point: RunPoint) -> Any:
        return plot.getViewBox().mapViewToScene(pg.QtCore.QPointF(point.x, point.y))

    mouse.click(at(POINTS[3]))
    assert (selected, restored) == ([2], [])
    assert list(plot._ring.getData()[0]) == [13.0]
    mouse.double_click(at(POINTS[4]))
    assert (selected[-1], restored) == (3, [3])
    mouse.click(at(POINTS[0]))
    assert selected[-1] == 3, "the float model is no run"
    qtbot.keyClick(plot, Qt.Key.Key_Left)
    assert selected[-1] == 2
    qtbot.keyClick(plot, Qt.Key.Key_Return)
    assert restored == [3, 2]


def test_points_that_are_not_numbers_are_left_out(qtbot: Any) -> None:
    plot = show(qtbot, RunScatter("latency, ms", "accuracy, %"))
    plot.set_points((RunPoint(1, math.nan, 80.0, "simulated", ""),), empty="No latency measured yet")
    assert plot.message == "No latency measured yet"


# ---- all of them


def every_plot(qtbot: Any) -> list[Any]:
    readout = weight_readout()
    histogram = histogram_plot(qtbot, readout)
    histogram.set_quantized(quantized_counts(readout))
    curve = show(qtbot, ErrorCurvePlot("Error"))
    curve.set_curve(error_curve(readout, "high"))
    curve.set_dot(readout)
    channels = show(qtbot, ChannelPlot("Channels"))
    channels.set_ranges(ChannelRanges(readout.statistics.channel_min, readout.statistics.channel_max))
    runs = show(qtbot, RunScatter("size, KB", "accuracy, %"))
    runs.set_points(POINTS)
    return [histogram, curve, channels, runs]


def test_each_plot_gives_away_its_picture_and_its_numbers(qtbot: Any, tmp_path: Path) -> None:
    for plot in every_plot(qtbot):
        told: list[Any] = []
        plot.notice_posted.connect(told.append)
        name = type(plot).__name__
        for ending in ("png", "svg", "csv"):
            plot.save(tmp_path / f"{name}.{ending}")
        assert [notice.level for notice in told] == ["info"] * 3
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        drawn = ElementTree.fromstring((tmp_path / f"{name}.svg").read_text())
        assert len(list(drawn.iter())) > 20
        rows = list(csv.reader(io.StringIO((tmp_path / f"{name}.csv").read_text())))
        assert len(rows) > 3
        assert all(len(row) == len(rows[0]) for row in rows)
        plot.copy_picture()
        assert QApplication.clipboard().image().width() >= 2 * plot.width() - 2


def test_the_histogram_as_csv_has_every_value(qtbot: Any) -> None:
    readout = weight_readout()
    plot = histogram_plot(qtbot, readout)
    rows = list(csv.DictReader(io.StringIO(plot.csv_text())))
    assert sum(int(row["count"]) for row in rows) == readout.statistics.histogram.count


def test_a_picture_that_cannot_be_written_is_told_in_words(qtbot: Any, tmp_path: Path) -> None:
    plot = histogram_plot(qtbot, weight_readout())
    told: list[Any] = []
    plot.notice_posted.connect(told.append)
    for ending in ("png", "svg", "csv"):
        plot.save(tmp_path / "nowhere" / f"x.{ending}")
    assert [notice.level for notice in told] == ["error"] * 3
    assert all("Choose another folder" in notice.text for notice in told)


def test_the_menu_is_ours_and_short(qtbot: Any) -> None:
    plot = histogram_plot(qtbot, weight_readout())
    menu = plot.menu()
    words = [action.text() for action in menu.actions() if action.text()]
    assert words == [
        "Copy picture",
        "Save picture as PNG…",
        "Save picture as SVG…",
        "Save data as CSV…",
        "Show everything",
    ]
    menu.actions()[0].trigger()
    assert not QApplication.clipboard().image().isNull()
    plot.set_message("nothing")
    assert not plot.menu().actions()[0].isEnabled()
    for other in plot.findChildren(type(menu)):
        other.deleteLater()


def test_every_plot_follows_the_theme(qtbot: Any) -> None:
    plots = every_plot(qtbot)
    for palette in (DARK, LIGHT):
        theme().set_mode("dark" if palette.dark else "light")
        QApplication.processEvents()
        for plot in plots:
            assert plot.backgroundBrush().color().name().upper() == palette.surface
            assert plot.getAxis("left").textPen().color().name().upper() == palette.muted
            image = plot.picture()
            assert image.pixelColor(3, 3).name().upper() == palette.surface
    assert plots[0]._clipped.opts["brush"].color().name().upper() == LIGHT.worse


def test_an_empty_tensor_is_drawn_without_complaint(qtbot: Any) -> None:
    nothing = np.zeros(1, np.float32)
    statistics = SiteStatistics("w", histogram_of(np.zeros(9, np.float32)), nothing, nothing)
    plot = HistogramPlot("Weights", "weight")
    plot.set_statistics(statistics)
    plot.set_readout(read(statistics, WEIGHT, Scheme("weight", 8, True, TENSOR, "minmax")))
    show(qtbot, plot)
    assert plot.edge_position("high") is None
    plot.set_statistics(None)
    assert plot.columns()[2][1].sum() == 0


def test_a_range_that_holds_every_value_shows_nothing_clipped() -> None:
    """The last bar is wider than what is left of the data; its surplus is not clipped data."""
    values = np.linspace(-0.47, 0.594, 97).astype(np.float32)
    bars = bars_of(histogram_of(values))
    *_, inside, under_left, _, outside = split(bars, float(-values.max()), float(values.max()))
    assert inside.sum() == values.size
    assert outside.size == under_left.size == 0
    *_, fewer = split(bars, -0.3, 0.3)
    assert fewer.sum() > 0
