"""`qstudio sensitivity`: one layer at a time, for every bit width."""

from __future__ import annotations

from argparse import Namespace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qstudio import __version__
from qstudio.cli.asking import Asker, Interrupted
from qstudio.cli.choices import recipe_choices, recipe_of, run_options
from qstudio.cli.plain import plain
from qstudio.cli.quantizing import choose_device
from qstudio.cli.tables import NOTHING, amount, number, table
from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.core.sensitivity import (
    MEASURES,
    MODES,
    Candidate,
    Figures,
    SensitivityResult,
    make_candidates,
)
from qstudio.engine.messages import OpenDataset, OpenModel, Sensitivity
from qstudio.session.data_words import data_spec


def run(arguments: Namespace, asker: Asker) -> tuple[dict[str, Any], str]:
    """Sweep a model's layers; return the result for --json and for people.

    Raises:
        UserError: Something in the input has to be mended.
    """
    choices = recipe_choices(arguments)
    spec = data_spec(arguments)
    assert spec is not None, "--data is required"
    candidates = _candidates(arguments)
    options = run_options(arguments)
    model: ModelInfo = asker.ask(OpenModel(arguments.model))
    layers = _layers(arguments.layers, model)
    data: DatasetInfo = asker.ask(OpenDataset(spec, arguments.model))
    metric: str | None = arguments.metric
    if metric in ("loss", "top1") and not data.has_labels:
        raise UserError(f"{metric} needs labels, and the data has none", "--metric", "Choose kl, sqnr or agreement")
    if "hessian" in (metric, arguments.hessian and "hessian") and arguments.side == "activations":
        raise UserError("the Hessian says nothing about activations", "--side", "Choose weights, or another metric")
    request = Sensitivity(
        model=arguments.model,
        data=spec,
        recipe=recipe_of(choices, model, asker),
        candidates=candidates,
        mode=arguments.mode,
        layers=layers,
        measured=metric != "hessian",
        hessian=metric == "hessian" or arguments.hessian,
        calibration_data=options.calibration_data,
        calibration_samples=options.calibration_samples,
        calibration_choice=options.calibration_choice,
        eval_samples=options.eval_samples,
        seed=options.seed,
        device=choose_device(arguments.device, asker),
        resume=arguments.resume,
    )
    try:
        result: SensitivityResult = asker.ask(request)
    except Interrupted as stop:
        if not arguments.resume or not Path(arguments.resume).exists():
            raise
        fix = "The same command goes on from there"
        raise Interrupted(stop.number, UserError("stopped; what was measured is kept", arguments.resume, fix)) from None
    metric = metric or _default_metric(result)
    if all(cell.value(metric) is None for cell in result.cells):
        raise UserError(f"the output is no class scores: there is no {metric}", "--metric", "Choose sqnr or agreement")
    return plain_sweep(result, model, spec.source, metric), sweep_text(result, model, spec.source, metric)


def _candidates(arguments: Namespace) -> tuple[Candidate, ...]:
    words = [word.strip() for word in arguments.bits.split(",") if word.strip()]
    try:
        return make_candidates(words, arguments.side, arguments.mode)
    except UserError as error:
        raise UserError(error.what, "--bits", error.fix) from None


def _layers(globs: list[str], model: ModelInfo) -> tuple[str, ...]:
    """Return the layers that are meant; none for all."""
    chosen: dict[str, None] = {}
    for glob in globs:
        found = [layer.name for layer in model.layers if layer.name == glob or fnmatchcase(layer.name, glob)]
        if not found:
            fix = f"Choose for example {', '.join(layer.name for layer in model.layers[:3])}"
            raise UserError(f"no layer of the model matches '{glob}'", "--layers", fix)
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


def _default_metric(result: SensitivityResult) -> str:
    return "kl" if any(cell.value("kl") is not None for cell in result.cells) else "sqnr"


