"""Where the quantizers of a stage start: PTQ's encodings of the weights as they are by then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, as_groups, encode, fake_quantize, integer_range
from qstudio.core.errors import UserError
from qstudio.core.formats import scheme_text
from qstudio.core.model_info import SiteInfo
from qstudio.core.recipe import LayerSettings, Recipe, Rule
from qstudio.core.scheme import FLOAT_BITS, Scheme
from qstudio.core.statistics import SiteStatistics
from qstudio.core.training import Training
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings, encodings_for
from qstudio.quant.evaluate import Report, feeds
from qstudio.quant.executor import Parameters
from qstudio.quant.network import Network
from qstudio.quant.statistics import StatisticsCollector

FloatValues = Mapping[str, NDArray[np.floating]]


def stage_recipe(recipe: Recipe, least_bits: int) -> Recipe:
    """Return a recipe in which no site has fewer than `least_bits` bits."""

    def raised(values: dict[str, object]) -> dict[str, object]:
        return {
            name: max(value, least_bits) if name.endswith("_bits") and isinstance(value, int) else value
            for name, value in values.items()
        }

    names = ("weight_bits", "activation_bits")
    default: LayerSettings = replace(recipe.default, **raised({n: getattr(recipe.default, n) for n in names}))  # type: ignore[arg-type]
    rules = tuple(Rule(rule.glob, tuple(raised(dict(rule.values)).items())) for rule in recipe.rules)
    layers = tuple((layer, tuple(raised(dict(values)).items())) for layer, values in recipe.overrides)
    return replace(recipe, default=default, rules=rules, overrides=layers)


def stage_bits(recipe: Recipe, network: Network, training: Training) -> tuple[int, ...]:
    """Return the least bits of each stage: the progressive ones above the recipe's smallest, then that itself."""
    settings = [recipe.settings(layer.name) for layer in network.layers]
    widths = [s.weight_bits for s, layer in zip(settings, network.layers, strict=True) if layer.weight is not None]
    widths += [s.activation_bits for s, layer in zip(settings, network.layers, strict=True) if layer.activation]
    smallest = min(widths, default=FLOAT_BITS)
    return (*(bits for bits in training.progressive_bits if bits > smallest), smallest)


def starting_encodings(
    network: Network,
    recipe: Recipe,
    statistics: Mapping[str, SiteStatistics],
    values: FloatValues,
    training: Training,
) -> Encodings:
    """Return PTQ's encodings, with the weights' steps by LSQ's formulas where these were chosen or are better.

    Args:
        network: The prepared model.
        recipe: Of the stage.
        statistics: Of the activations, by site.
        values: Weights by name; the network's own where one is missing.
        training: Method and choice of initial scales.

    Raises:
        UserError: A site has a format that is not integers.
    """
    weights = {site.id: np.asarray(values.get(site.id, network.value(site.id))) for site in network.weight_sites}
    encodings = encodings_for(network.layers, recipe, statistics, weights)
    if encodings.others:
        name = next(iter(encodings.others))
        raise UserError(
            f"training learns the scales of integers, and {scheme_text(encodings.schemes[name])} has none",
            name,
            "Choose the format int without outliers and with a static range, or leave it in float",
        )
    if training.method not in ("lsq", "lsq+") or training.initial_scales == "ptq":
        return encodings
    started = dict(encodings.weights)
    for site in network.weight_sites:
        scheme = encodings.schemes[site.id]
        if site.id not in started or not scheme.symmetric or scheme.calibration == "manual":
            continue
        other = formula_encoding(scheme, site, weights[site.id], training.method)
        if training.initial_scales == "formula":
            started[site.id] = other
        else:
            started[site.id] = _better(weights[site.id], started[site.id], other)
    return replace(encodings, weights=started)


def formula_encoding(scheme: Scheme, site: SiteInfo, values: NDArray[np.floating], method: str) -> Encoding:
    """Return a symmetric weight's encoding with the initial step of a method.

    LSQ: s = 2 E|w| / sqrt(Qp) (Esser et al., 2020, section 2.1). LSQ+: s = max(|mean - 3 sigma|, |mean + 3 sigma|) /
    2^(b-1) (Bhalgat et al., 2020, section 3.2).
    """
    _, qmax = integer_range(scheme)
    axis = site.channel_axis if site.channel_axis is not None else 0
    rows = as_groups(np.asarray(values, np.float64), scheme.granularity, axis)
    if method == "lsq":
        step = 2.0 * np.abs(rows).mean(-1) / np.sqrt(qmax)
    else:
        mean, deviation = rows.mean(-1), rows.std(-1)
        step = np.maximum(np.abs(mean - 3 * deviation), np.abs(mean + 3 * deviation)) / 2 ** (scheme.bits - 1)
    reach = step * qmax
    if scheme.granularity.kind == "tensor":
        reach = reach.reshape(())
    return encode(scheme, -reach, reach, axis)


def _better(values: NDArray[np.floating], first: Encoding, second: Encoding) -> Encoding:
    """Return the encoding with the smaller squared error over the whole weight (the first of equals)."""

    def error(encoding: Encoding) -> float:
        return float(np.square(fake_quantize(values, encoding).astype(np.float64) - values).sum())

    return second if error(second) < error(first) else first


def float_statistics(
    network: Network, values: FloatValues, split: Split, indices: NDArray[np.int64], report: Report | None = None
) -> dict[str, SiteStatistics]:
    """Return activation statistics of the float graph with other weights and biases (between stages).

    Args:
        network: The prepared model.
        values: Parameters by name.
        split: Where the samples are.
        indices: Calibration samples.
        report: Told the progress between batches; raises to stop.
    """
    device = network.executor.device
    parameters: Parameters = {
        name: torch.tensor(np.asarray(value, np.float32), device=device) for name, value in values.items()
    }
    collector = StatisticsCollector(network.activation_sites)
    done = 0
    with network.executor.evaluating():
        for batch, inputs, rows in feeds(network, split, indices):
            if report is not None:
                report(done, len(indices))
            collector.start_batch(batch.indices.tolist(), rows)
            network.executor.run(inputs, observe=collector.observe, parameters=parameters)
            done += len(batch.indices)
    return collector.finish()
