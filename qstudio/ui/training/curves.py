"""The learning curve of a run, live while it trains."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from qstudio.core.training import CurvePoint
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.session.training import TrainingRecord, read_checkpoint
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.plots.epoch_plot import Curve, EpochPlot, ScalesPlot
from qstudio.ui.runs.figures import state_text
from qstudio.ui.runs.methods import method_title
from qstudio.ui.text import format_percent, format_seconds, tr
from qstudio.ui.theme import theme

Values = tuple[NDArray[np.float64], NDArray[np.float64]]


def shown_training(session: Session) -> Run | None:
    """Return the run whose curve is looked at: the one that trains, else the selected one, else the last trained."""
    trained = [run for run in session.runs if run.training is not None]
    for run in trained:
        if not run.state.is_final or run.id == session.selected_run:
            return run
    return trained[-1] if trained else None


class ScaleHistory:
    """The scales of a curve as an array that grows by a row for each epoch."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[CurvePoint, tuple[str, ...], NDArray[np.float64]]] = {}

    def moves(self, curve: tuple[CurvePoint, ...]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Return (sites, [S, E] log2 of each site's scale relative to the start of its stage).

        Sites that some epochs do not have (bits of a stage that left them in float) are left out.
        """
        if not curve:
            return (), np.zeros((0, 0))
        rows = [self._row(point) for point in curve]
        sites = rows[0][0]
        if any(names != sites for names, _ in rows):
            shared = set(sites).intersection(*(names for names, _ in rows))
            sites = tuple(site for site in sites if site in shared)
            rows = [(sites, values[[names.index(site) for site in sites]]) for names, values in rows]
        logs = np.stack([values for _, values in rows], axis=1)
        starts, start = [], 0
        for at, point in enumerate(curve):
            start = at if point.bits != curve[start].bits else start
            starts.append(start)
        return sites, logs - logs[:, starts]

    def _row(self, point: CurvePoint) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Return (sites, log2 of their scales) of an epoch; computed once."""
        known = self._rows.get(point.epoch)
        if known is None or known[0] is not point:
            names = tuple(name for name, _ in point.scales)
            known = (point, names, np.log2(np.array([scale for _, scale in point.scales], float)))
            self._rows[point.epoch] = known
        return known[1], known[2]


def stage_changes(curve: tuple[CurvePoint, ...]) -> tuple[float, ...]:
    """Return the epochs after which the bit width changes."""
    return tuple(before.epoch + 0.5 for before, after in pairwise(curve) if before.bits != after.bits)


def best_epoch(record: TrainingRecord) -> int | None:
    """Return the best epoch, where it is known: of a training that is done, or of what a stopped one left."""
    if record.result is not None:
        return record.result.best_epoch
    left = read_checkpoint(record.folder) if record.folder else None
    return left.best_epoch if left is not None else None


class TrainingCurves(QFrame):
    """Loss, accuracy, learning rate and learned scales over the epochs of one run."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._drawn: tuple[object, ...] = ()
        self._history = ScaleHistory()
        self.setProperty("role", "surface")
        self.title = QLabel()
        self.title.setProperty("role", "heading")
        self.words = QLabel()
        self.words.setProperty("role", "muted")
        self.words.setWordWrap(True)
        self.loss = EpochPlot(
            tr("Loss"),
            tr("loss, nats"),
            (Curve(tr("training"), "muted"), Curve(tr("held out"), "quantized")),
            from_zero=True,
        )
        self.accuracy = EpochPlot(
            tr("Accuracy"),
            tr("top-1, %"),
            (Curve(tr("float"), "float", dashed=True), Curve(tr("quantized, held out"), "quantized")),
        )
        rates = (Curve(tr("learning rate x 1000"), "quantized"),)
        self.rate = EpochPlot(tr("Learning rate"), tr("rate x 1000"), rates, from_zero=True)
        self.scales = ScalesPlot()
        self.plots = (self.loss, self.accuracy, self.rate, self.scales)
        for plot, told in (
            (self.loss, tr("Lower is better. Held-out loss that rises while training loss falls is overfitting.")),
            (self.accuracy, tr("Of the held-out training samples, which also pick the best epoch.")),
            (self.rate, tr("Of the last step of each epoch.")),
            (
                self.scales,
                tr("1 is a doubling of the scale since the start of its stage. Select a layer to see its own."),
            ),
        ):
            plot.setToolTip(told)
            plot.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
            plot.notice_posted.connect(session.notice_posted.emit)
        grid = QGridLayout()
        grid.setSpacing(8)
        for number, plot in enumerate(self.plots):
            grid.addWidget(plot, number // 2, number % 2)
            grid.setRowStretch(number // 2, 1)
            grid.setColumnStretch(number % 2, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 8, 8)
        layout.setSpacing(4)
        layout.addWidget(self.title)
        layout.addWidget(self.words)
        layout.addLayout(grid, 1)
        bridge.runs_changed.connect(self._on_changed)
        bridge.run_selected.connect(self._on_changed)
        bridge.selection_changed.connect(self._on_layer_selected)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()
        self._on_changed()

    def showEvent(self, event: QShowEvent) -> None:
        """Take in what came while nobody looked."""
        super().showEvent(event)
        self._on_changed()

    def _on_theme_changed(self, _palette: object = None) -> None:
        self.words.setMinimumHeight(self.fontMetrics().lineSpacing())

    def _on_changed(self, _value: object = None) -> None:
        """Draw again when another run or another epoch is there; progress alone changes nothing."""
        run = shown_training(self._session)
        record = run.training if run is not None else None
        seen = (run.id, run.state, record) if run is not None else ("none",)
        if len(seen) == len(self._drawn) and all(a is b or a == b for a, b in zip(seen, self._drawn, strict=True)):
            return
        if not self.isVisible() and self._drawn:
            return  # drawn when it is looked at
        self._drawn = seen
        if run is None or record is None:
            self.title.setText(tr("No training yet"))
            self.words.setText(tr("Start training draws its curves here, epoch by epoch."))
        else:
            self.title.setText(f"{run.title}, {method_title(record.settings.method)}, {state_text(run)}")
            self.words.setText(self._tell(run, record))
        self._draw(record)

    def _tell(self, run: Run, record: TrainingRecord) -> str:
        if not record.curve:
            return (
                tr("Waiting for the first epoch") if not run.state.is_final else run.error or tr("No epoch was done.")
            )
        last, total = record.curve[-1], record.settings.epochs
        parts = [tr("epoch {e} of {n}").format(e=last.epoch, n=total), tr("{b} bits").format(b=last.bits)]
        result = record.result
        if result is not None:
            best = next((p for p in record.curve if p.epoch == result.best_epoch), last)
            parts.append(
                tr("best epoch {e}: {q} (float {f}) on {n} held-out samples").format(
                    e=best.epoch,
                    q=format_percent(best.quantized_top1),
                    f=format_percent(best.float_top1),
                    n=f"{result.held_out_samples:,}",
                )
            )
        else:
            parts.append(
                tr("now {q} (float {f}) on the held-out samples").format(
                    q=format_percent(last.quantized_top1), f=format_percent(last.float_top1)
                )
            )
        parts.append(format_seconds(last.seconds))
        return ", ".join(parts)

    def _draw(self, record: TrainingRecord | None) -> None:
        curve = record.curve if record is not None else ()
        total = record.settings.epochs if record is not None else 1
        for plot in self.plots:
            plot.set_message("" if curve else tr("{name}: from the first epoch on").format(name=plot.name))
        if record is None or not curve:
            return
        epochs = np.array([point.epoch for point in curve], float)
        losses = [(point.epoch, point.loss) for point in curve if point.loss is not None]
        changes = stage_changes(curve)
        best = next((point for point in curve if point.epoch == best_epoch(record)), None)
        self.loss.set_curves(
            total,
            (
                (np.array([e for e, _ in losses], float), np.array([loss for _, loss in losses], float)),
                (epochs, np.array([point.held_out_loss for point in curve])),
            ),
            changes,
            (best.epoch, best.held_out_loss) if best is not None else None,
        )
        self.accuracy.set_curves(
            total,
            (
                (np.array([0.0, total]), np.full(2, curve[0].float_top1)),
                (epochs, np.array([point.quantized_top1 for point in curve])),
            ),
            changes,
            (best.epoch, best.quantized_top1) if best is not None else None,
        )
        rates = [(p.epoch, 1000 * p.learning_rate) for p in curve if p.epoch > 0]
        self.rate.set_curves(
            total, ((np.array([e for e, _ in rates], float), np.array([r for _, r in rates])),), changes
        )
        sites, moved = self._history.moves(curve)
        self.scales.set_scales(total, epochs, sites, moved)
        self._on_layer_selected()

    def _on_layer_selected(self, _layers: object = None) -> None:
        layer = self._session.current_layer
        weight = layer.weight.id if layer is not None and layer.weight is not None else ""
        output = layer.activation.id if layer is not None and layer.activation is not None else ""
        self.scales.set_selected(layer.name if layer is not None else "", weight, output)
