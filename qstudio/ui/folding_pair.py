"""Two panels side by side where there is room, in tabs where there is not."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QSplitter, QTabWidget, QVBoxLayout, QWidget

from qstudio.ui.theme import theme


class FoldingPair(QWidget):
    """Shows both panels from `side_by_side_px` on (zoomed), one at a time below."""

    def __init__(
        self,
        first: tuple[str, QWidget],
        second: tuple[str, QWidget],
        side_by_side_px: int,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._panels = (first, second)
        self._limit = side_by_side_px
        self._folded: bool | None = None
        self._splitter = QSplitter(Qt.Orientation.Horizontal)
        self._splitter.setChildrenCollapsible(False)
        self._tabs = QTabWidget()
        self._tabs.setDocumentMode(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._splitter)
        layout.addWidget(self._tabs)
        self._fold(False)

    @property
    def folded(self) -> bool:
        """Whether the panels stand in tabs."""
        return bool(self._folded)

    def show_panel(self, panel: QWidget) -> None:
        """Bring a panel to the front."""
        if self._folded:
            self._tabs.setCurrentWidget(panel)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fold or unfold."""
        super().resizeEvent(event)
        self._fold(self.width() < theme().px(self._limit))

    def _fold(self, folded: bool) -> None:
        if folded == self._folded:
            return
        self._folded = folded
        for title, panel in self._panels:
            if folded:
                self._tabs.addTab(panel, title)
            else:
                self._splitter.addWidget(panel)
                panel.show()
        if not folded:
            half = max(self.width() // 2, 1)
            self._splitter.setSizes([half, half])
        self._tabs.setVisible(folded)
        self._splitter.setVisible(not folded)
