"""A row of small buttons, one for each bit width, of which any number is on."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QWidget

from qstudio.core.scheme import format_bits
from qstudio.ui.text import tr
from qstudio.ui.theme import theme


class BitToggles(QWidget):
    """Bit widths to be tried.

    Args:
        name: Accessible name.
        widths: Offered, in the order in which they stand.
        help: Tooltip of every button, before its width.
        parent: Owner.
    """

    chosen = Signal(object)
    """The widths that are on, most bits first."""

    def __init__(self, name: str, widths: tuple[int, ...], help: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self._buttons: dict[int, QPushButton] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(theme().px(2))
        for bits in widths:
            button = QPushButton(format_bits(bits))
            button.setProperty("role", "segment")
            button.setCheckable(True)
            words = tr("float") if format_bits(bits) == "float" else f"{bits} {tr('bits')}"
            button.setToolTip(f"{help}: {words}" if help else words)
            button.setAccessibleName(f"{name}: {words}")
            button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            button.setMinimumWidth(theme().px(22))
            button.setMaximumWidth(theme().px(48))
            button.toggled.connect(self._on_toggled)
            self._buttons[bits] = button
            row.addWidget(button)
        row.addStretch(1)

    def button(self, bits: int) -> QPushButton:
        """Return the button of a width (KeyError when there is none)."""
        return self._buttons[bits]

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths that are on, most bits first."""
        return tuple(sorted((bits for bits, button in self._buttons.items() if button.isChecked()), reverse=True))

    def set_widths(self, widths: tuple[int, ...]) -> None:
        """Show these widths as on."""
        for bits, button in self._buttons.items():
            with QSignalBlocker(button):
                button.setChecked(bits in widths)

    def _on_toggled(self, _on: bool) -> None:
        self.chosen.emit(self.widths)
