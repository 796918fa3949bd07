"""All calibrators side by side for one site."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QPushButton, QWidget

from qstudio.core.calibration import CALIBRATORS
from qstudio.session.readout import CalibratorReadout
from qstudio.ui.inspector.labels import ThemedLabel
from qstudio.ui.text import NO_VALUE, format_db, format_percent, tr
from qstudio.ui.theme import theme

HEADINGS = (
    ("Calibration", "How the range would be found"),
    ("Range", "The range it gives, in units of the tensor (with scales per channel: the extremes over channels)"),
    ("SQNR", "Estimated signal to quantization noise in dB, more is better; good from 30"),
    ("Clipped", "Estimated share of values outside the range, in percent"),
)


class CalibratorTable(QWidget):
    """A row for each calibrator: range, SQNR, clipped, and a button that takes it."""

    calibration_taken = Signal(object)
    """Id of the calibration."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(theme().px(8))
        self._grid.setVerticalSpacing(0)
        self._grid.setColumnStretch(1, 1)
        self._headings: list[ThemedLabel] = []
        self._empty = ThemedLabel(role="muted")
        self._grid.addWidget(self._empty, 1, 0, 1, len(HEADINGS))
        for column, (title, words) in enumerate(HEADINGS):
            heading = ThemedLabel(tr(title), "small", "muted")
            heading.setToolTip(tr(words))
            if column:
                heading.setAlignment(Qt.AlignmentFlag.AlignRight)
            self._headings.append(heading)
            self._grid.addWidget(heading, 0, column)
        self._rows: list[tuple[list[ThemedLabel], QPushButton]] = []
        self._calibrations: tuple[str, ...] = ()

    def button(self, calibration: str) -> QPushButton:
        """Return the button that takes a calibration (ValueError when it is not shown)."""
        return self._rows[self._calibrations.index(calibration)][1]

    def text(self, calibration: str) -> tuple[str, ...]:
        """Return what is shown for a calibration."""
        return tuple(label.text() for label in self._rows[self._calibrations.index(calibration)][0])

    def show_rows(self, rows: tuple[CalibratorReadout, ...], used: str, blocked: str, empty: str = "") -> None:
        """Show the comparison.

        Args:
            rows: One for each calibrator.
            used: The calibration in use.
            blocked: Why none can be taken, in words; empty when one can.
            empty: What to say where there are no rows.
        """
        self._empty.setText(empty)
        self._empty.setVisible(not rows)
        for heading in self._headings:
            heading.setVisible(bool(rows))
        self._calibrations = tuple(row.calibration for row in rows)
        while len(self._rows) < len(rows):
            self._add_row()
        best = max((row.error.sqnr_db for row in rows if row.error is not None), default=None)
        for number, (labels, button) in enumerate(self._rows):
            shown = number < len(rows)
            for widget in (*labels, button):
                widget.setVisible(shown)
            if shown:
                row = rows[number]
                is_best = row.error is not None and row.error.sqnr_db == best
                _fill(labels, row, is_best)
                self._fill_button(button, row, row.calibration == used, blocked)

    def _fill_button(self, button: QPushButton, row: CalibratorReadout, used: bool, blocked: str) -> None:
        button.setText(tr("in use") if used else tr("Apply"))
        why = blocked or (tr("This layer uses it already") if used else "")
        button.setEnabled(not why)
        button.setToolTip(why or f"{tr('Find the range by')} {row.title}")
        button.setAccessibleName(f"{tr('Apply')} {row.title}")

    def _add_row(self) -> None:
        number = len(self._rows) + 1
        labels = [ThemedLabel(size="small") for _ in HEADINGS]
        for column, label in enumerate(labels):
            if column:
                label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self._grid.addWidget(label, number, column)
        button = QPushButton()
        button.setProperty("role", "flat")
        button.setFixedWidth(theme().px(60))
        button.clicked.connect(self._on_clicked)
        self._grid.addWidget(button, number, len(HEADINGS))
        self._rows.append((labels, button))

    def _on_clicked(self) -> None:
        sender = self.sender()
        for calibration, (_, button) in zip(self._calibrations, self._rows, strict=False):
            if button is sender:
                self.calibration_taken.emit(calibration)


def _fill(labels: list[ThemedLabel], row: CalibratorReadout, best: bool) -> None:
    texts = [row.title, NO_VALUE, NO_VALUE, NO_VALUE]
    words = row.reason
    if row.clip is not None and row.error is not None:
        texts[1:] = [
            f"{row.clip[0]:.3g} … {row.clip[1]:.3g}",
            "~" + format_db(row.error.sqnr_db),
            "~" + format_percent(row.error.clipped_percent) if row.error.clipped_percent else "0 %",
        ]
        words = tr("The highest SQNR of all") if best else ""
    calibrator = CALIBRATORS.get(row.calibration.partition(":")[0])
    for label, text in zip(labels, texts, strict=True):
        label.setText(text)
        label.setToolTip(words)
        label.set_bold(best)
    if calibrator is not None:
        labels[0].setToolTip("\n".join(part for part in (words, tr(calibrator.words)) if part))
