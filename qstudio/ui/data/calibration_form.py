"""What ranges are found from: whose samples, and which of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from PySide6.QtWidgets import QComboBox, QFileDialog, QFormLayout, QLabel, QVBoxLayout, QWidget

from qstudio.core.errors import UserError
from qstudio.core.sample_choice import CHOICES, NOISES, is_noise, noise_kind
from qstudio.engine.messages import DataSpec
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.text import tr

OWN, FILE, FOLDER = "", "file", "folder"
"""Entries of the list of data that are no noise."""

NOISE_WORDS = tr(
    "Noise with the mean and the standard deviation of the data, on purpose: it shows what ranges from wrong data do. "
    "A run says so in its notes."
)


class CalibrationForm(QWidget):
    """Two lists, effective at once: the data of the calibration samples, and how they are chosen."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.ask_file: Callable[[], str] = self._asked_file
        self.ask_folder: Callable[[], str] = self._asked_folder
        self.data = QComboBox()
        self.data.setAccessibleName(tr("Calibration data"))
        self.data.setToolTip(
            tr("The data that ranges are found from: that of the evaluation (its training split), or other data")
        )
        self.choice = QComboBox()
        self.choice.setAccessibleName(tr("Choice of calibration samples"))
        self.choice.setToolTip(tr("Which of the samples ranges are found from; their number is in the run bar"))
        for name, meaning in CHOICES.items():
            self.choice.addItem(tr(name), name)
            self.choice.setItemData(self.choice.count() - 1, tr(meaning), 3)  # tooltip role
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setProperty("role", "muted")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(tr("Data"), self.data)
        form.addRow(tr("Samples"), self.choice)
        for box in (self.data, self.choice):
            box.setMinimumContentsLength(8)
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.words)
        self.data.activated.connect(self._on_data)
        self.choice.activated.connect(self._on_choice)
        bridge.options_changed.connect(self._on_changed)
        bridge.dataset_changed.connect(self._on_changed)
        self._on_changed()

    def _on_changed(self, _value: object = None) -> None:
        options, dataset = self._session.options, self._session.dataset
        spec = options.calibration_data
        self.data.clear()
        self.data.addItem(tr("the data's own"), OWN)
        for kind, title in NOISES.items():
            self.data.addItem(tr(title), f"noise:{kind}")
            self.data.setItemData(self.data.count() - 1, NOISE_WORDS, 3)  # tooltip role
        current = OWN
        if spec is not None:
            current = f"noise:{noise_kind(spec.source)}" if is_noise(spec.source) else spec.source
            if not is_noise(spec.source):
                self.data.addItem(spec.source.replace("\\", "/").rsplit("/", 1)[-1], spec.source)
                self.data.setItemData(self.data.count() - 1, spec.source, 3)
        self.data.addItem(tr("another file…"), FILE)
        self.data.addItem(tr("another folder…"), FOLDER)
        self.data.setCurrentIndex(self.data.findData(current))
        self.choice.setCurrentIndex(self.choice.findData(options.calibration_choice))
        blocked = "" if dataset is not None else tr("Choose data first")
        self.data.setEnabled(not blocked)
        self.choice.setEnabled(not blocked)
        noisy = spec is not None and is_noise(spec.source)
        words = NOISE_WORDS if noisy else tr(CHOICES[options.calibration_choice])
        self.words.setText(blocked or f"{words[:1].upper()}{words[1:]}")

    def _on_data(self, index: int) -> None:
        chosen = str(self.data.itemData(index))
        if chosen in (FILE, FOLDER):
            chosen = self.ask_file() if chosen == FILE else self.ask_folder()
            if not chosen:
                self._on_changed()
                return
        if not chosen:
            self._set(calibration_data=None)
            return
        spec = self._session.data_spec
        # Other data is read like the evaluation's; its splits are its own.
        self._set(calibration_data=DataSpec(chosen) if spec is None else replace(spec, source=chosen, split=None))

    def _on_choice(self, index: int) -> None:
        self._set(calibration_choice=str(self.choice.itemData(index)))

    def _set(self, **values: object) -> None:
        try:
            self._session.set_options(**values)
        except UserError as error:
            self.words.setText(error.sentence())

    def _asked_file(self) -> str:
        return QFileDialog.getOpenFileName(self, tr("Calibration data"))[0]

    def _asked_folder(self) -> str:
        return QFileDialog.getExistingDirectory(self, tr("Calibration data"))
