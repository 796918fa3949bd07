"""The chart of runs and searched recipes: accuracy against size, latency, bit operations or bits."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QButtonGroup, QCheckBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.plots.scatter import NEAR_POINTS, Key, RunPoint, RunScatter
from qstudio.ui.runs.run_points import AXES, RunPoints, difference_words
from qstudio.ui.search.budget import BudgetSlider
from qstudio.ui.text import tr


class RunChart(QWidget):
    """The budget slider, and a point for each run and each recipe of the front.

    Click selects, Ctrl+click a second one shows what differs, double-click restores the recipe.
    """

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._seen: tuple[object, ...] = ()
        self._searched: object = None
        self._is_stale = True
        self._points = RunPoints(session)
        self.axis = "size"
        self.budget = BudgetSlider(session, bridge)
        self.chart = RunScatter(tr("size, KB"), tr("top-1, %"))
        self.chart.setToolTip(
            tr(
                "Up is better, left is better; the line joins what nothing beats. Click selects, Ctrl+click a second\n"
                "one shows what differs, double-click takes the recipe.\n"
                "Hollow: simulated. Filled: the exported file, measured."
            )
        )
        self.words = ElidedLabel()
        self.words.setProperty("role", "muted")
        self.words.setContentsMargins(12, 0, 12, 4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.budget)
        layout.addLayout(self._axis_bar())
        layout.addWidget(self.chart, 1)
        layout.addWidget(self.words)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._draw)
        self.chart.run_selected.connect(self._on_run_clicked)
        self.chart.run_restored.connect(session.restore_run)
        self.chart.point_selected.connect(self._on_point_clicked)
        self.chart.point_taken.connect(self._on_point_taken)
        self.chart.second_selected.connect(self._on_second)
        self.chart.notice_posted.connect(session.notice_posted.emit)
        bridge.runs_changed.connect(self._on_runs_changed)
        bridge.search_changed.connect(self._on_search_changed)
        bridge.recipe_changed.connect(self._on_changed)
        bridge.float_metrics_changed.connect(self._on_changed)
        bridge.model_changed.connect(self._on_changed)
        bridge.run_selected.connect(self._on_run_selected)
        self._draw()

    def _axis_bar(self) -> QHBoxLayout:
        caption = QLabel(tr("accuracy against"))
        caption.setProperty("role", "muted")
        bar = QHBoxLayout()
        bar.setContentsMargins(12, 4, 8, 0)
        bar.addWidget(caption)
        self.buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        for axis in AXES.values():
            button = QPushButton(tr(axis.title))
            button.setProperty("role", "tab")
            button.setCheckable(True)
            button.setChecked(axis.id == self.axis)
            button.setToolTip(tr(axis.help))
            button.setAccessibleName(f"{tr('Accuracy against')} {tr(axis.title)}")
            self._group.addButton(button)
            bar.addWidget(button)
            self.buttons[axis.id] = button
        self._group.buttonClicked.connect(self._on_axis_clicked)
        bar.addStretch(1)
        self.near = QCheckBox(tr("top {n} points").format(n=f"{NEAR_POINTS:g}"))
        self.near.setToolTip(tr("Show only what loses at most so many points against the best"))
        self.near.toggled.connect(self.chart.set_near)
        bar.addWidget(self.near)
        return bar

    # ---- the person

    def _on_axis_clicked(self, _button: object) -> None:
        self.axis = next(name for name, button in self.buttons.items() if button.isChecked())
        self._draw()

    def _on_run_clicked(self, number: int) -> None:
        self._session.select_run(number)
        self._show_words()

    def _on_point_clicked(self, _recipe_hash: str) -> None:
        self._show_words()

    def _on_point_taken(self, recipe_hash: str) -> None:
        point = self._points.point(recipe_hash)
        if point is not None:
            self._session.search.take(point)

    def _on_second(self, _key: object) -> None:
        self._show_words()

    def _show_words(self) -> None:
        """Say what is selected: one point's figures, or what differs between two."""
        chosen = self.chart.chosen
        drawn = {point.key: point for point in self.chart.points if point.key is not None}
        there = [key for key in chosen if key in drawn]
        self.words.setToolTip("")
        if not there:
            self.words.setText("")
        elif len(there) == 1:
            detail = drawn[there[0]].detail.split("\n")
            self.words.setText(",  ".join(detail[:-1]))
        else:
            first, second = there
            short, long = difference_words(self._points.bits(first), self._points.bits(second), self._names(there))
            moved = f"{drawn[second].y - drawn[first].y:+.2f} {tr('points')}"
            self.words.setText(f"{moved},  {short}")
            self.words.setToolTip(long)

    def _names(self, keys: list[Key]) -> tuple[str, str]:
        names = []
        for kind, value in keys:
            if kind == "run":
                names.append(self._session.run(int(value)).title)
            else:
                point = self._points.point(str(value))
                names.append(self._session.search.point_words(point) if point is not None else "")
        return names[0], names[1]

    # ---- following the session

    def _on_runs_changed(self, runs: tuple[Run, ...]) -> None:
        """Draw again when a run brought something new; progress alone moves no point."""
        seen = tuple(run.result for run in runs)
        if len(seen) != len(self._seen) or any(a is not b for a, b in zip(seen, self._seen, strict=True)):
            self._seen = seen
            self._on_changed()

    def _on_search_changed(self, _running: object) -> None:
        """Draw again when the search brought something new; show the first front along its own axis."""
        result = self._session.search.result
        if result is self._searched:
            return
        if result is not None and self._searched is None:
            wanted = next((axis.id for axis in AXES.values() if axis.resource == result.axis), self.axis)
            self.axis = wanted
            self.buttons[wanted].setChecked(True)
        self._searched = result
        self._on_changed()

    def _on_changed(self, _value: object = None) -> None:
        self._is_stale = True
        if self.isVisible():
            self._timer.start()

    def _on_run_selected(self, number: int | None) -> None:
        if len(self.chart.chosen) < 2 or number is None or ("run", number) not in self.chart.chosen:
            self.chart.set_selected(number)
        self._show_words()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what happened while it was not seen."""
        super().showEvent(event)
        if self._is_stale:
            self._draw()

    def points(self) -> tuple[RunPoint, ...]:
        """Return the points for the chosen axis: the float model, runs of the open model and data, the front."""
        return self._points.all(AXES[self.axis])

    def _draw(self) -> None:
        self._is_stale = False
        metrics = self._session.float_metrics
        labelled = metrics is None or metrics.top1 is not None
        self.chart.set_points(
            self.points(),
            tr(AXES[self.axis].label),
            tr("top-1, %") if labelled else tr("agreement, %"),
            tr("No runs yet: Run PTQ puts the first point here, a search a whole front"),
        )
        chosen = self.chart.chosen
        if not chosen and self._session.selected_run is not None:
            self.chart.set_selected(self._session.selected_run)
        self._show_words()
