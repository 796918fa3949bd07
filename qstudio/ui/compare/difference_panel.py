"""In what runs A and B differ: figures with intervals, options, and the fields of every layer."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QHBoxLayout, QLabel, QPushButton, QSplitter, QVBoxLayout, QWidget

from qstudio.core.recipe_difference import value_text
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.compare.run_figures import BitCosts, RunFigure, run_figures
from qstudio.ui.compare.text_table import TextColumn, TextRow, TextTable
from qstudio.ui.runs.figures import best_metrics, drop_interval
from qstudio.ui.shown_panel import ShownPanel
from qstudio.ui.text import NO_VALUE, tr

FIELD_TITLES = {
    "weight_bits": "W bits",
    "weight_symmetric": "W symmetry",
    "weight_granularity": "W granularity",
    "weight_calibration": "W calibration",
    "weight_clip": "W clip",
    "activation_bits": "A bits",
    "activation_symmetric": "A symmetry",
    "activation_calibration": "A calibration",
    "activation_clip": "A clip",
    "weight_format": "W format",
    "weight_outliers": "W outliers",
    "activation_format": "A format",
    "activation_dynamic": "A scale",
    "pruning": "Pruning",
}
"""Titles of the fields, as in the layer table."""


NOISE = 0.05
"""Share by which times differ from one measurement to the next: less is not coloured."""


def _columns(first: str, second: str, what: str, told: str) -> tuple[TextColumn, ...]:
    return (
        TextColumn(what, told, "M" * 14),
        TextColumn(f"A: {first}", "", "asymmetric MMM", True),
        TextColumn(f"B: {second}", "", "asymmetric MMM", True),
        TextColumn(
            "A - B",
            "Run A minus run B; of accuracies with the 95 % interval that simulated answers give, paired.",
            "-10.00 ±0.25 M",
            True,
        ),
    )


class DifferencePanel(ShownPanel):
    """Figures and options above, layers below; a layer's settings can be taken from either run."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._costs = BitCosts()
        self.figures = run_figures(self._costs)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.summary = TextTable(tr("Figures of both runs"), _columns("", "", "Figure", ""))
        self.layers = TextTable(
            tr("Layers that differ"),
            (
                TextColumn("Layer", "Name of the layer; click selects it everywhere.", "layer3.0.conv1 MM"),
                TextColumn("Field", "What is set differently.", "A calibration M"),
                TextColumn("A", "Value in run A.", "percentile:99.99", True),
                TextColumn("B", "Value in run B.", "percentile:99.99", True),
            ),
        )
        self.take_first = QPushButton(tr("Take A's"))
        self.take_second = QPushButton(tr("Take B's"))
        for button in (self.take_first, self.take_second):
            button.setToolTip(tr("Set layers of the present recipe as in this run; one undoable step"))
        self.copy = QPushButton(tr("Copy"))
        self.copy.setProperty("role", "flat")
        self.copy.setToolTip(tr("Copy everything that differs as tab-separated text"))
        self.copy.setAccessibleName(tr("Copy the difference"))
        self._assemble()
        self.take_first.clicked.connect(self._on_take_first)
        self.take_second.clicked.connect(self._on_take_second)
        self.copy.clicked.connect(self.copy_all)
        self.layers.rows_selected.connect(self._on_layers_selected)
        for table in (self.summary, self.layers):
            table.notice_posted.connect(session.notice_posted.emit)
        bridge.compare_changed.connect(self.mark_stale)
        bridge.model_changed.connect(self.mark_stale)
        bridge.recipe_changed.connect(self._on_recipe_changed)

    def _assemble(self) -> None:
        bar = QHBoxLayout()
        self.count = QLabel()
        self.count.setProperty("role", "muted")
        bar.addWidget(self.count, 1)
        for button in (self.take_first, self.take_second, self.copy):
            bar.addWidget(button)
        lower = QWidget()
        below = QVBoxLayout(lower)
        below.setContentsMargins(0, 0, 0, 0)
        below.addLayout(bar)
        self.none = QLabel()
        self.none.setWordWrap(True)
        self.none.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.none.setProperty("role", "muted")
        below.addWidget(self.layers, 1)
        below.addWidget(self.none, 1)
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.addWidget(self.summary)
        split.addWidget(lower)
        split.setSizes([100, 100])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 8, 8)
        layout.setSpacing(8)
        layout.addWidget(self.words)
        layout.addWidget(split, 1)

    # ---- showing

    def refresh(self) -> None:
        """Show figures, options and layers of A and B."""
        compare = self._session.compare
        self._costs.follow(self._session.model)
        first, second = compare.first, compare.second
        names = (first.title if first else NO_VALUE, second.title if second else tr("float"))
        self.summary.rows.set_columns(_columns(*names, tr("Figure"), tr("Figures and options of both runs")))
        self.summary.rows.set_rows(() if first is None else (*self._figure_rows(first, second), *self._option_rows()))
        rows = [
            TextRow(
                (
                    found.layer,
                    tr(FIELD_TITLES[found.field]),
                    value_text(found.field, found.first),
                    value_text(found.field, found.second),
                ),
                id=found.layer,
            )
            for found in compare.differences()
        ]
        self.layers.rows.set_rows(rows)
        self.layers.setVisible(bool(rows))
        self.none.setVisible(not rows)
        blocked = compare.differences_blocked
        self.none.setText(f"{tr(blocked)}." if blocked else tr("All layers are set alike in these two runs."))
        self.words.setText(self._tell(first, second, {row.id for row in rows}))
        self._update_buttons()

    def _tell(self, first: Run | None, second: Run | None, layers: set[str]) -> str:
        if first is None:
            return tr("No run is selected. Click a run in the timeline, the scatter or the table of runs.")
        if second is None:
            return tr("{a} against the float network. Ctrl+click a run to compare two recipes.").format(a=first.title)
        if self._session.compare.differences_blocked:
            return f"{first.title} {tr('against')} {second.title}."
        refinements = self._refinement_words()
        if not layers and not refinements:
            return tr("{a} and {b} have the same recipe.").format(a=first.title, b=second.title)
        counted = tr("1 layer differs") if len(layers) == 1 else tr("{n} layers differ").format(n=len(layers))
        words = f"{first.title} {tr('against')} {second.title}: {counted}."
        return f"{words} {refinements}".rstrip()

    def _refinement_words(self) -> str:
        pair = self._session.compare.recipes()
        if pair is None or pair[0].refinements == pair[1].refinements:
            return ""
        one, two = (set(recipe.refinements) for recipe in pair)
        only = [
            f"{tr('only in')} {side}: {', '.join(sorted(names))}"
            for side, names in (("A", one - two), ("B", two - one))
            if names
        ]
        return f"{tr('Refinements')} {'; '.join(only) if only else tr('run in another order')}."

    def _figure_rows(self, first: Run, second: Run | None) -> Iterable[TextRow]:
        for figure in self.figures:
            if figure.id == "number":
                continue
            one = figure.value(first)
            two = figure.value(second) if second is not None else float_value(figure.id, first)
            if one is None and two is None:
                continue
            texts = (tr(figure.title), figure.text(one), figure.text(two), self._difference(figure, one, two))
            color = ""
            if one is not None and two is not None and figure.better and one != two:
                color = "better" if (one > two) == (figure.better > 0) else "worse"
                if figure.id in ("accuracy", "drop") and not self._is_shown():
                    color = ""
                if figure.id in ("latency", "speed_up", "seconds") and abs(one - two) < NOISE * max(abs(one), abs(two)):
                    color = ""
            yield TextRow(texts, help=tr(figure.help), colors=("", "", "", color))

    def _is_shown(self) -> bool:
        """Return whether the samples can tell the difference of the accuracies."""
        half, flips = self._half_width(), self._session.compare.flips
        return flips is None or half is None or abs(flips.difference_points) > half

    def _half_width(self) -> float | None:
        compare = self._session.compare
        if compare.second is None and compare.first is not None:
            return drop_interval(best_metrics(compare.first.result))
        flips = compare.flips
        return flips.half_width_points if flips is not None and flips.labelled else None

    def _difference(self, figure: RunFigure, one: float | None, two: float | None) -> str:
        if one is None or two is None:
            return NO_VALUE
        value = one - two
        if figure.id in ("accuracy", "drop", "agreement"):
            half = self._half_width() if figure.id == "accuracy" else None
            return f"{value:+.2f}" + (f" ±{half:.2f}" if half is not None else "")
        if value == 0:
            return figure.text(0.0)
        return ("+" if value > 0 else "-") + figure.text(abs(value))

    def _option_rows(self) -> Iterable[TextRow]:
        for found in self._session.compare.option_differences():
            yield TextRow((tr(found.name), found.first, found.second, tr("differs")), colors=("muted", "", "", "muted"))

    def _on_recipe_changed(self, _recipe: object) -> None:
        if self.isVisible():
            self._update_buttons()

    def _update_buttons(self) -> None:
        compare, chosen = self._session.compare, self.layers.selected_ids()
        total = len({row.id for row in self.layers.rows.rows})
        blocked = tr(compare.differences_blocked)
        if not blocked and not total:
            blocked = tr("The recipes do not differ")
        for button, run in ((self.take_first, compare.first), (self.take_second, compare.second)):
            button.setEnabled(not blocked)
            what = tr("the selected layers") if chosen else tr("all layers that differ")
            title = run.title if run is not None else ""
            told = tr("Set {what} in the present recipe as in {run}; one undoable step").format(what=what, run=title)
            button.setToolTip(blocked or told)
        self.count.setText(tr("{n} of {m} layers selected").format(n=len(chosen), m=total) if chosen else "")

    # ---- the person

    def _on_layers_selected(self, names: tuple[str, ...]) -> None:
        if names:
            self._session.select(names)
        self._update_buttons()

    def _chosen(self) -> tuple[str, ...]:
        return self.layers.selected_ids() or tuple(dict.fromkeys(row.id for row in self.layers.rows.rows))

    def _on_take_first(self) -> None:
        self._session.compare.take(self._chosen())

    def _on_take_second(self) -> None:
        self._session.compare.take(self._chosen(), from_second=True)

    def copy_all(self) -> None:
        """Put figures, options and layers on the clipboard as tab-separated text."""
        QApplication.clipboard().setText(f"{self.summary.as_text(chr(9))}\n{self.layers.as_text(chr(9))}")


def float_value(figure: str, run: Run) -> float | None:
    """Return a figure of the float network that a run was compared with; None where it has none."""
    result = run.result
    if result is None:
        return None
    if figure in ("accuracy", "agreement", "loss"):
        metrics = result.float
        if metrics is None:
            return None
        if figure == "accuracy":
            return metrics.top1 if metrics.top1 is not None else metrics.agreement
        return metrics.agreement if figure == "agreement" else metrics.loss
    if figure == "size":
        return float(result.size_bytes.float) if result.size_bytes is not None else None
    if figure == "latency":
        return result.latency_ms.float.median if result.latency_ms is not None else None
    return {"drop": 0.0, "speed_up": 1.0, "bits": 32.0}.get(figure)
