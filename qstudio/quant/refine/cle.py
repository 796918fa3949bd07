"""Cross-layer equalization: move scale between the channels of neighbouring layers, so that one step fits them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from qstudio.quant.evaluate import feeds
from qstudio.quant.network import Network
from qstudio.quant.refine.channels import WeightLayout
from qstudio.quant.refine.edited import remade, with_values
from qstudio.quant.refine.equalize_pairs import Pair, equalizable_pairs
from qstudio.quant.refine.task import Task

Array = NDArray[np.float64]

SWEEPS = 50
"""Times all pairs are gone through at most; chains of three are done to 0.1 % in about 15."""

HEADROOM = 0.1
"""Share of a channel's calibration range by which it may leave that range and still not meet a Clip's bound."""

_SETTLED = 1e-3
_LARGEST_FACTOR = 1e4
"""Of one pair in one sweep; float32 keeps its precision far beyond."""


@dataclass(frozen=True, eq=False)
class Preactivations:
    """What was seen of a layer's output before its activation, per channel over the calibration samples."""

    low: Array
    high: Array
    mean: Array
    deviation: Array
    above: Mapping[float, float]
    """Share of all values above a bound, for the bounds of Clips."""


def cle(network: Network, task: Task) -> Network:
    """Equalize the ranges of weights across layers, and absorb high biases into the layer behind.

    Nagel et al., Data-Free Quantization, 2019: for outputs i of the first layer with range r1 and inputs i of the
    second with range r2 (largest magnitudes), s = sqrt(r1 r2) / r2; the first is divided by s, the second multiplied.
    Pairs are gone through until nothing moves, which makes all ranges of a conv-depthwise-pointwise chain equal. The
    function stays the same through ReLU, PReLU, LeakyReLU, pooling and nothing.

    A Clip is made a Relu where at most the given share of calibration values lies above its bound (none by default:
    then the network is the same on all of them). Where more do, the Clip stays, and only channels whose values stay
    below the bound when scaled are scaled.

    Then c = max(0, mean - 3 deviations) is taken from each bias in front of a Relu and, through the weights behind it,
    added to the next; only where the next layer does not pad, as a padded zero would have to become -c.

    Args:
        network: With BatchNormalization folded.
        task: Settings clip_share (percent) and absorb (0 or 1).

    Returns:
        The equalized network; the given one where there is nothing to do.

    Raises:
        JobCancelled: The run was stopped.
    """
    pairs = equalizable_pairs(network)
    if not pairs:
        return remade(network, network.proto, "Cross-layer equalization found no layers in a row.")
    seen = _observe(network, task, {pair.first.name for pair in pairs}, pairs)
    freed = {
        pair.clip
        for pair in pairs
        if pair.limit is not None
        and pair.limit[0] == 0.0
        and 100.0 * seen[pair.first.name].above.get(pair.limit[1], 1.0) <= task.settings["clip_share"]
    }
    biases = {
        layer.name: layer.bias.id for layer in network.layers if layer.weight is not None and layer.bias is not None
    }
    names = {node.name: node.inputs[1] for pair in pairs for node in (pair.first, pair.second)}
    weights = {layer: np.asarray(network.value(name), np.float64) for layer, name in names.items()}
    offsets = {layer: np.asarray(network.value(biases[layer]), np.float64) for layer in names if layer in biases}
    factors = {pair.first.name: np.ones(len(seen[pair.first.name].low)) for pair in pairs}
    for sweep in range(SWEEPS):
        task.ctx.report(sweep, SWEEPS, "Cross-layer equalization")
        moved = 0.0
        for pair in pairs:
            bounded = pair.limit if pair.clip not in freed else None
            s = _factors(pair, weights, factors[pair.first.name], seen[pair.first.name], bounded)
            moved = max(moved, float(np.abs(np.log(s)).max()))
            factors[pair.first.name] *= s
            weights[pair.first.name] = WeightLayout.of(pair.first).scale_outputs(weights[pair.first.name], 1.0 / s)
            if pair.first.name in offsets:
                offsets[pair.first.name] = offsets[pair.first.name] / s
            repeated = np.repeat(s, pair.repeat)
            weights[pair.second.name] = WeightLayout.of(pair.second).scale_inputs(weights[pair.second.name], repeated)
        if moved < _SETTLED:
            break
    absorbed = 0
    if task.settings["absorb"]:
        for pair in pairs:
            absorbed += _absorb(pair, weights, offsets, factors, seen, pair.clip in freed)
    values = {names[layer]: weight for layer, weight in weights.items()}
    values |= {biases[layer]: offset for layer, offset in offsets.items()}
    note = f"Cross-layer equalization rescaled {len(pairs)} pairs of layers"
    note += f", made {len(freed)} Clips Relus" if freed else ""
    note += f", moved {absorbed} high biases" if absorbed else ""
    return _with_relus(with_values(network, values), freed, f"{note}.")


