"""A latency table of single layers, measured on this machine: never inferred from bits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import onnx
from onnx import helper, shape_inference
from onnx.utils import Extractor

from qstudio.backends.qdq import adjust_weight_scales, export_qdq
from qstudio.backends.timing import measure_in_turns
from qstudio.core.affine import Encoding, encode
from qstudio.core.context import JobContext
from qstudio.core.encodings import Other
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS
from qstudio.core.storage import INT8, PACKED
from qstudio.graph.describe import describe
from qstudio.graph.opset import raise_opset
from qstudio.quant.network import Network
from qstudio.quant.other_encodings import other_activation_encoding, other_weight_encoding
from qstudio.quant.placement import place
from qstudio.quant.weight_ranges import weight_encoding

RUNS, WARMUP = 40, 8
_KEPT = 4096

_known: dict[tuple[str, str, int, int], tuple[float, float]] = {}
"""(float structure, quantized structure, batch, threads) -> milliseconds of both, timed in turns."""


class LatencyTable:
    """Predicts the latency of a recipe as that of the float model plus, for each layer, what its bits change.

    Each layer with a weight is cut out of the model and exported at the candidate's bits, codes in and codes out, as
    it stands between quantized layers; it is timed in turns with its float form. Layers whose files have the same
    operators, types and shapes share a figure, whatever the values in them. The output has the width of the input.

    Args:
        network: The prepared float model.
        batch: Samples in a run.
        threads: Of onnxruntime.
        storage: How weights below 8 bits are stored.
    """

    def __init__(self, network: Network, batch: int = 1, threads: int = 1, storage: str = INT8) -> None:
        self.network, self.batch, self.threads, self.storage = network, batch, threads, storage
        self.float_ms = 0.0
        """Of the whole float model."""
        self._inferred = shape_inference.infer_shapes(network.proto)
        self._cut: dict[str, onnx.ModelProto] = {}
        self._variants: dict[tuple[object, ...], tuple[str, str]] = {}

    def measure(self, wanted: Iterable[tuple[LayerInfo, Recipe, int]], ctx: JobContext) -> None:
        """Time the float model, and all variants that are not known yet.

        Args:
            wanted: (layer, recipe, bits of what it reads).
            ctx: Told the progress; raises to stop.
        """
        self.float_ms = measure_in_turns([self.network.proto], self.batch, self.threads, RUNS, WARMUP)[0].median
        missing: dict[str, dict[str, onnx.ModelProto]] = {}
        floats: dict[str, onnx.ModelProto] = {}
        for layer, recipe, width in wanted:
            ctx.check()
            plain = self._single(layer)
            model = self._quantized(layer, recipe, width)
            pair = structure(plain), structure(model)
            self._variants[_variant(layer, recipe, width)] = pair
            if (*pair, self.batch, self.threads) not in _known and pair[0] != pair[1]:
                floats[pair[0]] = plain
                missing.setdefault(pair[0], {})[pair[1]] = model
        for number, (key, variants) in enumerate(missing.items()):
            ctx.report(number, len(missing), "Timing single layers")
            times = measure_in_turns([floats[key], *variants.values()], self.batch, self.threads, RUNS, WARMUP)
            if len(_known) > _KEPT:
                _known.clear()
            for name, latency in zip(variants, times[1:], strict=True):
                _known[key, name, self.batch, self.threads] = times[0].median, latency.median

    def difference_ms(self, layer: LayerInfo, recipe: Recipe, width: int) -> float:
        """Return the milliseconds by which a layer's bits change its float time; negative where it gets faster."""
        key = _variant(layer, recipe, width)
        if key not in self._variants:
            self._variants[key] = structure(self._single(layer)), structure(self._quantized(layer, recipe, width))
        pair = self._variants[key]
        if pair[0] == pair[1]:
            return 0.0
        known = _known.get((*pair, self.batch, self.threads))
        if known is None:
            plain, model = self._single(layer), self._quantized(layer, recipe, width)
            times = measure_in_turns([plain, model], self.batch, self.threads, RUNS, WARMUP)
            known = _known[(*pair, self.batch, self.threads)] = times[0].median, times[1].median
        return known[1] - known[0]

    # ---- single layers

    def _single(self, layer: LayerInfo) -> onnx.ModelProto:
        """Return the layer with the Relu or Clip behind it as a model of its own."""
        if layer.name not in self._cut:
            graph = self._inferred.graph
            node = next(node for node in graph.node if node.name == layer.name)
            constants = {tensor.name for tensor in graph.initializer}
            outputs = {value.name for value in graph.output}
            last = node.output[0]
            readers = [other for other in graph.node if last in other.input]
            if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip") and last not in outputs:
                last = readers[0].output[0]
            data = next(name for name in node.input if name and name not in constants)
            self._cut[layer.name] = Extractor(self._inferred).extract_model([data], [last])
        return self._cut[layer.name]

    def _quantized(self, layer: LayerInfo, recipe: Recipe, width: int) -> onnx.ModelProto:
        """Return the single layer exported at its bits, its outer QuantizeLinear and DequantizeLinear cut off."""
        plain = self._single(layer)
        layers = place(describe(plain))
        settings = recipe.settings(layer.name)
        activations: dict[str, Encoding] = {}
        weights: dict[str, Encoding] = {}
        others: dict[str, Other] = {}
        for row in layers:
            scheme = recipe.with_layers((layer.name,), activation_bits=width).settings(layer.name).activation_scheme()
            if row.activation is not None and not scheme.is_float:
                if scheme.is_affine:
                    activations[row.activation.id] = encode(scheme, -1.0, 1.0, None)
                else:
                    others[row.activation.id] = other_activation_encoding(scheme, -1.0, 1.0)
            if row.weight is not None:
                weight = self.network.value(row.weight.id)
                scheme = settings.weight_scheme()
                if scheme.is_affine:
                    found = weight_encoding(scheme, row.weight, weight)
                    if found is not None:
                        weights[row.weight.id] = found
                elif not scheme.is_float:
                    other = other_weight_encoding(scheme, row.weight, weight)
                    if other is not None:
                        others[row.weight.id] = other
        weights = adjust_weight_scales(plain, layers, activations, weights, {})
        packed = self.storage == PACKED
        made = export_qdq(plain, layers, activations, weights, raise_opset=raise_opset, packed=packed, others=others)
        return made if width == FLOAT_BITS else _codes_in_and_out(made)


