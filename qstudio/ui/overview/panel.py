"""The overview tab: a box per layer against its representable range, and below it the error over depth."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSplitter, QVBoxLayout, QWidget

from qstudio.session.overview import boxes, find, places_of
from qstudio.session.readout import Side
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.inspector.segments import Segment, Segments
from qstudio.ui.plots.depth_plot import DepthPlot
from qstudio.ui.plots.layer_boxes import LayerBoxes
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

SLICE_S = 0.008
"""Ranges are found for so long at a time: half a frame."""
REDRAW_S = 0.2
"""Those found within this are drawn together."""


class OverviewPanel(QFrame):
    """Ranges and noise of all layers; does nothing while it is not visible."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "surface")
        self._side: Side = "weight"
        self._ranges_stale = self._depth_stale = True
        self._unknown: list[str] = []
        """Layers whose range is still to be found, the next one last."""
        self._found = False
        """Whether there are ranges that are not drawn yet."""
        self._drawn = 0.0
        self._withdraw: Callable[[], None] | None = None
        self._build()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_timer)
        bridge.model_changed.connect(self._on_ranges)
        bridge.statistics_changed.connect(self._on_ranges)
        bridge.recipe_changed.connect(self._on_ranges)
        bridge.depth_changed.connect(self._on_depth)
        bridge.dataset_changed.connect(self._on_depth)
        bridge.model_changed.connect(self._on_depth)
        bridge.selection_changed.connect(self._on_selection)
        theme().changed.connect(self._on_theme)

    # ---- making

    def _build(self) -> None:
        self.side = Segments(
            tr("Tensors"),
            (
                Segment("weight", tr("Weights"), tr("The layers' weights")),
                Segment("activation", tr("Activations"), tr("What the layers put out, on the calibration samples")),
            ),
        )
        self.side.chosen.connect(self._on_side)
        self.scale = Segments(
            tr("Scale"),
            (
                Segment(
                    "share",
                    tr("Of range"),
                    tr("Value over the largest representable magnitude of its layer: all bands are alike"),
                ),
                Segment("linear", tr("Linear"), tr("In units of the tensor")),
                Segment("log", tr("Log"), tr("Logarithmic in both directions, linear around zero: small layers show")),
            ),
        )
        self.scale.chosen.connect(self._on_scale)
        self.ranges = LayerBoxes()
        self.noise = DepthPlot()
        for plot in (self.ranges, self.noise):
            plot.layer_selected.connect(self._on_clicked)
            plot.notice_posted.connect(self._session.notice_posted.emit)
        self.noise.setXLink(self.ranges)
        self._depth_note = ElidedLabel()
        self._depth_note.setProperty("role", "muted")
        self._headings = [QLabel(tr("Layers at a glance")), QLabel(tr("Error over depth"))]
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        for heading, more, plot in (
            (self._headings[0], (self.side, self.scale), self.ranges),
            (self._headings[1], (self._depth_note,), self.noise),
        ):
            half = QWidget()
            row = QHBoxLayout()
            row.setContentsMargins(12, 8, 12, 0)
            row.setSpacing(12)
            row.addWidget(heading)
            if plot is self.ranges:
                row.addStretch(1)
            for widget in more:
                row.addWidget(widget, 0 if plot is self.ranges else 1)
            layout = QVBoxLayout(half)
            layout.setContentsMargins(0, 0, 0, 0)
            layout.setSpacing(4)
            layout.addLayout(row)
            layout.addWidget(plot, 1)
            splitter.addWidget(half)
        splitter.setSizes([500, 400])
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(splitter)
        self.side.set_value("weight")
        self.scale.set_value(self.ranges.scale)
        self._on_theme()

    def _on_theme(self, _palette: object = None) -> None:
        for heading in self._headings:
            heading.setFont(theme().font("normal", bold=True))

    # ---- when to work

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what has changed, and want the error over depth."""
        super().showEvent(event)
        if self._withdraw is None:
            self._withdraw = self._session.preview.request_depth()
        self._refresh()

    def hideEvent(self, event: QHideEvent) -> None:
        """Want nothing any more."""
        super().hideEvent(event)
        self._timer.stop()
        if self._withdraw is not None:
            self._withdraw()
            self._withdraw = None

    def _on_ranges(self, _value: object = None) -> None:
        self._ranges_stale = True
        self._soon()

    def _on_depth(self, _value: object = None) -> None:
        self._depth_stale = True
        self._soon()

    def _soon(self) -> None:
        """Refresh once for what comes together: an edit tells of recipe and depth, reading weights of every layer."""
        if self.isVisible() and not self._timer.isActive():
            self._timer.start(0)

    def _on_timer(self) -> None:
        """Show what has changed, then find ranges for a while."""
        if self._ranges_stale or self._depth_stale:
            self._refresh()
        end = time.perf_counter() + SLICE_S
        while self._unknown and time.perf_counter() < end:
            find(self._session, self._side, self._unknown.pop())
            self._found = True
        if self._found and (not self._unknown or time.perf_counter() - self._drawn > REDRAW_S):
            self._show_ranges()
        self._go_on()

    def _refresh(self) -> None:
        if self._ranges_stale:
            self._show_ranges()
        if self._depth_stale:
            self._show_depth()
        self._on_selection()

    # ---- showing

    def _show_ranges(self) -> None:
        self._ranges_stale = False
        session = self._session
        shown = boxes(session, self._side)
        self.ranges.set_boxes(shown, len(places_of(session.model)) if session.model is not None else 0)
        self.ranges.set_message("" if shown is not None else self._why_no_ranges())
        self._drawn = time.perf_counter()
        self._unknown = list(reversed(shown.unknown)) if shown is not None else []
        self._found = False
        self._go_on()

    def _go_on(self) -> None:
        if self._unknown and self.isVisible():
            self._timer.start(0)

    def _why_no_ranges(self) -> str:
        if self._session.model is None:
            return tr("Open a model to see its layers")
        if self._side == "weight":
            return tr("The weights are being read")
        if self._session.dataset is None:
            return tr("Choose data: activations are known once calibration samples have run through the model")
        return tr("The activations are being collected")

    def _show_depth(self) -> None:
        self._depth_stale = False
        session, previews = self._session, self._session.preview
        depth, stale = previews.depth, False
        if depth is None and previews.latest_depth is not None and session.dataset is not None:
            depth, stale = previews.latest_depth, True
        places = places_of(session.model) if session.model is not None else {}
        if depth is not None and not any(noise.layer in places for noise in depth.layers):
            depth = None
        self.noise.set_depth(depth, places, stale)
        self.noise.set_message("" if depth is not None else self._why_no_depth())
        words = ""
        if depth is not None:
            words = tr("simulated on {n} samples").format(n=f"{depth.samples:,}")
            words = f"{words}, {tr('of an earlier recipe: being measured')}" if stale else words
            words = "; ".join((words, *depth.notes))
        self._depth_note.setText(words)
        self._depth_note.setToolTip(words)

    def _why_no_depth(self) -> str:
        if self._session.model is None:
            return tr("Open a model to see where its error arises")
        if self._session.dataset is None:
            return tr("Choose data: the error is measured on some of its samples")
        return self._session.preview.depth_problem or tr("The error is being measured")

    # ---- choosing

    def _on_side(self, side: Side) -> None:
        self._side = side
        self.side.set_value(side)
        self._show_ranges()
        self._on_selection()

    def _on_scale(self, scale: str) -> None:
        self.scale.set_value(scale)
        self.ranges.set_scale(scale)  # type: ignore[arg-type]

    def _on_clicked(self, layer: str) -> None:
        self._session.select((layer,))

    def _on_selection(self, _selection: object = None) -> None:
        if self.isVisible():
            current = self._session.selection[0] if self._session.selection else ""
            self.ranges.set_current(current)
            self.noise.set_current(current)
