"""Colours, fonts and spacing of the window; colour carries meaning, the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

from qstudio.ui.style import style_sheet

Mode = Literal["light", "dark", "system"]
FontSize = Literal["small", "normal", "large"]

FONT_SCALES: dict[str, float] = {"small": 0.87, "normal": 1.0, "large": 1.4}
"""The three sizes, as factors of the system's own."""

ZOOM_STEPS = (0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
"""What zoom in and zoom out step through."""


@dataclass(frozen=True)
class Palette:
    """Every colour of the window by meaning (Okabe-Ito, safe for colour-blind eyes)."""

    name: str
    dark: bool
    float: str
    """The float network."""
    quantized: str
    """The quantized network."""
    worse: str
    """Clipped, worse, flipped to wrong."""
    better: str
    """Better, flipped to right."""
    watch: str
    """Needs a look."""
    unrepresentable: str
    """The range no code reaches; "#AARRGGBB" as QColor reads it."""
    background: str
    surface: str
    text: str
    muted: str
    line: str
    accent: str
    """What is selected or should be done next; never a measured value."""

    def color(self, name: str) -> QColor:
        """Return the named colour as a QColor."""
        return QColor(getattr(self, name))


LIGHT = Palette(
    "light",
    False,
    float="#5B6B7A",
    quantized="#0072B2",
    worse="#D55E00",
    better="#009E73",
    watch="#E69F00",
    unrepresentable="#14000000",
    background="#F3F4F6",
    surface="#FFFFFF",
    text="#1A2129",
    muted="#5E6873",
    line="#D8DDE3",
    accent="#5546C8",
)

DARK = Palette(
    "dark",
    True,
    float="#9FB0C0",
    quantized="#56B4E9",
    worse="#E8804A",
    better="#3CC79C",
    watch="#F0B840",
    unrepresentable="#1AFFFFFF",
    background="#16191D",
    surface="#1F2429",
    text="#E6EAEE",
    muted="#98A3AE",
    line="#343B43",
    accent="#A69BFF",
)


EDGED = ("QCheckBox", "QRadioButton", "QAbstractSpinBox", "QLineEdit", "QComboBox")
"""Widgets whose edge says what they are."""


class Theme(QObject):
    """The look of the application: one palette, three font sizes, a zoom factor."""

    changed = Signal(object)
    """Palette, after it (or the zoom) has been applied."""

    def __init__(self) -> None:
        super().__init__()
        self.mode: Mode = "system"
        self.zoom = 1.0
        self.palette: Palette = LIGHT
        self._base = 0.0
        self._watching = False

    def set_mode(self, mode: Mode) -> None:
        """Show the light or the dark palette, or follow the system."""
        self.mode = mode
        self.apply()

    def set_zoom(self, factor: float) -> None:
        """Scale all text and spacing; 1.0 is the system's own size."""
        self.zoom = min(max(factor, ZOOM_STEPS[0]), ZOOM_STEPS[-1])
        self.apply()

    def zoom_by(self, steps: int) -> None:
        """Zoom in (positive) or out (negative) by whole steps."""
        nearest = min(range(len(ZOOM_STEPS)), key=lambda i: abs(ZOOM_STEPS[i] - self.zoom))
        self.set_zoom(ZOOM_STEPS[min(max(nearest + steps, 0), len(ZOOM_STEPS) - 1)])

    def px(self, pixels: float) -> int:
        """Return a length on the 8-pixel grid, zoomed."""
        return round(pixels * self.zoom)

    def font(self, size: FontSize = "normal", bold: bool = False) -> QFont:
        """Return the system's family in one of three sizes, figures tabular."""
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont)
        if not self._base:
            self._base = font.pointSizeF() if font.pointSizeF() > 0 else 10.0
        font.setPointSizeF(self._base * self.zoom * FONT_SCALES[size])
        font.setFeature(QFont.Tag("tnum"), 1)
        if bold:
            font.setWeight(QFont.Weight.DemiBold)
        return font

    def apply(self) -> None:
        """Give the application the palette, the font and the style sheet of the current mode and zoom."""
        app = QApplication.instance()
        if not isinstance(app, QApplication):
            return
        hints = QGuiApplication.styleHints()
        if not self._watching:
            self._watching = True
            app.setStyle("Fusion")
            hints.colorSchemeChanged.connect(self._on_scheme_changed)
        dark = self.mode == "dark" or (self.mode == "system" and hints.colorScheme() is Qt.ColorScheme.Dark)
        self.palette = DARK if dark else LIGHT
        app.setFont(self.font("normal"))
        app.setPalette(qt_palette(self.palette))
        if dark:
            for kind in EDGED:
                app.setPalette(edged_palette(self.palette), kind)  # type: ignore[arg-type]  # takes a str only
        sheet = style_sheet(self.palette, self.zoom)
        if app.styleSheet() != sheet:  # styling two thousand widgets anew takes half a second
            app.setStyleSheet(sheet)
        self.changed.emit(self.palette)

    def _on_scheme_changed(self, _scheme: Qt.ColorScheme) -> None:
        if self.mode == "system":
            self.apply()


def mix(first: str, second: str, share: float) -> QColor:
    """Return `share` of the second colour in the first."""
    a, b = QColor(first), QColor(second)
    parts = [
        round(x + (y - x) * share)
        for x, y in zip((a.red(), a.green(), a.blue()), (b.red(), b.green(), b.blue()), strict=True)
    ]
    return QColor(*parts)


def qt_palette(palette: Palette) -> QPalette:
    """Return the colours as Qt's roles."""
    role = QPalette.ColorRole
    result = QPalette()
    for key, name in {
        role.Window: palette.background,
        role.WindowText: palette.text,
        role.Base: palette.surface,
        role.AlternateBase: palette.background,
        role.Text: palette.text,
        role.Button: palette.surface,
        role.ButtonText: palette.text,
        role.BrightText: palette.worse,
        role.ToolTipBase: palette.surface,
        role.ToolTipText: palette.text,
        role.Link: palette.accent,
        role.LinkVisited: palette.accent,
        role.PlaceholderText: palette.muted,
        role.Mid: palette.line,
        role.Midlight: palette.line,
        role.Dark: palette.line,
        role.Light: palette.surface,
        role.Accent: palette.accent,
    }.items():
        result.setColor(key, QColor(name))
    result.setColor(role.Shadow, mix(palette.background, "#000000", 0.4))
    result.setColor(role.Highlight, mix(palette.surface, palette.accent, 0.22 if not palette.dark else 0.34))
    result.setColor(role.HighlightedText, QColor(palette.text))
    off = QPalette.ColorGroup.Disabled
    faint = mix(palette.muted, palette.background, 0.35)
    for key in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText):
        result.setColor(off, key, faint)
    return result


def edged_palette(palette: Palette) -> QPalette:
    """Return Qt's roles for fields on a dark ground.

    The style draws edges darker than the window by 1.4: on a dark one an empty check box would not be seen.
    """
    result = qt_palette(palette)
    result.setColor(QPalette.ColorRole.Window, mix(palette.line, palette.muted, 0.75))
    return result


@cache
def theme() -> Theme:
    """Return the application's one theme."""
    return Theme()
