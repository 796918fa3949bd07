"""Projects: everything done in a session is in the file, and comes back; crashes, locks, moved models, full disks."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from session_fakes import FakeEngine, dataset, model, result, statistics

from qstudio.core.errors import UserError
from qstudio.core.training import CurvePoint
from qstudio.engine.messages import JobState, PtqPartial
from qstudio.session.project_opening import ELSEWHERE_WORDS, KILLED_WORDS
from qstudio.session.session import Session
from qstudio.session.store import schema
from qstudio.session.store.lock import Holder, ProjectLock


class Desk:
    """A session with an engine that a test answers for, and its notices."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.session = Session(self.engine)
        self.project = self.session.project
        self.notices: list[str] = []
        self.session.notice_posted.connect(lambda notice: self.notices.append(notice.text))

    def open_model(self, path: str, sha256: str = "m1", data: str = "digits") -> None:
        self.session.open_model(path)
        self.answer_model(sha256)
        if data:
            self.session.open_data(data)
            self.answer_data()

    def answer_model(self, sha256: str = "m1") -> None:
        job = self.engine.one("OpenModel")
        self.engine.finish(job, model(job.request.path, sha256))
        for waiting in self.engine.pending("WeightStatistics"):
            sites = [layer.weight.id for layer in self.session.model.layers if layer.weight]
            self.engine.finish(waiting, tuple(replace(statistics(site)) for site in sites))

    def answer_data(self, sha256: str = "d1") -> None:
        job = self.engine.one("OpenDataset")
        self.engine.finish(job, dataset(job.request.data.source, sha256))

    def run(self, top1: float = 90.0) -> int:
        number = self.session.run_ptq().id
        self.engine.finish(self.engine.one("RunPtq"), result(self.session.recipe, top1))
        return number

    def abandon(self) -> None:
        """Let go of the file as a process does that is killed: nothing is written, the lock falls."""
        recorder = self.project.recorder
        assert recorder.opened is not None
        recorder._writer.close()
        if recorder.opened.lock is not None:
            os.close(recorder.opened.lock._handle)
            recorder.opened.lock._handle = None
        recorder.opened = recorder._writer = None


