"""The line at the top: menus, perspectives, search."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QMenuBar, QPushButton, QSizePolicy, QWidget

from qstudio.ui.actions import Actions, BoundAction
from qstudio.ui.icons import icon
from qstudio.ui.panels import PERSPECTIVES
from qstudio.ui.text import tr


class ActionButton(QPushButton):
    """A button that is an action: text, state, reason and tooltip follow it."""

    def __init__(
        self, action: BoundAction, role: str = "", fixed_text: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._action = action
        self._fixed_text = fixed_text
        if role:
            self.setProperty("role", role)
        self.setCheckable(action.isCheckable())
        action.changed.connect(self._on_changed)
        self.clicked.connect(self._on_clicked)
        self._on_changed()

    def _on_changed(self) -> None:
        action = self._action
        self.setText(self._fixed_text or tr(action.spec.text).rstrip("…"))
        self.setEnabled(action.isEnabled())
        self.setToolTip(action.toolTip())
        self.setAccessibleName(action.text().rstrip("…"))
        if action.isCheckable():
            self.setChecked(action.isChecked())

    def _on_clicked(self) -> None:
        self._action.trigger()
        self._on_changed()

    def load_icon(self, name: str, color: str = "text") -> None:
        """Draw an icon; not before the window stands."""
        self.setIcon(icon(name, color))


class TopBar(QWidget):
    """Menu bar at the left, perspectives in the middle, the command palette at the right."""

    def __init__(self, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.menu_bar = QMenuBar()
        self.menu_bar.setNativeMenuBar(False)
        self.menu_bar.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Preferred)
        self.perspectives = {name: ActionButton(actions[name], "tab") for name in PERSPECTIVES}
        self.search = ActionButton(actions["palette"], "flat", tr("Search command or layer   Ctrl+Shift+P"))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(4, 0, 8, 0)
        layout.setSpacing(0)
        layout.addWidget(self.menu_bar)
        layout.addStretch(1)
        for button in self.perspectives.values():
            layout.addWidget(button)
        layout.addStretch(1)
        layout.addWidget(self.search)

    def load_icons(self) -> None:
        """Draw the icons; not before the window stands."""
        self.search.load_icon("fa6s.magnifying-glass", "muted")
