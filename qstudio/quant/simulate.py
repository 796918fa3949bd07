"""The simulated quantized model: the float graph with values rounded where the exported file rounds them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.backends.qdq import adjust_weight_scales, bias_encodings
from qstudio.core.affine import Encoding, fake_quantize
from qstudio.core.encodings import DynamicEncoding, Other, OutlierEncoding
from qstudio.core.rounding import round_values
from qstudio.quant.encodings import Encodings
from qstudio.quant.executor import Observe, Parameters
from qstudio.quant.network import Network
from qstudio.quant.ordered import OrderedLayer
from qstudio.quant.quantizer import Rounder, make_quantizer, make_rounder


class SimulatedModel:
    """A network with encodings, ready to run.

    Weights and biases are rounded once, here: weights on their grid, biases on the int32 grid of the export. The
    scales of weights whose bias would overflow int32 are raised as the export does it.

    Args:
        network: The prepared float model.
        encodings: Of all quantized sites.
        weight_values: Float values that replace initializers before rounding (bias correction, AdaRound), by name.
        ordered: Take float sums in onnxruntime's order (see `qstudio.quant.ordered`), so that the simulation gives the
            bits of the unoptimised export. CPU only; 2.5 to 3 times the time; not differentiable.
        threads: Of the onnxruntime runs it is compared with; 0 = all cores.
    """

    def __init__(
        self,
        network: Network,
        encodings: Encodings,
        weight_values: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        ordered: bool = False,
        threads: int = 0,
    ) -> None:
        self.network = network
        self.activations: dict[str, Encoding] = encodings.activations
        self.others: dict[str, Other] = encodings.others
        """What is not affine, weights and activations, by site id."""
        self.weight_values = dict(weight_values or {})
        proto, layers = network.proto, network.layers
        self.weights: dict[str, Encoding] = adjust_weight_scales(
            proto, layers, encodings.activations, encodings.weights, self.weight_values
        )
        self.biases: dict[str, Encoding] = bias_encodings(proto, layers, encodings.activations, self.weights)
        """Layer name to int32 encoding."""
        self.parameters: Parameters = self._parameters()
        self._channels_last: Parameters | None = None
        self.quantizers: dict[str, Rounder] = self._quantizers()
        """ONNX tensor name to what rounds it."""
        self.ordered: dict[str, OrderedLayer] = self._ordered(threads) if ordered else {}
        """ONNX node to the layer that stands in for it."""

    def run(self, inputs: Mapping[str, Tensor], observe: Observe | None = None) -> dict[str, Tensor]:
        """Compute the outputs on one batch; `observe` sees tensors after rounding."""
        inputs, parameters = self.as_computed(inputs)
        return self.network.executor.run(
            inputs, observe=observe, rounders=self.quantizers, parameters=parameters, layers=self.ordered
        )

    def as_computed(self, inputs: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Parameters]:
        """Return inputs and parameters in the memory layout that `run` computes with."""
        if self.ordered:
            return inputs, self.parameters
        # A fifth faster on ResNet-20: convolutions then need not reorder what they read and write.
        if self._channels_last is None:
            self._channels_last = {name: _channels_last(value) for name, value in self.parameters.items()}
        return {name: _channels_last(value) for name, value in inputs.items()}, self._channels_last

    def transform(self, tensor: str, values: Tensor) -> Tensor:
        """Round a tensor if a quantizer sits on it."""
        quantizer = self.quantizers.get(tensor)
        return values if quantizer is None else quantizer(values)

    def _parameters(self) -> Parameters:
        device = self.network.executor.device
        parameters: dict[str | tuple[str, str], Tensor] = {}
        for name, values in self.weight_values.items():
            parameters[name] = torch.tensor(np.asarray(values, np.float32), device=device)
        for name, encoding in self.weights.items():
            weight = torch.tensor(np.asarray(self.float_value(name), np.float32), device=device)
            parameters[name] = make_quantizer(encoding, weight.shape, device)(weight)
        for site in self.network.weight_sites:
            if site.id in self.others:
                parameters[site.id] = torch.tensor(self.rounded_weight(site.id), device=device)
        for layer in self.network.layers:
            if layer.bias is not None and layer.name in self.biases:
                bias = fake_quantize(self.float_value(layer.bias.id), self.biases[layer.name])
                parameters[(layer.name, layer.bias.id)] = torch.tensor(bias, device=device)
        return parameters

    def _ordered(self, threads: int) -> dict[str, OrderedLayer]:
        executor = self.network.executor
        if executor.device.type != "cpu":
            return {}
        found = {}
        for step in executor.steps:
            if step.node.op == "call_module":
                module = executor.module.get_submodule(str(step.node.target))
                if OrderedLayer.suits(module):
                    replaced = executor.replaced(step, self.parameters)
                    own = dict(module.named_parameters()) | replaced
                    found[step.onnx_node] = OrderedLayer(module, own["weight"], own.get("bias"), threads)
        return found

    def float_value(self, initializer: str) -> NDArray[np.float32]:
        """Return a parameter before rounding."""
        values = self.weight_values.get(initializer)
        return self.network.value(initializer) if values is None else np.asarray(values, np.float32)

    def rounded_weight(self, site: str) -> NDArray[np.float32]:
        """Return a weight as the model computes with it; a float weight as it is."""
        values = self.float_value(site)
        encoding, other = self.weights.get(site), self.others.get(site)
        if encoding is not None:
            return fake_quantize(values, encoding)
        return values if other is None or isinstance(other, DynamicEncoding) else round_values(values, other)

    def _quantizers(self) -> dict[str, Rounder]:
        device = self.network.executor.device
        found: dict[str, Rounder] = {}
        for site in self.network.activation_sites:
            encoding, other = self.activations.get(site.id), self.others.get(site.id)
            quantizer: Rounder | None = None
            if encoding is not None:
                quantizer = make_quantizer(encoding, (), device)
            elif other is not None and not isinstance(other, OutlierEncoding):
                quantizer = make_rounder(other, device)
            if quantizer is not None:
                found.update(dict.fromkeys(site.quantized_at or (site.id,), quantizer))
        return found


def _channels_last(values: Tensor) -> Tensor:
    """Return values with the channels innermost in memory.

    By their strides, also where there is one channel (a grey image, a depthwise kernel) and both orders are the same
    memory: torch takes such a tensor for channels first, and then so is everything behind it.
    """
    if values.dim() != 4:
        return values
    found = values.contiguous(memory_format=torch.channels_last)
    channels, height, width = found.shape[1:]
    return found.as_strided(found.shape, (channels * height * width, 1, channels * width, channels))
