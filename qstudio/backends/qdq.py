"""Export a quantized model: QuantizeLinear and DequantizeLinear inserted into a copy of the prepared ONNX model.

The form is the one onnxruntime and TensorRT recognise: weights as integers with DequantizeLinear, activations with
QuantizeLinear and DequantizeLinear, biases as int32 with DequantizeLinear. Every other node and every name stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qstudio.backends.activation_pairs import Constants, add_constants, quantize_activation
from qstudio.backends.activation_pairs import dequantized_name as dequantized_name
from qstudio.backends.bias import adjust_weight_scale, bias_encoding, takes_int32_bias
from qstudio.backends.graph_edit import GraphEdit
from qstudio.backends.storage import Storage, activation_storage, as_stored, weight_storage
from qstudio.core.affine import Encoding, quantize
from qstudio.core.model_info import LayerInfo

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own Q/DQ, which knows 16-bit, 4-bit and blocks below opset 21."""

Encodings = Mapping[str, Encoding]
"""Site id -> encoding; sites that stay float are absent."""


def export_qdq(
    prepared: onnx.ModelProto,
    layers: tuple[LayerInfo, ...],
    activations: Encodings,
    weights: Encodings,
    *,
    raise_opset: Callable[[onnx.ModelProto, int], onnx.ModelProto],
    weight_values: Mapping[str, NDArray[np.floating]] | None = None,
    packed: bool = False,
) -> onnx.ModelProto:
    """Return a copy of `prepared` in which the given sites are quantized.

    Activations up to 8 bits are stored as u8 (symmetric ones moved by 128: the same numbers, and the only type that
    onnxruntime's x86 kernels take), above as u16 or i16. Where a width does not fill its type, the codes are cut to
    [qmin, qmax] by a Clip on the codes, between QuantizeLinear and DequantizeLinear, so that integer kernels are still
    found. Weights up to 8 bits are stored as i8, above as i16.

    Args:
        prepared: Float model with BatchNormalization folded and opset 13 or newer; not changed.
        layers: Rows with their sites, as placed on the same model.
        activations: Encodings of activation sites by site id; a site that is absent stays float.
        weights: Encodings of weight sites by site id, already through `adjust_weight_scales`.
        raise_opset: Converts a model to a newer opset; called only when a chosen type needs it.
        weight_values: Float values that replace initializers before quantization (bias correction, rounding).
        packed: Store weights of up to 4 bits as int4: a smaller file, and slower in onnxruntime.

    Raises:
        UserError: An encoding does not fit 16 bits.
    """
    model = onnx.ModelProto()
    model.CopyFrom(prepared)
    _replace_values(model, weight_values or {})
    model, domain = _with_opset(model, needed_opset(activations.values(), weights.values(), packed), raise_opset)
    edit = GraphEdit(model)
    inputs = layer_inputs(model, layers)
    done: set[str] = set()
    for layer in layers:
        if layer.activation is not None and layer.activation.id in activations:
            quantize_activation(edit, layer.activation, activations[layer.activation.id], domain)
    for layer in layers:
        weight = layer.weight
        if weight is not None and weight.id in weights and weight.id not in done:
            done.add(weight.id)
            _quantize_weight(edit, weight.id, weights[weight.id], domain, packed)
    for layer in layers:
        _quantize_bias(edit, layer, activations.get(inputs.get(layer.name, "")), weights)
    edit.finish()
    if domain and not any(o.domain == MICROSOFT for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def needed_opset(activations: Iterable[Encoding], weights: Iterable[Encoding], packed: bool = False) -> int:
    """Return the lowest opset whose QuantizeLinear and DequantizeLinear know all the types and blocks asked for."""
    needed = [13]
    needed += [activation_storage(as_stored(encoding, False)).opset for encoding in activations]
    for encoding in weights:
        needed.append(21 if encoding.scale.ndim == 2 else weight_storage(encoding, packed).opset)
        needed.append(weight_storage(encoding, packed).opset)
    return max(needed)


def layer_inputs(prepared: onnx.ModelProto, layers: tuple[LayerInfo, ...]) -> dict[str, str]:
    """Return, for each layer with a weight, the id of the activation site of its data input.

    Layers whose input carries no site are absent.
    """
    site_of = {
        member: layer.activation.id for layer in layers if layer.activation for member in layer.activation.members
    }
    nodes = {node.name: node for node in prepared.graph.node}
    found = {}
    for layer in layers:
        if layer.weight is None or layer.name not in nodes:
            continue
        fixed = {layer.weight.id, layer.bias.id if layer.bias else ""}
        data = [name for name in nodes[layer.name].input if name and name not in fixed]
        if data and data[0] in site_of:
            found[layer.name] = site_of[data[0]]
    return found


def adjust_weight_scales(
    prepared: onnx.ModelProto,
    layers: tuple[LayerInfo, ...],
    activations: Encodings,
    weights: Encodings,
    weight_values: Mapping[str, NDArray[np.floating]] | None = None,
) -> dict[str, Encoding]:
    """Return the weight encodings with scales raised where an int32 bias would overflow; call before simulating.

    A weight that several layers share gets the largest of the scales they need.
    """
    values = weight_values or {}
    constants = {t.name: t for t in prepared.graph.initializer}
    inputs = layer_inputs(prepared, layers)
    adjusted = dict(weights)
    for layer in layers:
        activation = activations.get(inputs.get(layer.name, ""))
        if layer.weight is None or layer.bias is None or activation is None or layer.weight.id not in adjusted:
            continue
        bias = values.get(layer.bias.id)
        if bias is None:
            bias = onnx.numpy_helper.to_array(constants[layer.bias.id])
        adjusted[layer.weight.id] = adjust_weight_scale(adjusted[layer.weight.id], activation, bias)
    return adjusted


def bias_encodings(
    prepared: onnx.ModelProto, layers: tuple[LayerInfo, ...], activations: Encodings, weights: Encodings
) -> dict[str, Encoding]:
    """Return layer name -> int32 encoding of its bias, for every layer whose input and weight are quantized."""
    inputs = layer_inputs(prepared, layers)
    found = {}
    for layer in layers:
        activation = activations.get(inputs.get(layer.name, ""))
        weight = weights.get(layer.weight.id) if layer.weight is not None else None
        if layer.bias is None or activation is None or weight is None or not takes_int32_bias(activation, weight):
            continue
        found[layer.name] = bias_encoding(activation, weight)
    return found


def _replace_values(model: onnx.ModelProto, values: Mapping[str, NDArray[np.floating]]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in values:
            fresh = onnx.numpy_helper.from_array(np.asarray(values[tensor.name], np.float32, order="C"), tensor.name)
            tensor.CopyFrom(fresh)


def _with_opset(
    model: onnx.ModelProto, needed: int, raise_opset: Callable[[onnx.ModelProto, int], onnx.ModelProto]
) -> tuple[onnx.ModelProto, str]:
    """Return the model at an opset that has the types, or the domain of onnxruntime's own Q/DQ in its stead."""
    present = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if present >= needed:
        return model, ""
    try:
        raised = raise_opset(model, needed)
    except Exception:
        # Whatever the converter stumbles over, onnxruntime's own Q/DQ know all these types at any opset.
        return model, MICROSOFT
    raised.ir_version = max(raised.ir_version, helper.find_min_ir_version_for(raised.opset_import))
    return raised, ""


def _quantize_weight(edit: GraphEdit, weight: str, encoding: Encoding, domain: str, packed: bool) -> None:
    values = edit.constant(weight)
    codes = quantize(values, encoding)
    storage = weight_storage(encoding, packed)
    target = edit.fresh(dequantized_name(weight))
    name = edit.fresh(f"{weight}_DequantizeLinear")
    shared = add_constants(edit, weight, encoding, storage)
    if encoding.scale.ndim < 2:
        integer = edit.add_initializer(f"{weight}_quantized", codes.astype(storage.numpy))
        axis: dict[str, Any] = {} if encoding.axis is None or encoding.scale.ndim == 0 else {"axis": encoding.axis}
        node = helper.make_node(
            "DequantizeLinear", [integer, shared.scale, shared.zero_point], [target], name, domain=domain, **axis
        )
        edit.add_front([node])
    else:
        _add_blocked(edit, weight, codes, encoding, storage, domain, target, name, shared)
    edit.rewire(weight, target)


def _add_blocked(
    edit: GraphEdit,
    weight: str,
    codes: NDArray[np.int32],
    encoding: Encoding,
    storage: Storage,
    domain: str,
    target: str,
    name: str,
    shared: Constants,
) -> None:
    """Add a blocked DequantizeLinear on the [C, K] matrix of a weight, then give it the weight's shape back."""
    axis = encoding.axis or 0
    rows = np.moveaxis(codes, axis, 0)
    matrix = rows.reshape(rows.shape[0], -1)
    integer = edit.add_initializer(f"{weight}_quantized", matrix.astype(storage.numpy))
    flat = edit.fresh(f"{weight}_DequantizeLinear_Rows") if codes.ndim != 2 or axis != 0 else target
    nodes = [
        helper.make_node(
            "DequantizeLinear",
            [integer, shared.scale, shared.zero_point],
            [flat],
            name,
            domain=domain,
            axis=1,
            block_size=encoding.group_size,
        )
    ]
    if flat != target:
        shape = edit.add_initializer(f"{weight}_rows_shape", np.asarray(rows.shape, np.int64))
        shaped = target if axis == 0 else edit.fresh(f"{weight}_Rows")
        nodes.append(helper.make_node("Reshape", [flat, shape], [shaped], edit.fresh(f"{weight}_Reshape")))
        if shaped != target:
            order = [*range(1, axis + 1), 0, *range(axis + 1, codes.ndim)]
            nodes.append(
                helper.make_node("Transpose", [shaped], [target], edit.fresh(f"{weight}_Transpose"), perm=order)
            )
    edit.add_front(nodes)


def _quantize_bias(edit: GraphEdit, layer: LayerInfo, activation: Encoding | None, weights: Encodings) -> None:
    """Store a layer's bias as int32; a bias that several layers share gets one copy for each of them."""
    weight = weights.get(layer.weight.id) if layer.weight is not None else None
    if layer.bias is None or activation is None or weight is None or not takes_int32_bias(activation, weight):
        return
    encoding = bias_encoding(activation, weight)
    values = edit.constant(layer.bias.id)
    codes = quantize(values, encoding)
    node = edit.nodes[layer.name]
    position = list(node.input).index(layer.bias.id)
    integer = edit.add_initializer(f"{layer.bias.id}_quantized", codes)
    scale = edit.add_initializer(f"{layer.bias.id}_scale", encoding.scale)
    zero_point = edit.add_initializer(f"{layer.bias.id}_zero_point", encoding.zero_point)
    target = edit.fresh(dequantized_name(layer.bias.id))
    name = edit.fresh(f"{layer.bias.id}_DequantizeLinear")
    # int32 is known to the standard DequantizeLinear of every opset here; onnxruntime fuses it from this domain.
    axis: dict[str, Any] = {} if encoding.scale.ndim == 0 else {"axis": 0}
    edit.add_front([helper.make_node("DequantizeLinear", [integer, scale, zero_point], [target], name, **axis)])
    node.input[position] = target
