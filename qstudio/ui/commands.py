"""What the actions do: the steps between a key or a menu and the session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QApplication, QFileDialog

from qstudio.core.errors import UserError
from qstudio.core.resources import SampleModel
from qstudio.engine.messages import DataSpec, JobState
from qstudio.session.options import Notice, Run
from qstudio.session.project_places import SUFFIX
from qstudio.session.session import Session
from qstudio.ui.project import ProjectCommands
from qstudio.ui.settings import add_recent_file
from qstudio.ui.text import tr

if TYPE_CHECKING:
    from qstudio.ui.main_window import MainWindow

MODEL_FILTER = "Models (*.onnx *.pt2);;All files (*)"
DATA_FILTER = "Data (*.npz *.txt);;All files (*)"
RECIPE_FILTER = "Recipes (*.json);;All files (*)"
EXPORT_FILTER = "ONNX models (*.onnx)"
MODEL_ENDINGS = (".onnx", ".pt2", ".pt", ".pth", ".ckpt", ".pkl")


class Commands(QObject):
    """The person's commands, on a session and a window. No dialog here is modal to the program."""

    recent_changed = Signal()

    def __init__(self, session: Session, window: MainWindow) -> None:
        super().__init__(window)
        self.session = session
        self.window = window
        self._exports = tempfile.TemporaryDirectory(prefix="qstudio-")
        session.search.export_folder = self._exports.name
        self.project = ProjectCommands(session, window)
        self.project.opened.connect(self.recent_changed)
        self._pending_data: DataSpec | str | None = None
        self._wanted_exports: dict[int, str] = {}

    def close(self) -> None:
        """Remove the exports that nobody asked to keep."""
        self.project.close()
        self._exports.cleanup()

    def tell(self, error: UserError) -> None:
        """Show what is wrong as a notice."""
        self.session.notice_posted.emit(Notice("error", error.sentence()))

    # ---- opening

    def open_path(self, path: str) -> None:
        """Open whatever it is: a project, a model, a recipe, or data."""
        lower = path.lower()
        if lower.endswith(SUFFIX):
            self.project.open(path)
        elif lower.endswith(MODEL_ENDINGS):
            self.open_model(path)
        elif lower.endswith(".json") and not lower.endswith(".dataset.json"):
            self.load_recipe_from(path)
        else:
            self.session.open_data(path)

    def open_model(self, path: str, data: str = "") -> None:
        """Open a model, and data with it where they belong together."""
        self._pending_data = data
        self.session.open_model(path)
        self.window.show_opening()

    def await_model(self, data: DataSpec | None) -> None:
        """Open data for the model that is being opened already."""
        self._pending_data = data

    def open_sample(self, sample: SampleModel) -> None:
        """Open a sample model with its data: the next step is Run PTQ."""
        self.open_model(str(sample.path), sample.data)

    def on_model_changed(self, model: object) -> None:
        """Remember a model that was opened and open the data that belongs to it."""
        if model is None or self.session.model is None:
            return
        if not self.session.project.path:
            add_recent_file(self.session.model.path)
        self.recent_changed.emit()
        data, self._pending_data = self._pending_data, None
        if data:
            self.session.open_data(data)

    def ask_model(self) -> None:
        """Ask for a model file."""
        self._ask_file(tr("Open model"), MODEL_FILTER, self._on_model_chosen)

    def _on_model_chosen(self, path: str) -> None:
        self.open_model(path)

    def ask_data_file(self) -> None:
        """Ask for a data file."""
        self._ask_file(tr("Open data"), DATA_FILTER, self._on_data_chosen)

    def ask_data_folder(self) -> None:
        """Ask for a data folder."""
        dialog = self._dialog(tr("Open data folder"), "")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(self._on_data_chosen)
        dialog.open()

    def _on_data_chosen(self, path: str) -> None:
        self.session.open_data(path)

    # ---- recipe

    def ask_recipe(self) -> None:
        """Ask for a recipe file."""
        self._ask_file(tr("Load recipe"), RECIPE_FILTER, self.load_recipe_from)

    def load_recipe_from(self, path: str) -> None:
        """Load a recipe, as one undoable step."""
        try:
            self.session.load_recipe(path)
        except UserError as error:
            self.tell(error)

    def ask_save_recipe(self) -> None:
        """Ask where to save the recipe."""
        name = f"{Path(self.session.model.path).stem}.recipe.json" if self.session.model else "recipe.json"
        self.ask_save(tr("Save recipe"), RECIPE_FILTER, name, "json", self._on_save_recipe)

    def _on_save_recipe(self, path: str) -> None:
        try:
            self.session.save_recipe(path)
        except UserError as error:
            self.tell(error)
            return
        self.session.notice_posted.emit(Notice("info", f"{tr('The recipe was saved to')} {path}."))

    # ---- running

    def run_ptq(self) -> None:
        """Run PTQ; its export is kept aside until the program ends, so that it can be saved without running again."""
        number = len(self.session.runs) + 1
        stem = Path(self.session.model.path).stem if self.session.model else "model"
        try:
            self.session.run_ptq(os.path.join(self._exports.name, f"{stem}-run{number}.onnx"))
        except UserError as error:
            self.tell(error)
            return
        self.window.show_perspective("tune")

    def start_training(self, resume: bool = False, further: bool = True) -> None:
        """Train from the start, or go on from the checkpoint (to the end, or only measuring its best epoch)."""
        number = len(self.session.runs) + 1
        stem = Path(self.session.model.path).stem if self.session.model else "model"
        path = os.path.join(self._exports.name, f"{stem}-run{number}.onnx")
        try:
            self.session.train(path, resume=resume, further=further)
        except UserError as error:
            self.tell(error)
            return
        self.window.show_training()

    def resume_blocked(self) -> str:
        """Return why no training can be resumed; empty when one can."""
        if self.session.train_blocked:
            return self.session.train_blocked
        return "" if self.session.checkpoint is not None else tr("There is no unfinished training of these choices")

    def best_epoch_blocked(self) -> str:
        """Return why no best epoch can be measured; empty when one can."""
        reason = self.resume_blocked()
        left = self.session.checkpoint
        if reason or left is None:
            return reason
        return "" if left.best_epoch is not None else tr("No epoch at the recipe's own bits is done yet")

    def start_long(self, panel: str, start: Callable[[], object]) -> None:
        """Show the panel of a sweep or a search and start it."""
        self.window.show_panel(panel)
        try:
            start()
        except UserError as error:
            self.tell(error)

    def cancel(self) -> None:
        """Stop the run in progress; where there is none, the work in the background."""
        if self.session.running is not None:
            self.session.cancel_run()
        elif self.session.sensitivity.running or self.session.search.running:
            self.session.sensitivity.cancel()
            self.session.search.cancel()
        else:
            self.session.cancel_work()

    def copy_python(self) -> None:
        """Copy a script that gives the selected run's numbers; without a run, those of the present settings."""
        try:
            QApplication.clipboard().setText(self.session.as_python(self.session.selected_run))
        except UserError as error:
            self.tell(error)
            return
        self.session.notice_posted.emit(Notice("info", tr("The Python script is in the clipboard.")))

    def exportable_run(self) -> Run | None:
        """Return the selected run when its export can be saved."""
        run = next((run for run in self.session.runs if run.id == self.session.selected_run), None)
        if run is None or run.state is not JobState.DONE or run.result is None:
            return None
        return run if run.result.export_path and os.path.exists(run.result.export_path) else None

    def export_blocked(self) -> str:
        """Return why nothing can be exported; empty when it can."""
        return "" if self.exportable_run() is not None else self.session.run_blocked

    def ask_export(self) -> None:
        """Ask where to save the exported model: the selected run's, or that of a run started now."""
        run = self.exportable_run()
        model = run.model if run else (self.session.model.path if self.session.model else "model")
        name = f"{Path(model).stem}-quantized.onnx"
        self.ask_save(tr("Export model"), EXPORT_FILTER, name, "onnx", self.export_to)

    def export_to(self, path: str) -> None:
        """Save the selected run's exported model; without one, run PTQ and export to `path`."""
        run = self.exportable_run()
        if run is None:
            try:
                started = self.session.run_ptq(path)
            except UserError as error:
                self.tell(error)
                return
            self._wanted_exports[started.id] = path
            self.window.show_perspective("tune")
            return
        assert run.result is not None
        temporary = f"{path}.part"
        try:
            shutil.copyfile(run.result.export_path, temporary)
            os.replace(temporary, path)
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            reason = error.strerror or str(error)
            self.tell(UserError(f"the model was not exported ({reason})", path, "Choose another folder"))
            return
        self._tell_export(run, path)

    def on_runs_changed(self, _runs: object) -> None:
        """Tell where a run that was started for its export has put it."""
        for number, path in tuple(self._wanted_exports.items()):
            run = self.session.run(number)
            if run.state.is_final:
                del self._wanted_exports[number]
                if run.state is JobState.DONE and os.path.exists(path):
                    self._tell_export(run, path)

    def _tell_export(self, run: Run, path: str) -> None:
        self.session.notice_posted.emit(Notice("info", f"{run.title}: {tr('exported to')} {path}."))

    # ---- table

    def copy_table(self) -> None:
        """Copy the selected rows (all when none is selected) as tab-separated text."""
        text = self.window.focused_table_text()
        if text:
            QApplication.clipboard().setText(text)

    def ask_save_csv(self) -> None:
        """Ask where to save the layer table."""
        self.ask_save(tr("Export table"), "CSV (*.csv)", "layers.csv", "csv", self._on_save_csv)

    def _on_save_csv(self, path: str) -> None:
        try:
            self.window.layer_table.save_csv(path)
        except UserError as error:
            self.tell(error)

    # ---- dialogs

    def _dialog(self, title: str, name_filter: str) -> QFileDialog:
        dialog = QFileDialog(self.window, title)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if name_filter:
            dialog.setNameFilter(name_filter)
        return dialog

    def _ask_file(self, title: str, name_filter: str, chosen: object) -> None:
        dialog = self._dialog(title, name_filter)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(chosen)
        dialog.open()

    def ask_save(self, title: str, name_filter: str, name: str, suffix: str, chosen: object) -> None:
        """Ask for a file to write; `chosen` is called with its path."""
        dialog = self._dialog(title, name_filter)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(suffix)
        dialog.selectFile(name)
        dialog.fileSelected.connect(chosen)
        dialog.open()
