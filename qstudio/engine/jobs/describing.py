"""From an ONNX model to the plain values that the window and scripts see."""

from __future__ import annotations

from pathlib import Path

from qstudio.core.model_info import ModelInfo
from qstudio.graph.describe import describe
from qstudio.graph.load import LoadedModel
from qstudio.graph.prepare import Prepared
from qstudio.quant.placement import place


def describe_model(loaded: LoadedModel, prepared: Prepared) -> ModelInfo:
    """Return the description of an opened model.

    Names, layers and sites are those of the prepared model, which simulation and export share.
    """
    graph = describe(prepared.proto)
    first = graph.tensors.get(graph.inputs[0]) if graph.inputs else None
    folded = (f"the BatchNormalization {name} was folded into {into}" for name, into in prepared.folded)
    original = {o.domain: o.version for o in loaded.proto.opset_import}
    return ModelInfo(
        name=Path(loaded.path).stem,
        path=loaded.path,
        format=loaded.format,
        sha256=loaded.sha256,
        opset=original.get("", original.get("ai.onnx", graph.opset)),
        layers=place(graph),
        graph=graph,
        inputs=graph.inputs,
        outputs=graph.outputs,
        input_shape=(first.shape or ()) if first is not None else (),
        parameters=graph.parameters,
        float_size_bytes=4 * graph.parameters,
        unsupported=tuple((node.name, node.op_type, node.unsupported) for node in graph.nodes if node.unsupported),
        notes=(*folded, *prepared.notes),
    )
