"""The sensitivity of a session's layers: what is swept, the figures so far, and whether they are still true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import FIELDS, Recipe
from qstudio.core.sensitivity import Candidate, SensitivityCell, SensitivityResult, make_candidates
from qstudio.engine.client import Job
from qstudio.engine.messages import Sensitivity
from qstudio.session.asked import Asked, asked, figures_file, forget_figures, relevant
from qstudio.session.long_job import LongJob
from qstudio.session.work import Work

if TYPE_CHECKING:
    from qstudio.session.session import Session

SLOT = "sensitivity"


@dataclass(frozen=True)
class SweepSettings:
    """What is swept.

    Raises:
        UserError: A width, side or mode does not exist, nothing would be measured, or there are no samples.
    """

    bits: tuple[int, ...] = (8, 4, 3, 2)
    """Widths that are tried on every layer."""
    side: str = "weights"
    """Of `qstudio.core.sensitivity.SIDES`."""
    mode: str = "enable"
    """Of `qstudio.core.sensitivity.MODES`."""
    measured: bool = True
    """Evaluate the network for every cell."""
    hessian: bool = True
    """Estimate the trace of the Hessian of every weight, and predict cells from it."""
    samples: int = 1000
    """Evaluation samples of every cell."""

    def __post_init__(self) -> None:
        make_candidates(self.bits, self.side, self.mode)
        object.__setattr__(self, "bits", tuple(sorted(set(self.bits), reverse=True)))
        if not self.measured and not self.hessian:
            raise UserError("nothing is measured", "sensitivity", "Choose measured figures, the Hessian, or both")
        if self.samples < 1:
            raise UserError(f"{self.samples} is too small", "samples", "Choose 1 or more")

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What is tried on every layer, the most bits first."""
        return make_candidates(self.bits, self.side, self.mode)


class Sweeps(LongJob):
    """Asks the engine for sweeps and keeps the latest one, while it fills too.

    Args:
        session: Its model, data, recipe and options are swept.
        work: Where the job runs: one at a time, in the process of runs.
        tell: Called with a job that did not end as wished and a headline for it.
    """

    def __init__(self, session: Session, work: Work, tell: Callable[[Job, str], None]) -> None:
        super().__init__(work, SLOT)
        self._session, self._tell = session, tell
        self.settings = SweepSettings()
        self.cache_root = ""
        """Folder of figures that were measured before; empty = they are known to the engine's process only."""
        self._asked: Asked | None = None
        self._cells: dict[tuple[str, Candidate], SensitivityCell] = {}
        self._result: SensitivityResult | None = None
        self._told: SensitivityResult | None = None
        self._stale: tuple[object, str] = (None, "")
        for event in (session.recipe_changed, session.options_changed, session.dataset_changed):
            event.connect(self._on_changed)
        session.model_changed.connect(self._on_model)

    # ---- what is known

    @property
    def result(self) -> SensitivityResult | None:
        """The latest sweep; while it runs, and after one that was stopped, with the cells that are known."""
        if self._told is None and self._result is not None:
            self._told = replace(self._result, cells=tuple(self._cells.values())) if self._cells else self._result
        return self._told

    @property
    def is_whole(self) -> bool:
        """Whether every cell of the latest sweep is known."""
        return self._result is not None and not self._cells and self._job is None

    @property
    def blocked(self) -> str:
        """Why no sweep can start now, in words; empty when one can."""
        return self._session.run_blocked

    @property
    def stale(self) -> str:
        """Why the figures are not those of what is chosen now, in words; empty when they are."""
        if self._asked is None or self._result is None:
            return ""
        session = self._session
        now = (session.model, session.dataset, session.recipe, session.options, self.settings, self._asked)
        if self._stale[0] is None or any(a is not b for a, b in zip(now, self._stale[0], strict=True)):  # type: ignore[call-overload]
            self._stale = (now, self._asked.difference(self._now()))
        return self._stale[1]

    def _now(self) -> Asked | None:
        session, settings = self._session, self.settings
        if session.model is None or session.dataset is None:
            return None
        what = relevant_recipe(session.recipe, session.model, settings)
        return asked(session.model, session.dataset, session.options, what, settings, evaluated=False)

    # ---- choosing and measuring

    def choose(self, **values: Any) -> None:
        """Change what is swept; `changed` follows.

        Raises:
            UserError: A value does not exist or is out of its bounds.
        """
        settings = replace(self.settings, **values)
        if settings != self.settings:
            self.settings = settings
            self._emit()

    def start(self, **values: Any) -> Job:
        """Sweep the model with these settings; what was measured before is not measured again.

        Args:
            **values: Fields of `SweepSettings` that are to change first.

        Raises:
            UserError: A value is wrong, there is no model or data, or a run is in progress.
        """
        self.choose(**values)
        session, settings = self._session, self.settings
        if self.blocked or session.model is None or session.data_spec is None:
            raise UserError(self.blocked, "sensitivity")
        options = session.options
        request = Sensitivity(
            session.model.path,
            session.data_spec,
            session.recipe,
            settings.candidates,
            settings.mode,
            measured=settings.measured,
            hessian=settings.hessian,
            calibration_data=options.calibration_data,
            calibration_samples=options.calibration_samples,
            eval_samples=settings.samples,
            seed=options.seed,
            device=options.device,
            calibration_choice=options.calibration_choice,
            resume=figures_file(self.cache_root, session.model),
        )
        self._asked = self._now()
        self._cells = {}
        self._told = None
        self._result = SensitivityResult(
            settings.mode, settings.candidates, (), session.recipe, session.model.sha256, "", options.seed
        )
        return self._submit(request)

    def _submit(self, request: Sensitivity) -> Job:
        return self._ask(request, lambda job: self._on_finished(request, job), self._on_cell)

    # ---- what comes back

    def _on_cell(self, cell: SensitivityCell) -> None:
        if self._result is None:  # of a model that is no longer open
            return
        self._cells[(cell.layer, cell.candidate)] = cell
        self._told = None
        self._emit()

    def _on_finished(self, request: Sensitivity, job: Job) -> None:
        self._job = None
        if isinstance(job.value, SensitivityResult):
            self._cells, self._result, self._told = {}, job.value, None
        elif job.error is not None and request.resume and job.error.where == request.resume:
            # The file of known figures is damaged: without it everything is measured again.
            forget_figures(request.resume)
            self._submit(replace(request, resume=""))
            return
        else:
            if not self._cells:
                self._result = self._told = None
            self._tell(job, "The sensitivity was not measured")
        self._emit()

    def _on_changed(self, _value: object) -> None:
        if self._result is not None:
            self._emit()

    def _on_model(self, model: ModelInfo | None) -> None:
        self.cancel()
        if model is None or self._asked is None or self._asked.model != model.sha256:
            self._asked, self._result, self._told, self._cells = None, None, None, {}
        self._emit()


def relevant_recipe(recipe: Recipe, model: ModelInfo, settings: SweepSettings) -> tuple[Any, ...]:
    """Return what of a recipe decides the figures of a sweep.

    Widths that the candidates replace do not, so that taking one makes nothing stale; nor does the other side where
    a single layer is quantized and all else is float.
    """
    sides = {"weights": ("weight",), "activations": ("activation",), "both": ("weight", "activation")}[settings.side]
    free = frozenset(f"{side}_bits" for side in sides) if settings.mode != "change" else frozenset()
    if settings.mode == "enable":
        free |= {name for name in FIELDS if not name.startswith(sides) and name != "pruning"}
    return relevant(recipe, model, {layer.name: free for layer in model.layers})
