"""What a project file holds, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qstudio.core.training import Training
from qstudio.engine.messages import DataSpec
from qstudio.session.history import Edit, Step
from qstudio.session.options import Run, RunOptions


@dataclass(frozen=True)
class ModelPlace:
    """Where a project's model is, and how to know it again."""

    path: str
    """Absolute, as it was opened."""
    relative: str
    """To the project's folder, with slashes, where it lies beneath it; else empty."""
    sha256: str
    name: str


@dataclass(frozen=True)
class DataPlace:
    """Where a project's data is, how it is read, and how to know it again."""

    spec: DataSpec
    relative: str
    """Of the source to the project's folder, with slashes, where it lies beneath it; else empty."""
    sha256: str


@dataclass(frozen=True)
class Mark:
    """What a person notes about a run."""

    pinned: bool = False
    """Whether it is a baseline that the others are compared with."""
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """What there is one of. Each field is a row of its own, written when it changes."""

    model: ModelPlace | None = None
    data: DataPlace | None = None
    options: RunOptions = field(default_factory=RunOptions)
    training: Training = field(default_factory=Training)
    at: int = 0
    """Position of undo's cursor."""
    note: str = ""
    selection: tuple[str, ...] = ()
    """Selected layers."""
    selected_run: int | None = None
    perspective: str = ""
    layout: dict[str, str] = field(default_factory=dict)
    """Sizes and places of the window's panels: opaque bytes as base64, by name."""
    program: str = ""
    """Version that wrote last."""
    origin: str = ""
    """Of an autosave: the project it belongs to, which could not be written; empty = it has no file yet."""
    known: tuple[int, int] | None = None
    """Of a copy: edits and runs that `origin` holds too; None = it is no copy."""
    statistics: tuple[str, ...] = ()
    """Keys of the statistics that belong to the open model and data; others are removed."""


@dataclass(frozen=True)
class ProjectState:
    """Everything but statistics and embedded files."""

    facts: Facts
    edits: Mapping[int, Edit]
    line: tuple[Step, ...]
    runs: tuple[Run, ...] = ()
    run_edits: Mapping[int, int | None] = field(default_factory=dict)
    marks: Mapping[int, Mark] = field(default_factory=dict)
