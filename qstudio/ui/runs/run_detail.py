"""One run in words and per layer."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.results import LayerResult
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.runs.figures import (
    PHASE_WORDS,
    drop_words,
    latency_text,
    latency_words,
    metrics_text,
    parity_words,
    same_recipe,
    state_text,
    storage_words,
)
from qstudio.ui.runs.methods import training_words
from qstudio.ui.shown_panel import ShownPanel
from qstudio.ui.table.cells import sqnr_grade
from qstudio.ui.text import NO_VALUE, format_bytes, format_db, tr
from qstudio.ui.theme import theme

LAYER_COLUMNS: tuple[tuple[str, str], ...] = (
    ("Layer", "Name of the layer"),
    ("Weights", "Scheme of the weights"),
    ("Output", "Scheme of the tensor the layer puts out"),
    ("W SQNR, dB", "Signal to noise of the weights in dB; 30 and more is good, under 20 bad"),
    ("Out SQNR, dB", "Signal to noise of the output, everything quantized, in dB; 30 and more is good, under 20 bad"),
    ("Cosine", "Direction of the output against float; 0.99 and more is good, under 0.95 bad"),
)


GRADE_SIGNS = {"watch": "▲", "worse": "■"}
"""The signs of the layer table: watch, bad."""


class RunDetail(ShownPanel):
    """The selected run: what it came to, whether the file computes what was simulated, every layer's error."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: tuple[object, ...] = ()
        self.title = QLabel()
        self.title.setProperty("role", "heading")
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setTextFormat(Qt.TextFormat.PlainText)
        self.words.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.restore = QPushButton(tr("Restore recipe"))
        self.restore.setAccessibleName(tr("Restore the run's recipe"))
        self.restore.setToolTip(tr("Make this run's recipe the current one; one undoable step"))
        self.restore.clicked.connect(self._on_restore)
        self.table = QTableWidget(0, len(LAYER_COLUMNS))
        self.table.setAccessibleName(tr("Layers of the run"))
        self.table.setFrameShape(QFrame.Shape.NoFrame)
        self.table.setShowGrid(False)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.table.setTabKeyNavigation(False)
        self.table.setWordWrap(False)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setHighlightSections(False)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        for number, (title, told) in enumerate(LAYER_COLUMNS):
            item = QTableWidgetItem(tr(title))
            item.setToolTip(tr(told))
            if number >= 3:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            else:
                item.setTextAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
            self.table.setHorizontalHeaderItem(number, item)
        self.table.itemSelectionChanged.connect(self._on_layer_selected)
        summary = QScrollArea()
        summary.setWidgetResizable(True)
        summary.setFrameShape(QFrame.Shape.NoFrame)
        summary.setWidget(self.words)
        summary.setAccessibleName(tr("Summary of the run"))
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.addTab(summary, tr("Summary"))
        self.tabs.addTab(self.table, tr("Layers"))
        head = QHBoxLayout()
        head.addWidget(self.title, 1)
        head.addWidget(self.restore)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 8, 8)
        layout.setSpacing(8)
        layout.addLayout(head)
        layout.addWidget(self.tabs, 1)
        bridge.run_selected.connect(self.mark_stale)
        bridge.runs_changed.connect(self.mark_stale)
        bridge.recipe_changed.connect(self.mark_stale)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()

    def _on_theme_changed(self, _palette: object = None) -> None:
        metrics = self.fontMetrics()
        self.table.verticalHeader().setDefaultSectionSize(max(theme().px(26), metrics.height() + 6))
        for number, text in enumerate(
            (
                "layer3.0.conv1 M",
                "int8 symmetric channel MM",
                "int8 asymmetric tensor",
                "W SQNR, dB",
                "Out SQNR, dB",
                "0.99999 M",
            )
        ):
            self.table.setColumnWidth(number, metrics.horizontalAdvance(text) + theme().px(16))
        self._shown = ()
        self.mark_stale()

    def _run(self) -> Run | None:
        session = self._session
        if session.running is not None and session.running.result is not None:
            return session.running
        return next((run for run in session.runs if run.id == session.selected_run), None)

    def refresh(self) -> None:
        """Show the selected run, unless nothing about it has changed."""
        run = self._run()
        current = run is not None and same_recipe(self._session, run)
        state = (run.id, run.state, run.phase, run.result, run.error, run.training, current) if run else ()
        if state == self._shown and self._shown:
            return
        self._shown = state
        blocked = self._restore_blocked(run, current)
        self.restore.setEnabled(not blocked)
        self.restore.setToolTip(blocked or tr("Make this run's recipe the current one; one undoable step"))
        if run is None:
            self.title.setText(tr("No run is selected"))
            self.words.setText(tr("Click a run in the table or the chart. Run PTQ (Ctrl+R) makes one."))
            self.table.setRowCount(0)
            return
        self.title.setText(f"{run.title}, {state_text(run)}")
        self.words.setText(self._tell(run))
        self._fill(run.result.layers if run.result else ())

    def _restore_blocked(self, run: Run | None, current: bool) -> str:
        if run is None or run.result is None:
            return tr("Select a run with a result first")
        return tr("This is the current recipe") if current else ""

    def _tell(self, run: Run) -> str:
        """Return the run in paragraphs: why it stopped, accuracy, parity, size, latency, how it was made."""
        result = run.result
        if result is None:
            told = (run.error, training_words(run), tr("Nothing has been measured yet."))
            return "\n\n".join(part for part in told if part)
        parts = [f"{run.error} {tr('What was measured before:')}" if run.error else ""]
        figures = ((tr("float"), result.float), (tr("simulated"), result.simulated), (tr("exported"), result.exported))
        accuracy = [f"{name}: {metrics_text(metrics)}" for name, metrics in figures if metrics is not None]
        parts.append("\n".join((*accuracy, drop_words(result))).strip())
        parts.append(training_words(run))
        if not run.state.is_final:
            parts.append(tr(PHASE_WORDS.get(run.phase, run.phase)) + "…")
        if result.parity is not None or run.state.is_final:
            parts.append(parity_words(result.parity))
        if result.size_bytes is not None:
            size = result.size_bytes
            file = f", {tr('file')} {format_bytes(size.file)}" if size.file is not None else ""
            parts.append(f"{tr('size')}: {format_bytes(size.float)} → {format_bytes(size.quantized)}{file}")
        parts.append(storage_words(result.storage))
        if result.latency_ms is not None or run.state.is_final:
            parts.append(f"{tr('latency')}: {latency_text(result.latency_ms)}\n{latency_words(result.latency_ms)}")
        parts.append("\n".join(result.notes))
        if run.state.is_final:
            parts.append(
                f"{tr('calibration samples')} {result.calibration_samples}, {tr('seed')} {result.seed}, "
                f"{tr('device')} {result.device}, {result.seconds:.1f} s"
            )
        return "\n\n".join(part for part in parts if part)

    def _fill(self, layers: tuple[LayerResult, ...]) -> None:
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        self.table.blockSignals(True)
        self.table.setRowCount(len(layers))
        for row, layer in enumerate(layers):
            schemes = dict(layer.schemes)
            cosine = NO_VALUE if layer.cosine is None else f"{layer.cosine:.5f}"
            texts = (
                layer.name,
                schemes.get("weight", NO_VALUE),
                schemes.get("activation", NO_VALUE),
                format_db(layer.weight_sqnr_db, False),
                format_db(layer.sqnr_db, False),
                cosine,
            )
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                if column >= 3:
                    item.setTextAlignment(right)
                grade = {3: sqnr_grade(layer.weight_sqnr_db), 4: sqnr_grade(layer.sqnr_db)}.get(column)
                if grade:
                    item.setText(f"{GRADE_SIGNS[grade]} {text}")
                self.table.setItem(row, column, item)
        self.table.blockSignals(False)

    def _on_layer_selected(self) -> None:
        rows = self.table.selectionModel().selectedRows()
        item = self.table.item(rows[0].row(), 0) if rows else None
        if item is not None:
            self._session.select([item.text()])

    def _on_restore(self) -> None:
        run = self._run()
        if run is not None:
            self._session.restore_run(run.id)
