"""Export a quantized model: QuantizeLinear and DequantizeLinear inserted into a copy of the prepared ONNX model.

The form is the one onnxruntime and TensorRT recognise: weights as integers with DequantizeLinear, activations with
QuantizeLinear and DequantizeLinear, biases as int32 with DequantizeLinear. Formats that are not affine are stored as
`qstudio.backends.weight_nodes` and `qstudio.backends.other_activations` say. Every other node and every name stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qstudio.backends.activation_pairs import Places, quantize_activation
from qstudio.backends.activation_pairs import dequantized_name as dequantized_name
from qstudio.backends.bias import adjust_weight_scale, bias_encoding, takes_int32_bias
from qstudio.backends.graph_edit import GraphEdit
from qstudio.backends.other_activations import activation_opset, add_dynamic, add_float
from qstudio.backends.shields import shield_layers
from qstudio.backends.storage import activation_storage, as_stored
from qstudio.backends.weight_nodes import Form, add_weight, stays_integer, weight_opset
from qstudio.core.affine import Encoding, quantize
from qstudio.core.encodings import DynamicEncoding, FloatEncoding, LevelEncoding, Other, OutlierEncoding
from qstudio.core.errors import UserError
from qstudio.core.float_formats import float_type
from qstudio.core.formats import title_of
from qstudio.core.model_info import LayerInfo

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own Q/DQ, which knows 16-bit, 4-bit and blocks below opset 21."""

Encodings = Mapping[str, Encoding]
"""Site id -> encoding; sites that stay float are absent."""

_SHOWN = 4


def export_qdq(
    prepared: onnx.ModelProto,
    layers: tuple[LayerInfo, ...],
    activations: Encodings,
    weights: Encodings,
    *,
    raise_opset: Callable[[onnx.ModelProto, int], onnx.ModelProto],
    weight_values: Mapping[str, NDArray[np.floating]] | None = None,
    packed: bool = False,
    others: Mapping[str, Other] | None = None,
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
        packed: Store codes of up to 4 bits in 4 bits, of up to 2 in 2: a smaller file of opset 21, or 25. onnxruntime
            unpacks them when it loads the file; in groups of a matrix, in every inference.
        others: Encodings that are not affine, by site id, of weights and activations; those of `not_exported` stay
            float.

    Raises:
        UserError: An encoding does not fit 16 bits, or a type is newer than the model and it cannot be converted.
    """
    others = others or {}
    model = onnx.ModelProto()
    model.CopyFrom(prepared)
    _replace_values(model, weight_values or {})
    stored: dict[str, Encoding | Other] = {**others, **weights}
    forms = _weight_forms(prepared, layers, stored, activations, packed)
    model, domain = _with_opset(model, _needed_opset(prepared, layers, activations, stored, forms), raise_opset)
    if domain:
        _check_old_opset(others, model)
    edit = GraphEdit(model)
    inputs = layer_inputs(model, layers)
    places: Places = {}
    for layer in layers:
        site = layer.activation
        if site is None:
            continue
        other = others.get(site.id)
        if site.id in activations:
            places |= quantize_activation(edit, site, activations[site.id], domain)
        elif isinstance(other, FloatEncoding):
            add_float(edit, site, other)
        elif isinstance(other, DynamicEncoding):
            places |= add_dynamic(edit, site, other)
    for weight, form in forms.items():
        encoding = stored[weight]
        assert not isinstance(encoding, DynamicEncoding), "weights have no range at run time"
        add_weight(edit, weight, encoding, replace(form, domain=domain))
    for layer in layers:
        _quantize_bias(edit, layer, activations.get(inputs.get(layer.name, "")), weights)
    shield_layers(edit, layers, {name for name, form in forms.items() if stays_integer(stored[name], form)}, places)
    edit.finish()
    if domain and not any(o.domain == MICROSOFT for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def not_exported(layers: tuple[LayerInfo, ...], others: Mapping[str, Other]) -> tuple[str, ...]:
    """Return, in words, which sites an export leaves float because ONNX has no operator for their format."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        other = others.get(layer.activation.id) if layer.activation is not None else None
        if isinstance(other, LevelEncoding):
            found.setdefault(title_of(other.format), []).append(layer.name)
    return tuple(
        f"The exported file computes {len(names)} activations in float: ONNX has no operator that rounds to "
        f"{title}. Only the simulation rounds them ({', '.join(names[:_SHOWN])}"
        f"{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''})"
        for title, names in found.items()
    )


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


def _weight_forms(
    prepared: onnx.ModelProto,
    layers: tuple[LayerInfo, ...],
    stored: Mapping[str, Encoding | Other],
    activations: Encodings,
    packed: bool,
) -> dict[str, Form]:
    """Return how each quantized weight may be stored."""
    inputs = layer_inputs(prepared, layers)
    forms: dict[str, Form] = {}
    for layer in layers:
        if layer.weight is None or layer.weight.id not in stored:
            continue
        read = inputs.get(layer.name, "")
        site, before = layer.weight.id, forms.get(layer.weight.id)
        # Behind a range taken at run time onnxruntime has no integer kernel for Conv or Gemm.
        meets = "integers" if read in activations else "float8" if _is_float8(stored.get(read)) else ""
        # A weight that several layers share is stored once.
        kept = before.meets if before is not None else ""
        forms[site] = Form("", packed, "integers" if "integers" in (meets, kept) else meets or kept)
    return forms


def _needed_opset(
    prepared: onnx.ModelProto,
    layers: tuple[LayerInfo, ...],
    activations: Encodings,
    stored: Mapping[str, Encoding | Other],
    forms: Mapping[str, Form],
) -> int:
    """Return the lowest opset whose operators know all the types and blocks asked for."""
    needed = [13]
    needed += [activation_storage(as_stored(encoding, False)).opset for encoding in activations.values()]
    for layer in layers:
        other = stored.get(layer.activation.id) if layer.activation is not None else None
        if isinstance(other, (FloatEncoding, DynamicEncoding)):
            needed.append(activation_opset(other))
    axes = {t.name: len(t.dims) for t in prepared.graph.initializer}
    needed += [weight_opset(stored[site], form, axes[site]) for site, form in forms.items()]
    return max(needed)


def _check_old_opset(others: Mapping[str, Other], model: onnx.ModelProto) -> None:
    """Refuse float8 in a model that cannot be raised: onnxruntime's own Q/DQ do not know it."""
    for site, other in others.items():
        inner = other.inner if isinstance(other, OutlierEncoding) else other
        if isinstance(inner, FloatEncoding) and _is_float8(inner):
            raise UserError(
                f"{title_of(inner.format)} needs operator set 19, and this model of operator set "
                f"{GraphEdit(model).opset} cannot be converted to it",
                site,
                "Choose another format, or export the model again with a newer opset_version",
            )


def _is_float8(encoding: Encoding | Other | None) -> bool:
    return isinstance(encoding, FloatEncoding) and float_type(encoding.format).bits == 8


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
