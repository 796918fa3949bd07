"""A switch that lays the evaluation data over the calibration data, and how far they agree."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QWidget

from qstudio.core.statistics import SiteStatistics
from qstudio.session.overlap import evaluation_of, overlap_of
from qstudio.session.session import Session
from qstudio.ui.inspector.labels import ElidedLabel
from qstudio.ui.text import format_percent, tr

WORDS = tr(
    "Outline: the evaluation data, scaled to as many values. Overlap: sum of min(p, q) over at most 128 cells, "
    "100 % = the same distribution. Outside: evaluation values beyond the calibrated range, which saturate."
)


class OverlapRow(QWidget):
    """Off until asked for: the evaluation data then runs through the float model once, for all layers."""

    changed = Signal(bool)
    """Whether it was switched on."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._asked: object = None
        """What the evaluation's statistics were last asked with."""
        self.switch = QCheckBox(tr("evaluation"))
        self.switch.setToolTip(tr("Lay the distribution of the evaluation data over that of the calibration data"))
        self.figures = ElidedLabel("small", "muted")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.switch)
        row.addWidget(self.figures, 1)
        self.switch.toggled.connect(self.changed)

    def show_layer(self, layer: str | None) -> SiteStatistics | None:
        """Show the figures of a layer; return the evaluation data's statistics where they are to be drawn."""
        session = self._session
        why = "" if session.dataset is not None and session.model is not None else tr("Choose data first")
        self.switch.setEnabled(not why)
        if not self.switch.isChecked() or layer is None or why:
            self.figures.set_full_text(why)
            return None
        asked = (session.options, session.dataset, session.model)
        if not session.evaluation_statistics and asked != self._asked:
            self._asked = asked
            session.collect_evaluation()
        evaluation, found = evaluation_of(session, layer), overlap_of(session, layer)
        if found is None:
            self.figures.set_full_text(tr("no values yet") if evaluation is None else "")
            return None
        self.figures.set_full_text(
            f"{tr('overlap')} {format_percent(found.intersection_percent)}, "
            f"{tr('outside')} {format_percent(found.outside_percent)}"
        )
        self.figures.setToolTip(f"{self.figures.full_text}\n{WORDS}")
        return evaluation
