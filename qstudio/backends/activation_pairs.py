"""QuantizeLinear and DequantizeLinear behind activation tensors, in the form that integer kernels are found for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qstudio.backends.graph_edit import GraphEdit
from qstudio.backends.storage import Storage, activation_storage, as_stored
from qstudio.core.affine import Encoding, quantize
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


Places = dict[str, str]
"""Name of a tensor that DequantizeLinear puts out -> the tensor behind which that stands.

Where value-preserving operators have no pair of their own (16 bits), what they put out is here too: onnxruntime moves
the pair before them behind them.
"""


def quantize_activation(edit: GraphEdit, site: SiteInfo, encoding: Encoding, domain: str) -> Places:
    """Put Q and DQ behind every tensor that carries a site's encoding; return what DQ puts out.

    At 8 bits also behind value-preserving operators, where the second rounding changes nothing: onnxruntime has
    kernels for MaxPool, Reshape and the like on 8-bit codes, and finds them between DQ and Q only. At 16 bits there are
    none, and a second pair would only cost time.
    """
    rounded = site.quantized_at or (site.id,)
    encoding = as_stored(encoding, all(_is_never_negative(edit, tensor) for tensor in rounded))
    storage = activation_storage(encoding)
    constants = add_constants(edit, site.id, encoding, storage)
    places: Places = {}
    for tensor in (site.members or rounded) if storage.bits == 8 else rounded:
        places |= _insert_pair(edit, tensor, constants, domain, encoding, storage, tensor in rounded)
    return {tensor: tensor for tensor in site.members if tensor not in rounded} | places


def reroute(edit: GraphEdit, tensor: str) -> tuple[str, str]:
    """Return (source, target) for nodes behind a tensor: what they read, and what the tensor's readers read then.

    An output of the model keeps its name: then the tensor is the target.
    """
    if tensor in edit.outputs and tensor in edit.producers:
        source = edit.fresh(f"{tensor}_QuantizeLinear_Input")
        edit.rename_output(tensor, source)
        return source, tensor
    target = edit.fresh(dequantized_name(tensor))
    edit.rewire(tensor, target)
    return tensor, target


def _insert_pair(
    edit: GraphEdit,
    tensor: str,
    constants: Constants,
    domain: str,
    encoding: Encoding,
    storage: Storage,
    is_rounded: bool,
) -> Places:
    """Put Q and DQ behind a tensor; where values are rounded and the type is wider, cut the codes to [qmin, qmax]."""
    cuts = is_rounded and not storage.is_filled_by(encoding)
    limiter = _limiter_for_codes(edit, tensor, encoding, storage) if is_rounded else None
    if limiter is not None:
        return _insert_around(edit, tensor, constants, domain, encoding, storage, *limiter)
    source, target = reroute(edit, tensor)
    nodes: list[onnx.NodeProto] = []
    read = source
    if cuts and storage.bits == 16:
        # Clip knows no 16-bit codes. The float range is exact: the edges are whole steps.
        bounds = (np.asarray(encoding.low, np.float32), np.asarray(encoding.high, np.float32))
        read = edit.fresh(f"{tensor}_Clip_Output")
        names = _bounds(edit, tensor, *bounds)
        nodes.append(helper.make_node("Clip", [source, *names], [read], edit.fresh(f"{tensor}_Clip")))
    codes = edit.fresh(f"{tensor}_QuantizeLinear_Output")
    nodes.append(_linear(edit, "QuantizeLinear", tensor, read, codes, constants, domain))
    if cuts and storage.bits == 8:
        names = _bounds(edit, tensor, *(np.asarray(q, storage.numpy) for q in (encoding.qmin, encoding.qmax)))
        kept = edit.fresh(f"{tensor}_Clip_Output")
        nodes.append(helper.make_node("Clip", [codes, *names], [kept], edit.fresh(f"{tensor}_Clip")))
        codes = kept
    nodes.append(_linear(edit, "DequantizeLinear", tensor, codes, target, constants, domain))
    edit.add_behind(source, nodes)
    return {target: source}


def _insert_around(
    edit: GraphEdit,
    tensor: str,
    constants: Constants,
    domain: str,
    encoding: Encoding,
    storage: Storage,
    node: onnx.NodeProto,
    limits: Encoding,
) -> Places:
    """Put Q before and DQ behind a Relu or Clip, which then limits codes and keeps its name."""
    before = node.input[0]
    quantized, limited = edit.fresh(f"{tensor}_QuantizeLinear_Output"), edit.fresh(f"{tensor}_codes")
    if tensor in edit.outputs:
        target = tensor
    else:
        target = edit.fresh(dequantized_name(tensor))
        edit.rewire(tensor, target)
    edit.rename_output(tensor, limited)
    names = _bounds(edit, tensor, *(np.asarray(q, storage.numpy) for q in (limits.qmin, limits.qmax)))
    node.op_type = "Clip"
    del node.input[:]
    node.input.extend([quantized, *names])
    edit.add_behind(before, [_linear(edit, "QuantizeLinear", tensor, before, quantized, constants, domain)])
    edit.add_behind(limited, [_linear(edit, "DequantizeLinear", tensor, limited, target, constants, domain)])
    return {target: limited}


def _linear(
    edit: GraphEdit, op_type: str, tensor: str, read: str, write: str, constants: Constants, domain: str
) -> onnx.NodeProto:
    name = edit.fresh(f"{tensor}_{op_type}")
    return helper.make_node(op_type, [read, constants.scale, constants.zero_point], [write], name, domain=domain)


def _bounds(edit: GraphEdit, tensor: str, low: NDArray[Any], high: NDArray[Any]) -> list[str]:
    return [edit.add_initializer(f"{tensor}_clip_low", low), edit.add_initializer(f"{tensor}_clip_high", high)]


def _limiter_for_codes(
    edit: GraphEdit, tensor: str, encoding: Encoding, storage: Storage
) -> tuple[onnx.NodeProto, Encoding] | None:
    """Return the Relu or Clip before a tensor with its limits as codes, if it had better limit codes than floats.

    A Relu or Clip that the 8-bit type's own saturation makes superfluous is dropped by onnxruntime. One that is not
    (z > 0, fewer than 8 bits, Clip at 6 below the end of the range) would keep the Conv before it in float. On codes it
    computes the same, because rounding is monotonic: Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b)).
    """
    node = edit.producers.get(tensor)
    if node is None or node.domain or node.op_type not in ("Relu", "Clip") or storage.bits != 8:
        return None
    before = node.input[0]
    if len(edit.consumers(before)) != 1 or before in edit.outputs or before not in edit.producers:
        return None
    bounds = [-np.inf, np.inf] if node.op_type == "Clip" else [0.0, np.inf]
    for i, name in enumerate(node.input[1:]):
        if name and name not in edit.initializers:
            return None
        if name:
            bounds[i] = float(edit.constant(name).reshape(-1)[0])
    scale, zero_point = np.float32(encoding.scale), int(encoding.zero_point)
    low, high = scale * np.float32(storage.low - zero_point), scale * np.float32(storage.high - zero_point)
    if bounds[0] <= low and high <= bounds[1]:
        return None
    first, last = quantize(np.asarray(bounds, np.float32), encoding)
    return node, replace(encoding, qmin=int(first), qmax=int(last))


def _is_never_negative(edit: GraphEdit, tensor: str) -> bool:
    node = edit.producers.get(tensor)
    if node is None or node.domain:
        return False
    if node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in edit.initializers:
        return bool((edit.constant(node.input[1]) >= 0).all())
    return node.op_type in _NEVER_NEGATIVE