def _variant(layer: LayerInfo, recipe: Recipe, width: int) -> tuple[object, ...]:
    settings = recipe.settings(layer.name)
    return layer.name, settings.weight_scheme(), settings.activation_scheme().format, settings.activation_dynamic, width


def _codes_in_and_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a QDQ model of one layer that reads and puts out codes, as between two quantized layers."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    pairs = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in types]
    if not pairs or len(pairs[0].input) < 3 or pairs[0].input[2] not in types:
        return model
    codes = pairs[0].input[0]
    dropped, tensor = [], codes
    while tensor in producer:
        dropped.append(producer[tensor])
        tensor = producer[tensor].input[0]
    last = producer[graph.output[0].name]
    ends = any(last is node for node in pairs) and last is not pairs[0]
    kept = [node for node in graph.node if not any(node is gone for gone in dropped) and not (ends and node is last)]
    if any(tensor in node.input for node in kept):
        return model
    value = helper.make_tensor_value_info(codes, types[pairs[0].input[2]], None)
    value.type.tensor_type.shape.CopyFrom(graph.input[0].type.tensor_type.shape)
    output = onnx.ValueInfoProto(name=last.input[0]) if ends else graph.output[0]
    parts = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    outputs = [onnx.ValueInfoProto.FromString(output.SerializeToString())]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(parts)
    graph.input.append(value)
    graph.output.extend(outputs)
    return made


def structure(model: onnx.ModelProto) -> str:
    """Return a hash of what a model's time depends on: operators, attributes, types and shapes, not names or values."""
    numbers: dict[str, int] = {"": -1}
    state = hashlib.sha256(str([(o.domain, o.version) for o in model.opset_import]).encode())
    for value in model.graph.input:
        numbers[value.name] = len(numbers)
        state.update(value.type.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        numbers[tensor.name] = len(numbers)
        state.update(f"{tensor.data_type} {list(tensor.dims)}".encode())
    for node in model.graph.node:
        for name in node.output:
            numbers[name] = len(numbers)
        tensors = [numbers.get(name, -2) for name in node.input]
        state.update(f"{node.op_type} {node.domain} {tensors}".encode())
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            state.update(attribute.SerializeToString(deterministic=True))
    return state.hexdigest()
