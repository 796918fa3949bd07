"""Flips: which samples get another answer in run A than in run B (or in float), and whether it could be chance."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.flips import Flips
from qstudio.session.options import Notice
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.compare.flip_list import COLUMNS, KIND_WORDS, FlipList
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.plots.confusion_map import ConfusionMap
from qstudio.ui.runs.figures import same_recipe
from qstudio.ui.saving import saved_text
from qstudio.ui.shown_panel import ShownPanel
from qstudio.ui.text import format_points, tr

P_SHOWN = 0.05
"""A p below it is called a difference that chance hardly explains."""


def p_text(p: float) -> str:
    """Return a p-value with sensible digits."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def flips_words(flips: Flips) -> str:
    """Return in words what changed and whether it could be chance."""
    changed, samples = len(flips.indices), f"{flips.samples:,}"
    head = tr("{m} of {n} samples changed").format(m=f"{changed:,}", n=samples)
    if not flips.labelled:
        return f"{head}. {tr('The data has no labels: which answers are right is not known.')}"
    parts = tr("{w} right to wrong, {r} wrong to right, {o} wrong to another wrong class").format(
        w=f"{flips.to_wrong:,}", r=f"{flips.to_right:,}", o=f"{flips.other_wrong:,}"
    )
    difference = f"{format_points(flips.difference_points)} ±{flips.half_width_points:.2f}"
    verdict = tr("chance hardly explains it") if flips.p < P_SHOWN else tr("this could be chance")
    return (
        f"{head}: {parts}. {difference} {tr('points')}; {tr('McNemar')} {p_text(flips.p)}: {verdict}."
        if flips.to_wrong + flips.to_right
        else f"{head}: {parts}. {tr('No answer became right or wrong.')}"
    )


