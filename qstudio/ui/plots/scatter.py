"""The runs chart: accuracy against what it costs, a point for each run and each recipe of a search."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from qstudio.core.search import pareto
from qstudio.ui.plots.bars import bits_picture
from qstudio.ui.plots.base import Column, Plot
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme

PointKind = Literal["float", "simulated", "measured"]
"""The float model, a simulated figure, or one measured on the exported file."""

KINDS: tuple[PointKind, ...] = ("float", "simulated", "measured")


Key = tuple[str, int | str]
"""What a point stands for: ("run", its number) or ("point", hash of its recipe)."""

NEAR_POINTS = 5.0
"""Points of accuracy below the best that are shown where a front falls off steeply."""

PIN_FROM = 1.6
"""Float that costs this many times as much as the dearest other point is drawn at the right edge."""


@dataclass(frozen=True)
class RunPoint:
    """One point of the runs chart."""

    run: int | None
    """Number of the run; None for the float model and for points of a search."""
    x: float
    """What it costs: size, latency, bit operations or bits, lower is better."""
    y: float
    """Accuracy or agreement in percent, higher is better."""
    kind: PointKind
    detail: str
    """Shown on hover: title and figures, lines separated by newlines."""
    current: bool = True
    """Whether it has the recipe as it stands; others are drawn paler."""
    trained: bool = False
    """Whether the network was trained with quantizers; drawn as a diamond."""
    point: str = ""
    """Hash of the recipe of a search's point; empty for runs."""
    uniform: bool = False
    """Whether a search's point has the same bits everywhere; drawn as a square."""
    bits: tuple[int, ...] = ()
    """Of the weights, layer by layer; shown on hover."""

    @property
    def key(self) -> Key | None:
        """What the point stands for; None for the float model."""
        if self.run is not None:
            return ("run", self.run)
        return ("point", self.point) if self.point else None


def front(points: tuple[RunPoint, ...]) -> tuple[RunPoint, ...]:
    """Return the runs and points that no other beats in both x (lower) and y (higher), by rising x."""
    others = [point for point in points if point.key is not None]
    if not others:
        return ()
    kept = pareto(np.array([(point.x, -point.y) for point in others]))
    return tuple(sorted((p for p, best in zip(others, kept, strict=True) if best), key=lambda p: p.x))


def _tip(x: float, y: float, data: RunPoint) -> str:
    if not data.bits:
        return data.detail
    lines = "<br/>".join(html.escape(line) for line in data.detail.split("\n"))
    return f"{lines}<br/>{bits_picture(data.bits)}"


