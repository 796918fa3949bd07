"""Checkpoints: one folder, in which one small JSON file says which tensor files count.

Every file is written under a temporary name, flushed to the disk and renamed. The JSON file is renamed last, so that
a process killed at any moment leaves the state of the last whole epoch. Tensors are safetensors: reading them runs no
code.

There is no random state to keep: the order and the variation of samples are functions of seed and epoch.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from qstudio.core.affine import Encoding
from qstudio.core.errors import UserError
from qstudio.core.training import CHECKPOINT_FILE, CurvePoint
from qstudio.quant.encodings import Encodings

STATE = CHECKPOINT_FILE
_VERSION = 1


@dataclass(frozen=True)
class Progress:
    """How far a training is."""

    epoch: int
    """Epochs done."""
    stage: int
    curve: tuple[CurvePoint, ...] = ()
    best_epoch: int | None = None
    """Of the last stage; None before it."""
    best_score: tuple[float, float] | None = None
    """(accuracy in percent, minus loss) of that epoch."""
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Saved:
    """What a checkpoint holds."""

    progress: Progress
    start: Encodings
    """Where the quantizers of the stage started."""
    start_values: dict[str, NDArray[np.float32]]
    leaves: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor] | None


class CheckpointFolder:
    """A folder of checkpoints of one training.

    Args:
        folder: Made where it is not there.
        identity: Everything that decides the numbers, by name; a checkpoint of anything else is refused.
        resume: Continue what is there. Else a folder with a checkpoint is refused.

    Raises:
        UserError: The folder cannot be used.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any], resume: bool) -> None:
        self.folder = Path(folder)
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        if resume and not self.folder.is_dir():
            raise UserError("there is no such folder", str(folder), "Name the folder of a training's checkpoints")
        if not resume and (self.folder / STATE).exists():
            raise UserError(
                "the folder holds checkpoints of an earlier training",
                str(folder),
                "Continue it with --resume, or remove or choose another folder",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink()
        except OSError as error:
            raise _in_words(error, self.folder) from error

    def read(self, schemes: dict[str, Any]) -> Saved | None:
        """Return the last whole epoch, None where none was finished.

        Args:
            schemes: Of the stage's sites (they follow from recipe and stage and are not stored): stage -> schemes.

        Raises:
            UserError: The checkpoint is of another training, or damaged.
        """
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            state = json.loads(path.read_text("utf-8"))
            if state["qstudio_checkpoint"] != _VERSION:
                raise UserError("the checkpoint is of another version of QStudio", str(path), "Train anew")
            self._compare(state["identity"])
            known = state["progress"]
            curve = tuple(CurvePoint(**{**p, "scales": tuple(map(tuple, p["scales"]))}) for p in known["curve"])
            score = known["best_score"]
            progress = Progress(**{**known, "curve": curve, "best_score": None if score is None else tuple(score)})
            stage = self._tensors(state["stage_file"])
            epoch = self._tensors(state["epoch_file"])
            best = self._tensors(state["best_file"]) if state["best_file"] else None
            start = Encodings(
                _encodings(stage, state["activations"], "activations"),
                _encodings(stage, state["weights"], "weights"),
                schemes[str(progress.stage)],
            )
        except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"the checkpoint is damaged ({reason})", str(path), "Train anew in another folder"
            ) from None
        values = {name: tensor.numpy() for name, tensor in _under("value/", stage).items()}
        return Saved(progress, start, values, _under("leaf/", epoch), _under("optimizer/", epoch), best)

    def write(
        self,
        progress: Progress,
        start: Encodings,
        start_values: dict[str, NDArray[np.float32]],
        leaves: dict[str, Tensor],
        optimizer: dict[str, Tensor],
    ) -> None:
        """Keep the state after an epoch; older files go when the new state counts.

        Raises:
            UserError: The disk is full, or the folder went away.
        """
        names = {
            "stage_file": f"stage-{progress.stage}.safetensors",
            "epoch_file": f"epoch-{progress.epoch:05d}.safetensors",
            "best_file": "" if progress.best_epoch is None else f"best-{progress.best_epoch:05d}.safetensors",
        }
        state = {
            "qstudio_checkpoint": _VERSION,
            "identity": self._identity,
            "progress": asdict(progress),
            **names,
            "activations": {site: _meta(e) for site, e in start.activations.items()},
            "weights": {site: _meta(e) for site, e in start.weights.items()},
        }
        try:
            if not (self.folder / names["stage_file"]).exists():
                stage = {f"value/{name}": torch.from_numpy(value) for name, value in start_values.items()}
                for kind, encodings in (("activations", start.activations), ("weights", start.weights)):
                    for site, encoding in encodings.items():
                        stage[f"{kind}/{site}/scale"] = torch.from_numpy(np.array(encoding.scale))
                        stage[f"{kind}/{site}/zero_point"] = torch.from_numpy(np.array(encoding.zero_point))
                self._write(names["stage_file"], _bytes(stage))
            if progress.best_epoch == progress.epoch:
                self._write(names["best_file"], _bytes(leaves))
            tensors = {f"leaf/{n}": t for n, t in leaves.items()} | {f"optimizer/{n}": t for n, t in optimizer.items()}
            self._write(names["epoch_file"], _bytes(tensors))
            self._write(STATE, json.dumps(state, indent=1).encode())
            for file in self.folder.glob("*.safetensors"):
                if file.name not in names.values() and file.name.startswith(("stage-", "epoch-", "best-")):
                    file.unlink()
        except OSError as error:
            raise _in_words(error, self.folder) from error

    def remove(self) -> None:
        """Remove the checkpoint's files, and the folder if nothing else is in it."""
        for file in (*self.folder.glob("*.safetensors"), self.folder / STATE):
            file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _compare(self, stored: dict[str, Any]) -> None:
        for name, value in self._identity.items():
            if stored.get(name) != value:
                raise UserError(
                    f"the checkpoint was made with another {name} ({_short(stored.get(name))}, not {_short(value)})",
                    str(self.folder),
                    "Give the same options, or train anew in another folder",
                )

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / Path(name).name)

    def _write(self, name: str, data: bytes) -> None:
        temporary = self.folder / f".{name}.{uuid.uuid4().hex[:8]}.tmp"
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.folder / name)


def later(progress: Progress, **changes: Any) -> Progress:
    """Return a progress with other values."""
    return replace(progress, **changes)


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _meta(encoding: Encoding) -> list[int | None]:
    return [encoding.qmin, encoding.qmax, encoding.axis, encoding.group_size]


def _encodings(tensors: dict[str, Tensor], meta: dict[str, list[Any]], kind: str) -> dict[str, Encoding]:
    found = {}
    for site, (qmin, qmax, axis, group_size) in meta.items():
        scale, zero = (tensors[f"{kind}/{site}/{name}"].numpy() for name in ("scale", "zero_point"))
        found[site] = Encoding(scale, zero, qmin, qmax, axis, group_size)
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 12 else f"{text[:12]}..."


def _in_words(error: OSError, folder: Path) -> UserError:
    return UserError(f"it cannot be written ({error.strerror or error})", str(folder), "Choose another folder")
