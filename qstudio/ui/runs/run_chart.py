"""The chart of runs: accuracy against size or against latency."""

from __future__ import annotations

from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.plots.scatter import RunPoint, RunScatter
from qstudio.ui.runs.figures import drop_text, latency_text, rate, same_recipe
from qstudio.ui.runs.methods import method_text
from qstudio.ui.text import format_bytes, format_percent, tr

AXES = ("size", "latency")


class RunChart(QWidget):
    """A point for each run; click selects, double-click restores its recipe."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._seen: tuple[object, ...] = ()
        self.axis = "size"
        self.chart = RunScatter(tr("size, KB"), tr("top-1, %"))
        self.chart.setToolTip(
            tr("Up is better, left is better. Click selects a run, double-click restores its recipe.")
        )
        caption = QLabel(tr("accuracy against"))
        caption.setProperty("role", "muted")
        bar = QHBoxLayout()
        bar.setContentsMargins(8, 4, 8, 0)
        bar.addWidget(caption)
        self.buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        for name, title, told in (
            ("size", tr("Size"), tr("Packed size of the quantized model")),
            ("latency", tr("Latency"), tr("Median time of one inference of the exported file, measured here")),
        ):
            button = QPushButton(title)
            button.setProperty("role", "tab")
            button.setCheckable(True)
            button.setChecked(name == self.axis)
            button.setToolTip(told)
            button.setAccessibleName(f"{tr('Accuracy against')} {title}")
            self._group.addButton(button)
            bar.addWidget(button)
            self.buttons[name] = button
        self._group.buttonClicked.connect(self._on_axis_clicked)
        bar.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(bar)
        layout.addWidget(self.chart, 1)
        self.chart.run_selected.connect(self._on_point_selected)
        self.chart.run_restored.connect(self._on_point_restored)
        self.chart.notice_posted.connect(session.notice_posted.emit)
        bridge.runs_changed.connect(self._on_runs_changed)
        bridge.recipe_changed.connect(self._on_recipe_changed)
        bridge.float_metrics_changed.connect(self._on_recipe_changed)
        bridge.model_changed.connect(self._on_recipe_changed)
        bridge.run_selected.connect(self._on_run_selected)
        self._draw()

    def _on_axis_clicked(self, _button: object) -> None:
        self.axis = "latency" if self.buttons["latency"].isChecked() else "size"
        self._draw()

    def _on_point_selected(self, number: int) -> None:
        self._session.select_run(number)

    def _on_point_restored(self, number: int) -> None:
        self._session.restore_run(number)

    def _on_runs_changed(self, runs: tuple[Run, ...]) -> None:
        """Draw again when a run brought something new; progress alone moves no point."""
        seen = tuple(run.result for run in runs)
        if len(seen) != len(self._seen) or any(a is not b for a, b in zip(seen, self._seen, strict=True)):
            self._seen = seen
            self._draw()

    def _on_recipe_changed(self, _value: object) -> None:
        self._draw()

    def _on_run_selected(self, number: int | None) -> None:
        self.chart.set_selected(number)

    def points(self) -> tuple[RunPoint, ...]:
        """Return the points for the chosen axis: runs of the open model and data, and the float model."""
        session = self._session
        if session.model is None or session.data_spec is None:
            return ()
        runs = [run for run in session.runs if run.model == session.model.path and run.data == session.data_spec.source]
        found: list[RunPoint] = []
        floats: list[RunPoint] = []
        for run in runs:
            result = run.result
            if result is None or result.size_bytes is None:
                continue
            cost = self._cost(run)
            for kind, metrics in (("measured", result.exported), ("simulated", result.simulated)):
                value = rate(metrics)
                if value is None or cost is None:
                    continue
                detail = (
                    f"{run.title}, {method_text(run)}: {format_percent(value)} {drop_text(result)}\n"
                    f"{format_bytes(result.size_bytes.quantized)}, {latency_text(result.latency_ms)}\n"
                    + tr("double-click restores its recipe")
                )
                found.append(
                    RunPoint(
                        run.id,
                        cost,
                        value,
                        "measured" if kind == "measured" else "simulated",
                        detail,
                        same_recipe(session, run),
                        run.training is not None,
                    )
                )
                break
            float_cost = self._float_cost(run)
            value = rate(result.float)
            if value is not None and float_cost is not None:
                words = f"{tr('float')}: {format_percent(value)}"
                floats = [RunPoint(None, float_cost, value, "float", words)]
        if not floats and self.axis == "size" and (value := rate(session.float_metrics)) is not None:
            words = f"{tr('float')}: {format_percent(value)}"
            floats = [RunPoint(None, session.model.float_size_bytes / 1024, value, "float", words)]
        return (*floats, *found)

    def _cost(self, run: Run) -> float | None:
        result = run.result
        if result is None:
            return None
        if self.axis == "size":
            return result.size_bytes.quantized / 1024 if result.size_bytes else None
        return result.latency_ms.exported.median if result.latency_ms else None

    def _float_cost(self, run: Run) -> float | None:
        result = run.result
        if result is None:
            return None
        if self.axis == "size":
            return result.size_bytes.float / 1024 if result.size_bytes else None
        return result.latency_ms.float.median if result.latency_ms else None

    def _draw(self) -> None:
        metrics = self._session.float_metrics
        labelled = metrics is None or metrics.top1 is not None
        self.chart.set_points(
            self.points(),
            tr("size, KB") if self.axis == "size" else tr("latency, ms"),
            tr("top-1, %") if labelled else tr("agreement, %"),
            tr("No runs yet: Run PTQ puts the first point here"),
        )
        self.chart.set_selected(self._session.selected_run)
