"""The search tab: limits and candidates, start and cancel, and what came of it."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from qstudio.core.errors import UserError
from qstudio.session.options import Notice
from qstudio.session.search import same_effect
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.search.form import SearchForm
from qstudio.ui.search.progress_words import progress_words
from qstudio.ui.search.result_words import result_html
from qstudio.ui.style import set_role
from qstudio.ui.text import tr


class SearchPanel(QFrame):
    """Mixed precision: what is asked, and the recipe that was found."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._lens = session.search
        self._is_stale = True
        self.setProperty("role", "surface")
        self.form = SearchForm(session)
        self.start = QPushButton(tr("Search"))
        self.start.setProperty("role", "primary")
        self.start.clicked.connect(self._on_start)
        self.stop = QPushButton(tr("Cancel"))
        self.stop.setToolTip(tr("Stop; what has been measured is kept, and Search goes on from there"))
        self.stop.clicked.connect(self._lens.cancel)
        self.take = QPushButton(tr("Take the chosen recipe"))
        self.take.clicked.connect(self._on_take)
        self.status = ElidedLabel()
        self.result = QLabel()
        self.result.setWordWrap(True)
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.result.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.result.setContentsMargins(12, 0, 12, 12)
        inner = QFrame()
        inner.setProperty("role", "surface")
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.form)
        column.addWidget(self.result)
        column.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidget(inner)
        area.setAccessibleName(tr("Settings and result of the search"))
        head = QHBoxLayout()
        head.setContentsMargins(12, 8, 12, 4)
        head.setSpacing(8)
        for button in (self.start, self.stop, self.take):
            head.addWidget(button)
        head.addWidget(self.status, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(head)
        layout.addWidget(area, 1)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(50)
        self._timer.timeout.connect(self._refresh)
        for signal in (
            bridge.search_changed,
            bridge.work_changed,
            bridge.runs_changed,
            bridge.dataset_changed,
            bridge.model_changed,
            bridge.recipe_changed,
        ):
            signal.connect(self._on_changed)
        self._refresh()

    # ---- the person

    def _on_start(self) -> None:
        try:
            self._lens.start()
        except UserError as error:
            self._session.notice_posted.emit(Notice("error", error.sentence()))

    def _on_take(self) -> None:
        result = self._lens.result
        if result is not None and result.chosen is not None:
            self._lens.take(result.chosen)

    # ---- following the session

    def _on_changed(self, _value: object = None) -> None:
        self._is_stale = True
        if self.isVisible() and not self._timer.isActive():
            self._timer.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what happened while it was not seen."""
        super().showEvent(event)
        if self._is_stale:
            self._refresh()

    def _refresh(self) -> None:
        self._is_stale = False
        lens, blocked = self._lens, self._lens.blocked
        self.form.show_settings()
        self.start.setEnabled(not blocked)
        self.start.setToolTip(
            tr(blocked) if blocked else tr("Find the bits of each layer that cost least accuracy within the limits")
        )
        self.stop.setVisible(lens.running)
        self.stop.setEnabled(not lens.stopping)
        self._show_take()
        text, role = self._words()
        self.status.setText(text)
        self.status.setToolTip(text)
        set_role(self.status, role)
        words = result_html(lens)
        if words != self.result.text():
            self.result.setText(words)

    def _show_take(self) -> None:
        result = self._lens.result
        chosen = result.chosen if result is not None else None
        self.take.setVisible(chosen is not None)
        model = self._session.model
        is_current = (
            chosen is not None and model is not None and same_effect(chosen.recipe, self._session.recipe, model)
        )
        self.take.setEnabled(not is_current)
        self.take.setToolTip(
            tr("This is the current recipe") if is_current else tr("Make it the current recipe; one undoable step")
        )

    def _words(self) -> tuple[str, str]:
        lens, result = self._lens, self._lens.result
        if lens.running:
            return progress_words(lens), "muted"
        if result is not None and lens.stale:
            return f"{tr('Stale')}: {tr(lens.stale)}", "watch"
        if result is not None and not lens.is_whole:
            return tr("Stopped; Search goes on from here"), "watch"
        return (tr(lens.blocked), "muted") if lens.blocked else ("", "muted")
