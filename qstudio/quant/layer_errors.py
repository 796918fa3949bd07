"""Quantization error of every layer: its weight, and the tensor it puts out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.affine import Encoding
from qstudio.core.encodings import DynamicEncoding, Other, OutlierEncoding
from qstudio.core.formats import scheme_text
from qstudio.core.metrics import cosine, sqnr_db
from qstudio.core.model_info import LayerInfo
from qstudio.core.results import LayerResult
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import Report, feeds
from qstudio.quant.simulate import SimulatedModel


class _Sums:
    """Sums over batches from which SQNR and cosine follow."""

    def __init__(self) -> None:
        self.signal = self.noise = self.product = self.power = 0.0

    def add(self, reference: Tensor, value: Tensor) -> None:
        x, y = reference.double(), value.double()
        self.signal += float((x * x).sum())
        self.power += float((y * y).sum())
        self.product += float((x * y).sum())
        self.noise += float(((x - y) ** 2).sum())

    def sqnr_db(self) -> float:
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else 0.0

    def cosine(self) -> float:
        norms = math.sqrt(self.signal * self.power)
        if norms == 0.0:
            return 1.0 if self.signal == self.power else 0.0
        return self.product / norms


def layer_results(
    model: SimulatedModel,
    encodings: Encodings,
    split: Split,
    indices: NDArray[np.int64],
    report: Report | None = None,
) -> tuple[LayerResult, ...]:
    """Return the error of each layer with everything quantized, against float on the same samples.

    Memory is one batch of the float network's sites.

    Args:
        model: The simulated model.
        encodings: What it was made from, with its schemes.
        split: Where the samples are.
        indices: Which samples the outputs are compared on.
        report: Told the progress between batches; raises to stop.
    """
    network = model.network
    sums = {layer.activation.id: _Sums() for layer in network.layers if layer.activation is not None}
    done = 0
    with network.executor.evaluating():
        for batch, inputs, _ in feeds(network, split, indices):
            if report is not None:
                report(done, len(indices))
            count = len(batch.indices)
            floats: dict[str, Tensor] = {}

            def keep(tensor: str, values: Tensor, floats: dict[str, Tensor] = floats, count: int = count) -> None:
                if tensor in sums:
                    floats[tensor] = values[:count]

            def compare(tensor: str, values: Tensor, floats: dict[str, Tensor] = floats, count: int = count) -> None:
                if tensor in floats:
                    sums[tensor].add(floats.pop(tensor), values[:count])

            network.executor.run(inputs, observe=keep)
            model.run(inputs, observe=compare)
            done += count
    return tuple(_result(layer, model, encodings, sums) for layer in network.layers)


def _result(layer: LayerInfo, model: SimulatedModel, encodings: Encodings, sums: Mapping[str, _Sums]) -> LayerResult:
    schemes: list[tuple[str, str]] = []
    weight_sqnr = weight_cosine = None
    weight_range = activation_range = None
    if layer.weight is not None:
        schemes.append(("weight", scheme_text(encodings.schemes[layer.weight.id])))
        values = model.float_value(layer.weight.id)
        rounded = model.rounded_weight(layer.weight.id)
        weight_sqnr, weight_cosine = sqnr_db(values, rounded), cosine(values, rounded)
        weight_range = _reach(model.weights.get(layer.weight.id) or model.others.get(layer.weight.id))
    output = None
    if layer.activation is not None:
        schemes.append(("activation", scheme_text(encodings.schemes[layer.activation.id])))
        site = layer.activation.id
        activation_range = _reach(model.activations.get(site) or model.others.get(site))
        output = sums[layer.activation.id]
    return LayerResult(
        layer.name,
        layer.op_type,
        tuple(schemes),
        weight_sqnr,
        weight_cosine,
        None if output is None else output.sqnr_db(),
        None if output is None else output.cosine(),
        weight_range,
        activation_range,
    )


def _reach(encoding: Encoding | Other | None) -> tuple[float, float] | None:
    """Return the smallest and largest value that codes stand for; None where nothing says so beforehand."""
    if isinstance(encoding, OutlierEncoding):
        encoding = encoding.inner
    if encoding is None or isinstance(encoding, DynamicEncoding):
        return None
    return float(np.min(encoding.low)), float(np.max(encoding.high))
