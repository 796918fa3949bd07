"""The settings of a training as a compact form; each value goes to the session at once."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QCheckBox, QFrame, QGridLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from qstudio.core.errors import UserError
from qstudio.core.training import Training
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.inspector.segments import Segment, Segments
from qstudio.ui.number_box import NumberBox
from qstudio.ui.text import tr
from qstudio.ui.theme import theme
from qstudio.ui.training.fields import GROUPS, METHOD, METHODS, Field, Group, blocked_fields

COLUMNS = 2
"""Fields beside each other."""


class TrainingForm(QFrame):
    """Every setting of a training with its explanation; what has no effect is disabled and says why."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "surface")
        self._labels: dict[str, QLabel] = {}
        self._headings: list[QLabel] = []
        self._helps: dict[str, str] = {}
        self.boxes: dict[str, NumberBox] = {}
        self.segments: dict[str, Segments] = {}
        self.flip = QCheckBox(tr("left to right"))
        self.progressive = QLineEdit()
        self.method_words = QLabel()
        self.method_words.setWordWrap(True)
        self.method_words.setProperty("role", "muted")
        self.method_words.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.message = QLabel()
        self.message.setProperty("role", "worse")
        self.message.setWordWrap(True)
        self.message.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 4, 12, 12)
        layout.setSpacing(8)
        layout.addWidget(self._segments(METHOD))
        layout.addWidget(self.method_words)
        layout.addWidget(self.message)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(6)
        for column in range(COLUMNS):
            self._grid.setColumnStretch(2 * column + 1, 1)
        for group in GROUPS:
            self._add_group(group)
        layout.addLayout(self._grid)
        layout.addStretch(1)
        bridge.training_changed.connect(self._on_training_changed)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()
        self.show_training(session.training)

    # ---- making

    def _add_group(self, group: Group) -> None:
        heading = QLabel(tr(group.title))
        self._headings.append(heading)
        row = self._grid.rowCount()
        heading.setContentsMargins(0, theme().px(8) if row > 1 else 0, 0, 0)
        self._grid.addWidget(heading, row, 0, 1, 2 * COLUMNS)
        for number, field in enumerate(group.fields):
            at, column = row + 1 + number // COLUMNS, 2 * (number % COLUMNS)
            label = QLabel(tr(field.title))
            label.setProperty("role", "muted")
            label.setToolTip(tr(field.help))
            widget = self._widget(field)
            label.setBuddy(widget)
            self._labels[field.name] = label
            self._helps[field.name] = tr(field.help)
            self._grid.addWidget(label, at, column)
            self._grid.addWidget(widget, at, column + 1)

    def _widget(self, field: Field) -> QWidget:
        widget: QWidget
        if field.choices:
            return self._segments(field)
        if field.name == "flip":
            widget = self.flip
            self.flip.toggled.connect(self._on_flip)
        elif field.name == "progressive_bits":
            widget = self.progressive
            self.progressive.setPlaceholderText(tr("none"))
            self.progressive.editingFinished.connect(self._on_progressive)
        else:
            low = 0.0 if field.name == "samples" else field.low
            widget = self.boxes[field.name] = NumberBox(low, field.high, field.whole, tr(field.lowest_text))
            self.boxes[field.name].valueChanged.connect(self._on_number)
        widget.setObjectName(field.name)
        widget.setAccessibleName(tr(field.title))
        widget.setToolTip(tr(field.help))
        return widget

    def _segments(self, field: Field) -> Segments:
        choices = tuple(Segment(choice.value, tr(choice.title), tr(choice.help)) for choice in field.choices)
        widget = self.segments[field.name] = Segments(tr(field.title), choices)
        widget.setObjectName(field.name)
        widget.chosen.connect(self._on_choice)
        return widget

    def _on_theme_changed(self, _palette: object = None) -> None:
        for heading in self._headings:
            heading.setFont(theme().font("normal", bold=True))
        lines = 4 * self.fontMetrics().lineSpacing()
        self.method_words.setMinimumHeight(lines)  # the longest text: what stands below does not move

    # ---- showing

    def _on_training_changed(self, training: Training) -> None:
        self.message.hide()
        self.show_training(training)

    def show_training(self, training: Training) -> None:
        """Show these settings."""
        for name, box in self.boxes.items():
            with QSignalBlocker(box):
                box.setValue(getattr(training, name) or 0)
        for name, segments in self.segments.items():
            segments.set_value(getattr(training, name))
        with QSignalBlocker(self.flip):
            self.flip.setChecked(training.flip)
        with QSignalBlocker(self.progressive):
            self.progressive.setText(", ".join(map(str, training.progressive_bits)))
        words = next((choice.help for choice in METHODS if choice.value == training.method), "")
        self.method_words.setText(tr(words))
        blocked = blocked_fields(training)
        for name, help_text in self._helps.items():
            reason = tr(blocked[name]) if name in blocked else ""
            if name in self.segments:
                self.segments[name].set_blocked(reason)
            elif name in self.boxes:
                self.boxes[name].setEnabled(not reason)
                self.boxes[name].setToolTip(f"{help_text}\n{reason}" if reason else help_text)
            self._labels[name].setEnabled(not reason)

    # ---- choosing

    def _choose(self, **values: Any) -> None:
        if "epochs" in values:  # what is counted in epochs cannot outlast them
            for name in ("warmup_epochs", "pruning_steps"):
                values[name] = min(getattr(self._session.training, name), values["epochs"])
        try:
            self._session.set_training(**values)
        except UserError as error:
            self.show_training(self._session.training)
            self.message.setText(error.sentence())
            self.message.show()
        else:
            self.message.hide()

    def _on_number(self, value: float) -> None:
        name = self.sender().objectName()
        if name == "samples":
            self._choose(samples=round(value) or None)
        else:
            self._choose(**{name: round(value) if self.boxes[name].decimals() == 0 else value})

    def _on_choice(self, value: str) -> None:
        self._choose(**{self.sender().objectName(): value})

    def _on_flip(self, on: bool) -> None:
        self._choose(flip=on)

    def _on_progressive(self) -> None:
        parts = self.progressive.text().replace(",", " ").split()
        if not all(part.isdigit() for part in parts):
            self.show_training(self._session.training)
            self.message.setText(tr("Via bits: write falling bit widths with commas, such as 8, 4."))
            self.message.show()
            return
        self._choose(progressive_bits=tuple(int(part) for part in parts))
