"""An engine with recorded answers that is slow, fails, and is cancelled, all by one random number generator."""

from __future__ import annotations

import os
import random
from typing import Any

from plot_fakes import ValuesEngine
from precision_fakes import LongEngine, make_search, make_sweep
from test_sample_page import kernels, trace_of
from test_training import point
from ui_fakes import make_model, make_result

from qstudio.core.training import TrainResult
from qstudio.engine.client import Job
from qstudio.engine.messages import (
    Failure,
    JobState,
    OpenDataset,
    OpenModel,
    PictureWeights,
    PtqPartial,
    RunPtq,
    SearchBits,
    Sensitivity,
    TraceSample,
    TrainQat,
)

PHASES = ("calibrate", "simulate", "export", "verify", "time")


class MoodyEngine(LongEngine, ValuesEngine):
    """Answers some requests at once, others later, some with an error; runs go on for a few steps."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(make_model(9))
        self._models = {9: self.model, 6: make_model(6), 2: make_model(2)}
        self._rng = rng
        self._steps: dict[int, int] = {}
        self.calm = False
        """Whether everything is answered at once and nothing fails."""

    def answer(self, request: Any) -> Any:
        path = getattr(request, "path", "") if isinstance(request, OpenModel) else getattr(request, "model", "")
        if path:
            self.model = self._models[2 if "small" in path else 6 if "other" in path else 9]
        if isinstance(request, OpenModel) and not os.path.exists(path):
            return Failure("there is no such file", path, "Choose another one", "", True)
        if isinstance(request, OpenDataset) and request.data.source != "digits":
            return Failure("this is no data", request.data.source, "Choose another file", "", True)
        if not self.calm and self._rng.random() < 0.04:
            return Failure("it went wrong", type(request).__name__, "Try it again", "Traceback ...", True)
        if isinstance(request, TraceSample):
            return trace_of(request.index, tuple(layer.name for layer in self.model.layers))
        if isinstance(request, PictureWeights):
            return kernels(request.layer)
        return super().answer(request)

    def step(self) -> None:
        """Answer what is asked, some of the time, and bring a run or a sweep one step on."""
        if self.calm or self._rng.random() < 0.8:
            self.dispatch()
        for job in (*self.runs, *self.long):
            if not job.state.is_final:
                self._go_on(job)
        self.runs = [job for job in self.runs if not job.state.is_final]
        self.long = [job for job in self.long if not job.state.is_final]
        del self.asked[:-50]

    def _go_on(self, job: Job) -> None:
        number = self._steps[job.id] = self._steps.get(job.id, 0) + 1
        if job.state is JobState.CANCELLING:
            self.finish(job, None, JobState.CANCELLED)
            return
        if job.state is JobState.QUEUED:
            self.set_state(job, JobState.RUNNING)
            return
        self.progress(job, number, 8, "a phase", 3.0)
        request = job.request
        run = request if isinstance(request, RunPtq) else getattr(request, "run", None)
        if job.on_partial is not None:
            if isinstance(request, Sensitivity):
                cells = make_sweep(self.model, request.recipe).cells
                job.on_partial(cells[number % len(cells)])
            elif isinstance(request, TrainQat):
                job.on_partial(point(number))
            elif isinstance(request, RunPtq):
                job.on_partial(PtqPartial(PHASES[number % 5], make_result(request.recipe, self.model)))
        if number < 6 and not self.calm:
            return
        if not self.calm and self._rng.random() < 0.15:
            self.finish(job, None, JobState.FAILED, Failure("it went wrong", "", "Try again", "Traceback ...", False))
        elif isinstance(request, Sensitivity):
            self.finish(job, make_sweep(self.model, request.recipe))
        elif isinstance(request, SearchBits):
            assert run is not None
            self.finish(job, make_search(self.model, run.recipe))
        elif isinstance(request, TrainQat):
            curve = tuple(point(epoch) for epoch in range(4))
            result = make_result(request.run.recipe, self.model)
            self.finish(job, TrainResult(result, request.training, curve, 2, 9.0, 900, 100))
        else:
            self.finish(job, make_result(request.recipe, self.model))
