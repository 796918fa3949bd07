"""A site's statistics in words and figures."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from qstudio.core.statistics import SiteStatistics
from qstudio.ui.inspector.labels import ThemedLabel
from qstudio.ui.text import NO_VALUE, format_count, format_percent, format_value, tr
from qstudio.ui.theme import theme

FIGURES = (
    ("minimum", "Smallest value, exact"),
    ("maximum", "Largest value, exact"),
    ("mean", "Mean of all values"),
    ("std", "Standard deviation of all values"),
    ("zeros", "Share of values that are exactly zero; they cost nothing at any precision"),
    ("values", "Number of values that were counted"),
)


class StatisticsView(QWidget):
    """Six figures and the largest values with where they came from."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(theme().px(8))
        grid.setVerticalSpacing(theme().px(2))
        self._values: dict[str, ThemedLabel] = {}
        for number, (name, words) in enumerate(FIGURES):
            row, column = divmod(number, 2)
            title, value = ThemedLabel(tr(name.capitalize()), role="muted"), ThemedLabel(NO_VALUE)
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            value.setAccessibleName(tr(name.capitalize()))
            for label in (title, value):
                label.setToolTip(tr(words))
            self._values[name] = value
            grid.addWidget(title, row, 3 * column)
            grid.addWidget(value, row, 3 * column + 1)
            grid.setColumnStretch(3 * column + 1, 1)
        grid.setColumnMinimumWidth(2, theme().px(12))
        title = ThemedLabel(tr("Outliers"), role="muted")
        title.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._outliers = ThemedLabel()
        self._outliers.setWordWrap(True)
        self._outliers.setTextFormat(Qt.TextFormat.PlainText)
        for label in (title, self._outliers):
            label.setToolTip(
                tr("The largest magnitudes and where they come from: sample and position, or position in the weight")
            )
        grid.addWidget(title, 3, 0)
        grid.addWidget(self._outliers, 3, 1, 1, 4)

    def text(self, figure: str) -> str:
        """Return what is shown for a figure ("minimum", ..., "outliers")."""
        return self._outliers.text() if figure == "outliers" else self._values[figure].text()

    def show_statistics(self, statistics: SiteStatistics | None) -> None:
        """Show the figures; en-dashes for none."""
        if statistics is None:
            for label in (*self._values.values(), self._outliers):
                label.setText(NO_VALUE)
            return
        histogram = statistics.histogram
        count = histogram.count
        texts = {
            "minimum": format_value(histogram.minimum),
            "maximum": format_value(histogram.maximum),
            "mean": format_value(histogram.mean),
            "std": format_value(histogram.std),
            "zeros": format_percent(100.0 * histogram.zeros / count if count else None),
            "values": format_count(count),
        }
        if histogram.nonfinite:
            texts["values"] += f" (+{format_count(histogram.nonfinite)} {tr('NaN or infinite')})"
        for name, text in texts.items():
            self._values[name].setText(text)
        self._outliers.setText(
            ",  ".join(f"{format_value(o.value)} ({_place(o.sample, o.position)})" for o in statistics.outliers[:4])
            or NO_VALUE
        )


def _place(sample: int, position: tuple[int, ...]) -> str:
    at = ",".join(str(i) for i in position)
    if sample < 0:
        return f"{tr('at')} {at}"
    return f"{tr('sample')} {sample}"
