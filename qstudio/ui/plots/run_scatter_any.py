"""Any figure of the runs against any other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from qstudio.ui.plots.base import Column, Plot
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme


@dataclass(frozen=True)
class AnyPoint:
    """One run."""

    run: int
    x: float
    y: float
    detail: str
    """Shown on hover."""
    current: bool = True
    """Whether the run was made with the recipe as it stands; others are drawn paler."""
    trained: bool = False
    """Drawn as a diamond."""
    measured: bool = True
    """Filled; runs that were only simulated are hollow."""


def _tip(x: float, y: float, data: AnyPoint) -> str:
    return data.detail


class RunScatterAny(Plot):
    """Runs as points; click selects run A, Ctrl+click run B, double-click restores the recipe.

    The arrow keys go through the runs from left to right (with Ctrl they move B), Enter restores A.
    """

    run_selected = Signal(object)
    """Number of run A."""
    reference_selected = Signal(object)
    """Number of run B."""
    run_restored = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Runs compared"), "", "", parent)
        self.points: tuple[AnyPoint, ...] = ()
        self.first: int | None = None
        self.second: int | None = None
        self._rings = {name: pg.ScatterPlotItem(size=24, brush=None) for name in ("first", "second")}
        self._letters = {
            name: pg.TextItem(name_of, anchor=(-0.7, 0.5)) for name, name_of in (("first", "A"), ("second", "B"))
        }
        self._item = pg.ScatterPlotItem(size=12, hoverable=True, tip=_tip, hoverSize=15)
        self._item.sigClicked.connect(self._on_points_clicked)
        for item in (*self._rings.values(), self._item, *self._letters.values()):
            self.addItem(item)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self._show_kinds()
        self.start()

    def _show_kinds(self) -> None:
        kinds = [("●", "quantized", tr("exported"))]
        if any(not point.measured for point in self.points):
            kinds.append(("○", "quantized", tr("simulated")))
        if any(point.trained for point in self.points):
            kinds.append(("◆", "quantized", tr("trained")))
        self.set_legend(*kinds)

    def set_points(self, points: tuple[AnyPoint, ...], x_label: str, y_label: str, empty: str) -> None:
        """Show these points (those that are not finite are left out), or words where there are none."""
        self.points = tuple(p for p in points if np.isfinite(p.x) and np.isfinite(p.y))
        self.set_axis_label("bottom", x_label)
        self.set_axis_label("left", y_label)
        self.set_message("" if self.points else empty)
        if self.points:
            xs, ys = [p.x for p in self.points], [p.y for p in self.points]
            x_pad, y_pad = (0.1 * (max(v) - min(v)) or 0.1 * abs(v[0]) or 1.0 for v in (xs, ys))
            self.setXRange(min(xs) - x_pad, max(xs) + x_pad, padding=0)
            self.setYRange(min(ys) - y_pad, max(ys) + y_pad, padding=0)
        self._show_kinds()
        self._draw(theme().palette)

    def set_selected(self, first: int | None, second: int | None) -> None:
        """Mark runs A and B."""
        self.first, self.second = first, second
        self._draw_rings()

    def _draw(self, palette: Palette) -> None:
        pens, brushes, symbols = [], [], []
        ground = pg.mkBrush(palette.surface)
        for point in self.points:
            color = palette.color("quantized")
            color.setAlpha(255 if point.current else 130)
            pens.append(pg.mkPen(color, width=2))
            brushes.append(pg.mkBrush(color) if point.measured else ground)
            symbols.append("d" if point.trained else "o")
        self._item.setData(
            x=[p.x for p in self.points],
            y=[p.y for p in self.points],
            data=self.points,
            pen=pens,
            brush=brushes,
            symbol=symbols,
        )
        self._draw_rings()

    def _draw_rings(self) -> None:
        for name, number in (("first", self.first), ("second", self.second)):
            point = next((p for p in self.points if p.run == number), None)
            self._rings[name].setData(x=[point.x] if point else [], y=[point.y] if point else [])
            self._letters[name].setVisible(point is not None)
            if point is not None:
                self._letters[name].setPos(point.x, point.y)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        self._rings["first"].setPen(pg.mkPen(palette.accent, width=2.5))
        self._rings["second"].setPen(pg.mkPen(palette.accent, width=2, style=Qt.PenStyle.DashLine))
        for letter in self._letters.values():
            letter.setColor(palette.text)
        self._item.opts["hoverPen"] = pg.mkPen(palette.accent, width=2)
        self._draw(palette)

    def _on_points_clicked(self, _item: pg.ScatterPlotItem, points: list[pg.SpotItem], event: object) -> None:
        run = points[0].data().run
        if event.double():  # type: ignore[attr-defined]
            self.run_restored.emit(run)
        elif event.modifiers() & Qt.KeyboardModifier.ControlModifier:  # type: ignore[attr-defined]
            self.reference_selected.emit(run)
        else:
            self.run_selected.emit(run)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move A (with Ctrl: B) to the next run along x; Enter restores A."""
        order = [p.run for p in sorted(self.points, key=lambda p: (p.x, p.run))]
        key, moves_second = event.key(), bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        if order and key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            now = self.second if moves_second else self.first
            step = 1 if key == Qt.Key.Key_Right else -1
            at = min(max(order.index(now) + step, 0), len(order) - 1) if now in order else 0
            (self.reference_selected if moves_second else self.run_selected).emit(order[at])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.first in order:
            self.run_restored.emit(self.first)
        else:
            super().keyPressEvent(event)

    def columns(self) -> tuple[Column, ...]:
        """Return run and coordinates of each point."""
        return (
            (tr("run"), [p.run for p in self.points]),
            (self._labels["bottom"], [p.x for p in self.points]),
            (self._labels["left"], [p.y for p in self.points]),
        )
