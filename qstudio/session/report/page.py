"""The report: model, recipe, runs, charts, environment and how to repeat it, in one HTML file that stands alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from qstudio import __version__
from qstudio.core.errors import UserError
from qstudio.core.formats import scheme_text
from qstudio.core.results import Metrics, RunResult, rate
from qstudio.session.options import Run
from qstudio.session.report.charts import Point, bars, scatter
from qstudio.session.script import python_script

if TYPE_CHECKING:
    from qstudio.session.session import Session

_STYLE = """
:root { --text:#1b2430; --muted:#5b6b7a; --line:#d9dee4; --page:#ffffff; --float:#5b6b7a; --quantized:#0072b2;
  --worse:#d55e00; --code:#f3f4f6; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --text:#e6eaee; --muted:#9fb0c0; --line:#39424d; --page:#161b21;
  --float:#9fb0c0; --quantized:#56b4e9; --worse:#e8804a; --code:#20262e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0 auto;
  max-width: 1040px; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 8px; }
p.muted, td.muted, figcaption { color: var(--muted); } figure { margin: 8px 0 24px; max-width: 760px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; color: var(--muted); font-weight: 500; border-bottom: 1px solid var(--line); }
th, td { padding: 4px 12px 4px 0; vertical-align: top; } tbody tr + tr td { border-top: 1px solid var(--line); }
.n { text-align: right; white-space: nowrap; } .scroll { overflow-x: auto; }
pre { background: var(--code); padding: 12px 16px; overflow-x: auto; font-size: 13px; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg .tick, svg .axis { fill: var(--muted); } svg .grid { stroke: var(--line); }
svg .float { fill: var(--float); } svg .measured { fill: var(--quantized); }
svg .simulated { fill: var(--page); stroke: var(--quantized); stroke-width: 2; }
@media print { body { max-width: none; } details { display: block; } }
"""


def report_html(session: Session, run: int | None = None) -> str:
    """Return the session as one HTML page: no scripts, nothing loaded from anywhere.

    Args:
        session: With an open model.
        run: Number of the run that is shown in detail; None takes the selected one, else the last with a result.

    Raises:
        UserError: No model is open.
    """
    model = session.model
    if model is None:
        raise UserError("there is nothing to report: no model is open", "report", "Open a model first")
    runs = [entry for entry in session.runs if entry.result is not None and entry.model_sha256 == model.sha256]
    shown = _shown(session, runs, run)
    body = [
        f"<h1>{escape(model.name)}</h1>",
        f'<p class="muted">QStudio {__version__}, {time.strftime("%Y-%m-%d %H:%M")}</p>',
        _facts(session),
    ]
    if shown is not None and shown.result is not None:
        body += [f"<h2>{escape(shown.title)}</h2>", _outcome(shown.result)]
    if runs:
        body += ["<h2>Runs</h2>", _runs(runs), _charts(runs)]
    else:
        body.append('<h2>Runs</h2><p class="muted">No run has a result yet.</p>')
    body += ["<h2>Recipe</h2>", _recipe(session, shown)]
    if shown is not None and shown.result is not None:
        body += [_layers(shown.result), _environment(shown.result), _repeat(shown)]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(model.name)} – QStudio</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>\n{chr(10).join(part for part in body if part)}\n</body></html>\n"
    )


def write_report(session: Session, path: str | os.PathLike[str], run: int | None = None) -> None:
    """Write the report to a file, to a temporary name first.

    Raises:
        UserError: No model is open, or the file cannot be written.
    """
    text, temporary = report_html(session, run), f"{os.fspath(path)}.part"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise UserError(
            f"the report was not written ({error.strerror or error})", os.fspath(path), "Choose another folder"
        ) from error


def _shown(session: Session, runs: Sequence[Run], number: int | None) -> Run | None:
    wanted = session.selected_run if number is None else number
    found = next((run for run in runs if run.id == wanted), None)
    return found or (runs[-1] if runs and number is None else None)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)
    mark = [' class="n"' if column in right else "" for column in range(len(head))]
    titles = "".join(f"<th{m}>{escape(title)}</th>" for title, m in zip(head, mark, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{m}>{escape(cell)}</td>" for cell, m in zip(row, mark, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>\n{lines}</tbody></table></div>'


def _facts(session: Session) -> str:
    model, data = session.model, session.dataset
    assert model is not None
    rows = [
        ("Model", f"{model.path}, {model.format}, opset {model.opset}"),
        ("sha256", model.sha256),
        ("Parameters", f"{model.parameters:,} in {len(model.weighted_layers):,} layers with weights"),
        ("Float size", _bytes(model.float_size_bytes)),
    ]
    if data is not None:
        sizes = ", ".join(f"{name} {count:,}" for name, count in data.sizes.items())
        rows += [("Data", f"{session.data_spec.source if session.data_spec else data.name}: {sizes} samples")]
    rows += [("Note", note) for note in model.notes]
    return _table(("", ""), rows).replace("<thead><tr><th></th><th></th></tr></thead>", "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _bytes(count: float | None) -> str:
    if count is None:
        return "-"
    for unit, factor in (("MB", 2**20), ("KB", 2**10)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count:.0f} B"


def _metrics_row(name: str, metrics: Metrics | None) -> tuple[str, ...] | None:
    if metrics is None:
        return None
    interval = metrics.top1_interval
    limits = f"{interval[0]:.2f} .. {interval[1]:.2f}" if interval else "-"
    return (
        name,
        _percent(metrics.top1),
        limits,
        _percent(metrics.top5),
        "-" if metrics.loss is None else f"{metrics.loss:.4f}",
        _percent(metrics.agreement),
        f"{metrics.samples:,}",
    )


def _outcome(result: RunResult) -> str:
    rows = [
        row
        for row in (
            _metrics_row("float", result.float),
            _metrics_row("simulated", result.simulated),
            _metrics_row("exported, onnxruntime", result.exported),
        )
        if row is not None
    ]
    head = ("", "top-1", "95 % interval, %", "top-5", "loss, nats", "agreement with float", "samples")
    parts = [_table(head, rows, range(1, 7))]
    words = []
    if result.parity is not None:
        parity = result.parity
        words.append(
            f"The exported file gives the simulated class on {parity.agreement:.2f} % of {parity.samples:,} samples; "
            f"codes differ by {parity.max_lsb} LSB at most. With integer kernels it agrees on "
            f"{parity.fused_agreement:.2f} %."
        )
    if result.size_bytes is not None:
        sizes = result.size_bytes
        file = f"; the file has {_bytes(sizes.file)}" if sizes.file is not None else ""
        words.append(f"Size {_bytes(sizes.float)} float, {_bytes(sizes.quantized)} quantized{file}.")
    if result.latency_ms is not None:
        pair = result.latency_ms
        words.append(
            f"One inference takes {pair.float.median:.3g} ms float and {pair.exported.median:.3g} ms exported "
            f"(medians of {pair.exported.runs}, batch {pair.exported.batch}, {pair.exported.threads} threads, "
            f"{pair.processor}; p10..p90 {pair.exported.p10:.3g}..{pair.exported.p90:.3g} ms)."
        )
        words += [f"{note.rstrip('.')}." for note in pair.notes]
    words += [f"{note.rstrip('.')}." for note in result.notes]
    return parts[0] + "".join(f"<p>{escape(text)}</p>" for text in words)


def _runs(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        result = run.result
        assert result is not None
        latency = result.latency_ms
        rows.append(
            (
                run.title,
                "trained" if run.training is not None else "PTQ",
                run.state.value,
                _percent(rate(result.float)),
                _percent(rate(result.simulated)),
                _percent(rate(result.exported)),
                _bytes(result.size_bytes.quantized if result.size_bytes else None),
                f"{latency.exported.median:.3g} ms" if latency else "-",
                run.recipe_hash[:12],
                str(result.seed),
            )
        )
    head = ("run", "how", "state", "float", "simulated", "exported", "size", "latency", "recipe", "seed")
    return _table(head, rows, range(3, 8))


def _charts(runs: Sequence[Run]) -> str:
    labelled = any(run.result and run.result.float and run.result.float.top1 is not None for run in runs)
    measure = "top-1, %" if labelled else "agreement, %"
    found = []
    for title, unit in (("size", "KB"), ("latency", "ms")):
        points = _points(runs, title)
        if any(point.kind != "float" for point in points):
            chart = scatter(points, f"{title}, {unit}", measure)
            caption = (
                f"Accuracy against {title}: up is better, left is better. Diamond: float; filled: the exported file in "
                "onnxruntime; hollow: simulated."
            )
            found.append(f"<figure>{chart}<figcaption>{caption}</figcaption></figure>")
    return "".join(found)


def _points(runs: Sequence[Run], cost: str) -> list[Point]:
    points: list[Point] = []
    for run in runs:
        result = run.result
        if result is None:
            continue
        if cost == "size":
            sizes = result.size_bytes
            pair = (sizes.float / 1024, sizes.quantized / 1024) if sizes else None
        else:
            pair = (result.latency_ms.float.median, result.latency_ms.exported.median) if result.latency_ms else None
        if pair is None:
            continue
        value, base = rate(result.exported or result.simulated), rate(result.float)
        if base is not None and not any(point.kind == "float" for point in points):
            points.append(Point(pair[0], base, f"float: {base:.2f} %", "float", "float"))
        if value is not None:
            kind = "measured" if result.exported is not None else "simulated"
            points.append(Point(pair[1], value, f"{run.title}: {value:.2f} %", kind, str(run.id)))
    return points


def _recipe(session: Session, shown: Run | None) -> str:
    recipe = shown.request.recipe if shown is not None and shown.request is not None else session.recipe
    model = session.model
    assert model is not None
    rows = []
    for layer in model.layers:
        if layer.weight is None and layer.activation is None:
            continue
        settings = recipe.settings(layer.name)
        weight = scheme_text(settings.weight_scheme()) if layer.weight is not None else "-"
        activation = scheme_text(settings.activation_scheme()) if layer.activation is not None else "-"
        changed = "set here" if any(name == layer.name for name, _ in recipe.overrides) else ""
        rows.append((layer.name, layer.op_type, weight, activation, changed))
    same = shown is None or recipe == session.recipe
    words = f"Refinements: {', '.join(recipe.refinements) or 'none'}. Hash {recipe.sha256()[:12]}."
    if not same and shown is not None:
        words += f" This is the recipe of {shown.title}; the present one differs."
    return f"<p>{escape(words)}</p>" + _table(("layer", "type", "weight", "activation", ""), rows)


def _layers(result: RunResult) -> str:
    known = [layer for layer in result.layers if layer.sqnr_db is not None or layer.weight_sqnr_db is not None]
    if not known:
        return ""
    outputs = [(layer.name, layer.sqnr_db) for layer in known if layer.sqnr_db is not None]
    chart = bars(outputs, "dB", "SQNR of each layer's output")
    caption = (
        "SQNR of each layer's output with everything quantized: 10 log10(signal / noise). 30 dB and more is good, "
        "under 20 dB is bad."
    )
    return f"<h2>Error of the layers</h2><figure>{chart}<figcaption>{caption}</figcaption></figure>" if outputs else ""


def _environment(result: RunResult) -> str:
    rows = [(name, version) for name, version in result.versions]
    if result.latency_ms is not None:
        rows.append(("processor", ", ".join((result.latency_ms.processor, *result.latency_ms.instructions))))
    rows += [("device", result.device), ("seconds", f"{result.seconds:.1f}"), ("data hash", result.data_hash)]
    table = _table(("", ""), rows).replace("<thead><tr><th></th><th></th></tr></thead>", "")
    return f"<h2>Environment</h2>{table}"


def _repeat(run: Run) -> str:
    if run.request is None:
        return ""
    script = escape(python_script(run.request, run.training))
    recipe = escape(json.dumps(run.request.recipe.to_json(), indent=1))
    return (
        "<h2>How to repeat it</h2><p>With QStudio installed, this gives the same numbers in a fresh Python; latency "
        f"depends on the machine.</p><pre>{script}</pre>"
        f"<details><summary>recipe.json</summary><pre>{recipe}</pre></details>"
    )
