"""The run bar: what a run is asked with, the button that starts it, how far it is, how it is stopped."""

from __future__ import annotations

import time

from PySide6.QtCore import QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from qstudio.core.results import Device
from qstudio.engine.messages import JobState, Progress
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.data.data_state import is_opening
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.runs.figures import PHASE_WORDS
from qstudio.ui.storage_box import StorageBox
from qstudio.ui.text import format_seconds, tr
from qstudio.ui.theme import theme

FORCE_STOP_AFTER_MS = 3000
"""A run that is still stopping after this long can be ended by force."""


CAPTIONS_FROM_PX = 1400
"""From this width on every box has its caption."""


class RunBar(QFrame):
    """Device, data, sample counts, seed; Run PTQ, progress, Cancel, Force stop."""

    data_file_wanted = Signal()
    data_folder_wanted = Signal()

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setProperty("role", "strip")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._cancelling_since: float | None = None
        self._build(bridge)
        self._force_timer = QTimer(self)
        self._force_timer.setSingleShot(True)
        self._force_timer.setInterval(FORCE_STOP_AFTER_MS)
        self._force_timer.timeout.connect(self._on_still_stopping)
        bridge.devices_changed.connect(self._on_devices_changed)
        bridge.dataset_changed.connect(self._on_dataset_changed)
        bridge.options_changed.connect(self._on_options_changed)
        bridge.runs_changed.connect(self._on_changed)
        bridge.work_changed.connect(self._on_work_changed)
        bridge.model_changed.connect(self._on_changed)
        theme().changed.connect(self._on_theme_changed)
        self._on_devices_changed(session.devices)
        self._on_dataset_changed(session.dataset)
        self._on_options_changed(session.options)
        self._on_changed()

    # ---- making

    def _build(self, bridge: SessionBridge) -> None:
        self.device = QComboBox()
        self.device.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.device.setMinimumContentsLength(8)
        self.device.activated.connect(self._on_device_chosen)
        self.data = QPushButton()
        self._data_menu = QMenu(self)
        self._data_menu.setToolTipsVisible(True)
        digits = self._data_menu.addAction(tr("digits (comes with QStudio)"))
        digits.setToolTip(tr("1,797 handwritten digits of 8 x 8 pixels, from scikit-learn"))
        digits.triggered.connect(self._on_digits)
        self._data_menu.addAction(tr("Open a data file…")).triggered.connect(self.data_file_wanted)
        self._data_menu.addAction(tr("Open a data folder…")).triggered.connect(self.data_folder_wanted)
        self.data.setMenu(self._data_menu)
        self.calibrate = self._spin(1, 1_000_000, 64, self._on_calibrate)
        self.evaluate = self._spin(0, 10_000_000, 500, self._on_evaluate)
        self.evaluate.setSpecialValueText(tr("all"))
        self.seed = self._spin(0, 2**31 - 1, 1, self._on_seed)
        self.storage = StorageBox(self._session, bridge)
        self.run_place = QHBoxLayout()
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setMinimumWidth(60)
        self.progress.setMaximumWidth(320)
        self.progress.setAccessibleName(tr("Progress"))
        self.phase = ElidedLabel()
        self.phase.setProperty("role", "muted")
        self.phase.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.phase.setTextFormat(Qt.TextFormat.PlainText)
        self.stop_place = QHBoxLayout()
        self.force_stop = QPushButton(tr("Force stop"))
        self.force_stop.setToolTip(tr("End the run's process now; what it has measured so far is kept"))
        self.force_stop.setAccessibleName(tr("Force stop"))
        self.force_stop.clicked.connect(self._on_force_stop)
        self.force_stop.hide()
        self._captions: list[QLabel] = []
        """Of boxes that speak for themselves: "CPU", "digits", "int8"."""
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 8, 12, 8)
        layout.setSpacing(8)
        for caption, widget, told in (
            (tr("device"), self.device, tr("Where the run is computed")),
            (tr("data"), self.data, tr("The data that calibration and evaluation use")),
            (
                tr("calibrate"),
                self.calibrate,
                tr("Samples from which activation ranges are found. 100 to 1,000 are enough for most models."),
            ),
            (
                tr("evaluate"),
                self.evaluate,
                tr("Samples on which accuracy is measured. 1,000 samples cannot tell recipes 0.3 points apart."),
            ),
            (tr("seed"), self.seed, tr("Chooses the samples; the same seed gives the same numbers")),
        ):
            label = QLabel(caption)
            label.setProperty("role", "muted")
            label.setBuddy(widget)
            label.setToolTip(told)
            widget.setToolTip(told)
            widget.setAccessibleName(caption)
            layout.addWidget(label)
            layout.addWidget(widget)
            layout.addSpacing(8)
            if widget in (self.device, self.data):
                self._captions.append(label)
        layout.addWidget(self.storage)
        self._captions += self.storage.findChildren(QLabel)
        layout.addLayout(self.run_place)
        layout.addSpacing(8)
        layout.addWidget(self.progress, 1)
        layout.addWidget(self.phase, 2)
        layout.addLayout(self.stop_place)
        layout.addWidget(self.force_stop)

    def _spin(self, low: int, high: int, step: int, changed: object) -> QSpinBox:
        box = QSpinBox()
        box.setRange(low, high)
        box.setSingleStep(step)
        box.setGroupSeparatorShown(True)
        box.setKeyboardTracking(False)
        box.setMaximumWidth(theme().px(80))
        box.valueChanged.connect(changed)
        return box

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Leave out the captions that can be spared where the progress would have no room."""
        super().resizeEvent(event)
        for label in self._captions:
            label.setVisible(self.width() >= theme().px(CAPTIONS_FROM_PX))

    def _on_theme_changed(self, _palette: object) -> None:
        for box in (self.calibrate, self.evaluate, self.seed):
            box.setMaximumWidth(theme().px(80))

    # ---- the person

    def _on_device_chosen(self, index: int) -> None:
        self._session.set_options(device=self.device.itemData(index))

    def _on_digits(self) -> None:
        self._session.open_data("digits")

    def _on_calibrate(self, value: int) -> None:
        self._session.set_options(calibration_samples=value)

    def _on_evaluate(self, value: int) -> None:
        self._session.set_options(eval_samples=value or None)

    def _on_seed(self, value: int) -> None:
        self._session.set_options(seed=value)

    def _on_force_stop(self) -> None:
        if self._session.running is not None:
            self._session.force_stop_run()
        else:
            self._session.force_stop_work()

    # ---- following the session

    def _on_devices_changed(self, devices: tuple[Device, ...]) -> None:
        """List every device; one that is not available is grey and says why."""
        shown = devices or (Device("cpu", "CPU", True),)
        model = QStandardItemModel(self.device)
        for device in shown:
            # The closed box shows this text: the processor's full name would not fit.
            item = QStandardItem(device.title.split(" (")[0])
            item.setData(device.id, Qt.ItemDataRole.UserRole)
            item.setToolTip(device.title if device.available else f"{device.title}: {device.reason}")
            item.setEnabled(device.available and device.runs_simulation)
            if not device.available:
                item.setText(f"{device.title} ({tr('not available')})")
            elif not device.runs_simulation:
                item.setText(f"{device.title} ({tr('runs the exported file')})")
                item.setToolTip(tr("Runs and times the exported file in every run; the simulation runs elsewhere"))
            model.appendRow(item)
        with QSignalBlocker(self.device):
            self.device.setModel(model)
            self._show_device()
        reasons = [f"{device.title}: {device.reason}" for device in shown if not device.available]
        self.device.setToolTip("\n".join((tr("Where the run is computed"), *reasons)))
        self.device.view().setMinimumWidth(self.device.view().sizeHintForColumn(0) + 24)

    def _show_device(self) -> None:
        self.device.setCurrentIndex(max(self.device.findData(self._session.options.device), 0))

    def _on_dataset_changed(self, _dataset: object) -> None:
        self._show_data()
        self._on_changed()

    def _on_work_changed(self, _work: object) -> None:
        self._show_data()
        self._on_changed()

    def _show_data(self) -> None:
        dataset = self._session.dataset
        name = tr("opening…") if is_opening(self._session) else dataset.name if dataset else tr("Choose data")
        self.data.setText(self.data.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, theme().px(160)))
        told = tr("The data that calibration and evaluation use")
        if dataset:
            told = f"{dataset.path}\n{dataset.preprocess}"
        self.data.setToolTip(told)

    def _on_options_changed(self, _options: object) -> None:
        options = self._session.options
        for box, value in (
            (self.calibrate, options.calibration_samples),
            (self.evaluate, options.eval_samples or 0),
            (self.seed, options.seed),
        ):
            with QSignalBlocker(box):
                box.setValue(value)
        with QSignalBlocker(self.device):
            self._show_device()

    def _on_changed(self, _value: object = None) -> None:
        run = self._session.running
        stopping = self._stopping
        if stopping and not self._force_timer.isActive() and self._cancelling_since is None:
            self._cancelling_since = time.monotonic()
            self._force_timer.start()
        elif not stopping:
            self._cancelling_since = None
            self._force_timer.stop()
            self.force_stop.hide()
        if run is not None:
            self._show_run(run)
        else:
            self._show_work()

    @property
    def _stopping(self) -> bool:
        """Whether what takes the run process has been asked to stop: a run, a sweep or a search."""
        session = self._session
        run = session.running
        if run is not None:
            return run.state is JobState.CANCELLING
        return session.sensitivity.stopping or session.search.stopping

    def _on_still_stopping(self) -> None:
        self.force_stop.setVisible(self._stopping)

    def _show_run(self, run: Run) -> None:
        progress = run.progress
        if run.state is JobState.CANCELLING:
            words = tr("stopping…")
        elif run.state is JobState.QUEUED:
            words = tr("waiting")
        else:
            words = progress.note if progress and progress.note else tr(PHASE_WORDS.get(run.phase, run.phase))
        left = f"{format_seconds(progress.seconds_left)} {tr('left')}, " if progress and progress.seconds_left else ""
        share = ""
        if progress and progress.total > 0:
            share = f"{100 * progress.done / progress.total:.0f} %, "
        self._show_progress(progress.done if progress else 0.0, progress.total if progress else 0.0)
        self.phase.setText(f"{share}{left}{words}")
        self.phase.setToolTip(f"{run.title}: {self.phase.text()}")

    def _show_work(self) -> None:
        session = self._session
        busy = next((job for job in session.work if job.progress is not None and job.progress.total > 0), None)
        long = next((lens for lens in (session.sensitivity, session.search) if lens.running), None)
        if long is not None:
            self._show_long(long.progress, long.stopping)
        elif busy is not None and busy.progress is not None:
            self._show_progress(busy.progress.done, busy.progress.total)
            self.phase.setText(busy.progress.note or tr("working"))
        elif self._session.opening:
            self._show_progress(0, 0)
            self.phase.setText(tr("opening the model…"))
        else:
            self.progress.setVisible(False)
            last = next((run for run in reversed(self._session.runs) if run.state.is_final), None)
            self.phase.setText(f"{last.title}: {last.error}" if last and last.error else "")
        self.phase.setToolTip(self.phase.text())

    def _show_long(self, progress: Progress | None, stopping: bool) -> None:
        """Show how far a sweep or a search is."""
        self._show_progress(progress.done if progress else 0.0, progress.total if progress else 0.0)
        if stopping or progress is None or progress.total <= 0:
            self.phase.setText(tr("stopping…") if stopping else tr("waiting"))
            return
        left = f"{format_seconds(progress.seconds_left)} {tr('left')}, " if progress.seconds_left else ""
        self.phase.setText(f"{100 * progress.done / progress.total:.0f} %, {left}{progress.note}")

    def _show_progress(self, done: float, total: float) -> None:
        """Show a share, or that something runs whose length is not known."""
        self.progress.setVisible(True)
        self.progress.setRange(0, 1000 if total > 0 else 0)
        if total > 0:
            self.progress.setValue(round(1000 * min(done / total, 1.0)))
