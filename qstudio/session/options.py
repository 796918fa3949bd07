"""What a run is asked with, besides the recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from qstudio.core.results import RunResult
from qstudio.engine.messages import DataSpec, JobState, Progress


@dataclass(frozen=True)
class RunOptions:
    """Settings of the run bar."""

    device: str = "cpu"
    calibration_samples: int = 512
    eval_samples: int | None = 1000
    """None = all."""
    seed: int = 0
    calibration_data: DataSpec | None = None
    measure_latency: bool = True
    latency_batch: int = 1
    threads: int = 0


@dataclass(frozen=True)
class Run:
    """A recorded experiment: append-only, replaced only while it is running."""

    id: int
    title: str
    state: JobState
    result: RunResult | None
    model: str
    data: str
    options: RunOptions
    started: float
    """Seconds since the epoch."""
    phase: str = ""
    progress: Progress | None = None
    error: str = ""
    recipe_hash: str = ""
    process_job: int = field(default=-1, compare=False)


@dataclass(frozen=True)
class Notice:
    """Something to tell the person: a sentence, and details one click away."""

    level: str
    """"info", "warning" or "error"."""
    text: str
    details: str = ""
