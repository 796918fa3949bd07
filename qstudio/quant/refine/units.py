"""Cut a network's steps into units that run one after the other: single layers, or blocks between narrow places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from qstudio.quant.executor import Executor, Parameters, Step
from qstudio.quant.network import Network

Round = Callable[[str, Tensor], Tensor]
"""(ONNX tensor, values) -> values with the tensor's quantizer applied, unchanged where it has none."""

FUSED = ("Relu", "Clip")
"""Activations computed in one step with the layer before them."""


@dataclass(frozen=True, eq=False)
class Unit:
    """Steps that run together.

    Values that pass between units are kept as they are before rounding; each unit rounds what it reads. So a unit can
    learn how its own inputs are rounded, and compare its output before it is rounded.

    Attributes:
        steps: In running order, without constants.
        constants: Steps that only fetch a parameter; run whenever the unit runs.
        inputs: Values computed by earlier units.
        outputs: Values that later units or the model's output read.
        weights: Ids of the weight sites of its layers.
        name: Of its last layer with a weight, else of its last step; for progress and notes.
    """

    steps: tuple[Step, ...]
    constants: tuple[Step, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    weights: tuple[str, ...]
    name: str
    tensors: dict[fx.Node, str] = field(default_factory=dict)
    """ONNX names of inputs."""

    def run(
        self,
        executor: Executor,
        values: Mapping[fx.Node, Any],
        parameters: Parameters | None = None,
        rounding: Round | None = None,
    ) -> dict[fx.Node, Any]:
        """Compute the outputs, before rounding.

        Args:
            executor: Runs single steps.
            values: The inputs' values, before rounding.
            parameters: Tensors used instead of initializers.
            rounding: Applied to inputs and to every value inside, not to the outputs that nothing inside reads.
        """
        raw: dict[fx.Node, Any] = {}
        known: dict[fx.Node, Any] = {}
        for step in self.constants:
            known[step.node] = executor.execute(step, {}, parameters)
        for node in self.inputs:
            value = values[node]
            tensor = self.tensors[node]
            known[node] = rounding(tensor, value) if rounding and tensor and isinstance(value, Tensor) else value
        for step in self.steps:
            value = executor.execute(step, known, parameters)
            if step.node in self._outputs:
                raw[step.node] = value
                if step.node not in self._read_inside:
                    continue
            if rounding is not None and step.tensor and isinstance(value, Tensor):
                value = rounding(step.tensor, value)
            known[step.node] = value
        return raw

    def __post_init__(self) -> None:
        object.__setattr__(self, "_outputs", frozenset(self.outputs))
        read = {node for step in self.steps for node in step.node.all_input_nodes}
        object.__setattr__(self, "_read_inside", frozenset(read))

    _outputs: frozenset[fx.Node] = field(init=False, repr=False, default=frozenset())
    _read_inside: frozenset[fx.Node] = field(init=False, repr=False, default=frozenset())


def layer_units(network: Network) -> tuple[Unit, ...]:
    """Return one unit for each layer with a weight, with the Relu or Clip behind it, and for each other step."""
    steps = _computing(network)
    partner = {a.node: b for a, b in _fused_pairs(network, steps)}
    taken = {step.node for step in partner.values()}
    groups = []
    for step in steps:
        if step.node in taken:
            continue
        # A fused activation reads nothing but its layer and constants, so it can run right behind it.
        groups.append((step, partner[step.node]) if step.node in partner else (step,))
    return _units(network, groups)


def block_units(network: Network, most_layers: int, together: int = 1) -> tuple[Unit, ...]:
    """Return blocks: what lies between places where a single tensor carries everything (BRECQ, Li et al., 2021).

    A residual block ends where its branches have joined. Steps between two layers go to the block of the later one.
    A block with more than `most_layers` layers (dense or U-shaped networks) is cut into its layers.

    Args:
        network: The model.
        most_layers: Layers with weights that a block may have.
        together: In a plain chain, this many layers make a block.
    """
    steps = _computing(network)
    fused = {a.node for a, _ in _fused_pairs(network, steps)}
    weighted = _weighted(network)
    last_use = _last_use(steps, network)
    groups: list[tuple[Step, ...]] = []
    current: list[Step] = []
    live: set[fx.Node] = {s.node for s in network.executor.steps if s.node.op == "placeholder"}
    for position, step in enumerate(steps):
        current.append(step)
        live = {node for node in live if last_use.get(node, -1) > position}
        if last_use.get(step.node, -1) > position:
            live.add(step.node)
        narrow = live == {step.node} and step.node not in fused and bool(step.tensor)
        if narrow or position == len(steps) - 1:
            groups.append(tuple(current))
            current = []
    merged = _merged(groups, weighted, together)
    pairs = {a.node: b for a, b in _fused_pairs(network, steps)}
    final: list[tuple[Step, ...]] = []
    for group in merged:
        if sum(step.onnx_node in weighted for step in group) > most_layers:
            behind = {pairs[s.node].node for s in group if s.node in pairs}
            final.extend((s, pairs[s.node]) if s.node in pairs else (s,) for s in group if s.node not in behind)
        else:
            final.append(group)
    return _units(network, final)


def _merged(groups: Sequence[tuple[Step, ...]], weighted: Mapping[str, str], together: int) -> list[tuple[Step, ...]]:
    """Join steps without weights to the group behind them, and single layers in a row up to `together`."""
    joined: list[tuple[Step, ...]] = []
    waiting: tuple[Step, ...] = ()
    for group in groups:
        waiting = (*waiting, *group)
        if any(step.onnx_node in weighted for step in group):
            joined.append(waiting)
            waiting = ()
    if waiting:
        joined.append(waiting)
    result: list[tuple[Step, ...]] = []
    for group in joined:
        count = sum(step.onnx_node in weighted for step in group)
        before = sum(step.onnx_node in weighted for step in result[-1]) if result else together
        if count <= 1 and before + count <= together:
            result[-1] = (*result[-1], *group)
        else:
            result.append(group)
    return result


def _computing(network: Network) -> list[Step]:
    return [step for step in network.executor.steps if step.node.op not in ("placeholder", "get_attr", "output")]


def _weighted(network: Network) -> dict[str, str]:
    """Return ONNX node -> weight site, for layers that own their weight as a module."""
    return {layer.name: layer.weight.id for layer in network.layers if layer.weight is not None}


def _last_use(steps: Sequence[Step], network: Network) -> dict[fx.Node, int]:
    last: dict[fx.Node, int] = {}
    for position, step in enumerate(steps):
        for node in step.node.all_input_nodes:
            last[node] = position
    for node in _output_nodes(network):
        last[node] = len(steps)
    return last


def _output_nodes(network: Network) -> Iterable[fx.Node]:
    return [node for step in network.executor.steps if step.node.op == "output" for node in step.node.all_input_nodes]


def _fused_pairs(network: Network, steps: Sequence[Step]) -> list[tuple[Step, Step]]:
    """Return (layer step, activation step) wherever the tensor between them is never rounded on its own."""
    op_type = {node.name: node.op_type for node in network.description.nodes}
    rounded = {t for site in network.activation_sites for t in site.members}
    outputs = set(_output_nodes(network))
    by_node = {step.node: step for step in steps}
    pairs = []
    for step in steps:
        users = list(step.node.users)
        if len(users) != 1 or step.tensor in rounded or step.node in outputs or users[0] not in by_node:
            continue
        after = by_node[users[0]]
        others = [n for n in after.node.all_input_nodes if n is not step.node and n.op != "get_attr"]
        if op_type.get(after.onnx_node) in FUSED and not others and op_type.get(step.onnx_node) not in FUSED:
            pairs.append((step, after))
    return pairs


def _units(network: Network, groups: Sequence[tuple[Step, ...]]) -> tuple[Unit, ...]:
    """Return units with what each reads and what is read of it."""
    weighted = _weighted(network)
    fetched = {step.node: step for step in network.executor.steps if step.node.op == "get_attr"}
    tensor_of = {step.node: step.tensor for step in network.executor.steps}
    home = {step.node: index for index, group in enumerate(groups) for step in group}
    read_outside: set[fx.Node] = set(_output_nodes(network))
    for index, group in enumerate(groups):
        for step in group:
            read_outside.update(n for n in step.node.all_input_nodes if home.get(n, index) != index)
    units = []
    for group in groups:
        inside = {step.node for step in group}
        read = list(dict.fromkeys(n for step in group for n in step.node.all_input_nodes if n not in inside))
        sites = tuple(dict.fromkeys(weighted[s.onnx_node] for s in group if s.onnx_node in weighted))
        layers = [step.onnx_node for step in group if step.onnx_node in weighted]
        name = layers[-1] if layers else next((s.onnx_node for s in reversed(group) if s.onnx_node), "")
        inputs = tuple(n for n in read if n not in fetched)
        units.append(
            Unit(
                group,
                tuple(fetched[n] for n in read if n in fetched),
                inputs,
                tuple(step.node for step in group if step.node in read_outside),
                sites,
                name,
                {n: tensor_of.get(n, "") for n in inputs},
            )
        )
    return tuple(units)
