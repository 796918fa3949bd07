"""A sweep as rows of a heat map: harm, order, words. No widgets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import LayerSettings, Recipe
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.sensitivity import MEASURES, Candidate, SensitivityCell, SensitivityResult
from qstudio.ui.plots.heat_map import HeatRow, HeatScale
from qstudio.ui.text import NO_VALUE, format_db, format_percent, tr

LOGARITHMIC = ("kl", "hessian")
"""Measures that span orders of magnitude."""


def value_text(measure: str, value: float | None, unit: bool = False) -> str:
    """Return a figure of a measure with sensible digits."""
    if value is None or math.isnan(value):
        return NO_VALUE
    if measure == "sqnr":
        return format_db(value, unit)
    if measure in ("agreement", "top1"):
        return format_percent(value, unit, 1)
    text = f"{value:.3f}" if measure == "loss" else f"{value:.2g}"
    return f"{text} {MEASURES[measure].unit}" if unit else text


@dataclass(frozen=True)
class Sheet:
    """A sweep under one measure."""

    rows: tuple[HeatRow, ...]
    scale: HeatScale
    bar_title: str
    extra_title: str
    known: int
    """Cells with a figure."""


def present_column(candidates: tuple[Candidate, ...], settings: LayerSettings) -> int | None:
    """Return the place of the candidate that a layer has now; None where it is none of them."""
    weight, width = settings.weight_scheme().bits, settings.activation_scheme().bits
    for place, candidate in enumerate(candidates):
        if candidate.weight_bits in (None, weight) and candidate.activation_bits in (None, width):
            return place
    return None


def sheet_of(
    result: SensitivityResult,
    model: ModelInfo,
    measure: str,
    candidate: Candidate,
    by_harm: bool,
    whole: bool,
    recipe: Recipe | None = None,
) -> Sheet:
    """Return the rows of a sweep.

    Args:
        result: Possibly not yet whole.
        model: Says which layers are still to come.
        measure: Of `MEASURES`.
        candidate: The one whose bars stand beside the cells.
        by_harm: Whether the row with the longest bar comes first, instead of the order of the network.
        whole: Whether no more cells come.
        recipe: As it stands: the cells that hold now are marked.
    """
    cells = {(cell.layer, cell.candidate): cell for cell in result.cells}
    names = result.layers if whole else expected_layers(model, result.candidates)
    traces = {trace.layer: trace for trace in result.traces}
    base = base_value(result, measure, candidate)
    rows = []
    values = []
    for name in names:
        row = [cells.get((name, c)) for c in result.candidates]
        figures = tuple(None if cell is None else cell.value(measure) for cell in row)
        values += [v for v in figures if v is not None and math.isfinite(v)]
        trace = traces.get(name)
        texts = tuple(value_text(measure, value) for value in figures)
        bar = harm(cells.get((name, candidate)), measure, result.mode, base)
        mark = None if recipe is None else present_column(result.candidates, recipe.settings(name))
        rows.append(HeatRow(name, figures, texts, bar, "" if trace is None else f"{trace.trace:.3g}", mark))
    if by_harm:
        rows.sort(key=lambda row: -1.0 if row.bar is None else row.bar, reverse=True)
    return Sheet(
        tuple(rows),
        scale_of(values, measure, result.mode),
        f"{harm_title(measure, result.mode)}, {candidate.text}",
        tr("Tr(H)") if result.traces else "",
        sum(value is not None for row in rows for value in row.values),
    )


def expected_layers(model: ModelInfo, candidates: tuple[Candidate, ...]) -> tuple[str, ...]:
    """Return the layers that a sweep has cells for, as far as the model alone says."""
    weights = any(c.weight_bits is not None for c in candidates)
    tensors = any(c.activation_bits is not None for c in candidates)
    return tuple(
        layer.name
        for layer in model.layers
        if (weights and layer.weight is not None) or (tensors and layer.activation is not None)
    )


def scale_of(values: list[float], measure: str, mode: str) -> HeatScale:
    """Return how the values of a measure become colours: bright is what matters most."""
    falls = not MEASURES[measure].high_is_bad
    if mode == "disable" and measure != "hessian":
        falls = not falls
    log = measure in LOGARITHMIC
    positive = [v for v in values if v > 0] if log else values
    low, high = (min(positive), max(positive)) if positive else (0.0, 1.0)
    if log:
        low = max(low, high * 1e-6)
    title = f"{tr(MEASURES[measure].title)}, {MEASURES[measure].unit}" if positive else ""
    return HeatScale(low, high, log, falls, title, lambda value: value_text(measure, value))


def base_value(result: SensitivityResult, measure: str, candidate: Candidate) -> float | None:
    """Return the figure that cells of a candidate are compared with; None where it is not known (yet)."""
    figures = dict(result.bases).get(candidate)
    if figures is not None:
        return figures.value(measure)
    if result.mode == "enable":
        return {"kl": 0.0, "agreement": 100.0}.get(measure)
    return None


def harm(cell: SensitivityCell | None, measure: str, mode: str, base: float | None) -> float | None:
    """Return what a bar shows: what quantizing the layer costs, or what sparing it brings back; never below 0.

    Points of top-1 or agreement, nats of loss or KL divergence, and of the SQNR the share of noise in the output's
    power, 10^(-SQNR/10): decibels do not add up.
    """
    value = None if cell is None else cell.value(measure)
    if value is None or math.isnan(value):
        return None
    if measure == "hessian":
        return max(value, 0.0)
    if measure == "sqnr":
        noise, before = 10 ** (-value / 10), 0.0 if base is None else 10 ** (-base / 10)
        if mode == "enable":
            return noise
        return None if base is None else max(before - noise if mode == "disable" else noise - before, 0.0)
    if base is None:
        return None
    rise = value - base if MEASURES[measure].high_is_bad else base - value
    return max(-rise if mode == "disable" else rise, 0.0)


def harm_title(measure: str, mode: str) -> str:
    """Return what the bars show, with the unit."""
    if measure == "hessian":
        return tr("predicted rise of the loss, nats")
    unit = {"agreement": tr("points"), "top1": tr("points"), "sqnr": tr("share of the power")}.get(measure, tr("nats"))
    what = {
        "loss": tr("loss"), "kl": tr("KL divergence"), "sqnr": tr("noise"), "agreement": tr("agreement"),
        "top1": tr("top-1"),
    }[measure]  # fmt: skip
    verb = tr("brought back") if mode == "disable" else tr("cost")
    return f"{what} {verb}, {unit}"


def cell_words(result: SensitivityResult, layer: str, candidate: Candidate) -> str:
    """Return everything that is known of one cell, a line for each figure."""
    cell = result.cell(layer, candidate)
    if cell is None:
        return f"{layer}, {candidate.text}: {tr('not measured yet')}"
    lines = [f"{layer}, {candidate.text}"]
    for name, measure in MEASURES.items():
        value = cell.value(name)
        if value is not None:
            lines.append(f"{tr(measure.title)}: {value_text(name, value, unit=True)}")
    if cell.figures is not None:
        lines.append(f"{cell.figures.samples:,} {tr('samples')}")
    lines.append(tr("Double-click takes {c} for this layer").format(c=candidate.text))
    return "\n".join(lines)


def column_words(candidate: Candidate) -> str:
    """Return a candidate in words, for its heading."""
    sides = ((tr("weights"), candidate.weight_bits), (tr("activations"), candidate.activation_bits))
    words = ", ".join(
        f"{name} {tr('float') if bits == FLOAT_BITS else f'{bits} ' + tr('bits')}"
        for name, bits in sides
        if bits is not None
    )
    return f"{words}. {tr('Click: bars of this width')}"


def missing_words(measure: str) -> str:
    """Return why a measure is not there."""
    if measure in ("loss", "top1"):
        return "Not measured: the data has no labels"
    return "Not measured: switch Hessian on" if measure == "hessian" else "Not measured: the output is no class scores"
