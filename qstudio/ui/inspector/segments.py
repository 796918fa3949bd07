"""A row of buttons of which one is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QAbstractButton, QButtonGroup, QHBoxLayout, QPushButton, QSizePolicy, QWidget

from qstudio.ui.theme import theme


@dataclass(frozen=True)
class Segment:
    """One button."""

    value: Any
    text: str
    help: str


class Segments(QWidget):
    """Buttons side by side; the chosen one is filled. A value that none of them has is shown on one of its own."""

    chosen = Signal(object)
    """The value of the button that was pressed."""

    def __init__(self, name: str, segments: tuple[Segment, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.value: Any = None
        self._group = QButtonGroup(self)
        self._buttons: dict[Any, QPushButton] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(theme().px(2))
        for segment in segments:
            button = self._make(segment.text, segment.help)
            button.setAccessibleName(f"{name}: {segment.help or segment.text}")
            self._buttons[segment.value] = button
            row.addWidget(button)
        self._other = self._make("", "")
        self._other.hide()
        row.addWidget(self._other)
        self._group.buttonClicked.connect(self._on_clicked)

    def _make(self, text: str, words: str) -> QPushButton:
        button = QPushButton(text)
        button.setProperty("role", "segment")
        button.setCheckable(True)
        button.setToolTip(words)
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        button.setMinimumWidth(theme().px(18))
        self._group.addButton(button)
        return button

    def button(self, value: Any) -> QPushButton:
        """Return the button of a value (KeyError when there is none)."""
        return self._buttons[value]

    def set_value(self, value: Any, text: str = "") -> None:
        """Show a value as chosen; `text` names it where no button has it."""
        self.value = value
        self._other.setVisible(value not in self._buttons)
        button = self._buttons.get(value, self._other)
        if button is self._other:
            self._other.setText(text or str(value))
        button.setChecked(True)

    def set_blocked(self, reason: str) -> None:
        """Disable the buttons and say why; enable them for no reason."""
        for button in (*self._buttons.values(), self._other):
            button.setEnabled(not reason)
            if button.property("help") is None:
                button.setProperty("help", button.toolTip())
            button.setToolTip(reason or str(button.property("help")))

    def block(self, value: Any, reason: str) -> None:
        """Disable one button and say why; `set_blocked` comes first and sets all of them."""
        self._buttons[value].setEnabled(False)
        self._buttons[value].setToolTip(reason)

    def _on_clicked(self, button: QAbstractButton) -> None:
        for value, known in self._buttons.items():
            if known is button and value != self.value:
                self.value = value
                self.chosen.emit(value)
