"""Undo the packing of weights in an exported model, as onnxruntime does when it loads the file."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_PACKED = (TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2)


def with_unpacked_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with codes that a Cast makes whole bytes as initializers of that type.

    Args:
        model: An export with packed weights, or any other, which is returned as it is.
    """
    packed = {t.name: t for t in model.graph.initializer if t.data_type in _PACKED}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in packed]
    if not casts:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    gone = {node.output[0] for node in casts}
    kept = [node for node in copy.graph.node if not gone.intersection(node.output)]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    for node in casts:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to")))
        whole = numpy_helper.to_array(packed[node.input[0]]).astype(dtype)
        copy.graph.initializer.append(numpy_helper.from_array(whole, node.output[0]))
    return copy
