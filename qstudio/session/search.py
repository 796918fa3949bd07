"""The search for mixed precision of a session: what is asked, the front so far, and its points as recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.core.first_last import with_first_last_bits
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import format_bits
from qstudio.core.search_result import SearchPoint, SearchResult
from qstudio.core.search_settings import SearchSettings
from qstudio.engine.client import Job
from qstudio.engine.messages import SearchBits
from qstudio.session.asked import Asked, asked, figures_file, forget_figures, relevant
from qstudio.session.long_job import LongJob
from qstudio.session.options import RunOptions
from qstudio.session.runs import Runs
from qstudio.session.work import Work

if TYPE_CHECKING:
    from qstudio.session.session import Session

SLOT = "search"

NO_LIMIT = "Set a limit first: average bits, size, BOPS, latency, or the largest drop"


class Searches(LongJob):
    """Asks the engine for searches and keeps the latest one, while it fills too.

    The recipe that a search has chosen, exported and verified, is a run of the session.

    Args:
        session: Its model, data, recipe and options are searched with.
        work: Where the job runs: one at a time, in the process of runs.
        runs: Told the verified run.
        tell: Called with a job that did not end as wished and a headline for it.
    """

    def __init__(self, session: Session, work: Work, runs: Runs, tell: Callable[[Job, str], None]) -> None:
        super().__init__(work, SLOT)
        self._session, self._runs, self._tell = session, runs, tell
        self.settings = SearchSettings(limits=(("average_bits", 4.0),))
        self.keep_ends = False
        """Whether first and last layer keep the bits the recipe gives them."""
        self.cache_root = ""
        """Folder of figures that were measured before; empty = they are known to the engine's process only."""
        self.export_folder = ""
        """Where exported models are put that nobody named; empty = they are measured and removed."""
        self.result: SearchResult | None = None
        """The latest search; while it runs, and after one that was stopped, what is known of it."""
        self.run_number: int | None = None
        """Number of the run that verified the chosen recipe."""
        self._is_new = False
        """Whether the search in progress has brought nothing yet: until then the one before stays."""
        self._asked: Asked | None = None
        self._started: tuple[ModelInfo, DatasetInfo, RunOptions, Recipe] | None = None
        """What the latest search was started with."""
        self._stale: tuple[object, str] = (None, "")
        for event in (session.recipe_changed, session.options_changed, session.dataset_changed):
            event.connect(self._on_changed)
        session.model_changed.connect(self._on_model)

    # ---- what is known

    @property
    def is_whole(self) -> bool:
        """Whether the latest search came to its end."""
        return self.result is not None and self.result.chosen is not None and not self.running

    @property
    def blocked(self) -> str:
        """Why no search can start now, in words; empty when one can."""
        if self._session.run_blocked:
            return self._session.run_blocked
        return "" if self.settings.limits or self.settings.max_drop is not None else NO_LIMIT

    @property
    def stale(self) -> str:
        """Why the points are not those of what is chosen now, in words; empty when they are."""
        if self._asked is None or self.result is None:
            return ""
        session = self._session
        now = (session.model, session.dataset, session.recipe, session.options, self.result)
        known = self._stale[0]
        if not isinstance(known, tuple) or any(a is not b for a, b in zip(now, known, strict=True)):
            self._stale = (now, self._asked.difference(self._now(self.result)))
        return self._stale[1]

    def _now(self, result: SearchResult | None) -> Asked | None:
        """Return what the points of a result would depend on now; bits that it chooses do not count."""
        session = self._session
        if session.model is None or session.dataset is None:
            return None
        free = _chosen_fields(result, session.model) if result is not None else {}
        what = relevant(session.recipe, session.model, free)
        return asked(session.model, session.dataset, session.options, what, None, evaluated=True)

    # ---- choosing and searching

    def choose(self, *, keep_ends: bool | None = None, **values: Any) -> None:
        """Change what is searched; `changed` follows.

        Args:
            keep_ends: Whether first and last layer keep their bits.
            **values: Fields of `SearchSettings`.

        Raises:
            UserError: A value does not exist or is out of its bounds.
        """
        settings = replace(self.settings, **values)
        keep = self.keep_ends if keep_ends is None else keep_ends
        if (settings, keep) != (self.settings, self.keep_ends):
            self.settings, self.keep_ends = settings, keep
            self._emit()

    def start(self, export_path: str = "", **values: Any) -> Job:
        """Search with these settings, then export and verify the recipe that is found as a run.

        Args:
            export_path: Where the quantized ONNX model is kept; empty = in `export_folder`.
            **values: Fields of `SearchSettings`, or `keep_ends`, that are to change first.

        Raises:
            UserError: A value is wrong, nothing is limited, there is no model or data, or a run is in progress.
        """
        self.choose(**values)
        session = self._session
        if self.blocked or session.model is None or session.data_spec is None or session.dataset is None:
            raise UserError(self.blocked, "search")
        self._check_kept(session.model)
        if not export_path and self.export_folder:
            name = f"{Path(session.model.path).stem}-run{len(session.runs) + 1}.onnx"
            export_path = str(Path(self.export_folder) / name)
        request = SearchBits(
            session.options.request(session.model.path, session.data_spec, session.recipe, export_path),
            self._asked_settings(session.model),
            resume=figures_file(self.cache_root, session.model),
        )
        self._is_new = True
        self._started = (session.model, session.dataset, session.options, session.recipe)
        return self._submit(request)

    def _check_kept(self, model: ModelInfo) -> None:
        names = [layer.name for layer in model.layers]
        for glob in (*self.settings.keep_weights, *self.settings.keep_activations):
            if not any(name == glob or fnmatchcase(name, glob) for name in names):
                raise UserError(f"no layer of the model matches '{glob}'", "keep", f"Choose for example {names[-1]}")

    def _asked_settings(self, model: ModelInfo) -> SearchSettings:
        if not self.keep_ends:
            return self.settings
        ends = with_first_last_bits(Recipe(), model, 8).overrides
        weights = tuple(name for name, values in ends if "weight_bits" in dict(values))
        tensors = tuple(name for name, values in ends if "activation_bits" in dict(values))
        kept = self.settings.keep_weights, self.settings.keep_activations
        return replace(self.settings, keep_weights=(*kept[0], *weights), keep_activations=(*kept[1], *tensors))

    def _submit(self, request: SearchBits) -> Job:
        return self._ask(request, lambda job: self._on_finished(request, job), self._on_partial)

    # ---- points

    @property
    def budgets(self) -> tuple[float, float] | None:
        """The lowest and the highest budget of the front, in the unit of its axis; None without a front."""
        front = self.result.front if self.result is not None else ()
        ends = [point.budget for point in front if point.budget is not None]
        return (ends[0], ends[-1]) if ends else None

    def at_budget(self, budget: float) -> SearchPoint | None:
        """Return the front's point for a budget: the last one that does not exceed it; None below the lowest."""
        return self.result.at_budget(budget) if self.result is not None else None

    def take(self, point: SearchPoint, merge_key: str | None = None) -> None:
        """Make a point's recipe the current one, as one undoable step (or as part of the drag named by merge_key)."""
        self._session.edit(f"Take {self.point_words(point)}", point.recipe, merge_key)

    def slide(self, budget: float) -> SearchPoint | None:
        """Take the point of a budget as part of a drag of the budget; `Session.end_drag` ends it."""
        point = self.at_budget(budget)
        if point is not None:
            self.take(point, "budget")
        return point

    def point_of(self, recipe: Recipe, front: bool = False) -> SearchPoint | None:
        """Return the point whose recipe says the same for every layer; None where there is none.

        Args:
            recipe: Looked for.
            front: Whether only points of the front are looked at.
        """
        model = self._session.model
        if model is None or self.result is None:
            return None
        among = self.result.front if front else self.points
        return next((point for point in among if same_effect(point.recipe, recipe, model)), None)

    @property
    def points(self) -> tuple[SearchPoint, ...]:
        """All different points: the chosen one, the front by rising budget, uniform recipes."""
        if self.result is None:
            return ()
        chosen = (self.result.chosen,) if self.result.chosen is not None else ()
        found: dict[str, SearchPoint] = {}
        for point in (*chosen, *self.result.front, *self.result.uniforms):
            found.setdefault(point.recipe.sha256(), point)
        return tuple(found.values())

    def point_words(self, point: SearchPoint) -> str:
        """Return what a point is called: "uniform W4", "W3.92 searched"."""
        if point.uniform is not None:
            bits, width = point.uniform
            return f"uniform W{format_bits(bits)}" + ("" if width is None else f"A{format_bits(width)}")
        average = point.amount("average_bits")
        return "the searched recipe" if average is None else f"the searched recipe of {average:.2f} bits"

    # ---- what comes back

    def _on_partial(self, value: Any) -> None:
        if isinstance(value, SearchResult) and self._job is not None:
            self._take_in(value)
            self._emit()

    def _take_in(self, result: SearchResult) -> None:
        """Keep a result; it depends on what the request said, whatever has been edited since."""
        self.result = result
        if self._is_new and self._started is not None:
            self._is_new, self.run_number = False, None
            model, dataset, options, recipe = self._started
            what = relevant(recipe, model, _chosen_fields(result, model))
            self._asked = asked(model, dataset, options, what, None, evaluated=True)

    def _on_finished(self, request: SearchBits, job: Job) -> None:
        self._job = None
        if isinstance(job.value, SearchResult):
            self._take_in(job.value)
            self._add_run(request, job.value)
        elif job.error is not None and request.resume and job.error.where == request.resume:
            # The file of known figures is damaged: without it everything is measured again.
            forget_figures(request.resume)
            self._submit(replace(request, resume=""))
            return
        else:
            self._tell(job, "The search stopped")
        self._emit()

    def _add_run(self, request: SearchBits, result: SearchResult) -> None:
        if result.run is None or result.chosen is None or self._started is None:
            return
        model, dataset, options, _ = self._started
        made = replace(request.run, recipe=result.chosen.recipe)
        self.run_number = self._runs.adopt(made, result.run, model, dataset, options).id

    def _on_changed(self, _value: object) -> None:
        if self.result is not None:
            self._emit()

    def _on_model(self, model: ModelInfo | None) -> None:
        self.cancel()
        if model is None or self._asked is None or self._asked.model != model.sha256:
            self.result, self.run_number, self._asked = None, None, None
        self._emit()


def same_effect(first: Recipe, second: Recipe, model: ModelInfo) -> bool:
    """Return whether two recipes say the same for every layer of a model, wherever they say it."""
    if first is second:
        return True
    if first.refinements != second.refinements:
        return False
    for layer in model.layers:
        a, b = first.settings(layer.name), second.settings(layer.name)
        if a is not b and a != b:
            return False
    return True


def _chosen_fields(result: SearchResult, model: ModelInfo) -> dict[str, frozenset[str]]:
    """Return the recipe fields that a search chooses, by layer."""
    found: dict[str, frozenset[str]] = {}
    settings = result.settings
    if settings.activation_bits:  # a single candidate is set without being a group
        for layer in model.layers:
            if not any(fnmatchcase(layer.name, glob) for glob in settings.keep_activations):
                found[layer.name] = frozenset(("activation_bits",))
    for group in result.groups:
        field = "weight_bits" if group.side == "weights" else "activation_bits"
        for name in group.layers:
            found[name] = found.get(name, frozenset()) | {field}
    return found
