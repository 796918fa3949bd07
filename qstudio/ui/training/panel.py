"""The training panel: start, go on, stop, and everything a training is asked with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from qstudio.core.refinement import REFINEMENTS
from qstudio.core.training import TRAINED_REFINEMENTS
from qstudio.session.refinements import chosen_refinements
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.style import set_role
from qstudio.ui.text import tr
from qstudio.ui.theme import theme
from qstudio.ui.training.form import TrainingForm

if TYPE_CHECKING:
    from qstudio.ui.top_bar import ActionButton


class TrainingPanel(QFrame):
    """Buttons, what stands in the way or can be resumed, and the settings."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "surface")
        self._start: ActionButton | None = None
        self._resume: ActionButton | None = None
        self.form = TrainingForm(session, bridge)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.words.setProperty("role", "muted")
        self.buttons = QHBoxLayout()
        self.buttons.setSpacing(8)
        self.buttons.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidget(self.form)
        area.setAccessibleName(tr("Settings of the training"))
        head = QVBoxLayout()
        head.setContentsMargins(12, 8, 12, 0)
        head.setSpacing(6)
        head.addLayout(self.buttons)
        head.addWidget(self.words)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(head)
        layout.addWidget(area, 1)
        for signal in (
            bridge.model_changed,
            bridge.dataset_changed,
            bridge.recipe_changed,
            bridge.options_changed,
            bridge.training_changed,
            bridge.runs_changed,
        ):
            signal.connect(self._on_changed)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()
        self._on_changed()

    def add_buttons(self, start: ActionButton, resume: ActionButton, best: ActionButton) -> None:
        """Put the buttons of the actions that belong here at the top."""
        for number, button in enumerate((start, resume, best)):
            self.buttons.insertWidget(number, button)
        self._start, self._resume = start, resume
        self._on_changed()

    def _emphasise(self, resume: bool) -> None:
        """Make the button stand out that loses nothing: resuming, where there is something to resume."""
        if self._start is None or self._resume is None:
            return
        for button, primary in ((self._start, not resume), (self._resume, resume)):
            role = "primary" if primary else ""
            set_role(button, role)

    def _on_theme_changed(self, _palette: object = None) -> None:
        self.words.setMinimumHeight(2 * self.fontMetrics().lineSpacing())  # what stands below does not move

    def _on_changed(self, _value: object = None) -> None:
        running = self._session.running is not None
        self._emphasise(not running and self._session.checkpoint is not None)
        text = self._tell()
        if text != self.words.text():
            self.words.setText(text)

    def _tell(self) -> str:
        """Return what stands in the way, what can be resumed, and what the recipe gives to the training."""
        session = self._session
        if session.running is not None:
            return tr("A run is in progress. Cancel keeps the best and the last whole epoch.")
        if session.train_blocked:
            return tr(session.train_blocked) + "."
        chosen = chosen_refinements(session.recipe)
        left = session.checkpoint
        if left is not None:
            words = tr("A checkpoint after epoch {e} is there: resume it, or start anew, which discards it.")
            parts = [words.format(e=left.epoch)]
        else:
            parts = [tr("Trains at the recipe's bits, from the ranges of PTQ."), self._tell_batchnorm("fold" in chosen)]
        other = [REFINEMENTS[name].title for name in chosen if name not in TRAINED_REFINEMENTS]
        if other:
            parts.append(tr("Left out, as training does their work: {names}.").format(names=", ".join(other)))
        return " ".join(parts)

    def _tell_batchnorm(self, folds: bool) -> str:
        chosen = self._session.training.batchnorm
        if chosen == "folded":
            return tr("BatchNorm is folded first.") if folds else tr("BatchNorm keeps its statistics.")
        if chosen == "frozen":
            return tr("BatchNorm keeps its statistics and is folded at the end.")
        share = 100 * self._session.training.batchnorm_freeze
        return tr("BatchNorm is live for {p:g} % of the steps, then frozen, and folded at the end.").format(p=share)
