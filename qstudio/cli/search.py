"""`qstudio search`: bits for each layer under limits, then everything that `qstudio quantize` measures."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from qstudio.cli.asking import Asker, Interrupted
from qstudio.cli.choices import RecipeChoices, recipe_choices, recipe_of, run_options
from qstudio.cli.plain import plain, plain_run
from qstudio.cli.quantizing import check_output, choose_device, run_text, save_asked
from qstudio.cli.tables import NOTHING, amount, milliseconds, number, size, table
from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import format_bits, parse_bits
from qstudio.core.search import RESOURCES
from qstudio.core.search_result import SearchPoint, SearchResult
from qstudio.core.search_settings import DAMAGES, SearchSettings
from qstudio.engine.messages import OpenModel, SearchBits
from qstudio.session.data_words import data_spec

_LIMITS = (
    ("average_bits", "average_bits", "--average-bits"),
    ("max_size", "size_bytes", "--max-size"),
    ("max_bops", "bops", "--max-bops"),
    ("max_latency_ms", "latency_ms", "--max-latency-ms"),
)
"""(option, resource, as written)."""

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def run(arguments: Namespace, asker: Asker) -> tuple[dict[str, Any], str]:
    """Search a model's bits and run the recipe; return the result for --json and for people.

    Raises:
        UserError: Something in the input has to be mended, or no recipe keeps the limits.
        Interrupted: The person stopped it; says where what was measured is kept.
    """
    choices = recipe_choices(arguments)
    settings_of(arguments, (), ())
    spec = data_spec(arguments)
    assert spec is not None, "--data is required"
    run_options(arguments)
    check_output(arguments.output, arguments.model)
    model: ModelInfo = asker.ask(OpenModel(arguments.model))
    recipe = recipe_of(choices, model, asker)
    settings = settings_of(arguments, *kept_layers(choices, recipe, model, arguments.keep))
    options = run_options(arguments, choose_device(arguments.device, asker))
    request = SearchBits(
        options.request(arguments.model, spec, recipe, arguments.output), settings, resume=arguments.resume
    )
    try:
        result: SearchResult = asker.ask(request)
    except Interrupted as stop:
        if not arguments.resume or not Path(arguments.resume).exists():
            raise
        left = UserError("stopped; what was measured is kept", arguments.resume, "The same command goes on from there")
        raise Interrupted(stop.number, left) from None
    assert result.run is not None, "the job runs what it has found"
    save_asked(arguments, result.run)
    return plain_search(result, model, spec.source), search_text(result, model, spec.source)


def settings_of(
    arguments: Namespace, keep_weights: tuple[str, ...], keep_activations: tuple[str, ...]
) -> SearchSettings:
    """Return what was chosen about the search.

    Raises:
        UserError: Nothing is limited, or a value does not fit.
    """
    limits = tuple(
        (resource, quantity(getattr(arguments, option), written))
        for option, resource, written in _LIMITS
        if getattr(arguments, option) is not None
    )
    drop = None if arguments.max_drop is None else quantity(arguments.max_drop, "--max-drop", zero=True)
    if not limits and drop is None:
        raise UserError("nothing is limited", "search", "Give --average-bits 4, --max-drop 0.5 or another limit")
    return SearchSettings(
        weight_bits=_widths(arguments.candidates, "--candidates"),
        activation_bits=_widths(arguments.activation_candidates, "--activation-candidates"),
        limits=limits,
        max_drop=drop,
        damage=arguments.damage or "",
        solver=arguments.solver,
        couple=arguments.couple,
        groups=tuple(tuple(part.strip() for part in text.split(",") if part.strip()) for text in arguments.group),
        keep_weights=keep_weights,
        keep_activations=keep_activations,
        damage_samples=_whole(arguments.damage_samples, "--damage-samples"),
        front_points=_whole(arguments.front_points, "--front-points"),
        front_samples=_whole(arguments.front_samples, "--front-samples"),
        axis=arguments.axis or "",
    )


def kept_layers(
    choices: RecipeChoices, recipe: Recipe, model: ModelInfo, asked: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers whose weight and whose activation bits stay: named by --keep, --first-last-bits or --set.

    Raises:
        UserError: A --keep matches no layer.
    """
    from fnmatch import fnmatchcase

    names = [layer.name for layer in model.layers]
    for glob in asked:
        if not any(name == glob or fnmatchcase(name, glob) for name in names):
            raise UserError(f"no layer of the model matches '{glob}'", "--keep", f"Choose for example {names[-1]}")
    found: list[tuple[str, ...]] = []
    for field in ("weight_bits", "activation_bits"):
        changed = []
        for name in names:
            before, after = choices.start.resolve(name), recipe.resolve(name)
            values = getattr(before.settings, field), getattr(after.settings, field)
            if (before.source(field), values[0]) != (after.source(field), values[1]):
                changed.append(name)
        found.append((*asked, *changed))
    return found[0], found[1]


