"""Shapes and element types of all tensors, by ONNX's own inference."""

from __future__ import annotations

import onnx

from qstudio.core.graph_types import TensorInfo
from qstudio.graph.dtypes import onnx_name, tensor_shape

_LARGEST_KEPT_ELEMENTS = 4096


def skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model without its large weights, which become inputs of the same type and shape.

    Shape inference serialises the whole model; without the weights that takes milliseconds and never meets protobuf's
    2 GB limit. Small constants stay, because Reshape and the like need their values.
    """
    copy = onnx.ModelProto(
        ir_version=proto.ir_version, producer_name=proto.producer_name, opset_import=proto.opset_import
    )
    copy.functions.extend(proto.functions)
    copy.graph.name = proto.graph.name or "graph"
    copy.graph.input.extend(proto.graph.input)
    copy.graph.output.extend(proto.graph.output)
    copy.graph.node.extend(proto.graph.node)
    declared = {i.name for i in proto.graph.input}
    for tensor in proto.graph.initializer:
        elements = 1
        for size in tensor.dims:
            elements *= size
        if elements <= _LARGEST_KEPT_ELEMENTS:
            copy.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in declared:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


def infer_tensors(proto: onnx.ModelProto, batch: int | None = None) -> dict[str, TensorInfo]:
    """Infer what can be known of each tensor.

    Args:
        proto: The model; it is not changed.
        batch: What to put for dynamic first axes of the inputs; None leaves them dynamic.

    Returns:
        Tensor name to what is known. Where inference fails on a damaged model, only what the file itself declares.
    """
    model = skeleton(proto)
    weights = {t.name for t in proto.graph.initializer}
    if batch is not None:
        for value in model.graph.input:
            sizes = value.type.tensor_type.shape.dim
            if value.name not in weights and len(sizes) and sizes[0].WhichOneof("value") != "dim_value":
                sizes[0].dim_value = batch
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
    else:
        model.graph.value_info.extend(proto.graph.value_info)
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
    except Exception:
        # Inference is a convenience: on a damaged model the file's own declarations must do.
        graph = model.graph
    result: dict[str, TensorInfo] = {}
    for value in [*graph.value_info, *graph.output, *graph.input]:
        result[value.name] = _described(value)
    for tensor in proto.graph.initializer:
        result[tensor.name] = TensorInfo(
            tensor.name, onnx_name(tensor.data_type), tensor_shape(tensor), _single_value(tensor)
        )
    return result


def _single_value(tensor: onnx.TensorProto) -> float | None:
    """Return what a floating-point constant of one element holds: what a Pad fills with decides whether it rounds."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    if tensor.data_type not in floats or any(size != 1 for size in tensor.dims):
        return None
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    return float(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])


def _described(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    dtype = onnx_name(kind.elem_type) if kind.elem_type else ""
    if not kind.HasField("shape"):
        return TensorInfo(value.name, dtype, None)
    sizes = tuple(int(d.dim_value) if d.WhichOneof("value") == "dim_value" else None for d in kind.shape.dim)
    return TensorInfo(value.name, dtype, sizes)
