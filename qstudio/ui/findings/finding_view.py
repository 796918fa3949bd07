"""One finding in three short parts, with what it is predicted and measured to bring, and what can be done."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QApplication, QHBoxLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from qstudio.core.findings.finding import SEVERITIES, Finding
from qstudio.core.findings.rules import RULES
from qstudio.session.findings import Applied
from qstudio.ui.inspector.labels import ElidedLabel, ThemedLabel
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

ROLES = {"high": "worse", "medium": "watch", "low": "muted"}
MARKS = {"high": "●●●", "medium": "●●", "low": "●"}
"""Severities by number of marks, so that colour is not needed to tell them apart."""


def gain_words(finding: Finding, applied: Applied | None = None) -> str:
    """Return "~+11.0 dB" and, once it was applied, what was measured."""
    words = finding.gain.text() if finding.gain is not None else ""
    if applied is None:
        return words
    measured = measured_words(applied)
    return f"{tr('predicted')} {words}, {tr('measured')} {measured}" if words else f"{tr('measured')} {measured}"


def measured_words(applied: Applied) -> str:
    """Return what was measured after a finding was applied, in all units that are known."""
    if applied.needs_run:
        return tr("by the next run")
    known = [gain.text() for gain in (applied.measured, applied.accuracy) if gain is not None]
    return ", ".join(known) if known else tr("being measured")


def help_words(finding: Finding) -> str:
    """Return everything a tooltip has to say: condition and source of the rule, gain, evidence."""
    rule = RULES.get(finding.rule)
    lines = (
        [f"{tr('Rule')}: {tr(rule.title)}", f"{tr('When')}: {rule.condition}", f"{tr('Source')}: {rule.source}"]
        if rule
        else []
    )
    if finding.gain is not None:
        estimated = tr("estimated from histograms, ~") if finding.gain.estimated else tr("exact or measured")
        lines.append(f"{tr('Predicted')}: {finding.gain.text()} ({finding.gain.of}; {estimated})")
    lines += [f"{name}: {value}" for name, value in finding.evidence]
    return "\n".join(lines)


class FindingView(QWidget):
    """Summary, what to do, why; Apply, Dismiss and Copy. Enter applies while it has the focus."""

    apply_asked = Signal(object)
    dismiss_asked = Signal(object)
    place_asked = Signal(str)
    """Id of the panel in which to act."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.finding: Finding | None = None
        self._applied: Applied | None = None
        self._dismissed = False
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.mark = ThemedLabel("", "small")
        self.summary = _paragraph(bold=True)
        self.action = _paragraph()
        self.why = _paragraph("muted")
        self.gain = ElidedLabel()
        self.apply = QPushButton(tr("Apply"))
        self.apply.clicked.connect(self._on_apply)
        self.dismiss = self._flat(tr("Dismiss"), tr("Set this finding aside while the model is open"))
        self.dismiss.clicked.connect(self._on_dismiss)
        self.copy = self._flat(tr("Copy"), tr("Copy the finding with its evidence as text"))
        self.copy.clicked.connect(self._on_copy)
        gap = theme().px(4)
        head = QHBoxLayout()
        head.setSpacing(theme().px(8))
        head.addWidget(self.mark, 0, Qt.AlignmentFlag.AlignTop)
        head.addWidget(self.summary, 1)
        foot = QHBoxLayout()
        foot.setSpacing(gap)
        foot.addWidget(self.gain, 1)
        foot.addWidget(self.copy)
        foot.addWidget(self.dismiss)
        foot.addWidget(self.apply)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, gap, 0, gap)
        column.setSpacing(theme().px(2))
        column.addLayout(head)
        column.addWidget(self.action)
        column.addWidget(self.why)
        column.addLayout(foot)

    @staticmethod
    def _flat(text: str, help_text: str) -> QPushButton:
        button = QPushButton(text)
        button.setProperty("role", "flat")
        button.setToolTip(help_text)
        return button

    def show_finding(self, finding: Finding, applied: Applied | None = None, dismissed: bool = False) -> None:
        """Show a finding; `applied` where its edit was made, `dismissed` where it was set aside."""
        self.finding, self._applied, self._dismissed = finding, applied, dismissed
        self.mark.setText(tr("applied") if applied is not None else MARKS[finding.severity])
        self.mark.set_role("better" if applied is not None else ROLES[finding.severity])
        self.mark.setToolTip(f"{tr(finding.severity)}: {tr(SEVERITIES[finding.severity])}")
        self.summary.setText(finding.summary)
        others = tr("{n} other layers too.").format(n=finding.others) if finding.others else ""
        self.action.setText(f"{finding.action} {others}".strip())
        self.why.setText(finding.why)
        of = f", {finding.gain.of}" if finding.gain is not None and applied is None else ""
        self.gain.set_full_text(f"{gain_words(finding, applied)}{of}")
        words = help_words(finding)
        for widget in (self.summary, self.action, self.why, self.gain):
            widget.setToolTip(words)
        self.setAccessibleName(f"{tr('Finding')}: {finding.summary}")
        self.setAccessibleDescription(finding.text())
        acts = finding.edit is not None or bool(finding.place)
        self.apply.setVisible(acts and applied is None)
        self.apply.setText(tr("Apply") if finding.edit is not None else tr("Go there"))
        if finding.edit is not None:
            self.apply.setToolTip(
                f"{finding.edit.label}\n{tr('One step that can be undone; its gain is then measured')}"
            )
        else:
            self.apply.setToolTip(tr("Open the panel in which this is chosen"))
        self.apply.setAccessibleName(f"{self.apply.text()}: {finding.edit.label if finding.edit else finding.action}")
        self.dismiss.setText(tr("Restore") if dismissed else tr("Dismiss"))
        self.dismiss.setVisible(applied is None)

    def keyPressEvent(self, event: object) -> None:
        """Enter applies."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.apply.isVisibleTo(self):  # type: ignore[attr-defined]
            self._on_apply()
            return
        super().keyPressEvent(event)  # type: ignore[arg-type]

    def _on_apply(self) -> None:
        if self.finding is None:
            return
        if self.finding.edit is not None:
            self.apply_asked.emit(self.finding)
        elif self.finding.place:
            self.place_asked.emit(self.finding.place)

    def _on_dismiss(self) -> None:
        if self.finding is not None:
            self.dismiss_asked.emit(self.finding)

    def _on_copy(self) -> None:
        if self.finding is not None:
            words = self.finding.text()
            if self._applied is not None:
                words += f"\n{tr('Measured')}: {measured_words(self._applied)}"
            QApplication.clipboard().setText(words)


def _paragraph(role: str = "", bold: bool = False) -> ThemedLabel:
    label = ThemedLabel("", "normal", role)
    label.set_bold(bold)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    return label


def muted() -> ThemedLabel:
    """Return a wrapped label in the quiet colour."""
    return _paragraph("muted")


def go_to_panel(widget: QWidget, name: str) -> None:
    """Bring a panel of the widget's window to the front; nothing happens where it stands alone."""
    show = getattr(widget.window(), "show_panel", None)
    if show is not None:
        show(name)
