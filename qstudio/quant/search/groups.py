"""Which layers share their bits: one choice for each group of weights and each group of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from qstudio.backends.qdq import layer_inputs
from qstudio.core.errors import UserError
from qstudio.core.search_settings import SearchSettings
from qstudio.quant.network import Network

MEETING = ("Add", "Sub", "Mul", "Div", "Concat", "MatMul", "Gemm", "Where")
"""Operators that read more than one activation: integer kernels want them at one width."""

JOINING = ("Add", "Concat")
"""Operators whose branches HAWQ-V3 gives the same weight bits."""


@dataclass(frozen=True)
class Unit:
    """Sites that share their bits."""

    sites: tuple[str, ...]
    layers: tuple[str, ...]
    """Whose recipe fields say the bits: for weights every layer that uses one, for activations the owners."""
    why: tuple[str, ...] = ()
    """Why they share them, in words; empty for a single site."""


@dataclass(frozen=True)
class Coupling:
    """All units of a network, in topological order."""

    weights: tuple[Unit, ...]
    activations: tuple[Unit, ...]
    reads: Mapping[str, tuple[str, ...]]
    """Layer -> ids of the activation sites it reads; tensors that stay float are not among them."""

    def activation_unit(self, site: str) -> int:
        """Return the number of the unit a site is in (KeyError when there is none)."""
        for number, unit in enumerate(self.activations):
            if site in unit.sites:
                return number
        raise KeyError(site)


def couple(network: Network, settings: SearchSettings) -> Coupling:
    """Return the units of a network.

    Weights of one name share their bits, and so do tensors with one encoding. The rest is as the settings say; what
    layers of a shared weight or of one group read shares its bits too, so that they remain one choice.

    Raises:
        UserError: A group that is asked for matches no layer.
    """
    layers = network.layers
    owners = {site.id: site.layer for site in network.activation_sites}
    site_of = {member: site.id for site in network.activation_sites for member in site.members}
    weights = _Union(layer.weight.id for layer in layers if layer.weight is not None)
    tensors = _Union(owners)
    users: dict[str, list[str]] = {}
    for layer in layers:
        if layer.weight is not None:
            users.setdefault(layer.weight.id, []).append(layer.name)
    nodes = {node.name: node for node in network.description.nodes}
    first = layer_inputs(network.proto, layers)
    reads = {}
    for layer in layers:
        node = nodes.get(layer.name)
        sites = [site_of[name] for name in node.inputs if name in site_of] if node is not None else []
        reads[layer.name] = (first[layer.name],) if layer.name in first else tuple(dict.fromkeys(sites))
    if settings.couple != "none":
        for node in network.description.nodes:
            if node.op_type in MEETING and not node.domain:
                tensors.join([site_of[name] for name in node.inputs if name in site_of], f"{node.name} reads both")
                if settings.couple == "both" and node.op_type in JOINING:
                    weights.join(_branch_weights(node.inputs, network), f"their branches meet in {node.name}")
    for asked in settings.groups:
        named = [layer for layer in layers if matches(layer.name, asked)]
        if not named:
            raise UserError(f"no layer matches {', '.join(asked)}", "group", "Name layers of the model, or globs")
        weights.join([layer.weight.id for layer in named if layer.weight is not None], "asked for")
        tensors.join([layer.activation.id for layer in named if layer.activation is not None], "asked for")
    found = []
    for part, why in weights.parts():
        sharing = tuple(f"one weight, {site}, serves them" for site in part if len(users[site]) > 1)
        found.append(Unit(part, tuple(n for site in part for n in users[site]), (*sharing, *why)))
    if len(settings.activation_bits) > 1:
        for unit in found:
            read = [site for name in unit.layers for site in reads[name]]
            tensors.join(read, f"read by {', '.join(unit.layers[:3])}, whose weights share their bits")
    activations = tuple(Unit(part, tuple(owners[site] for site in part), why) for part, why in tensors.parts())
    return Coupling(tuple(found), activations, reads)


def _branch_weights(tensors: Sequence[str], network: Network) -> list[str]:
    """Return the weights behind these tensors, through operators that read one tensor and no weight."""
    weight = {layer.name: layer.weight.id for layer in network.layers if layer.weight is not None}
    producer = {name: node for node in network.description.nodes for name in node.outputs}
    constants = set(network.description.initializers)
    found = []
    for tensor in tensors:
        node = producer.get(tensor)
        while node is not None and node.name not in weight:
            data = [name for name in node.inputs if name and name not in constants]
            node = producer.get(data[0]) if len(data) == 1 else None
        if node is not None:
            found.append(weight[node.name])
    return found


def matches(name: str, asked: Iterable[str]) -> bool:
    """Return whether a layer is one of the names or matches one of the globs."""
    return any(name == text or fnmatchcase(name, text) for text in asked)


def chosen_units(
    units: Sequence[Unit], kept: Sequence[str], can: Callable[[Unit], bool]
) -> tuple[tuple[int, Unit], ...]:
    """Return the units that are free: none of their layers is kept, and `can` says that widths make a difference."""
    return tuple(
        (number, unit)
        for number, unit in enumerate(units)
        if not any(matches(layer, kept) for layer in unit.layers) and can(unit)
    )


class _Union:
    """Sets of names that are joined step by step (union-find), listed in their first order."""

    def __init__(self, names: Iterable[str]) -> None:
        self.parent = {name: name for name in names}
        self._whys: list[tuple[str, str]] = []
        """(a name of the set, why it was joined)."""

    def find(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def join(self, names: Iterable[str], why: str) -> None:
        roots = list(dict.fromkeys(self.find(name) for name in names))
        for root in roots[1:]:
            self.parent[root] = roots[0]
        if len(roots) > 1:
            self._whys.append((roots[0], why))

    def parts(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return (names, why they were joined) of each set."""
        found: dict[str, list[str]] = {}
        for name in self.parent:
            found.setdefault(self.find(name), []).append(name)
        whys: dict[str, list[str]] = {}
        for name, why in self._whys:
            whys.setdefault(self.find(name), []).append(why)
        return [(tuple(part), tuple(dict.fromkeys(whys.get(root, ())))) for root, part in found.items()]
