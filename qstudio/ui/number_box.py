"""A box for a number that shows no more digits than the number has."""

from __future__ import annotations

import math

from PySide6.QtCore import Qt
from PySide6.QtGui import QValidator, QWheelEvent
from PySide6.QtWidgets import QAbstractSpinBox, QDoubleSpinBox, QWidget

DECIMALS = 10
"""What the box keeps; it shows six significant digits."""

LARGEST = 1e9
"""Bounds beyond this are drawn in."""


class NumberBox(QDoubleSpinBox):
    """Takes "0.001", "1e-3" and, where only whole numbers fit, "1,000"; steps by a tenth of the number's own size.

    Args:
        low: Smallest value.
        high: Largest value.
        whole: Whether only whole numbers fit.
        lowest_text: Shown in the place of the smallest value, such as "all".
        parent: Owner.
    """

    def __init__(
        self, low: float, high: float, whole: bool = False, lowest_text: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._whole = whole
        self.setDecimals(0 if whole else DECIMALS)
        self.setRange(low, min(high, LARGEST))
        self.setKeyboardTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        if lowest_text:
            self.setSpecialValueText(lowest_text)
        if not whole or high > 1000:
            self.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        """Return "1,000" or "0.0005"."""
        return f"{value:,.0f}" if self._whole else f"{value:.6g}"

    def valueFromText(self, text: str) -> float:
        """Read what was typed; what is no number is the value as it was."""
        if self.specialValueText() and text.strip() == self.specialValueText():
            return self.minimum()
        number = _read(text)
        return self.value() if number is None else number

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        """Take anything that may become a number."""
        number = _read(text)
        fits = number is not None and self.minimum() <= number <= self.maximum()
        if self.specialValueText() and text.strip() == self.specialValueText():
            fits = True
        if fits:
            return QValidator.State.Acceptable, text, position
        return QValidator.State.Intermediate, text, position

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Let the wheel scroll the page unless the box was chosen first."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


def _read(text: str) -> float | None:
    try:
        number = float(text.replace(",", "").replace(" ", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
