"""The left side of Compare: which two runs, the timeline they stand in, and any figure against any other."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSplitter, QVBoxLayout, QWidget

from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.compare.run_figures import BitCosts, RunFigure, run_figures
from qstudio.ui.compare.timeline_rows import TimelineRow, timeline_rows
from qstudio.ui.compare.timeline_view import RunWords, TimelineView
from qstudio.ui.plots.run_scatter_any import AnyPoint, RunScatterAny
from qstudio.ui.runs.figures import best_metrics, drop_text, latency_text, rate, same_recipe, state_text
from qstudio.ui.runs.methods import method_text
from qstudio.ui.shown_panel import ShownPanel
from qstudio.ui.text import format_bytes, format_percent, tr


class ComparedRunsPanel(ShownPanel):
    """A and B, the timeline above, the scatter below."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._costs = BitCosts()
        self.figures = run_figures(self._costs)
        self._drawn: tuple[object, ...] = ()
        self.first_box = self._run_box(tr("Run A"), tr("The run that is looked at: the selected run"))
        self.second_box = self._run_box(
            tr("Run B"), tr("What run A is compared with: another run, or the float network")
        )
        self.swap = QPushButton("⇄")
        self.swap.setProperty("role", "flat")
        self.swap.setAccessibleName(tr("Exchange A and B"))
        self.swap.setToolTip(tr("Exchange A and B"))
        self.swap.clicked.connect(self._on_swap)
        self.timeline = TimelineView()
        self.scatter = RunScatterAny()
        self.x_box = self._figure_box(tr("Along x"), "size")
        self.y_box = self._figure_box(tr("Along y"), "accuracy")
        self._assemble()
        self.first_box.activated.connect(self._on_first_chosen)
        self.second_box.activated.connect(self._on_second_chosen)
        for picture in (self.timeline, self.scatter):
            picture.run_selected.connect(self._on_run_selected)
            picture.reference_selected.connect(self._on_reference_selected)
            picture.notice_posted.connect(session.notice_posted.emit)
        self.timeline.restored.connect(self._on_row_restored)
        self.scatter.run_restored.connect(self._on_run_restored)
        for signal in (
            bridge.compare_changed,
            bridge.runs_changed,
            bridge.timeline_changed,
            bridge.model_changed,
        ):
            signal.connect(self.mark_stale)

    def _run_box(self, name: str, told: str) -> QComboBox:
        box = QComboBox()
        box.setAccessibleName(name)
        box.setToolTip(told)
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(8)
        return box

    def _figure_box(self, name: str, chosen: str) -> QComboBox:
        box = QComboBox()
        box.setAccessibleName(name)
        for figure in self.figures:
            box.addItem(tr(figure.title), figure.id)
            box.setItemData(box.count() - 1, tr(figure.help), Qt.ItemDataRole.ToolTipRole)
        box.setCurrentIndex(box.findData(chosen))
        box.setToolTip(tr(self.figure(chosen).help))
        box.currentIndexChanged.connect(self._on_axis_chosen)
        return box

    def _assemble(self) -> None:
        top = QHBoxLayout()
        top.setContentsMargins(8, 6, 8, 2)
        top.addWidget(QLabel("A"))
        top.addWidget(self.first_box, 1)
        top.addWidget(self.swap)
        top.addWidget(QLabel("B"))
        top.addWidget(self.second_box, 1)
        bar = QHBoxLayout()
        bar.setContentsMargins(8, 4, 8, 0)
        caption = QLabel(tr("against"))
        caption.setProperty("role", "muted")
        bar.addWidget(self.y_box, 1)
        bar.addWidget(caption)
        bar.addWidget(self.x_box, 1)
        below = QWidget()
        lower = QVBoxLayout(below)
        lower.setContentsMargins(0, 0, 0, 0)
        lower.setSpacing(0)
        lower.addLayout(bar)
        lower.addWidget(self.scatter, 1)
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.addWidget(self.timeline)
        split.addWidget(below)
        split.setSizes([100, 100])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(top)
        layout.addWidget(split, 1)

    def figure(self, name: str) -> RunFigure:
        """Return a figure by its id."""
        return next(figure for figure in self.figures if figure.id == name)

    # ---- showing

    def refresh(self) -> None:
        """Show timeline, scatter and both runs; pictures are drawn again only where something in them changed."""
        session = self._session
        self._costs.follow(session.model)
        first, second = session.compare.first, session.compare.second
        numbers = (first.id if first else None, second.id if second else None)
        state = (
            *(part for run in session.runs for part in (run.id, run.state, id(run.result), id(run.training))),
            id(session.recipe),
            id(session.model),
            session.timeline.current,
            len(session.timeline.nodes),
        )
        if state != self._drawn:
            self._drawn = state
            self._fill_boxes()
            self._draw_timeline()
            self._draw_scatter()
        self.timeline.set_selected(*numbers)
        self.scatter.set_selected(*numbers)
        self.first_box.setCurrentIndex(self.first_box.findData(numbers[0]))
        self.second_box.setCurrentIndex(max(self.second_box.findData(numbers[1]), 0))
        blocked = "" if first is not None and second is not None else tr("Choose two runs first")
        self.swap.setEnabled(not blocked)
        self.swap.setToolTip(blocked or tr("Exchange A and B"))
        self.first_box.setEnabled(self.first_box.count() > 0)

    def _fill_boxes(self) -> None:
        self.first_box.clear()
        self.second_box.clear()
        self.second_box.addItem(tr("float network"), None)
        for run in reversed(self._session.runs):
            words = f"{run.title}, {method_text(run)}, {self._accuracy(run)}"
            self.first_box.addItem(words, run.id)
            self.second_box.addItem(words, run.id)

    @staticmethod
    def _accuracy(run: Run) -> str:
        value = rate(best_metrics(run.result))
        return format_percent(value) if value is not None else state_text(run)

    def _words(self, run: Run) -> RunWords:
        result = run.result
        size = format_bytes(result.size_bytes.quantized) if result is not None and result.size_bytes else ""
        lines = (
            f"{run.title}, {method_text(run)}, {state_text(run)}: {self._accuracy(run)} {drop_text(result)}".rstrip(),
            ", ".join(part for part in (size, latency_text(result.latency_ms) if result else "") if part),
        )
        detail = "\n".join(line for line in lines if line)
        return RunWords(
            run.title,
            method_text(run),
            self._accuracy(run),
            detail,
            run.training is not None,
            result is not None and result.simulated is not None,
        )

    def _draw_timeline(self) -> None:
        session = self._session
        edits = session.timeline.run_edits
        loose = [(run.id, run.started) for run in session.runs if edits.get(run.id) is None]
        nodes = session.timeline.nodes if session.model is not None or session.runs else ()
        rows = timeline_rows(nodes, loose) if session.runs else ()
        empty = tr(
            "No runs yet. Run PTQ (Ctrl+R) makes the first; restore an older recipe and edit it, and a branch begins."
        )
        self.timeline.set_rows(rows, {run.id: self._words(run) for run in session.runs}, empty)

    def _draw_scatter(self) -> None:
        session = self._session
        x, y = (self.figure(str(box.currentData())) for box in (self.x_box, self.y_box))
        points = []
        for run in session.runs:
            if run.result is None:
                continue
            across, up = x.value(run), y.value(run)
            if across is None or up is None:
                continue
            detail = f"{self._words(run).detail}\n{tr(y.title)} {y.text(up)}, {tr(x.title)} {x.text(across)}\n" + tr(
                "click: A, Ctrl+click: B, double-click: restore its recipe"
            )
            points.append(
                AnyPoint(
                    run.id,
                    across / x.per_unit,
                    up / y.per_unit,
                    detail,
                    same_recipe(session, run),
                    run.training is not None,
                    run.result.exported is not None,
                )
            )
        words = tr("No runs yet: Run PTQ (Ctrl+R) puts the first point here")
        if session.runs:
            words = tr("No run has both {y} and {x}: choose other figures").format(x=tr(x.title), y=tr(y.title))
        self.scatter.set_points(tuple(points), x.axis, y.axis, words)
        good = {1: tr("more is better"), -1: tr("less is better"), 0: ""}
        told = "\n".join(
            part
            for figure in (y, x)
            for part in (f"{tr(figure.title)}: {tr(figure.help)}", good[figure.better])
            if part
        )
        self.scatter.setToolTip(told)

    # ---- the person

    def _on_axis_chosen(self, _index: int) -> None:
        for box in (self.x_box, self.y_box):
            box.setToolTip(tr(self.figure(str(box.currentData())).help))
        self._draw_scatter()
        first, second = self._session.compare.first, self._session.compare.second
        self.scatter.set_selected(first.id if first else None, second.id if second else None)

    def _on_first_chosen(self, _index: int) -> None:
        self._session.select_run(self.first_box.currentData())

    def _on_second_chosen(self, _index: int) -> None:
        self._session.compare.set_reference(self.second_box.currentData())

    def _on_swap(self) -> None:
        self._session.compare.swap()

    def _on_run_selected(self, number: int) -> None:
        self._session.select_run(number)

    def _on_reference_selected(self, number: int) -> None:
        self._session.compare.set_reference(number)

    def _on_run_restored(self, number: int) -> None:
        self._session.restore_run(number)

    def _on_row_restored(self, row: TimelineRow) -> None:
        if row.run is not None:
            self._session.restore_run(row.run)
        elif row.edit is not None:
            self._session.timeline.restore(row.edit)
