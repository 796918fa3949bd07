"""The command palette: every action and every layer, found by typing."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QKeyEvent, QKeySequence
from PySide6.QtWidgets import QFrame, QLineEdit, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from qstudio.session.session import Session
from qstudio.ui.actions import Actions
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

SHOWN = 60


def match_rank(needle: str, text: str) -> int | None:
    """Return how well the letters of `needle` are found in order in `text`: 0 best, None not at all."""
    needle, text = needle.casefold().strip(), text.casefold()
    if not needle:
        return 0
    at = text.find(needle)
    if at >= 0:
        return at
    start = -1
    for letter in needle.replace(" ", ""):
        start = text.find(letter, start + 1)
        if start < 0:
            return None
    return 1000 + start


class CommandPalette(QFrame):
    """A line to type into and what matches; Return does it, Esc goes back."""

    def __init__(self, session: Session, actions: Actions, window: QWidget) -> None:
        super().__init__(window, Qt.WindowType.Popup)
        self._session = session
        self._actions = actions
        self._window = window
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setAccessibleName(tr("Command palette"))
        self.line = QLineEdit()
        self.line.setPlaceholderText(tr("Type a command or a layer"))
        self.line.setAccessibleName(tr("Command or layer"))
        self.line.setToolTip(tr("Type a few letters; Return does what is marked"))
        self.list = QListWidget()
        self.list.setAccessibleName(tr("Matches"))
        self.list.setSpacing(3)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addWidget(self.line)
        layout.addWidget(self.list)
        self.line.textChanged.connect(self._on_typed)
        self.line.returnPressed.connect(self._on_return)
        self.line.installEventFilter(self)
        self.list.itemClicked.connect(self._do)

    def open(self) -> None:
        """Show at the top of the window, with everything listed."""
        window = self._window
        width = min(theme().px(640), window.width() - 40)
        height = min(theme().px(420), window.height() - 80)
        corner = window.mapToGlobal(window.rect().topLeft())
        self.setGeometry(corner.x() + (window.width() - width) // 2, corner.y() + 56, width, height)
        self.line.clear()
        self._on_typed("")
        self.show()
        self.line.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let the arrows move in the list while the line keeps the focus."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            step = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1, Qt.Key.Key_PageDown: 10, Qt.Key.Key_PageUp: -10}.get(
                Qt.Key(event.key())
            )
            if step is not None:
                last = self.list.count() - 1
                self.list.setCurrentRow(min(max(self.list.currentRow() + step, 0), last))
                return True
        return super().eventFilter(watched, event)

    def _on_typed(self, text: str) -> None:
        found: list[tuple[int, int, QListWidgetItem]] = []
        for action in self._actions.all():
            title = action.text().rstrip("…")
            if "/" in action.spec.menu:
                title = f"{tr(action.spec.menu.split('/')[-1])}: {title}"
            rank = match_rank(text, title)
            if rank is None:
                continue
            keys = ", ".join(key.toString(QKeySequence.SequenceFormat.NativeText) for key in action.shortcuts())
            item = QListWidgetItem(f"{title}    {keys}" if keys else title)
            item.setData(Qt.ItemDataRole.UserRole, ("action", action.spec.id))
            item.setToolTip(action.toolTip())
            if not action.isEnabled():
                item.setFlags(Qt.ItemFlag.NoItemFlags)
                item.setText(f"{item.text()}    ({action.toolTip().splitlines()[-1]})")
            found.append((rank, len(found), item))
        for layer in self._session.model.layers if self._session.model and text.strip() else ():
            rank = match_rank(text, layer.name)
            if rank is not None:
                item = QListWidgetItem(f"{tr('Layer')} {layer.name}    {layer.op_type} {layer.title}")
                item.setData(Qt.ItemDataRole.UserRole, ("layer", layer.name))
                found.append((rank + 1, len(found), item))
        self.list.clear()
        for _, _, item in sorted(found, key=lambda entry: entry[:2])[:SHOWN]:
            self.list.addItem(item)
        enabled = (row for row in range(self.list.count()) if self.list.item(row).flags() & Qt.ItemFlag.ItemIsEnabled)
        self.list.setCurrentRow(next(enabled, -1))

    def _on_return(self) -> None:
        item = self.list.currentItem()
        if item is not None:
            self._do(item)

    def _do(self, item: QListWidgetItem) -> None:
        if not item.flags() & Qt.ItemFlag.ItemIsEnabled:
            return
        kind, name = item.data(Qt.ItemDataRole.UserRole)
        self.hide()
        if kind == "action":
            self._actions[name].trigger()
        else:
            self._session.select([name])
