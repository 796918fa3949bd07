"""Keep onnxruntime from rounding what a recipe leaves float.

Where Conv, ConvTranspose or Gemm stands between DequantizeLinear and QuantizeLinear and its weight is a float constant,
onnxruntime's optimiser (WeightBiasQuantization) makes it int8 by itself, per tensor: the file would not compute what
was simulated. Where the weight is a DequantizeLinear of a type that integer kernels do not know, it fuses all the same
and then refuses to load. A node between the input's DequantizeLinear and the layer keeps it from both.
"""

from __future__ import annotations

from collections.abc import Collection

from onnx import helper

from qstudio.backends.activation_pairs import Places
from qstudio.backends.graph_edit import GraphEdit
from qstudio.backends.other_activations import KEEP
from qstudio.core.model_info import LayerInfo

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""MatMul with an Add behind it becomes a Gemm in onnxruntime."""


def shield_layers(edit: GraphEdit, layers: tuple[LayerInfo, ...], integer: Collection[str], places: Places) -> None:
    """Put a node between a layer and the DequantizeLinear it reads, where its weight does not run on integer kernels.

    Args:
        edit: Of the export; activations and weights are in place.
        layers: Rows with their sites.
        integer: Weights that run on integer kernels, by site id.
        places: Everything that DequantizeLinear of activations puts out.
    """
    kept: dict[str, str] = {}
    for layer in layers:
        node = edit.nodes.get(layer.name)
        if node is None or node.op_type not in OPERATORS or layer.weight is None:
            continue
        if layer.weight.id in integer:
            continue
        for position, name in enumerate(node.input):
            if name not in places:
                continue
            if name not in kept:
                kept[name] = edit.fresh(f"{name}_Kept")
                keep = helper.make_node(KEEP, [name], [kept[name]], edit.fresh(f"{name}_{KEEP}"))
                edit.add_behind(places[name], [keep])
            node.input[position] = kept[name]