class RunScatter(Plot):
    """Runs and points of a search: float star, simulated hollow, measured filled, the front as a line.

    Click selects, Ctrl+click a second one, double-click restores; the arrow keys go through the points, Enter restores
    the selected one.
    """

    run_selected = Signal(object)
    """Number of the run that was clicked."""
    run_restored = Signal(object)
    """Number of the run that was double-clicked."""
    point_selected = Signal(str)
    """Hash of the search's point that was clicked."""
    point_taken = Signal(str)
    """Hash of the search's point that was double-clicked."""
    second_selected = Signal(object)
    """Key of the point that was clicked with Ctrl."""

    def __init__(self, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(tr("Runs"), x_label, y_label, parent)
        self.points: tuple[RunPoint, ...] = ()
        self.chosen: tuple[Key, ...] = ()
        """Keys of the selected points: one, or two to be compared."""
        self.near = False
        """Whether only what is at most `NEAR_POINTS` below the best is shown."""
        self._front = pg.PlotCurveItem()
        self._ring = pg.ScatterPlotItem(size=22, brush=None)
        self._items: dict[str, pg.ScatterPlotItem] = {}
        self.addItem(self._front)
        self.addItem(self._ring)
        for kind in KINDS:
            item = pg.ScatterPlotItem(
                size=18 if kind == "float" else 12,
                symbol="star" if kind == "float" else "o",
                hoverable=True,
                tip=_tip,
                hoverSize=20 if kind == "float" else 15,
            )
            item.sigClicked.connect(self._on_points_clicked)
            self._items[kind] = item
            self.addItem(item)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self._show_kinds()
        self.set_message(tr("No runs yet: Run PTQ puts the first point here"))
        self.start()

    @property
    def selected(self) -> int | None:
        """Number of the selected run; None where there is none, or a search's point is selected."""
        return next((int(value) for kind, value in self.chosen[:1] if kind == "run"), None)

    def _show_kinds(self) -> None:
        pinned = self._pin()
        star = tr("float") if pinned is None else tr("float, beyond the right edge at {x}").format(x=f"{pinned[0]:.4g}")
        kinds = [
            ("★", "float", star),
            ("○", "quantized", tr("simulated")),
            ("●", "quantized", tr("exported, measured")),
        ]
        if any(point.trained for point in self.points):
            kinds.append(("◆", "quantized", tr("trained")))
        if any(point.uniform for point in self.points):
            kinds.append(("□", "quantized", tr("uniform bits")))
        self.set_legend(*kinds)

    def set_points(
        self,
        points: tuple[RunPoint, ...],
        x_label: str | None = None,
        y_label: str | None = None,
        empty: str = "",
    ) -> None:
        """Show these points.

        Args:
            points: All points; those that are not finite are left out.
            x_label: New label of the x axis with its unit; None keeps it.
            y_label: New label of the y axis with its unit; None keeps it.
            empty: Words to show when there are no points.
        """
        shown = tuple(p for p in points if np.isfinite(p.x) and np.isfinite(p.y))
        for side, label in (("bottom", x_label), ("left", y_label)):
            if label is not None:
                self.set_axis_label(side, label)
        moved = [(p.x, p.y) for p in shown] != [(p.x, p.y) for p in self.points]
        self.points = shown
        self.set_message("" if self.points else empty or tr("No runs yet: Run PTQ puts the first point here"))
        if self.points and moved:
            self._fit()
        self._show_kinds()
        self._draw(theme().palette)

    def set_selected(self, run: int | None) -> None:
        """Draw the ring around a run's points (none for None)."""
        self.set_chosen(() if run is None else (("run", run),))

    def set_chosen(self, keys: tuple[Key, ...]) -> None:
        """Draw rings around the points of one or two keys."""
        self.chosen = keys
        self._draw_ring()

    def _pin(self) -> tuple[float, float] | None:
        """Return (what float costs, where its star stands instead) where it would press all others together."""
        others = [p.x for p in self.points if p.kind != "float"]
        star = next((p.x for p in self.points if p.kind == "float"), None)
        if star is None or len(others) < 3 or star <= PIN_FROM * max(others):
            return None
        return star, max(others) + 0.12 * ((max(others) - min(others)) or max(others))

    def _x(self, point: RunPoint) -> float:
        pinned = self._pin()
        return point.x if pinned is None or point.kind != "float" else pinned[1]

    def _fit(self) -> None:
        xs, ys = [self._x(p) for p in self.points], [p.y for p in self.points]
        x_pad = 0.08 * (max(xs) - min(xs)) or 0.1 * abs(xs[0]) or 1.0
        low = max(min(ys), max(ys) - NEAR_POINTS) if self.near else min(ys)
        y_pad = 0.12 * (max(ys) - low) or 1.0
        self.setXRange(min(xs) - x_pad, max(xs) + x_pad, padding=0)
        self.setYRange(low - y_pad, max(ys) + y_pad, padding=0)

    def set_near(self, near: bool) -> None:
        """Show only what is near the best, or everything."""
        self.near = near
        if self.points:
            self._fit()

    def _draw(self, palette: Palette) -> None:
        ground = pg.mkBrush(palette.surface)
        for kind, item in self._items.items():
            chosen = [p for p in self.points if p.kind == kind]
            pens, brushes, symbols, sizes = [], [], [], []
            for point in chosen:
                color = palette.color("float" if kind == "float" else "quantized")
                if not point.current and kind != "float":
                    color.setAlpha(110)
                pens.append(pg.mkPen(color, width=2))
                brushes.append(ground if kind == "simulated" else pg.mkBrush(color))
                symbol, size = _symbol(point)
                symbols.append(symbol)
                sizes.append(size)
            item.setData(
                x=[self._x(p) for p in chosen],
                y=[p.y for p in chosen],
                data=chosen,
                pen=pens,
                brush=brushes,
                symbol=symbols,
                size=sizes,
            )
        line = front(self.points)
        self._front.setData([p.x for p in line], [p.y for p in line])
        self._draw_ring()

    def _draw_ring(self) -> None:
        ringed = [p for p in self.points if p.key is not None and p.key in self.chosen]
        self._ring.setData(x=[p.x for p in ringed], y=[p.y for p in ringed])

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        line = palette.color("quantized")
        line.setAlpha(90)
        self._front.setPen(pg.mkPen(line, width=1.5))
        self._ring.setPen(pg.mkPen(palette.accent, width=2.5))
        for item in self._items.values():
            item.opts["hoverPen"] = pg.mkPen(palette.accent, width=2)
        self._draw(palette)

    def _on_points_clicked(self, item: pg.ScatterPlotItem, points: list[pg.SpotItem], event: object) -> None:
        key = points[0].data().key
        if key is None:
            return
        if event.double():  # type: ignore[attr-defined]
            self._restore(key)
        elif event.modifiers() & Qt.KeyboardModifier.ControlModifier and self.chosen and key != self.chosen[0]:  # type: ignore[attr-defined]
            self.set_chosen((self.chosen[0], key))
            self.second_selected.emit(key)
        else:
            self._select(key)

    def _select(self, key: Key) -> None:
        self.set_chosen((key,))
        if key[0] == "run":
            self.run_selected.emit(key[1])
        else:
            self.point_selected.emit(key[1])

    def _restore(self, key: Key) -> None:
        if key[0] == "run":
            self.run_restored.emit(key[1])
        else:
            self.point_taken.emit(key[1])

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go through the points from left to right with the arrow keys, restore with Enter."""
        ordered = sorted((p for p in self.points if p.key is not None), key=lambda p: (p.run or 0, p.x))
        keys = list(dict.fromkeys(p.key for p in ordered if p.key is not None))
        key = event.key()
        now = self.chosen[0] if self.chosen else None
        if keys and key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            step = 1 if key == Qt.Key.Key_Right else -1
            at = keys.index(now) + step if now in keys else 0
            self._select(keys[min(max(at, 0), len(keys) - 1)])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and now in keys:
            self._restore(now)
        else:
            super().keyPressEvent(event)

    def columns(self) -> tuple[Column, ...]:
        """Return run, kind and coordinates of each point."""
        names = ["" if p.run is None else p.run for p in self.points]
        return (
            (tr("run"), names),
            (tr("kind"), [_kind_text(p) for p in self.points]),
            (self._labels["bottom"], [p.x for p in self.points]),
            (self._labels["left"], [p.y for p in self.points]),
        )


def _kind_text(point: RunPoint) -> str:
    if not point.point:
        return point.kind
    return f"{point.kind}, uniform" if point.uniform else f"{point.kind}, searched"


def _symbol(point: RunPoint) -> tuple[str, int]:
    """Return the sign of a point and its size in pixels; points of a search are smaller than runs."""
    if point.kind == "float":
        return "star", 18
    if point.point:
        return ("s", 9) if point.uniform else ("o", 9)
    return ("d", 15) if point.trained else ("o", 12)
