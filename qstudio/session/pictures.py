"""One sample through the layers, and weights as pictures, as somebody looks at them. No Qt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from qstudio.core.inspection import LayerMaps, SampleTrace, WeightPictures
from qstudio.core.predictions import Predictions
from qstudio.core.recipe import Recipe
from qstudio.engine.client import Job
from qstudio.engine.messages import JobState, PictureWeights, TraceSample
from qstudio.session.events import Event
from qstudio.session.readout import scheme_of
from qstudio.session.work import Work

if TYPE_CHECKING:
    from qstudio.session.session import Session

_KEPT = 6
"""Weights whose pictures are remembered: 4 MB each at most."""


class Pictures:
    """Follows recipe, selection, data and model of a session for what is being looked at; nothing is asked otherwise.

    A panel follows while it is visible (`follow_sample`, `follow_weights`) and withdraws when it is hidden.
    """

    def __init__(self, session: Session, work: Work) -> None:
        self._session, self._work = session, work
        self.index = 0
        """The sample that is looked at: its place in the evaluation split."""
        self.trace: SampleTrace | None = None
        """What was answered last, perhaps of another recipe or sample: see `is_current`."""
        self.is_complete = False
        """Whether the layer at which the class flips is known in `trace`."""
        self.problem = ""
        """Why there is no trace of the sample, in words; empty when there is one or it is on its way."""
        self.weights: WeightPictures | None = None
        """What was answered last; of the current layer and scheme when `weights_are_current`."""
        self.weights_problem = ""
        """Why the current layer's weight has no picture, in words."""
        self.changed: Event[SampleTrace | None] = Event()
        """The trace, whether it is current, or the problem."""
        self.weights_changed: Event[WeightPictures | None] = Event()
        self.sample_asked: Event[int] = Event()
        """Somebody wants to see a sample: panels bring it to the front."""
        self._sample_wishes: set[object] = set()
        self._weight_wishes: set[object] = set()
        self._asked: tuple[Hashable, str] | None = None
        """Key and layer of what is on its way."""
        self._answered: Hashable = None
        self._failed: Hashable = None
        self._weights_asked: Hashable = None
        self._weights_shown: Hashable = None
        self._known: OrderedDict[Hashable, WeightPictures] = OrderedDict()
        session.model_changed.connect(lambda _model: self._forget())
        session.dataset_changed.connect(lambda _dataset: self._forget_sample())
        session.recipe_changed.connect(lambda _recipe: self._update())
        session.options_changed.connect(lambda _options: self._update())
        session.statistics_changed.connect(lambda _of: self._update())
        session.selection_changed.connect(lambda _selection: self._update())

    # ---- the sample

    @property
    def samples(self) -> int:
        """Number of samples that can be looked at; 0 without data."""
        return self._session.dataset.sizes["test"] if self._session.dataset is not None else 0

    @property
    def is_current(self) -> bool:
        """Whether `trace` is that of the present recipe and sample."""
        request = self._request()
        return self.trace is not None and request is not None and self._answered == self._key(request)

    @property
    def is_busy(self) -> bool:
        """Whether a trace is on its way."""
        return self._asked is not None

    def show_sample(self, index: int) -> None:
        """Look at a sample of the evaluation split, and have the panel that shows it come to the front."""
        self.look_at(index)
        self.sample_asked.emit(index)

    def look_at(self, index: int) -> None:
        """Look at a sample; one that is not there is told of in `problem`."""
        if index != self.index:
            self.index, self.problem = index, ""
            self._update()

    def maps(self, layer: str) -> LayerMaps | None:
        """Return the maps of a layer in `trace`; None where there are none (yet)."""
        found = next((maps for maps in self.trace.layers if maps.layer == layer), None) if self.trace else None
        return found if found is not None and found.float.size else None

    def follow_sample(self) -> Callable[[], None]:
        """Want the trace, now and after every edit; returns what withdraws the wish (harmless twice)."""
        return self._wish(self._sample_wishes)

    # ---- flips

    @property
    def flipped(self) -> tuple[int, ...]:
        """Samples whose class a run has changed, ascending: of the selected run, else of the last one that knows."""
        predictions = self._predictions()
        if predictions is None:
            return ()
        changed = predictions.indices[predictions.float_class != predictions.quantized_class]
        return tuple(sorted(int(index) for index in changed))

    @property
    def flips_known(self) -> bool:
        """Whether there is a run of this model and data whose predictions are known."""
        return self._predictions() is not None

    def next_flipped(self) -> int | None:
        """Look at the next sample after this one that a run has flipped, from the first again after the last."""
        flipped = self.flipped
        if not flipped:
            return None
        index = next((index for index in flipped if index > self.index), flipped[0])
        self.look_at(index)
        return index

    def _predictions(self) -> Predictions | None:
        session = self._session
        model, dataset = session.model, session.dataset
        if model is None or dataset is None:
            return None
        hashes = (model.sha256, dataset.sha256)
        # The selected run first, then from the last to the first.
        for run in sorted(session.runs, key=lambda run: (run.id == session.selected_run, run.id), reverse=True):
            there = (run.model_sha256, run.data_sha256) == hashes and run.result is not None
            if there and run.result is not None and run.result.predictions is not None:
                return run.result.predictions
        return None

    # ---- weights

    @property
    def weights_are_current(self) -> bool:
        """Whether `weights` is of the current layer under the present recipe."""
        request = self._weights_request()
        return self.weights is not None and request is not None and self._weights_shown == self._weights_key(request)

    def follow_weights(self) -> Callable[[], None]:
        """Want the current layer's weight as a picture, now and after every edit; returns what withdraws the wish."""
        return self._wish(self._weight_wishes)

    # ---- plumbing

    def _wish(self, wishes: set[object]) -> Callable[[], None]:
        wish = object()
        wishes.add(wish)
        self._update()
        return lambda: wishes.discard(wish)

    def _forget(self) -> None:
        self._known.clear()
        self.weights, self._weights_shown, self._weights_asked = None, None, None
        self._work.cancel("weight picture")
        self.weights_problem = ""
        self._forget_sample()

    def _forget_sample(self) -> None:
        self.index, self.trace, self.problem = 0, None, ""
        self._asked = self._answered = self._failed = None
        self._work.cancel("sample trace")
        self.changed.emit(None)
        self._update()

    def _update(self) -> None:
        if self._sample_wishes:
            self._ask_sample()
        if self._weight_wishes:
            self._ask_weights()

    def _request(self) -> TraceSample | None:
        preview = self._session.preview.request()
        return None if preview is None else TraceSample(preview, self.index)

    def _key(self, request: TraceSample) -> Hashable:
        """Return what decides a trace: model and data by content, not by path."""
        model, dataset = self._session.model, self._session.dataset
        hashes = (model.sha256 if model else "", dataset.sha256 if dataset else "")
        preview = replace(request.preview, model="", recipe=_NOTHING, samples=0)
        return (*hashes, request.preview.recipe.sha256(), preview, request.index)

    def _ask_sample(self) -> None:
        """Ask for the trace with the current layer's maps, unless it is there or on its way."""
        request = self._request()
        if request is None:
            return
        layer = self._session.selection[0] if self._session.selection else ""
        key = self._key(request)
        on_its_way = self._asked is not None and self._asked[0] == key
        if key == self._answered and self.trace is not None and (self.is_complete or on_its_way):
            lacks = self.maps(layer) is None and any(maps.layer == layer for maps in self.trace.layers)
            if not lacks:
                return
        if self._asked == (key, layer) or self._failed == key:
            return
        asked = self._asked = (key, layer)
        self.problem, self._failed = "", None
        self._work.submit(
            "sample trace",
            replace(request, layers=(layer,) if layer else ()),
            lambda job: self._on_trace(asked, job),
            lambda value: self._on_partial(asked, value),
        )

    def _on_partial(self, asked: tuple[Hashable, str], value: SampleTrace) -> None:
        if asked == self._asked:
            self._set_trace(asked[0], value, complete=False)

    def _on_trace(self, asked: tuple[Hashable, str], job: Job) -> None:
        if asked != self._asked:
            return
        self._asked = None
        if job.state is JobState.DONE:
            self._set_trace(asked[0], job.value, complete=True)
            return
        if job.state is JobState.CANCELLED:
            self.problem = "Stopped. Choose a sample to look again."
        else:
            self._failed = asked[0]
            self.problem = job.error.sentence() if job.error is not None else "The sample could not be traced."
        self.changed.emit(self.trace)

    def _set_trace(self, key: Hashable, trace: SampleTrace, complete: bool) -> None:
        self.trace, self._answered, self.is_complete, self.problem = trace, key, complete, ""
        self.changed.emit(trace)

    # ---- weights, asked

    def _weights_request(self) -> PictureWeights | None:
        session = self._session
        layer = session.current_layer
        if session.model is None or layer is None or layer.weight is None:
            return None
        # A weight that layers share is quantized as the layer says that its site names.
        return PictureWeights(session.model.path, layer.name, scheme_of(session, layer.weight.layer, "weight"))

    def _weights_key(self, request: PictureWeights) -> Hashable:
        model = self._session.model
        return (model.sha256 if model is not None else "", request.layer, request.scheme)

    def _ask_weights(self) -> None:
        """Ask for the current layer's picture, unless it is there or on its way."""
        request = self._weights_request()
        if request is None:
            return
        key = self._weights_key(request)
        if key in self._known:
            self._known.move_to_end(key)
            if key != self._weights_shown:
                self._set_weights(key)
            return
        if key == self._weights_asked:
            return
        self._weights_asked, self.weights_problem = key, ""
        self._work.submit("weight picture", request, lambda job: self._on_weights(key, job))

    def _on_weights(self, key: Hashable, job: Job) -> None:
        if key != self._weights_asked:
            return
        if job.state is JobState.DONE:
            self._weights_asked = None
            self._known[key] = job.value
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            self._set_weights(key)
            return
        if job.state is JobState.CANCELLED:
            self._weights_asked = None
        self.weights_problem = job.error.sentence() if job.error is not None else "The weight could not be drawn."
        self.weights_changed.emit(self.weights)

    def _set_weights(self, key: Hashable) -> None:
        self._weights_asked, self.weights_problem = None, ""
        self.weights, self._weights_shown = self._known[key], key
        self.weights_changed.emit(self.weights)


_NOTHING = Recipe()
