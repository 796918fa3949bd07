"""QuantizeLinear and DequantizeLinear behind activation tensors, in the form that integer kernels are found for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from qstudio.backends.graph_edit import GraphEdit
from qstudio.backends.storage import Storage, activation_storage, as_stored
from qstudio.core.affine import Encoding
from qstudio.core.model_info import SiteInfo

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax")


@dataclass(frozen=True)
class Constants:
    """Names of the scale and zero point that all Q and DQ of one site share."""

    scale: str
    zero_point: str


def dequantized_name(tensor: str) -> str:
    """Return the name under which the export offers the rounded values of an inner tensor.

    Outputs of the model keep their own name.
    """
    return f"{tensor}_DequantizeLinear_Output"


def add_constants(edit: GraphEdit, name: str, encoding: Encoding, storage: Storage) -> Constants:
    """Add scale and zero point of a site."""
    scale = edit.add_initializer(f"{name}_scale", np.asarray(encoding.scale, np.float32))
    zero_point = edit.add_initializer(f"{name}_zero_point", np.asarray(encoding.zero_point).astype(storage.numpy))
    return Constants(scale, zero_point)


def quantize_activation(edit: GraphEdit, site: SiteInfo, encoding: Encoding, domain: str) -> None:
    """Put Q and DQ behind every tensor that carries a site's encoding.

    At 8 bits also behind value-preserving operators, where the second rounding changes nothing: onnxruntime has
    kernels for MaxPool, Reshape and the like on 8-bit codes, and finds them between DQ and Q only. At 16 bits there are
    none, and a second pair would only cost time.
    """
    rounded = site.quantized_at or (site.id,)
    encoding = as_stored(encoding, all(_is_never_negative(edit, tensor) for tensor in rounded))
    storage = activation_storage(encoding)
    constants = add_constants(edit, site.id, encoding, storage)
    for tensor in (site.members or rounded) if storage.bits == 8 else rounded:
        cut = tensor in rounded and not storage.is_filled_by(encoding)
        _insert_pair(edit, tensor, constants, domain, encoding if cut else None, storage)


def _insert_pair(
    edit: GraphEdit, tensor: str, constants: Constants, domain: str, cut: Encoding | None, storage: Storage
) -> None:
    """Put Q and DQ behind a tensor; `cut` limits the codes to its [qmin, qmax] where the type is wider."""
    if tensor in edit.outputs and tensor in edit.producers:
        source = edit.fresh(f"{tensor}_QuantizeLinear_Input")
        edit.rename_output(tensor, source)
        target = tensor
    else:
        source = tensor
        target = edit.fresh(dequantized_name(tensor))
        edit.rewire(tensor, target)
    shared = [constants.scale, constants.zero_point]
    nodes: list[onnx.NodeProto] = []
    codes = edit.fresh(f"{tensor}_QuantizeLinear_Output")
    read = source
    if cut is not None and storage.bits == 16:
        # Clip knows no 16-bit codes. The float range is exact: the edges are whole steps.
        read = _clip(edit, tensor, source, np.asarray(cut.low, np.float32), np.asarray(cut.high, np.float32), nodes)
    name = edit.fresh(f"{tensor}_QuantizeLinear")
    nodes.append(helper.make_node("QuantizeLinear", [read, *shared], [codes], name, domain=domain))
    if cut is not None and storage.bits == 8:
        low, high = np.asarray(cut.qmin, storage.numpy), np.asarray(cut.qmax, storage.numpy)
        codes = _clip(edit, tensor, codes, low, high, nodes)
    name = edit.fresh(f"{tensor}_DequantizeLinear")
    nodes.append(helper.make_node("DequantizeLinear", [codes, *shared], [target], name, domain=domain))
    edit.add_behind(source, nodes)


def _clip(
    edit: GraphEdit, tensor: str, read: str, low: np.ndarray, high: np.ndarray, nodes: list[onnx.NodeProto]
) -> str:
    output = edit.fresh(f"{tensor}_Clip_Output")
    bounds = [edit.add_initializer(f"{tensor}_clip_low", low), edit.add_initializer(f"{tensor}_clip_high", high)]
    nodes.append(helper.make_node("Clip", [read, *bounds], [output], edit.fresh(f"{tensor}_Clip")))
    return output


def _is_never_negative(edit: GraphEdit, tensor: str) -> bool:
    node = edit.producers.get(tensor)
    if node is None or node.domain:
        return False
    if node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in edit.initializers:
        return bool((edit.constant(node.input[1]) >= 0).all())
    return node.op_type in _NEVER_NEGATIVE
