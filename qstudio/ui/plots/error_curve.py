"""Error against clip: rounding falls, clipping rises, and somewhere between lies the least."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtWidgets import QWidget

from qstudio.session.curves import ErrorCurve
from qstudio.session.readout import Readout
from qstudio.ui.plots.base import Column, Plot
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette

FLOOR_DB = -110.0
"""Errors below this share of the signal are drawn here: no figure of interest lies lower, and log(0) has no place."""

SPAN_DB = 45.0
"""What the view shows below the largest total error at most."""


class ErrorCurvePlot(Plot):
    """Rounding, clipping and total error, in dB of the signal, over the clip value; a dot shows where the range is."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(name, tr("clip value"), tr("error, dB"), parent)
        self.curve: ErrorCurve | None = None
        self._rounding = pg.PlotCurveItem(antialias=True)
        self._clipping = pg.PlotCurveItem(antialias=True)
        self._total = pg.PlotCurveItem(antialias=True)
        self._best = pg.ScatterPlotItem(size=9, symbol="d")
        self._dot = pg.ScatterPlotItem(size=12)
        for item in (self._rounding, self._clipping, self._total, self._best, self._dot):
            self.addItem(item)
        self.set_legend(
            ("━", "float", tr("rounding")),
            ("━", "worse", tr("clipping")),
            ("━", "text", tr("total")),
            ("◆", "better", tr("least")),
            ("●", "quantized", tr("now")),
        )
        self.start()

    def set_curve(self, curve: ErrorCurve | None) -> None:
        """Draw another curve; None clears."""
        self.curve = curve
        if curve is None or not curve.signal:
            for item in (self._rounding, self._clipping, self._total):
                item.setData([], [])
            self._best.setData([], [])
            self._dot.setData([], [])
            return
        total = decibels(curve.rounding + curve.clipping, curve.signal)
        self._rounding.setData(curve.clip, decibels(curve.rounding, curve.signal))
        self._clipping.setData(curve.clip, decibels(curve.clipping, curve.signal))
        self._total.setData(curve.clip, total)
        best = int(np.argmin(total))
        self._best.setData([curve.clip[best]], [total[best]])
        words = tr("clip value")
        other = {"low": tr("lower edge, the upper one fixed"), "high": tr("upper edge, the lower one fixed")}
        self.set_axis_label("bottom", words if curve.mirrored else other[curve.edge])
        top = float(total.max())
        bottom = max(float(total.min()), top - SPAN_DB)
        pad = 0.12 * max(top - bottom, 1.0)
        self.setYRange(bottom - pad, top + pad, padding=0)
        reach = float(np.abs(curve.clip).max())
        left, right = (-reach, 0.0) if curve.edge == "low" else (0.0, reach)
        self.setXRange(left - 0.02 * reach, right + 0.02 * reach, padding=0)

    def set_dot(self, readout: Readout) -> None:
        """Put the dot where the range is now."""
        if self.curve is None or not self.curve.signal:
            return
        edge = readout.clip[0] if self.curve.edge == "low" else readout.clip[1]
        error = decibels(np.array([readout.error.mse]), self.curve.signal)
        self._dot.setData([edge], error)

    @property
    def dot(self) -> tuple[float, float] | None:
        """Where the dot is: (clip value, total error in dB of the signal)."""
        x, y = self._dot.getData()
        return (float(x[0]), float(y[0])) if len(x) else None

    def restyle(self, palette: Palette) -> None:
        """Follow the theme."""
        self._rounding.setPen(pg.mkPen(palette.float, width=1.4))
        self._clipping.setPen(pg.mkPen(palette.worse, width=1.4))
        self._total.setPen(pg.mkPen(palette.text, width=2))
        self._best.setPen(pg.mkPen(palette.surface, width=1))
        self._best.setBrush(pg.mkBrush(palette.better))
        self._dot.setPen(pg.mkPen(palette.surface, width=1.5))
        self._dot.setBrush(pg.mkBrush(palette.quantized))

    def columns(self) -> tuple[Column, ...]:
        """Return the three curves in the tensor's own units, squared."""
        if self.curve is None:
            return ()
        return (
            (tr("clip value"), self.curve.clip),
            (tr("rounding, mean squared error"), self.curve.rounding),
            (tr("clipping, mean squared error"), self.curve.clipping),
        )


def decibels(error: NDArray[np.float64], signal: float) -> NDArray[np.float64]:
    """Return mean squared errors as a share of the signal's mean square, in dB, not below FLOOR_DB."""
    share = np.maximum(error / signal, 10.0 ** (FLOOR_DB / 10.0))
    return np.asarray(10.0 * np.log10(share))
