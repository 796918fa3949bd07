"""Choose what goes: which channels, which single weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.pruning import METHODS, Pruning
from qstudio.quant.prune.channels import ChannelMap, Labels, LayerChannels

LEAST_KEPT = 0.1
"""Share of a layer's filters that stays when layers compete: a layer that lets nothing through ends a network."""

Score = Callable[[LayerChannels, Pruning], NDArray[np.float64]]
"""Returns the importance of each filter (or of each input) of a layer."""


@dataclass(frozen=True, eq=False)
class Group:
    """Channels of the same layers, which are ranked among themselves."""

    asked: tuple[str, ...]
    """Layers whose recipe asks for it, in the model's order."""
    pruning: Pruning
    """The one with the smallest share."""
    channels: NDArray[np.int64]
    """Classes."""
    scores: NDArray[np.float64]


def channel_groups(channels: ChannelMap, wanted: Mapping[str, Pruning], score: Score) -> tuple[list[Group], list[str]]:
    """Return the groups of channels that may go, and a sentence for each layer that is left whole.

    Filters go where all the layers that make the same channels (a sum's operands) ask for it; inputs of a layer go with
    the filters that make them, whatever is asked there. Coupled layers lose the smallest share among them.

    Args:
        channels: Of the model.
        wanted: What is asked, by layer; structured methods only.
        score: Importance.
    """
    makers: dict[int, list[str]] = defaultdict(list)
    asks: dict[int, list[str]] = defaultdict(list)
    for layer in channels.layers.values():
        for root in dict.fromkeys(channels.roots(layer.outputs)):
            if not layer.passes:
                makers[root].append(layer.name)
        pruning = wanted.get(layer.name)
        if pruning is not None:
            labels = asked_labels(layer, pruning)
            for root in dict.fromkeys(() if labels is None else channels.roots(labels)):
                asks[root].append(layer.name)
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    missing: dict[str, list[str]] = {}
    for root, layers in asks.items():
        if channels.obstacle(root):
            continue
        over_inputs = any(METHODS[wanted[name].method].over_inputs for name in layers)
        others = [] if over_inputs else [name for name in makers[root] if name not in layers]
        if others:
            missing.update(dict.fromkeys(layers, others))
            continue
        groups[tuple(layers)].append(root)
    found = [_group(channels, wanted, layers, roots, score) for layers, roots in groups.items()]
    reached = {name for layers in groups for name in layers}
    notes = [_left_whole(channels, wanted, name, missing) for name in wanted if name not in reached]
    return found, [*notes, *_coupled(channels, found, makers)]


def asked_labels(layer: LayerChannels, pruning: Pruning) -> Labels | None:
    """Return the channels that a pruning of a layer is about: its inputs or its filters."""
    return layer.inputs if METHODS[pruning.method].over_inputs and not layer.passes else layer.outputs


def _group(
    channels: ChannelMap, wanted: Mapping[str, Pruning], layers: tuple[str, ...], roots: list[int], score: Score
) -> Group:
    """Return a group with its channels' scores: the mean over the layers that ask, relative where methods differ."""
    mixed = len({wanted[name].method.partition("_")[0] for name in layers}) > 1
    total = np.zeros(len(roots))
    for name in layers:
        layer, pruning = channels.layers[name], wanted[name]
        labels = asked_labels(layer, pruning)
        assert labels is not None, "a layer of unknown inputs asks for none of them"
        values = score(layer, pruning)
        values = values / max(float(values.mean()), 1e-300) if mixed else values
        own, place = np.unique(channels.roots(labels), return_inverse=True)
        # After Flatten a channel has several places: their mean counts.
        per_class = np.bincount(place, values) / np.bincount(place)
        total += per_class[np.searchsorted(own, roots)]
    pruning = min((wanted[name] for name in layers), key=lambda asked: asked.percent)
    return Group(layers, pruning, np.array(roots, np.int64), total / len(layers))


def _left_whole(
    channels: ChannelMap, wanted: Mapping[str, Pruning], name: str, missing: Mapping[str, list[str]]
) -> str:
    layer = channels.layers.get(name)
    if layer is None:
        return f"{name} was not pruned: the channels that it reads cannot be followed"
    labels = asked_labels(layer, wanted[name])
    what = "inputs" if METHODS[wanted[name].method].over_inputs else "filters"
    if labels is None:
        return f"{name} keeps its inputs: no layer of the model makes them one by one"
    if name in missing:
        return (
            f"{name} keeps its filters: they go together with those of {listed(missing[name])}, "
            "where no pruning of filters is chosen"
        )
    reason = next((channels.obstacle(label) for label in labels if channels.obstacle(label)), "")
    return f"{name} keeps its {what}: {reason}"


def _coupled(channels: ChannelMap, groups: Sequence[Group], makers: Mapping[int, list[str]]) -> list[str]:
    sets = dict.fromkeys(tuple(makers[int(group.channels[0])]) for group in groups if group.channels.size)
    return [f"filters of {listed(names)} go together: their outputs are combined" for names in sets if len(names) > 1]


def listed(names: Sequence[str]) -> str:
    """Return names in one line, of many the first four."""
    more = len(names) - 4
    return ", ".join(names[:4]) + (f" and {more} more" if more > 0 else "")


def least_important(groups: Sequence[Group]) -> list[int]:
    """Return the classes of channels that go.

    By itself a group loses the nearest whole number to its share, but keeps one. Groups that ask for the same share of
    all their layers are ranked together; each then keeps a tenth.
    """
    gone: list[int] = []
    pools: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if group.pruning.across_layers:
            pools[group.pruning.text()].append(group)
            continue
        count = min(nearest(len(group.channels) * group.pruning.percent / 100), len(group.channels) - 1)
        gone.extend(int(c) for c in group.channels[np.argsort(group.scores, kind="stable")[:count]])
    for pool in pools.values():
        left = {id(group): len(group.channels) - max(1, nearest(LEAST_KEPT * len(group.channels))) for group in pool}
        count = nearest(sum(len(group.channels) for group in pool) * pool[0].pruning.percent / 100)
        ranked = sorted((float(s), n, i) for n, group in enumerate(pool) for i, s in enumerate(group.scores))
        for _, number, place in ranked:
            if count and left[id(pool[number])]:
                gone.append(int(pool[number].channels[place]))
                left[id(pool[number])] -= 1
                count -= 1
    return sorted(gone)


def weight_masks(
    scores: Mapping[str, NDArray[np.floating]], wanted: Mapping[str, Pruning], share: float = 1.0
) -> dict[str, NDArray[np.bool_]]:
    """Return which single weights stay, by initializer.

    Args:
        scores: Importance of every weight, by initializer. Of equals the earlier goes first.
        wanted: What is asked, by initializer.
        share: Of the wanted percentage that is reached now (iterative pruning).
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    pools: dict[str, list[str]] = defaultdict(list)
    for name, pruning in wanted.items():
        pools[pruning.text() if pruning.across_layers else f"{pruning.text()} {name}"].append(name)
    for names in pools.values():
        flat = np.concatenate([np.asarray(scores[name], np.float64).ravel() for name in names])
        count = min(nearest(flat.size * wanted[names[0]].percent / 100 * share), flat.size - 1)
        stays = np.ones(flat.size, bool)
        stays[np.argsort(flat, kind="stable")[:count]] = False
        start = 0
        for name in names:
            size, shape = scores[name].size, scores[name].shape
            masks[name] = stays[start : start + size].reshape(shape)
            start += size
    return masks


def nearest(value: float) -> int:
    """Return the nearest whole number, halves up."""
    return int(np.floor(value + 0.5))
