"""Labels that keep their place: elided names, and figures that change colour by meaning."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

from qstudio.ui.style import set_role
from qstudio.ui.theme import FontSize, Palette, theme


class ThemedLabel(QLabel):
    """A label in one of the three sizes; it follows the zoom."""

    def __init__(
        self, text: str = "", size: FontSize = "normal", role: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(text, parent)
        self._size: FontSize = size
        self._bold = False
        self.setProperty("role", role)
        self._on_theme_changed(theme().palette)
        theme().changed.connect(self._on_theme_changed)

    def set_bold(self, on: bool) -> None:
        """Show the text bold or not."""
        if on != self._bold:
            self._bold = on
            self._on_theme_changed(theme().palette)

    def set_role(self, role: str) -> None:
        """Change what the colour means ("" for the text's own)."""
        set_role(self, role)

    def _on_theme_changed(self, _palette: Palette) -> None:
        self.setFont(theme().font(self._size, self._bold))


class ElidedLabel(ThemedLabel):
    """One line that is cut in its middle where there is no room; the tooltip has all of it."""

    def __init__(self, size: FontSize = "normal", role: str = "", parent: QWidget | None = None) -> None:
        super().__init__("", size, role, parent)
        self.full_text = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_full_text(self, text: str) -> None:
        """Show another text."""
        self.full_text = text
        self.setToolTip(text)
        self.setAccessibleName(text)
        self._elide()

    def _elide(self) -> None:
        self.setText(self.fontMetrics().elidedText(self.full_text, Qt.TextElideMode.ElideMiddle, self.width()))

    def _on_theme_changed(self, palette: Palette) -> None:
        super()._on_theme_changed(palette)
        if hasattr(self, "full_text"):
            self._elide()

    def sizeHint(self) -> QSize:
        """Keep the height of a line, whatever is in it."""
        return QSize(theme().px(120), self.fontMetrics().height() + theme().px(2))

    def minimumSizeHint(self) -> QSize:
        """Allow any width."""
        return QSize(theme().px(24), self.sizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Cut the text anew."""
        super().resizeEvent(event)
        self._elide()
