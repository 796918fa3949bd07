"""The one style sheet of the application: what a palette alone cannot say. Widgets choose a look by property."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

if TYPE_CHECKING:
    from qstudio.ui.theme import Palette


def set_role(widget: QWidget, role: str) -> None:
    """Give a widget another look of the style sheet; "" is the usual one."""
    if widget.property("role") != role:
        widget.setProperty("role", role)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def style_sheet(palette: Palette, zoom: float) -> str:
    """Return the style sheet for a palette; lengths follow the zoom factor.

    Properties: `role` on buttons ("primary", "flat", "tab", "segment"), on labels ("muted", "heading", "worse",
    "better", "watch", "float", "quantized"), on frames ("surface", "strip", "card", "notice-info",
    "notice-warning", "notice-error").
    """

    def px(value: float) -> str:
        return f"{round(value * zoom)}px"

    p = palette
    on_accent = "#FFFFFF" if not p.dark else "#14121F"
    return f"""
QToolTip {{ color: {p.text}; background: {p.surface}; border: 1px solid {p.line}; padding: {px(6)}; }}
QMainWindow::separator {{ background: {p.line}; width: 1px; height: 1px; }}
QSplitter::handle {{ background: {p.line}; }}
QSplitter::handle:horizontal {{ width: 1px; }}
QSplitter::handle:vertical {{ height: 1px; }}
QLabel[role="muted"] {{ color: {p.muted}; }}
QLabel[role="heading"] {{ font-weight: 600; }}
QLabel[role="float"] {{ color: {p.float}; }}
QLabel[role="quantized"] {{ color: {p.quantized}; }}
QLabel[role="worse"] {{ color: {p.worse}; }}
QLabel[role="better"] {{ color: {p.better}; }}
QLabel[role="watch"] {{ color: {p.watch}; }}
QFrame[role="surface"] {{ background: {p.surface}; }}
QFrame[role="strip"] {{ background: {p.surface}; border-top: 1px solid {p.line}; }}
QFrame[role="card"] {{ background: {p.surface}; border: 1px solid {p.line}; border-radius: {px(6)}; }}
QFrame[role="card"]:hover, QFrame[role="card"]:focus {{ border-color: {p.accent}; }}
QFrame[role^="notice-"] {{ background: {p.surface}; border: 1px solid {p.line}; }}
QFrame[role="notice-info"] {{ border-left: {px(4)} solid {p.accent}; }}
QFrame[role="notice-warning"] {{ border-left: {px(4)} solid {p.watch}; }}
QFrame[role="notice-error"] {{ border-left: {px(4)} solid {p.worse}; }}
QPushButton[role="primary"] {{
    background: {p.accent}; color: {on_accent}; border: 1px solid {p.accent}; border-radius: {px(4)};
    padding: {px(5)} {px(16)}; font-weight: 600;
}}
QPushButton[role="primary"]:hover, QPushButton[role="primary"]:focus {{ border-color: {p.text}; }}
QPushButton[role="primary"]:disabled {{
    background: transparent; color: {p.muted}; border-color: {p.line}; font-weight: 400;
}}
QPushButton[role="flat"], QToolButton[role="flat"] {{
    border: 1px solid transparent; border-radius: {px(4)}; padding: {px(3)} {px(6)}; background: transparent;
}}
QPushButton[role="flat"]:hover, QToolButton[role="flat"]:hover {{ background: {p.line}; }}
QPushButton[role="flat"]:focus, QToolButton[role="flat"]:focus {{ border-color: {p.accent}; }}
QPushButton[role="tab"] {{
    border: none; border-bottom: {px(2)} solid transparent; border-radius: 0; background: transparent;
    padding: {px(6)} {px(16)}; color: {p.muted};
}}
QPushButton[role="tab"]:hover {{ color: {p.text}; }}
QPushButton[role="tab"]:focus {{ color: {p.text}; border-bottom-color: {p.line}; }}
QPushButton[role="tab"]:checked {{ color: {p.text}; border-bottom-color: {p.accent}; }}
QPushButton[role="segment"] {{
    border: 1px solid {p.line}; border-radius: {px(3)}; background: {p.surface}; color: {p.text};
    padding: {px(3)} {px(4)};
}}
QPushButton[role="segment"]:hover, QPushButton[role="segment"]:focus {{ border-color: {p.accent}; }}
QPushButton[role="segment"]:checked {{
    background: #{"44" if p.dark else "2A"}{p.accent[1:]}; border-color: {p.accent};
}}
QPushButton[role="segment"]:checked:focus {{ border-color: {p.text}; }}
QPushButton[role="segment"]:disabled {{ color: {p.muted}; background: transparent; border-color: {p.line}; }}
QTabWidget::pane {{ border: none; }}
QTabBar {{ qproperty-drawBase: 0; }}
QTabBar::tab {{
    border: none; border-bottom: {px(2)} solid transparent; background: transparent; color: {p.muted};
    padding: {px(6)} {px(12)};
}}
QTabBar::tab:hover {{ color: {p.text}; }}
QTabBar::tab:selected {{ color: {p.text}; border-bottom-color: {p.accent}; }}
QTabBar::tab:focus {{ border-bottom-color: {p.text}; }}
QMenuBar {{ background: transparent; border: none; }}
QMenuBar::item {{ background: transparent; padding: {px(6)} {px(8)}; }}
QMenuBar::item:selected {{ background: {p.line}; border-radius: {px(4)}; }}
QHeaderView {{ background: {p.surface}; border: none; }}
QHeaderView::section {{
    background: {p.surface}; color: {p.muted}; border: none; border-bottom: 1px solid {p.line};
    padding: {px(5)} {px(6)};
}}
QTableView {{ border: none; gridline-color: transparent; }}
QTableCornerButton::section {{ background: {p.surface}; border: none; }}
QPlainTextEdit, QListView, QListWidget, QScrollArea {{ border: none; }}
QProgressBar {{
    border: none; background: {p.line}; border-radius: {px(3)}; max-height: {px(6)}; min-height: {px(6)};
}}
QProgressBar::chunk {{ background: {p.accent}; border-radius: {px(3)}; }}
"""
