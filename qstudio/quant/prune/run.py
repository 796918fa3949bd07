"""Prune a model: ONNX in, ONNX out, before anything else is done with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qstudio.core.context import JobContext, SilentContext
from qstudio.core.errors import UserError
from qstudio.core.pruning import METHODS, PRUNED_OPERATORS, Pruning, parse_pruning
from qstudio.core.recipe import Recipe
from qstudio.data.samples import Samples
from qstudio.graph.load import LoadedModel
from qstudio.graph.prepare import prepare
from qstudio.quant.network import Network
from qstudio.quant.prune.channels import LayerChannels
from qstudio.quant.prune.choose import channel_groups, least_important, listed, weight_masks
from qstudio.quant.prune.importance import norms, taylor_scores
from qstudio.quant.prune.remove import remove_channels, zero_weights
from qstudio.quant.prune.trace import trace_channels

ZEROS_NOTE = (
    "zeros among single pruned weights are stored and computed like other weights: neither the file nor the latency"
    " gains by them; the size without them is that of a format with a bit for each weight and codes for those that are"
    " not zero"
)


@dataclass(frozen=True, eq=False)
class Pruned:
    """A model after pruning."""

    model: LoadedModel
    """Takes the place of the opened one from here on; its hash is its own."""
    single: dict[str, Pruning]
    """Layers in which single weights became zero, and what was asked there."""
    notes: tuple[str, ...] = ()


def wanted_prunings(proto: onnx.ModelProto, recipe: Recipe) -> dict[str, Pruning]:
    """Return what a recipe asks of the layers that can be pruned, by name, in the model's order."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        if node.op_type in PRUNED_OPERATORS and node.domain in ("", "ai.onnx") and node.input[1] in constants:
            pruning = parse_pruning(recipe.settings(node.name).pruning)
            if pruning is not None and pruning.percent > 0:
                found[node.name] = pruning
    return found


def prune_model(
    model: LoadedModel,
    recipe: Recipe,
    samples: Samples | None = None,
    *,
    device: str = "cpu",
    share: float = 1.0,
    ctx: JobContext | None = None,
) -> Pruned:
    """Return a model without what the recipe's prunings take away.

    Filters and channels go first, then single weights of what is left. The result is a prepared model in which
    BatchNormalization is not folded. The same model, recipe and samples give the same bytes: nothing is random.

    Args:
        model: The opened model; not changed.
        recipe: Its prunings.
        samples: Whose calibration samples measure importance; needed by Taylor methods only.
        device: Where gradients are computed.
        share: Of the wanted percentage of single weights that is reached now (iterative pruning); filters go at once.
        ctx: Told the progress; stops between batches.

    Raises:
        UserError: The model does not run, or importance cannot be measured.
        JobCancelled: The run was stopped.
    """
    ctx = ctx or SilentContext()
    prepared = prepare(model.proto, fold_batchnorm=False)
    proto = prepared.proto
    wanted = wanted_prunings(proto, recipe)
    notes: list[str] = _explicit_but_unsuited(proto, recipe, wanted)
    whole = {name: asked for name, asked in wanted.items() if asked.structured}
    single = {name: asked for name, asked in wanted.items() if not asked.structured}
    if whole:
        proto, told = _without_channels(proto, whole, samples, device, ctx)
        notes += told
    if single:
        proto = _with_zeros(proto, single, samples, device, share, ctx)
        notes.append(ZEROS_NOTE)
    digest = hashlib.sha256(f"{model.sha256} pruned".encode())
    for tensor in proto.graph.initializer:
        digest.update(f"{tensor.name}{list(tensor.dims)}".encode())
        digest.update(np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes())
    pruned = LoadedModel(model.path, proto, digest.hexdigest(), model.format)
    return Pruned(pruned, single, (*prepared.notes, *notes))


def _explicit_but_unsuited(proto: onnx.ModelProto, recipe: Recipe, wanted: Mapping[str, Pruning]) -> list[str]:
    """Return a sentence on what is asked by name where there is nothing to prune."""
    asked = [name for name, values in recipe.overrides if parse_pruning(str(dict(values).get("pruning", "none")))]
    lost = [name for name in asked if name not in wanted]
    return (
        [f"there is nothing to prune in {listed(lost)}: only {', '.join(PRUNED_OPERATORS)} are pruned"] if lost else []
    )


def _without_channels(
    proto: onnx.ModelProto, wanted: Mapping[str, Pruning], samples: Samples | None, device: str, ctx: JobContext
) -> tuple[onnx.ModelProto, list[str]]:
    channels = trace_channels(proto)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    axis_of = {layer.weight: layer.output_axis for layer in channels.layers.values()}
    measured = [name for name, asked in wanted.items() if METHODS[asked.method].needs_data and name in channels.layers]
    changes: dict[str, NDArray[np.float64]] = {}
    if measured:

        def of_filters(name: str, change: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(np.moveaxis(change, axis_of[name], 0).reshape(change.shape[axis_of[name]], -1).sum(1))

        names = [channels.layers[name].weight for name in measured]
        changes = _taylor(proto, names, samples, device, ctx, of_filters)

    def score(layer: LayerChannels, asked: Pruning) -> NDArray[np.float64]:
        if METHODS[asked.method].needs_data:
            return changes[layer.weight]
        over_inputs = METHODS[asked.method].over_inputs and not layer.passes
        axis = layer.input_axis if over_inputs else layer.output_axis
        return norms(numpy_helper.to_array(weights[layer.weight]), axis, asked.method)

    groups, notes = channel_groups(channels, wanted, score)
    return remove_channels(proto, channels, least_important(groups)), notes


def _with_zeros(
    proto: onnx.ModelProto,
    wanted: Mapping[str, Pruning],
    samples: Samples | None,
    device: str,
    share: float,
    ctx: JobContext,
) -> onnx.ModelProto:
    node_weight = {node.name: node.input[1] for node in proto.graph.node if node.name in wanted}
    asked: dict[str, Pruning] = {}
    for layer, pruning in wanted.items():
        asked.setdefault(node_weight[layer], pruning)  # layers that share a weight are pruned as the first one asks
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    measured = [name for name, pruning in asked.items() if METHODS[pruning.method].needs_data]
    scores = {name: np.abs(numpy_helper.to_array(tensors[name])) for name in asked if name not in measured}
    if measured:
        scores |= _taylor(proto, measured, samples, device, ctx, lambda _, change: change)
    return zero_weights(proto, weight_masks(scores, asked, share))


def _taylor(
    proto: onnx.ModelProto,
    names: list[str],
    samples: Samples | None,
    device: str,
    ctx: JobContext,
    reduce: Callable[[str, NDArray[np.float64]], NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    if samples is None or not len(samples.calibration_indices):
        raise UserError("Taylor pruning needs samples", "pruning", "Give calibration data")
    network = Network(proto, "", device)
    return taylor_scores(
        network,
        names,
        samples.calibration,
        samples.calibration_indices,
        reduce,
        report=lambda done, total: ctx.report(done, total, "Measuring importance"),
    )
