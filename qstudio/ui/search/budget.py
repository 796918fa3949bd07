"""The budget slider: which recipe of a search's front stands, while it is dragged."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt, QTimer
from PySide6.QtGui import QFocusEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

from qstudio.core.search import RESOURCES
from qstudio.core.search_result import SearchPoint
from qstudio.core.search_settings import DAMAGES
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.runs.figures import rate
from qstudio.ui.runs.run_points import amount_text, metrics_difference
from qstudio.ui.text import format_percent, tr

STEPS = 1000
"""Positions of the slider between the lowest and the highest budget."""

SETTLE_MS = 600
"""Keys and the wheel that follow each other within this are one edit."""


class _Slider(QSlider):
    """A slider whose keys end an edit when it loses the focus."""

    def __init__(self, settled: QTimer) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self._settled = settled

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """End the edit."""
        if self._settled.isActive():
            self._settled.start(0)
        super().focusOutEvent(event)


class BudgetSlider(QWidget):
    """Slides over the front of the latest search; one drag is one undoable step."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: SearchPoint | None = None
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(session.end_drag)
        self.slider = _Slider(self._settled)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 20)
        self.slider.setSingleStep(STEPS // 50)
        self.slider.setAccessibleName(tr("Budget"))
        self.slider.valueChanged.connect(self._on_value)
        self.slider.sliderReleased.connect(self._on_released)
        caption = QLabel(tr("budget"))
        caption.setProperty("role", "muted")
        caption.setBuddy(self.slider)
        self.value = QLabel()
        self.words = ElidedLabel()
        self.words.setProperty("role", "muted")
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(caption)
        row.addWidget(self.slider, 1)
        row.addWidget(self.value)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 12, 0)
        layout.setSpacing(2)
        layout.addLayout(row)
        layout.addWidget(self.words)
        bridge.search_changed.connect(self._on_search)
        bridge.recipe_changed.connect(self._on_recipe)
        self._on_search()

    # ---- the person

    def _budget(self, position: int) -> float | None:
        ends = self._session.search.budgets
        return None if ends is None else ends[0] + (ends[1] - ends[0]) * position / STEPS

    def _on_value(self, position: int) -> None:
        budget = self._budget(position)
        if budget is None:
            return
        point = self._session.search.at_budget(budget)
        if point is not None and point.recipe != self._session.recipe:
            self._session.search.slide(budget)
        self._show(point)
        if not self.slider.isSliderDown():
            self._settled.start(SETTLE_MS)

    def _on_released(self) -> None:
        self._settled.stop()
        self._session.end_drag()

    # ---- following the session

    def _on_search(self, _value: object = None) -> None:
        search = self._session.search
        ends = search.budgets
        self.slider.setEnabled(ends is not None)
        if ends is None:
            words = tr("No front yet: the Search tab computes the best recipe for every budget")
            self.slider.setToolTip(words)
            self.value.setText("")
            self.words.setText(tr("The front is being computed") if search.running else words)
            return
        result = search.result
        assert result is not None, "there is a front"
        words = tr("Most that is allowed of {r}: {u}. The best recipe of the front within it becomes the current one.")
        self.slider.setToolTip(words.format(r=result.axis.replace("_", " "), u=tr(RESOURCES[result.axis])))
        self._on_recipe()

    def _on_recipe(self, _recipe: object = None) -> None:
        """Stand where the present recipe is on the front; say so where it is not."""
        search = self._session.search
        ends = search.budgets
        if ends is None or self.slider.isSliderDown():
            return
        now = search.at_budget(self._budget(self.slider.value()) or 0.0)
        recipe = self._session.recipe
        if now is None or now.recipe != recipe:
            now = search.point_of(recipe, front=True)
            if now is not None and now.budget is not None:
                span = ends[1] - ends[0]
                with QSignalBlocker(self.slider):
                    self.slider.setValue(round(STEPS * (now.budget - ends[0]) / span) if span > 0 else 0)
        self._show(now)

    def _show(self, point: SearchPoint | None) -> None:
        """Show a point of the front: what it takes, what was predicted and measured."""
        self._shown = point
        search = self._session.search
        result = search.result
        if result is None:
            return
        if point is None:
            self.value.setText("")
            self.words.setText(tr("The recipe as it stands is not on the front; slide to take one that is"))
            return
        self.value.setText(amount_text(result.axis, point.amount(result.axis)))
        predicted = "–" if point.predicted is None else f"{point.predicted:.3g}"
        measured = tr("not measured yet") if point.damage is None else f"{point.damage:.3g}"
        accuracy = ""
        if rate(point.measured) is not None:
            lost = metrics_difference(result.float, point.measured)
            accuracy = f"{format_percent(rate(point.measured))} ({lost})"
        correlation = ""
        if result.spearman_damage is not None:
            correlation = tr("rank correlation {r}").format(r=f"{result.spearman_damage:.2f}")
        stale = f"{tr('Stale')}: {tr(search.stale)}" if search.stale else ""
        damage = tr("predicted {p}, measured {m} {d}").format(p=predicted, m=measured, d=result.damage)
        self.words.setText(",  ".join(part for part in (stale, accuracy, damage, correlation) if part))
        samples = f"{result.float.samples:,}" if result.float else "0"
        told = (
            tr("Accuracy: simulated on {n} samples").format(n=samples),
            f"{result.damage}: {tr(DAMAGES[result.damage])}",
            tr("Predicted: the sum over layers, each measured on its own. Measured: the whole recipe."),
            tr("Rank correlation: Spearman's, of predicted and measured over the front; 0.8 and more is good."),
        )
        self.words.setToolTip("\n".join(told))
