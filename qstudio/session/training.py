"""Trainings of a session: what a run keeps of one, and the checkpoints that let it go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.model_info import ModelInfo
from qstudio.core.training import CHECKPOINT_FILE, TRAINED_REFINEMENTS, CurvePoint, Training, TrainResult
from qstudio.engine.messages import RunPtq

KEPT_CHECKPOINTS = 10
"""Folders of unfinished trainings that are kept; the oldest goes when another is begun."""


@dataclass(frozen=True)
class TrainingRecord:
    """What a run keeps of its training."""

    settings: Training
    curve: tuple[CurvePoint, ...] = ()
    """Grows while the run trains."""
    folder: str = ""
    """Of its checkpoints; empty when none are kept."""
    result: TrainResult | None = None
    """Once everything is done."""

    @property
    def epochs_done(self) -> int:
        """Epochs that were trained."""
        return self.curve[-1].epoch if self.curve else 0

    @property
    def is_whole(self) -> bool:
        """Whether all epochs were trained: a stopped training's best epoch can be measured without the others."""
        return self.epochs_done >= self.settings.epochs

    def with_point(self, point: CurvePoint) -> TrainingRecord:
        """Return the record with one more epoch; one that was done before is done again."""
        return replace(self, curve=(*(known for known in self.curve if known.epoch < point.epoch), point))

    def with_result(self, result: TrainResult) -> TrainingRecord:
        """Return the finished record."""
        return replace(self, curve=result.curve, result=result)


@dataclass(frozen=True)
class Checkpoint:
    """A training that was not finished, as its folder tells."""

    folder: str
    epoch: int
    """Epochs done."""
    best_epoch: int | None
    """Of those at the recipe's own bits; None before the first of them."""
    curve: tuple[CurvePoint, ...]


def default_checkpoint_root() -> str:
    """Return the folder of the system for data of programs, and in it ours for checkpoints."""
    from platformdirs import user_data_dir

    return str(Path(user_data_dir("qstudio", appauthor=False)) / "trainings")


def checkpoint_folder(root: str, run: RunPtq, training: Training, model: ModelInfo, dataset: DatasetInfo) -> str:
    """Return where the checkpoints of a training belong: the same choices find the same folder again.

    The name is a hash of everything that decides the trained weights. The engine checks a checkpoint's identity once
    more by itself, so that a folder can never be continued with other choices.
    """
    trained = tuple(name for name in run.recipe.refinements if name in TRAINED_REFINEMENTS)
    # A recipe remembers its hash: a copy would compute it anew at every edit.
    recipe = run.recipe if trained == run.recipe.refinements else replace(run.recipe, refinements=trained)
    parts = (
        model.sha256,
        dataset.sha256,
        dataset.preprocess,
        repr(run.calibration_data),
        recipe.sha256(),
        run.seed,
        run.calibration_samples,
        run.calibration_choice,
        run.device,
        training.to_json(),
    )
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return str(Path(root) / name)


def read_checkpoint(folder: str) -> Checkpoint | None:
    """Return the training whose checkpoints are in a folder; None where there is none that can be read."""
    path = Path(folder) / CHECKPOINT_FILE
    try:
        found = path.stat()
    except OSError:
        return None
    return _read(folder, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=8)
def _read(folder: str, _modified_ns: int, _size: int) -> Checkpoint | None:
    """Read a checkpoint once for each state of its file: the window asks at every edit."""
    try:
        state: Any = json.loads((Path(folder) / CHECKPOINT_FILE).read_text("utf-8"))
        progress = state["progress"]
        curve = tuple(CurvePoint(**{**p, "scales": tuple(map(tuple, p["scales"]))}) for p in progress["curve"])
        best = progress["best_epoch"]
        return Checkpoint(folder, int(progress["epoch"]), None if best is None else int(best), curve)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def holds_checkpoints(root: str) -> bool:
    """Return whether there is any unfinished training under `root`."""
    return bool(root) and next(Path(root).glob(f"*/{CHECKPOINT_FILE}"), None) is not None


def remove_checkpoint(folder: str) -> None:
    """Remove a checkpoint's files, and its folder when nothing else is in it; what cannot be removed stays."""
    place = Path(folder)
    for file in (*place.glob("*.safetensors"), *place.glob(".*.tmp"), place / CHECKPOINT_FILE):
        try:
            file.unlink(missing_ok=True)
        except OSError:
            continue
    try:
        place.rmdir()
    except OSError:
        return


def prune_checkpoints(root: str, kept: int = KEPT_CHECKPOINTS) -> None:
    """Remove the oldest checkpoints under `root` until `kept` are left."""
    known: list[tuple[float, str]] = []
    for file in Path(root).glob(f"*/{CHECKPOINT_FILE}"):
        try:
            known.append((file.stat().st_mtime, str(file.parent)))
        except OSError:
            continue
    for _, folder in sorted(known)[: max(len(known) - kept, 0)]:
        remove_checkpoint(folder)
