"""One evaluation sample through the layers: input, scores, error of every layer, feature maps of this one."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QHideEvent, QKeyEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.inspection import SampleTrace
from qstudio.core.model_info import LayerInfo
from qstudio.session.session import Session
from qstudio.ui.inspector.image_view import ImageView
from qstudio.ui.inspector.labels import ElidedLabel, ThemedLabel
from qstudio.ui.inspector.sample_words import (
    SHOWN_CLASSES,
    are_classes,
    best_scores,
    channels_across,
    input_image,
    map_images,
    map_notes,
    map_words,
    token_words,
    verdict,
    why_no_sample,
)
from qstudio.ui.number_box import NumberBox
from qstudio.ui.plots.image_grid import ImageGrid
from qstudio.ui.plots.layer_strip import LayerStrip, StripLayer
from qstudio.ui.plots.score_bars import ScoreBars
from qstudio.ui.text import format_db, tr
from qstudio.ui.theme import theme

INPUT_PX = (152, 100)
"""As high as the scores of five classes, or of three where there is little room."""
STRIP_PX = (92, 66)
COMPACT_PX = 640
"""Below this height the parts above the maps are made smaller, so that the maps are seen."""


class SamplePage(QScrollArea):
    """Follows the session's sample while it is visible; does nothing while it is not."""

    channel_chosen = Signal(object)
    """Channel of the current layer's output that was clicked."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.layer: LayerInfo | None = None
        self._withdraw: Callable[[], None] | None = None
        self._drawn: tuple[object, ...] = ()
        self._compact: bool | None = None
        self.number = NumberBox(0, 0, whole=True)
        self.count = ThemedLabel(role="muted")
        self.previous = QPushButton("◀")
        self.next = QPushButton("▶")
        self.flipped = QPushButton(tr("Next flipped"))
        self.verdict = ElidedLabel()
        self.input = ImageGrid(tr("Input sample"))
        self.scores = ScoreBars(tr("Scores of the best classes"))
        self.strip = LayerStrip(tr("Error of the sample over the layers"))
        self.title = ElidedLabel()
        self.maps = ImageView(
            tr("Feature maps"),
            tr(
                "What the layer puts out for this sample: float, quantized as the recipe says, and the difference.\n"
                "Float and quantized share one scale; the difference is orange below 0 and purple above.\n"
                "Good: no structure is left in the difference. Space flips float and quantized."
            ),
            (
                ("float", tr("Float"), tr("The float network's values")),
                ("quantized", tr("Quantized"), tr("Values of the network quantized as the recipe says")),
                ("difference", tr("Difference"), tr("Quantized minus float")),
            ),
        )
        self.notes = QLabel()
        self.message_label = QLabel()
        self._places = QStackedWidget()
        self._build()
        self.previous.clicked.connect(self._on_previous)
        self.next.clicked.connect(self._on_next)
        self.flipped.clicked.connect(self._on_next_flipped)
        self.number.valueChanged.connect(self._on_number)
        self.strip.layer_selected.connect(self._on_layer_selected)
        self.maps.place_clicked.connect(self._on_place_clicked)
        for figure in (self.input, self.scores, self.strip, self.maps.grid):
            figure.notice_posted.connect(session.notice_posted.emit)

    def _build(self) -> None:
        gap = theme().px(8)
        self.number.setAccessibleName(tr("Sample"))
        self.number.setToolTip(tr("Place of the sample in the evaluation split, from 0"))
        for button, words in (
            (self.previous, tr("Sample before this one")),
            (self.next, tr("Sample after this one")),
        ):
            button.setToolTip(words)
            button.setAccessibleName(words)
            button.setFixedWidth(theme().px(32))
        self.input.setToolTip(tr("The sample as it is stored in the data"))
        self.scores.setToolTip(
            tr(
                "The largest class probabilities (softmax of the output), in percent: float above, quantized below.\n"
                "✓ marks the label. Good: the same class is first, by about the same margin."
            )
        )
        self.strip.setToolTip(
            tr(
                "Signal to quantization noise of this sample at the output of every layer, in dB: higher is better,\n"
                "above 20 dB little is seen. Orange: quantized up to that layer and float from there on, the network\n"
                "says another class (hatched). ▼: from there on it stays the quantized class. Click selects a layer."
            )
        )
        bar = QHBoxLayout()
        bar.setSpacing(theme().px(4))
        for widget in (self.previous, self.number, self.next, self.count):
            bar.addWidget(widget)
        bar.addStretch(1)
        bar.addWidget(self.flipped)
        top = QHBoxLayout()
        top.setSpacing(gap)
        top.addWidget(self.input, 0, Qt.AlignmentFlag.AlignTop)
        top.addWidget(self.scores, 1)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(gap)
        column.addWidget(self.verdict)
        column.addLayout(top)
        column.addWidget(self.strip)
        column.addWidget(self.title)
        column.addWidget(self.maps, 1)
        column.addWidget(self.notes)
        for label in (self.notes, self.message_label):
            label.setWordWrap(True)
            label.setProperty("role", "muted")
        self.message_label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._places.addWidget(content)
        self._places.addWidget(self.message_label)
        whole = QFrame()
        whole.setProperty("role", "surface")
        outer = QVBoxLayout(whole)
        outer.setContentsMargins(gap, theme().px(4), gap, gap)
        outer.setSpacing(gap)
        outer.addLayout(bar)
        outer.addWidget(self._places, 1)
        self.setWidget(whole)
        self.setWidgetResizable(True)
        self.setFrameShape(self.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._fit()

    def _fit(self) -> None:
        """Give the parts above the maps the room there is for them."""
        compact = self.viewport().height() < theme().px(COMPACT_PX)
        if compact == self._compact:
            return
        self._compact = compact
        side = theme().px(INPUT_PX[compact])
        self.input.setFixedSize(side, side)
        self.scores.setFixedHeight(side)
        self.strip.setFixedHeight(theme().px(STRIP_PX[compact]))
        trace = self._session.pictures.trace
        if trace is not None and self._drawn:
            self._show_scores(trace, self.scores.faded)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Use the room there is."""
        super().resizeEvent(event)
        self._fit()

    # ---- following

    def showEvent(self, event: QShowEvent) -> None:
        """Want the trace while the page is seen."""
        super().showEvent(event)
        if self._withdraw is None:
            self._withdraw = self._session.pictures.follow_sample()
            self.refresh(self._session.current_layer)

    def hideEvent(self, event: QHideEvent) -> None:
        """Want nothing more."""
        super().hideEvent(event)
        if self._withdraw is not None:
            self._withdraw()
            self._withdraw = None

    # ---- showing

    @property
    def message(self) -> str:
        """The words shown instead of data; empty when data is shown."""
        return self.message_label.text() if self._places.currentIndex() == 1 else ""

    def refresh(self, layer: LayerInfo | None) -> None:
        """Show the sample as the session knows it now, at a layer."""
        self.layer = layer
        self._show_bar()
        empty = why_no_sample(self._session)
        trace = self._session.pictures.trace
        self.message_label.setText(empty)
        self._places.setCurrentIndex(1 if empty or trace is None else 0)
        if empty or trace is None:
            self._drawn = ()
            return
        faded = not self._session.pictures.is_current
        shown = (trace, faded)
        if self._drawn != shown:
            self._drawn = shown
            self._show_trace(trace, faded)
        self._show_layer(trace, faded)

    def _show_bar(self) -> None:
        pictures = self._session.pictures
        with QSignalBlocker(self.number):
            self.number.setMaximum(max(pictures.samples - 1, 0))
            self.number.setValue(pictures.index)
        self.count.setText(f"{tr('of')} {pictures.samples:,}" if pictures.samples else "")
        for widget in (self.previous, self.next, self.number):
            widget.setEnabled(pictures.samples > 0)
        self.previous.setEnabled(pictures.index > 0)
        self.next.setEnabled(pictures.index + 1 < pictures.samples)
        count = len(pictures.flipped)
        self.flipped.setEnabled(count > 0)
        if count:
            words = f"{count:,} {tr('samples changed their class in the last run; show the next of them')}"
        elif pictures.flips_known:
            words = tr("No sample changed its class in the last run")
        else:
            words = tr("Run PTQ to know which samples flip")
        self.flipped.setToolTip(words)

    def _show_trace(self, trace: SampleTrace, faded: bool) -> None:
        words, role = verdict(trace)
        self.verdict.set_full_text(words)
        self.verdict.set_role(role)
        image = input_image(trace.stored)
        self.input.set_images((image,) if image is not None else ())
        self.input.set_message("" if image is not None else token_words(trace.stored))
        self._show_scores(trace, faded)
        self.strip.set_layers(
            tuple(StripLayer(maps.layer, maps.sqnr_db, maps.argmax_flips) for maps in trace.layers),
            trace.flips_at,
            faded,
        )
        self.notes.setText(". ".join(trace.notes))
        self.notes.setVisible(bool(trace.notes))

    def _show_scores(self, trace: SampleTrace, faded: bool) -> None:
        count = 3 if self._compact else SHOWN_CLASSES
        self.scores.set_scores(best_scores(trace, count), are_classes(trace), faded)

    def _show_layer(self, trace: SampleTrace, faded: bool) -> None:
        name = self.layer.name if self.layer is not None else ""
        self.strip.set_current(name)
        maps = self._session.pictures.maps(name)
        if maps is None:
            there = any(known.layer == name for known in trace.layers)
            self.title.set_full_text(name)
            self.maps.set_images({}, faded)
            self.maps.grid.set_message(
                tr("Fetching the maps of this layer…")
                if there
                else tr("This layer puts out nothing that can be shown")
                if name
                else tr("Select a layer to see its feature maps")
            )
            return
        self.title.set_full_text(f"{tr('Output of')} {name}: {format_db(maps.sqnr_db)}")
        self.maps.grid.set_message("")
        self.maps.place_words = lambda place: map_words(maps, place)
        self.maps.set_images(map_images(maps), faded, map_notes(maps))

    # ---- the person

    def flip(self) -> None:
        """Show the quantized maps instead of the float ones, or the other way round."""
        self.maps.flip()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Flip with Space, wherever on the page."""
        if event.key() == Qt.Key.Key_Space:
            self.flip()
        else:
            super().keyPressEvent(event)

    def _look_at(self, index: int) -> None:
        self._session.pictures.look_at(index)
        self.refresh(self.layer)

    def _step(self, by: int) -> None:
        self._look_at(min(max(self._session.pictures.index + by, 0), max(self._session.pictures.samples - 1, 0)))

    def _on_previous(self) -> None:
        self._step(-1)

    def _on_next(self) -> None:
        self._step(1)

    def _on_number(self, value: float) -> None:
        self._look_at(int(value))

    def _on_next_flipped(self) -> None:
        self._session.pictures.next_flipped()
        self.refresh(self.layer)

    def _on_layer_selected(self, name: str) -> None:
        self._session.select((name,))

    def _on_place_clicked(self, place: tuple[int, int]) -> None:
        maps = self._session.pictures.maps(self.layer.name) if self.layer is not None else None
        if maps is None or self.layer is None or self.layer.activation is None or maps.channels < 2:
            return
        _, height, width = maps.float.shape
        channel = place[0] // height * channels_across(maps) + place[1] // width
        if channel < len(maps.float):
            self.channel_chosen.emit(channel)
