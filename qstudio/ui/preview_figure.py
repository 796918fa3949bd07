"""The accuracy of the recipe as it stands: a simulated preview that follows every edit without moving anything."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QToolButton, QWidget

from qstudio.core.inspection import RecipeAccuracy
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.data.data_state import is_opening
from qstudio.ui.runs.figures import drop_interval, rate
from qstudio.ui.style import set_role
from qstudio.ui.text import NO_VALUE, format_interval, format_percent, format_points, tr
from qstudio.ui.theme import theme

SAMPLES = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Numbers of samples to choose from."""

_EXPLANATION = """\
Top-1 accuracy of the recipe as it stands, simulated on the preview samples, in percent; then the difference to float
on the same samples in points, with its 95 % interval (paired samples).
A preview: ~ stands for "simulated, not exported". Of 1,000 samples one is 0.1 points: a difference inside its interval
may be chance. More samples: the button beside it. A run measures the exported file."""


class PreviewFigure(QWidget):
    """`now ~79.6 % (-1.4 ±1.2) 1,000 samples`: places are as wide as the longest text, so that nothing jumps.

    A figure of an earlier recipe is greyed until the present one's arrives.
    """

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._caption = QLabel(tr("now"))
        self._value = QLabel(NO_VALUE)
        self._note = QLabel()
        self._state = QLabel()
        for label in (self._caption, self._value, self._note, self._state):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setProperty("role", "muted")
        self._caption.setProperty("role", "quantized")
        self.samples = QToolButton()
        self.samples.setAutoRaise(True)
        self.samples.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.samples.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._menu = QMenu(self)
        self._menu.aboutToShow.connect(self._fill_menu)
        self.samples.setMenu(self._menu)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        for widget in (self._caption, self._value, self._note, self.samples, self._state):
            layout.addWidget(widget)
        for signal in (
            bridge.preview_accuracy_changed,
            bridge.recipe_changed,
            bridge.model_changed,
            bridge.dataset_changed,
            bridge.statistics_changed,
            bridge.work_changed,
        ):
            signal.connect(self._on_changed)
        self.restyle()
        session.preview.follow()
        self._on_changed()

    # ---- look

    def restyle(self) -> None:
        """Take over font and zoom; every place gets the room of its longest text."""
        self._value.setFont(theme().font("normal", bold=True))
        for label, longest in (
            (self._value, "~100.00 %"),
            (self._note, f"({format_points(-88.88)} ±88.8)"),
            (self._state, tr("simulated preview")),
        ):
            label.setMinimumWidth(label.fontMetrics().horizontalAdvance(longest) + 2)
        text = tr("{n} samples").format(n="88,888")
        self.samples.setMinimumWidth(self.samples.fontMetrics().horizontalAdvance(text) + theme().px(22))

    @property
    def text(self) -> str:
        """What is shown, as one line."""
        parts = (self._value.text(), self._note.text(), self.samples.text(), self._state.text())
        return " ".join(part for part in parts if part)

    @property
    def is_stale(self) -> bool:
        """Whether the figure is greyed, as it is not of the present recipe."""
        return bool(self._value.property("role") == "muted")

    # ---- showing

    def _on_changed(self, _value: object = None) -> None:
        previews = self._session.preview
        figure, now = previews.accuracy or previews.latest, previews.accuracy
        waits = self._session.model is not None and self._session.dataset is not None and not previews.problem
        if not waits or figure is None:
            figure = None
        set_role(self._value, "" if now is not None else "muted")
        self._show_figure(figure, now)
        self._show_samples(now)
        if now is not None:
            state = tr("simulated preview") if now.done else tr("so far")
        elif previews.problem:
            state = tr("no preview")
        else:
            busy = bool(self._session.work)  # statistics come first
            stopped = tr("stopped") if waits else tr("no data")
            state = tr("being evaluated") if busy and (waits or is_opening(self._session)) else stopped
        self._state.setText(state)
        more = [_EXPLANATION]
        if now is None and figure is not None:
            more.append(tr("The grey figure is of an earlier recipe; this one's is being computed."))
        if now is not None:
            more.extend(now.notes)
        elif not self._session.work and waits:
            more.append(tr("It was stopped: the next edit, or choosing the samples again, evaluates anew."))
        if previews.problem:
            more.append(previews.problem)
        self.setToolTip("\n".join(more))
        self.setAccessibleName(f"{tr('Accuracy now')} {self.text}")

    def _show_figure(self, figure: RecipeAccuracy | None, now: RecipeAccuracy | None) -> None:
        value = rate(figure.metrics) if figure is not None else None
        if figure is None or value is None:
            self._value.setText(NO_VALUE)
            self._note.setText("")
            return
        metrics, digits = figure.metrics, 1 if figure.metrics.samples <= 1000 else 2
        self._value.setText(f"~{format_percent(value, digits=digits)}")
        if metrics.top1 is None or figure.float.top1 is None:
            self._note.setText(f"{format_interval(metrics.top1_interval)} {tr('agreement')}")
            set_role(self._note, "muted")
            return
        difference, half = metrics.top1 - figure.float.top1, drop_interval(metrics)
        self._note.setText(f"({format_points(difference, digits)} ±{half:.1f})" if half is not None else "")
        worse = now is not None and half is not None and difference < -half
        set_role(self._note, "worse" if worse else "muted")

    def _show_samples(self, now: RecipeAccuracy | None) -> None:
        dataset, count = self._session.dataset, self._session.preview.samples
        if now is not None:
            count = now.metrics.samples
        elif dataset is not None:
            count = min(count, dataset.sizes.get("test", count))
        self.samples.setText(tr("{n} samples").format(n=f"{count:,}"))
        wanted = tr("Samples of the preview: {n}. More are slower and surer; each is evaluated once for an edit.")
        self.samples.setToolTip(wanted.format(n=f"{self._session.preview.samples:,}"))
        self.samples.setAccessibleName(f"{tr('Preview samples')} {count:,}")

    def _fill_menu(self) -> None:
        self._menu.clear()
        dataset = self._session.dataset
        there = dataset.sizes.get("test", 0) if dataset is not None else 0
        for count in SAMPLES:
            if there and count > there and count != SAMPLES[0] and count / 2 >= there:
                continue  # all there are is enough
            action = self._menu.addAction(tr("{n} samples").format(n=f"{count:,}"))
            action.setCheckable(True)
            action.setChecked(count == self._session.preview.samples)
            action.setData(count)
            action.triggered.connect(self._on_samples_chosen)

    def _on_samples_chosen(self) -> None:
        action = self.sender()
        self._session.preview.set_samples(int(action.data()))  # type: ignore[attr-defined]
        self._on_changed()
