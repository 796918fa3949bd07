"""Ranges of a layer's channels, so that one bad channel is seen."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from qstudio.core.model_info import LayerInfo
from qstudio.core.scheme import TENSOR
from qstudio.session.curves import channel_ranges
from qstudio.session.readout import Side, inspect, read, scheme_of, site_of, statistics_of
from qstudio.session.session import Session
from qstudio.ui.inspector.labels import ThemedLabel
from qstudio.ui.inspector.segments import Segment, Segments
from qstudio.ui.inspector.situation import why_empty
from qstudio.ui.plots.channel_plot import ChannelPlot
from qstudio.ui.text import tr
from qstudio.ui.theme import theme


class ChannelPage(QFrame):
    """Boxes for the channels of the weights or of the output, in order or widest first."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "surface")
        self._session = session
        self.layer: LayerInfo | None = None
        self.side: Side = "weight"
        self.sides = Segments(
            tr("Tensor"),
            (
                Segment("weight", tr("Weights"), tr("Output channels of the weight")),
                Segment("activation", tr("Activations"), tr("Channels of the tensor the layer puts out")),
            ),
        )
        self.order = Segments(
            tr("Order"),
            (
                Segment(False, tr("In order"), tr("Channels as they are stored")),
                Segment(True, tr("Widest first"), tr("Sorted by the span of their values")),
            ),
        )
        self.plot = ChannelPlot(tr("Ranges of the channels"))
        self.plot.setMinimumHeight(theme().px(220))
        self.worst = ThemedLabel()
        self.hovered = ThemedLabel(role="muted")
        self.explained = ThemedLabel(size="small", role="muted")
        for label in (self.worst, self.hovered, self.explained):
            label.setWordWrap(True)
            label.setMinimumHeight(label.fontMetrics().height())
        gap = theme().px(8)
        column = QVBoxLayout(self)
        column.setContentsMargins(gap, theme().px(4), gap, gap)
        column.setSpacing(gap)
        row = QHBoxLayout()
        row.setSpacing(theme().px(16))
        row.addWidget(self.sides)
        row.addWidget(self.order)
        column.addLayout(row)
        column.addWidget(self.plot, 1)
        column.addWidget(self.hovered)
        column.addWidget(self.worst)
        column.addWidget(self.explained)
        self.sides.set_value("weight")
        self.order.set_value(False)
        self.sides.chosen.connect(self._on_side)
        self.order.chosen.connect(self.plot.set_sorted)
        self.plot.channel_hovered.connect(self._on_hovered)
        self.plot.notice_posted.connect(session.notice_posted.emit)

    @property
    def message(self) -> str:
        """The words shown instead of data; empty when data is shown."""
        return self.plot.message

    def refresh(self, layer: LayerInfo | None) -> None:
        """Show a layer as the session knows it now."""
        self.layer = layer
        self.hovered.setText(tr("Point at a channel to read its range"))
        self.worst.setText("")
        self.explained.setText("")
        empty = why_empty(self._session, layer, self.side)
        self.plot.set_message(empty)
        site = site_of(self._session, layer.name, self.side) if layer is not None else None
        statistics = statistics_of(self._session, layer.name, self.side) if layer is not None else None
        if layer is None or site is None or statistics is None:
            self.plot.set_ranges(None)
            return
        readout = inspect(self._session, layer.name, self.side)
        tensor = None
        if readout is not None and readout.per_channel:
            scheme = replace(scheme_of(self._session, layer.name, self.side), granularity=TENSOR)
            one = read(statistics, site, scheme).error
            tensor = (one.low, one.high)
        ranges = channel_ranges(statistics, readout, tensor)
        self.plot.set_ranges(ranges)
        if ranges.worst is not None:
            self.worst.setText(f"{tr('Lowest SQNR')}: {self.plot.describe(ranges.worst)}")
        elif len(ranges.low) > 1:
            widest = int((ranges.high - ranges.low).argmax())
            self.worst.setText(f"{tr('Widest')}: {self.plot.describe(widest)}")
        if self.side == "activation":
            self.explained.setText(tr("Activations have one scale for all channels; wide channels make it coarse."))
        elif readout is not None and not readout.per_channel:
            self.explained.setText(
                tr("One scale serves all channels: narrow ones get few codes. Scales per channel help.")
            )

    def show_channel(self, side: Side, channel: int) -> None:
        """Show a side with one of its channels marked."""
        if side != self.side:
            self.sides.set_value(side)
            self._on_side(side)
        if self.plot.ranges is not None and 0 <= channel < len(self.plot.ranges.low):
            self.plot.mark(channel)

    def _on_side(self, side: Side) -> None:
        self.side = side
        self.refresh(self.layer)

    def _on_hovered(self, channel: int | None) -> None:
        words = tr("Point at a channel to read its range")
        self.hovered.setText(self.plot.describe(channel) if channel is not None else words)
