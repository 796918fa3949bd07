"""The read-out under the histogram: what the range costs, in eight figures."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from qstudio.core.affine import Encoding
from qstudio.core.encodings import LevelEncoding
from qstudio.session.readout import Readout
from qstudio.ui.inspector.labels import ThemedLabel
from qstudio.ui.text import NO_VALUE, format_db, format_percent, format_value, tr
from qstudio.ui.theme import theme

ESTIMATED = "~"


@dataclass(frozen=True)
class Figure:
    """One figure of the read-out."""

    id: str
    title: str
    help: str


FIGURES: tuple[Figure, ...] = (
    Figure(
        "sqnr",
        "SQNR",
        "Signal to quantization noise, 10 log10(Σx² / Σ(x−x̂)²), in dB. Good from 30, look from 20, bad below. "
        "Each bit is worth about 6 dB.",
    ),
    Figure(
        "rounding",
        "Rounding",
        "Mean squared error of the values inside the range, in squared units of the tensor. A narrower range makes it "
        "smaller; ideal is scale²/12.",
    ),
    Figure("mse", "Total MSE", "Rounding and clipping together, in squared units of the tensor. Less is better."),
    Figure(
        "clipping",
        "Clipping",
        "Mean squared error of the values outside the range, in squared units of the tensor. A wider range makes it "
        "smaller; good is less than the rounding error.",
    ),
    Figure("clipped", "Clipped", "Share of the values that lie outside the range, in percent. Look above 1 %."),
    Figure(
        "scale",
        "Scale",
        "Step between neighbouring codes, in units of the tensor. With one scale for each channel: the smallest and "
        "the largest.",
    ),
    Figure(
        "codes",
        "Codes used",
        "Share of the codes that at least one value takes, in percent. Look below 50 %: a bit is wasted.",
    ),
    Figure("zero", "Zero point", "The code that stands for 0; 0 for symmetric schemes."),
)


class ReadoutView(QWidget):
    """Eight figures in two columns. "~" marks what is estimated from a histogram."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(theme().px(8))
        grid.setVerticalSpacing(theme().px(2))
        self._values: dict[str, ThemedLabel] = {}
        for number, figure in enumerate(FIGURES):
            row, column = divmod(number, 2)
            title = ThemedLabel(tr(figure.title), role="muted")
            value = ThemedLabel(NO_VALUE)
            value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            value.setAccessibleName(tr(figure.title))
            for label in (title, value):
                label.setToolTip(tr(figure.help))
            self._values[figure.id] = value
            grid.addWidget(title, row, 3 * column)
            grid.addWidget(value, row, 3 * column + 1)
            grid.setColumnStretch(3 * column + 1, 1)
        grid.setColumnMinimumWidth(2, theme().px(12))
        self._values["sqnr"].set_bold(True)

    def text(self, figure: str) -> str:
        """Return what is shown for a figure."""
        return self._values[figure].text()

    def show_readout(self, readout: Readout | None) -> None:
        """Show the figures; en-dashes for none."""
        if readout is None:
            for label in self._values.values():
                label.setText(NO_VALUE)
                label.set_role("")
            return
        error = readout.error
        mark = "" if readout.exact is not None else ESTIMATED
        texts = {
            "sqnr": mark + format_db(readout.sqnr_db),
            "mse": mark + error_text(readout.mse),
            "rounding": ESTIMATED + error_text(error.rounding),
            # Below a billionth of the rounding error it is the arithmetic's own noise.
            "clipping": ESTIMATED + error_text(error.clipping) if error.clipping > 1e-9 * error.rounding else "0",
            "clipped": ESTIMATED + format_percent(error.clipped_percent, digits=3) if error.clipped_percent else "0 %",
            "codes": ESTIMATED + format_percent(error.codes_used_percent, digits=1),
            "scale": _scales(readout),
            "zero": _zero_points(readout),
        }
        for name, text in texts.items():
            self._values[name].setText(text)
        sqnr = readout.sqnr_db
        self._values["sqnr"].set_role("worse" if sqnr < 20 else "watch" if sqnr < 30 else "better")
        self._values["clipped"].set_role("watch" if error.clipped_percent > 1 else "")
        self._values["codes"].set_role("watch" if error.codes_used_percent < 50 else "")


def error_text(value: float) -> str:
    """Return a mean squared error with three digits, "2.1e-4"."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits}e{int(power)}"


def _scales(readout: Readout) -> str:
    encoding = readout.encoding
    if isinstance(encoding, LevelEncoding):
        return NO_VALUE
    if not encoding.scale.ndim:
        return format_value(float(encoding.scale))
    return f"{float(encoding.scale.min()):.3g} … {float(encoding.scale.max()):.3g}"


def _zero_points(readout: Readout) -> str:
    if not isinstance(readout.encoding, Encoding):
        return NO_VALUE
    zero = readout.encoding.zero_point
    low, high = int(zero.min()), int(zero.max())
    return str(low) if low == high else f"{low} … {high}"
