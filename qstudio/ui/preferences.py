"""The preferences: how the window looks, and what new work begins with. Everything is applied at once."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from PySide6.QtCore import QSignalBlocker, Qt, QTimer
from PySide6.QtGui import QStandardItem, QStandardItemModel, QWheelEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QFrame,
    QLabel,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.processor import usable_cores
from qstudio.core.results import Device
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.preference_values import MOST_THREADS, SECTION, Preferences, read_preferences
from qstudio.ui.settings import settings
from qstudio.ui.text import tr
from qstudio.ui.theme import Mode, theme

if TYPE_CHECKING:
    from qstudio.ui.main_window import MainWindow

MODES: tuple[tuple[Mode, str], ...] = (("system", "As the system"), ("light", "Light"), ("dark", "Dark"))


class QuietSpinBox(QSpinBox):
    """A number that the wheel changes only after it was chosen: the page around it scrolls."""

    def __init__(self, low: int, high: int, step: int) -> None:
        super().__init__()
        self.setRange(low, high)
        self.setSingleStep(step)
        self.setGroupSeparatorShown(True)
        self.setKeyboardTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave the wheel to the page unless the box has the focus."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class QuietComboBox(QComboBox):
    """A choice that the wheel changes only after it was chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave the wheel to the page unless the box has the focus."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class PreferencesDialog(QDialog):
    """Appearance, runs, engine, files; beside the window, which goes on working."""

    def __init__(self, session: Session, bridge: SessionBridge, window: MainWindow) -> None:
        super().__init__(window)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(tr("Preferences"))
        self.setModal(False)
        self._session = session
        self._window = window
        self.values = read_preferences()
        self._page = QWidget()
        self._column = QVBoxLayout(self._page)
        self._headings: list[QLabel] = []
        self._captions: list[QLabel] = []
        self._build()
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.area.setWidget(self._page)
        buttons = QDialogButtonBox()
        self.defaults = QPushButton(tr("Restore defaults"))
        self.defaults.setToolTip(tr("Give every preference on this page the value it came with"))
        self.close_button = QPushButton(tr("Close"))
        self.close_button.setToolTip(tr("Everything has been applied already (Esc)"))
        buttons.addButton(self.defaults, QDialogButtonBox.ButtonRole.ResetRole)
        buttons.addButton(self.close_button, QDialogButtonBox.ButtonRole.RejectRole)
        self.defaults.setAutoDefault(False)
        self.close_button.setAutoDefault(False)
        self.defaults.clicked.connect(self.restore_defaults)
        self.close_button.clicked.connect(self.reject)
        self._whole = QVBoxLayout(self)
        self._whole.addWidget(self.area, 1)
        self._whole.addWidget(buttons)
        self._show_look()
        self._show_values()
        self._show_devices(session.devices)
        self._fit()
        theme().changed.connect(self._on_theme_changed)
        bridge.devices_changed.connect(self._show_devices)
        if not session.devices:
            session.list_devices()

    # ---- making

    def _build(self) -> None:
        cores = usable_cores()
        self.mode = QuietComboBox()
        for mode, title in MODES:
            self.mode.addItem(tr(title), mode)
        self.zoom = QuietSpinBox(80, 200, 10)
        self.zoom.setSuffix(" %")
        self.device = QuietComboBox()
        self.preview_samples = QuietSpinBox(16, 100_000, 100)
        self.timing_threads = QuietSpinBox(0, MOST_THREADS, 1)
        self.timing_threads.setSpecialValueText(tr("automatic"))
        self.engine_threads = QuietSpinBox(0, MOST_THREADS, 1)
        self.engine_threads.setSpecialValueText(tr("automatic"))
        self.autosave = QCheckBox(tr("Save work that has no project"))
        form = self._section(tr("Appearance"))
        self._add(form, tr("Theme"), self.mode, tr("Colours of the window and of every plot. At once."))
        self._add(form, tr("Zoom"), self.zoom, tr("Size of text and spacing, 80 to 200 %. At once. Ctrl++, Ctrl+-."))
        form = self._section(tr("Runs"))
        told = tr("Where runs are computed, now and when new work begins. A project has its own.")
        self.device_note = self._add(form, tr("Default device"), self.device, told)
        self._device_told = told
        self._add(
            form,
            tr("Preview samples"),
            self.preview_samples,
            tr(
                "Samples on which the accuracy of each edit is estimated, 16 to 100,000. At once. 1,000 cannot tell "
                "recipes 0.3 points apart; more take longer in proportion."
            ),
        )
        self._add(
            form,
            tr("Threads of latency"),
            self.timing_threads,
            tr(
                "Threads of onnxruntime when float and exported model are timed. From the next run, recorded with it. "
                "Automatic: all {n} cores. Choose what the target will have."
            ).format(n=cores),
        )
        form = self._section(tr("Engine"))
        self._add(
            form,
            tr("Threads of the engine"),
            self.engine_threads,
            tr(
                "Threads of the numerical libraries in each engine process (calibration, simulation, training). From "
                "the next start. Automatic: one less than the cores, {n} here, so that the window has one to itself."
            ).format(n=max(cores - 1, 1)),
        )
        form = self._section(tr("Files"))
        self._add(
            form,
            "",
            self.autosave,
            tr(
                "Keeps every edit and run on disk, and restores them after a crash. From the next start. Without it, "
                "work is lost with the program unless it was saved as a project."
            ),
            tr("Save work that has no project"),
        )
        self._column.addStretch(1)
        self.mode.activated.connect(self._on_mode)
        self.zoom.valueChanged.connect(self._on_zoom)
        self.device.activated.connect(self._on_device)
        self.preview_samples.valueChanged.connect(self._on_preview_samples)
        self.timing_threads.valueChanged.connect(self._on_timing_threads)
        self.engine_threads.valueChanged.connect(self._on_engine_threads)
        self.autosave.toggled.connect(self._on_autosave)

    def _section(self, title: str) -> QFormLayout:
        heading = QLabel(title)
        self._headings.append(heading)
        self._column.addWidget(heading)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.FieldsStayAtSizeHint)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        self._column.addLayout(form)
        return form

    def _add(self, form: QFormLayout, caption: str, box: QWidget, told: str, name: str = "") -> QLabel:
        """Add a control with what it means beneath it; return the label that says so."""
        note = QLabel(told)
        note.setProperty("role", "muted")
        note.setWordWrap(True)
        box.setToolTip(told)
        box.setAccessibleName(name or caption)
        box.setAccessibleDescription(told)
        if caption:
            label = QLabel(caption)
            label.setBuddy(box)
            label.setToolTip(told)
            self._captions.append(label)
            form.addRow(label, box)
        else:
            form.addRow(box)
        form.addRow(note)
        return note

    # ---- showing

    def _show_look(self) -> None:
        with QSignalBlocker(self.mode), QSignalBlocker(self.zoom):
            self.mode.setCurrentIndex(self.mode.findData(theme().mode))
            self.zoom.setValue(round(theme().zoom * 100))
        for heading in self._headings:
            heading.setFont(theme().font("normal", bold=True))
        for caption in self._captions:
            caption.ensurePolished()
            caption.setMinimumWidth(0)
        widest = max(caption.sizeHint().width() for caption in self._captions)
        for caption in self._captions:
            caption.setMinimumWidth(widest)
        self._column.setSpacing(theme().px(8))

    def _show_values(self) -> None:
        for box, value in (
            (self.preview_samples, self.values.preview_samples),
            (self.timing_threads, self.values.timing_threads),
            (self.engine_threads, self.values.engine_threads),
        ):
            with QSignalBlocker(box):
                box.setValue(value)
        with QSignalBlocker(self.autosave):
            self.autosave.setChecked(self.values.autosave)
        with QSignalBlocker(self.device):
            self.device.setCurrentIndex(self.device.findData(self.values.device))

    def _show_devices(self, devices: tuple[Device, ...]) -> None:
        """List every device; one that cannot compute runs is grey, and beneath the box stands why."""
        shown = list(devices or (Device("cpu", "CPU", True),))
        if all(device.id != self.values.device for device in shown):
            reason = tr("not found on this machine") if devices else tr("being looked for")
            shown.append(Device(self.values.device, self.values.device, False, reason))
        model = QStandardItemModel(self.device)
        reasons = []
        for device in shown:
            usable = device.available and device.runs_simulation
            item = QStandardItem(device.title.split(" (")[0])
            item.setData(device.id, Qt.ItemDataRole.UserRole)
            item.setEnabled(usable)
            item.setToolTip(device.title)
            if not usable:
                reason = device.reason or tr("runs and times exported files only; the simulation runs elsewhere")
                item.setToolTip(f"{device.title}: {reason}")
                if device.runs_simulation:
                    reasons.append(f"{device.title}: {reason}.")
            model.appendRow(item)
        with QSignalBlocker(self.device):
            self.device.setModel(model)
            self.device.setCurrentIndex(self.device.findData(self.values.device))
        if any(not device.runs_simulation for device in shown):
            reasons.append(tr("The other grey ones run and time exported files only."))
        text = "\n".join((self._device_told, *reasons))
        self.device_note.setText(text)
        self.device.setToolTip(text)
        self.device.setAccessibleDescription(text)
        QTimer.singleShot(0, self, self._fit)

    def _on_theme_changed(self, _palette: object) -> None:
        self._show_look()
        # Once the labels have taken the new font: until then they ask for the height of the old one.
        QTimer.singleShot(0, self, self._fit)

    def _fit(self) -> None:
        """Be as large as the page needs, within the screen."""
        room = self.screen().availableGeometry()
        width = min(theme().px(560), room.width() - 40)
        margins = self._whole.contentsMargins()
        page = self._column.totalHeightForWidth(width - margins.left() - margins.right())
        wanted = page + self._whole.sizeHint().height() - self.area.sizeHint().height()
        self.resize(width, min(wanted, room.height() - 80))
        frame = self.frameGeometry()
        if self.isVisible() and not room.contains(frame):
            self.move(
                max(min(frame.x(), room.right() - frame.width()), room.x()),
                max(min(frame.y(), room.bottom() - frame.height()), room.y()),
            )

    # ---- the person

    def _on_mode(self, index: int) -> None:
        self._window.set_theme(self.mode.itemData(index))

    def _on_zoom(self, percent: int) -> None:
        self._window.set_zoom(percent / 100)

    def _on_device(self, index: int) -> None:
        self._change(device=str(self.device.itemData(index)))
        self._session.set_options(device=self.values.device)

    def _on_preview_samples(self, value: int) -> None:
        self._change(preview_samples=value)
        self._session.preview.set_samples(value)

    def _on_timing_threads(self, value: int) -> None:
        self._change(timing_threads=value)
        self._session.set_options(threads=value)

    def _on_engine_threads(self, value: int) -> None:
        self._change(engine_threads=value)

    def _on_autosave(self, on: bool) -> None:
        self._change(autosave=on)

    def _change(self, **changes: object) -> None:
        """Keep a choice; new work begins with it."""
        self.values = replace(self.values, **changes)  # type: ignore[arg-type]
        store = settings()
        for name, value in asdict(self.values).items():
            store.setValue(f"{SECTION}/{name}", value)
        store.sync()
        self._session.default_options = self.values.run_options(self._session.devices)

    def restore_defaults(self) -> None:
        """Give every preference its first value, and apply it."""
        self._window.set_theme("system")
        self._window.set_zoom(1.0)
        self._change(**asdict(Preferences()))
        self._show_values()
        self._session.preview.set_samples(self.values.preview_samples)
        self._session.set_options(device=self.values.device, threads=self.values.timing_threads)


def show_preferences(window: MainWindow) -> PreferencesDialog:
    """Open the preferences, or bring the open ones to the front."""
    dialog = window.findChild(PreferencesDialog)
    if dialog is None:
        dialog = PreferencesDialog(window.session, window.bridge, window)
    dialog.show()
    dialog.raise_()
    dialog.activateWindow()
    dialog.mode.setFocus()
    return dialog
