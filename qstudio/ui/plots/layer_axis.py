"""What plots over all layers share: a place for each layer, a mark on the current one, hover, click, arrow keys."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from qstudio.ui.plots.base import Plot
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette

NOTHING = np.zeros(0)


class LayerPlot(Plot):
    """A plot whose x axis counts layers in the order of the network; a click selects the nearest one."""

    layer_selected = Signal(str)
    """Name of the layer that was clicked, or gone to with the arrow keys."""

    def __init__(self, name: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, tr("layer, in the order of the network"), y_label, parent, zoomable=True)
        self.layers: dict[int, str] = {}
        """Place -> layer, of those that are shown."""
        self.current = ""
        self._span = 0
        self._mark = pg.BarGraphItem(x=NOTHING, width=1.0, y0=NOTHING, y1=NOTHING, pen=None)
        self._mark.setZValue(-10)
        self.addItem(self._mark, ignoreBounds=True)
        self.scene().sigMouseMoved.connect(self._on_mouse_moved)
        self.scene().sigMouseClicked.connect(self._on_mouse_clicked)

    def set_places(self, layers: dict[int, str], span: int) -> None:
        """Say which layer stands where; the view is fitted when the number of places changes.

        Args:
            layers: Place -> layer.
            span: Number of places, with those where nothing is shown.
        """
        self.layers = layers
        if span != self._span:
            self._span = span
            self.getViewBox().setLimits(xMin=-1.5, xMax=span + 0.5, minXRange=min(8, span + 1))
            self.show_everything()

    def show_everything(self) -> None:
        """Undo zooming and panning."""
        self.getViewBox().setXRange(-0.8, max(self._span, 1) - 0.2, padding=0)

    def set_heights(self, bottom: float, top: float) -> None:
        """Show this part of the y axis, with a little room."""
        room = 0.06 * ((top - bottom) or 1.0)
        self.setYRange(bottom - room, top + room, padding=0)
        self._draw_mark()

    def set_current(self, layer: str) -> None:
        """Mark a layer; empty for none."""
        if layer != self.current:
            self.current = layer
            self._draw_mark()

    def _draw_mark(self) -> None:
        places = [float(place) for place, name in self.layers.items() if name == self.current]
        if not places:
            self._mark.setOpts(x=NOTHING, y0=NOTHING, y1=NOTHING)
            return
        bottom, top = self.getViewBox().viewRange()[1]
        self._mark.setOpts(x=np.array(places[:1]), y0=np.array([bottom]), y1=np.array([top]))

    def describe(self, place: int) -> str:
        """Return what there is to say about the layer at a place, lines separated by newlines."""
        return self.layers.get(place, "")

    def place_at(self, x: float) -> int | None:
        """Return the nearest place with a layer, None where none is within half a place of the axis' ends."""
        if not self.layers or not -1.0 <= x <= self._span:
            return None
        places: NDArray[np.int64] = np.fromiter(self.layers, np.int64, len(self.layers))
        return int(places[np.argmin(np.abs(places - x))])

    def _on_mouse_moved(self, position: QPointF) -> None:
        view = self.getViewBox()
        place = self.place_at(view.mapSceneToView(position).x()) if self._is_inside(position) else None
        self.setToolTip(self.describe(place) if place is not None else self.help_text())

    def _on_mouse_clicked(self, event: object) -> None:
        position = event.scenePos()  # type: ignore[attr-defined]
        if event.button() != Qt.MouseButton.LeftButton or not self._is_inside(position):  # type: ignore[attr-defined]
            return
        place = self.place_at(self.getViewBox().mapSceneToView(position).x())
        if place is not None:
            self.layer_selected.emit(self.layers[place])

    def _is_inside(self, position: QPointF) -> bool:
        return not self.message and bool(self.getViewBox().sceneBoundingRect().contains(position))

    def help_text(self) -> str:
        """Return what the plot shows and what a good value is: the tooltip beside the layers."""
        return ""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go to the next layer or the one before with the arrow keys."""
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        names = [self.layers[place] for place in sorted(self.layers)]
        if step is None or not names:
            super().keyPressEvent(event)
            return
        at = names.index(self.current) + step if self.current in names else 0
        self.layer_selected.emit(names[min(max(at, 0), len(names) - 1)])

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        colour = palette.color("accent")
        colour.setAlpha(40)
        self._mark.setOpts(brush=pg.mkBrush(colour))
