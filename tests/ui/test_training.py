"""The training panel and its curves: choosing, starting, following, stopping, going on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton
from ui_fakes import make_result

from qstudio.core.errors import UserError
from qstudio.core.training import CHECKPOINT_FILE, CurvePoint, Training, TrainResult
from qstudio.engine.messages import Failure, JobState, RunPtq, TrainQat
from qstudio.ui.elided_label import ElidedLabel
from qstudio.ui.main_window import MainWindow
from qstudio.ui.plots.epoch_plot import tick_step
from qstudio.ui.runs.run_chart import RunChart
from qstudio.ui.theme import theme
from qstudio.ui.training.curves import ScaleHistory, TrainingCurves, stage_changes
from qstudio.ui.training.fields import all_fields, blocked_fields
from qstudio.ui.training.form import TrainingForm
from qstudio.ui.training.panel import TrainingPanel

EPOCHS = 4


def point(epoch: int, bits: int = 2) -> CurvePoint:
    loss = None if epoch == 0 else 2.0 / epoch
    scales = (("block0.conv.weight", 0.1 * 2.0**epoch), ("fc.out", 0.5))
    return CurvePoint(epoch, bits, loss, 1.5 / (epoch + 1), 60.0 + epoch, 97.0, 1e-3 / (epoch + 1), scales, 1.0 * epoch)


def train_result(studio: Any, epochs: int = EPOCHS) -> TrainResult:
    session = studio.session
    curve = tuple(point(epoch) for epoch in range(epochs + 1))
    return TrainResult(make_result(session.recipe, session.model), session.training, curve, epochs - 1, 9.0, 900, 100)


@pytest.fixture
def window(make_studio: Callable[..., Any], tmp_path: Path) -> tuple[Any, MainWindow]:
    studio = make_studio()
    studio.session.checkpoint_root = str(tmp_path / "trainings")
    main = MainWindow(studio.session, studio.bridge)
    main.load_settings()
    studio.show(main, 1280, 720)
    main.build_all()
    studio.open()
    studio.session.set_training(epochs=EPOCHS)
    studio.settle()
    return studio, main


def start(studio: Any, main: MainWindow) -> Any:
    main.actions_table["start_training"].trigger()
    job = studio.engine.runs[-1]
    assert isinstance(job.request, TrainQat)
    studio.engine.set_state(job, JobState.RUNNING)
    studio.settle()
    return job


# ---- what is chosen


def test_every_setting_is_in_the_form_with_its_words_and_the_bounds_of_the_engine() -> None:
    known = {field.name: field for field in all_fields()}
    assert set(known) == {f.name for f in fields(Training)}
    for field in known.values():
        assert len(field.help) > 10, field.name
        assert all(len(choice.help) > 20 for choice in field.choices), field.name
        if field.choices:
            for choice in field.choices:
                assert getattr(Training(**{field.name: choice.value}), field.name) == choice.value
        elif field.high:
            most = Training(epochs=100_000)
            high = int(field.high) if field.whole else field.high
            low = (2 if field.name == "samples" else int(field.low)) if field.whole else field.low
            for bound in (low, high):
                replace(most, **{"warmup_epochs": 0.0, field.name: bound})
            if field.name not in ("samples", "clip_norm"):
                with pytest.raises(UserError):
                    replace(most, **{field.name: high * 2 + 1})


def test_choices_go_to_the_session_and_back(studio: Any) -> None:
    form = TrainingForm(studio.session, studio.bridge)
    studio.show(form, 540, 700)
    form.segments["method"].button("pact").click()
    assert "Choi" in form.method_words.text()
    assert form.boxes["pact_decay"].isEnabled()
    box = form.boxes["learning_rate"]
    box.setFocus()
    box.selectAll()
    studio.qtbot.keyClicks(box, "5e-4")
    studio.qtbot.keyClick(box, Qt.Key.Key_Return)
    form.progressive.setText("8 4")
    form.progressive.editingFinished.emit()
    form.flip.click()
    form.boxes["samples"].setValue(500)
    form.boxes["distill"].setValue(0.7)
    chosen = studio.session.training
    assert chosen == Training(
        method="pact", learning_rate=5e-4, progressive_bits=(8, 4), flip=True, samples=500, distill=0.7
    )
    assert form.boxes["learning_rate"].text() == "0.0005"
    studio.session.set_training(samples=None, method="ste", progressive_bits=())
    assert (form.boxes["samples"].text(), form.progressive.text()) == ("all", "")
    for name, reason in blocked_fields(studio.session.training).items():
        widget = form.segments[name].button("best") if name in form.segments else form.boxes[name]
        assert not widget.isEnabled()
        assert reason in widget.toolTip()


def test_what_becomes_of_batchnorm_is_said_and_needs_folding(studio: Any) -> None:
    studio.open()
    panel = TrainingPanel(studio.session, studio.bridge)
    studio.show(panel, 540, 700)
    freeze = panel.form.boxes["batchnorm_freeze"]
    assert not freeze.isEnabled()
    assert "BatchNorm is folded first." in panel.words.text()
    panel.form.segments["batchnorm"].button("frozen").click()
    assert "keeps its statistics and is folded at the end" in panel.words.text()
    panel.form.segments["batchnorm"].button("live").click()
    freeze.setValue(0.5)
    assert "live for 50 % of the steps, then frozen, and folded at the end" in panel.words.text()
    assert studio.session.training == Training(batchnorm="live", batchnorm_freeze=0.5)
    studio.session.edit("no folding", replace(studio.session.recipe, refinements=()))
    assert "switch on the refinement Fold BatchNorm" in panel.words.text()
    panel.form.segments["batchnorm"].button("folded").click()
    assert not studio.session.train_blocked
    assert "BatchNorm keeps its statistics." in panel.words.text()


def test_what_does_not_fit_is_said_and_taken_back(studio: Any) -> None:
    form = TrainingForm(studio.session, studio.bridge)
    studio.show(form, 540, 700)
    for text in ("4, 8", "many"):
        form.progressive.setText(text)
        form.progressive.editingFinished.emit()
        assert form.message.isVisible()
        assert studio.session.training.progressive_bits == ()
        assert form.progressive.text() == ""
    form.boxes["warmup_epochs"].setValue(15)
    assert not form.message.isVisible()
    form.boxes["epochs"].setValue(10)
    assert studio.session.training.warmup_epochs == 10, "a warm-up never outlasts the training"
    form.boxes["warmup_epochs"].setValue(30)
    assert "warm-up" in form.message.text()
    assert form.boxes["warmup_epochs"].value() == 10


# ---- the run


def test_a_training_is_started_followed_and_lands_among_the_runs(window: tuple[Any, MainWindow]) -> None:
    studio, main = window
    studio.qtbot.mouseClick(main.train_button, Qt.MouseButton.LeftButton)
    assert main.workspace.training_panel.isVisible()
    curves = main.workspace.curves
    assert curves.isVisible()
    assert "from the first epoch on" in curves.loss.message
    job = start(studio, main)
    assert Path(job.request.run.export_path).name == "fake-run1.onnx"
    assert not main.actions_table["start_training"].isEnabled()
    assert "A run is in progress" in main.actions_table["start_training"].toolTip()
    for epoch in range(3):
        job.on_partial(point(epoch))
    studio.settle()
    assert curves.loss.message == ""
    assert "epoch 2 of 4" in curves.words.text()
    assert [len(values) for _, values in curves.loss.columns()] == [2, 2, 3, 3]
    assert list(curves.accuracy.columns()[-1][1]) == [60.0, 61.0, 62.0]
    epochs, weight, output = (values for _, values in curves.scales.columns())
    assert list(epochs) == [0, 1, 2]
    assert list(weight) == pytest.approx([0, 1, 2]), "a doubling is 1"
    assert list(output) == [0, 0, 0]
    studio.engine.finish(job, train_result(studio))
    studio.settle()
    assert "best epoch 3" in curves.words.text()
    assert curves.accuracy.best == (3.0, 63.0)
    table = main.workspace.runs_table
    cell = table.runs.index(0, table.column_of("method"))
    assert cell.data() == "LSQ, 4 epochs"
    assert "epoch 3 is the best" in cell.data(Qt.ItemDataRole.ToolTipRole)
    panel = main.workspace.training_panel
    bare = [
        widget.objectName() or widget.text()
        for widget in [*panel.findChildren(QAbstractButton), *panel.form.boxes.values(), panel.form.progressive]
        if widget.isVisible() and not (widget.toolTip() and widget.accessibleName())
    ]
    assert not bare
    main.show_perspective("tune")
    assert main.workspace.chart.isVisible()
    main.show_panel("detail")
    assert "Trained with LSQ on 900 samples" in main.workspace.detail.words.text()
    assert not curves.isVisible()


def test_the_chart_tells_trained_runs_from_others(studio: Any) -> None:
    studio.open()
    studio.session.set_training(epochs=EPOCHS)
    studio.session.run_ptq()
    assert isinstance(studio.engine.runs[-1].request, RunPtq)
    studio.engine.finish(studio.engine.runs[-1], make_result(studio.session.recipe, studio.session.model))
    studio.session.train()
    studio.engine.finish(studio.engine.runs[-1], train_result(studio))
    chart = RunChart(studio.session, studio.bridge)
    studio.show(chart, 700, 400)
    assert [p.trained for p in chart.points() if p.run is not None] == [False, True]
    symbols = [spot.symbol() for item in chart.chart._items.values() for spot in item.points()]
    assert sorted(symbols) == ["d", "o", "star"]
    assert "LSQ, 4 epochs" in chart.points()[-1].detail


def test_a_killed_training_is_offered_again(window: tuple[Any, MainWindow]) -> None:
    studio, main = window
    actions = main.actions_table
    actions["refinements"].trigger()
    assert main.workspace.refinements.isVisible()
    main.show_training()
    studio.settle()
    assert "no unfinished training" in actions["resume_training"].toolTip()
    job = start(studio, main)
    folder = Path(job.request.checkpoints)
    folder.mkdir(parents=True)
    state = {"epoch": 2, "best_epoch": 1, "curve": [asdict(point(epoch)) for epoch in range(3)]}
    (folder / CHECKPOINT_FILE).write_text(json.dumps({"progress": state}))
    job.on_partial(point(0))
    studio.engine.finish(job, None, JobState.KILLED, Failure("training was stopped by force"))
    studio.settle()
    assert "checkpoint after epoch 2 is kept" in studio.notices[-1].text
    assert actions["resume_training"].text() == "Resume training after epoch 2"
    assert main.workspace.runs_table.runs.index(0, main.workspace.runs_table.column_of("method")).data() == (
        "LSQ, 0 of 4 epochs"
    )
    assert "A checkpoint after epoch 2" in main.workspace.training_panel.words.text()
    actions["best_epoch"].trigger()
    again = studio.engine.runs[-1]
    assert (again.request.resume, again.request.further) == (True, False)
    studio.settle()
    assert "epoch 2 of 4" in main.workspace.curves.words.text(), "the epochs before are there at once"
    studio.engine.finish(again, None, JobState.CANCELLED)
    studio.settle()
    actions["resume_training"].trigger()
    assert (studio.engine.runs[-1].request.resume, studio.engine.runs[-1].request.further) == (True, True)


# ---- the figures of the curves


def test_scales_are_told_against_the_start_of_their_stage() -> None:
    curve = tuple(point(epoch, 8 if epoch < 2 else 4) for epoch in range(4))
    history = ScaleHistory()
    for upto in (1, 2, 4):
        sites, moved = history.moves(curve[:upto])
        assert sites == ("block0.conv.weight", "fc.out")
        assert moved[0] == pytest.approx([0, 1, 0, 1][:upto])
        assert moved[1] == pytest.approx([0] * upto)
    assert stage_changes(curve) == (1.5,)
    assert history.moves(())[1].shape == (0, 0)
    missing = (curve[0], replace(curve[1], scales=curve[1].scales[:1]))
    sites, moved = history.moves(missing)
    assert sites == ("block0.conv.weight",)
    assert moved[0] == pytest.approx([0, 1])


@pytest.mark.parametrize(("epochs", "step"), [(1, 1), (8, 1), (9, 2), (20, 5), (40, 5), (100, 20), (1000, 200)])
def test_epochs_are_numbered_in_round_steps(epochs: int, step: int) -> None:
    assert tick_step(epochs) == step


def test_words_that_do_not_fit_end_in_an_ellipsis(studio: Any) -> None:
    label = ElidedLabel("57 %, 0:21 left, Evaluating the quantized model")
    studio.show(label, 400, 30)
    wide = label.grab().toImage()
    assert label.minimumSizeHint().width() == 0
    label.setText("57 %, 0:21 left, Evaluating the quantized model, and so on, and so on, and so on, and so on")
    assert label.text().endswith("so on")
    assert label.grab().toImage() != wide


def test_a_training_without_any_epoch_says_so(studio: Any) -> None:
    studio.open()
    curves = TrainingCurves(studio.session, studio.bridge)
    studio.show(curves, 700, 500)
    assert curves.title.text() == "No training yet"
    for mode in ("dark", "light"):
        theme().set_mode(mode)
    studio.session.train()
    studio.engine.finish(studio.engine.runs[-1], None, JobState.FAILED, Failure("the loss became infinite"))
    studio.settle()
    assert "the loss became infinite" in curves.words.text()
    assert curves.loss.message
