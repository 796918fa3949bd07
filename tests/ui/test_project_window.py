"""Projects in the window: saved, opened, dropped, found again; what is missing, what cannot be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QFileDialog, QPushButton
from ui_fakes import RecordedEngine, make_model, make_result

from qstudio.session.options import Notice
from qstudio.ui.main_window import MainWindow
from qstudio.ui.project import LayoutStore
from qstudio.ui.project_dialogs import EmbedDialog, MissingModelDialog, NoteDialog
from qstudio.ui.settings import recent_files


@pytest.fixture
def model_path(tmp_path: Path) -> str:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x" * 5000)
    return str(path)


@pytest.fixture
def make_window(make_studio: Callable[..., Any]) -> Callable[..., tuple[Any, MainWindow]]:
    def make(path: str = "", engine: Any = None) -> tuple[Any, MainWindow]:
        studio = make_studio(engine)
        window = MainWindow(studio.session, studio.bridge)
        window.load_settings()
        window.show_welcome()
        studio.show(window, 1280, 720)
        window.build_all()
        if path:
            window.commands.open_model(path, "digits")
            studio.settle()
        return studio, window

    return make


def edit(studio: Any, bits: int) -> None:
    studio.session.set_layers(f"to {bits}", ("block0.conv",), weight_bits=bits)
    studio.settle()


def dialog_of(window: MainWindow, kind: type) -> Any:
    [dialog] = window.findChildren(kind)
    return dialog


def shut(window: MainWindow, studio: Any) -> None:
    """Close the window as the program does."""
    window.close()
    window.commands.close()
    studio.session.project.close()


def test_a_project_is_saved_opened_and_shown(
    make_window: Callable[..., tuple[Any, MainWindow]], model_path: str, tmp_path: Path
) -> None:
    studio, window = make_window(model_path)
    edit(studio, 4)
    window.commands.run_ptq()
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model))
    studio.settle()
    window.commands.project.save_as(str(tmp_path / "work"))
    assert window.windowTitle() == "work – net.onnx – QStudio"
    assert recent_files()[0] == str(tmp_path / "work.qsproj")
    window.actions_table["pin_run"].trigger()
    assert window.actions_table["pin_run"].text() == "Unpin the selected run"
    shut(window, studio)
    again, other = make_window()
    drop(other, str(tmp_path / "work.qsproj"))
    again.settle()
    assert other.windowTitle() == "work – net.onnx – QStudio"
    assert other.perspective == "tune", "as it was left"
    assert again.session.project.notes.pinned == (1,)
    assert other.actions_table["undo"].text() == "Undo to 4"
    assert again.notices == []
    other.commands.project.new()
    again.settle()
    assert (other.windowTitle(), other.perspective, again.session.runs) == ("QStudio", "", ())
    assert other.workspace.layer_table.view.model().rowCount() == 0


def drop(window: MainWindow, path: str) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(path)])
    action, button, modifier = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    window.dropEvent(QDropEvent(QPointF(5, 5), action, data, button, modifier))


def test_the_second_window_says_why_and_offers_to_save_as(
    make_window: Callable[..., tuple[Any, MainWindow]], model_path: str, tmp_path: Path
) -> None:
    _studio, window = make_window(model_path)
    window.commands.project.save_as(str(tmp_path / "work"))
    second, other = make_window()
    other.commands.open_path(str(tmp_path / "work.qsproj"))
    second.settle()
    assert other.windowTitle() == "work (read only) – net.onnx – QStudio"
    [card] = other.notices.cards
    assert "has it open" in card.notice.text
    [button] = [found for found in card.findChildren(QPushButton) if found.text() == "Save as…"]
    button.click()
    dialog = dialog_of(other, QFileDialog)
    assert dialog.acceptMode() == QFileDialog.AcceptMode.AcceptSave
    dialog.reject()
    other.commands.project.save_as(str(tmp_path / "mine.qsproj"))
    assert second.session.project.read_only == ""


def test_a_missing_model_is_asked_for_and_another_file_is_called_one(
    make_window: Callable[..., tuple[Any, MainWindow]], model_path: str, tmp_path: Path
) -> None:
    studio, window = make_window(model_path)
    edit(studio, 4)
    window.commands.run_ptq()
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model))
    window.commands.project.save_as(str(tmp_path / "work"))
    shut(window, studio)
    os.rename(model_path, tmp_path / "moved.onnx")
    engine = RecordedEngine()
    again, other = make_window(engine=engine)
    other.commands.project.open(str(tmp_path / "work.qsproj"))
    again.settle()
    dialog = dialog_of(other, MissingModelDialog)
    assert "net.onnx" in dialog.windowTitle() or model_path in dialog.text.text()
    engine.model = replace(make_model(), sha256="1" * 64)
    dialog.check(str(tmp_path / "other.onnx"))
    again.settle()
    assert "other.onnx is another file" in dialog.status.text()
    assert dialog.anyway.isVisible()
    assert dialog.status.height() >= dialog.status.heightForWidth(dialog.status.width()), "the whole sentence is seen"
    dialog.check(str(tmp_path / "broken.onnx"))
    again.settle()
    assert "the file is truncated" in dialog.status.text()
    assert not dialog.anyway.isVisible()
    dialog.look.click()
    again.settle()
    assert (other.perspective, len(again.session.runs), again.session.model) == ("tune", 1, None)
    assert other.workspace.runs_table.model().rowCount() == 1, "results can be looked at without the model"
    assert "Open a model first" in other.actions_table["undo"].toolTip(), "but not changed"
    other.commands.project.open(str(tmp_path / "work.qsproj"))
    again.session.project.files.find()
    engine.model = make_model()
    dialog = dialog_of(other, MissingModelDialog)
    dialog.check(str(tmp_path / "moved.onnx"))
    again.settle()
    assert again.session.undo_label == "to 4"
    assert other.findChildren(MissingModelDialog) == [] or not dialog.isVisible()


def test_work_is_restored_after_a_crash(
    make_window: Callable[..., tuple[Any, MainWindow]], model_path: str, tmp_path: Path
) -> None:
    studio, window = make_window()
    studio.session.project.recorder.autosave_root = str(tmp_path / "state")
    window.commands.open_model(model_path, "digits")
    studio.settle()
    edit(studio, 4)
    opened = studio.session.project.recorder.opened
    os.close(opened.lock._handle)  # as the system does when a process is killed
    opened.lock._handle = None
    again, other = make_window()
    again.session.project.recorder.autosave_root = str(tmp_path / "state")
    other.commands.project.offer_recovery()
    [card] = other.notices.cards
    [button] = [found for found in card.findChildren(QPushButton) if found.text() == "Restore"]
    button.click()
    again.settle()
    assert again.session.undo_label == "to 4"
    assert other.perspective == "explore"
    [card] = [card for card in other.notices.cards if card.notice.action == ("new_project", "Start empty")]
    next(found for found in card.findChildren(QPushButton) if found.text() == "Start empty").click()
    again.settle()
    assert (again.session.model, other.perspective) == (None, "")
    assert other.actions_table["restore_last"].isEnabled(), "what was left is kept all the same"


def test_model_and_data_go_into_the_project(
    make_window: Callable[..., tuple[Any, MainWindow]], model_path: str, tmp_path: Path
) -> None:
    studio, window = make_window(model_path)
    assert not window.actions_table["embed"].isEnabled()
    window.commands.project.save_as(str(tmp_path / "work"))
    window.commands.project.ask_embed()
    dialog = dialog_of(window, EmbedDialog)
    assert dialog.text.text() == "Model: 1 file, 4.88 KB\nData: built in, nothing to put in"
    next(b for b in dialog.findChildren(QPushButton) if b.text().startswith("Put in")).click()
    assert studio.session.project.recorder.flush(5.0)
    assert studio.notices[-1].text == "The model is inside the project now: 5 KB."
    [inside] = studio.session.project.files.embedded
    assert (inside.main, inside.size_bytes) == ("net.onnx", 5000)
    shut(window, studio)
    os.unlink(model_path)
    again, other = make_window()
    again.session.project.files.embedded_root = str(tmp_path / "cache")
    other.commands.project.open(str(tmp_path / "work.qsproj"))
    assert again.session.project.recorder.flush(5.0)
    again.settle()
    assert Path(again.session.model.path).read_bytes() == b"x" * 5000
    assert Path(again.session.model.path).parent.parent == tmp_path / "cache"


def test_notes_are_kept_as_they_are_typed(
    make_window: Callable[..., tuple[Any, MainWindow]], model_path: str, tmp_path: Path
) -> None:
    studio, window = make_window(model_path)
    window.commands.run_ptq()
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model))
    studio.settle()
    window.commands.project.ask_note()
    dialog = dialog_of(window, NoteDialog)
    studio.qtbot.keyClicks(dialog.edit, "hello")
    dialog.reject()
    studio.settle()
    window.commands.project.ask_run_note()
    dialog = next(found for found in window.findChildren(NoteDialog) if found.isVisible())
    studio.qtbot.keyClicks(dialog.edit, "best")
    assert (studio.session.project.notes.text, studio.session.project.notes.mark(1).note) == ("hello", "best")


def test_a_damaged_project_is_one_sentence(make_window: Callable[..., tuple[Any, MainWindow]], tmp_path: Path) -> None:
    studio, window = make_window()
    (tmp_path / "bad.qsproj").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    window.commands.open_path(str(tmp_path / "bad.qsproj"))
    assert studio.notices == [
        Notice(
            "error",
            f"{tmp_path / 'bad.qsproj'}: this is not a QStudio project. Choose a file saved with Save project as.",
        )
    ]


def test_a_layout_that_cannot_be_read_is_left_out() -> None:
    store = LayoutStore({"a": "not base64!", "b": "=text"})
    assert store.value("a", 5) == 5
    assert (store.value("b"), store.value("c")) == ("text", None)
