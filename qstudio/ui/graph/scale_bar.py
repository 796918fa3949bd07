"""The key of the colours: a bar with its ends in words."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from qstudio.ui.graph.colors import STEPS, ColorScale, figure_text, viridis
from qstudio.ui.text import tr
from qstudio.ui.theme import theme


class ScaleBar(QWidget):
    """Shows which figure has which colour; words instead where there is none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scale: ColorScale | None = None
        self._unit = ""
        self._words = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(tr("Colour scale"))

    def show_scale(self, scale: ColorScale | None, unit: str, words: str) -> None:
        """Show a scale, or words where there is none."""
        self._scale, self._unit, self._words = scale, unit, words
        self.setAccessibleDescription(words if scale is None else " – ".join(self.ends()))
        self.update()

    def ends(self) -> tuple[str, str]:
        """Return what the dark and the bright end of the bar mean."""
        scale = self._scale
        if scale is None:
            return "", ""
        low, high = (figure_text(end, self._unit).replace(".0 ", " ") for end in (scale.low, scale.high))
        if scale.worse == "low":
            return f"{high} {tr('good')}", f"{tr('bad')} {low}"
        if scale.worse == "high":
            return f"{low} {tr('good')}", f"{tr('bad')} {high}"
        return low, high

    def sizeHint(self) -> QSize:
        """Return one line's height."""
        return QSize(theme().px(160), self.fontMetrics().height() + theme().px(4))

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the ends and the bar between them."""
        painter = QPainter(self)
        painter.setFont(theme().font("small"))
        self.draw(painter, QRectF(self.rect()), theme().px(10))
        painter.end()

    def draw(self, painter: QPainter, area: QRectF, height: float) -> None:
        """Draw the scale into an area with the painter's font, the bar `height` high."""
        painter.setPen(QColor(theme().palette.muted))
        metrics = painter.fontMetrics()
        middle = Qt.AlignmentFlag.AlignVCenter
        if self._scale is None:
            text = metrics.elidedText(self._words, Qt.TextElideMode.ElideRight, int(area.width()))
            painter.drawText(area, middle | Qt.AlignmentFlag.AlignLeft, text)
            return
        left, right = self.ends()
        painter.drawText(area, middle | Qt.AlignmentFlag.AlignLeft, left)
        painter.drawText(area, middle | Qt.AlignmentFlag.AlignRight, right)
        start = area.left() + metrics.horizontalAdvance(left) + 0.8 * height
        end = area.right() - metrics.horizontalAdvance(right) - 0.8 * height
        step = max(end - start, 0) / STEPS
        top = area.center().y() - height / 2
        for number, color in enumerate(viridis()):
            painter.fillRect(QRectF(start + number * step, top, step + 0.6, height), color)
