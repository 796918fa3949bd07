"""Why is it worse? A walk from the float model to a repair, every step of it measured. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from qstudio.core.errors import UserError
from qstudio.core.findings.evidence import Evidence
from qstudio.core.findings.network_rules import is_near_chance
from qstudio.core.findings.significance import LEAST_AGREEMENT, LEAST_POINTS, is_worse, score_of
from qstudio.core.inspection import RecipeAccuracy
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics
from qstudio.session.diagnosis_steps import STEPS, Measured, Step
from qstudio.session.events import Event
from qstudio.session.repairs import SIDES, Repair, kinds, noisiest, only, quantized, repairs, spared

if TYPE_CHECKING:
    from qstudio.session.session import Session

SLOT = "diagnosis"
LAYERS = 5
"""Single layers that are spared in turn: the noisiest of the kind at fault."""
CLEARLY = 2.0
"""One side, or one kind of layer, is at fault alone where it costs so many times what the others do."""


Walk = Generator[tuple[str, Recipe], RecipeAccuracy, None]


class Diagnosis:
    """Five questions, each answered by evaluating recipes on the preview samples.

    `start` begins, `cancel` stops where it is, `resume` goes on there; nothing is lost but the evaluation that was in
    progress. The answers are of the recipe that stood at the start: after another edit it says so in `problem`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.steps: tuple[Step, ...] = STEPS
        self.changed: Event[tuple[Step, ...]] = Event()
        self.repair: Repair | None = None
        """What the diagnosis proposes; None until it is found, and where nothing is wrong or nothing helps."""
        self.verdict = ""
        """"float", "healthy", "weights", "activations" or "both"; empty until it is known."""
        self.worst: tuple[str, ...] = ()
        """Names of the layers that hurt, the worst first, once they are known."""
        self.trying = ""
        """What is being evaluated; empty while nothing is."""
        self.problem = ""
        """Why it stopped before its end, in words."""
        self._walk: Walk | None = None
        self._pending: tuple[str, Recipe] | None = None
        self._evidence: Evidence | None = None
        self._base: RecipeAccuracy | None = None
        self._asked = 0
        session.model_changed.connect(lambda _model: self._forget("The model has changed: start again."))
        session.dataset_changed.connect(lambda _data: self._forget("The data has changed: start again."))
        session.options_changed.connect(lambda _options: self._forget("The options have changed: start again."))
        session.recipe_changed.connect(self._on_recipe)

    # ---- steering

    @property
    def running(self) -> bool:
        """Whether an evaluation is in progress."""
        return bool(self.trying)

    @property
    def resumable(self) -> bool:
        """Whether it was stopped before its end and can go on."""
        return self._pending is not None and not self.trying

    @property
    def blocked(self) -> str:
        """Why it cannot start, in words; empty when it can."""
        session = self._session
        if session.model is None:
            return "Open a model first"
        if session.model.unsupported:
            return session.run_blocked
        if session.dataset is None:
            return "Choose a dataset first"
        if not session.activation_statistics or not session.weight_statistics:
            return "The statistics are still being collected"
        return ""

    def start(self) -> None:
        """Begin with the present recipe; what was found before is forgotten.

        Raises:
            UserError: There is no model, no data, or no statistics yet.
        """
        evidence = self._session.findings.evidence
        if self.blocked or evidence is None:
            raise UserError(self.blocked, "diagnosis")
        if self.running:
            self.cancel()
        self._forget("")
        self._evidence = evidence
        self._walk = self._questions(evidence)
        self._take(next(self._walk))

    def cancel(self) -> None:
        """Stop; `resume` goes on."""
        if self.trying:
            self._asked += 1
            self.trying = ""
            self._session.preview.cancel(SLOT)
            self.changed.emit(self.steps)

    def resume(self) -> None:
        """Go on where it was stopped.

        Raises:
            UserError: There is nothing to go on with.
        """
        if self._pending is None or self.trying:
            raise UserError("there is no stopped diagnosis", "diagnosis", "Start one")
        self.problem = ""
        self._take(self._pending)

    def apply(self) -> None:
        """Make the proposed repair the present recipe, as one undoable step.

        Raises:
            UserError: Nothing is proposed.
        """
        if self.repair is None:
            raise UserError("nothing is proposed", "diagnosis", "Start a diagnosis first")
        repair = self.repair
        self._session.edit(f"Diagnosis: {repair.title}", repair.recipe)

    def text(self) -> str:
        """Return everything that was asked and answered, as plain text."""
        return "\n".join(step.text() for step in self.steps if step.state != "waiting")

    def _forget(self, problem: str) -> None:
        if self._walk is None and not self.problem and not problem:
            return
        had = self._walk is not None
        if self.trying:
            self._asked += 1
            self.trying = ""
            self._session.preview.cancel(SLOT)
        self._walk, self._pending, self._base = None, None, None
        self.steps, self.repair, self.verdict, self.worst = STEPS, None, "", ()
        self.problem = problem if had else ""
        self.changed.emit(self.steps)

    def _on_recipe(self, recipe: Recipe) -> None:
        evidence = self._evidence
        ours = (evidence.recipe if evidence else None, self.repair.recipe if self.repair else None)
        if self._walk is not None and recipe not in ours:
            if self._pending is not None:
                self._forget("The recipe has changed: start again.")
            else:
                self.problem = "The recipe has changed since: these figures are of the one before."
                self.changed.emit(self.steps)

    # ---- driving

    def _take(self, wanted: tuple[str, Recipe]) -> None:
        """Evaluate what the walk asks for."""
        self._pending = wanted
        self.trying = wanted[0]
        self._asked += 1
        ticket = self._asked
        self.changed.emit(self.steps)
        self._session.preview.evaluate(wanted[1], SLOT, lambda value: self._on_value(ticket, value))

    def _on_value(self, ticket: int, value: RecipeAccuracy | None) -> None:
        if ticket != self._asked or self._walk is None:
            return
        if value is None:
            self.trying = ""
            self.problem = "The evaluation was stopped: resume, or start again."
            self.changed.emit(self.steps)
            return
        try:
            wanted = self._walk.send(value)
        except StopIteration:
            self._pending, self.trying = None, ""
            self.changed.emit(self.steps)
            return
        self._take(wanted)

    def _set(self, step: str, **values: object) -> None:
        self.steps = tuple(replace(each, **values) if each.id == step else each for each in self.steps)  # type: ignore[arg-type]

    def _end(self, step: str, conclusion: str, why: str) -> None:
        self._set(step, state="done", conclusion=conclusion, why=why)

    def _skip_rest(self) -> None:
        self.steps = tuple(replace(s, state="skipped") if s.state == "waiting" else s for s in self.steps)

    def _measured(self, step: str, title: str, value: Metrics) -> float:
        """Note a figure; return its score."""
        score = score_of(value)
        base = score_of(self._base.metrics) if self._base is not None else score
        figure = Measured(title, score, value.top1_interval, score - base)
        known = next(each for each in self.steps if each.id == step).figures
        self._set(step, figures=(*known, figure))
        return score

    # ---- the questions

    def _questions(self, evidence: Evidence) -> Walk:
        wrong = yield from self._ask_float(evidence)
        if not wrong:
            self._skip_rest()
            return
        sides = yield from self._ask_side(evidence)
        worst = yield from self._ask_layers(evidence, sides)
        chosen = yield from self._ask_repair(evidence, sides, worst)
        self._tell_outcome(chosen)

    def _ask_float(self, evidence: Evidence) -> Generator[tuple[str, Recipe], RecipeAccuracy, bool]:
        self._set("float", state="running")
        base = self._base = yield ("the recipe as it stands", evidence.recipe)
        score, now = score_of(base.float), score_of(base.metrics)
        self._measured("float", "float", base.float)
        self._measured("float", "quantized", base.metrics)
        classes, top1 = evidence.classes, base.float.top1
        if top1 is not None and classes and is_near_chance(top1, base.float.top1_interval, 100.0 / classes):
            self.verdict = "float"
            self._end(
                "float",
                f"No: it is right on {top1:.1f} % of {base.float.samples:,} samples, and guessing gives"
                f" {100 / classes:.3g} %.",
                "The data is read differently than in training: check scale, mean, std, layout and the order of the"
                " labels in the panel Data. Quantization is not the cause.",
            )
            return False
        if not is_worse(base.metrics, base.float):
            self.verdict = "healthy"
            least = f"{LEAST_POINTS} points" if top1 is not None else f"{100 - LEAST_AGREEMENT:.0f} % of predictions"
            self._end(
                "float",
                f"Yes, and nothing is wrong: {score:.2f} % float, {now:.2f} % quantized.",
                f"On {base.metrics.samples:,} samples the difference is under {least}, or no more than chance"
                " (exact McNemar test, 5 %).",
            )
            return False
        self._end(
            "float",
            f"Yes: {score:.2f} % is plausible, and the quantized model loses {score - now:.2f} points.",
            "More samples flip to wrong than chance allows (exact McNemar test, 5 %)."
            if top1 is not None
            else f"Fewer than {LEAST_AGREEMENT:.0f} % of the predictions agree with the float model's.",
        )
        return True

    def _ask_side(self, evidence: Evidence) -> Generator[tuple[str, Recipe], RecipeAccuracy, tuple[str, ...]]:
        self._set("side", state="running")
        assert self._base is not None
        start = score_of(self._base.float)
        lost = {}
        for side, title in (("weight", "only weights quantized"), ("activation", "only activations quantized")):
            value = yield (title, only(evidence, side))
            lost[side] = max(start - self._measured("side", title, value.metrics), 0.0)
        weight, activation = lost["weight"], lost["activation"]
        sides: tuple[str, ...]
        figures = f"weights alone cost {weight:.2f} points, activations alone {activation:.2f}"
        if weight >= CLEARLY * activation and weight > 0:
            sides, self.verdict, words = ("weight",), "weights", "The weights"
        elif activation >= CLEARLY * weight and activation > 0:
            sides, self.verdict, words = ("activation",), "activations", "The activations"
        else:
            sides, self.verdict, words = SIDES, "both", "Both"
        self._end("side", f"{words}: {figures}.", "Each side was quantized alone, the other left in float.")
        return sides

    def _ask_layers(
        self, evidence: Evidence, sides: tuple[str, ...]
    ) -> Generator[tuple[str, Recipe], RecipeAccuracy, tuple[LayerInfo, ...]]:
        self._set("layers", state="running")
        assert self._base is not None
        now = score_of(self._base.metrics)
        layers = tuple(dict.fromkeys(layer for side in sides for layer in quantized(evidence, side)))
        gained: dict[str, float] = {}
        groups = kinds(layers)
        for kind, some in groups.items():
            value = yield (f"{kind} spared", spared(evidence.recipe, some, sides))
            gained[kind] = self._measured("layers", f"{kind} in float ({len(some)})", value.metrics) - now
        best = max(gained, key=lambda kind: gained[kind], default="")
        rest = max((gain for kind, gain in gained.items() if kind != best), default=0.0)
        clear = bool(best) and gained[best] > 0 and gained[best] >= CLEARLY * max(rest, 0.0)
        pool = groups[best] if clear else layers
        single: list[tuple[float, LayerInfo]] = []
        for layer in noisiest(evidence, pool, sides, LAYERS):
            value = yield (f"{layer.name} spared", spared(evidence.recipe, (layer,), sides))
            single.append((self._measured("layers", f"{layer.name} in float", value.metrics) - now, layer))
        single.sort(key=lambda item: -item[0])
        hurting = [layer for gain, layer in single if gain > 0] or [layer for _, layer in single]
        self.worst = tuple(layer.name for layer in hurting)
        kind = ""
        if clear:
            kind = f"The {best}: sparing them brings {gained[best]:+.2f} points. "
        elif best:
            kind = "No kind of layer stands out. "
        first = f"Of single layers {single[0][1].name} brings most, {single[0][0]:+.2f} points." if single else ""
        if single and single[0][0] <= 0:
            first = "None of the single layers that were spared is enough alone."
        self._end(
            "layers",
            f"{kind}{first}",
            f"All of a kind, then the {len(single)} with the lowest estimated SQNR one by one, were left in float.",
        )
        return tuple(hurting)

    def _ask_repair(
        self, evidence: Evidence, sides: tuple[str, ...], worst: tuple[LayerInfo, ...]
    ) -> Generator[tuple[str, Recipe], RecipeAccuracy, tuple[Repair, RecipeAccuracy] | None]:
        self._set("repair", state="running")
        assert self._base is not None
        tried: list[tuple[float, Repair, RecipeAccuracy]] = []
        for repair in repairs(evidence, sides, worst):
            value = yield (repair.title, repair.recipe)
            tried.append((self._measured("repair", repair.title, value.metrics), repair, value))
        now = score_of(self._base.metrics)
        # What costs no bits comes first, the better the earlier; bits are added only where it is not enough.
        order = sorted(tried, key=lambda item: (item[1].cost, -item[0]))
        chosen: tuple[float, Repair, RecipeAccuracy] | None = None
        free: Repair | None = None
        for score, repair, value in order:
            if score <= now or (chosen is not None and not is_worse(chosen[2].metrics, self._base.float)):
                continue
            if chosen is not None and not chosen[1].cost:
                free = chosen[1]
            # Bits for all layers take the place of bits for some.
            first = free if repair.cost == 2 else chosen[1] if chosen is not None else None
            if chosen is None or first is None:
                chosen = (score, repair, value)
                continue
            title = f"{first.title}, {repair.title}"
            joined = Repair(title, repair.on(evidence.recipe, first.recipe), max(first.cost, repair.cost))
            both = yield (joined.title, joined.recipe)
            together = self._measured("repair", joined.title, both.metrics)
            if together > chosen[0]:
                chosen = (together, joined, both)
        if chosen is None:
            words = "None of the repairs that were tried helps."
            self._end("repair", words, "What is left is training with quantizers (panel Training).")
            return None
        self._end(
            "repair",
            f"{chosen[1].title[:1].upper()}{chosen[1].title[1:]}: {chosen[0] - now:+.2f} points.",
            "What costs no bits was preferred; more was added only while the loss stayed beyond chance.",
        )
        return chosen[1], chosen[2]

    def _tell_outcome(self, chosen: tuple[Repair, RecipeAccuracy] | None) -> None:
        assert self._base is not None
        if chosen is None:
            self._skip_rest()
            return
        repair, value = chosen
        self._measured("outcome", "before", self._base.metrics)
        self._measured("outcome", "after", value.metrics)
        self._measured("outcome", "float", self._base.float)
        before, after = score_of(self._base.metrics), score_of(value.metrics)
        left = score_of(self._base.float) - after
        enough = not is_worse(value.metrics, self._base.float)
        rest = "what is left is within chance" if enough else "that is still beyond chance: train with quantizers"
        self.repair = repair
        self._end(
            "outcome",
            f"{before:.2f} % becomes {after:.2f} %; {left:.2f} points are left to float.",
            f"On {value.metrics.samples:,} samples; {rest}. Applying is one step that can be undone.",
        )


def run_diagnosis(diagnosis: Diagnosis, wait: Callable[[], None]) -> Diagnosis:
    """Start a diagnosis and wait for its end (scripts and tests).

    Args:
        diagnosis: Of a session.
        wait: `Session.wait`.

    Raises:
        UserError: It cannot start.
    """
    diagnosis.start()
    while diagnosis.running:
        wait()
    return diagnosis
