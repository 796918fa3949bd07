"""The choice of a number format and of the way to read it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QSizePolicy, QWidget

from qstudio.core.formats import FORMATS, Format, format_of
from qstudio.session.readout import Side
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

BACKEND_WORDS = {
    "integers": "onnxruntime runs it; 8 bits on integer kernels.",
    "float8": "Exported as float8: onnxruntime computes in float32 between the roundings.",
    "float16": "Exported as 16-bit floats: onnxruntime computes in float32 between the roundings.",
    "values": "Weights are exported as a codebook; no integer kernel runs it, so it saves bytes and no time.",
}


def format_words(item: Format, side: Side) -> str:
    """Return what a person is told about a format: summary, formula, width, what an export does, source."""
    low, high = item.bits
    width = f"{low} bit" + ("s" if low > 1 else "") if low == high else f"{low} to {high} bits"
    backend = BACKEND_WORDS[item.stored]
    if item.stored == "values" and side == "activation":
        backend = "onnxruntime has no operator for it: it is simulated, and the exported file leaves the tensor float."
    return "\n".join(
        (tr(item.summary), item.formula, f"{tr('Width')}: {width}", tr(backend), f"{tr('Source')}: {item.source}")
    )


class FormatRow(QWidget):
    """Two lists side by side: the format, and its variant where it has some."""

    chosen = Signal(object)
    """The format as written in a recipe."""

    def __init__(self, side: Side, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._side = side
        self.format = QComboBox()
        self.variant = QComboBox()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(theme().px(4))
        row.addWidget(self.format, 3)
        row.addWidget(self.variant, 2)
        for box, words in ((self.format, tr("Number format")), (self.variant, tr("Variant of the format"))):
            box.setAccessibleName(words)
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for item in FORMATS.values():
            if item.takes(side):
                self.format.addItem(tr(item.title), item.id)
                place = self.format.count() - 1
                self.format.setItemData(place, format_words(item, side), Qt.ItemDataRole.ToolTipRole)
        self.format.activated.connect(self._on_format)
        self.variant.activated.connect(self._on_variant)

    def show_format(self, text: str, blocked: str) -> None:
        """Show a format; a reason not to change it stands in the tooltips.

        Args:
            text: As written in a recipe.
            blocked: Why it cannot be changed; empty where it can.
        """
        item, variant = format_of(text)
        self.format.setCurrentIndex(self.format.findData(item.id))
        self.format.setEnabled(not blocked)
        self.format.setToolTip(blocked or format_words(item, self._side))
        self.variant.clear()
        for choice in item.variants:
            self.variant.addItem(tr(choice.title), choice.id)
            self.variant.setItemData(self.variant.count() - 1, tr(choice.summary), Qt.ItemDataRole.ToolTipRole)
        self.variant.setVisible(bool(item.variants))
        if item.variants:
            self.variant.setCurrentIndex(self.variant.findData(variant))
            self.variant.setEnabled(not blocked)
            self.variant.setToolTip(blocked or tr(item.variants[self.variant.currentIndex()].summary))

    def _on_format(self, index: int) -> None:
        self.chosen.emit(str(self.format.itemData(index)))

    def _on_variant(self, index: int) -> None:
        variant = str(self.variant.itemData(index))
        name = str(self.format.currentData())
        self.chosen.emit(f"{name}:{variant}" if variant else name)
