"""Which two runs are compared, in what they differ, and the samples whose answer changes between them. No Qt."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from qstudio.core.flips import Answers, Flips, flips_between, float_answers, quantized_answers
from qstudio.core.recipe import Recipe
from qstudio.core.recipe_difference import FieldDifference, recipe_difference, taken_from
from qstudio.engine.client import Job
from qstudio.engine.messages import LookAtSamples, SamplePage
from qstudio.session.events import Event
from qstudio.session.options import Run
from qstudio.session.work import Work

if TYPE_CHECKING:
    from qstudio.session.session import Session

_KEPT_SAMPLES = 512
"""Thumbnails kept: 12 KB each of a 64 x 64 colour image."""


@dataclass(frozen=True)
class OptionDifference:
    """One option of two runs that differs."""

    name: str
    first: str
    second: str


class Compare:
    """Run A is the selected run; run B is what it is compared with: another run, or the float network.

    Differences are A minus B, and flips lead from B to A: "right to wrong" is right in B and wrong in A.
    """

    def __init__(self, session: Session, work: Work) -> None:
        self._session = session
        self._work = work
        self._reference: int | None = None
        self._flips: tuple[tuple[object, ...], Flips | None, str] | None = None
        self._samples: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._asked: tuple[int, ...] = ()
        self.changed: Event[tuple[int | None, int | None]] = Event()
        """Numbers of A and B, whenever one of them is another one or has other results."""
        self.samples_changed: Event[tuple[int, ...]] = Event()
        """Places of the samples that arrived; empty when all were forgotten."""
        session.run_selected.connect(lambda _number: self._tell())
        session.runs_changed.connect(self._on_runs)
        session.model_changed.connect(lambda _model: self._on_other_data())
        session.dataset_changed.connect(lambda _dataset: self._on_other_data())
        self._seen: tuple[object, ...] = ()

    # ---- which two

    @property
    def first(self) -> Run | None:
        """Run A; None while none is selected."""
        return self._find(self._session.selected_run)

    @property
    def second(self) -> Run | None:
        """Run B; None for the float network."""
        return self._find(self._reference)

    def _find(self, number: int | None) -> Run | None:
        return next((run for run in self._session.runs if run.id == number), None)

    def set_reference(self, number: int | None) -> None:
        """Compare with another run (KeyError when there is none), or with the float network."""
        self._reference = None if number is None else self._session.run(number).id
        self._tell()

    def swap(self) -> None:
        """Exchange A and B; with the float network as B there is nothing to exchange."""
        first, second = self.first, self.second
        if first is not None and second is not None:
            self._reference = first.id
            self._session.select_run(second.id)

    def _tell(self) -> None:
        first, second = self.first, self.second
        self._seen = self._state()
        self.changed.emit((None if first is None else first.id, None if second is None else second.id))

    def _state(self) -> tuple[object, ...]:
        """Return what the comparison rests on, to be compared by identity: results hold large arrays."""
        pair = (self.first, self.second)
        return tuple(part for run in pair for part in ((run.id, run.state, run.result) if run else (0, None, None)))

    def _on_runs(self, _runs: object) -> None:
        """Tell when one of the two brought something; progress alone changes nothing here."""
        if not _same(self._state(), self._seen):
            self._tell()

    # ---- flips

    @property
    def flips(self) -> Flips | None:
        """What changes from B to A; None where they cannot be compared (see `flips_blocked`)."""
        return self._known_flips()[0]

    @property
    def flips_blocked(self) -> str:
        """Why there are no flips, in words; empty when there are some to look at, be it none that changed."""
        return self._known_flips()[1]

    def _known_flips(self) -> tuple[Flips | None, str]:
        state = self._state()
        if self._flips is None or not _same(state, self._flips[0]):
            self._flips = (state, *self._computed(self.first, self.second))
        return self._flips[1], self._flips[2]

    @staticmethod
    def _computed(first: Run | None, second: Run | None) -> tuple[Flips | None, str]:
        if first is None:
            return None, "No run is selected: click one in the timeline, the scatter or the table of runs"
        mine = _predictions(first)
        if isinstance(mine, str):
            return None, mine
        if second is None:
            predictions = first.result.predictions if first.result is not None else None
            assert predictions is not None, "there are answers"
            return flips_between(float_answers(predictions), mine), ""
        if second.id == first.id:
            return None, "A run does not differ from itself: Ctrl+click another run"
        theirs = _predictions(second)
        if isinstance(theirs, str):
            return None, theirs
        if first.data_sha256 != second.data_sha256 or _split(first) != _split(second):
            return None, f"{first.title} and {second.title} were evaluated on different data"
        if first.model_sha256 != second.model_sha256 and mine.class_names != theirs.class_names:
            return None, f"{first.title} and {second.title} are of different models with different classes"
        found = flips_between(theirs, mine)
        if not found.samples:
            return None, f"{first.title} and {second.title} have no evaluation sample in common: their seeds differ"
        return found, ""

    # ---- recipes and options

    def recipes(self) -> tuple[Recipe, Recipe] | None:
        """Return the recipes of A and B; None where one is not known or B is the float network."""
        first, second = self.first, self.second
        one, two = (run.request.recipe if run is not None and run.request else None for run in (first, second))
        return None if one is None or two is None else (one, two)

    @property
    def differences_blocked(self) -> str:
        """Why the recipes of A and B cannot be compared layer by layer, in words; empty when they can."""
        model = self._session.model
        if self.recipes() is None or model is None:
            return "Choose two runs to see the layers in which their recipes differ: click A, Ctrl+click B"
        if self.first is not None and self.second is not None and self.first.id == self.second.id:
            return "A and B are the same run: Ctrl+click another one"
        others = [run.title for run in (self.first, self.second) if run and run.model_sha256 != model.sha256]
        if others:
            verb = "is" if len(others) == 1 else "are"
            return f"{' and '.join(others)} {verb} of another model than the open one: open it to see its layers"
        return ""

    def differences(self) -> tuple[FieldDifference, ...]:
        """Return the fields in which the recipes of A and B differ, layer by layer; none where that is blocked."""
        pair, model = self.recipes(), self._session.model
        if pair is None or model is None or self.differences_blocked:
            return ()
        return recipe_difference(*pair, model.layers)

    def option_differences(self) -> tuple[OptionDifference, ...]:
        """Return what else A and B were asked with differently: data, samples, seed, training, refinements."""
        first, second = self.first, self.second
        if first is None or second is None:
            return ()
        one, two = options_of(first), options_of(second)
        names = dict.fromkeys((*one, *two))
        return tuple(
            OptionDifference(name, one.get(name, "–"), two.get(name, "–"))
            for name in names
            if one.get(name) != two.get(name)
        )

    def take(self, layers: tuple[str, ...], from_second: bool = False) -> None:
        """Give layers of the present recipe what A (or B) has set for them, as one undoable step."""
        pair = self.recipes()
        run = self.second if from_second else self.first
        if pair is None or run is None or not layers or self.differences_blocked:
            return
        wanted = taken_from(self._session.recipe, pair[1 if from_second else 0], layers)
        what = layers[0] if len(layers) == 1 else f"{len(layers)} layers"
        self._session.edit(f"Take {what} from {run.title}", wanted)

    # ---- samples

    @property
    def samples_blocked(self) -> str:
        """Why the samples cannot be shown, in words; empty when they can."""
        session, run = self._session, self.first
        if run is None or session.model is None or session.dataset is None or session.data_spec is None:
            return "Open the run's model and data to see its samples"
        if run.data_sha256 != session.dataset.sha256:
            return f"{run.title} was evaluated on other data than what is open: its samples are not shown"
        return ""

    def sample(self, index: int) -> NDArray[Any] | None:
        """Return a sample as stored; None where it has not been fetched."""
        return self._samples.get(index)

    def request_samples(self, indices: tuple[int, ...]) -> None:
        """Fetch those of some samples that are not known; the latest request wins, `samples_changed` follows."""
        model, data = self._session.model, self._session.data_spec
        for index in indices:
            if index in self._samples:
                self._samples.move_to_end(index)
        missing = tuple(index for index in indices if index not in self._samples)
        if not missing or missing == self._asked or self.samples_blocked or model is None or data is None:
            return
        self._asked = missing
        self._work.submit("flip samples", LookAtSamples(model.path, data, missing), self._on_samples)

    def _on_samples(self, job: Job) -> None:
        self._asked = ()
        page = job.value
        if isinstance(page, SamplePage):
            self._samples.update(zip(page.indices, page.stored, strict=True))
            while len(self._samples) > _KEPT_SAMPLES:
                self._samples.popitem(last=False)
            self.samples_changed.emit(page.indices)

    def _on_other_data(self) -> None:
        if self._asked:
            self._work.cancel("flip samples")
        self._asked = ()
        self._samples.clear()
        self.samples_changed.emit(())
        self._tell()


def _same(one: tuple[object, ...], two: tuple[object, ...]) -> bool:
    """Return whether two states are of the same numbers and the same objects."""
    return len(one) == len(two) and all(
        a is b or (isinstance(a, int) and a == b) for a, b in zip(one, two, strict=True)
    )


def _predictions(run: Run) -> Answers | str:
    """Return a run's answers, or why there are none."""
    result = run.result
    if result is None or result.simulated is None:
        return f"{run.title} has not been simulated yet"
    if result.predictions is None:
        return f"{run.title} has no predictions: the outputs are no class scores, or an older version made the run"
    return quantized_answers(result.predictions)


