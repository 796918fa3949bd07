"""One refinement: its switch, what it is for, and, on demand, formula, source and parameters."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from qstudio.core.refinement import Parameter, Refinement
from qstudio.core.training import TRAINED_REFINEMENTS
from qstudio.ui.number_box import NumberBox
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

STAGE_WORDS = {
    "import": "while the model is read",
    "network": "before calibration",
    "values": "after calibration",
}


def is_switch(parameter: Parameter) -> bool:
    """Return whether a parameter is on or off."""
    return parameter.whole and (parameter.low, parameter.high) == (0, 1)


class RefinementRow(QWidget):
    """A switch with a title; Details opens formula, source and parameters."""

    switched = Signal(str, bool)
    """Id, on."""
    parameter_chosen = Signal(str, str, float)
    """Id, name of the parameter, value."""
    parameter_finished = Signal()
    """What was typed or stepped so far is one step."""

    def __init__(self, refinement: Refinement, exclusive: str = "", parent: QWidget | None = None) -> None:
        """`exclusive` names the other refinements that this one takes the place of."""
        super().__init__(parent)
        self.refinement = refinement
        self.switch = QCheckBox(tr(refinement.title))
        self.switch.setAccessibleName(tr(refinement.title))
        self.switch.toggled.connect(self._on_switched)
        self.scope = QLabel(tr("PTQ and training") if refinement.id in TRAINED_REFINEMENTS else tr("PTQ only"))
        self.scope.setProperty("role", "muted")
        told = (
            tr("Training takes it over too.") if refinement.id in TRAINED_REFINEMENTS else tr("Training replaces it.")
        )
        self.scope.setToolTip(f"{tr('Runs')} {tr(STAGE_WORDS[refinement.stage])}. {told}")
        self.changed = QLabel()
        self.changed.setProperty("role", "quantized")
        self.changed.setTextFormat(Qt.TextFormat.PlainText)
        self.details = QPushButton(tr("Details"))
        self.details.setProperty("role", "flat")
        self.details.setCheckable(True)
        self.details.setToolTip(tr("Formula, source and parameters"))
        self.details.setAccessibleName(f"{tr('Details of')} {tr(refinement.title)}")
        self.summary = QLabel(tr(refinement.summary) + (f" {exclusive}" if exclusive else ""))
        self.summary.setWordWrap(True)
        self.summary.setProperty("role", "muted")
        self.boxes: dict[str, NumberBox] = {}
        self.checks: dict[str, QCheckBox] = {}
        self._more = self._build_details()
        self._more.hide()
        self.details.toggled.connect(self._more.setVisible)
        head = QHBoxLayout()
        head.setSpacing(8)
        head.addWidget(self.switch)
        head.addWidget(self.changed)
        head.addStretch(1)
        head.addWidget(self.scope)
        head.addWidget(self.details)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(2)
        layout.addLayout(head)
        body = QVBoxLayout()
        body.setContentsMargins(theme().px(24), 0, 0, 0)
        body.setSpacing(6)
        body.addWidget(self.summary)
        body.addWidget(self._more)
        layout.addLayout(body)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()

    def _build_details(self) -> QWidget:
        page = QWidget()
        grid = QGridLayout(page)
        grid.setContentsMargins(0, 0, 0, 4)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(2, 1)
        for caption, text in ((tr("Formula"), self.refinement.formula), (tr("Source"), self.refinement.source)):
            value = QLabel(text)
            value.setWordWrap(True)
            value.setTextFormat(Qt.TextFormat.PlainText)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            row = grid.rowCount()
            grid.addWidget(_muted(caption), row, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(value, row, 1, 1, 2)
        for parameter in self.refinement.parameters:
            row = grid.rowCount()
            widget = self._widget(parameter)
            label = _muted(tr(parameter.title))
            label.setBuddy(widget)
            label.setToolTip(tr(parameter.help))
            words = _muted(tr(parameter.help))
            words.setWordWrap(True)
            grid.addWidget(label, row, 0)
            grid.addWidget(widget, row, 1, Qt.AlignmentFlag.AlignLeft)
            grid.addWidget(words, row, 2)
        return page

    def _widget(self, parameter: Parameter) -> QWidget:
        widget: QWidget
        if is_switch(parameter):
            widget = self.checks[parameter.name] = check = QCheckBox()
            check.toggled.connect(self._on_checked)
        else:
            widget = self.boxes[parameter.name] = box = NumberBox(parameter.low, parameter.high, parameter.whole)
            box.valueChanged.connect(self._on_number)
            box.editingFinished.connect(self.parameter_finished)
            box.setFixedWidth(theme().px(104))
        widget.setObjectName(parameter.name)
        widget.setAccessibleName(f"{tr(self.refinement.title)}: {tr(parameter.title)}")
        return widget

    def _on_theme_changed(self, _palette: object = None) -> None:
        self.switch.setFont(theme().font("normal", bold=True))
        for box in self.boxes.values():
            box.setFixedWidth(theme().px(104))

    def show_choice(self, text: str, blocked: str) -> None:
        """Show what a recipe says.

        Args:
            text: The refinement with its parameters; empty when it is off.
            blocked: Why it cannot be switched now; empty when it can.
        """
        on = bool(text)
        values = self.refinement.settings(text or self.refinement.id)
        with QSignalBlocker(self.switch):
            self.switch.setChecked(on)
        self.switch.setEnabled(not blocked)
        self.switch.setToolTip(
            blocked or f"{tr(self.refinement.summary)}\n{self.refinement.formula}\n{self.refinement.source}"
        )
        altered = [p for p in self.refinement.parameters if values[p.name] != p.default]
        self.changed.setText(", ".join(_setting(p, values[p.name]) for p in altered))
        for parameter in self.refinement.parameters:
            widget: QWidget
            if parameter.name in self.boxes:
                widget = self.boxes[parameter.name]
                with QSignalBlocker(widget):
                    self.boxes[parameter.name].setValue(values[parameter.name])
            else:
                widget = self.checks[parameter.name]
                with QSignalBlocker(widget):
                    self.checks[parameter.name].setChecked(bool(values[parameter.name]))
            bounds = tr("{low} to {high}, default {default}").format(
                low=f"{parameter.low:g}", high=f"{parameter.high:g}", default=f"{parameter.default:g}"
            )
            if is_switch(parameter):
                bounds = tr("default on") if parameter.default else tr("default off")
            told = f"{tr(parameter.help)} ({bounds})"
            widget.setEnabled(on)
            widget.setToolTip(told if on else f"{told}\n{tr('Switch the refinement on first')}")

    def _on_switched(self, on: bool) -> None:
        self.switched.emit(self.refinement.id, on)

    def _on_number(self, value: float) -> None:
        self.parameter_chosen.emit(self.refinement.id, self.sender().objectName(), value)

    def _on_checked(self, on: bool) -> None:
        self.parameter_chosen.emit(self.refinement.id, self.sender().objectName(), float(on))
        self.parameter_finished.emit()


def _setting(parameter: Parameter, value: float) -> str:
    """Return "iterations 2,000" or "QDrop off"."""
    if is_switch(parameter):
        return f"{tr(parameter.title)} {tr('on') if value else tr('off')}"
    return f"{tr(parameter.title)} {value:,.0f}" if parameter.whole else f"{tr(parameter.title)} {value:g}"


def _muted(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "muted")
    return label
