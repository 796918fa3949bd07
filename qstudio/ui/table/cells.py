"""What stands in one cell of the layer table, and what it is sorted by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import grid_of
from qstudio.core.calibration import find_range
from qstudio.core.layer_rank import MEASURES
from qstudio.core.model_info import LayerInfo
from qstudio.core.range_error import range_error
from qstudio.core.recipe import Recipe, ResolvedLayer
from qstudio.core.results import LayerResult
from qstudio.core.size import layer_bytes
from qstudio.session.options import Run
from qstudio.session.session import Session
from qstudio.ui.runs.figures import same_recipe
from qstudio.ui.table.choices import explained, not_applicable, value_text
from qstudio.ui.table.columns import Column
from qstudio.ui.text import NO_VALUE, format_bytes, format_count, format_db, format_large, format_percent, tr

HISTOGRAM_BARS = 32


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell as it is shown."""

    text: str
    tooltip: str = ""
    bold: bool = False
    muted: bool = False
    color: str = ""
    """Name of a palette colour; empty for the text's own."""
    payload: Any = None
    """What is painted: a fraction for a bar, (layer, heights, zero position) for a histogram, else a mark's name."""
    sort_key: float | str = math.nan


def source_text(source: str) -> str:
    """Return where a value comes from, in words."""
    if source == "set":
        return tr("Set here. Delete lets it inherit again.")
    if source.startswith("rule "):
        return tr("Inherited from the rule") + f" {source[5:]}"
    return tr("Inherited from the default")


def sqnr_grade(value: float | None) -> str:
    """Return the palette colour that grades an SQNR in dB: "worse" under 20, "watch" under 30, else none."""
    if value is None or math.isnan(value):
        return ""
    return "worse" if value < 20 else "watch" if value < 30 else ""


