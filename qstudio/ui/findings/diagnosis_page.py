"""The guided diagnosis: five questions, what was measured for each, and the repair."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.errors import UserError
from qstudio.session.diagnosis_steps import Step
from qstudio.session.options import Notice
from qstudio.session.session import Session
from qstudio.ui.findings.finding_view import muted
from qstudio.ui.inspector.labels import ElidedLabel, ThemedLabel
from qstudio.ui.text import format_interval, format_percent, format_points, tr
from qstudio.ui.theme import theme

MARKS = {"waiting": "○", "running": "◔", "done": "●", "skipped": "–"}
STATES = {"waiting": "not asked yet", "running": "being measured", "done": "answered", "skipped": "needs no answer"}


class StepView(QWidget):
    """One question with its figures and its answer."""

    def __init__(self, number: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._number = number
        self._step: Step | None = None
        self.mark = ThemedLabel("")
        self.question = ThemedLabel("")
        self.question.set_bold(True)
        self.conclusion = muted()
        self.conclusion.setProperty("role", "")
        self.why = muted()
        self._figures = QGridLayout()
        self._figures.setHorizontalSpacing(theme().px(16))
        self._figures.setVerticalSpacing(theme().px(2))
        self._figures.setColumnMinimumWidth(0, theme().px(300))
        self._figures.setColumnStretch(3, 1)
        self._labels: list[tuple[ElidedLabel, ThemedLabel, ThemedLabel]] = []
        body = QVBoxLayout()
        body.setSpacing(theme().px(4))
        body.addWidget(self.question)
        body.addLayout(self._figures)
        body.addWidget(self.conclusion)
        body.addWidget(self.why)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, theme().px(8))
        row.setSpacing(theme().px(8))
        row.addWidget(self.mark, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(body, 1)

    def show_step(self, step: Step) -> None:
        """Show a step as far as it is answered."""
        if step is self._step:
            return
        self._step = step
        self.mark.setText(MARKS[step.state])
        self.mark.setToolTip(tr(STATES[step.state]))
        self.mark.set_role("better" if step.state == "done" else "muted")
        self.question.setText(f"{self._number}  {step.question}")
        self.question.set_role("" if step.state in ("done", "running") else "muted")
        while len(self._labels) < len(step.figures):
            self._add_figure()
        for at, labels in enumerate(self._labels):
            for label in labels:
                label.setVisible(at < len(step.figures))
            if at < len(step.figures):
                each = step.figures[at]
                labels[0].set_full_text(each.title)
                labels[1].setText(f"{format_percent(each.score)} {format_interval(each.interval)}".strip())
                labels[2].setText(format_points(each.difference))
                labels[2].set_role("better" if each.difference > 0 else "worse" if each.difference < 0 else "muted")
        for label, words in ((self.conclusion, step.conclusion), (self.why, step.why)):
            label.setText(words)
            label.setVisible(bool(words))
        self.setAccessibleName(f"{step.question} {tr(STATES[step.state])}")
        self.setAccessibleDescription(step.text())

    def _add_figure(self) -> None:
        row = len(self._labels)
        name, score, difference = ElidedLabel("small"), ThemedLabel("", "small"), ThemedLabel("", "small")
        score.setToolTip(tr("Top-1 (agreement with float without labels), with its 95 % interval"))
        difference.setToolTip(tr("Points more than the recipe as it stands"))
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        self._figures.addWidget(name, row, 0)
        self._figures.addWidget(score, row, 1, right)
        self._figures.addWidget(difference, row, 2, right)
        self._labels.append((name, score, difference))


class DiagnosisPage(QWidget):
    """Start, cancel, go on, apply; the steps fill while they are measured."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._lens = session.diagnosis
        self.start = QPushButton(tr("Start"))
        self.start.setProperty("role", "primary")
        self.start.setToolTip(tr("Ask the five questions about the recipe as it stands; each answer is measured"))
        self.stop = QPushButton(tr("Cancel"))
        self.stop.setToolTip(tr("Stop; what was answered stays, and the diagnosis can go on from there"))
        self.go_on = QPushButton(tr("Resume"))
        self.go_on.setToolTip(tr("Go on where it was stopped"))
        self.apply = QPushButton(tr("Apply repair"))
        self.apply.setProperty("role", "primary")
        self.copy = QPushButton(tr("Copy"))
        self.copy.setProperty("role", "flat")
        self.copy.setToolTip(tr("Copy questions, figures and answers as text"))
        self.status = ElidedLabel("small", "muted")
        self.steps = [StepView(number) for number in range(1, len(self._lens.steps) + 1)]
        gap = theme().px(8)
        top = QHBoxLayout()
        top.setSpacing(gap)
        for button in (self.start, self.go_on, self.stop):
            top.addWidget(button)
        top.addWidget(self.status, 1)
        top.addWidget(self.copy)
        top.addWidget(self.apply)
        body = QFrame()
        body.setProperty("role", "surface")
        inside = QVBoxLayout(body)
        inside.setContentsMargins(0, 0, gap, 0)
        for step in self.steps:
            inside.addWidget(step)
        inside.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(body)
        area.setAccessibleName(tr("Diagnosis"))
        column = QVBoxLayout(self)
        column.setContentsMargins(gap, gap, gap, gap)
        column.setSpacing(gap)
        column.addLayout(top)
        column.addWidget(area, 1)
        self.start.clicked.connect(self.begin)
        self.stop.clicked.connect(self._lens.cancel)
        self.go_on.clicked.connect(self._on_resume)
        self.apply.clicked.connect(self._on_apply)
        self.copy.clicked.connect(self._on_copy)

    def refresh(self) -> None:
        """Show how far it is."""
        lens = self._lens
        for view, step in zip(self.steps, lens.steps, strict=True):
            view.show_step(step)
        blocked = tr(lens.blocked)
        self.start.setEnabled(not blocked and not lens.running)
        self.start.setToolTip(
            blocked or tr("Ask the five questions about the recipe as it stands; each answer is measured")
        )
        self.stop.setVisible(lens.running)
        self.go_on.setVisible(lens.resumable)
        repair = lens.repair
        self.apply.setVisible(repair is not None)
        if repair is not None:
            done = self._session.recipe == repair.recipe
            self.apply.setEnabled(not done)
            self.apply.setToolTip(
                tr("It stands already") if done else f"{repair.title}\n{tr('One step that can be undone')}"
            )
        self.copy.setEnabled(lens.steps[0].state != "waiting")
        if lens.running:
            self.status.set_full_text(f"{tr('evaluating')}: {lens.trying}")
        else:
            self.status.set_full_text(tr(lens.problem) or blocked)

    def begin(self) -> None:
        """Start from the first question; say why where that cannot be."""
        self._try(self._lens.start)

    def _on_resume(self) -> None:
        self._try(self._lens.resume)

    def _on_apply(self) -> None:
        self._try(self._lens.apply)

    def _try(self, what: object) -> None:
        try:
            what()  # type: ignore[operator]
        except UserError as error:
            self._session.notice_posted.emit(Notice("warning", error.sentence()))
        self.refresh()

    def _on_copy(self) -> None:
        QApplication.clipboard().setText(self._lens.text())
