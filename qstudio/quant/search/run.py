"""Mixed precision from settings to a verified recipe: table, front, uniform recipes beside it, choice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.context import JobContext, SilentContext
from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics
from qstudio.core.search import SLACK, Problem, Solution, solve_greedy
from qstudio.core.search_result import SearchPoint, SearchResult
from qstudio.core.search_settings import UNIFORM_BITS, SearchSettings
from qstudio.core.sensitivity import Figures
from qstudio.data.dataset import Dataset
from qstudio.graph.load import LoadedModel
from qstudio.quant.evaluation.cells import CellBook
from qstudio.quant.outcome import PtqOptions
from qstudio.quant.search.bench import Bench
from qstudio.quant.search.costs import Costs
from qstudio.quant.search.damage import DamageMeter, check_measure, damage_from
from qstudio.quant.search.exact import TIME_LIMIT_S, solve_exact
from qstudio.quant.search.groups import Coupling, couple
from qstudio.quant.search.latency import LatencyTable
from qstudio.quant.search.progress import Stretch
from qstudio.quant.search.table import ACTIVATION, Choices, latency_variants, make_problem, measure_table
from qstudio.quant.sensitivity import known

OnResult = Callable[[SearchResult], None]

FRONT_TIME_S = 2.0
"""For one point of the front; past it the best found so far is kept."""


def run_search(
    model: LoadedModel,
    dataset: Dataset,
    recipe: Recipe,
    settings: SearchSettings,
    options: PtqOptions | None = None,
    *,
    calibration_dataset: Dataset | None = None,
    ctx: JobContext | None = None,
    on_result: OnResult | None = None,
    resume: str = "",
) -> SearchResult:
    """Find the bits of each layer that cost least accuracy within limits, and measure what they give.

    Candidates are compared on calibration samples, so that the evaluation samples remain a test. A uniform recipe that
    keeps the limits and measures better than the searched one takes its place, and a note says so.

    Args:
        model: The opened model; not changed.
        dataset: What is evaluated on, and calibrated with unless there is a calibration dataset.
        recipe: What holds besides the bits: formats, ranges, refinements, and the layers that are kept.
        settings: Candidates, limits, measure.
        options: Samples, seed, device; batch, threads and storage of the latency.
        calibration_dataset: Other data to calibrate with.
        ctx: Told the progress; stops the search between batches.
        on_result: Told the result so far: with the front predicted, with it measured.
        resume: JSON file that measured figures are read from and written to; empty = none.

    Raises:
        UserError: Model, data, recipe or settings cannot be used, or no recipe keeps the limits.
        JobCancelled: The search was stopped; what was measured is known the next time.
    """
    search = _Search(settings, options or PtqOptions(), ctx or SilentContext(), on_result or (lambda _: None))
    book = CellBook(resume, known)
    try:
        return search.run(model, dataset, recipe, calibration_dataset, book)
    finally:
        book.save()


class _Search:
    def __init__(self, settings: SearchSettings, options: PtqOptions, ctx: JobContext, on_result: OnResult) -> None:
        self.settings, self.options, self.ctx, self.on_result = settings, options, ctx, on_result
        self.axis = settings.front_axis
        self.began = time.perf_counter()

    def run(
        self, model: LoadedModel, dataset: Dataset, recipe: Recipe, calibration: Dataset | None, book: CellBook
    ) -> SearchResult:
        settings, ctx = self.settings, self.ctx
        self.bench = bench = Bench(model, dataset, recipe, self.options, calibration, Stretch(ctx, 0.0, 0.08))
        classes = bench.network.gives_class_scores
        measure = settings.damage or ("kl" if classes else "sqnr")
        if settings.max_drop is not None:
            check_measure(bench.network, True, "agreement")
        samples = bench.samples.calibration_indices
        chosen = samples[np.unique(np.linspace(0, len(samples) - 1, settings.damage_samples).astype(np.int64))]
        meter = DamageMeter(
            bench.network,
            bench.samples.calibration,
            chosen,
            f"{bench.calibration_key} {len(chosen)}",
            measure,
            book,
            self.options.seed,
        )
        self.measure = measure
        coupling = couple(bench.network, settings)
        self.choices = choices = Choices(bench, bench.recipe, coupling, settings)
        latency = self._latency(coupling)
        self.costs = costs = Costs(bench.network, coupling, latency)
        table = measure_table(bench, choices, meter, Stretch(ctx, 0.16, 0.34))
        book.save()
        self.base = table.base
        self.problem = problem = make_problem(choices, table, costs)
        result = SearchResult(
            settings=settings,
            damage=measure,
            axis=self.axis,
            groups=table.rows(choices),
            base_damage=table.base,
            float_latency_ms=None if latency is None else latency.float_ms,
            computed=meter.computed,
            notes=(*bench.network.notes, *bench.notes, *self._notes(len(chosen))),
        )
        wanted = self._solve(problem.with_limits(dict(settings.limits)))
        uniforms = self._uniforms()
        front = self._front(uniforms)
        self._told(result, front=_distinct(front), uniforms=uniforms)
        result = replace(result, front=front, uniforms=uniforms)
        result = self._measured(result)
        return self._told(self._verified(result, self._point(wanted)))

    def _told(self, result: SearchResult, **fields: object) -> SearchResult:
        result = replace(result, seconds=time.perf_counter() - self.began, **fields)  # type: ignore[arg-type]
        self.on_result(result)
        return result

    def _notes(self, samples: int) -> list[str]:
        notes = [f"Candidates are compared on {samples:,} calibration samples"]
        if self.bench.refines:
            names = ", ".join(text for text in self.bench.recipe.refinements)
            which = "front and uniform recipes are measured" if self.bench.learns else "candidates are compared"
            notes.append(f"With {names}: {which} before the refinements that depend on bits; the chosen recipe after")
        return notes

    def _latency(self, coupling: Coupling) -> LatencyTable | None:
        """Return the look-up of single layers, where latency matters."""
        if self.axis != "latency_ms" and not any(name == "latency_ms" for name, _ in self.settings.limits):
            return None
        options, network = self.options, self.bench.network
        table = LatencyTable(network, options.latency_batch, options.threads or os.cpu_count() or 1, options.storage)
        table.measure(latency_variants(self.choices, Costs(network, coupling)), Stretch(self.ctx, 0.08, 0.08))
        return table

    # ---- points

    def _solve(self, problem: Problem, time_limit_s: float = TIME_LIMIT_S) -> Solution:
        return solve_greedy(problem) if self.settings.solver == "greedy" else solve_exact(problem, time_limit_s)

    def _point(self, solution: Solution, budget: float | None = None) -> SearchPoint:
        recipe = self.choices.recipe_of(self.problem, solution)
        return SearchPoint(
            recipe,
            self.choices.bits(recipe),
            tuple(self.costs.amounts(recipe).items()),
            self.base + solution.damage,
            budget,
            solution.exact,
        )

    def _uniforms(self) -> tuple[SearchPoint, ...]:
        """Return the recipes in which everything free has the same bits, those that are no candidates too."""
        choices, settings = self.choices, self.settings
        if not choices.weights:
            return ()
        found = []
        widths: Sequence[int | None] = settings.activation_bits if choices.activations else (None,)
        for bits in dict.fromkeys((*UNIFORM_BITS, *settings.weight_bits)):
            for width in widths:
                recipe = choices.uniform(bits, width)
                amounts = tuple(self.costs.amounts(recipe).items())
                predicted = self._predicted(bits, width)
                found.append(SearchPoint(recipe, choices.bits(recipe), amounts, predicted, uniform=(bits, width)))
        return tuple(found)

    def _predicted(self, bits: int, width: int | None) -> float | None:
        """Return the damage of a uniform recipe; None where a group has no such candidate."""
        total = self.base
        for group in self.problem.groups:
            wanted = width if group.sets == ACTIVATION else bits
            place = 1 if group.sets == ACTIVATION else 0
            damage = next((c.damage for c in group.candidates if c.bits[place] == wanted), None)
            if damage is None:
                return None
            total += damage
        return total

    def _others(self) -> dict[str, float]:
        """Return the limits that hold along the front: with a largest drop, all but the axis's own."""
        if self.settings.max_drop is None:
            return {}
        return {name: most for name, most in self.settings.limits if name != self.axis}

    def _front(self, uniforms: Sequence[SearchPoint]) -> tuple[SearchPoint, ...]:
        """Return the solutions at rising budgets, among them those of the uniform recipes."""
        low, high = self.problem.extremes(self.axis)
        if self.settings.max_drop is not None:
            high = min(high, dict(self.settings.limits).get(self.axis, high))
        budgets = list(np.linspace(low, high, self.settings.front_points))
        amounts = (point.amount(self.axis) for point in uniforms if point.predicted is not None)
        budgets += [most for most in amounts if most is not None and low <= most <= high]
        found = []
        for number, budget in enumerate(sorted(budgets)):
            self.ctx.report(0.5 + 0.05 * number / len(budgets), 1.0, "Solving")
            try:
                limits = {**self._others(), self.axis: float(budget)}
                solution = self._solve(self.problem.with_limits(limits), FRONT_TIME_S)
            except UserError:  # the other limits leave nothing at this budget
                continue
            found.append(self._point(solution, float(budget)))
        return tuple(found)

    # ---- what the points really cost

    def _measured(self, result: SearchResult) -> SearchResult:
        """Return the result with uniform recipes and front measured on the front's samples."""
        bench, ctx = self.bench, self.ctx
        indices = bench.front_indices(self.settings.front_samples)
        reference, figures = bench.float_metrics(indices, ctx)
        points = (*result.uniforms, *result.front)
        known: dict[str, SearchPoint] = {}
        for number, point in enumerate(points):
            ctx.report(0.55 + 0.3 * number / len(points), 1.0, "Measuring the front")
            if point.recipe.sha256() not in known:
                known[point.recipe.sha256()] = self._at(point, indices, figures, refine=not bench.learns)
        filled = [
            replace(p, measured=known[p.recipe.sha256()].measured, damage=known[p.recipe.sha256()].damage)
            for p in points
        ]
        uniforms = tuple(filled[: len(result.uniforms)])
        front = tuple(self._not_below(point, uniforms) for point in filled[len(uniforms) :])
        distinct = {p.recipe.sha256(): p for p in filled if p.predicted is not None}.values()
        predicted = [p.predicted for p in distinct]
        drops = [_accuracy(reference) - _accuracy(p.measured) for p in distinct if p.measured is not None]
        return self._told(
            result,
            front=_distinct(front),
            uniforms=uniforms,
            float=reference,
            spearman_damage=_spearman(predicted, [p.damage for p in distinct]),
            spearman_drop=_spearman(predicted, drops) if bench.network.gives_class_scores else None,
        )

    def _at(
        self, point: SearchPoint, indices: NDArray[np.int64], reference: Figures, *, refine: bool, exact: bool = False
    ) -> SearchPoint:
        metrics, figures = self.bench.measure(point.recipe, indices, self.ctx, refine=refine, exact=exact)
        return replace(point, measured=metrics, damage=damage_from(self.measure, figures, reference))

    def _not_below(self, point: SearchPoint, uniforms: Sequence[SearchPoint]) -> SearchPoint:
        """Return a point of the front, or a uniform recipe within its budget that is more accurate.

        At the uniform recipe's own budget accuracy decides. At larger ones its damage must be less too: accuracy on
        some hundred samples is too coarse to prefer fewer bits by it.
        """
        assert point.budget is not None
        assert point.damage is not None
        best = point
        for rival in uniforms:
            if rival.predicted is None or not _is_within(rival, {**self._others(), self.axis: point.budget}):
                continue
            assert rival.damage is not None
            own = (rival.amount(self.axis) or 0.0) >= point.budget * (1 - SLACK)
            if (own or rival.damage < point.damage) and self._quality(rival)[0] > self._quality(best)[0]:
                best = replace(rival, budget=point.budget)
        return best

    def _quality(self, point: SearchPoint) -> tuple[float, float]:
        """Return what points are ranked by: accuracy, then damage; damage alone where there are no classes."""
        assert point.measured is not None
        assert point.damage is not None
        if not self.bench.network.gives_class_scores:
            return -point.damage, 0.0
        return _accuracy(point.measured), -point.damage

    def _figure(self, point: SearchPoint) -> str:
        """Return what points are ranked by in words."""
        if self.bench.network.gives_class_scores:
            return f"{_accuracy(point.measured):.2f} %"
        return f"damage {point.damage:.3g}"

    # ---- the recipe that was asked for

    def _verified(self, result: SearchResult, wanted: SearchPoint) -> SearchResult:
        """Return the result with the chosen recipe, measured on all evaluation samples as a PTQ run does."""
        bench, settings, ctx = self.bench, self.settings, self.ctx
        indices = bench.samples.evaluation_indices
        ctx.report(0.85, 1.0, "Verifying")
        reference, figures = bench.float_metrics(indices, ctx)

        def verified(point: SearchPoint) -> SearchPoint:
            return self._at(point, indices, figures, refine=True, exact=True)

        if settings.max_drop is None:
            chosen = verified(wanted)
            limits = dict(settings.limits)
            rivals = [p for p in result.uniforms if p.predicted is not None and _is_within(p, limits)]
            best = max(rivals, key=self._quality, default=None)
            ctx.report(0.93, 1.0, "Verifying")
            if best is not None and best.recipe != wanted.recipe:
                best = verified(best)
                if self._quality(best)[0] > self._quality(chosen)[0]:
                    note = (
                        f"The uniform recipe ({_words(best)}) keeps the limits and measures better than the searched"
                        f" one ({self._figure(best)} against {self._figure(chosen)}): it is taken"
                    )
                    result, chosen = replace(result, notes=(*result.notes, note)), best
        else:
            chosen = self._within_drop(result, _accuracy(reference), settings.max_drop, verified)
        if not chosen.exact:
            note = "The solver was stopped before it could prove that nothing better exists"
            if settings.solver == "exact":
                result = replace(result, notes=(*result.notes, note))
        ctx.report(1.0, 1.0, "Done")
        return replace(result, chosen=chosen, simulated=chosen.measured)

    def _within_drop(
        self, result: SearchResult, float_accuracy: float, most: float, verified: Callable[[SearchPoint], SearchPoint]
    ) -> SearchPoint:
        """Return the cheapest point of the front whose loss of accuracy, on all samples, is at most `most` points.

        Raises:
            UserError: There is none.
        """
        assert result.float is not None
        start = _accuracy(result.float)
        points = sorted(result.front, key=lambda point: point.amount(self.axis) or 0.0)
        near = [p for p in points if p.measured is not None and start - _accuracy(p.measured) <= most + 1e-9]
        least = np.inf
        for point in near or points[-1:]:
            found = verified(point)
            drop = float_accuracy - _accuracy(found.measured)
            if drop <= most + 1e-9:
                return found
            least = min(least, drop)
        raise UserError(
            f"the least loss on the front is {least:.2f} points",
            f"largest drop of {most:g} points",
            "Allow a larger drop, more bits, or refinements",
        )


def _accuracy(metrics: Metrics | None) -> float:
    """Return top-1 in percent, or the agreement with float where there are no labels."""
    assert metrics is not None, "asked for after it was measured"
    found = metrics.agreement if metrics.top1 is None else metrics.top1
    return 0.0 if found is None else found


def _distinct(front: Sequence[SearchPoint]) -> tuple[SearchPoint, ...]:
    """Return the points without those that repeat the one before them."""
    return tuple(point for place, point in enumerate(front) if not place or point.recipe != front[place - 1].recipe)


def _is_within(point: SearchPoint, limits: Mapping[str, float]) -> bool:
    return all((point.amount(name) or 0.0) <= most * (1 + SLACK) for name, most in limits.items())


def _words(point: SearchPoint) -> str:
    assert point.uniform is not None, "asked of uniform recipes"
    bits, width = point.uniform
    return f"W{bits}" if width is None else f"W{bits}A{width}"


def _spearman(predicted: Sequence[float | None], measured: Sequence[float | None]) -> float | None:
    """Return the rank correlation; None for fewer than 3 points or a constant side."""
    if len(predicted) < 3 or len(set(predicted)) < 2 or len(set(measured)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(predicted, measured).statistic)
