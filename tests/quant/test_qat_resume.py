"""A training that is killed, cancelled or robbed of its disk goes on with the numbers of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from qat_cases import SHORT, STAGED, same, train
from quant_cases import small_cnn

from qstudio.core.context import SilentContext
from qstudio.core.errors import JobCancelled, UserError
from qstudio.quant.qat.train import better

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole():
    """The uninterrupted trainings."""
    return {"short": train(SHORT), "staged": train(STAGED)}


class Power(BaseException):
    """The power fails."""


@pytest.mark.parametrize("name", ["short", "staged"])
@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_a_killed_training_resumes_to_the_same_numbers(whole, name, epoch, tmp_path):
    folder = tmp_path / "checkpoints"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "qat_cases.py"), str(folder), name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for line in process.stdout:
        if line.strip() == str(epoch):
            process.send_signal(signal.SIGKILL)  # in the middle of the next epoch
            break
    process.wait(60)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    resumed = train(SHORT if name == "short" else STAGED, folder=folder, resume=True)
    assert resumed.resumed_after is not None
    assert resumed.resumed_after >= epoch
    same(resumed, whole[name])


@pytest.mark.parametrize("fails_at", range(1, 12))
def test_power_may_fail_at_any_write(whole, fails_at, tmp_path, monkeypatch):
    real, done = os.replace, []

    def replace_until(source, target):
        if Path(target).parent == tmp_path / "c":
            done.append(target)
            if len(done) >= fails_at:
                raise Power
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_until)
        with pytest.raises(Power):
            train(STAGED, folder=tmp_path / "c")
    same(train(STAGED, folder=tmp_path / "c", resume=True), whole["staged"])
    assert not list((tmp_path / "c").glob(".*"))


class Stops(SilentContext):
    """Cancels during the training of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self._epoch = epoch

    def report(self, done, total, note=""):
        if f"epoch {self._epoch} " in note:
            raise JobCancelled


def test_a_cancelled_training_keeps_the_best_epoch_and_can_be_finished_early(tmp_path):
    folder = tmp_path / "c"
    points = []
    with pytest.raises(JobCancelled):
        train(SHORT, folder=folder, ctx=Stops(3), on_point=points.append)
    assert [p.epoch for p in points] == [0, 1, 2]
    best = None
    for point in points:
        score = (point.quantized_top1, -point.held_out_loss)
        if best is None or better(score, best[0], 30):
            best = (score, point.epoch)
    result = train(SHORT, folder=folder, resume=True, further=False)
    assert result.best_epoch == best[1]
    assert len(result.curve) == 3
    assert result.run.exported.samples == 100


def test_a_done_training_is_only_measured_again(whole, tmp_path):
    train(SHORT, folder=tmp_path / "c")
    again = train(SHORT, folder=tmp_path / "c", resume=True)
    assert again.resumed_after == 4
    same(again, whole["short"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": replace(SHORT, learning_rate=1e-4)}, "another learning rate (0.005, not 0.0001)"),
        ({"bits": 4}, "another recipe"),
        ({"model": small_cnn(classes=12)}, "another model"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change, said, tmp_path):
    with pytest.raises(JobCancelled):
        train(SHORT, folder=tmp_path, ctx=Stops(2))
    with pytest.raises(UserError) as refused:
        train(**{"training": SHORT, **change}, folder=tmp_path, resume=True)
    assert said in str(refused.value)


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    with pytest.raises(JobCancelled):
        train(SHORT, folder=tmp_path, ctx=Stops(1))
    with pytest.raises(UserError, match="holds checkpoints"):
        train(SHORT, folder=tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        train(SHORT, folder=tmp_path / "elsewhere", resume=True)


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "json", "null"])
def test_a_damaged_checkpoint_is_reported(damage, tmp_path):
    with pytest.raises(JobCancelled):
        train(SHORT, folder=tmp_path, ctx=Stops(2))
    (tensors,) = tmp_path.glob("epoch-*.safetensors")
    state = tmp_path / "checkpoint.json"
    if damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "garbage":
        tensors.write_bytes(b"\xff" * 1000)
    elif damage == "missing":
        tensors.unlink()
    elif damage == "json":
        state.write_text(state.read_text()[:-50])
    else:
        state.write_text(json.dumps({**json.loads(state.read_text()), "progress": None}))
    with pytest.raises(UserError, match="damaged"):
        train(SHORT, folder=tmp_path, resume=True)
