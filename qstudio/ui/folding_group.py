"""Panels side by side where there is room, in tabs where there is not."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QSplitter, QTabWidget, QVBoxLayout, QWidget

from qstudio.ui.theme import theme


class FoldingGroup(QWidget):
    """Shows its panels beside each other from `side_by_side_px` on (zoomed), one at a time below.

    Args:
        panels: (title, tooltip, panel) each.
        side_by_side_px: None = always in tabs.
        parent: Owner.
    """

    def __init__(
        self,
        panels: Sequence[tuple[str, str, QWidget]],
        side_by_side_px: int | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._panels = tuple(panels)
        self._limit = side_by_side_px
        self._folded: bool | None = None
        self._splitter = QSplitter(Qt.Orientation.Horizontal)
        self._splitter.setChildrenCollapsible(False)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setTabBarAutoHide(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._splitter)
        layout.addWidget(self.tabs)
        self._fold(side_by_side_px is None)

    @property
    def folded(self) -> bool:
        """Whether the panels stand in tabs."""
        return bool(self._folded)

    def show_panel(self, panel: QWidget) -> None:
        """Bring a panel to the front."""
        if self._folded:
            self.tabs.setCurrentWidget(panel)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fold or unfold."""
        super().resizeEvent(event)
        self._fold(self._limit is None or self.width() < theme().px(self._limit))

    def _fold(self, folded: bool) -> None:
        if folded == self._folded:
            return
        self._folded = folded
        for title, told, panel in self._panels:
            if folded:
                self.tabs.setTabToolTip(self.tabs.addTab(panel, title), told)
            else:
                self._splitter.addWidget(panel)
                panel.show()
        if not folded:
            share = max(self.width() // max(len(self._panels), 1), 1)
            self._splitter.setSizes([share] * len(self._panels))
        self.tabs.setVisible(folded)
        self._splitter.setVisible(not folded)
