"""The layer table panel: filter, table, footer."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtCore import QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import Scheme
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.icons import icon
from qstudio.ui.runs.figures import same_recipe
from qstudio.ui.table.layer_model import LayerModel
from qstudio.ui.table.layer_view import LayerView
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

PREVIEW_DELAY_MS = 120
"""Exact weight errors are asked for when edits have rested this long, so that a drag does not flood the engine."""


class LayerTable(QWidget):
    """Every layer of the model with what is chosen for it; selection and edits go through the session."""

    columns_changed = Signal()

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._asked: dict[str, Scheme] = {}
        self.model = LayerModel(session)
        self.view = LayerView(session, self.model, self)
        self.view.columns_changed.connect(self.columns_changed)
        self._build()
        self._previews = QTimer(self)
        self._previews.setSingleShot(True)
        self._previews.setInterval(PREVIEW_DELAY_MS)
        self._previews.timeout.connect(self._request_previews)
        self.view.verticalScrollBar().valueChanged.connect(self._on_scrolled)
        bridge.model_changed.connect(self._on_model_changed)
        bridge.recipe_changed.connect(self._on_recipe_changed)
        bridge.selection_changed.connect(self._on_selection_changed)
        bridge.statistics_changed.connect(self._on_statistics_changed)
        bridge.preview_changed.connect(self._on_preview_changed)
        bridge.runs_changed.connect(self._on_runs_changed)
        bridge.run_selected.connect(self._on_run_selected)
        theme().changed.connect(self._on_theme_changed)
        self._results: tuple[object, ...] = ()
        self._on_model_changed(session.model)

    def _build(self) -> None:
        self._filter = QLineEdit()
        self._filter.setPlaceholderText(tr("Filter layers  ( / )"))
        self._filter.setClearButtonEnabled(True)
        self._filter.setAccessibleName(tr("Filter layers"))
        self._filter.setToolTip(tr("Show the layers whose name or type holds this text"))
        self._filter.textChanged.connect(self._on_filter_changed)
        self._regex = QToolButton()
        self._regex.setText(".*")
        self._regex.setCheckable(True)
        self._regex.setAccessibleName(tr("Regular expression"))
        self._regex.setToolTip(tr("Read the filter as a regular expression on the layer's name"))
        self._regex.toggled.connect(self._on_filter_changed)
        self._type = QComboBox()
        self._type.setAccessibleName(tr("Layer type"))
        self._type.setToolTip(tr("Show the layers of one operator type"))
        self._type.currentIndexChanged.connect(self._on_filter_changed)
        self._columns = QToolButton()
        self._columns.setText(tr("Columns"))
        self._columns.setProperty("role", "flat")
        self._columns.setAccessibleName(tr("Choose columns"))
        self._columns.setToolTip(tr("Choose which columns are shown"))
        self._columns.clicked.connect(self._on_columns_clicked)
        top = QHBoxLayout()
        top.setContentsMargins(8, 8, 8, 8)
        top.setSpacing(8)
        top.addWidget(self._filter, 1)
        top.addWidget(self._regex)
        top.addWidget(self._type)
        top.addWidget(self._columns)
        self._footer = QLabel()
        self._footer.setProperty("role", "muted")
        self._badge = QLabel()
        self._badge.setProperty("role", "watch")
        self._badge.setToolTip(tr("The recipe was edited since the last run; a dot marks the layers. Ctrl+R runs it."))
        self._undo_place = QHBoxLayout()
        bottom = QHBoxLayout()
        bottom.setContentsMargins(10, 6, 10, 6)
        bottom.setSpacing(16)
        bottom.addWidget(self._footer)
        bottom.addWidget(self._badge)
        bottom.addStretch(1)
        bottom.addLayout(self._undo_place)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(top)
        layout.addWidget(self.view, 1)
        layout.addLayout(bottom)

    def add_button(self, button: QWidget) -> None:
        """Put a button into the footer, at the right."""
        self._undo_place.addWidget(button)

    def load_icons(self) -> None:
        """Draw the icons; not before the window stands."""
        self._columns.setIcon(icon("fa6s.table-columns", "muted"))
        self._columns.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)

    def focus_filter(self) -> None:
        """Put the cursor into the filter."""
        self._filter.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self._filter.selectAll()

    def set_filter(self, text: str, regex: bool = False) -> None:
        """Filter the layers as if it had been typed."""
        self._regex.setChecked(regex)
        self._filter.setText(text)

    def save_csv(self, path: str | os.PathLike[str]) -> None:
        """Write what is shown as CSV.

        Raises:
            UserError: The file cannot be written.
        """
        try:
            Path(path).write_text(self.view.as_text(",", selected_only=False), encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"the table was not saved ({reason})", str(path), "Choose another folder") from None

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Ask for the errors of the rows that have come into view."""
        super().resizeEvent(event)
        self._previews.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Ask for the errors of the rows that have come into view."""
        super().showEvent(event)
        self._previews.start()

    # ---- following the session

    def _on_model_changed(self, _model: object) -> None:
        self._asked.clear()
        with QSignalBlocker(self._type), QSignalBlocker(self._filter):
            self._filter.clear()
            self.model.set_filter("", self._regex.isChecked(), "")
            self.model.load()
            self._type.clear()
            self._type.addItem(tr("All types"), "")
            for name in self.model.types:
                self._type.addItem(name, name)
        self.view.forget_pictures()
        self.view.follow_selection()
        self._tell_counts()

    def _on_recipe_changed(self, recipe: Recipe) -> None:
        self.model.refresh_recipe(recipe)
        self.model.refresh_columns("output_sqnr", "sparsity", "layer")
        self._tell_counts()
        self._previews.start()

    def _on_selection_changed(self, _selection: object) -> None:
        if not self.view.following:
            self.view.follow_selection()
        self._tell_counts()

    def _on_statistics_changed(self, kind: str) -> None:
        if kind == "weights":
            self.view.forget_pictures()
            self.model.refresh_columns("histogram", "weight_sqnr")
            self._previews.start()

    def _on_preview_changed(self, layer: str) -> None:
        self.model.refresh_cell(layer, "weight_sqnr")

    def _on_runs_changed(self, runs: tuple[object, ...]) -> None:
        """Redraw what depends on results; progress alone changes nothing here."""
        results = tuple(getattr(run, "result", None) for run in runs)
        if len(results) != len(self._results) or any(a is not b for a, b in zip(results, self._results, strict=True)):
            self._results = results
            self.model.refresh_columns("output_sqnr", "sparsity", "layer")
            self._tell_counts()

    def _on_run_selected(self, _number: object) -> None:
        self.model.refresh_columns("output_sqnr", "sparsity")

    def _on_theme_changed(self, _palette: object) -> None:
        self.view.restyle()
        self.model.refresh()

    def _on_scrolled(self, _value: int) -> None:
        self._previews.start()

    def _request_previews(self) -> None:
        """Ask for the exact weight error of the layers on screen whose scheme is new."""
        if self._session.model is None or not self.view.isVisible():
            return
        first = max(self.view.rowAt(0), 0)
        last = self.view.rowAt(self.view.viewport().height() - 1)
        last = self.model.rowCount() - 1 if last < 0 else last
        for row in range(first, last + 1):
            layer = self.model.layer_at(row)
            if layer.weight is None or layer.unsupported:
                continue
            scheme = self._session.settings(layer.name).weight_scheme()
            if self._asked.get(layer.name) != scheme:
                self._asked[layer.name] = scheme
                self._session.request_preview(layer.name)

    # ---- the person

    def _on_filter_changed(self, _value: object = None) -> None:
        self.model.set_filter(self._filter.text(), self._regex.isChecked(), self._type.currentData() or "")
        self._filter.setToolTip(self.model.filter_error or tr("Show the layers whose name or type holds this text"))
        self._tell_counts()
        self._previews.start()

    def _on_columns_clicked(self) -> None:
        menu = self.view.column_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self._columns.mapToGlobal(self._columns.rect().bottomLeft()))

    def _tell_counts(self) -> None:
        session = self._session
        known = {layer.name for layer in session.model.layers} if session.model else set()
        changed = sum(name in known for name, _ in session.recipe.overrides)
        shown, total = self.model.rowCount(), self.model.layer_count
        parts = [f"{shown} {tr('of')} {total} {tr('layers')}" if shown != total else f"{total} {tr('layers')}"]
        parts.append(f"{changed} {tr('changed')}")
        if len(session.selection) > 1:
            parts.append(f"{len(session.selection)} {tr('selected')}")
        if self.model.filter_error:
            parts = [self.model.filter_error]
        self._footer.setText(", ".join(parts))
        done = [
            run for run in session.runs if run.result and session.model and run.model_sha256 == session.model.sha256
        ]
        unrun = bool(done) and not any(same_recipe(session, run) for run in done)
        self._badge.setText("● " + tr("edits not yet run") if unrun else "")
