"""The choice of how the exported file stores weights below 8 bits."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QWidget

from qstudio.core.formats import format_of
from qstudio.core.recipe import Recipe
from qstudio.core.storage import STORAGES
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.text import tr

PACKED_BITS = 4
"""Codes up to this width fit into a type below 8 bits."""


def has_choice(recipe: Recipe) -> bool:
    """Return whether a recipe asks anywhere for weights that the two storages would write differently."""
    own = [*(rule.values for rule in recipe.rules), *(values for _, values in recipe.overrides)]
    given: list[tuple[str, Any]] = [
        ("weight_bits", recipe.default.weight_bits),
        ("weight_format", recipe.default.weight_format),
    ]
    given += [pair for values in own for pair in values]
    return any(
        (name == "weight_bits" and value <= PACKED_BITS)
        or (name == "weight_format" and format_of(value)[0].bits[1] <= PACKED_BITS)
        for name, value in given
    )


class StorageBox(QWidget):
    """int8 or packed, of the next run; seen where the recipe has weights that it concerns."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        choices = "\n".join(f"{name}: {tr(meaning)}" for name, meaning in STORAGES.items())
        told = tr("How the exported file stores weights below 8 bits; a run measures both") + f"\n{choices}"
        caption = QLabel(tr("store"))
        caption.setProperty("role", "muted")
        self.box = QComboBox()
        caption.setBuddy(self.box)
        self.box.setAccessibleName(tr("store"))
        for name, meaning in STORAGES.items():
            self.box.addItem(name, name)
            self.box.setItemData(self.box.count() - 1, tr(meaning), Qt.ItemDataRole.ToolTipRole)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 8, 0)
        layout.setSpacing(8)
        for widget in (caption, self.box):
            widget.setToolTip(told)
            layout.addWidget(widget)
        self.box.activated.connect(self._on_chosen)
        bridge.options_changed.connect(self._on_changed)
        bridge.recipe_changed.connect(self._on_changed)
        self._on_changed()

    def _on_chosen(self, index: int) -> None:
        self._session.set_options(storage=self.box.itemData(index))

    def _on_changed(self, _value: object = None) -> None:
        with QSignalBlocker(self.box):
            self.box.setCurrentIndex(self.box.findData(self._session.options.storage))
        self.setVisible(has_choice(self._session.recipe))
