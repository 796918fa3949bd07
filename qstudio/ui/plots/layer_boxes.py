"""One box per layer against its representable range, all layers at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyqtgraph as pg
from PySide6.QtWidgets import QWidget

from qstudio.session.overview import Boxes
from qstudio.ui.plots.base import Column
from qstudio.ui.plots.layer_axis import NOTHING, LayerPlot
from qstudio.ui.text import format_percent, format_value, tr
from qstudio.ui.theme import Palette

Scale = Literal["linear", "log", "share"]
"""Of the y axis: values, values on a logarithmic scale that is linear around zero, or shares of the range."""

SLACK = 1e-3
"""Share of the range by which a value may stick out before it is drawn as clipped: scales are float32."""


class LayerBoxes(LayerPlot):
    """A box from the 1st to the 99th percentile with a line at the median, a whisker from minimum to maximum.

    The band behind is what can be represented; what sticks out of it is clipped.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Layers at a glance"), tr("weight"), parent)
        self.boxes: Boxes | None = None
        self.scale: Scale = "share"
        self._unit = 1.0
        """Values below this are drawn linearly on the logarithmic scale."""
        self._reach = pg.BarGraphItem(x=NOTHING, width=0.92, y0=NOTHING, y1=NOTHING, pen=None)
        self._whiskers = pg.BarGraphItem(x=NOTHING, width=0.14, y0=NOTHING, y1=NOTHING, pen=None)
        self._boxes = pg.BarGraphItem(x=NOTHING, width=0.56, y0=NOTHING, y1=NOTHING, pen=None)
        self._clipped = pg.BarGraphItem(x=NOTHING, width=0.28, y0=NOTHING, y1=NOTHING, pen=None)
        self._medians = pg.PlotCurveItem(connect="pairs")
        for item in (self._reach, self._whiskers, self._clipped, self._boxes, self._medians):
            self.addItem(item)
        self.set_legend(
            ("┃", "float", tr("minimum to maximum")),
            ("■", "float", tr("1 % to 99 %")),
            ("▪", "worse", tr("clipped")),
            ("■", "quantized", tr("representable")),
        )
        self.start()

    def set_boxes(self, boxes: Boxes | None, span: int) -> None:
        """Show these layers; None shows nothing.

        Args:
            boxes: One side of all layers.
            span: Places on the x axis.
        """
        self.boxes = boxes
        if boxes is None:
            self.set_places({}, 0)
        else:
            self.set_places(dict(zip(boxes.places.tolist(), boxes.names, strict=True)), span)
        self._draw()

    def set_scale(self, scale: Scale) -> None:
        """Choose the y axis."""
        if scale != self.scale:
            self.scale = scale
            self._draw()

    # ---- drawing

    def _draw(self) -> None:
        boxes = self.boxes
        self._label()
        if boxes is None or not len(boxes.names):
            for item in (self._reach, self._whiskers, self._boxes, self._clipped):
                item.setOpts(x=NOTHING, y0=NOTHING, y1=NOTHING)
            self._medians.setData(NOTHING, NOTHING)
            self._draw_mark()
            return
        x = boxes.places.astype(np.float64)
        self._unit = self._linear_part(boxes)
        to = self._transform(boxes)
        low, high, reach_low, reach_high = map(to, (boxes.low, boxes.high, boxes.reach_low, boxes.reach_high))
        first, median, last = (to(row) for row in boxes.quantiles)
        known = ~np.isnan(boxes.reach_low)
        self._reach.setOpts(x=x[known], y0=reach_low[known], y1=reach_high[known])
        shown = np.isfinite(low) & np.isfinite(high)
        self._whiskers.setOpts(x=x[shown], y0=low[shown], y1=high[shown])
        self._boxes.setOpts(x=x[shown], y0=first[shown], y1=last[shown])
        slack = SLACK * (boxes.reach_high - boxes.reach_low)
        under = known & shown & (boxes.low < boxes.reach_low - slack)
        over = known & shown & (boxes.high > boxes.reach_high + slack)
        self._clipped.setOpts(
            x=np.concatenate([x[under], x[over]]),
            y0=np.concatenate([low[under], reach_high[over]]),
            y1=np.concatenate([reach_low[under], high[over]]),
        )
        ends = np.repeat(x[shown], 2) + np.tile((-0.28, 0.28), int(shown.sum()))
        self._medians.setData(ends, np.repeat(median[shown], 2))
        drawn = np.concatenate([low[shown], high[shown], reach_low[known], reach_high[known]])
        if len(drawn):
            self.set_heights(min(float(drawn.min()), 0.0), max(float(drawn.max()), 0.0))

    def _label(self) -> None:
        side = tr("weight") if self.boxes is None or self.boxes.side == "weight" else tr("activation")
        unit = {"linear": "", "log": f", {tr('log scale')}", "share": f", {tr('share of the range')}"}[self.scale]
        self.set_axis_label("left", side + unit)
        axis = self.getAxis("left")
        axis.setTicks(None)
        if self.scale == "log" and self.boxes is not None and len(self.boxes.names):
            axis.setTicks([self._log_ticks(self.boxes)])

    @staticmethod
    def _linear_part(boxes: Boxes) -> float:
        """Return a tenth of the narrowest box: below that, values are drawn linearly."""
        spans = np.abs(boxes.quantiles[[0, 2]]).max(axis=0)
        spans = spans[spans > 0]
        return float(spans.min()) / 10 if len(spans) else 1.0

    def _transform(self, boxes: Boxes):  # type: ignore[no-untyped-def]
        """Return what maps values to the y axis."""
        if self.scale == "log":
            return lambda values: np.sign(values) * np.log10(1.0 + np.abs(values) / self._unit)
        if self.scale == "share":
            # Of the reach where there is one, so that all bands are alike; a float site has its own extremes.
            width = np.where(np.isnan(boxes.reach_low), np.nan, np.maximum(-boxes.reach_low, boxes.reach_high))
            own = np.maximum(-boxes.low, boxes.high)
            width = np.where(np.isnan(width), own, width)
            return lambda values: values / np.where(width > 0, width, 1.0)
        return lambda values: np.asarray(values, np.float64)

    def _log_ticks(self, boxes: Boxes) -> list[tuple[float, str]]:
        self._unit = self._linear_part(boxes)
        largest = float(max(np.abs(boxes.low).max(), np.abs(boxes.high).max()))
        ticks = [(0.0, "0")]
        first = int(np.ceil(np.log10(self._unit)))
        last = int(np.floor(np.log10(largest))) if largest > 0 else first
        step = max(1, (last - first + 1) // 3)
        for power in range(first, last + 1, step):
            height = float(np.log10(1.0 + 10.0**power / self._unit))
            text = f"{10.0**power:g}"
            ticks += [(height, text), (-height, f"-{text}")]
        return ticks

    # ---- words

    def help_text(self) -> str:
        """Return what the plot shows and what a good value is."""
        return tr(
            "Where each layer's values lie: minimum, 1 %, median, 99 %, maximum, in units of the tensor; behind them "
            "the range that its scheme represents.\nGood: the box fills the band, and nothing that matters sticks out. "
            "A small box in a wide band wastes codes on outliers. With scales per channel the widest channel's range "
            "is shown.\nClick selects the layer; the wheel zooms."
        )

    def describe(self, place: int) -> str:
        """Return a layer's figures in words."""
        boxes = self.boxes
        if boxes is None or place not in self.layers:
            return ""
        (row,) = np.flatnonzero(boxes.places == place)[:1]
        first, median, last = (format_value(float(v)) for v in boxes.quantiles[:, row])
        lines = [
            boxes.names[row],
            f"{format_value(float(boxes.low[row]))} … {format_value(float(boxes.high[row]))}",
            f"1 % {first}, {tr('median')} {median}, 99 % {last}",
        ]
        if boxes.is_float[row]:
            lines.append(tr("stays float"))
        elif not np.isnan(boxes.reach_low[row]):
            low, high = float(boxes.reach_low[row]), float(boxes.reach_high[row])
            lines.append(f"{tr('representable')} {format_value(low)} … {format_value(high)}")
            span = high - low
            box = float(boxes.quantiles[2, row] - boxes.quantiles[0, row])
            if span > 0:
                lines.append(f"{tr('the box fills')} {format_percent(100 * box / span, digits=0)}")
        return "\n".join(lines)

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        super().restyle(palette)
        reach = palette.color("quantized")
        reach.setAlpha(60)
        self._reach.setOpts(brush=pg.mkBrush(reach))
        self._whiskers.setOpts(brush=pg.mkBrush(palette.float))
        self._boxes.setOpts(brush=pg.mkBrush(palette.float))
        self._clipped.setOpts(brush=pg.mkBrush(palette.worse))
        self._medians.setPen(pg.mkPen(palette.surface, width=2))

    def columns(self) -> tuple[Column, ...]:
        """Return one row for each layer."""
        boxes = self.boxes
        if boxes is None:
            return ()
        return (
            (tr("layer"), boxes.names),
            (tr("minimum"), boxes.low),
            ("1 %", boxes.quantiles[0]),
            (tr("median"), boxes.quantiles[1]),
            ("99 %", boxes.quantiles[2]),
            (tr("maximum"), boxes.high),
            (tr("representable from"), boxes.reach_low),
            (tr("representable to"), boxes.reach_high),
        )