class FlipsPanel(ShownPanel):
    """Confusion difference at the left, the samples at the right, a filter above."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: Flips | None = None
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.words.setToolTip(
            tr(
                "McNemar's exact test: how likely so lopsided a split of right to wrong and wrong to right is if both "
                "networks were equally good. The interval is that of Agresti and Min (2005)."
            )
        )
        self.kind = QComboBox()
        self.kind.setAccessibleName(tr("Which changes are listed"))
        self.kind.setToolTip(tr("Which changes are listed; click a cell of the map for one pair of classes"))
        self.kind.addItem(tr("all changes"), "")
        for name in ("to_wrong", "to_right", "other_wrong"):
            self.kind.addItem(tr(KIND_WORDS[name]), name)
        self.caption = ElidedLabel()
        self.caption.setProperty("role", "muted")
        self.copy = QPushButton(tr("Copy"))
        self.copy.setToolTip(tr("Copy the listed samples as tab-separated text"))
        self.copy.setAccessibleName(tr("Copy the listed samples"))
        self.export = QPushButton(tr("CSV…"))
        self.export.setToolTip(tr("Save the listed samples as CSV"))
        self.export.setAccessibleName(tr("Save the listed samples as CSV"))
        self.map = ConfusionMap()
        self.list = FlipList(session.compare.sample)
        self.empty = QLabel()
        self.empty.setWordWrap(True)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty.setProperty("role", "muted")
        self._assemble()
        self.kind.currentIndexChanged.connect(self._on_filter)
        self.map.cell_selected.connect(self._on_filter)
        self.map.notice_posted.connect(session.notice_posted.emit)
        self.list.samples_seen.connect(self._on_samples_seen)
        self.list.sample_chosen.connect(self._on_sample_chosen)
        self.copy.clicked.connect(self.copy_list)
        self.export.clicked.connect(self._ask_save)
        bridge.compare_changed.connect(self.mark_stale)
        bridge.compare_samples_changed.connect(self._on_samples_changed)

    def _assemble(self) -> None:
        bar = QHBoxLayout()
        bar.addWidget(self.kind)
        bar.addWidget(self.caption, 1)
        for button in (self.copy, self.export):
            button.setProperty("role", "flat")
            bar.addWidget(button)
        right = QWidget()
        column = QVBoxLayout(right)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(bar)
        column.addWidget(self.list, 1)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self.map)
        self.split.addWidget(right)
        self.split.setSizes([100, 130])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 8, 8)
        layout.setSpacing(8)
        layout.addWidget(self.words)
        layout.addWidget(self.split, 1)
        layout.addWidget(self.empty, 1)

    # ---- showing

    def refresh(self) -> None:
        """Show the flips between A and B, or why there are none."""
        compare = self._session.compare
        flips, blocked = compare.flips, compare.flips_blocked
        self.split.setVisible(not blocked)
        self.empty.setVisible(bool(blocked))
        self.empty.setText(f"{tr(blocked)}." if blocked else "")
        if flips is None:
            self._shown = None
            self.words.setText("")
            self.list.flips.set_flips(None)
            self.map.set_flips(None, f"{tr(blocked)}.")
            return
        first, second = compare.first, compare.second
        names = (second.title if second else tr("Float"), first.title if first else "")
        self.words.setText(f"{names[0]} → {names[1]}: {flips_words(flips)}")
        if flips is not self._shown:
            self._shown = flips
            self.map.set_flips(flips)
            self.list.flips.set_flips(flips, str(self.kind.currentData()))
            self._tell_list()

    def _on_filter(self, _value: object = None) -> None:
        self.list.flips.set_filter(str(self.kind.currentData()), self.map.selected)
        self._tell_list()

    def _tell_list(self) -> None:
        """Say what is listed, and whether it can be taken away."""
        cell = self.map.selected
        count = tr("{n} listed").format(n=f"{self.list.flips.rowCount():,}")
        flips = self._shown
        only = (
            f", {flips.name_of(cell[0])} / {flips.name_of(cell[1])}" if cell is not None and flips is not None else ""
        )
        blocked = self._session.compare.samples_blocked
        first = self._session.compare.first
        if not blocked and first is not None and not same_recipe(self._session, first):
            blocked = tr("A click shows a sample with the present recipe: restore that of {run} to see its own").format(
                run=first.title
            )
        self.caption.setText(f"{count}{only}; {self.map.caption}")
        self.caption.setToolTip(self.caption.text())
        self.list.setToolTip(tr(blocked))
        for button in (self.copy, self.export):
            button.setEnabled(self.list.flips.rowCount() > 0)

    # ---- samples

    def _on_samples_seen(self, indices: tuple[int, ...]) -> None:
        self._session.compare.request_samples(indices)

    def _on_samples_changed(self, indices: tuple[int, ...]) -> None:
        if not indices:
            self.list.flips.forget_icons()
        self.list.flips.tell_icons()

    def _on_sample_chosen(self, index: int) -> None:
        blocked = self._session.compare.samples_blocked
        if blocked:
            self._session.notice_posted.emit(Notice("warning", f"{tr(blocked)}."))
            return
        self._session.pictures.show_sample(index)

    # ---- taking it away

    def as_text(self, separator: str) -> str:
        """Return the listed samples as lines with a heading."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=separator, lineterminator="\n")
        writer.writerow([tr(title) for title, *_ in COLUMNS])
        model = self.list.flips
        for row in range(model.rowCount()):
            texts = [model.text(row, column) for column in range(len(COLUMNS))]
            writer.writerow([str(model.index_at(row)), *texts[1:]])
        return out.getvalue()

    def copy_list(self) -> None:
        """Put the listed samples on the clipboard as tab-separated text."""
        QApplication.clipboard().setText(self.as_text("\t"))

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, tr("Save flips as CSV"), "flips.csv", "CSV (*.csv)")
        if path:
            self.save(path if Path(path).suffix else f"{path}.csv")

    def save(self, path: str) -> None:
        """Write the listed samples as CSV; the outcome is posted as a notice."""
        self._session.notice_posted.emit(saved_text(path, self.as_text(",")))
