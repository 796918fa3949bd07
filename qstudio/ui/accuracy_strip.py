"""The strip that is always there: accuracy of float, of the recipe as it stands and of the run, size, latency."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QWidget

from qstudio.core.pruning import removes_filters
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.data.data_state import is_opening
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.pinned_figure import PinnedFigure
from qstudio.ui.preview_figure import PreviewFigure
from qstudio.ui.runs.figures import (
    best_metrics,
    drop,
    drop_interval,
    drop_text,
    latency_text,
    latency_words,
    rate,
    same_recipe,
)
from qstudio.ui.runs.figures import drop_words as words_of_drop
from qstudio.ui.style import set_role
from qstudio.ui.text import NO_VALUE, format_bytes, format_interval, format_percent, tr
from qstudio.ui.theme import theme


class Figure(QWidget):
    """A caption and a value; the explanation is the tooltip."""

    def __init__(self, caption: str, explanation: str, role: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._explanation = explanation
        self._caption = QLabel(caption)
        self._caption.setProperty("role", role or "muted")
        self._value = QLabel(NO_VALUE)
        self._note = ElidedLabel()
        self._note.setProperty("role", "muted")
        for label in (self._caption, self._value, self._note):
            label.setTextFormat(Qt.TextFormat.PlainText)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addWidget(self._caption)
        layout.addWidget(self._value)
        layout.addWidget(self._note)
        self.setToolTip(explanation)
        self.restyle()

    def restyle(self) -> None:
        """Take over font and zoom."""
        self._value.setFont(theme().font("normal", bold=True))

    def set_value(self, value: str, note: str = "", more: str = "") -> None:
        """Show a value, a note beside it, and more words in the tooltip."""
        self._value.setText(value)
        self._note.setText(note)
        self._note.setVisible(bool(note))
        whole = f"{self._caption.text()} {value} {note}".strip()  # the note may be cut where there is little room
        self.setToolTip("\n".join(part for part in (whole if note else "", self._explanation, more) if part))
        self.setAccessibleName(whole)

    def set_role(self, role: str) -> None:
        """Colour the note by meaning."""
        set_role(self._note, role)

    @property
    def text(self) -> str:
        """Value and note as shown."""
        return f"{self._value.text()} {self._note.text()}".strip()


class AccuracyStrip(QFrame):
    """What the present recipe costs, as far as it is known."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "strip")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.float_figure = Figure(
            tr("float"),
            tr(
                "Top-1 accuracy of the float model on the evaluation samples, in percent, with its 95 % interval.\n"
                "If it is lower than you know it to be, look at the Data tab: the preprocessing may be wrong."
            ),
            "float",
        )
        self.run_figure = Figure(
            tr("quantized"),
            tr(
                "Top-1 accuracy of the selected run, in percent, and the difference to float in points with its 95 % "
                "interval (paired samples).\nSimulated: computed by QStudio. Exported: the written file in onnxruntime."
            ),
            "quantized",
        )
        self.size_figure = Figure(
            tr("size"),
            tr("Bytes of all parameters: float, then packed under the present recipe with scales and zero points."),
        )
        self.latency_figure = Figure(
            tr("latency"),
            tr("Time of one inference, float then exported, in milliseconds (median). Measured here, never inferred."),
        )
        self.now_figure = PreviewFigure(session, bridge)
        self._figures = (self.float_figure, self.run_figure, self.size_figure, self.latency_figure)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 8, 12, 8)
        layout.setSpacing(28)
        self.pinned_figure = PinnedFigure(session, bridge)
        layout.addWidget(self.float_figure)
        layout.addWidget(self.now_figure)
        layout.addWidget(self.size_figure)
        layout.addWidget(self.pinned_figure)
        layout.addWidget(self.run_figure)
        layout.addWidget(self.latency_figure)
        layout.addStretch(1)
        for signal in (
            bridge.model_changed,
            bridge.dataset_changed,
            bridge.recipe_changed,
            bridge.float_metrics_changed,
            bridge.runs_changed,
            bridge.run_selected,
        ):
            signal.connect(self._on_changed)
        bridge.work_changed.connect(self._on_work_changed)
        theme().changed.connect(self._on_theme_changed)
        self._on_changed()

    def _on_theme_changed(self, _palette: object) -> None:
        for figure in (*self._figures, self.now_figure):
            figure.restyle()

    def _shown_run(self) -> Run | None:
        session = self._session
        if session.running is not None:
            return session.running
        return next((run for run in session.runs if run.id == session.selected_run), None)

    def _on_work_changed(self, _work: object) -> None:
        """Say what is waited for; the sizes of all layers take 6 ms at 200 and do not depend on it."""
        self._show_float()

    def _on_changed(self, _value: object = None) -> None:
        self._show_float()
        run = self._shown_run()
        self._show_run(run)
        self._show_size()
        latency = run.result.latency_ms if run and run.result else None
        slow = latency is not None and latency.exported.median > 0.95 * latency.float.median
        self.latency_figure.set_role("watch" if slow else "muted")
        self.latency_figure.set_value(
            latency_text(latency),
            tr("int8 is not faster here") if slow else "",
            latency_words(latency) if latency else "",
        )

    def _show_float(self) -> None:
        metrics = self._session.float_metrics
        if metrics is None:
            waiting = self._session.dataset is not None or is_opening(self._session)
            self.float_figure.set_value(NO_VALUE, tr("being measured") if waiting else tr("no data"))
        elif metrics.top1 is None:
            self.float_figure.set_value(NO_VALUE, tr("no labels: agreement only"))
        else:
            interval = format_interval(metrics.top1_interval)
            self.float_figure.set_value(format_percent(metrics.top1), f"{interval}, {metrics.samples:,}")

    def _show_run(self, run: Run | None) -> None:
        figure = self.run_figure
        result = run.result if run else None
        metrics = best_metrics(result)
        if run is None or result is None or metrics is None:
            figure.set_role("muted")
            figure.set_value(NO_VALUE, tr("running") if run and not run.state.is_final else tr("not run"))
            return
        kind = tr("exported") if result.exported is not None else tr("simulated")
        if metrics.top1 is None:
            kind += " " + tr("agreement with float")
        difference = drop_text(result)
        notes = [part for part in (f"({difference})" if difference else "", kind, run.title) if part]
        if run.state.is_final and not same_recipe(self._session, run):
            notes.append(tr("recipe edited since"))
        elif run.state.is_final and not self._session.is_current(run):
            notes.append(tr("with other settings than now"))
        value, half = drop(result), drop_interval(metrics)
        worse = value is not None and half is not None and value < -half
        figure.set_role("worse" if worse else "muted")
        simulated, exported = format_percent(rate(result.simulated)), format_percent(rate(result.exported))
        more = f"{run.title}: {tr('simulated')} {simulated}, {tr('exported')} {exported}. {words_of_drop(result)}"
        figure.set_value(format_percent(rate(metrics)), ", ".join(notes), more)

    def _show_size(self) -> None:
        model = self._session.model
        if model is None:
            self.size_figure.set_value(NO_VALUE)
            return
        quantized, note, more = self._session.quantized_size_bytes(), "", ""
        if removes_filters(self._session.recipe):
            run = self._shown_run()
            sizes = run.result.size_bytes if run is not None and run.result is not None else None
            if run is not None and sizes is not None and same_recipe(self._session, run):
                quantized, more = sizes.quantized, f"{tr('Measured in')} {run.title}"
            else:
                note, more = tr("before pruning"), tr("What pruning takes away is counted by a run.")
        ratio = model.float_size_bytes / quantized if quantized else 1.0
        self.size_figure.set_value(
            f"{format_bytes(model.float_size_bytes)} → {format_bytes(quantized)}",
            f"({ratio:.1f}x) {note}".rstrip(),
            more,
        )