def _factors(
    pair: Pair,
    weights: Mapping[str, Array],
    so_far: Array,
    seen: Preactivations,
    limit: tuple[float, float] | None,
) -> Array:
    """Return s for each channel: outputs of the first layer are divided by it."""
    first = np.abs(WeightLayout.of(pair.first).outputs_first(weights[pair.first.name])).max(axis=1)
    columns = np.abs(WeightLayout.of(pair.second).inputs_first(weights[pair.second.name])).max(axis=1)
    second = columns.reshape(len(first), pair.repeat).max(axis=1)
    usable = (first > 0) & (second > 0)
    s = np.sqrt(np.where(usable, first, 1.0) / np.where(usable, second, 1.0))
    s = np.where(usable, np.clip(s, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR), 1.0)
    if limit is None:
        return np.asarray(s)
    # Under a Clip the scaled values have to stay inside it; a channel that reaches the bound cannot move at all.
    margin = HEADROOM * (seen.high - seen.low)
    high, low = (seen.high + margin) / so_far, (seen.low - margin) / so_far
    fits = (high < limit[1]) & ((low > limit[0]) | (limit[0] == 0.0))
    least = np.maximum(np.maximum(high, 0.0) / limit[1] if np.isfinite(limit[1]) else 0.0, 0.0)
    if limit[0] < 0.0 and np.isfinite(limit[0]):
        least = np.maximum(least, np.minimum(low, 0.0) / limit[0])
    return np.where(fits, np.maximum(s, least), 1.0)


def _absorb(
    pair: Pair,
    weights: Mapping[str, Array],
    offsets: dict[str, Array],
    factors: Mapping[str, Array],
    seen: Mapping[str, Preactivations],
    freed: bool,
) -> int:
    """Move high biases of a pair in place; return how many channels were moved."""
    first, second = pair.first.name, pair.second.name
    through = [op for op in pair.between if op not in ("Dropout", "Flatten", "GlobalAveragePool")]
    relu = through == ["Relu"] or (through == ["Clip"] and freed)
    if not relu or pair.padded or first not in offsets or second not in offsets:
        return 0
    known = seen[first]
    excess = np.maximum(known.mean - 3.0 * known.deviation, 0.0) / factors[first]
    if not excess.any():
        return 0
    offsets[first] = offsets[first] - excess
    offsets[second] = offsets[second] + WeightLayout.of(pair.second).input_sums(
        weights[second], np.repeat(excess, pair.repeat)
    )
    return int(np.count_nonzero(excess))


def _observe(network: Network, task: Task, layers: set[str], pairs: tuple[Pair, ...]) -> dict[str, Preactivations]:
    """Return what the float network's layers put out before their activation."""
    tensor_of = {pair.first.outputs[0]: pair.first for pair in pairs}
    bounds = {pair.first.outputs[0]: pair.limit[1] for pair in pairs if pair.limit is not None}
    sums: dict[str, list[Array]] = {}
    counts: dict[str, float] = {}
    above: dict[str, float] = {}
    done = 0
    with network.executor.evaluating():
        for batch, inputs, _ in feeds(network, task.split, task.indices):
            task.ctx.report(done, 2 * len(task.indices), "Cross-layer equalization: looking at activations")
            samples = len(batch.indices)

            def look(tensor: str, values: torch.Tensor, samples: int = samples) -> None:
                node = tensor_of.get(tensor)
                if node is None:
                    return
                rows = values[:samples]
                axis = 1 if "Conv" in node.op_type else rows.dim() - 1
                flat = rows.movedim(axis, 0).flatten(1)
                wide = flat.double()
                found = [
                    flat.amin(1).double(), flat.amax(1).double(), wide.sum(1), wide.square().sum(1),
                ]  # fmt: skip
                low, high, total, square = (v.cpu().numpy() for v in found)
                counts[tensor] = counts.get(tensor, 0.0) + flat.shape[1]
                if tensor in bounds:
                    above[tensor] = above.get(tensor, 0.0) + float((flat > bounds[tensor]).sum())
                if tensor not in sums:
                    sums[tensor] = [low, high, total, square]
                else:
                    known = sums[tensor]
                    known[0], known[1] = np.minimum(known[0], low), np.maximum(known[1], high)
                    known[2], known[3] = known[2] + total, known[3] + square

            network.executor.run(inputs, observe=look)
            done += samples
    result = {}
    for tensor, (low, high, total, square) in sums.items():
        count = counts[tensor]
        mean = total / count
        deviation = np.sqrt(np.maximum(square / count - mean**2, 0.0))
        share = above.get(tensor, 0.0) / (count * len(low))
        result[tensor_of[tensor].name] = Preactivations(
            low, high, mean, deviation, {bounds[tensor]: share} if tensor in bounds else {}
        )
    return result


def _with_relus(network: Network, clips: set[str], note: str) -> Network:
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    for node in proto.graph.node:
        if node.name in clips:
            fresh = onnx.helper.make_node("Relu", [node.input[0]], [node.output[0]], node.name)
            node.CopyFrom(fresh)
    read = {name for node in proto.graph.node for name in node.input}
    unread = [t for t in proto.graph.initializer if t.name not in read]
    for tensor in unread:
        proto.graph.initializer.remove(tensor)
    return remade(network, proto, note)
