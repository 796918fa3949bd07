"""Every action of the window in one table; menus, buttons, palette and cheat sheet are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QWidget

from qstudio.ui.icons import icon
from qstudio.ui.text import tr

if TYPE_CHECKING:
    from qstudio.ui.commands import Commands


def _always(_commands: Commands) -> str:
    return ""


@dataclass(frozen=True)
class ActionSpec:
    """One thing a person can do."""

    id: str
    text: str
    menu: str
    """Menu it stands in; "View/Theme" is a submenu; empty for keys and buttons only."""
    call: Callable[[Commands], None]
    shortcuts: tuple[str, ...] = ()
    icon: str = ""
    blocked: Callable[[Commands], str] = _always
    """Why it cannot be done now, in words; empty when it can."""
    title: Callable[[Commands], str] | None = None
    """The text as it is now, where it changes ("Undo set weight bits")."""
    checked: Callable[[Commands], bool] | None = None
    help: str = ""
    """What it does, where the text does not say it; shown as tooltip."""
    separator: bool = False
    """Whether a line stands above it in its menu."""


class BoundAction(QAction):
    """A spec made live for one window."""

    def __init__(self, spec: ActionSpec, commands: Commands, parent: QObject) -> None:
        super().__init__(tr(spec.text), parent)
        self.spec = spec
        self._commands = commands
        self.setShortcuts([QKeySequence(text) for text in spec.shortcuts])
        self.setCheckable(spec.checked is not None)
        self.setObjectName(spec.id)
        self.triggered.connect(self._on_triggered)

    def _on_triggered(self) -> None:
        reason = self.spec.blocked(self._commands)
        if not reason:
            self.spec.call(self._commands)
        self.refresh()

    def refresh(self) -> None:
        """Bring text, state and tooltip up to date."""
        reason = self.spec.blocked(self._commands)
        if self.spec.title is not None:
            self.setText(self.spec.title(self._commands))
        if self.spec.checked is not None:
            self.setChecked(self.spec.checked(self._commands))
        self.setEnabled(not reason)
        keys = ", ".join(key.toString(QKeySequence.SequenceFormat.NativeText) for key in self.shortcuts())
        told = tr(self.spec.help) if self.spec.help else self.text().rstrip("…")
        self.setToolTip("\n".join(part for part in (f"{told} ({keys})" if keys else told, reason) if part))


class Actions(QObject):
    """The live actions of one window, by id."""

    refreshed = Signal()

    def __init__(self, specs: tuple[ActionSpec, ...], commands: Commands, window: QWidget) -> None:
        super().__init__(window)
        self._by_id = {spec.id: BoundAction(spec, commands, self) for spec in specs}
        window.addActions(list(self._by_id.values()))
        self.refresh()

    def __getitem__(self, action: str) -> BoundAction:
        return self._by_id[action]

    def all(self) -> tuple[BoundAction, ...]:
        """Return the actions in the order of the table."""
        return tuple(self._by_id.values())

    def refresh(self) -> None:
        """Bring every action up to date with the session."""
        for action in self._by_id.values():
            action.refresh()
        self.refreshed.emit()

    def load_icons(self) -> None:
        """Draw the icons in the colours of the theme; not before the window stands (see `icons.icon`)."""
        for action in self._by_id.values():
            if action.spec.icon:
                action.setIcon(icon(action.spec.icon))
