"""`qstudio inspect`: layers, sites and statistics."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

from qstudio.cli.asking import Asker
from qstudio.cli.choices import recipe_choices, recipe_of, run_options
from qstudio.cli.plain import plain, plain_layer, plain_model, plain_statistics
from qstudio.cli.sample import sample_text, trace_sample
from qstudio.cli.tables import amount, number, signed_range, size, table
from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.overlap import overlap
from qstudio.core.recipe import Recipe
from qstudio.core.size import quantized_bytes
from qstudio.core.statistics import SiteStatistics
from qstudio.engine.messages import (
    ActivationStatistics,
    DataSpec,
    FloatAccuracy,
    LayerPreview,
    OpenDataset,
    OpenModel,
    WeightStatistics,
)
from qstudio.session.data_words import data_spec
from qstudio.session.readout import read


def run(arguments: Namespace, asker: Asker) -> tuple[dict[str, Any], str]:
    """Describe a model under a recipe, and its data; return the result for --json and for people.

    Raises:
        UserError: Something in the input has to be mended.
    """
    choices = recipe_choices(arguments)
    spec = data_spec(arguments)
    model: ModelInfo = asker.ask(OpenModel(arguments.model))
    recipe = recipe_of(choices, model, asker)
    statistics: dict[str, SiteStatistics] = {s.site: s for s in asker.ask(WeightStatistics(arguments.model))}
    data = _measure(arguments, spec, model, statistics, asker) if spec is not None else None
    evaluation = _evaluation(arguments, spec, model, asker) if arguments.overlap else {}
    layers = [_layer(layer, recipe, arguments.model, statistics, evaluation, asker) for layer in model.layers]
    found: dict[str, Any] = {
        "model": plain_model(model),
        "size_bytes": {"float": model.float_size_bytes, "quantized": quantized_bytes(model, recipe.settings)},
        "layers": layers,
        "recipe": plain(recipe),
        "recipe_hash": recipe.sha256(),
        "data": data,
    }
    if arguments.sample is not None:
        found["sample"] = trace_sample(arguments, spec, recipe, asker)
    return found, _text(model, found)


def _measure(
    arguments: Namespace, spec: DataSpec, model: ModelInfo, statistics: dict[str, SiteStatistics], asker: Asker
) -> dict[str, Any]:
    options = run_options(arguments)
    info = asker.ask(OpenDataset(spec, arguments.model))
    measured: dict[str, Any] = {**plain(info), "float": None}
    if model.runnable:
        request = FloatAccuracy(
            arguments.model,
            spec,
            options.eval_samples,
            options.seed,
            options.calibration_data,
            options.calibration_samples,
            options.calibration_choice,
        )
        measured["float"] = plain(asker.ask(request))
        statistics.update({s.site: s for s in asker.ask(_asked(arguments, spec))})
    return measured


def _asked(arguments: Namespace, spec: DataSpec) -> ActivationStatistics:
    options = run_options(arguments)
    return ActivationStatistics(
        arguments.model,
        spec,
        options.calibration_data,
        options.calibration_samples,
        options.seed,
        options.calibration_choice,
        eval_samples=options.eval_samples,
    )


def _evaluation(
    arguments: Namespace, spec: DataSpec | None, model: ModelInfo, asker: Asker
) -> dict[str, SiteStatistics]:
    """Return the activations' statistics over the evaluation samples.

    Raises:
        UserError: There is no data.
    """
    if spec is None:
        raise UserError("there is no data to compare", "--overlap", "Name the data with --data")
    if not model.runnable:
        return {}
    return {s.site: s for s in asker.ask(replace(_asked(arguments, spec), of="evaluation"))}


def _layer(
    layer: LayerInfo,
    recipe: Recipe,
    model: str,
    statistics: dict[str, SiteStatistics],
    evaluation: dict[str, SiteStatistics],
    asker: Asker,
) -> dict[str, Any]:
    settings = recipe.settings(layer.name)
    described = plain_layer(layer, settings)
    for kind in ("weight", "bias", "activation"):
        site = getattr(layer, kind)
        described[kind] = None
        if site is not None:
            described[kind] = {"site": site.id, "shape": list(site.shape), "channel_axis": site.channel_axis}
            if site.id in statistics:
                described[kind].update(plain_statistics(statistics[site.id]))
    site = layer.activation
    if site is not None and site.id in statistics and site.id in evaluation:
        calibration = statistics[site.id]
        scheme = settings.activation_scheme()
        clip = (min(calibration.histogram.minimum, 0.0), max(calibration.histogram.maximum, 0.0))
        clip = clip if scheme.is_float else read(calibration, site, scheme).clip
        found = overlap(calibration.histogram, evaluation[site.id].histogram, clip)
        described["activation"]["overlap"] = plain(found)
    described["weight_sqnr_db"] = described["weight_cosine"] = None
    if layer.weight is not None and not settings.weight_scheme().is_float:
        preview = asker.ask(LayerPreview(model, layer.name, settings.weight_scheme()))
        described["weight_sqnr_db"], described["weight_cosine"] = plain(preview.sqnr_db), plain(preview.cosine)
    return described


def _text(model: ModelInfo, found: dict[str, Any]) -> str:
    sizes = found["size_bytes"]
    shape = " x ".join("N" if n is None else str(n) for n in model.input_shape)
    parts = [
        f"{model.path}: {model.format}, opset {model.opset}, input {shape}, {len(model.layers)} layers, "
        f"{amount(model.parameters)} parameters, {amount(found['model']['macs'])} multiply-accumulates\n"
        f"size {size(sizes['float'])} in float, {size(sizes['quantized'])} under this recipe",
        _table(found["layers"]),
    ]
    data = found["data"]
    if data is not None:
        splits = ", ".join(f"{name} {count:,}" for name, count in data["sizes"].items())
        said = [f"data {data['name']}: {splits}; {data['preprocess']}", *data["warnings"]]
        metrics = data["float"]
        if metrics is not None and metrics["top1"] is not None:
            low, high = metrics["top1_interval"]
            said.append(
                f"float: top-1 {metrics['top1']:.2f} % ({low:.1f} .. {high:.1f}) on {metrics['samples']:,} samples, "
                f"loss {number(metrics['loss'], 4)}"
            )
        parts.append("\n".join(said))
    parts.append(
        "\n".join(
            [f"cannot run: {operator} ({node}): {reason}" for node, operator, reason in model.unsupported]
            + [f"note: {note}" for note in model.notes]
        )
    )
    if "sample" in found:
        parts.append(sample_text(found["sample"]))
    return "\n\n".join(part for part in parts if part)


def _table(layers: list[dict[str, Any]]) -> str:
    rows = []
    compared = any("overlap" in (layer["activation"] or {}) for layer in layers)
    for layer in layers:
        weight, activation = layer["weight"] or {}, layer["activation"] or {}
        output = signed_range(activation.get("minimum"), activation.get("maximum"))
        if layer["shares_with"]:
            output = f"as {layer['shares_with']}"
        rows.append(
            (
                layer["name"],
                layer["type"],
                layer["title"],
                amount(layer["parameters"]),
                signed_range(weight.get("minimum"), weight.get("maximum")),
                layer["schemes"].get("weight", "-"),
                number(layer["weight_sqnr_db"], 1),
                layer["schemes"].get("activation", "-"),
                output,
                *([_agreement(activation.get("overlap"))] if compared else []),
            )
        )
    head = ("layer", "type", "what", "params", "weights", "weight scheme", "dB", "output scheme", "output range")
    if not compared:
        return table(head, rows, "lllrllrll")
    return table((*head, "overlap / outside"), rows, "lllrllrlll")


def _agreement(found: dict[str, Any] | None) -> str:
    """Return how far evaluation and calibration data agree, and the evaluation's share outside the range."""
    return "-" if found is None else f"{found['intersection_percent']:.1f} / {found['outside_percent']:.3f} %"