@pytest.fixture
def desk() -> Iterator[Callable[[], Desk]]:
    made: list[Desk] = []

    def make() -> Desk:
        made.append(Desk())
        return made[-1]

    yield make
    for each in made:
        each.session.close()


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A model file beside which projects are saved."""
    path = tmp_path / "net" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"model")
    return str(path)


def test_everything_comes_back(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    session = first.session
    session.set_options(calibration_samples=64, seed=3)
    session.set_layers("four", ("conv1",), weight_bits=4)
    first.project.save_as(tmp_path / "work")
    run = first.run()
    session.set_layers("three", ("conv2",), weight_bits=3)
    session.undo()
    first.project.notes.set_text("What it is about")
    first.project.notes.pin(run)
    first.project.notes.set_run_text(run, "the baseline")
    first.project.notes.set_layout("tune", {"top": "AAAA"})
    session.set_training(epochs=7)
    session.select(("fc", "conv1"))
    number = session.train().id
    job = first.engine.one("TrainQat")
    points = [CurvePoint(n, 4, None, 1.0, 80.0 + n, 90.0, 1e-3, (("a", 0.5),), float(n)) for n in range(3)]
    for point in points:
        job.on_partial(point)
    first.engine.finish(job, None, JobState.CANCELLED)
    runs, edits = session.runs, dict(session.history.edits)
    session.close()
    assert [name for name in os.listdir(tmp_path) if "work" in name] == ["work.qsproj"], "no log or lock is left"

    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    assert second.session.runs == runs
    assert second.session.run(number).training.curve == tuple(points)
    assert second.session.options == session.options
    assert second.session.training == session.training
    assert second.project.notes.text == "What it is about"
    assert second.project.notes.pinned == (run,)
    assert second.project.notes.mark(run).note == "the baseline"
    assert (second.project.notes.perspective, second.project.notes.layout) == ("tune", {"top": "AAAA"})
    assert (second.session.selected_run, second.session.data_spec.source) == (session.selected_run, "digits")
    second.answer_model()
    assert second.session.history.edits == edits
    assert second.session.selection == ("fc", "conv1")
    assert (second.session.undo_label, second.session.redo_label) == ("four", "three")
    assert second.session.timeline.edit_of(run) == session.timeline.edit_of(run)
    second.answer_data()
    assert second.session.is_current(second.session.run(run))
    second.session.redo()
    assert second.session.settings("conv2").weight_bits == 3
    assert second.notices == []


def test_statistics_are_there_at_once_and_never_stale(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    first.engine.finish(first.engine.one("ActivationStatistics"), (statistics("conv1.out"),))
    first.session.close()
    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    second.answer_model()
    assert "conv1.weight" in second.session.weight_statistics
    assert not [job for job in second.engine.jobs if type(job.request).__name__ == "WeightStatistics"]
    second.answer_data()
    assert list(second.session.activation_statistics) == ["conv1.out"]
    second.session.close()
    third = desk()
    third.project.open(tmp_path / "work.qsproj")
    third.answer_model()
    third.answer_data("other content")
    assert third.session.activation_statistics == {}
    assert "has changed since the project was made" in third.notices[-1]
    assert third.engine.pending("ActivationStatistics"), "they are measured again"


def test_edits_are_in_the_file_when_the_call_returns(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    for bits in (7, 6, 5):
        first.session.set_layers(f"to {bits}", ("conv1",), "drag", weight_bits=bits)
        with sqlite3.connect(tmp_path / "work.qsproj") as other:
            labels = [label for (label,) in other.execute("SELECT label FROM edits ORDER BY id")]
        other.close()
        assert labels == [place, f"to {bits}"], "a drag is one edit"
    first.session.end_drag()


def test_a_crash_loses_nothing_and_shows_what_it_stopped(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    first.session.set_layers("four", ("conv1",), weight_bits=4)
    first.session.run_ptq()
    job = first.engine.one("RunPtq")
    first.engine.start(job)
    job.on_partial(PtqPartial("simulate", result(first.session.recipe, 88.0)))
    first.abandon()
    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    assert second.notices == ["work.qsproj was not closed in order: its last state is restored."]
    run = second.session.run(1)
    assert (run.state, run.error, run.result.simulated.top1) == (JobState.KILLED, KILLED_WORDS, 88.0)
    second.answer_model()
    assert second.session.undo_label == "four"


def test_work_without_a_project_survives_a_crash(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.project.recorder.autosave_root = str(tmp_path / "state")
    first.open_model(place)
    first.session.set_layers("four", ("conv1",), weight_bits=4)
    first.abandon()
    second = desk()
    second.project.recorder.autosave_root = str(tmp_path / "state")
    assert second.project.recover()
    assert second.notices == ["QStudio was not closed in order: the last state is restored."]
    second.answer_model()
    assert (second.session.undo_label, second.project.path) == ("four", "")
    second.project.new()
    assert (second.session.model, second.session.runs, second.session.undo_label) == (None, (), None)
    third = desk()
    third.project.recorder.autosave_root = str(tmp_path / "state")
    assert not third.project.recover(), "what was restored and left in order is no crash"
    assert third.project.recover_last(), "but it is kept"
    third.answer_model()
    assert third.session.undo_label == "four"


def test_work_that_was_only_looked_at_leaves_nothing(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.project.recorder.autosave_root = str(tmp_path / "state")
    first.open_model(place)
    first.session.close()
    assert list((tmp_path / "state").iterdir()) == []


def test_the_second_window_reads_and_says_why(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first, second = desk(), desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    first.session.set_layers("four", ("conv1",), weight_bits=4)
    second.project.recorder.autosave_root = str(tmp_path / "state")
    second.project.open(tmp_path / "work.qsproj")
    assert second.project.read_only == f"another window (process {os.getpid()}) has it open"
    assert "open for reading only" in second.notices[0]
    second.answer_model()
    assert second.session.undo_label == "four"
    second.session.set_layers("two", ("conv1",), weight_bits=2)
    with pytest.raises(UserError, match="has it open"):
        second.project.save_as(tmp_path / "work.qsproj")
    second.project.save_as(tmp_path / "mine")
    assert (second.project.read_only, second.project.name) == ("", "mine")
    third = desk()
    third.project.open(tmp_path / "mine.qsproj")
    assert third.project.read_only, "the copy is locked too"
    first.session.close()
    fourth = desk()
    fourth.project.open(tmp_path / "work.qsproj")
    fourth.answer_model()
    assert (fourth.project.read_only, fourth.session.undo_label) == ("", "four")


def test_a_copy_that_nothing_was_done_in_is_no_work_to_restore(
    desk: Callable[[], Desk], place: str, tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    for changes in (False, True):
        reader = desk()
        reader.project.recorder.autosave_root = state
        reader.project.open(tmp_path / "work.qsproj")
        reader.answer_model()
        if changes:
            reader.session.set_layers("two", ("conv1",), weight_bits=2)
        reader.abandon()
        later = desk()
        later.project.recorder.autosave_root = state
        assert later.project.recover() is changes
    assert later.notices == ["QStudio was not closed in order: the last state of work.qsproj is restored."]


def test_a_lock_of_a_process_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    target = tmp_path / "work.qsproj"
    (tmp_path / "work.qsproj.lock").write_text(json.dumps({"pid": 2**22 + 1, "host": "gone"}))
    lock = ProjectLock.take(target)
    assert isinstance(lock, ProjectLock)
    code = "import sys; from qstudio.session.store.lock import ProjectLock; print(ProjectLock.take(sys.argv[1]))"
    told = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert f"Holder(pid={os.getpid()}" in told.stdout
    lock.release()
    lock.release()
    assert not (tmp_path / "work.qsproj.lock").exists()
    again = ProjectLock.take(target)
    assert not isinstance(again, Holder)
    again.release()


def test_a_moved_folder_is_found_and_its_runs_stay_current(
    desk: Callable[[], Desk], place: str, tmp_path: Path
) -> None:
    first = desk()
    first.open_model(place)
    run = first.run()
    first.project.save_as(tmp_path / "net" / "work")
    first.session.close()
    shutil.move(tmp_path / "net", tmp_path / "elsewhere")
    second = desk()
    second.project.open(tmp_path / "elsewhere" / "work.qsproj")
    second.answer_model()
    assert second.session.model.path == str(tmp_path / "elsewhere" / "model.onnx")
    second.answer_data()
    assert second.session.is_current(second.session.run(run))


def test_a_missing_model_is_located_and_checked(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.session.set_layers("four", ("conv1",), weight_bits=4)
    first.run()
    first.project.save_as(tmp_path / "work")
    first.session.close()
    os.unlink(place)
    second = desk()
    missing, checks = [], []
    second.project.files.model_missing.connect(missing.append)
    second.project.files.model_checked.connect(checks.append)
    second.project.open(tmp_path / "work.qsproj")
    assert [item.path for item in missing] == [place]
    assert [run.title for run in second.session.runs] == ["Run 1"], "results can be looked at without the model"
    assert second.session.history.undo_label == "four"
    second.project.files.locate_model(tmp_path / "other.onnx")
    second.engine.finish(second.engine.one("OpenModel"), model("other.onnx", "m2"))
    second.project.files.locate_model(tmp_path / "broken.onnx")
    second.engine.fail(second.engine.one("OpenModel"), "the file is truncated")
    second.project.files.locate_model(tmp_path / "found.onnx")
    second.engine.finish(second.engine.one("OpenModel"), model("found.onnx", "m1"))
    assert [(os.path.basename(check.path), check.same) for check in checks] == [
        ("other.onnx", False), ("broken.onnx", False), ("found.onnx", True)
    ]  # fmt: skip
    assert "truncated" in checks[1].error
    second.session.open_model(str(tmp_path / "found.onnx"))
    second.answer_model()
    assert second.session.undo_label == "four"


def test_another_model_at_the_same_place_begins_anew(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.session.set_layers("four", ("conv1",), weight_bits=4)
    first.run()
    first.project.save_as(tmp_path / "work")
    first.session.close()
    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    second.answer_model("other content")
    assert "is not the model that the project was made with" in second.notices[-1]
    assert (second.session.undo_label, len(second.session.runs)) == (None, 1)


def test_a_full_disk_is_told_once_and_loses_nothing(
    desk: Callable[[], Desk], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")

    def full(*_: Any) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("qstudio.session.store.project_file.write_edits", full)
        first.session.set_layers("four", ("conv1",), weight_bits=4)
        first.session.set_layers("three", ("conv1",), weight_bits=3)
    assert first.notices == [
        "work.qsproj cannot be saved (database or disk is full). It goes on in memory, and saving is tried again."
    ]
    assert first.project.trouble
    first.project.save()
    assert first.notices[1] == "work.qsproj is saved again; nothing was lost."
    first.session.close()
    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    second.answer_model()
    assert (second.session.undo_label, second.session.settings("conv1").weight_bits) == ("three", 3)


def test_a_file_that_grows_no_more_is_trouble_and_then_whole(
    desk: Callable[[], Desk], place: str, tmp_path: Path
) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    connection = first.project.recorder.opened.file._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    layers = tuple(f"layer {n}" for n in range(400))
    first.session.set_layers("many", layers, weight_bits=4)
    assert "full" in first.project.trouble
    connection.execute("PRAGMA max_page_count = 1000000")
    first.session.set_layers("one more", ("conv1",), weight_bits=3)
    assert first.project.trouble == ""
    first.session.close()
    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    second.answer_model()
    assert len(second.session.recipe.overrides) == 401


def test_a_file_that_was_deleted_is_made_again(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    first.session.set_layers("four", ("conv1",), weight_bits=4)
    for name in os.listdir(tmp_path):
        if name.startswith("work.qsproj"):
            os.unlink(tmp_path / name)
    first.session.set_layers("three", ("conv1",), weight_bits=3)
    first.session.close()
    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    second.answer_model()
    assert (second.session.undo_label, len(second.session.history.edits)) == ("three", 3)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_read(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "net" / "work")
    first.session.close()
    os.chmod(tmp_path / "net", 0o500)
    try:
        check_reading_only(desk(), tmp_path / "net" / "work.qsproj")
    finally:
        os.chmod(tmp_path / "net", 0o700)


def check_reading_only(second: Desk, path: Path) -> None:
    second.project.open(path)
    assert "cannot be written" in second.project.read_only
    second.answer_model()
    second.session.set_layers("four", ("conv1",), weight_bits=4)
    assert second.project.trouble == ""


def test_a_folder_that_takes_no_lock_is_read(
    desk: Callable[[], Desk], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    first.session.close()

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    second = desk()
    with monkeypatch.context() as patch:
        patch.setattr("qstudio.session.project_opening.ProjectLock.take", classmethod(refuse))
        with pytest.raises(UserError, match="Permission denied"):
            second.project.save_as(tmp_path / "other")
    calls = iter([True])
    take = ProjectLock.take

    def refuse_first(path: Any) -> Any:
        return refuse() if next(calls, False) else take(path)

    monkeypatch.setattr("qstudio.session.project_opening.ProjectLock.take", refuse_first)
    check_reading_only(second, tmp_path / "work.qsproj")


def test_what_was_left_of_saving_is_swept(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    for name in ("work [1].qsproj.77.part", "work [1].qsproj.77.part-wal", "other.qsproj.77.part"):
        (tmp_path / name).write_bytes(b"x")
    first.project.save_as(tmp_path / "work [1]")
    first.session.close()
    assert sorted(os.listdir(tmp_path)) == ["net", "other.qsproj.77.part", "work [1].qsproj"]


def test_a_run_in_progress_keeps_its_project(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    first.session.run_ptq()
    for call in (first.project.new, lambda: first.project.open(tmp_path / "other.qsproj")):
        with pytest.raises(UserError, match="run is in progress"):
            call()
    second = desk()
    second.project.open(tmp_path / "work.qsproj")
    assert (second.session.run(1).state, second.session.run(1).error) == (JobState.KILLED, ELSEWHERE_WORDS)
    first.engine.finish(first.engine.one("RunPtq"), None, JobState.CANCELLED)
    assert first.session.run(1).state is JobState.CANCELLED


# ---- older and newer files


def test_an_older_file_is_brought_up_to_date(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.session.set_layers("four", ("conv1",), weight_bits=4)
    first.project.save_as(tmp_path / "new")
    first.session.close()
    old = sqlite3.connect(tmp_path / "old.qsproj")
    old.executescript(schema.MIGRATIONS[0])
    old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    old.execute("PRAGMA user_version = 1")
    old.execute("ATTACH ? AS new", (str(tmp_path / "new.qsproj"),))
    for table in ("facts", "edits", "steps"):
        old.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
    old.commit()
    old.close()
    second = desk()
    second.project.open(tmp_path / "old.qsproj")
    second.answer_model()
    assert second.session.undo_label == "four"
    second.answer_data()
    second.run()
    second.project.notes.pin(1)
    second.session.close()
    with sqlite3.connect(tmp_path / "old.qsproj") as after:
        assert after.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert after.execute("SELECT run, pinned FROM marks").fetchall() == [(1, 1)]
    after.close()


def test_a_newer_file_is_refused_and_left_alone(desk: Callable[[], Desk], place: str, tmp_path: Path) -> None:
    first = desk()
    first.open_model(place)
    first.project.save_as(tmp_path / "work")
    first.session.close()
    with sqlite3.connect(tmp_path / "work.qsproj") as newer:
        newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    newer.close()
    before = (tmp_path / "work.qsproj").read_bytes()
    with pytest.raises(UserError, match="a newer version of QStudio wrote it"):
        desk().project.open(tmp_path / "work.qsproj")
    assert (tmp_path / "work.qsproj").read_bytes() == before
