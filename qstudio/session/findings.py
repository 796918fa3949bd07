"""What rules find in the open model under the present recipe: lazily, in slices, with one click to apply. No Qt."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from qstudio.core.errors import UserError
from qstudio.core.findings.evidence import Evidence
from qstudio.core.findings.finding import Finding, Gain, rank
from qstudio.core.findings.rules import RULES, checked_words, ranked
from qstudio.core.inspection import DepthErrors, RecipeAccuracy
from qstudio.core.model_info import ModelInfo, SiteInfo
from qstudio.core.range_error import RangeError
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS
from qstudio.core.results import Metrics, RunResult
from qstudio.core.scheme import Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.client import Job
from qstudio.engine.messages import LayerPreview, WeightPreview
from qstudio.session.events import Event
from qstudio.session.options import Notice, Run
from qstudio.session.ranges import channel_range_ends
from qstudio.session.readout import read, resolve_scheme
from qstudio.session.work import Work

if TYPE_CHECKING:
    from qstudio.session.session import Session

SLICE_MS = 3.0
"""After so long no further rule is begun in a slice of work; the longest single one takes some 10 ms the first time."""


@dataclass(frozen=True)
class Applied:
    """A finding whose edit was made, and what it was measured to bring."""

    finding: Finding
    before: Recipe
    after: Recipe
    measured: Gain | None = None
    """Of the weight, from its exact values; None until it is known, and for activations."""
    accuracy: Gain | None = None
    """Points of top-1 (of agreement without labels) on the preview samples; None until both are known."""

    @property
    def needs_run(self) -> bool:
        """Whether only a run can measure it: previews leave out what refines values after calibration."""
        edit = self.finding.edit
        if edit is None or not edit.refinement:
            return False
        return REFINEMENTS[edit.refinement].stage == "values"


_KEPT_SCHEMES = 64
"""Of one tensor: rules look at some ten variants of its scheme."""

_errors: WeakKeyDictionary[SiteStatistics, dict[tuple[SiteInfo, Scheme], RangeError | None]] = WeakKeyDictionary()


def estimate(statistics: SiteStatistics, site: SiteInfo, scheme: Scheme) -> RangeError | None:
    """Return what a scheme costs, as the inspector shows it; None where its estimate is of something else.

    That is a search per channel that needs finer histograms than are kept, and groups of a channel's values. What is
    known of a tensor is kept as long as its statistics: after an edit only what has changed is estimated.
    """
    known = _errors.setdefault(statistics, {})
    key = (site, scheme)
    if key not in known:
        if len(known) >= _KEPT_SCHEMES:
            known.clear()
        known[key] = _estimate(statistics, site, scheme)
    return known[key]


def _estimate(statistics: SiteStatistics, site: SiteInfo, scheme: Scheme) -> RangeError | None:
    applied, _ = resolve_scheme(site, scheme)
    if applied.is_affine and applied.granularity.kind == "group":
        return None
    try:
        per_channel = applied.is_affine and applied.granularity.kind == "channel"
        if per_channel and channel_range_ends(statistics, applied) is None:
            return None
        return read(statistics, site, scheme).error
    except UserError:
        return None


class Findings:
    """Checks rules when asked; a change of anything they look at makes all of it open again.

    `step` does a slice of what is open (a window calls it between events), `all` and `for_layer` do what they need at
    once. Range searches are kept by `qstudio.session.ranges`, so that checking again after an edit costs little.
    """

    def __init__(self, session: Session, work: Work) -> None:
        self._session, self._work = session, work
        self._found: dict[str, tuple[Finding, ...]] = {}
        self._parts: list[Finding] = []
        self._open: deque[str] = deque()
        self._rules: deque[str] = deque()
        """Rules of the first open layer that are not checked yet."""
        self._evidence: Evidence | None = None
        self._dismissed: dict[tuple[str, str, str], Finding] = {}
        self._applied: list[Applied] = []
        self._failed: set[str] = set()
        """Rules of plug-ins that have failed; each is told of once."""
        self.changed: Event[str] = Event()
        """Name of a layer whose findings are known now; "" when all are, when all have to be checked anew, and when
        something was dismissed, applied or measured."""
        session.model_changed.connect(self._on_model)
        for event in (session.recipe_changed, session.dataset_changed):
            event.connect(self._reopen)
        session.statistics_changed.connect(self._reopen)
        session.runs_changed.connect(self._on_runs)
        session.float_metrics_changed.connect(self._on_float)
        session.sensitivity.changed.connect(self._on_sweep)
        session.preview.depth_changed.connect(self._on_depth)

    # ---- what is looked at

    @property
    def evidence(self) -> Evidence | None:
        """Everything the rules look at now; None without a model."""
        if self._evidence is None and self._session.model is not None:
            self._evidence = self._collect(self._session.model)
        return self._evidence

    def _collect(self, model: ModelInfo) -> Evidence:
        session = self._session
        dataset = session.dataset
        sweep = session.sensitivity
        whole = sweep.result if sweep.is_whole and not sweep.stale else None
        last = self._verified(model)
        timed = last.latency_ms if last is not None else None
        return Evidence(
            model,
            session.recipe,
            estimate,
            dict(session.weight_statistics),
            dict(session.activation_statistics),
            dict(session.evaluation_statistics),
            session.float_metrics,
            dataset.n_classes if dataset is not None and dataset.has_labels else None,
            _whole_depth(session.preview.depth),
            whole,
            last.parity.saturating if last is not None and last.parity is not None else (),
            any("vnni" in name for name in timed.instructions) if timed is not None else None,
            last is not None,
        )

    def _verified(self, model: ModelInfo) -> RunResult | None:
        """Return what the last run of the present recipe found when it verified its file; None without one."""
        for run in reversed(self._session.runs):
            known = run.result is not None and run.result.parity is not None and run.model_sha256 == model.sha256
            if known and run.recipe_hash == self._session.recipe.sha256():
                return run.result
        return None

    def _on_runs(self, _runs: tuple[Run, ...]) -> None:
        """Look again only where a file was verified: a run in progress tells of itself twenty times a second."""
        model, known = self._session.model, self._evidence
        if model is None or known is None:
            return
        last = self._verified(model)
        found = last.parity.saturating if last is not None and last.parity is not None else ()
        if (found, last is not None) != (known.saturating, known.has_run):
            self._reopen(None)

    def _on_float(self, _metrics: Metrics | None) -> None:
        """Check the first layer again, at which the float model's accuracy is looked at; it arrives piece by piece."""
        model = self._session.model
        if model is None or not model.layers:
            return
        first = model.layers[0].name
        self._evidence = None
        if first in self._found:
            del self._found[first]
            self._open.append(first)
            self.changed.emit(first)

    def _on_model(self, _model: ModelInfo | None) -> None:
        self._dismissed.clear()
        self._applied.clear()
        self._reopen(None)

    def _on_sweep(self, running: bool) -> None:
        if not running:
            self._reopen(None)

    def _on_depth(self, depth: DepthErrors | None) -> None:
        if _whole_depth(depth) is not (self._evidence.depth if self._evidence is not None else None):
            self._reopen(None)

    def _reopen(self, _value: object) -> None:
        """Check everything again when it is next asked for."""
        self._evidence = None
        self._found.clear()
        self._parts.clear()
        self._rules.clear()
        model = self._session.model
        self._open = deque(layer.name for layer in model.layers) if model is not None else deque()
        self.changed.emit("")

    # ---- checking

    @property
    def complete(self) -> bool:
        """Whether every rule was checked on every layer."""
        return not self._open

    def is_known(self, layer: str) -> bool:
        """Return whether every rule was checked on a layer."""
        return layer in self._found

    def prefer(self, layer: str) -> None:
        """Check this layer next."""
        if layer in self._open and self._open[0] != layer:
            self._open.remove(layer)
            self._open.appendleft(layer)
            self._parts.clear()
            self._rules.clear()

    def step(self, budget_ms: float = SLICE_MS) -> bool:
        """Check rules for about so many milliseconds; return whether there is more to check.

        A single rule on a single layer is not interrupted; each takes a few milliseconds.
        """
        end = time.perf_counter() + budget_ms / 1000.0
        while self._open:
            name = self._open[0]
            self._check_one(name)
            if not self._open:
                self.changed.emit("")
                break
            if name in self._found:
                self.changed.emit(name)
            if time.perf_counter() >= end:
                break
        return bool(self._open)

    def _check_one(self, name: str) -> None:
        """Check the next rule of the first open layer."""
        evidence = self.evidence
        if evidence is None:
            self._open.clear()
            return
        if not self._rules:
            self._rules = deque(RULES)
        rule = RULES[self._rules.popleft()]
        try:
            self._parts += rule.check(evidence, evidence.model.layer(name))
        except UserError as error:
            if rule.id not in self._failed:
                self._failed.add(rule.id)
                self._session.notice_posted.emit(Notice("warning", error.sentence()))
        if not self._rules:
            self._found[name] = tuple(self._parts)
            self._parts.clear()
            self._open.popleft()

    def for_layer(self, name: str) -> tuple[Finding, ...]:
        """Return what was found in a layer, the largest gain first; it is checked at once where it was not.

        Raises:
            KeyError: There is no such layer.
        """
        if self._session.model is None:
            raise KeyError(name)
        self._session.model.layer(name)
        self.prefer(name)
        while name not in self._found:
            self._check_one(name)
        kept = [each for each in self._found[name] if each.layer == name and each.key not in self._dismissed]
        return tuple(sorted(kept, key=rank))

    def all(self) -> tuple[Finding, ...]:
        """Return everything that is found, ranked, dismissed ones left out; what is open is checked at once."""
        while self.step(1000.0):
            continue
        return self.known()

    def known(self) -> tuple[Finding, ...]:
        """Return what was found so far, ranked, dismissed ones left out."""
        found = [each for some in self._found.values() for each in some if each.key not in self._dismissed]
        return ranked(found)

    def words(self) -> str:
        """Return a sentence that says what was checked, and what could not be."""
        evidence = self.evidence
        return checked_words(evidence) if evidence is not None else "Open a model first."

    # ---- dismissing

    @property
    def dismissed(self) -> tuple[Finding, ...]:
        """Findings that were set aside, as they were then."""
        return tuple(self._dismissed.values())

    def dismiss(self, finding: Finding) -> None:
        """Set a finding aside for as long as the model is open."""
        self._dismissed[finding.key] = replace(finding, others=0)
        self.changed.emit("")

    def restore(self, finding: Finding) -> None:
        """Show a finding that was set aside again."""
        if self._dismissed.pop(finding.key, None) is not None:
            self.changed.emit("")

    # ---- applying

    def apply(self, finding: Finding) -> None:
        """Make the finding's edit, as one undoable step named after it; what it brings is measured then.

        Raises:
            UserError: There is nothing in the recipe to change for it.
        """
        self.apply_all([finding])

    def apply_all(self, findings: Iterable[Finding]) -> None:
        """Make the edits of several findings, as one undoable step.

        Raises:
            UserError: None of them changes the recipe.
        """
        session = self._session
        before = session.recipe
        after, chosen = before, []
        for finding in findings:
            if finding.edit is not None:
                after = finding.edit.apply(after)
                chosen.append(finding)
        if not chosen or after == before:
            place = next((each.action for each in findings), "")
            raise UserError("this finding changes nothing in the recipe", "findings", place or "Choose another")
        first = chosen[0].edit
        label = first.label if len(chosen) == 1 and first is not None else f"Apply {len(chosen)} findings"
        again = {finding.key for finding in chosen}
        self._applied = [known for known in self._applied if known.finding.key not in again]
        self._applied += [Applied(finding, before, after) for finding in chosen]
        session.edit(label, after)
        self._measure(before, after, chosen)

    @property
    def applied(self) -> tuple[Applied, ...]:
        """Findings whose edit holds in the present recipe, the latest first; undoing it takes them off."""
        recipe = self._session.recipe
        return tuple(a for a in reversed(self._applied) if a.finding.edit and a.finding.edit.apply(recipe) == recipe)

    def _measure(self, before: Recipe, after: Recipe, findings: list[Finding]) -> None:
        for layer in dict.fromkeys(each.layer for each in findings if each.side == "weight"):
            self._measure_weight(layer, before, after)
        if all(each.needs_run for each in self._applied if each.after is after):
            return
        answers: dict[str, RecipeAccuracy] = {}

        def take(which: str, value: RecipeAccuracy | None) -> None:
            if value is not None:
                answers[which] = value
            if len(answers) == 2:
                gain = accuracy_gain(answers["before"], answers["after"])
                self._note(before, after, None, accuracy=gain)

        preview = self._session.preview
        preview.evaluate(before, "finding before", lambda value: take("before", value))
        preview.evaluate(after, "finding after", lambda value: take("after", value))

    def _measure_weight(self, layer: str, before: Recipe, after: Recipe) -> None:
        model = self._session.model
        if model is None:
            return
        old, new = before.settings(layer).weight_scheme(), after.settings(layer).weight_scheme()
        if old == new or old.is_float or new.is_float:
            return
        found: dict[str, float] = {}

        def take(which: str, job: Job) -> None:
            if isinstance(job.value, WeightPreview):
                found[which] = job.value.sqnr_db
            if len(found) == 2:
                of = f"SQNR of the weight of {layer}"
                gain = Gain(found["after"] - found["before"], "dB", of, estimated=False)
                self._note(before, after, layer, measured=gain)

        for which, scheme in (("before", old), ("after", new)):
            request = LayerPreview(model.path, layer, scheme)
            self._work.submit(f"finding {which} {layer}", request, lambda job, w=which: take(w, job))  # type: ignore[misc]

    def _note(
        self,
        before: Recipe,
        after: Recipe,
        layer: str | None,
        measured: Gain | None = None,
        accuracy: Gain | None = None,
    ) -> None:
        for at, known in enumerate(self._applied):
            if known.before is before and known.after is after and layer in (None, known.finding.layer):
                if measured is not None and known.finding.side == "weight":
                    self._applied[at] = known = replace(known, measured=measured)
                if accuracy is not None and not known.needs_run:
                    self._applied[at] = replace(known, accuracy=accuracy)
        self.changed.emit("")


def accuracy_gain(before: RecipeAccuracy, after: RecipeAccuracy) -> Gain | None:
    """Return by how many points top-1 (agreement without labels) rose."""
    for name, words in (("top1", "top-1"), ("agreement", "agreement with float")):
        first, second = getattr(before.metrics, name), getattr(after.metrics, name)
        if first is not None and second is not None:
            words = f"{words} on {after.metrics.samples:,} preview samples"
            return Gain(second - first, "points", words, estimated=False)
    return None


def _whole_depth(depth: DepthErrors | None) -> DepthErrors | None:
    """Return the error over depth once what every layer contributes is in it; its first answers are without."""
    if depth is None or not depth.layers:
        return None
    known = [each.downstream is not None for each in depth.layers]
    return depth if all(known) or (any(known) and depth.layers[-1].downstream is not None) else None
