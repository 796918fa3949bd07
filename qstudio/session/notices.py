"""What a session tells the person: notices, and the lines of the log."""

from __future__ import annotations

import math
import time

from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.engine.client import EngineClient, Job
from qstudio.engine.messages import JobState
from qstudio.session.events import Event
from qstudio.session.options import Notice, Run
from qstudio.session.training import read_checkpoint

SAME_DEATH_S = 5.0
"""A process whose end was told as that of its job this short a time ago is not told of again."""


class Notices:
    """Listens to the engine's processes and puts what goes wrong into sentences."""

    def __init__(self, engine: EngineClient) -> None:
        self.posted: Event[Notice] = Event()
        self.log_added: Event[str] = Event()
        self._told_deaths: dict[str, float] = {}
        """Process -> when (monotonic seconds) a notice told of its end as that of a job."""
        engine.on_log = self._on_log
        engine.on_process_died = self._on_process_died

    def tell(self, job: Job, headline: str, more: str = "") -> None:
        """Post what went wrong with a job; a cancelled one is the person's own wish and stays quiet.

        Args:
            job: A final one.
            headline: What did not come about.
            more: What is left of it, a sentence; told of a cancelled job too.
        """
        if job.state is JobState.KILLED:
            self._told_deaths[job.process] = time.monotonic()
        more = f" {more}" if more else ""
        if job.error is not None:
            sentence = job.error.sentence()
            # A sentence that starts with a file or a field keeps its spelling.
            sentence = sentence if job.error.where else sentence[:1].upper() + sentence[1:]
            self.posted.emit(Notice("error", f"{headline}. {sentence}{more}", job.error.details))
        elif job.state is JobState.KILLED:
            self.posted.emit(Notice("error", f"{headline}: its process was ended.{more}"))
        elif more:
            self.posted.emit(Notice("info", f"{headline}.{more}"))

    def tell_stopped(self, job: Job, run: Run) -> None:
        """Say in one notice that a run ended before it was done, and what is left of a training."""
        left = read_checkpoint(run.training.folder) if run.training and run.training.folder else None
        more = ""
        if left is not None:
            best = "" if left.best_epoch is None else f", the best, epoch {left.best_epoch}, included"
            more = f"The checkpoint after epoch {left.epoch} is kept{best}. Resume training continues it."
        self.tell(job, f"{run.title} stopped", more)

    def warn_of_strangers(self, recipe: Recipe, model: ModelInfo | None) -> None:
        """Say which layers of a recipe the open model does not have."""
        known = {layer.name for layer in model.layers} if model else set()
        strange = [name for name, _ in recipe.overrides if model and name not in known]
        if strange:
            text = f"{len(strange)} layers of the recipe are not in this model: {', '.join(strange[:3])}"
            self.posted.emit(Notice("warning", text + (", ..." if len(strange) > 3 else ".")))

    def _on_log(self, process: str, line: str) -> None:
        self.log_added.emit(f"{process}: {line}")

    def _on_process_died(self, process: str, sentence: str) -> None:
        self.log_added.emit(f"{process}: {sentence}")
        if time.monotonic() - self._told_deaths.pop(process, -math.inf) > SAME_DEATH_S:
            self.posted.emit(Notice("warning", sentence))
