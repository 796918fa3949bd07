"""One side of a layer: histogram with its clip range, read-out, controls, error curve, calibrators, statistics."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QCheckBox, QFrame, QHBoxLayout, QPushButton, QScrollArea, QVBoxLayout, QWidget

from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import FIELDS
from qstudio.core.statistics import SiteStatistics
from qstudio.session.curves import error_curve, quantized_counts
from qstudio.session.options import Notice
from qstudio.session.readout import (
    Edge,
    Readout,
    Side,
    calibration_title,
    compare,
    inspect,
    scheme_of,
    site_of,
    statistics_of,
)
from qstudio.session.session import Session
from qstudio.ui.inspector.calibrator_table import CalibratorTable
from qstudio.ui.inspector.controls import SchemeControls
from qstudio.ui.inspector.labels import ElidedLabel, ThemedLabel
from qstudio.ui.inspector.overlap_row import OverlapRow
from qstudio.ui.inspector.readout_view import ReadoutView
from qstudio.ui.inspector.situation import why_empty
from qstudio.ui.inspector.statistics_view import StatisticsView
from qstudio.ui.plots.error_curve import ErrorCurvePlot
from qstudio.ui.plots.histogram_plot import HistogramPlot
from qstudio.ui.table.choices import not_applicable, set_field
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme

COMMIT_MS = 40
"""While an edge is dragged the recipe follows this often; the read-out follows every move."""

PREVIEW_MS = 120
"""Exact figures are asked for when nothing has changed for this long."""


class SitePage(QScrollArea):
    """Weights or activations of the selected layers; charts show the first of them, edits apply to all."""

    def __init__(self, session: Session, side: Side, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.side: Side = side
        self.layer: LayerInfo | None = None
        self.readout: Readout | None = None
        self._shown: SiteStatistics | None = None
        self._edge: Edge = "high"
        self._trial: tuple[float, float] | None = None
        words = tr("Weight values") if side == "weight" else tr("Activation values")
        self.histogram = HistogramPlot(words, tr("weight") if side == "weight" else tr("activation"))
        self.curve = ErrorCurvePlot(f"{words}: {tr('error against clip')}")
        self.controls = SchemeControls(side)
        self.figures = ReadoutView()
        self.calibrators = CalibratorTable()
        self.statistics = StatisticsView()
        self.note = ElidedLabel("small", "muted")
        self.linear = QCheckBox(tr("linear count"))
        self.quantized = QCheckBox(tr("quantized"))
        self.overlap = OverlapRow(session)
        self.whole = QPushButton(tr("Show all"))
        self.reset = QPushButton(tr("Inherit all"))
        self._commit = _timer(self, COMMIT_MS)
        self._preview = _timer(self, PREVIEW_MS)
        self._later = _timer(self, 0)
        self._build()
        self._connect()
        self._on_theme_changed(theme().palette)
        theme().changed.connect(self._on_theme_changed)

    def _build(self) -> None:
        gap = theme().px(8)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        body = QFrame()
        body.setProperty("role", "surface")
        column = QVBoxLayout(body)
        column.setContentsMargins(gap, theme().px(4), gap, gap)
        column.setSpacing(gap)
        self.linear.setToolTip(
            tr("Show counts as they are; without it by their logarithm, so that rare values are seen")
        )
        self.quantized.setToolTip(tr("Lay the quantized values over the float ones"))
        self.whole.setProperty("role", "flat")
        self.whole.setToolTip(tr("Undo zooming; the wheel zooms, dragging the background moves"))
        self.reset.setProperty("role", "flat")
        switches = QHBoxLayout()
        switches.setSpacing(gap)
        switches.addWidget(self.quantized)
        switches.addWidget(self.linear)
        switches.addStretch(1)
        switches.addWidget(self.whole)
        column.addWidget(self.histogram)
        column.addLayout(switches)
        column.addWidget(self.overlap)
        self.overlap.setVisible(self.side == "activation")
        column.addWidget(self.note)
        column.addWidget(self.figures)
        column.addSpacing(theme().px(2))
        column.addWidget(self.controls)
        column.addWidget(self.reset, 0, Qt.AlignmentFlag.AlignRight)
        for title, widget in (
            (tr("Error against clip"), self.curve),
            (tr("Calibrators"), self.calibrators),
            (tr("Statistics"), self.statistics),
        ):
            heading = ThemedLabel(title)
            heading.set_bold(True)
            column.addWidget(heading)
            column.addWidget(widget)
        column.addStretch(1)
        self.setWidget(body)

    def _on_theme_changed(self, _palette: Palette) -> None:
        """Follow the zoom."""
        self.histogram.setFixedHeight(theme().px(212))
        self.curve.setFixedHeight(theme().px(150))

    def _connect(self) -> None:
        self.histogram.clip_dragged.connect(self._on_clip_dragged)
        self.histogram.clip_drag_finished.connect(self._on_clip_drag_finished)
        self.histogram.calibration_taken.connect(self._on_calibration_taken)
        self.calibrators.calibration_taken.connect(self._on_calibration_taken)
        self.controls.field_chosen.connect(self._on_field_chosen)
        self.controls.clip_typed.connect(self._on_clip_typed)
        self.controls.reset_requested.connect(self._on_reset_requested)
        self.linear.toggled.connect(self._on_linear_toggled)
        self.quantized.toggled.connect(self._show_quantized)
        self.overlap.changed.connect(self._show_overlap)
        self.whole.clicked.connect(self.histogram.show_everything)
        self.reset.clicked.connect(self._on_reset_all)
        self._commit.timeout.connect(self._commit_trial)
        self._preview.timeout.connect(self._ask_for_preview)
        self._later.timeout.connect(self._compare)
        for plot in (self.histogram, self.curve):
            plot.notice_posted.connect(self._session.notice_posted.emit)

    # ---- showing

    @property
    def message(self) -> str:
        """The words shown instead of data; empty when data is shown."""
        return self.histogram.message

    def refresh(self, layer: LayerInfo | None) -> None:
        """Show a layer as the session knows it now."""
        if self.histogram.dragging:
            return
        self._trial = None
        self.layer = layer
        session = self._session
        empty = why_empty(session, layer, self.side)
        self.histogram.set_message(empty)
        self.readout = None
        statistics = None
        if layer is not None and site_of(session, layer.name, self.side) is not None:
            statistics = statistics_of(session, layer.name, self.side)
            try:
                self.readout = inspect(session, layer.name, self.side)
            except UserError as error:
                self.histogram.set_message(error.sentence())
        self.histogram.set_statistics(statistics)
        self.histogram.set_readout(self.readout)
        if statistics is not None and not len(self.histogram.bars.counts):
            self.histogram.set_message(tr("All values are zero"))
        self._show_quantized()
        self._show_overlap()
        self._show_controls()
        self.figures.show_readout(self.readout)
        self._show_note()
        if statistics is not self._shown:
            self._shown = statistics
            self.statistics.show_statistics(statistics)
        self._show_curve()
        self._later.start()
        if self.side == "weight" and self.readout is not None and self.readout.exact is None:
            self._preview.start()

    def _show_controls(self) -> None:
        layer, session = self.layer, self._session
        names = [field for field in FIELDS if field.startswith(self.side)]
        if layer is None or session.model is None:
            self.controls.setEnabled(False)
            self._set_reset(tr("Select a layer first"))
            return
        self.controls.setEnabled(True)
        blocked = {field: not_applicable(layer, field) for field in names}
        others = [session.settings(name) for name in self._targets(f"{self.side}_bits")]
        first = session.recipe.resolve(layer.name)
        mixed = frozenset(
            field for field in names if any(getattr(o, field) != getattr(first.settings, field) for o in others)
        )
        self.controls.show_scheme(first, self.readout, mixed, blocked)
        own = any(first.source(field) == "set" for field in names) or bool(mixed)
        self._set_reset("" if own else tr("Every value here is inherited already"))

    def _set_reset(self, why_not: str) -> None:
        self.reset.setEnabled(not why_not)
        self.reset.setToolTip(why_not or tr("Let the selected layers inherit all settings of this page again"))

    def _show_note(self) -> None:
        words = ""
        if self.readout is not None:
            words = self.readout.note
            if not words and self.readout.per_channel:
                words = tr("one scale per channel: the range shown is the widest")
        self.note.set_full_text(words)

    def _show_quantized(self, _on: bool = False) -> None:
        ready = self.readout is not None and not self.histogram.message
        self.quantized.setEnabled(ready)
        overlay = quantized_counts(self.readout) if ready and self.readout and self.quantized.isChecked() else None
        self.histogram.set_quantized(overlay)

    def _show_overlap(self, _on: bool = False) -> None:
        if self.side == "activation":
            layer = self.layer.name if self.layer is not None and not self.histogram.message else None
            self.histogram.set_second(self.overlap.show_layer(layer))

    def _show_curve(self) -> None:
        readout = self.readout
        if readout is None or readout.fixed or readout.drawn is not None or not len(self.histogram.bars.counts):
            self.curve.set_curve(None)
            if self.layer is None or self.histogram.message:
                words = tr("Appears with the histogram")
            elif readout is None:
                words = tr("In float nothing is rounded or clipped")
            elif readout.drawn is not None:
                words = tr("This curve is drawn for integers with a static range")
            else:
                words = readout.note
            self.curve.set_message(words)
            return
        low, high = readout.clip
        if high <= 0 or (self._edge == "low" and low < 0 and not readout.scheme.symmetric):
            self._edge = "low"
        else:
            self._edge = "high"
        self.curve.set_message("")
        self.curve.set_curve(error_curve(readout, self._edge))
        self.curve.set_dot(readout)

    def _compare(self) -> None:
        """Fill in the calibrators after the charts stand: their searches take longer than a frame."""
        layer = self.layer
        if layer is None:
            self._show_no_calibrators()
            return
        site = site_of(self._session, layer.name, self.side)
        statistics = statistics_of(self._session, layer.name, self.side)
        scheme = scheme_of(self._session, layer.name, self.side)
        without_range = self.readout is not None and self.readout.drawn is not None and self.readout.fixed
        if site is None or statistics is None or scheme.is_float or without_range:
            self._show_no_calibrators()
            return
        rows = compare(statistics, site, scheme)
        blocked = not_applicable(layer, f"{self.side}_calibration")
        self.calibrators.show_rows(rows, scheme.calibration, blocked)
        self.histogram.set_ghosts(() if blocked else rows)

    def _show_no_calibrators(self) -> None:
        self.calibrators.show_rows((), "", "", self.curve.message)
        self.histogram.set_ghosts(())

    # ---- what a person does

    def _targets(self, field: str) -> tuple[str, ...]:
        """Return the selected layers a field applies to."""
        model = self._session.model
        if model is None:
            return ()
        return tuple(name for name in self._session.selection if not not_applicable(model.layer(name), field))

    def _label(self, words: str) -> str:
        names = self._targets(f"{self.side}_bits")
        where = names[0] if len(names) == 1 else f"{len(names)} {tr('layers')}"
        return f"{words}: {where}"

    def _on_clip_dragged(self, clip: tuple[float, float]) -> None:
        self._try(clip)
        if not self._commit.isActive():
            self._commit.start()

    def _try(self, clip: tuple[float, float]) -> None:
        """Show what a range would cost; the recipe follows at its own pace."""
        if self.layer is None:
            return
        self._trial = clip
        self.readout = inspect(self._session, self.layer.name, self.side, clip)
        self.histogram.set_readout(self.readout)
        self.figures.show_readout(self.readout)
        self.controls.show_clip(clip)
        if self.readout is None:
            return
        edge: Edge = "low" if self.histogram.dragged_edge == "low" and not self.readout.scheme.symmetric else "high"
        if self.readout.drawn is not None:
            return
        if edge != self._edge:
            self._edge = edge
            self.curve.set_curve(error_curve(self.readout, edge))
        self.curve.set_dot(self.readout)

    def _commit_trial(self) -> None:
        if self._trial is not None:
            self._set_clip(self._trial, f"clip {self.side}")

    def _on_clip_drag_finished(self, clip: tuple[float, float]) -> None:
        self._commit.stop()
        self._set_clip(clip, f"clip {self.side}")
        self._session.end_drag()
        self.refresh(self.layer)

    def _set_clip(self, clip: tuple[float, float], merge_key: str | None = None) -> None:
        words = tr("Clip weights") if self.side == "weight" else tr("Clip activations")
        try:
            self._session.set_layers(
                self._label(words), self._targets(f"{self.side}_clip"), merge_key, **{f"{self.side}_clip": clip}
            )
        except UserError as error:
            self._session.notice_posted.emit(Notice("warning", error.sentence()))

    def _on_clip_typed(self, clip: tuple[float, float]) -> None:
        if self.readout is not None and self.readout.scheme.symmetric:
            before = self.readout.clip
            lower_moved = abs(clip[0] - before[0]) > abs(clip[1] - before[1])
            reach = abs(clip[0] if lower_moved else clip[1])
            clip = (-reach, reach)
        self._set_clip(clip)
        self._show_controls()

    def _on_field_chosen(self, choice: tuple[str, Any]) -> None:
        field, value = choice
        if not set_field(self._session, self._targets(field), field, value):
            self._show_controls()

    def _on_calibration_taken(self, calibration: str) -> None:
        field = f"{self.side}_calibration"
        label = self._label(f"{tr('Calibrate by')} {calibration_title(calibration)}")
        self._session.set_layers(label, self._targets(field), **{field: calibration})

    def _on_reset_requested(self, names: tuple[str, ...]) -> None:
        self._session.reset_layers(self._session.selection, names)

    def _on_reset_all(self) -> None:
        names = tuple(field for field in FIELDS if field.startswith(self.side))
        self._session.reset_layers(self._session.selection, names)

    def _on_linear_toggled(self, on: bool) -> None:
        self.histogram.set_logarithmic(not on)

    def _ask_for_preview(self) -> None:
        if self.layer is not None and not self.histogram.dragging and self.isVisible():
            self._session.request_preview(self.layer.name)


def _timer(parent: QWidget, interval_ms: int) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    return timer
