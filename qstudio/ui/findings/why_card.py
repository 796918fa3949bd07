"""The "why" card: what hurts the selected layer, what to do, and what it brings."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from qstudio.core.errors import UserError
from qstudio.core.findings.finding import Finding
from qstudio.session.options import Notice
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.findings.finding_view import FindingView, gain_words, go_to_panel, muted
from qstudio.ui.inspector.labels import ThemedLabel
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

SETTLED_MS = 120
"""After an edit the card waits this long for the next one: a drag has the time for itself."""


class WhyCard(QFrame):
    """What would bring the inspector's layer most; checked in slices between events, and only while it can be seen."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "surface")
        self.setAccessibleName(tr("Why"))
        self._stale = True
        self.title = ThemedLabel(tr("Why"))
        self.title.set_bold(True)
        self.title.setToolTip(
            tr("What hurts this layer under the present recipe: found by rules, with predicted gains")
        )
        self.more = QPushButton()
        self.more.setProperty("role", "flat")
        self.more.setToolTip(tr("Show all findings of all layers"))
        self.more.clicked.connect(self._on_more)
        self.applied = muted()
        self.applied.setToolTip(tr("What the finding applied last to this layer was predicted and measured to bring"))
        self.words = muted()
        self.view = FindingView()
        self.view.apply_asked.connect(self._on_apply)
        self.view.dismiss_asked.connect(session.findings.dismiss)
        self.view.place_asked.connect(self._on_place)
        for widget in (self.more, self.applied, self.words, self.view):
            widget.hide()  # until something is known
        gap = theme().px(8)
        head = QHBoxLayout()
        head.addWidget(self.title)
        head.addStretch(1)
        head.addWidget(self.more)
        column = QVBoxLayout(self)
        column.setContentsMargins(gap, theme().px(4), gap, theme().px(4))
        column.setSpacing(theme().px(2))
        column.addLayout(head)
        column.addWidget(self.applied)
        column.addWidget(self.view)
        column.addWidget(self.words)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_timer)
        for signal in (bridge.selection_changed, bridge.findings_changed, bridge.model_changed):
            signal.connect(self._on_changed)
        self._on_changed("")

    # ---- keeping current

    def _on_changed(self, value: object) -> None:
        """Look again when the layer, or what is known of it, has changed."""
        layer = self._session.current_layer
        if isinstance(value, str) and value and (layer is None or value != layer.name):
            return  # another layer's findings
        self._stale = True
        if self.isVisible():
            self._timer.start(SETTLED_MS if value == "" else 0)

    def showEvent(self, event: object) -> None:
        """Look when it is seen."""
        super().showEvent(event)  # type: ignore[arg-type]
        if self._stale:
            self._timer.start(0)

    def hideEvent(self, event: object) -> None:
        """Stop looking."""
        super().hideEvent(event)  # type: ignore[arg-type]
        self._timer.stop()

    def _on_timer(self) -> None:
        layer, findings = self._session.current_layer, self._session.findings
        if layer is not None and not findings.is_known(layer.name):
            findings.prefer(layer.name)
            findings.step()
            self._timer.start(0)
            return
        self.refresh()

    def refresh(self) -> None:
        """Show what is known of the layer."""
        self._stale = False
        self._timer.stop()
        layer, findings = self._session.current_layer, self._session.findings
        found = findings.for_layer(layer.name) if layer is not None else ()
        mine = [each for each in findings.applied if layer is not None and each.finding.layer == layer.name]
        self.view.setVisible(bool(found))
        self.applied.setVisible(bool(mine))
        self.words.setVisible(not found and not mine)
        self.more.setVisible(len(found) > 1)
        if found:
            self.view.show_finding(found[0])
            self.more.setText(tr("{n} more…").format(n=len(found) - 1))
        if mine and mine[0].finding.edit is not None:
            self.applied.setText(f"{mine[0].finding.edit.label}: {gain_words(mine[0].finding, mine[0])}")
        if layer is None:
            self.words.setText(tr("Select a layer to see what hurts it."))
        elif not found:
            self.words.setText(tr("Nothing stands out in this layer."))
        self.words.setToolTip(findings.words())

    def _on_more(self) -> None:
        go_to_panel(self, "findings")

    def _on_place(self, name: str) -> None:
        go_to_panel(self, name)

    def _on_apply(self, finding: Finding) -> None:
        try:
            self._session.findings.apply(finding)
        except UserError as error:
            self._session.notice_posted.emit(Notice("warning", error.sentence()))
