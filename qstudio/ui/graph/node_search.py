"""Finding nodes by name and type."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QLineEdit

from qstudio.ui.graph.canvas import GraphCanvas
from qstudio.ui.text import tr


class NodeSearch(QLineEdit):
    """A box for a part of a name; Enter goes on to the next node that has it, and round."""

    found = Signal(int)
    """A node to go to."""

    def __init__(self, canvas: GraphCanvas) -> None:
        super().__init__()
        self._canvas = canvas
        self.setPlaceholderText(tr("Find nodes  ( / )"))
        self.setClearButtonEnabled(True)
        self.setAccessibleName(tr("Find nodes"))
        self._told = tr(
            "Nodes whose name or type holds this text. Enter: next, Shift+Enter: previous, Esc: back to the graph."
        )
        self.setToolTip(self._told)
        self.textChanged.connect(self._on_text_changed)

    def begin(self) -> None:
        """Put the cursor here."""
        self.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.selectAll()

    def matches(self) -> list[int]:
        """Return the nodes that fit, in topological order; a closed block fits where one of its layers does."""
        text = self.text().strip().casefold()
        drawing = self._canvas.drawing
        if not text or drawing is None:
            return []
        items = drawing.view.items
        return [n for n, item in enumerate(items) if text in " ".join((item.title, item.type, *item.layers)).casefold()]

    def step(self, way: int) -> None:
        """Go to the next node that fits (-1: the one before)."""
        nodes, drawing = self.matches(), self._canvas.drawing
        if not nodes or drawing is None:
            return
        now = drawing.index.get(self._canvas.current, -1)
        if way > 0:
            self.found.emit(next((node for node in nodes if node > now), nodes[0]))
        else:
            self.found.emit(next((node for node in reversed(nodes) if node < now), nodes[-1]))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Step through what is found."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.step(-1 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1)
        elif event.key() == Qt.Key.Key_Escape:
            self._canvas.setFocus()
        else:
            super().keyPressEvent(event)

    def _on_text_changed(self, text: str) -> None:
        nodes, wanted = self.matches(), bool(text.strip())
        words = "" if not wanted else f"{len(nodes)} {tr('found')}" if nodes else tr("No node fits")
        self.setAccessibleDescription(words)
        self.setToolTip("\n".join(filter(None, (words, self._told))))
        if nodes:
            self.found.emit(nodes[0])
