"""What carries requests and answers over the pipe; only the two ends of it see these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qstudio.engine.messages import Failure, JobState


@dataclass(frozen=True)
class Submit:
    """Parent to child: do this."""

    job: int
    request: bytes
    """The request, pickled on its own, so that one that cannot be read fails alone."""


@dataclass(frozen=True)
class Cancel:
    """Parent to child: stop this job at the next check."""

    job: int


@dataclass(frozen=True)
class Shutdown:
    """Parent to child: finish and exit with 0."""


@dataclass(frozen=True)
class Ready:
    """Child to parent: the process listens."""

    pid: int
    modules: tuple[str, ...] = ()
    """Of torch, onnx, onnxruntime, PySide6: those that are loaded."""


@dataclass(frozen=True)
class Started:
    """Child to parent: the job left the queue."""

    job: int


@dataclass(frozen=True)
class Partial:
    """Child to parent: an intermediate value."""

    job: int
    value: Any


@dataclass(frozen=True)
class Finished:
    """Child to parent: the last word about a job."""

    job: int
    state: JobState
    value: Any = None
    error: Failure | None = None


@dataclass(frozen=True)
class LogLines:
    """Child to parent: captured stdout and stderr."""

    lines: tuple[str, ...] = field(default=())
