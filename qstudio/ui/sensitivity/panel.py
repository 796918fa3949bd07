"""The sensitivity tab: what is swept, and the layers x candidates heat map with bars."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSignalBlocker, Qt, QTimer
from PySide6.QtGui import QShowEvent, QStandardItemModel
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.errors import UserError
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.sensitivity import MEASURES, MODES, SIDES, Candidate
from qstudio.session.options import Notice
from qstudio.session.session import Session
from qstudio.ui.bit_toggles import BitToggles
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.number_box import NumberBox
from qstudio.ui.plots.heat_map import HeatMap
from qstudio.ui.search.progress_words import progress_words
from qstudio.ui.sensitivity.rows import cell_words, column_words, expected_layers, missing_words, sheet_of
from qstudio.ui.style import set_role
from qstudio.ui.table.choices import not_applicable
from qstudio.ui.text import tr

WIDTHS = (FLOAT_BITS, 16, 8, 7, 6, 5, 4, 3, 2, 1)
REFRESH_MS = 100
"""Cells that arrive within this are drawn together."""

MODE_TITLES = {
    "enable": "only this layer quantized",
    "disable": "only this layer float",
    "change": "the recipe, changed",
}
SIDE_TITLES = {"weights": "weights", "activations": "activations", "both": "weights and activations"}
ORDERS = {"network": "in order of the network", "harm": "longest bar first"}


class SensitivityPanel(QFrame):
    """Which layers hurt, measured one at a time; a double-click takes a candidate."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._lens = session.sensitivity
        self.setProperty("role", "surface")
        self._is_stale = True
        self._column: int | None = None
        """The candidate whose bars are shown; None until one is clicked: the first of 4 bits or fewer."""
        self._measure = ""
        """The one that was chosen; empty = the best that there is."""
        self._build()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._refresh)
        bridge.sensitivity_changed.connect(self._on_changed)
        bridge.work_changed.connect(self._on_work)
        bridge.runs_changed.connect(self._on_work)
        bridge.dataset_changed.connect(self._on_changed)
        bridge.model_changed.connect(self._on_changed)
        bridge.selection_changed.connect(self._on_selection)
        self._on_changed()

    # ---- making

    def _build(self) -> None:
        self.widths = BitToggles(tr("Widths to try"), WIDTHS, tr("Try on every layer"))
        self.widths.chosen.connect(self._on_widths)
        self.side = self._combo(tr("What takes the width"), SIDES, SIDE_TITLES, self._on_side)
        self.mode = self._combo(tr("How a layer is singled out"), MODES, MODE_TITLES, self._on_mode)
        self.samples = NumberBox(1, 1e7, True)
        self.samples.setAccessibleName(tr("Samples"))
        self.samples.setToolTip(
            tr("Evaluation samples for every cell: the network runs layers x widths times. 1,000 order most layers.")
        )
        self.samples.valueChanged.connect(self._on_samples)
        self.hessian = QCheckBox(tr("Hessian"))
        self.hessian.setToolTip(f"{tr('Estimate the curvature of the loss too.')}\n{tr(MEASURES['hessian'].meaning)}")
        self.hessian.toggled.connect(self._on_hessian)
        self.start = QPushButton(tr("Measure"))
        self.start.setProperty("role", "primary")
        self.start.clicked.connect(self._on_start)
        self.stop = QPushButton(tr("Cancel"))
        self.stop.setToolTip(tr("Stop; what has been measured is kept, and Measure goes on from there"))
        self.stop.clicked.connect(self._lens.cancel)
        self.measure = QComboBox()
        self.measure.setAccessibleName(tr("Figure shown"))
        for name, measure in MEASURES.items():
            self.measure.addItem(f"{tr(measure.title)}, {measure.unit}", name)
            self.measure.setItemData(self.measure.count() - 1, tr(measure.meaning), Qt.ItemDataRole.ToolTipRole)
        self.measure.activated.connect(self._on_measure)
        self.order = QComboBox()
        self.order.setAccessibleName(tr("Order of the layers"))
        self.order.setToolTip(tr("Order of the layers: as they run, or what the bars show most of first"))
        for name, title in ORDERS.items():
            self.order.addItem(tr(title), name)
        self.order.activated.connect(self._on_order)
        self.status = ElidedLabel()
        self.map = HeatMap(tr("Sensitivity"))
        self.map.setToolTip(
            tr(
                "Each cell is the network's figure with one layer changed as said above; bright is what matters.\n"
                "The bars are what the chosen width costs; underlined is what the recipe has now.\n"
                "Click selects the layer, double-click takes the width."
            )
        )
        self.map.cell_help = self._cell_help
        self.map.cell_selected.connect(self._on_cell)
        self.map.cell_taken.connect(self._on_taken)
        self.map.column_selected.connect(self._on_column)
        self.map.notice_posted.connect(self._session.notice_posted.emit)
        self._lay_out()

    def _combo(self, name: str, meanings: dict[str, str], titles: dict[str, str], chosen: object) -> QComboBox:
        combo = QComboBox()
        combo.setAccessibleName(name)
        combo.setToolTip("\n".join((name, *(f"{tr(titles[n])}: {tr(told)}" for n, told in meanings.items()))))
        for value, told in meanings.items():
            combo.addItem(tr(titles[value]), value)
            combo.setItemData(combo.count() - 1, tr(told), Qt.ItemDataRole.ToolTipRole)
        combo.activated.connect(chosen)
        return combo

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setContentsMargins(12, 8, 12, 4)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(6)

        def caption(text: str) -> QLabel:
            label = QLabel(text)
            label.setProperty("role", "muted")
            return label

        def row(*widgets: QWidget) -> QHBoxLayout:
            line = QHBoxLayout()
            line.setSpacing(8)
            for widget in widgets:
                line.addWidget(widget)
            line.addStretch(1)
            return line

        grid.addWidget(caption(tr("widths")), 0, 0)
        grid.addLayout(row(self.widths, self.hessian), 0, 1)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        buttons.addWidget(self.start)
        buttons.addWidget(self.stop)
        grid.addLayout(buttons, 0, 2)
        grid.addWidget(caption(tr("of")), 1, 0)
        grid.addLayout(row(self.side, self.mode, caption(tr("samples")), self.samples), 1, 1, 1, 2)
        grid.addWidget(caption(tr("show")), 2, 0)
        show = row(self.measure, self.order)
        grid.addLayout(show, 2, 1, 1, 2)
        grid.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(grid)
        self.status.setContentsMargins(12, 0, 12, 4)
        layout.addWidget(self.status)
        layout.addWidget(self.map, 1)

    # ---- choosing

    def _choose(self, **values: object) -> None:
        try:
            self._lens.choose(**values)
        except UserError as error:
            self._session.notice_posted.emit(Notice("warning", error.sentence()))
            self._show_settings()

    def _on_widths(self, widths: tuple[int, ...]) -> None:
        self._choose(bits=widths)

    def _on_side(self, _index: int) -> None:
        self._choose(side=self.side.currentData())

    def _on_mode(self, _index: int) -> None:
        self._choose(mode=self.mode.currentData())

    def _on_samples(self, value: float) -> None:
        self._choose(samples=round(value))

    def _on_hessian(self, on: bool) -> None:
        self._choose(hessian=on)

    def _on_start(self) -> None:
        try:
            self._lens.start()
        except UserError as error:
            self._session.notice_posted.emit(Notice("error", error.sentence()))

    def _on_measure(self, _index: int) -> None:
        self._measure = str(self.measure.currentData())
        self._refresh()

    def _on_order(self, _index: int) -> None:
        self._refresh()

    def _on_column(self, column: int) -> None:
        self._column = column
        self._refresh()

    def _on_cell(self, layer: str, column: int) -> None:
        self._session.select((layer,))
        if column >= 0 and column != self._column:
            self._column = column
            self._refresh()

    def _on_taken(self, layer: str, column: int) -> None:
        """Give a layer the widths of a candidate, as one undoable step."""
        result, model = self._lens.result, self._session.model
        if result is None or model is None or column >= len(result.candidates):
            return
        candidate = result.candidates[column]
        values = {"weight_bits": candidate.weight_bits, "activation_bits": candidate.activation_bits}
        fitting: dict[str, Any] = {
            field: bits
            for field, bits in values.items()
            if bits is not None and not not_applicable(model.layer(layer), field)
        }
        if fitting:
            self._session.set_layers(f"{candidate.text}: {layer}", (layer,), **fitting)

    # ---- following the session

    def _on_changed(self, _value: object = None) -> None:
        self._is_stale = True
        if self.isVisible() and not self._timer.isActive():
            self._timer.start()

    def _on_work(self, _work: object) -> None:
        if self.isVisible():
            self._show_state()

    def _on_selection(self, selection: tuple[str, ...]) -> None:
        if self.isVisible():
            self.map.set_selected(selection)

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what happened while it was not seen."""
        super().showEvent(event)
        if self._is_stale:
            self._refresh()
        self.map.set_selected(self._session.selection)

    def _refresh(self) -> None:
        self._is_stale = False
        self._timer.stop()
        self._show_settings()
        self._show_map()
        self._show_state()

    def _show_settings(self) -> None:
        settings = self._lens.settings
        self.widths.set_widths(settings.bits)
        for combo, value in ((self.side, settings.side), (self.mode, settings.mode)):
            combo.setCurrentIndex(combo.findData(value))
        if not self.samples.hasFocus():  # setting a value takes away what is being typed
            with QSignalBlocker(self.samples):
                self.samples.setValue(settings.samples)
        with QSignalBlocker(self.hessian):
            self.hessian.setChecked(settings.hessian)

    def _show_state(self) -> None:
        """Show what can be done, how far the sweep is, and whether its figures still hold."""
        lens, blocked = self._lens, self._lens.blocked
        self.start.setEnabled(not blocked)
        self.start.setText(tr("Measure again") if lens.stale and not lens.running else tr("Measure"))
        self.start.setToolTip(tr(blocked) if blocked else self._plan())
        self.stop.setVisible(lens.running)
        self.stop.setEnabled(not lens.stopping)
        text, role = self._words()
        self.status.setText(text)
        self.status.setToolTip("\n".join((text, *(lens.result.notes if lens.result is not None else ()))))
        set_role(self.status, role)

    def _plan(self) -> str:
        settings, model = self._lens.settings, self._session.model
        if model is None:
            return ""
        count = len(expected_layers(model, settings.candidates)) * len(settings.candidates)
        return tr("About {n} evaluations of {s} samples; what was measured before is not measured again").format(
            n=f"{count:,}", s=f"{settings.samples:,}"
        )

    def _words(self) -> tuple[str, str]:
        lens, result = self._lens, self._lens.result
        if lens.running:
            return progress_words(lens), "muted"
        if result is None:
            return tr(lens.blocked) if lens.blocked else "", "muted"
        if lens.stale:
            return f"{tr('Stale')}: {tr(lens.stale)}. {tr('Measure again')}.", "watch"
        if not lens.is_whole:
            return tr("Stopped; Measure goes on from here."), "watch"
        samples = next((cell.figures.samples for cell in result.cells if cell.figures is not None), 0)
        words = tr("{c} cells on {s} samples, {n} of them measured now, {t} s").format(
            c=f"{len(result.cells):,}", s=f"{samples:,}", n=f"{result.computed:,}", t=f"{result.seconds:.1f}"
        )
        notes = tr(", {n} notes").format(n=len(result.notes)) if result.notes else ""
        return words + notes, "muted"

    # ---- the map

    def _available(self) -> tuple[str, ...]:
        """Return the measures that some cell has, all where there is no cell."""
        result = self._lens.result
        cells = result.cells if result is not None else ()
        return tuple(name for name in MEASURES if not cells or any(c.value(name) is not None for c in cells))

    def _shown_measure(self) -> str:
        there = self._available()
        if self._measure in there:
            return self._measure
        return next((name for name in ("kl", "sqnr", "hessian") if name in there), "kl")

    def _show_measures(self, shown: str) -> None:
        there = self._available()
        items = self.measure.model()
        assert isinstance(items, QStandardItemModel)
        for place, name in enumerate(MEASURES):
            reason = "" if name in there else tr(missing_words(name))
            items.item(place).setEnabled(not reason)
            told = "\n".join(part for part in (tr(MEASURES[name].meaning), reason) if part)
            self.measure.setItemData(place, told, Qt.ItemDataRole.ToolTipRole)
        self.measure.setCurrentIndex(self.measure.findData(shown))
        self.measure.setToolTip(tr(MEASURES[shown].meaning))

    def _show_map(self) -> None:
        result, model = self._lens.result, self._session.model
        shown = self._shown_measure()
        self._show_measures(shown)
        if result is None or model is None:
            self.map.set_rows((), (), self.map.scale)
            words = tr("No sweep yet: Measure tries each width on each layer and shows what it costs")
            self.map.set_message(tr(self._lens.blocked) if self._lens.blocked and not self._lens.running else words)
            return
        column = self._shown_column(result.candidates)
        candidate = result.candidates[column]
        by_harm = self.order.currentData() == "harm"
        sheet = sheet_of(result, model, shown, candidate, by_harm, self._lens.is_whole, self._session.recipe)
        self.map.set_message("")
        self.map.faded = bool(self._lens.stale)
        self.map.column_help = tuple(column_words(c) for c in result.candidates)
        self.map.set_rows(
            sheet.rows,
            tuple(c.text for c in result.candidates),
            sheet.scale,
            column=column,
            extra_title=sheet.extra_title,
            bar_title=sheet.bar_title,
        )
        self.map.set_selected(self._session.selection)

    def _shown_column(self, candidates: tuple[Candidate, ...]) -> int:
        if self._column is not None:
            return min(self._column, len(candidates) - 1)
        widths = [c.weight_bits or c.activation_bits or 0 for c in candidates]
        return next((n for n, bits in enumerate(widths) if bits <= 4), len(candidates) - 1)

    def _cell_help(self, layer: str, column: int) -> str:
        result = self._lens.result
        if result is None:
            return ""
        trace = next((t for t in result.traces if t.layer == layer), None)
        shown = column if column >= 0 else self._shown_column(result.candidates)
        words = cell_words(result, layer, result.candidates[shown])
        if trace is not None:
            words += "\n" + tr("Trace of the Hessian {t} ± {e}, {n} weights").format(
                t=f"{trace.trace:.3g}", e=f"{trace.standard_error:.1g}", n=f"{trace.parameters:,}"
            )
        return words
