"""Images with a choice of which of them are shown; Space flips between float and quantized."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from qstudio.ui.inspector.labels import ElidedLabel
from qstudio.ui.inspector.segments import Segment, Segments
from qstudio.ui.plots.image_grid import ImageGrid
from qstudio.ui.plots.images import Image, Place
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

ALL = "all"


class ImageView(QWidget):
    """Buttons, the images, and a line for what is under the mouse.

    Args:
        name: Of the figure.
        help_text: Tooltip of the figure: what it is, its unit, what is good.
        kinds: (key, title, tooltip) of the images that may be there.
        parent: Owner.
    """

    place_clicked = Signal(object)
    """(row, column) in the first image."""

    def __init__(
        self, name: str, help_text: str, kinds: tuple[tuple[str, str, str], ...], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.view = ALL
        self.images: dict[str, Image] = {}
        self.place_words: Callable[[Place], str] = lambda _place: ""
        self.idle_words = ""
        segments = (Segment(ALL, tr("All"), tr("All of them side by side, on common scales")),)
        self.views = Segments(name, segments + tuple(Segment(*kind) for kind in kinds))
        self.grid = ImageGrid(name)
        self.grid.setToolTip(help_text)
        self.grid.setMinimumHeight(theme().px(220))
        self.grid.place_help = self._help
        self.hovered = ElidedLabel("small", "muted")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme().px(6))
        column.addWidget(self.views)
        column.addWidget(self.grid, 1)
        column.addWidget(self.hovered)
        self.views.set_value(ALL)
        self.views.chosen.connect(self.set_view)
        self.grid.place_hovered.connect(self._on_hovered)
        self.grid.place_clicked.connect(self.place_clicked)

    def set_images(self, images: dict[str, Image], faded: bool = False, idle_words: str = "") -> None:
        """Show these images, as far as the choice of view wants them."""
        self.images, self.idle_words = images, idle_words
        self._draw(faded)
        self.hovered.set_full_text(idle_words)

    def set_view(self, view: str) -> None:
        """Show all images, or one of them by its key."""
        self.view = view
        self.views.set_value(view)
        self._draw(self.grid.faded)

    def flip(self) -> None:
        """Show the quantized side instead of the float one, or the other way round."""
        if self.images:
            self.set_view("float" if self.view == "quantized" else "quantized")

    def _draw(self, faded: bool) -> None:
        every = tuple(self.images.values())
        shown = every if self.view == ALL else tuple(i for key, i in self.images.items() if key == self.view)
        self.grid.set_images(shown, faded, every)

    def _help(self, place: Place) -> str:
        return self.place_words(place)

    def _on_hovered(self, place: Place | None) -> None:
        words = self.place_words(place) if place is not None else ""
        self.hovered.set_full_text(words or self.idle_words)
