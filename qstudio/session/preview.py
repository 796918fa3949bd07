"""What the present recipe does on some samples, followed from edit to edit, and what another would do. No Qt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

from qstudio.core.errors import UserError
from qstudio.core.inspection import DepthErrors, RecipeAccuracy, check_preview_samples
from qstudio.core.recipe import Recipe
from qstudio.core.size import quantized_bytes
from qstudio.engine.client import Job
from qstudio.engine.messages import ErrorOverDepth, JobState, PreviewAccuracy
from qstudio.session.events import Event
from qstudio.session.work import Work

if TYPE_CHECKING:
    from qstudio.session.session import Session

V = TypeVar("V", RecipeAccuracy, DepthErrors)

SAMPLES = 1000
"""Samples of a preview unless another number is chosen."""

_KEPT_FIGURES, _KEPT_DEPTHS = 500, 32
"""Answers remembered: some hundred bytes of a figure, some hundred kilobytes of noise at 1,000 layers."""


class Followed(Generic[V]):
    """One answer that is kept up to date: asked for again when its key changes, remembered by key.

    An answer of another key never takes the place of the present one, whenever it comes.
    """

    def __init__(self, work: Work, slot: str, most: int) -> None:
        self._most = most
        self.value: V | None = None
        """Of the present key, as far as it is known."""
        self.latest: V | None = None
        """What was known last, of whatever key; a window shows it greyed while `value` is None."""
        self.problem = ""
        """Why there is no answer, in words; empty when none is wanted or one is on its way."""
        self.changed: Event[V | None] = Event()
        self._work, self._slot = work, slot
        self._known: OrderedDict[Hashable, V] = OrderedDict()
        self._key: Hashable = None
        self._asked: Hashable = None

    def follow(self, key: Hashable) -> None:
        """Turn to another key: its answer is there at once where it is known, and what was asked before is stopped."""
        if key == self._key:
            return
        self._key = key
        if self._asked is not None and self._asked != key:
            self._work.cancel(self._slot)
            self._asked = None
        self.problem = ""
        self._set(self.known(key))

    def ask(self, request: PreviewAccuracy | ErrorOverDepth) -> None:
        """Ask the engine for the present key's answer, unless it is known or on its way."""
        key = self._key
        if key is None or key == self._asked or key in self._known or self.problem:
            return
        self._asked = key
        self._work.submit(
            self._slot,
            request,
            lambda job: self._on_finished(key, job),
            lambda value: self._on_partial(key, value),
        )

    def known(self, key: Hashable) -> V | None:
        """Return a complete answer, None where there is none."""
        return self._known.get(key)

    def learn(self, key: Hashable, value: V) -> None:
        """Remember a complete answer; it is shown when it is the present key's."""
        self._known[key] = value
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        if key == self._key:
            self._set(value)

    def _on_partial(self, key: Hashable, value: V) -> None:
        if key == self._key:
            self._set(value)

    def _on_finished(self, key: Hashable, job: Job) -> None:
        if self._asked == key:
            self._asked = None
        if job.state is JobState.DONE:
            self.learn(key, job.value)
        elif key == self._key:
            if job.state is not JobState.CANCELLED:
                self.problem = job.error.sentence() if job.error is not None else "The preview was not finished."
            self._set(None)

    def _set(self, value: V | None) -> None:
        if value is self.value and value is not None:
            return
        self.value = value
        if value is not None:
            self.latest = value
        self.changed.emit(value)


