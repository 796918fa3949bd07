"""What a search came to, in words."""

from __future__ import annotations

from html import escape

from qstudio.core.search_result import SearchResult
from qstudio.session.search import Searches
from qstudio.ui.plots.bars import bits_text
from qstudio.ui.runs.figures import rate
from qstudio.ui.runs.run_points import amount_text, metrics_difference
from qstudio.ui.text import format_percent, tr


def result_lines(search: Searches) -> list[str]:
    """Return what is known of the latest search, a sentence each; empty without one."""
    result = search.result
    if result is None:
        return []
    lines = []
    if result.chosen is not None:
        lines += _chosen(search, result)
    elif result.front:
        measured = sum(point.measured is not None for point in result.front)
        lines.append(tr("{n} points of the front, {m} of them measured").format(n=len(result.front), m=measured))
    lines += _correlation(result)
    groups = tr("{n} groups were free to choose, {c} candidates run now, {t} s").format(
        n=len(result.groups), c=f"{result.computed:,}", t=f"{result.seconds:.0f}"
    )
    return [*lines, groups, *result.notes]


def _chosen(search: Searches, result: SearchResult) -> list[str]:
    point = result.chosen
    assert point is not None, "asked of a finished search"
    amounts = ", ".join(amount_text(name, value) for name, value in point.amounts)
    accuracy = format_percent(rate(point.measured))
    samples = f"{point.measured.samples:,}" if point.measured is not None else "0"
    words = search.point_words(point)
    lines = [
        tr("Chosen: {w}, {a} simulated on {n} samples").format(w=words, a=accuracy, n=samples),
        amounts,
        _damage(result),
    ]
    if result.run is not None and rate(result.run.exported) is not None:
        exported = tr("Exported and verified as Run {r}: {a} ({d} to float)").format(
            r=search.run_number or "",
            a=format_percent(rate(result.run.exported)),
            d=metrics_difference(result.run.float, result.run.exported),
        )
        lines.append(exported)
    return lines


def _damage(result: SearchResult) -> str:
    point = result.chosen
    assert point is not None, "asked of a finished search"
    predicted = "–" if point.predicted is None else f"{point.predicted:.3g}"
    measured = "–" if point.damage is None else f"{point.damage:.3g}"
    return tr("Damage ({d}): predicted {p}, measured {m}").format(d=result.damage, p=predicted, m=measured)


def _correlation(result: SearchResult) -> list[str]:
    if result.spearman_damage is None:
        return []
    words = tr("Predicted against measured damage over the front: rank correlation {r}").format(
        r=f"{result.spearman_damage:.2f}"
    )
    if result.spearman_drop is not None:
        words += tr(", against the accuracy lost {r}").format(r=f"{result.spearman_drop:.2f}")
    good = result.spearman_damage >= 0.8
    judged = tr("good: predictions order recipes") if good else tr("poor: trust measured figures only")
    return [f"{words} ({judged})"]


def coupled_lines(result: SearchResult) -> list[str]:
    """Return the groups of more than one layer: which layers, on which side, and why they share their bits."""
    lines = []
    for group in result.groups:
        if len(group.layers) < 2:
            continue
        shown = ", ".join(group.layers[:4]) + (f" +{len(group.layers) - 4}" if len(group.layers) > 4 else "")
        why = "; ".join(group.why) or tr("one encoding")
        lines.append(f"{tr(group.side)}: {shown} ({why})")
    return lines


def result_html(search: Searches) -> str:
    """Return the sentences as paragraphs."""
    result = search.result
    lines = result_lines(search)
    if result is None or not lines:
        return ""
    paragraphs = [f"<b>{escape(lines[0])}</b>", *map(escape, lines[1:])]
    coupled = coupled_lines(result)
    if coupled:
        paragraphs.append(f"<b>{escape(tr('Layers that share their bits'))}</b>")
        paragraphs += map(escape, coupled)
    if result.chosen is not None:
        bits = [f"{name} W{bits_text(weight)}" for name, weight, _ in result.chosen.bits if weight is not None]
        paragraphs.append(f"<b>{escape(tr('Bits'))}</b>")
        paragraphs.append(escape(", ".join(bits[:60]) + (" …" if len(bits) > 60 else "")))
    return "<br/>".join(paragraphs)
