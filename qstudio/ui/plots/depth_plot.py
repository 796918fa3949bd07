"""Error over depth: how much noise there is at every layer, what the layer adds, and what that does to the output."""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget

from qstudio.core.inspection import DepthErrors, LayerNoise
from qstudio.ui.plots.base import Column
from qstudio.ui.plots.layer_axis import NOTHING, LayerPlot
from qstudio.ui.text import format_db, tr
from qstudio.ui.theme import Palette

_SERIES = (
    ("accumulated", "o", "●", "quantized", Qt.PenStyle.SolidLine),
    ("isolated", "t1", "▲", "float", Qt.PenStyle.DashLine),
    ("downstream", "d", "◆", "watch", Qt.PenStyle.DotLine),
)
"""Figure, sign, the same sign in words, colour of the palette, line: no two differ by colour alone."""


def error_db(noise: LayerNoise, series: str) -> float | None:
    """Return noise over signal in dB (the negative SQNR); None where it is not known or there is none."""
    sqnr = {
        "accumulated": noise.accumulated_sqnr_db,
        "isolated": noise.isolated_sqnr_db,
        "downstream": noise.downstream_sqnr_db,
    }[series]
    return None if sqnr is None or not math.isfinite(sqnr) else -sqnr


class DepthPlot(LayerPlot):
    """Three lines over the layers, in dB of noise over signal: up is worse."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Error over depth"), tr("noise / signal, dB"), parent)
        self.errors: DepthErrors | None = None
        self.is_stale = False
        self._noises: dict[int, LayerNoise] = {}
        self._items: dict[str, pg.PlotDataItem] = {}
        for series, symbol, *_ in _SERIES:
            item = pg.PlotDataItem(NOTHING, NOTHING, symbol=symbol, symbolSize=8, symbolPen=None)
            self._items[series] = item
            self.addItem(item)
        words = {
            "accumulated": tr("accumulated"),
            "isolated": tr("this layer alone"),
            "downstream": tr("its part of the output's noise"),
        }
        self.set_legend(*((sign, colour, words[series]) for series, _, sign, colour, _ in _SERIES))
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.start()

    def set_depth(self, depth: DepthErrors | None, places: dict[str, int], stale: bool = False) -> None:
        """Show these errors; None shows nothing.

        Args:
            depth: Of the present recipe, or of an earlier one.
            places: Layer -> place on the x axis.
            stale: Whether they are of an earlier recipe; they are drawn faintly then.
        """
        self.errors = depth
        noises = depth.layers if depth is not None else ()
        self._noises = {places[noise.layer]: noise for noise in noises if noise.layer in places}
        self.set_places({place: noise.layer for place, noise in self._noises.items()}, len(places))
        heights = []
        for series, item in self._items.items():
            points = [(place, error_db(noise, series)) for place, noise in sorted(self._noises.items())]
            drawn = np.array([(place, value) for place, value in points if value is not None]).reshape(-1, 2)
            item.setData(drawn[:, 0], drawn[:, 1])
            heights.extend(drawn[:, 1].tolist())
        if heights:
            self.set_heights(min(heights), max(heights))
        else:
            self._draw_mark()
        if stale != self.is_stale:
            self.is_stale = stale
            for item in self._items.values():
                item.setOpacity(0.35 if stale else 1.0)

    def help_text(self) -> str:
        """Return what the plot shows and what a good value is."""
        return tr(
            "Quantization noise over signal at every layer's output, in dB: -20 dB is a hundredth of the signal's "
            "power, 0 dB as strong as the signal. Lower is better; class scores usually stand noise below -15 dB.\n"
            "● accumulated: everything quantized. ▲ this layer alone quantized, at its own output. ◆ the same at the "
            "model's output: what this layer contributes. A layer with a high ◆ deserves more bits."
        )

    def describe(self, place: int) -> str:
        """Return a layer's figures in words."""
        noise = self._noises.get(place)
        if noise is None:
            return ""
        lines = [noise.layer, f"● {tr('accumulated')} {_text(noise.accumulated_sqnr_db)}"]
        if noise.isolated_sqnr_db is not None:
            lines.append(f"▲ {tr('this layer alone')} {_text(noise.isolated_sqnr_db)}")
        if noise.downstream_sqnr_db is not None:
            lines.append(f"◆ {tr('at the output')} {_text(noise.downstream_sqnr_db)}")
        if self.is_stale:
            lines.append(tr("of an earlier recipe"))
        return "\n".join(lines)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        super().restyle(palette)
        for series, _, _, name, style in _SERIES:
            colour = palette.color(name)
            self._items[series].setPen(pg.mkPen(colour, width=1.5, style=style))
            self._items[series].setSymbolBrush(pg.mkBrush(colour))

    def columns(self) -> tuple[Column, ...]:
        """Return one row for each layer: noise over signal in dB, and the powers."""
        noises = [self._noises[place] for place in sorted(self._noises)]
        if not noises:
            return ()
        return (
            (tr("layer"), [noise.layer for noise in noises]),
            *(
                (f"{series}, dB", ["" if (v := error_db(noise, series)) is None else v for noise in noises])
                for series, *_ in _SERIES
            ),
            (tr("signal power"), [noise.signal for noise in noises]),
            (tr("accumulated power"), [noise.accumulated for noise in noises]),
        )


def _text(sqnr_db: float) -> str:
    return format_db(-sqnr_db)
