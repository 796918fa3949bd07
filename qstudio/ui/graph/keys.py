"""Keys that mean something to the graph."""

from __future__ import annotations

from PySide6.QtCore import Qt

ARROWS = {
    Qt.Key.Key_Up: "up",
    Qt.Key.Key_Down: "down",
    Qt.Key.Key_Left: "left",
    Qt.Key.Key_Right: "right",
}
OWN_KEYS = frozenset(
    {
        (Qt.Key.Key_Slash, False),
        (Qt.Key.Key_0, False),
        (Qt.Key.Key_Plus, False),
        (Qt.Key.Key_Minus, False),
        (Qt.Key.Key_Equal, False),
        (Qt.Key.Key_0, True),
        (Qt.Key.Key_Plus, True),
        (Qt.Key.Key_Minus, True),
        (Qt.Key.Key_Equal, True),
    }
)
"""(key, with Ctrl) that mean the graph while it has the focus and the window elsewhere."""
