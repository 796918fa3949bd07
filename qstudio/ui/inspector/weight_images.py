"""The layer's weight as an image: kernels or matrix, float, quantized, difference, error."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget

from qstudio.core.inspection import WeightPictures
from qstudio.core.model_info import LayerInfo
from qstudio.session.session import Session
from qstudio.ui.inspector.image_view import ImageView
from qstudio.ui.inspector.sample_words import three_values
from qstudio.ui.inspector.situation import why_no_site
from qstudio.ui.plots.images import Image, Place
from qstudio.ui.text import format_value, tr
from qstudio.ui.theme import theme


class WeightImagePage(QFrame):
    """Follows the current layer's weight and scheme while it is visible; does nothing while it is not."""

    channel_chosen = Signal(object)
    """Output channel of the kernel or row that was clicked."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "surface")
        self._session = session
        self.layer: LayerInfo | None = None
        self._withdraw: Callable[[], None] | None = None
        self._drawn: tuple[object, ...] = ()
        self.images = ImageView(
            tr("Weight image"),
            tr(
                "The layer's weight as it stands in the file: float, as its scheme rounds it, and the difference.\n"
                "Error: root of the mean squared difference of each kernel (of each value of a matrix).\n"
                "Good: the error is even; a bright row is a channel that its scale does not fit.\n"
                "Click selects the channel. Space flips float and quantized."
            ),
            (
                ("float", tr("Float"), tr("Values before quantization")),
                ("quantized", tr("Quantized"), tr("Values as the scheme of this layer rounds them")),
                ("difference", tr("Difference"), tr("Quantized minus float")),
                ("error", tr("Error"), tr("Root of the mean squared difference of each kernel or value")),
            ),
        )
        self.explained = QLabel()
        self.explained.setWordWrap(True)
        self.explained.setProperty("role", "muted")
        gap = theme().px(8)
        column = QVBoxLayout(self)
        column.setContentsMargins(gap, theme().px(4), gap, gap)
        column.setSpacing(gap)
        column.addWidget(self.images, 1)
        column.addWidget(self.explained)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.images.place_clicked.connect(self._on_place_clicked)
        self.images.grid.notice_posted.connect(session.notice_posted.emit)

    def showEvent(self, event: QShowEvent) -> None:
        """Want the picture while the page is seen."""
        super().showEvent(event)
        if self._withdraw is None:
            self._withdraw = self._session.pictures.follow_weights()
            self.refresh(self._session.current_layer)

    def hideEvent(self, event: QHideEvent) -> None:
        """Want nothing more."""
        super().hideEvent(event)
        if self._withdraw is not None:
            self._withdraw()
            self._withdraw = None

    @property
    def message(self) -> str:
        """The words shown instead of data; empty when data is shown."""
        return self.images.grid.message

    def flip(self) -> None:
        """Show the quantized weight instead of the float one, or the other way round."""
        self.images.flip()

    def refresh(self, layer: LayerInfo | None) -> None:
        """Show a layer's weight as the session knows it now."""
        self.layer = layer
        pictures = self._session.pictures
        found = pictures.weights
        if found is not None and (layer is None or layer.weight is None or found.layer != layer.weight.layer):
            found = None
        words = self._why_empty(layer, found)
        self.images.grid.set_message(words)
        if found is None or words:
            self._drawn = ()
            self.images.set_images({})
            self.explained.setText("")
            return
        faded = not pictures.weights_are_current
        if self._drawn == (found, faded):
            return
        self._drawn = (found, faded)
        shown = found
        self.images.place_words = lambda place: weight_words(shown, place)
        self.images.grid.set_marked(None)
        self.images.set_images(weight_images(found), faded, " × ".join(map(str, found.shape)))
        self.explained.setText(". ".join((found.layout[:1].upper() + found.layout[1:], *found.notes)))

    def _why_empty(self, layer: LayerInfo | None, found: WeightPictures | None) -> str:
        if self._session.model is None:
            return tr("Open a model to see its weights")
        if layer is None:
            return tr("Select a layer to see its weight")
        if layer.weight is None:
            return why_no_site(layer, "weight")
        if self._session.pictures.weights_problem:
            return self._session.pictures.weights_problem
        return "" if found is not None else tr("Drawing the weight…")

    def _on_place_clicked(self, place: Place) -> None:
        found = self._session.pictures.weights
        channel = channel_at(found, place) if found is not None else None
        if found is not None and channel is not None:
            if found.tile[0]:
                self.images.grid.set_marked((place[0] // found.tile[0], place[1] // found.tile[1]))
            self.channel_chosen.emit(channel)


def weight_images(pictures: WeightPictures) -> dict[str, Image]:
    """Return a weight's pictures as images: "float", "quantized", "difference", "error"."""
    tile = pictures.tile
    tiles = pictures.channels if pictures.channel_side is None else 0
    found = {
        "float": Image(tr("float"), pictures.float, "value", tile, tiles, "float"),
        "quantized": Image(tr("quantized"), pictures.quantized, "value", tile, tiles, "quantized"),
        "difference": Image(
            tr("quantized − float"), pictures.quantized - pictures.float, "difference", tile, tiles, "watch"
        ),
    }
    if pictures.error is not None:
        title = tr("error of each kernel") if tile[0] else tr("error")
        per_kernel = (1, 1) if tile[0] else (0, 0)
        found["error"] = Image(title, pictures.error, "error", per_kernel, tiles, "worse", tile if tile[0] else (1, 1))
    return found


def channel_at(pictures: WeightPictures, place: Place) -> int | None:
    """Return the output channel at a place of the picture; None beyond the last kernel."""
    height, width = pictures.tile if pictures.tile[0] else (pictures.step, pictures.step)
    if not pictures.tile[0]:
        channel = place[pictures.channel_side or 0] * pictures.step
    elif pictures.channel_side is None:
        channel = place[0] // height * (pictures.float.shape[1] // width) + place[1] // width
    else:
        channel = (place[0] // height, place[1] // width)[pictures.channel_side]
    return int(channel) if channel < pictures.channels else None


def weight_words(pictures: WeightPictures, place: Place) -> str:
    """Return where a place of the picture is in the weight, with its values and its code."""
    channel = channel_at(pictures, place)
    if channel is None:
        return ""
    row, column = place
    height, width = pictures.tile
    words = [f"{tr('channel')} {channel}"]
    if height and pictures.channel_side is not None:
        other = (column // width, row // height)[pictures.channel_side]
        words.append(f"{tr('input channel')} {other}")
    if height and (height, width) != (1, 1):
        words.append(f"{tr('row')} {row % height}, {tr('column')} {column % width}")
    if not height:
        words = [f"{tr('row')} {row * pictures.step}, {tr('column')} {column * pictures.step}"]
    before, after = float(pictures.float[row, column]), float(pictures.quantized[row, column])
    text = f"{', '.join(words)}: {three_values(before, after)}"
    if pictures.codes is not None:
        text += f", {tr('code')} {int(pictures.codes[row, column])}"
    if pictures.error is not None and (height or pictures.step > 1):
        at = (row // height, column // width) if height else (row, column)
        text += f", {tr('error')} {format_value(float(pictures.error[at]))}"
    return text
