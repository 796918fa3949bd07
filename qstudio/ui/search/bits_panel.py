"""The bits tab: the bits of every layer as bars that keys and the mouse change, and what they come to."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget

from qstudio.core.bit_operations import average_bits
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.plots.bars import BitBar, BitBars, bar_words, bits_text
from qstudio.ui.text import format_bytes, tr


def bars_of(model: ModelInfo, recipe: Recipe) -> tuple[BitBar, ...]:
    """Return the layers with a weight or a tensor of their own, with their bits."""
    found = []
    for layer in model.layers:
        if layer.unsupported or (layer.weight is None and layer.activation is None):
            continue
        settings = recipe.settings(layer.name)
        weight = settings.weight_scheme().bits if layer.weight is not None else None
        width = settings.activation_scheme().bits if layer.activation is not None else None
        found.append(BitBar(layer.name, weight, width))
    return tuple(found)


class BitsPanel(QFrame):
    """Bars of bits; a drag paints, digits set the selected layers, and the totals follow."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._is_stale = True
        self._totals = ""
        self.setProperty("role", "surface")
        self.totals = QLabel()
        self.totals.setToolTip(
            tr(
                "Average bits: mean over all weights of the model. Size: bytes of all parameters, packed, with scales\n"
                "and zero points. Both are exact for the recipe as it stands."
            )
        )
        self.hint = QLabel(
            tr("Drag over the bars to paint bits; 2 to 8 set the weights of the selected layers, Alt the activations.")
        )
        self.hint.setProperty("role", "muted")
        self.hint.setWordWrap(True)
        self.bars = BitBars(tr("Bits per layer"))
        self.bars.setToolTip(
            tr("Bits of the weights (W, above) and of the layer's output (A, below); F is float32.\nDrag to paint.")
        )
        self.bars.bar_selected.connect(self._on_selected)
        self.bars.bar_painted.connect(self._on_painted)
        self.bars.paint_ended.connect(session.end_drag)
        self.bars.notice_posted.connect(session.notice_posted.emit)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 12, 8)
        layout.setSpacing(4)
        layout.addWidget(self.totals)
        layout.addWidget(self.hint)
        layout.addWidget(self.bars, 1)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._refresh)
        bridge.model_changed.connect(self._on_changed)
        bridge.recipe_changed.connect(self._on_changed)
        bridge.selection_changed.connect(self._on_selection)
        self._refresh()

    # ---- the person

    def _on_selected(self, layer: str) -> None:
        self._session.select((layer,))

    def _on_painted(self, layer: str, bits: int, activation: bool) -> None:
        """Set the bits of a layer, as part of the drag."""
        side, field = (tr("activation"), "activation_bits") if activation else (tr("weight"), "weight_bits")
        recipe = self._session.recipe.with_layers((layer,), **{field: bits})
        label = tr("Paint {s} bits").format(s=side)
        self._session.edit(label, recipe, merge_key=f"paint {field}")

    # ---- following the session

    def _on_changed(self, _value: object = None) -> None:
        self._is_stale = True
        if self.isVisible():
            self._timer.start()  # any number of edits within one turn of the loop are drawn once

    def _on_selection(self, selection: tuple[str, ...]) -> None:
        if self.isVisible():
            self.bars.set_selected(selection)
            self._show_words()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what happened while it was not seen."""
        super().showEvent(event)
        if self._is_stale:
            self._refresh()
        self.bars.set_selected(self._session.selection)

    def _refresh(self) -> None:
        self._is_stale = False
        model = self._session.model
        if model is None:
            self.bars.set_bars(())
            self.bars.set_message(tr("Open a model first"))
            self.totals.setText("")
            return
        bars = bars_of(model, self._session.recipe)
        if self.bars.message:
            self.bars.set_message("")
        self.bars.set_bars(bars)
        self.bars.set_selected(self._session.selection)
        mean = average_bits(model, self._session.settings)
        widths = sorted({bar.weight for bar in bars if bar.weight is not None}, reverse=True)
        parts = [
            tr("average {b} bits a weight").format(b=f"{mean:.2f}") if mean is not None else tr("no weights"),
            tr("widths {w}").format(w=", ".join(map(bits_text, widths))) if widths else "",
            f"{format_bytes(model.float_size_bytes)} → {format_bytes(self._session.quantized_size_bytes())}",
        ]
        self._totals = ",  ".join(part for part in parts if part)
        self._show_words()

    def _show_words(self) -> None:
        """Show the totals and the bits of the first selected layer."""
        chosen = next((bar for bar in self.bars.bars if bar.name in self._session.selection[:1]), None)
        self.totals.setText(
            "   |   ".join(part for part in (self._totals, bar_words(chosen) if chosen else "") if part)
        )