class Previews:
    """Follows recipe, options, data and model of a session; the engine answers from what the edit left unchanged.

    Nothing is computed until somebody wants it: `follow` (the window does) for the accuracy, `request_depth` for the
    error over depth. The first answer waits for the statistics of the activations, which it is calibrated with.
    """

    def __init__(self, session: Session, work: Work) -> None:
        self._session, self._work = session, work
        self._accuracy: Followed[RecipeAccuracy] = Followed(work, "preview accuracy", _KEPT_FIGURES)
        self._depth: Followed[DepthErrors] = Followed(work, "error over depth", _KEPT_DEPTHS)
        self.samples = SAMPLES
        """Samples that previews are made with; fewer where the data has fewer."""
        self._follows = False
        self._calibrated: Hashable = None
        """What the activation statistics that are there were collected with."""
        self._wishes: set[object] = set()
        self.pinned: Recipe | None = None
        """The recipe that the present one is compared with; None = none is pinned."""
        self.changed: Event[RecipeAccuracy | None] = self._accuracy.changed
        self.depth_changed: Event[DepthErrors | None] = self._depth.changed
        session.model_changed.connect(lambda _model: self._on_model())
        session.dataset_changed.connect(lambda _dataset: self._update())
        session.recipe_changed.connect(lambda _recipe: self._update())
        session.options_changed.connect(lambda _options: self._update())
        session.statistics_changed.connect(self._on_statistics)

    # ---- the present recipe

    @property
    def accuracy(self) -> RecipeAccuracy | None:
        """Of the present recipe, as far as it is evaluated (`done` says whether wholly); None while unknown."""
        return self._accuracy.value

    @property
    def latest(self) -> RecipeAccuracy | None:
        """The figure known last, perhaps of another recipe: to be shown as stale while `accuracy` is None."""
        return self._accuracy.latest

    @property
    def depth(self) -> DepthErrors | None:
        """Error over depth of the present recipe, as far as it is computed; None while unknown."""
        return self._depth.value

    @property
    def latest_depth(self) -> DepthErrors | None:
        """The error over depth known last, perhaps of another recipe: to be shown as stale while `depth` is None."""
        return self._depth.latest

    @property
    def problem(self) -> str:
        """Why the present recipe has no figure, in words; empty while one is known, on its way or not wanted."""
        return self._accuracy.problem

    @property
    def depth_problem(self) -> str:
        """Why there is no error over depth, in words."""
        return self._depth.problem

    def set_samples(self, samples: int) -> None:
        """Choose how many samples a preview evaluates.

        Raises:
            UserError: It is not between 16 and 100,000.
        """
        self.samples = check_preview_samples(samples)
        self._update()

    def follow(self) -> None:
        """Keep the accuracy of the present recipe known from now on."""
        self._follows = True
        self._update()

    def request_depth(self) -> Callable[[], None]:
        """Want the error over depth, now and after every edit; returns what withdraws the wish (harmless twice).

        A panel wants it while it is visible: ask in `showEvent`, withdraw in `hideEvent`.
        """
        wish = object()
        self._wishes.add(wish)
        self._update()
        return lambda: self._wishes.discard(wish)

    # ---- compared with a pinned recipe

    def pin(self) -> None:
        """Compare with the recipe as it stands from now on; `changed` follows.

        Raises:
            UserError: There is no model.
        """
        if self._session.model is None:
            raise UserError("no model is open", "session", "Open a model first")
        self.pinned = self._session.recipe
        self.changed.emit(self.accuracy)

    def unpin(self) -> None:
        """Compare with nothing; `changed` follows."""
        self.pinned = None
        self._work.cancel(_once(_PINNED))
        self.changed.emit(self.accuracy)

    @property
    def pinned_accuracy(self) -> RecipeAccuracy | None:
        """Of the pinned recipe on the present samples; None while unknown: it is evaluated again on other samples."""
        request = self._request(self.pinned) if self.pinned is not None else None
        return None if request is None else self._accuracy.known(self._key(request))

    @property
    def pinned_size_bytes(self) -> int | None:
        """Packed size of the model under the pinned recipe; None where none is pinned."""
        model, pinned = self._session.model, self.pinned
        return None if model is None or pinned is None else quantized_bytes(model, pinned.settings)

    # ---- any recipe

    def evaluate(self, recipe: Recipe, slot: str, done: Callable[[RecipeAccuracy | None], None]) -> None:
        """Evaluate a recipe once, on the same samples, without making it the present one.

        Args:
            recipe: Any recipe for the open model.
            slot: A newer call with the same slot makes this one's answer disappear; `done` is then not called.
            done: Called with the complete figure: at once where it is known, else from the engine's dispatch. None
                where there is none (it failed or was stopped; no model or data, or others by now).
        """
        request = self._request(recipe)
        if request is None:
            done(None)
            return
        key = self._key(request)
        known = self._accuracy.known(key)
        if known is not None:
            self._work.cancel(_once(slot))
            done(known)
            return

        def finished(job: Job) -> None:
            if job.state is not JobState.DONE:
                done(None)
                return
            self._accuracy.learn(key, job.value)
            now = self._request(recipe)
            done(job.value if now is not None and self._key(now) == key else None)

        self._work.submit(_once(slot), replace(request, once=True), finished)

    def cancel(self, slot: str) -> None:
        """Stop what `evaluate` was asked with this slot; its `done` is called with None."""
        self._work.cancel(_once(slot))

    def request(self) -> PreviewAccuracy | None:
        """Return what says how the present recipe is simulated; None until model, data and statistics are there."""
        request = self._request(self._session.recipe)
        return request if request is not None and self._calibrated == self._calibration(request) else None

    # ---- plumbing

    def _on_model(self) -> None:
        self.pinned = None  # its layers were of another model
        self._update()

    def _on_statistics(self, of: str) -> None:
        if of == "activations":
            request = self._request(self._session.recipe)
            collected = request is not None and bool(self._session.activation_statistics)
            self._calibrated = self._calibration(request) if request is not None and collected else None
            self._update()

    def _update(self) -> None:
        request = self._request(self._session.recipe)
        key = None if request is None else self._key(request)
        self._accuracy.follow(key)
        self._depth.follow(key)
        # Asked only now: listeners of either may have edited the recipe, which has led here once more.
        if request is None or self._session.recipe is not request.recipe:
            return
        if self._calibrated != self._calibration(request):
            return
        if self._follows:
            self._accuracy.ask(request)
            if self.pinned is not None and self.pinned != request.recipe and self.pinned_accuracy is None:
                self.evaluate(self.pinned, _PINNED, lambda _accuracy: self.changed.emit(self.accuracy))
        if self._wishes:
            self._depth.ask(ErrorOverDepth(request))

    def _request(self, recipe: Recipe) -> PreviewAccuracy | None:
        session = self._session
        model, data, options = session.model, session.data_spec, session.options
        if model is None or not model.runnable or data is None or session.dataset is None:
            return None
        return PreviewAccuracy(
            model.path,
            data,
            recipe,
            self.samples,
            options.calibration_data,
            options.calibration_samples,
            options.seed,
            options.calibration_choice,
        )

    def _key(self, request: PreviewAccuracy) -> Hashable:
        """Return what decides a request's answer: model and data by content, not by path."""
        return (self._calibration(request), request.samples, request.recipe.sha256())

    def _calibration(self, request: PreviewAccuracy) -> Hashable:
        """Return what decides how a preview is calibrated and which samples there are."""
        model, dataset = self._session.model, self._session.dataset
        hashes = (model.sha256 if model else "", dataset.sha256 if dataset else "")
        return (*hashes, replace(request, model="", recipe=_NOTHING, samples=SAMPLES))


_NOTHING = Recipe()
_PINNED = "pinned"


def _once(slot: str) -> str:
    return f"evaluate {slot}"
