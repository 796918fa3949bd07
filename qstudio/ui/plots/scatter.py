"""The runs chart: accuracy against what it costs, a point for each run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from qstudio.ui.plots.base import Column, Plot
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme

PointKind = Literal["float", "simulated", "measured"]
"""The float model, a simulated figure, or one measured on the exported file."""

KINDS: tuple[PointKind, ...] = ("float", "simulated", "measured")


@dataclass(frozen=True)
class RunPoint:
    """One point of the runs chart."""

    run: int | None
    """Number of the run; None for the float model."""
    x: float
    """What it costs: size or latency, lower is better."""
    y: float
    """Accuracy or agreement in percent, higher is better."""
    kind: PointKind
    detail: str
    """Shown on hover: title and figures, lines separated by newlines."""
    current: bool = True
    """Whether the run was made with the recipe as it stands; others are drawn paler."""
    trained: bool = False
    """Whether the network was trained with quantizers; drawn as a diamond."""


def front(points: tuple[RunPoint, ...]) -> tuple[RunPoint, ...]:
    """Return the runs that no other run beats in both x (lower) and y (higher), by rising x."""
    best: list[RunPoint] = []
    for point in sorted((p for p in points if p.run is not None), key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return tuple(best)


def _tip(x: float, y: float, data: RunPoint) -> str:
    return data.detail


class RunScatter(Plot):
    """Runs as points: float star, simulated hollow, measured filled, the front as a line.

    Click selects, double-click restores; the arrow keys go through the runs, Enter restores the selected one.
    """

    run_selected = Signal(object)
    """Number of the run that was clicked."""
    run_restored = Signal(object)
    """Number of the run that was double-clicked."""

    def __init__(self, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(tr("Runs"), x_label, y_label, parent)
        self.points: tuple[RunPoint, ...] = ()
        self.selected: int | None = None
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

    def _show_kinds(self) -> None:
        kinds = [
            ("★", "float", tr("float")),
            ("○", "quantized", tr("simulated")),
            ("●", "quantized", tr("exported, measured")),
        ]
        if any(point.trained for point in self.points):
            kinds.append(("◆", "quantized", tr("trained")))
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
        self.points = tuple(p for p in points if np.isfinite(p.x) and np.isfinite(p.y))
        for side, label in (("bottom", x_label), ("left", y_label)):
            if label is not None:
                self.set_axis_label(side, label)
        self.set_message("" if self.points else empty or tr("No runs yet: Run PTQ puts the first point here"))
        if self.points:
            self._fit()
        self._show_kinds()
        self._draw(theme().palette)

    def set_selected(self, run: int | None) -> None:
        """Draw the ring around a run's points (none for None)."""
        self.selected = run
        self._draw_ring()

    def _fit(self) -> None:
        xs, ys = [p.x for p in self.points], [p.y for p in self.points]
        x_pad = 0.08 * (max(xs) - min(xs)) or 0.1 * abs(xs[0]) or 1.0
        y_pad = 0.12 * (max(ys) - min(ys)) or 1.0
        self.setXRange(min(xs) - x_pad, max(xs) + x_pad, padding=0)
        self.setYRange(min(ys) - y_pad, max(ys) + y_pad, padding=0)

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
                symbols.append("star" if kind == "float" else "d" if point.trained else "o")
                sizes.append(18 if kind == "float" else 15 if point.trained else 12)
            item.setData(
                x=[p.x for p in chosen],
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
        ringed = [p for p in self.points if p.run is not None and p.run == self.selected]
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
        run = points[0].data().run
        if run is None:
            return
        if event.double():  # type: ignore[attr-defined]
            self.run_restored.emit(run)
        else:
            self.set_selected(run)
            self.run_selected.emit(run)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go through the runs with the arrow keys, restore with Enter."""
        runs = sorted({p.run for p in self.points if p.run is not None})
        key = event.key()
        if runs and key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            step = 1 if key == Qt.Key.Key_Right else -1
            at = runs.index(self.selected) + step if self.selected in runs else 0
            run = runs[min(max(at, 0), len(runs) - 1)]
            self.set_selected(run)
            self.run_selected.emit(run)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.selected in runs:
            self.run_restored.emit(self.selected)
        else:
            super().keyPressEvent(event)

    def columns(self) -> tuple[Column, ...]:
        """Return run, kind and coordinates of each point."""
        return (
            (tr("run"), ["" if p.run is None else p.run for p in self.points]),
            (tr("kind"), [p.kind for p in self.points]),
            (self._labels["bottom"], [p.x for p in self.points]),
            (self._labels["left"], [p.y for p in self.points]),
        )
