"""The list of all findings: filter, look at one, apply one or several, set aside, copy."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QItemSelectionModel, Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.errors import UserError
from qstudio.core.findings.finding import SEVERITIES, Finding
from qstudio.session.options import Notice
from qstudio.session.session import Session
from qstudio.ui.findings.finding_view import FindingView
from qstudio.ui.findings.findings_model import LAYER, MARK, MEASURED, PREDICTED, WORDS, FindingsModel, Row
from qstudio.ui.inspector.labels import ElidedLabel, ThemedLabel
from qstudio.ui.inspector.segments import Segment, Segments
from qstudio.ui.text import tr
from qstudio.ui.theme import Palette, theme

WIDTHS = {MARK: 56, LAYER: 190, PREDICTED: 96, MEASURED: 160}


class FindingsTable(QTableView):
    """Rows of findings; Enter applies what is selected, Delete sets it aside."""

    apply_asked = Signal()
    dismiss_asked = Signal()
    copy_asked = Signal()
    chosen = Signal(int)
    """A row the person has moved to."""

    def __init__(self, model: FindingsModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(model)
        self.setAccessibleName(tr("Findings"))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(WORDS, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(theme().px(24))
        self.clicked.connect(self._on_clicked)
        self._on_theme_changed(theme().palette)
        theme().changed.connect(self._on_theme_changed)

    def _on_theme_changed(self, _palette: Palette) -> None:
        self.verticalHeader().setDefaultSectionSize(theme().px(26))
        for column, width in WIDTHS.items():
            self.setColumnWidth(column, theme().px(width))

    def _on_clicked(self, index: Any) -> None:
        self.chosen.emit(index.row())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Apply, set aside, copy, or move."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.apply_asked.emit()
        elif event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.dismiss_asked.emit()
        elif event.matches(QKeySequence.StandardKey.Copy):
            self.copy_asked.emit()
        else:
            super().keyPressEvent(event)
            if event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown):
                self.chosen.emit(self.currentIndex().row())


class ListPage(QWidget):
    """All findings, ranked by what they bring, and the selected one in full."""

    place_asked = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.model = FindingsModel(self)
        self.table = FindingsTable(self.model)
        self.severity = Segments(
            tr("Severity"),
            (
                Segment("", tr("all"), tr("Findings of every severity")),
                *(Segment(name, tr(name), tr(words)) for name, words in SEVERITIES.items()),
            ),
        )
        self.severity.set_value("")
        self.aside = QCheckBox(tr("dismissed"))
        self.aside.setToolTip(tr("Show the findings that were set aside too"))
        self.copy = QPushButton(tr("Copy"))
        self.copy.setProperty("role", "flat")
        self.copy.setToolTip(tr("Copy the selected findings, or all that are shown, as text"))
        self.several = QPushButton(tr("Apply"))
        self.several.setProperty("role", "primary")
        self.status = ElidedLabel("small", "muted")
        self.empty = ThemedLabel("", "normal", "muted")
        self.empty.setWordWrap(True)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.view = FindingView()
        self._lay_out()
        self.severity.chosen.connect(self.refresh)
        self.aside.toggled.connect(self.refresh)
        self.copy.clicked.connect(self._on_copy)
        self.several.clicked.connect(self.apply_selected)
        self.table.apply_asked.connect(self.apply_selected)
        self.table.dismiss_asked.connect(self._on_dismiss_selected)
        self.table.copy_asked.connect(self._on_copy)
        self.table.chosen.connect(self._on_chosen)
        self.table.selectionModel().selectionChanged.connect(self._on_selection)
        self.view.apply_asked.connect(self._apply_one)
        self.view.dismiss_asked.connect(self._toggle_aside)
        self.view.place_asked.connect(self.place_asked)

    def _lay_out(self) -> None:
        gap = theme().px(8)
        top = QHBoxLayout()
        top.setSpacing(gap)
        top.addWidget(self.severity)
        top.addWidget(self.aside)
        top.addWidget(self.status, 1)
        top.addWidget(self.copy)
        top.addWidget(self.several)
        column = QVBoxLayout(self)
        column.setContentsMargins(gap, gap, gap, gap)
        column.setSpacing(gap)
        column.addLayout(top)
        column.addWidget(self.empty, 1)
        column.addWidget(self.table, 1)
        column.addWidget(self.view)

    # ---- showing

    def refresh(self, _value: object = None) -> None:
        """Show what is known; the selection stays on the findings it was on."""
        findings = self._session.findings
        wanted = self.severity.value
        rows = [Row(each.finding, applied=each) for each in findings.applied]
        rows += [Row(each) for each in findings.known()]
        if self.aside.isChecked():
            rows += [Row(each, dismissed=True) for each in findings.dismissed]
        shown = tuple(row for row in rows if not wanted or row.finding.severity == wanted)
        kept = {row.finding.key for row in self.selected()}
        current = self._current()
        self.model.set_rows(shown)
        self.table.setColumnHidden(MEASURED, not any(row.applied is not None for row in shown))
        self._select({row.finding.key for row in shown} & kept, current.finding.key if current else None)
        self._show_words(len(rows), len(shown))
        self._on_selection()

    def _select(self, keys: set[tuple[str, str, str]], current: tuple[str, str, str] | None) -> None:
        selection = self.table.selectionModel()
        flags = QItemSelectionModel.SelectionFlag
        places = [at for at, row in enumerate(self.model.rows) if row.finding.key in keys]
        if not places and self.model.rows:
            places = [next((at for at, row in enumerate(self.model.rows) if row.applied is None), 0)]
        at = next((n for n in places if self.model.rows[n].finding.key == current), places[0] if places else -1)
        selection.clearSelection()
        if at >= 0:
            selection.setCurrentIndex(self.model.index(at, 0), flags.NoUpdate)
        for place in places:
            selection.select(self.model.index(place, 0), flags.Select | flags.Rows)

    def _show_words(self, found: int, shown: int) -> None:
        findings = self._session.findings
        model = self._session.model
        self.table.setVisible(shown > 0)
        self.empty.setVisible(shown == 0)
        words = findings.words()
        if model is None:
            self.empty.setText(tr("Open a model to see what hurts it."))
        elif not findings.complete:
            self.empty.setText(tr("Checking…"))
        elif found:
            self.empty.setText(tr("Nothing of this severity."))
        else:
            self.empty.setText(f"{tr('Nothing was found.')} {words}")
        checking = "" if findings.complete else f"{tr('checking')} … "
        count = tr("1 finding") if found == 1 else tr("{n} findings").format(n=found)
        self.status.set_full_text(f"{checking}{count}. {words}" if model is not None else "")

    def _current(self) -> Row | None:
        at = self.table.currentIndex().row()
        return self.model.rows[at] if 0 <= at < len(self.model.rows) else None

    def selected(self) -> tuple[Row, ...]:
        """Return the selected rows, in the order shown."""
        places = sorted(index.row() for index in self.table.selectionModel().selectedRows())
        return tuple(self.model.rows[at] for at in places if at < len(self.model.rows))

    def _on_selection(self, *_: object) -> None:
        chosen = self.selected()
        edits = [row.finding for row in chosen if row.applied is None and row.finding.edit is not None]
        self.several.setText(tr("Apply {n}").format(n=len(edits)) if len(edits) > 1 else tr("Apply"))
        self.several.setEnabled(bool(edits))
        self.several.setToolTip(
            tr("Apply what is selected, as one step that can be undone (Enter)")
            if edits
            else tr("Select findings that change the recipe")
        )
        row = self._current() or (chosen[0] if chosen else None)
        self.view.setVisible(row is not None)
        if row is not None:
            self.view.show_finding(row.finding, row.applied, row.dismissed)

    def _on_chosen(self, at: int) -> None:
        """Show the layer of the row everywhere."""
        if 0 <= at < len(self.model.rows) and self.model.rows[at].finding.layer:
            self._session.select((self.model.rows[at].finding.layer,))

    # ---- doing

    def apply_selected(self) -> None:
        """Apply the selected findings as one step; go to the place of a single one that is not of the recipe."""
        chosen = [row.finding for row in self.selected() if row.applied is None]
        edits = [each for each in chosen if each.edit is not None]
        if edits:
            self._apply(edits)
        elif len(chosen) == 1 and chosen[0].place:
            self.place_asked.emit(chosen[0].place)

    def _apply_one(self, finding: Finding) -> None:
        self._apply([finding])

    def _apply(self, chosen: list[Finding]) -> None:
        try:
            self._session.findings.apply_all(chosen)
        except UserError as error:
            self._session.notice_posted.emit(Notice("warning", error.sentence()))

    def _toggle_aside(self, finding: Finding) -> None:
        findings = self._session.findings
        known = {each.key for each in findings.dismissed}
        if finding.key in known:
            findings.restore(finding)
        else:
            findings.dismiss(finding)

    def _on_dismiss_selected(self) -> None:
        for row in self.selected():
            if row.applied is None:
                self._toggle_aside(row.finding)

    def _on_copy(self) -> None:
        rows = self.selected() if len(self.selected()) > 1 else self.model.rows
        QApplication.clipboard().setText("\n\n".join(row.finding.text() for row in rows))
