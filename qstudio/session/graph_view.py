"""A model as the graph shows it: layers or all operators, repeated blocks folded into one node. No Qt."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass

from qstudio.core.graph_blocks import BlockNode, block_steps
from qstudio.core.model_info import LayerInfo, ModelInfo

PASSING = frozenset({"Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})
"""Operators that pass every value on unchanged: edges go through them."""
INPUT = "Input"
BLOCK = "Block"
"""Type of an item that stands for a block."""


@dataclass(frozen=True)
class GraphItem:
    """One node of the drawing."""

    key: str
    """Name of the layer, operator or block; unique within a view."""
    title: str
    type: str
    """ONNX operator, `INPUT` or `BLOCK`."""
    detail: str
    """One line for people: "3x3, 32 -> 64, s2"."""
    layers: tuple[str, ...]
    """Names of the layers it stands for, in topological order; empty for an operator that is no layer."""
    block: str = ""
    """Key of the block it belongs to or stands for."""
    nodes: int = 1
    """How many nodes it stands for."""


@dataclass(frozen=True)
class GraphBlock:
    """A repeated block."""

    key: str
    title: str
    like: int
    """How many blocks are like this one, itself included."""
    members: tuple[str, ...]
    """Keys of its items when it is open."""
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GraphView:
    """Nodes and edges of a drawing."""

    items: tuple[GraphItem, ...]
    """In the order in which they run; a closed block stands where its last member ran."""
    edges: tuple[tuple[int, int], ...]
    """(source, target) as positions in `items`, each pair once."""
    carriers: tuple[str, ...]
    """For each edge the layer whose output it carries; empty where there is none."""
    blocks: tuple[GraphBlock, ...]

    def block(self, key: str) -> GraphBlock | None:
        """Return a block by its key; None for an empty or unknown one."""
        return next((block for block in self.blocks if block.key == key), None)


def view_of(model: ModelInfo, operators: bool = False) -> GraphView:
    """Return a model with every block open.

    Args:
        model: What is open.
        operators: Show every operator that computes something, else the layers only.
    """
    steps = view_steps(model, operators)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: GraphView = stop.value
            return found


def view_steps(model: ModelInfo, operators: bool = False) -> Generator[None, None, GraphView]:
    """Make a view in short steps, so that a window stays alive meanwhile; see `view_of`."""
    items, links, weights = _operators(model) if operators else _layers(model)
    yield
    place = {item.key: number for number, item in enumerate(items)}
    carrier_of: dict[str, str] = {}
    edges: dict[tuple[int, int], str] = {}
    for item in items:
        sources = links[item.key]
        carriers = [carrier_of.get(source, "") for source in sources]
        carrier_of[item.key] = item.layers[0] if item.layers else next(filter(None, carriers), "")
        for source, carrier in zip(sources, carriers, strict=True):
            if source in place:
                edges.setdefault((place[source], place[item.key]), carrier)
    nodes = [
        BlockNode(item.key, f"{item.type} {item.detail.partition(',')[0]}", weights.get(item.key, "")) for item in items
    ]
    yield
    found = yield from block_steps(nodes, tuple(edges))
    like: dict[str, int] = {}
    for block in found:
        like[block.pattern] = like.get(block.pattern, 0) + 1
    blocks = []
    block_of: dict[int, str] = {}
    for block in found:
        key = f"block {block.title}"
        block_of.update(dict.fromkeys(block.members, key))
        layers = tuple(name for member in block.members for name in items[member].layers)
        keys = tuple(items[member].key for member in block.members)
        blocks.append(GraphBlock(key, block.title, like[block.pattern], keys, layers))
    yield
    named = tuple(
        GraphItem(item.key, item.title, item.type, item.detail, item.layers, block_of.get(number, ""))
        for number, item in enumerate(items)
    )
    return GraphView(named, tuple(edges), tuple(edges.values()), tuple(blocks))


def fold(view: GraphView, closed: Collection[str]) -> GraphView:
    """Return a view in which each block named in `closed` is one item; `view` has every block open."""
    blocks = {block.key: block for block in view.blocks if block.key in closed}
    if not blocks:
        return view
    items: list[GraphItem] = []
    place: list[int] = []
    first: dict[str, int] = {}
    last = {item.block: number for number, item in enumerate(view.items)}
    # A block takes the place of its last member: what feeds any of its members then stands before it.
    for number, item in enumerate(view.items):
        block = blocks.get(item.block)
        if block is None:
            place.append(len(items))
            items.append(item)
        elif last[item.block] == number:
            first[item.block] = len(items)
            place.append(-1)
            detail = f"{len(block.members)} nodes"
            items.append(GraphItem(block.key, block.title, BLOCK, detail, block.layers, block.key, len(block.members)))
        else:
            place.append(-1)
    for number, item in enumerate(view.items):
        if place[number] < 0:
            place[number] = first[item.block]
    edges: dict[tuple[int, int], str] = {}
    for (source, target), carrier in zip(view.edges, view.carriers, strict=True):
        if place[source] != place[target]:
            edges.setdefault((place[source], place[target]), carrier)
    return GraphView(tuple(items), tuple(edges), tuple(edges.values()), view.blocks)


Parts = tuple[list[GraphItem], dict[str, list[str]], dict[str, str]]
"""Items, keys of what feeds each, names of weight tensors."""


def _item(layer: LayerInfo) -> GraphItem:
    return GraphItem(layer.name, layer.name, layer.op_type, layer.title, (layer.name,))


def _layers(model: ModelInfo) -> Parts:
    items = [_item(layer) for layer in model.layers]
    links = {layer.name: list(layer.inputs) for layer in model.layers}
    weights = {layer.name: layer.weight.id for layer in model.layers if layer.weight is not None}
    return items, links, weights


def _operators(model: ModelInfo) -> Parts:
    layers = {layer.name: layer for layer in model.layers}
    items: list[GraphItem] = []
    links: dict[str, list[str]] = {}
    source: dict[str, str] = {}
    for name in model.graph.inputs:
        layer = layers.get(name)
        info = model.graph.tensors.get(name)
        items.append(_item(layer) if layer else GraphItem(name, name, INPUT, info.shape_text() if info else "", ()))
        links[name] = []
        source[name] = name
    for node in model.graph.nodes:
        fed = list(dict.fromkeys(source[tensor] for tensor in node.inputs if tensor in source))
        if node.op_type in PASSING and node.name not in layers and len(fed) <= 1:
            if fed:
                source.update((tensor, fed[0]) for tensor in node.outputs if tensor)
            continue
        layer = layers.get(node.name)
        items.append(_item(layer) if layer else GraphItem(node.name, node.name, node.op_type, node.summary, ()))
        links[node.name] = fed
        source.update((tensor, node.name) for tensor in node.outputs if tensor)
    weights = {layer.name: layer.weight.id for layer in model.layers if layer.weight is not None}
    return items, links, weights