class CellMaker:
    """Makes the cells of the open model from the session as it stands."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._total: int | None = None
        self._largest: int | None = None
        self._results: tuple[Run | None, dict[str, LayerResult]] = (None, {})
        self._resolved: tuple[Recipe | None, dict[str, ResolvedLayer]] = (None, {})

    def forget_sizes(self) -> None:
        """Count the bytes anew; the recipe has changed."""
        self._total = self._largest = None

    def make(self, layer: LayerInfo, column: Column) -> Cell:
        """Return the cell of a layer in a column."""
        if column.field:
            return self._setting(layer, column.field, self._resolve(layer.name))
        return getattr(self, f"_{column.id}")(layer)  # type: ignore[no-any-return]

    def _resolve(self, layer: str) -> ResolvedLayer:
        """Return a layer's settings with their origins, once for all columns of its row."""
        recipe = self._session.recipe
        if self._resolved[0] is not recipe:
            self._resolved = (recipe, {})
        found = self._resolved[1].get(layer)
        if found is None:
            found = self._resolved[1][layer] = recipe.resolve(layer)
        return found

    def _layer(self, layer: LayerInfo) -> Cell:
        run = self._reference()
        edited = run is not None and run.result is not None
        if edited and run is not None and run.result is not None:
            edited = run.result.recipe.settings(layer.name) != self._session.settings(layer.name)
        if layer.unsupported:
            return Cell(layer.name, layer.unsupported, color="worse", payload="unsupported", sort_key=layer.name)
        tooltip = f"{layer.name}\n{layer.op_type} {layer.title}".rstrip()
        if edited:
            assert run is not None
            tooltip += "\n" + tr("Edited since") + f" {run.title}"
        return Cell(layer.name, tooltip, payload="edited" if edited else None, sort_key=layer.name.casefold())

    def _reference(self) -> Run | None:
        """Return the run that edits are counted against: the last one of this model with a result."""
        model = self._session.model
        runs = (run for run in reversed(self._session.runs) if run.result is not None)
        return next((run for run in runs if model is not None and run.model_sha256 == model.sha256), None)

    def _type(self, layer: LayerInfo) -> Cell:
        return Cell(layer.op_type, layer.op_type, muted=True, sort_key=layer.op_type.casefold())

    def _title(self, layer: LayerInfo) -> Cell:
        return Cell(layer.title, layer.title, muted=True, sort_key=layer.title.casefold())

    def _setting(self, layer: LayerInfo, field: str, resolved: ResolvedLayer) -> Cell:
        reason = not_applicable(layer, field)
        if reason:
            return Cell(NO_VALUE, reason, muted=True)
        value = getattr(resolved.settings, field)
        if field == "weight_bits":
            value = resolved.settings.weight_scheme().bits  # some formats have one width, whatever was asked
        elif field == "activation_bits":
            value = resolved.settings.activation_scheme().bits
        text = value_text(field, value)
        source = resolved.source(field)
        told = "\n".join(filter(None, (source_text(source), explained(field, value))))
        key = float(value) if isinstance(value, bool | int) else text
        return Cell(text, told, source == "set", source != "set", sort_key=key)

    def _weight_sqnr(self, layer: LayerInfo) -> Cell:
        if layer.weight is None:
            return Cell(NO_VALUE, tr("This layer has no weights"), muted=True)
        scheme = self._session.settings(layer.name).weight_scheme()
        if scheme.is_float:
            return Cell(NO_VALUE, tr("The weights stay in float"), muted=True, sort_key=math.inf)
        preview = self._session.previews.get(layer.name)
        if preview is not None and preview.scheme == scheme:
            told = tr("Exact, from quantizing the weights")
            return Cell(
                format_db(preview.sqnr_db, False),
                told,
                payload=sqnr_grade(preview.sqnr_db),
                sort_key=float(preview.sqnr_db),
            )
        statistics = self._session.weight_statistics.get(layer.weight.id)
        if statistics is None or scheme.granularity.kind != "tensor" or not scheme.is_affine:
            return Cell(NO_VALUE, tr("Being computed"), muted=True)
        scale, zero, qmin, qmax = grid_of(scheme, *find_range(statistics.histogram, scheme))
        value = range_error(statistics.histogram, float(scale), int(zero), qmin, qmax).sqnr_db
        return Cell(
            "~" + format_db(value, False), tr("Estimated from the histogram"), payload=sqnr_grade(value), sort_key=value
        )

    def _measured(self, layer: LayerInfo) -> tuple[Run | None, LayerResult | None]:
        """Return the selected run, None where it has no result, and what it says of a layer."""
        session = self._session
        run = next((run for run in session.runs if run.id == session.selected_run), None)
        if run is None or run.result is None:
            return None, None
        if self._results[0] is not run:
            self._results = (run, {result.name: result for result in run.result.layers})
        return run, self._results[1].get(layer.name)

    def _told(self, run: Run) -> tuple[bool, str]:
        """Return whether a run is of another recipe, and where its figures are from, in words."""
        stale = not same_recipe(self._session, run)
        return stale, f"{tr('Measured in')} {run.title}" + (
            ", " + tr("with another recipe than the present") if stale else ""
        )

    def _sparsity(self, layer: LayerInfo) -> Cell:
        run, result = self._measured(layer)
        if run is None:
            return Cell(NO_VALUE, tr("Select a run: Run PTQ measures it"), muted=True)
        if result is None or result.sparsity is None:
            return Cell(NO_VALUE, tr("Nothing is pruned in") + f" {run.title}", muted=True)
        stale, told = self._told(run)
        return Cell(format_percent(result.sparsity, False, 1), told, muted=stale, sort_key=float(result.sparsity))

    def _output_sqnr(self, layer: LayerInfo) -> Cell:
        run, result = self._measured(layer)
        if run is None:
            return Cell(NO_VALUE, tr("Select a run: Run PTQ measures it"), muted=True)
        if result is None or result.sqnr_db is None:
            return Cell(NO_VALUE, tr("Not measured for this layer in") + f" {run.title}", muted=True)
        stale, told = self._told(run)
        return Cell(
            format_db(result.sqnr_db, False),
            told,
            muted=stale,
            payload="" if stale else sqnr_grade(result.sqnr_db),
            sort_key=float(result.sqnr_db),
        )

    def _layers(self) -> tuple[LayerInfo, ...]:
        return self._session.model.layers if self._session.model else ()

    def _parameters(self, layer: LayerInfo) -> Cell:
        text = format_count(layer.parameters) if layer.parameters else NO_VALUE
        return Cell(text, muted=not layer.parameters, sort_key=float(layer.parameters))

    def _l1_norm(self, layer: LayerInfo) -> Cell:
        return self._ranked(layer, "l1")

    def _magnitude(self, layer: LayerInfo) -> Cell:
        return self._ranked(layer, "magnitude")

    def _ranked(self, layer: LayerInfo, measure: str) -> Cell:
        statistics = self._session.weight_statistics.get(layer.weight.id) if layer.weight else None
        if statistics is None:
            told = tr("Being computed") if layer.weight else tr("This layer has no weights")
            return Cell(NO_VALUE, told, muted=True)
        value = MEASURES[measure].of(statistics)
        return Cell(f"{value:.4g}", tr(MEASURES[measure].help), sort_key=value)

    def _macs(self, layer: LayerInfo) -> Cell:
        text = format_large(layer.macs) if layer.macs else NO_VALUE
        return Cell(text, format_count(layer.macs), muted=not layer.macs, sort_key=float(layer.macs))

    def _share(self, layer: LayerInfo) -> Cell:
        if self._total is None:
            self._total = self._session.quantized_size_bytes()
        size = layer_bytes(layer, self._session.settings(layer.name))
        share = size / self._total if self._total else 0.0
        if self._largest is None:
            self._largest = max(
                (layer_bytes(other, self._session.settings(other.name)) for other in self._layers() if other.weight),
                default=1,
            )
        if layer.weight is None:
            return Cell(NO_VALUE, format_bytes(size), muted=True, sort_key=share)
        text = format_percent(100 * share, True, 1)
        return Cell(text, f"{format_bytes(size)}, {text}", payload=size / max(self._largest, 1), sort_key=share)

    def _histogram(self, layer: LayerInfo) -> Cell:
        statistics = self._session.weight_statistics.get(layer.weight.id) if layer.weight else None
        if statistics is None or not statistics.histogram.width:
            told = tr("Being computed") if layer.weight else tr("This layer has no weights")
            return Cell("", told, muted=True)
        histogram = statistics.histogram
        heights, zero = histogram_bars(histogram.counts, histogram.low, histogram.width, histogram.minimum)
        told = f"{histogram.minimum:.4g} .. {histogram.maximum:.4g}, σ {histogram.std:.3g}"
        return Cell("", told, payload=(layer.name, heights, zero), sort_key=histogram.std)


def histogram_bars(
    counts: NDArray[np.int64], low: float, width: float, minimum: float
) -> tuple[NDArray[np.float64], float]:
    """Return ([HISTOGRAM_BARS] heights 0..1 of log10(count + 1) over the used range, position of zero 0..1)."""
    used = np.flatnonzero(counts)
    if not used.size:
        return np.zeros(HISTOGRAM_BARS), 0.0
    first, last = int(used[0]), int(used[-1]) + 1
    index = (np.arange(first, last) - first) * HISTOGRAM_BARS // max(last - first, 1)
    bars = np.log10(np.bincount(index, weights=counts[first:last], minlength=HISTOGRAM_BARS)[:HISTOGRAM_BARS] + 1)
    zero = -(low + first * width) / ((last - first) * width)
    return bars / max(float(bars.max()), 1e-12), min(max(float(zero), 0.0), 1.0)