def plain_sweep(result: SensitivityResult, model: ModelInfo, data: str, metric: str) -> dict[str, Any]:
    """Return a sweep for JSON: `cells` (layer, candidate, all figures), `ranking`, `float`, `bases`, `traces`, ...

    An SQNR that is null belongs to an output that is equal to float's.
    """
    figures = ("agreement", "sqnr_db", "kl", "top1", "top1_interval", "loss", "samples")

    def flat(found: Figures | None) -> dict[str, Any]:
        return {name: None if found is None else plain(getattr(found, name)) for name in figures}

    return {
        "qstudio": __version__,
        "model": model.path,
        "data": data,
        "mode": result.mode,
        "metric": metric,
        "candidates": [{"text": candidate.text, **plain(candidate)} for candidate in result.candidates],
        "cells": [
            {
                "layer": cell.layer,
                "candidate": cell.candidate.text,
                **flat(cell.figures),
                "hessian": plain(cell.hessian),
            }
            for cell in result.cells
        ],
        "ranking": {candidate.text: list(result.ranking(metric, candidate)) for candidate in result.candidates},
        "float": None if result.float is None else flat(result.float),
        "bases": {candidate.text: flat(found) for candidate, found in result.bases},
        "traces": plain(result.traces),
        "recipe": plain(result.recipe),
        "recipe_hash": result.recipe.sha256(),
        "model_hash": result.model_hash,
        "data_hash": result.data_hash,
        "seed": result.seed,
        "computed": result.computed,
        "seconds": result.seconds,
        "notes": list(result.notes),
    }


def sweep_text(result: SensitivityResult, model: ModelInfo, data: str, metric: str) -> str:
    """Return a sweep as a table and sentences for people."""
    measure = MEASURES[metric]
    predicted = _table(result, model, "hessian") if result.traces and metric != "hessian" else ""
    parts = [
        f"{model.path}: {len(result.layers)} layers, data {data}, seed {result.seed}\n"
        f"{result.mode}: {MODES[result.mode]}",
        _table(result, model, metric),
        "\n".join(_rankings(result, metric)),
        f"predicted from the Hessian:\n{predicted}" if predicted else "",
        f"{measure.title}{f' ({measure.unit})' if measure.unit else ''}: {measure.meaning}",
        "\n".join(f"note: {note}" for note in result.notes),
        f"{result.computed} of {len(result.cells)} cells evaluated, {result.seconds:.1f} s"
        if result.float is not None
        else f"predicted in {result.seconds:.1f} s",
    ]
    return "\n\n".join(part for part in parts if part)


def _table(result: SensitivityResult, model: ModelInfo, metric: str) -> str:
    rows = []
    unit = MEASURES[metric].unit
    for name in result.layers:
        layer = model.layer(name)
        cells = [result.cell(name, candidate) for candidate in result.candidates]
        figures = [figure(metric, None if cell is None else cell.value(metric)) for cell in cells]
        rows.append((name, layer.op_type, amount(layer.parameters), *figures))
    bases = dict(result.bases)
    if bases and metric != "hessian":
        title = {"enable": "float", "disable": "all", "change": "recipe"}[result.mode]
        values = [figure(metric, bases[candidate].value(metric)) for candidate in result.candidates]
        rows.append((f"({title})", "", "", *values))
    head = ("layer", "type", "params", *(f"{candidate.text} {unit}" for candidate in result.candidates))
    return table(head, rows, "llr" + "r" * len(result.candidates))


def figure(metric: str, value: float | None) -> str:
    """Return a figure of a measure as text; a dash for none."""
    if value is None:
        return NOTHING
    if metric in ("kl", "hessian"):
        return f"{value:.3g}"
    return number(value, {"loss": 4, "sqnr": 1}.get(metric, 2))


def _rankings(result: SensitivityResult, metric: str) -> list[str]:
    most = {"enable": "hurt most", "disable": "most worth sparing", "change": "cost most"}[result.mode]
    lines = []
    for candidate in result.candidates:
        names = result.ranking(metric, candidate)[:5]
        if names:
            lines.append(f"{candidate.text} {most}: {', '.join(names)}")
    return lines
