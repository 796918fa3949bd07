"""Icons by name in the colours of the theme."""

from __future__ import annotations

from PySide6.QtGui import QIcon

from qstudio.ui.theme import theme


def icon(name: str, color: str = "text") -> QIcon:
    """Return a Font Awesome icon ("fa6s.play") drawn in a colour of the current palette.

    The icon font is loaded on the first call (a quarter of a second): call it after the window stands.
    """
    import qtawesome

    palette = theme().palette
    return QIcon(
        qtawesome.icon(
            name, color=getattr(palette, color), color_active=getattr(palette, color), color_disabled=palette.muted
        )
    )
