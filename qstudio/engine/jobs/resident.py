"""What a process keeps in memory between jobs: opened models and data, few of them, read again when files change.

Requests name files, not objects: a process that was started anew reads what the next request names; nothing is lost.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.sample_choice import is_noise
from qstudio.data.dataset import Dataset
from qstudio.data.load import load_dataset
from qstudio.data.noise import noise_dataset
from qstudio.engine.messages import DataSpec
from qstudio.graph.load import LoadedModel, load_model
from qstudio.graph.prepare import prepare

V = TypeVar("V")

Stamp = tuple[tuple[str, int, int], ...]
"""(path, modification time in ns, size in bytes) of each file that was read."""

_STAMPED_FILES = 256
"""Files that are looked at before something is used again; a folder of images may have a hundred thousand."""


class Resident(Generic[V]):
    """The `count` values used last, each valid as long as its files are as they were."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: OrderedDict[object, tuple[V, tuple[str, ...], Stamp]] = OrderedDict()

    def get(self, key: object, make: Callable[[], tuple[V, Iterable[str]]]) -> V:
        """Return the value of a key, made anew when it is not there or its files have changed.

        Args:
            key: What was asked for.
            make: Returns the value and the files it was read from.
        """
        if key in self._kept:
            value, files, stamp = self._kept[key]
            if stamp_of(files) == stamp:
                self._kept.move_to_end(key)
                return value
            del self._kept[key]
        value, read = make()
        files = tuple(read)
        self._kept[key] = (value, files, stamp_of(files))
        while len(self._kept) > self._count:
            self._kept.popitem(last=False)
        return value


def stamp_of(files: Iterable[str]) -> Stamp:
    """Return what is known of files without reading them; a missing one has size -1."""
    stamps = []
    for file in tuple(files)[:_STAMPED_FILES]:
        try:
            status = os.stat(file)
            stamps.append((file, status.st_mtime_ns, status.st_size))
        except OSError:
            stamps.append((file, 0, -1))
    return tuple(stamps)


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model in memory, as read and as prepared for quantization."""

    loaded: LoadedModel
    prepared: onnx.ModelProto
    info: ModelInfo

    def value(self, initializer: str) -> NDArray[np.float32]:
        """Return a parameter of the prepared model in float32.

        Raises:
            KeyError: There is none of that name.
        """
        for tensor in self.prepared.graph.initializer:
            if tensor.name == initializer:
                return np.asarray(onnx.numpy_helper.to_array(tensor), np.float32)
        raise KeyError(initializer)

    def need_runnable(self) -> None:
        """Check that the model can run.

        Raises:
            UserError: It has an operator that is not supported; names it and its node.
        """
        if self.info.unsupported:
            node, operator, reason = self.info.unsupported[0]
            raise UserError(
                f"the operator {operator} cannot run here ({reason})", node, "Look at the model, or open another one"
            )


_models: Resident[OpenedModel] = Resident(3)
_datasets: Resident[Dataset] = Resident(4)


def opened_model(path: str) -> OpenedModel:
    """Return a model, from memory if it is there and its file has not changed.

    Raises:
        UserError: The file is not a model that can be opened.
    """
    where = os.path.abspath(path)
    return _models.get(where, lambda: _read_model(where))


def _read_model(path: str) -> tuple[OpenedModel, list[str]]:
    from qstudio.engine.jobs.describing import describe_model

    loaded = load_model(path)
    prepared = prepare(loaded.proto)
    file = Path(path)
    # External data lies beside the model under a name that begins like it: model.onnx.data, model.onnx_data.
    files = sorted(entry.path for entry in os.scandir(file.parent) if entry.name.startswith(file.name))
    return OpenedModel(loaded, prepared.proto, describe_model(loaded, prepared)), files


def opened_dataset(spec: DataSpec) -> Dataset:
    """Return a dataset, from memory if it is there and its files have not changed.

    Raises:
        UserError: The data cannot be read.
    """
    return _datasets.get(spec, lambda: _read_dataset(spec))


def opened_calibration(spec: DataSpec | None, dataset: Dataset, seed: int) -> Dataset | None:
    """Return other data to calibrate with, or noise like the data where noise is asked for; None for None.

    Raises:
        UserError: The data cannot be read, or noise cannot take its place.
    """
    if spec is None:
        return None
    return noise_dataset(dataset, spec.source, seed) if is_noise(spec.source) else opened_dataset(spec)


def _read_dataset(spec: DataSpec) -> tuple[Dataset, list[str]]:
    dataset = load_dataset(
        spec.source,
        mean=spec.mean,
        std=spec.std,
        size=spec.size,
        layout=spec.layout,
        split=spec.split,
        scale=spec.scale,
    )
    return dataset, [*_descriptions(dataset.path), *dataset.files]


def _descriptions(path: str) -> list[str]:
    """Return the folders whose change may mean another description of the data, and the descriptions themselves."""
    place = Path(path)
    if not place.exists():
        return []
    folders = [place.parent, place] if place.is_dir() else [place.parent]
    return [str(p) for folder in folders for p in (folder, *sorted(folder.glob("*.dataset.json")))]
