"""The data panel: what the network is fed, and whether it copes with it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.results import Metrics
from qstudio.engine.messages import DataSpec, SamplePage
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.data.calibration_form import CalibrationForm
from qstudio.ui.data.data_state import is_opening
from qstudio.ui.data.preprocess_form import PreprocessForm
from qstudio.ui.data.sample_grid import SampleGrid
from qstudio.ui.text import format_count, format_interval, format_percent, tr
from qstudio.ui.theme import theme

PAGE = 24
"""Samples on a page."""


class DataPanel(QWidget):
    """Samples at the left, float accuracy, facts and preprocessing at the right."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._first = 0
        self._was_opening = False
        self.grid = SampleGrid()
        self.grid.sample_taken.connect(session.pictures.show_sample)
        self._empty = QLabel()
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._empty.setProperty("role", "muted")
        self._where = QLabel()
        self._where.setProperty("role", "muted")
        self.back = self._button(tr("Earlier"), tr("Show the samples before these"), self._on_back)
        self.forward = self._button(tr("Later"), tr("Show the samples after these"), self._on_forward)
        self.form = PreprocessForm()
        self.form.applied.connect(self._on_applied)
        self.calibration = CalibrationForm(session, bridge)
        self._headings = [QLabel(tr(text)) for text in ("Float accuracy", "Data", "Calibration", "Preprocessing")]
        self.accuracy = self._words()
        self.accuracy.setToolTip(
            tr("Top-1 of the float model on the evaluation samples, in percent, with its 95 % interval")
        )
        self.facts = self._words()
        self.warnings = self._words()
        self.warnings.setProperty("role", "watch")
        self._build()
        bridge.dataset_changed.connect(self._on_dataset_changed)
        bridge.samples_changed.connect(self._on_samples_changed)
        bridge.float_metrics_changed.connect(self._on_metrics_changed)
        bridge.model_changed.connect(self._on_model_changed)
        bridge.work_changed.connect(self._on_work_changed)
        theme().changed.connect(self._on_theme_changed)
        self._on_theme_changed()
        self._on_dataset_changed(session.dataset)
        self._on_samples_changed(session.sample_page)
        self._on_metrics_changed(session.float_metrics)

    def _words(self) -> QLabel:
        label = QLabel()
        label.setWordWrap(True)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        return label

    def _button(self, text: str, told: str, clicked: object) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(told)
        button.setAccessibleName(told)
        button.clicked.connect(clicked)
        return button

    def _build(self) -> None:
        legend = QLabel(tr("as stored | as the network sees it;  ✓ label → float prediction"))
        legend.setProperty("role", "muted")
        legend.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        pager = QHBoxLayout()
        pager.setContentsMargins(8, 8, 8, 8)
        pager.addWidget(legend, 1)
        pager.addWidget(self._where)
        pager.addWidget(self.back)
        pager.addWidget(self.forward)
        left = QVBoxLayout()
        left.setSpacing(0)
        left.addLayout(pager)
        left.addWidget(self.grid, 1)
        left.addWidget(self._empty, 1)
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(16, 12, 12, 12)
        column.setSpacing(8)
        contents = ((self.accuracy,), (self.facts, self.warnings), (self.calibration,), (self.form,))
        for heading, parts in zip(self._headings, contents, strict=True):
            heading.setProperty("role", "heading")
            column.addWidget(heading)
            for part in parts:
                column.addWidget(part)
            column.addSpacing(16)
        column.addStretch(1)
        self._side = QScrollArea()
        self._side.setWidgetResizable(True)
        self._side.setFrameShape(QFrame.Shape.NoFrame)
        self._side.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._side.setWidget(side)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(left, 1)
        layout.addWidget(self._side)

    def _on_theme_changed(self, _palette: object = None) -> None:
        self._side.setFixedWidth(theme().px(280))
        self.grid.doItemsLayout()
        self.grid.viewport().update()

    # ---- following the session

    def _on_model_changed(self, _model: object) -> None:
        self._on_dataset_changed(self._session.dataset)

    def _on_work_changed(self, _work: object) -> None:
        """Tell that data is being read, or that it was not."""
        opening = is_opening(self._session)
        if opening != self._was_opening and self._session.dataset is None:
            self._on_dataset_changed(None)
        self._was_opening = opening

    def _on_dataset_changed(self, dataset: DatasetInfo | None) -> None:
        self._first = 0
        spec = self._session.data_spec
        self.form.show_spec(spec)
        if dataset is None:
            self.facts.setText(tr("Being read…") if is_opening(self._session) else tr("No data is open."))
            self.warnings.setText("")
        else:
            classes = f"{dataset.n_classes} {tr('classes')}" if dataset.n_classes else tr("no labels")
            sizes = ", ".join(f"{name} {format_count(size)}" for name, size in dataset.sizes.items())
            stored = "x".join(map(str, dataset.stored_shape))
            shape = "x".join(map(str, dataset.sample_shape))
            self.facts.setText(
                f"{dataset.name} ({dataset.kind})\n{sizes} {tr('samples')}\n{classes}\n"
                f"{tr('stored')}: {dataset.stored_dtype} {stored}\n{tr('network')}: {dataset.dtype} {shape}\n"
                f"{dataset.preprocess}"
            )
            self.warnings.setText("\n".join(dataset.warnings))
        self.warnings.setVisible(bool(self.warnings.text()))
        self._on_samples_changed(self._session.sample_page)
        self._on_metrics_changed(self._session.float_metrics)

    def _on_samples_changed(self, page: SamplePage | None) -> None:
        shown = page if page is not None and page.indices else None
        self.grid.samples.show_page(shown)
        self.grid.setVisible(shown is not None)
        self._empty.setVisible(shown is None)
        session = self._session
        if shown is None:
            if session.model is not None and session.model.unsupported:
                words = tr("The samples cannot be shown: the model has operators that cannot run.")
            elif session.dataset is not None or is_opening(session):
                words = tr("The samples are being read…")
            else:
                words = tr("Choose data in the run bar below: digits, a file, or a folder.")
            self._empty.setText(words)
            self._where.setText("")
        else:
            self._first = shown.indices[0]
            self._where.setText(f"{format_count(self._first)}–{format_count(shown.indices[-1])} / {self._total():,}")
        self._set_enabled(self.back, shown is not None and self._first > 0, tr("These are the first samples"))
        more = shown is not None and shown.indices[-1] + 1 < self._total()
        self._set_enabled(self.forward, more, tr("These are the last samples"))

    def _set_enabled(self, button: QPushButton, enabled: bool, reason: str) -> None:
        button.setEnabled(enabled)
        button.setToolTip(button.accessibleName() if enabled else reason)

    def _total(self) -> int:
        dataset = self._session.dataset
        if dataset is None:
            return 0
        split = (self._session.data_spec.split if self._session.data_spec else None) or "test"
        return dataset.sizes.get(split, max(dataset.sizes.values(), default=0))

    def _on_metrics_changed(self, metrics: Metrics | None) -> None:
        if metrics is None:
            waiting = self._session.dataset is not None and self._session.model is not None
            self.accuracy.setText(tr("Being measured…") if waiting else tr("Open a model and data."))
        elif metrics.top1 is None:
            self.accuracy.setText(
                tr(
                    "This data has no labels, so accuracy cannot be measured. Runs tell the agreement instead: on how "
                    "many samples the quantized network gives the answer of the float network."
                )
            )
        else:
            interval = format_interval(metrics.top1_interval)
            text = f"{format_percent(metrics.top1)} {interval}\n{format_count(metrics.samples)} {tr('samples')}"
            if metrics.top5 is not None:
                text += f"\n{tr('top 5')} {format_percent(metrics.top5)}"
            if metrics.loss is not None:
                text += f"\n{tr('loss')} {metrics.loss:.4f}"
            self.accuracy.setText(text)

    # ---- the person

    def _on_back(self) -> None:
        self._show_from(max(self._first - PAGE, 0))

    def _on_forward(self) -> None:
        self._show_from(self._first + PAGE)

    def _show_from(self, first: int) -> None:
        self._session.show_samples(tuple(range(first, min(first + PAGE, self._total()))))

    def _on_applied(self, spec: DataSpec) -> None:
        self._session.open_data(spec)
