"""Repeated blocks are found by names, by weights' names, and by what repeats; folding them leaves no cycle."""

from __future__ import annotations

from dataclasses import replace

from session_fakes import layer

from qstudio.core.graph_blocks import BlockNode, find_blocks, tokens
from qstudio.core.graph_layout import topological_order
from qstudio.core.graph_types import GraphDescription, GraphNode, TensorInfo
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.session.graph_view import BLOCK, GraphView, fold, view_of


def titles(nodes: list[BlockNode], edges: list[tuple[int, int]]) -> dict[str, list[str]]:
    return {block.title: [nodes[member].name for member in block.members] for block in find_blocks(nodes, edges)}


def line(*nodes: BlockNode) -> tuple[list[BlockNode], list[tuple[int, int]]]:
    return list(nodes), [(place, place + 1) for place in range(len(nodes) - 1)]


def test_names_are_read_as_exporters_write_them() -> None:
    assert tokens("/layer1/layer1.0/conv1/Conv") == ("layer1", "0", "conv1", "Conv")
    assert tokens("layer1.0.conv1.weight") == ("layer1", "0", "conv1", "weight")
    assert tokens("Conv_12") == ("Conv_12",)


def test_blocks_are_told_by_node_names() -> None:
    names = ["stem.conv", "blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b", "fc"]
    found = titles(*line(*(BlockNode(name, "Conv") for name in names)))
    assert found == {"blocks.0": ["blocks.0.a", "blocks.0.b"], "blocks.1": ["blocks.1.a", "blocks.1.b"]}


def test_blocks_are_told_by_weights_and_take_the_add_at_their_end_but_not_what_follows() -> None:
    nodes, edges = [BlockNode("x", "Input"), BlockNode("Conv_0", "Conv", "conv1.weight")], [(0, 1)]
    last = 1
    for number in range(4):
        scope = f"layer{1 + number // 2}.{number % 2}"
        first = len(nodes)
        nodes += [
            BlockNode(f"Conv_{first}", "Conv", f"{scope}.conv1.weight"),
            BlockNode(f"Conv_{first + 1}", "Conv", f"{scope}.conv2.weight"),
            BlockNode(f"Add_{number}", "Add"),
        ]
        edges += [(last, first), (first, first + 1), (first + 1, first + 2), (last, first + 2)]
        last = first + 2
    nodes += [BlockNode("Pool", "GlobalAveragePool"), BlockNode("Gemm_9", "Gemm", "fc.weight")]
    edges += [(last, last + 1), (last + 1, last + 2)]
    found = titles(nodes, edges)
    assert list(found) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    assert found["layer2.1"] == ["Conv_11", "Conv_12", "Add_3"]


def test_the_inner_of_nested_blocks_are_taken_where_they_hold_nearly_everything() -> None:
    names = [f"layers.{stage}.blocks.{block}.{part}" for stage in (0, 1) for block in (0, 1) for part in ("q", "k")]
    found = titles(*line(*(BlockNode(name, "MatMul") for name in ["embed", *names, "head"])))
    assert list(found) == [f"layers.{stage}.blocks.{block}" for stage in (0, 1) for block in (0, 1)]


def test_a_pattern_that_repeats_is_a_block_where_names_tell_nothing() -> None:
    kinds = ["Conv", *("Conv 3x3", "Conv 1x1", "Add") * 4, "Gemm"]
    found = titles(*line(*(BlockNode(f"n{number}", kind) for number, kind in enumerate(kinds))))
    assert list(found) == ["repeat 1", "repeat 2", "repeat 3", "repeat 4"]
    assert found["repeat 2"] == ["n4", "n5", "n6"]
    assert not titles(*line(*(BlockNode(f"n{number}", "Conv") for number in range(9)))), "a chain of equals is none"


def test_a_block_that_a_path_leaves_and_enters_again_is_no_block() -> None:
    names = ["b.0.x", "other", "b.0.y", "b.1.x", "b.1.y", "end.conv"]
    nodes = [BlockNode(name, "Conv", "w.weight" if name == "other" else "") for name in names]
    found = titles(nodes, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)])
    assert list(found) == ["b.1"]


# ---- the view


def make_model(*layers: LayerInfo, graph: GraphDescription | None = None) -> ModelInfo:
    graph = graph or GraphDescription("g", 17, (), {}, (), ("x",), ("y",))
    return ModelInfo("m", "m.onnx", "onnx", "m", 17, layers, graph, ("x",), ("y",), (None, 4), 0, 0)


def edges_by_name(view: GraphView) -> set[tuple[str, str]]:
    return {(view.items[source].key, view.items[target].key) for source, target in view.edges}


def test_folded_blocks_are_one_item_and_the_rest_keeps_its_edges() -> None:
    names = ["x", "s.a", "blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b", "fc"]
    layers = [replace(layer(name), inputs=(names[place - 1],) if place else ()) for place, name in enumerate(names)]
    layers[5] = replace(layers[5], inputs=("blocks.1.a", "s.a"))
    view = view_of(make_model(*layers))
    assert [block.title for block in view.blocks] == ["blocks.0", "blocks.1"]
    assert {block.like for block in view.blocks} == {2}
    assert fold(view, ()) is view
    folded = fold(view, ["block blocks.1"])
    assert [item.title for item in folded.items] == ["x", "s.a", "blocks.0.a", "blocks.0.b", "blocks.1", "fc"]
    block = folded.items[4]
    assert (block.type, block.nodes, block.layers) == (BLOCK, 2, ("blocks.1.a", "blocks.1.b"))
    assert edges_by_name(folded) == {
        ("x", "s.a"), ("s.a", "blocks.0.a"), ("blocks.0.a", "blocks.0.b"), ("blocks.0.b", "block blocks.1"),
        ("s.a", "block blocks.1"), ("block blocks.1", "fc"),
    }  # fmt: skip
    assert folded.carriers[folded.edges.index((4, 5))] == "blocks.1.b", "an edge carries what really runs along it"
    both = fold(view, [block.key for block in view.blocks])
    topological_order(len(both.items), both.edges)


def test_all_operators_are_shown_but_those_that_only_pass_values_on() -> None:
    def node(name: str, op_type: str, source: str, target: str) -> GraphNode:
        return GraphNode(name, op_type, "", (source,), (target,), "", (), 0, 0)

    nodes = (
        node("conv", "Conv", "x", "t1"),
        node("relu", "Relu", "t1", "t2"),
        node("flat", "Flatten", "t2", "t3"),
        node("fc", "Gemm", "t3", "y"),
    )
    graph = GraphDescription("g", 17, nodes, {"x": TensorInfo("x", "float", (1, 4))}, (), ("x",), ("y",))
    layers = (layer("conv"), replace(layer("fc", "Gemm"), inputs=("conv",)))
    model = make_model(*layers, graph=graph)
    assert [item.key for item in view_of(model).items] == ["conv", "fc"]
    view = view_of(model, operators=True)
    assert [item.key for item in view.items] == ["x", "conv", "relu", "fc"]
    assert edges_by_name(view) == {("x", "conv"), ("conv", "relu"), ("relu", "fc")}
    assert view.carriers == ("", "conv", "conv"), "after a Relu it is still the layer's tensor"
    assert view.items[2].layers == ()
