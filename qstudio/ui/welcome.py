"""The welcome page: sample models, recent files, open."""

from __future__ import annotations

import os

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from qstudio.core.resources import SampleModel, sample_models
from qstudio.ui.settings import recent_files
from qstudio.ui.text import format_count, format_percent, tr
from qstudio.ui.theme import theme

CARD_COLUMNS = 2


class SampleCard(QFrame):
    """A sample model to click on."""

    chosen = Signal(object)

    def __init__(self, sample: SampleModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.sample = sample
        self.setProperty("role", "card")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName(f"{tr('Sample model')} {sample.title}")
        self.setToolTip(tr("Open this model with its data, digits"))
        title = QLabel(sample.title)
        title.setFont(theme().font("normal", bold=True))
        summary = QLabel(sample.summary)
        summary.setWordWrap(True)
        facts = [sample.path.name]
        if sample.parameters is not None:
            facts.append(f"{format_count(sample.parameters)} {tr('parameters')}")
        if sample.float_top1 is not None:
            facts.append(f"{tr('float')} {format_percent(sample.float_top1)}")
        note = QLabel(" · ".join(facts))
        note.setProperty("role", "muted")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 12, 16, 12)
        layout.setSpacing(6)
        layout.addWidget(title)
        layout.addWidget(summary, 1)
        layout.addWidget(note)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Open the sample when the button comes up on the card."""
        if event.button() == Qt.MouseButton.LeftButton and self.rect().contains(event.position().toPoint()):
            self.chosen.emit(self.sample)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Open the sample with Return or Space."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.chosen.emit(self.sample)
            return
        super().keyPressEvent(event)


class WelcomePage(QScrollArea):
    """What is shown before a model is open."""

    sample_chosen = Signal(object)
    recent_chosen = Signal(str)
    open_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setAccessibleName(tr("Welcome"))
        page = QWidget()
        self.setWidget(page)
        column = QVBoxLayout()
        column.setSpacing(8)
        self._title = QLabel(tr("QStudio"))
        column.addWidget(self._title)
        subtitle = QLabel(
            tr("See what every layer's numbers look like, choose how each is quantized, read what it costs.")
        )
        subtitle.setProperty("role", "muted")
        subtitle.setWordWrap(True)
        column.addWidget(subtitle)
        column.addSpacing(16)
        buttons = QHBoxLayout()
        self.open_button = QPushButton(tr("Open a model…"))
        self.open_button.setProperty("role", "primary")
        self.open_button.setToolTip(tr("An .onnx file, or a .pt2 file from torch.export (Ctrl+O)"))
        self.open_button.clicked.connect(self.open_wanted)
        buttons.addWidget(self.open_button)
        hint = QLabel(tr("or drop an .onnx or .pt2 file, or a .qsproj project, anywhere on the window"))
        hint.setProperty("role", "muted")
        buttons.addWidget(hint)
        buttons.addStretch(1)
        column.addLayout(buttons)
        column.addSpacing(24)
        self._headings = [QLabel(tr("Start with a sample model")), QLabel(tr("Opened last"))]
        column.addWidget(self._headings[0])
        grid = QGridLayout()
        grid.setSpacing(12)
        self.cards: list[SampleCard] = []
        for number, sample in enumerate(sample_models()):
            card = SampleCard(sample)
            card.chosen.connect(self.sample_chosen)
            grid.addWidget(card, number // CARD_COLUMNS, number % CARD_COLUMNS)
            self.cards.append(card)
        for position in range(CARD_COLUMNS):
            grid.setColumnStretch(position, 1)
        column.addLayout(grid)
        column.addSpacing(24)
        column.addWidget(self._headings[1])
        self._recent = QVBoxLayout()
        self._recent.setSpacing(2)
        column.addLayout(self._recent)
        column.addStretch(1)
        centre = QHBoxLayout(page)
        centre.setContentsMargins(24, 48, 24, 24)
        centre.addStretch(1)
        centre.addLayout(column, 6)
        centre.addStretch(1)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()
        self.refresh_recent()

    def _on_theme_changed(self, _palette: object = None) -> None:
        self._title.setFont(theme().font("large", bold=True))
        for heading in self._headings:
            heading.setFont(theme().font("normal", bold=True))

    def focus_first(self) -> None:
        """Put the focus on what a newcomer takes first."""
        (self.cards[0] if self.cards else self.open_button).setFocus()

    def refresh_recent(self) -> None:
        """List the files opened last; one that is gone is grey and says so."""
        while (item := self._recent.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        paths = recent_files()
        self._headings[1].setVisible(bool(paths))
        for path in paths:
            button = QPushButton(f"{os.path.basename(path)}    {os.path.dirname(path)}")
            button.setProperty("role", "flat")
            button.setProperty("path", path)
            button.setAccessibleName(f"{tr('Open')} {os.path.basename(path)}")
            there = os.path.exists(path)
            button.setEnabled(there)
            button.setToolTip(path if there else f"{path}\n{tr('This file is no longer there')}")
            button.clicked.connect(self._on_recent)
            self._recent.addWidget(button, 0, Qt.AlignmentFlag.AlignLeft)

    def _on_recent(self) -> None:
        sender = self.sender()
        if sender is not None:
            self.recent_chosen.emit(str(sender.property("path")))
