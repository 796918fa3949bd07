"""What the runs chart shows: runs, the float model and the points of a search, along one axis."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qstudio.core.bit_operations import average_bits, bit_operations
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.results import Metrics
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.search_result import LayerBits, SearchPoint
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.plots.bars import bits_text
from qstudio.ui.plots.scatter import Key, RunPoint
from qstudio.ui.runs.figures import drop_text, latency_text, rate, same_recipe
from qstudio.ui.runs.methods import method_text
from qstudio.ui.text import format_bytes, format_large, format_ms, format_percent, format_points, tr


@dataclass(frozen=True)
class Axis:
    """What accuracy can be drawn against."""

    id: str
    title: str
    label: str
    """With its unit."""
    help: str
    resource: str
    """Of `qstudio.core.search.RESOURCES`."""
    scale: float = 1.0
    """Amounts are divided by it."""


AXES: dict[str, Axis] = {
    axis.id: axis
    for axis in (
        Axis("size", "Size", "size, KB", "Packed size of the quantized model", "size_bytes", 1024.0),
        Axis(
            "latency",
            "Latency",
            "latency, ms",
            "Median time of one inference of the exported file, measured here; of searched recipes the sum of measured"
            " single layers",
            "latency_ms",
        ),
        Axis(
            "bops",
            "BOPS",
            "bit operations, 10⁶",
            "Bit operations of one sample: MACs x bits of the weight x bits of what the layer reads (HAWQ-V3). Counted,"
            " not measured: it says nothing of this machine's speed",
            "bops",
            1e6,
        ),
        Axis("bits", "Bits", "average bits of a weight", "Mean bits over all weights of the model", "average_bits"),
    )
}
"""In the order of their buttons."""


def amount_text(resource: str, value: float | None) -> str:
    """Return an amount of a resource with its unit."""
    if value is None:
        return "–"
    if resource == "size_bytes":
        return format_bytes(value)
    if resource == "bops":
        return f"{format_large(value)} BOPS"
    if resource == "latency_ms":
        return format_ms(value)
    return tr("{b} bits a weight").format(b=f"{value:.2f}")


def weight_bits(bits: LayerBits) -> tuple[int, ...]:
    """Return the bits of the weights, layer by layer."""
    return tuple(weight for _, weight, _ in bits if weight is not None)


def recipe_bits(model: ModelInfo, recipe: Recipe) -> LayerBits:
    """Return the bits of every layer with a weight or a tensor of its own."""
    rows = []
    for layer in model.layers:
        if layer.weight is None and layer.activation is None:
            continue
        settings = recipe.settings(layer.name)
        weight = settings.weight_scheme().bits if layer.weight is not None else None
        width = settings.activation_scheme().bits if layer.activation is not None else None
        rows.append((layer.name, weight, width))
    return tuple(rows)


class RunPoints:
    """Makes the points; what a recipe alone decides is counted once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[tuple[str, str, str], float | None] = {}
        self._bits: dict[tuple[str, str], LayerBits] = {}

    def all(self, axis: Axis) -> tuple[RunPoint, ...]:
        """Return the points along an axis: the float model, runs of the open model and data, points of the search."""
        session = self._session
        if session.model is None or session.data_spec is None:
            return ()
        found: list[RunPoint] = []
        floats: list[RunPoint] = []
        for run in session.runs:
            if run.model != session.model.path or run.data != session.data_spec.source:
                continue
            found += self._of_run(run, axis)
            value = rate(run.result.float) if run.result is not None else None
            cost = self._float_cost(axis, run)
            if value is not None and cost is not None:
                floats = [self._star(value, cost, axis)]
        if not floats and (value := rate(session.float_metrics)) is not None:
            cost = self._float_cost(axis, None)
            floats = [self._star(value, cost, axis)] if cost is not None else []
        return (*floats, *self._of_search(axis), *found)

    def bits(self, key: Key) -> LayerBits:
        """Return the bits of every layer of a run or a point; empty where they are not known."""
        recipe = self.recipe(key)
        model = self._session.model
        return self._bits_of(recipe) if recipe is not None and model is not None else ()

    def recipe(self, key: Key) -> Recipe | None:
        """Return the recipe of a run or a point; None where there is no such any more."""
        if key[0] == "run":
            run = next((run for run in self._session.runs if run.id == key[1]), None)
            return None if run is None or run.request is None else run.request.recipe
        point = self.point(str(key[1]))
        return None if point is None else point.recipe

    def point(self, recipe_hash: str) -> SearchPoint | None:
        """Return the search's point with a recipe; None where there is none."""
        return next((p for p in self._session.search.points if p.recipe.sha256() == recipe_hash), None)

    # ---- runs

    def _of_run(self, run: Run, axis: Axis) -> list[RunPoint]:
        result = run.result
        if result is None or result.size_bytes is None or run.request is None:
            return []
        cost = self._run_cost(run, axis)
        value, kind = rate(result.exported), "measured"
        if value is None:
            value, kind = rate(result.simulated), "simulated"
        if value is None or cost is None:
            return []
        detail = (
            f"{run.title}, {method_text(run)}: {format_percent(value)} {drop_text(result)}\n"
            f"{format_bytes(result.size_bytes.quantized)}, {latency_text(result.latency_ms)}\n"
            + tr("double-click restores its recipe")
        )
        bits = weight_bits(self._bits_of(run.request.recipe))
        current = same_recipe(self._session, run)
        made = "measured" if kind == "measured" else "simulated"
        return [
            RunPoint(run.id, cost / axis.scale, value, made, detail, current, run.training is not None, bits=bits)  # type: ignore[arg-type]
        ]

    def _run_cost(self, run: Run, axis: Axis) -> float | None:
        result = run.result
        if result is None or run.request is None:
            return None
        if axis.id == "size":
            return float(result.size_bytes.quantized) if result.size_bytes else None
        if axis.id == "latency":
            return result.latency_ms.exported.median if result.latency_ms else None
        return self._counted(run.request.recipe, axis)

    def _counted(self, recipe: Recipe, axis: Axis) -> float | None:
        model = self._session.model
        assert model is not None, "asked of an open model"
        key = (model.sha256, recipe.sha256(), axis.id)
        if key not in self._known:
            count = bit_operations if axis.id == "bops" else average_bits
            self._known[key] = count(model, recipe.settings)
        return self._known[key]

    def _bits_of(self, recipe: Recipe) -> LayerBits:
        model = self._session.model
        assert model is not None, "asked of an open model"
        key = (model.sha256, recipe.sha256())
        if key not in self._bits:
            self._bits[key] = recipe_bits(model, recipe)
        return self._bits[key]

    # ---- float

    def _float_cost(self, axis: Axis, run: Run | None) -> float | None:
        model, result = self._session.model, run.result if run is not None else None
        assert model is not None, "asked of an open model"
        if axis.id == "size":
            return float(
                result.size_bytes.float if result is not None and result.size_bytes else model.float_size_bytes
            )
        if axis.id == "latency":
            if result is not None and result.latency_ms is not None:
                return result.latency_ms.float.median
            found = self._session.search.result
            return found.float_latency_ms if found is not None else None
        if axis.id == "bits":
            return float(FLOAT_BITS)
        return float(sum(layer.macs for layer in model.layers)) * FLOAT_BITS * FLOAT_BITS

    @staticmethod
    def _star(value: float, cost: float, axis: Axis) -> RunPoint:
        words = f"{tr('float')}: {format_percent(value)}, {amount_text(axis.resource, cost)}"
        return RunPoint(None, cost / axis.scale, value, "float", words)

    # ---- points of the search

    def _of_search(self, axis: Axis) -> list[RunPoint]:
        search = self._session.search
        current = search.point_of(self._session.recipe)
        found = []
        for point in search.points:
            value, cost = rate(point.measured), point.amount(axis.resource)
            if value is None or cost is None:
                continue
            detail, recipe = self.point_detail(point), point.recipe
            made = RunPoint(
                None, cost / axis.scale, value, "simulated", detail, point is current, point=recipe.sha256()
            )
            found.append(replace(made, uniform=point.uniform is not None, bits=weight_bits(point.bits)))
        return found

    def point_detail(self, point: SearchPoint) -> str:
        """Return what is known of a search's point, line by line."""
        head = self._session.search.point_words(point)
        first = f"{head[:1].upper()}{head[1:]}: {format_percent(rate(point.measured))}"
        amounts = ", ".join(amount_text(name, value) for name, value in point.amounts)
        return "\n".join((first, amounts, self.damage_words(point), tr("double-click takes its recipe")))

    def damage_words(self, point: SearchPoint) -> str:
        """Return predicted and measured damage of a point."""
        result = self._session.search.result
        name = result.damage if result is not None else ""
        predicted = "–" if point.predicted is None else f"{point.predicted:.3g}"
        measured = "–" if point.damage is None else f"{point.damage:.3g}"
        return tr("damage ({d}) predicted {p}, measured {m}").format(d=name, p=predicted, m=measured)


def difference_words(first: LayerBits, second: LayerBits, names: tuple[str, str]) -> tuple[str, str]:
    """Return what differs between two recipes' bits: in short, and layer by layer."""
    before = {name: (weight, width) for name, weight, width in first}
    lines = []
    for name, weight, width in second:
        old = before.get(name)
        if old is None or old == (weight, width):
            continue
        sides = [
            f"{letter}{bits_text(a)}→{bits_text(b)}"
            for letter, a, b in (("W", old[0], weight), ("A", old[1], width))
            if a is not None and b is not None and a != b
        ]
        if sides:
            lines.append(f"{name} {' '.join(sides)}")
    head = f"{names[0]} → {names[1]}: "
    if not lines:
        return head + tr("the same bits in every layer"), ""
    more = tr(" and {n} more").format(n=len(lines) - 3) if len(lines) > 3 else ""
    return head + ", ".join(lines[:3]) + more, "\n".join(lines)


def metrics_difference(first: Metrics | None, second: Metrics | None) -> str:
    """Return the difference of two accuracies in points; empty where one is not known."""
    a, b = rate(first), rate(second)
    return "" if a is None or b is None else tr("{d} points").format(d=format_points(b - a))
