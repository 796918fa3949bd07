"""Where a project's model and data are: relative to the project where they lie beneath it, known by their content."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from qstudio.engine.messages import DataSpec
from qstudio.session.options import Run
from qstudio.session.store.state import DataPlace, ModelPlace

SUFFIX = ".qsproj"


def relative_to(path: str, project: str) -> str:
    """Return a path relative to a project's folder, with slashes, where it lies beneath it; else an empty text."""
    if not project or not os.path.isabs(path):
        return ""
    try:
        return Path(os.path.abspath(path)).relative_to(Path(os.path.abspath(project)).parent).as_posix()
    except ValueError:
        return ""


def find(path: str, relative: str, project: str) -> str:
    """Return where a file or folder is now: beside the project, else where it was; empty when it is at neither.

    Names that would reach over the network or out of the project's folder are not followed.
    """
    inner = PurePosixPath(relative)
    windows = PureWindowsPath(relative)
    if relative and project and ".." not in inner.parts and not (inner.is_absolute() or windows.anchor):
        beside = os.path.join(os.path.dirname(os.path.abspath(project)), *inner.parts)
        if os.path.exists(beside):
            return beside
    if path.startswith(("\\\\", "//")) or "\0" in path:
        return ""
    return path if os.path.isabs(path) and os.path.exists(path) else ""


def find_data(place: DataPlace, project: str) -> DataSpec:
    """Return how to open a project's data: built-in data by name, files where they are now (or were, if nowhere)."""
    source = place.spec.source
    if not os.path.isabs(source):
        return place.spec
    return replace(place.spec, source=find(source, place.relative, project) or source)


def moved(run: Run, model_sha256: str, model: str, data_sha256: str, data: str) -> Run:
    """Return a run that names its model and data by their paths of now, where it was made with these."""
    if run.request is None:
        return run
    request = run.request
    if model and run.model_sha256 == model_sha256 and request.model != model:
        request = replace(request, model=model)
    if data and run.data_sha256 == data_sha256 and request.data.source != data:
        request = replace(request, data=replace(request.data, source=data))
    if request is run.request:
        return run
    return replace(run, request=request, model=request.model, data=request.data.source)


def place_of_model(path: str, sha256: str, name: str, project: str) -> ModelPlace:
    """Return a model's place for a project."""
    absolute = os.path.abspath(path)
    return ModelPlace(absolute, relative_to(absolute, project), sha256, name)


def place_of_data(spec: DataSpec, path: str, sha256: str, project: str) -> DataPlace:
    """Return the place for a project of data that was found at `path` (its name, where it is built in)."""
    return DataPlace(replace(spec, source=path), relative_to(path, project), sha256)


def with_suffix(path: str) -> str:
    """Return a path that ends as projects do."""
    return path if path.lower().endswith(SUFFIX) else path + SUFFIX
