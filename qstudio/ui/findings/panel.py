"""The tab of findings: the list of all, and the guided diagnosis."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.findings.diagnosis_page import DiagnosisPage
from qstudio.ui.findings.finding_view import go_to_panel
from qstudio.ui.findings.list_page import ListPage
from qstudio.ui.inspector.segments import Segment, Segments
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

STEP_MS = 3.0
"""Checking rules between two events: after so long no further rule is begun. The longest single one searches an MSE
range for each channel of a weight, some 10 ms the first time, so that a slice stays within a frame of 16 ms."""
REFRESH_MS = 200
"""While rules are checked the list follows this often."""
SETTLED_MS = 120
"""After an edit nothing is checked for this long: a drag has the time for itself."""


class FindingsPanel(QFrame):
    """Checks rules in slices, and asks for the evidence that is missing, only while it can be seen."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "surface")
        self.setAccessibleName(tr("Findings"))
        self._stale = True
        self._asked: object = None
        self._withdraw: Callable[[], None] | None = None
        self.pages = Segments(
            tr("Findings"),
            (
                Segment("list", tr("All findings"), tr("What rules find in every layer, ranked by what it brings")),
                Segment("diagnosis", tr("Why is it worse?"), tr("Five questions that lead to a repair, each measured")),
            ),
        )
        self.pages.set_value("list")
        self.pages.chosen.connect(self.show_page)
        self.list = ListPage(session)
        self.diagnosis = DiagnosisPage(session)
        self._stack = QStackedWidget()
        self._stack.addWidget(self.list)
        self._stack.addWidget(self.diagnosis)
        gap = theme().px(8)
        head = QHBoxLayout()
        head.setContentsMargins(gap, gap, gap, 0)
        head.addWidget(self.pages)
        head.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(self._stack, 1)
        self._check = self._timer(0, self._on_check)
        self._later = self._timer(REFRESH_MS, self._refresh)
        self.list.place_asked.connect(self._on_place)
        bridge.findings_changed.connect(self._on_changed)
        bridge.diagnosis_changed.connect(self._on_diagnosis)
        for signal in (bridge.model_changed, bridge.dataset_changed, bridge.statistics_changed, bridge.recipe_changed):
            signal.connect(self._on_diagnosis)

    def _timer(self, interval_ms: int, then: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(interval_ms)
        timer.timeout.connect(then)
        return timer

    # ---- pages

    def show_page(self, name: str) -> None:
        """Show the list or the diagnosis."""
        self.pages.set_value(name)
        self._stack.setCurrentWidget(self.diagnosis if name == "diagnosis" else self.list)
        self._refresh()

    def diagnose(self) -> None:
        """Show the diagnosis, and start it where it is not under way."""
        self.show_page("diagnosis")
        if not self._session.diagnosis.running and not self._session.diagnosis.resumable:
            self.diagnosis.begin()

    def _on_place(self, name: str) -> None:
        go_to_panel(self, name)

    # ---- keeping current

    def showEvent(self, event: object) -> None:
        """Look for what is missing, and check."""
        super().showEvent(event)  # type: ignore[arg-type]
        if self._withdraw is None:
            self._withdraw = self._session.preview.request_depth()
        self._ask_for_evaluation()
        self._refresh()

    def hideEvent(self, event: object) -> None:
        """Stop checking; what is asked for is no longer wanted."""
        super().hideEvent(event)  # type: ignore[arg-type]
        self._check.stop()
        self._later.stop()
        if self._withdraw is not None:
            self._withdraw()
            self._withdraw = None

    def _ask_for_evaluation(self) -> None:
        session = self._session
        asked = (session.options, session.dataset, session.model)
        ready = session.dataset is not None and session.activation_statistics and not session.evaluation_statistics
        if ready and session.model is not None and session.model.runnable and asked != self._asked:
            self._asked = asked
            session.collect_evaluation()

    def _on_changed(self, _value: object) -> None:
        self._stale = True
        if self.isVisible() and not self._later.isActive():
            self._later.start()
            self._check.start(SETTLED_MS)

    def _on_diagnosis(self, _value: object) -> None:
        if self.isVisible():
            self._ask_for_evaluation()
            if self._stack.currentWidget() is self.diagnosis:
                self.diagnosis.refresh()

    def _on_check(self) -> None:
        if self._session.findings.step(STEP_MS):
            self._check.start(0)
        else:
            self._later.stop()
            self._refresh()

    def _refresh(self) -> None:
        if not self.isVisible():
            return
        if self._stack.currentWidget() is self.diagnosis:
            self.diagnosis.refresh()
            return
        self._stale = False
        self.list.refresh()
        if not self._session.findings.complete:
            self._check.start(0)
            self._later.start()