def quantity(text: str, where: str, zero: bool = False) -> float:
    """Read "40kB", "1.5M" or "0.5".

    Raises:
        UserError: It is not such a number above 0 (or 0, with `zero`).
    """
    word = text.strip().lower().removesuffix("b").strip()
    unit = word[-1:] if word[-1:] in ("k", "m", "g") else ""
    try:
        value = float(word.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        value = float("nan")
    if not (0 < value < float("inf") or (zero and value == 0)):
        raise UserError(f"'{text}' is not a number above 0", where, "Write for example 4, 0.5, 40kB or 60M")
    return value


def _whole(text: str, where: str) -> int:
    if not str(text).isdigit() or int(text) < 1:
        raise UserError(f"'{text}' is not a whole number of 1 or more", where, "Write for example 256")
    return int(text)


def _widths(text: str, where: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return ()
    try:
        return tuple(parse_bits(word) for word in words)
    except UserError as error:
        raise UserError(error.what, where, error.fix) from None


def plain_search(result: SearchResult, model: ModelInfo, data: str) -> dict[str, Any]:
    """Return a search as `quantize --json` does, and `search`: settings, damages, front, uniform recipes, choice."""
    assert result.run is not None, "the job runs what it has found"
    found = {
        "settings": {**plain(result.settings), "limits": dict(result.settings.limits)},
        "damage": result.damage,
        "axis": result.axis,
        "groups": [
            {"layers": list(g.layers), "side": g.side, "damage": {str(bits): plain(d) for bits, d in g.candidates}}
            for g in result.groups
        ],
        "base_damage": plain(result.base_damage),
        "front": [_plain_point(point) for point in result.front],
        "uniforms": [_plain_point(point) for point in result.uniforms],
        "chosen": None if result.chosen is None else _plain_point(result.chosen),
        "float": plain(result.float),
        "spearman_damage": plain(result.spearman_damage),
        "spearman_drop": plain(result.spearman_drop),
        "float_latency_ms": plain(result.float_latency_ms),
        "computed": result.computed,
        "notes": list(result.notes),
        "seconds": result.seconds,
    }
    return {**plain_run(result.run, model, data), "search": found}


def _plain_point(point: SearchPoint) -> dict[str, Any]:
    bits = {name: {"weight": weight, "activation": width} for name, weight, width in point.bits}
    uniform = None if point.uniform is None else _uniform_words(point)
    return {
        "budget": plain(point.budget),
        **{name: plain(value) for name, value in point.amounts},
        "predicted_damage": plain(point.predicted),
        "damage": plain(point.damage),
        "measured": plain(point.measured),
        "uniform": uniform,
        "exact": point.exact,
        "layers": bits,
        "recipe_hash": point.recipe.sha256(),
    }


def search_text(result: SearchResult, model: ModelInfo, data: str) -> str:
    """Return a search and the run of its recipe as tables and sentences for people."""
    assert result.run is not None, "the job runs what it has found"
    assert result.chosen is not None, "a finished search has chosen"
    parts = [
        f"{model.path}: {len(result.groups)} groups to choose, data {data}\n"
        f"damage {result.damage}: {DAMAGES[result.damage]}",
        _damages(result),
        f"front along {result.axis} ({RESOURCES[result.axis]}), and uniform recipes, "
        f"on {result.float.samples if result.float else 0:,} samples:",
        _front(result),
        _correlation(result),
        "chosen:\n" + _points([(_name(result.chosen), result.chosen)], result),
        "\n".join(f"note: {note}" for note in result.notes),
        run_text(result.run, model, data),
    ]
    return "\n\n".join(part for part in parts if part)


def _damages(result: SearchResult) -> str:
    widths = sorted({bits for group in result.groups for bits, _ in group.candidates}, reverse=True)
    chosen = {name: (weight, width) for name, weight, width in result.chosen.bits} if result.chosen else {}
    rows = []
    for group in result.groups:
        known = dict(group.candidates)
        weight, width = chosen.get(group.layers[0], (None, None))
        taken = weight if group.side == "weights" else width
        more = f" + {len(group.layers) - 1}" if len(group.layers) > 1 else ""
        figures = [f"{known[bits]:.3g}" if bits in known else NOTHING for bits in widths]
        rows.append((group.layers[0] + more, group.side, *figures, NOTHING if taken is None else format_bits(taken)))
    head = ("layers", "", *(f"{format_bits(bits)} bits" for bits in widths), "chosen")
    return table(head, rows, "ll" + "r" * (len(widths) + 1))


def _front(result: SearchResult) -> str:
    named = [(f"{point.budget:.4g}" + (f" {_name(point)}" if point.uniform else ""), point) for point in result.front]
    return _points([*named, *((_name(point), point) for point in result.uniforms)], result)


def _points(points: list[tuple[str, SearchPoint]], result: SearchResult) -> str:
    timed = any(point.amount("latency_ms") is not None for _, point in points)
    rows = []
    for name, point in points:
        metrics = point.measured
        bytes_, bops, latency = (point.amount(r) for r in ("size_bytes", "bops", "latency_ms"))
        rows.append(
            (
                name,
                number(point.amount("average_bits"), 2),
                size(None if bytes_ is None else round(bytes_)),
                NOTHING if bops is None else amount(round(bops)),
                *([NOTHING if latency is None else milliseconds(latency)] if timed else []),
                NOTHING if point.predicted is None else f"{point.predicted:.3g}",
                NOTHING if point.damage is None else f"{point.damage:.3g}",
                number(None if metrics is None else metrics.top1, 2),
                number(None if metrics is None else metrics.agreement, 2),
            )
        )
    head = ("budget", "bits", "size", "BOPS", *(["ms"] if timed else []), "predicted", "damage", "top-1 %", "agree %")
    return table(head, rows, "l" + "r" * (len(head) - 1))


def _name(point: SearchPoint) -> str:
    return "searched" if point.uniform is None else f"uniform {_uniform_words(point)}"


def _uniform_words(point: SearchPoint) -> str:
    assert point.uniform is not None, "asked of uniform recipes"
    bits, width = point.uniform
    return f"W{format_bits(bits)}" + ("" if width is None else f"A{format_bits(width)}")


def _correlation(result: SearchResult) -> str:
    if result.spearman_damage is None:
        return ""
    drop = "" if result.spearman_drop is None else f", with the accuracy lost {result.spearman_drop:.2f}"
    return f"rank correlation (Spearman) of predicted with measured damage {result.spearman_damage:.2f}{drop}"