def _split(run: Run) -> str | None:
    return run.request.data.split if run.request is not None else None


def options_of(run: Run) -> dict[str, str]:
    """Return what a run was asked with besides the schemes of its layers, in words."""
    options, request = run.options, run.request
    told = {
        "model": run.model,
        "data": run.data,
        "method": "PTQ" if run.training is None else f"{run.training.settings.method} training",
        "refinements": ", ".join(request.recipe.refinements) or "none" if request is not None else "–",
        "calibration samples": f"{options.calibration_samples:,} {options.calibration_choice}",
        "calibration data": options.calibration_data.source if options.calibration_data else "of the data",
        "evaluation samples": "all" if options.eval_samples is None else f"{options.eval_samples:,}",
        "seed": str(options.seed),
        "device": options.device,
        "storage below 8 bits": options.storage,
        "latency": f"batch {options.latency_batch}, {options.threads or 'all'} threads"
        if options.measure_latency
        else "not measured",
    }
    if request is not None:
        for name in ("mean", "std", "scale", "size", "layout", "split"):
            value = getattr(request.data, name)
            if value is not None:
                told[f"data {name}"] = str(value)
    if run.training is not None:
        told |= {f"training {name.replace('_', ' ')}": str(v) for name, v in run.training.settings.to_json().items()}
    return told
