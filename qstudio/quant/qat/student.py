"""The network that is trained: the folded float graph with trained parameters and trained quantizers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.affine import Encoding
from qstudio.core.training import Training
from qstudio.quant.encodings import Encodings
from qstudio.quant.executor import Observe, Parameters
from qstudio.quant.network import Network
from qstudio.quant.placement import fixed_encoding
from qstudio.quant.qat.quantizers import ActivationQuantizer, DorefaWeight, WeightQuantizer
from qstudio.quant.weight_ranges import weight_encoding

Values = Mapping[str, NDArray[np.floating]]
"""Float parameters by initializer name."""


class Student:
    """A network in training. Its parameters are leaves of its own; the network itself is not changed.

    Weights and biases of the layers are trained. BatchNormalization was folded before: its statistics are those of the
    float model from the first step on, and what its scales would adapt, the steps of each output channel do. A
    BatchNormalization that could not be folded keeps its statistics and its parameters.

    Args:
        network: The prepared float model.
        encodings: Where the quantizers start.
        values: Where weights and biases start; the network's own where a name is missing.
        training: Method and optimiser.
    """

    def __init__(self, network: Network, encodings: Encodings, values: Values, training: Training) -> None:
        self.network = network
        self.encodings = encodings
        device = network.executor.device
        relative = training.optimizer == "adam"

        def start(name: str) -> Tensor:
            known = values.get(name)
            return torch.tensor(np.asarray(network.value(name) if known is None else known, np.float32), device=device)

        self.weights: dict[str, WeightQuantizer | DorefaWeight] = {}
        self.plain: dict[str, Tensor] = {}
        """Leaves without a quantizer: biases, and weights that stay float."""
        for site in network.weight_sites:
            encoding = encodings.weights.get(site.id)
            scheme = encodings.schemes[site.id]
            if encoding is None:
                self.plain[site.id] = start(site.id).requires_grad_()
            elif training.method in ("dorefa", "pact") and DorefaWeight.suits(scheme.bits):
                self.weights[site.id] = DorefaWeight(encoding, start(site.id), scheme.bits)
            else:
                learned = training.method in ("lsq", "lsq+") and scheme.calibration != "manual"
                self.weights[site.id] = WeightQuantizer(encoding, start(site.id), learned, relative)
        for layer in network.layers:
            if layer.bias is not None and layer.bias.id not in self.plain:
                self.plain[layer.bias.id] = start(layer.bias.id).requires_grad_()
        self.activations: dict[str, ActivationQuantizer] = {}
        self.masks: dict[str, Tensor] = {}
        """Where weights were pruned: 0 where one stays zero, by site."""
        self._at: dict[str, ActivationQuantizer] = {}
        for site in network.activation_sites:
            if (encoding := encodings.activations.get(site.id)) is None:
                continue
            scheme = encodings.schemes[site.id]
            fixed = scheme.calibration == "manual" or fixed_encoding(site, scheme) is not None
            quantizer = ActivationQuantizer(encoding, training.method, relative, device, fixed)
            self.activations[site.id] = quantizer
            self._at.update(dict.fromkeys(site.quantized_at or (site.id,), quantizer))

    def parameters(self) -> Parameters:
        """Return the rounded weights and the biases as the executor takes them, differentiable by the leaves."""
        found: dict[str | tuple[str, str], Tensor] = {name: leaf for name, leaf in self.plain.items()}  # noqa: C416
        found.update({site: weight.values() for site, weight in self.weights.items()})
        return found

    def run(
        self, inputs: Mapping[str, Tensor], observe: Observe | None = None, parameters: Parameters | None = None
    ) -> dict[str, Tensor]:
        """Compute the outputs of one batch.

        Args:
            inputs: ONNX input name to tensor.
            observe: Sees the tensors after rounding.
            parameters: What `parameters()` returned, where it is used for more than one batch.
        """
        return self.network.executor.run(
            inputs, observe=observe, transform=self._transform, parameters=parameters or self.parameters()
        )

    def _transform(self, tensor: str, values: Tensor) -> Tensor:
        quantizer = self._at.get(tensor)
        return values if quantizer is None else quantizer(values)

    def weight_leaves(self) -> list[Tensor]:
        """Return the leaves that weight decay applies to."""
        kept = [self.plain[site.id] for site in self.network.weight_sites if site.id in self.plain]
        return [weight.leaf for weight in self.weights.values()] + kept

    def scale_leaves(self) -> list[Tensor]:
        """Return learned scales, clips and offsets."""
        found = [leaf for name, leaf in self.leaves().items() if name.rpartition(":")[2] not in ("weight", "plain")]
        return found

    def bias_leaves(self) -> list[Tensor]:
        """Return the biases."""
        weights = {site.id for site in self.network.weight_sites}
        return [leaf for name, leaf in self.plain.items() if name not in weights]

    def leaves(self) -> dict[str, Tensor]:
        """Return everything that is learned, by a name that stays the same."""
        found = {f"{name}:plain": leaf for name, leaf in self.plain.items()}
        for quantizers in (self.weights, self.activations):
            for site, quantizer in quantizers.items():
                found |= {f"{site}:{name}": leaf for name, leaf in quantizer.leaves().items()}
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint has to hold: what is learned, and the masks of pruned weights."""
        return self.leaves() | {f"{site}:mask": mask for site, mask in self.masks.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` returned."""
        with torch.no_grad():
            for name, leaf in self.leaves().items():
                leaf.copy_(tensors[name])
        ending, device = ":mask", self.network.executor.device
        self.prune({n.removesuffix(ending): t.to(device) for n, t in tensors.items() if n.endswith(ending)})

    def prune(self, masks: Mapping[str, Tensor]) -> None:
        """Set weights to zero, from now on for good.

        Args:
            masks: By site: 1 where a weight stays, in the weight's shape and type.
        """
        self.masks = dict(masks)
        self._hold_zeros()

    def _pruned_leaves(self) -> list[tuple[Tensor, Tensor]]:
        found = []
        for site, mask in self.masks.items():
            weight = self.weights.get(site)
            found.append((self.plain[site] if weight is None else weight.leaf, mask))
        return found

    def _hold_zeros(self) -> None:
        with torch.no_grad():
            for leaf, mask in self._pruned_leaves():
                leaf.mul_(mask)

    def mask_gradients(self) -> None:
        """Forget the gradients of pruned weights; call before each step of the optimiser, which clips their norm."""
        for leaf, mask in self._pruned_leaves():
            if leaf.grad is not None:
                leaf.grad.mul_(mask)

    def hold(self) -> None:
        """Keep scales positive and pruned weights zero; call after each step of the optimiser."""
        for weight in self.weights.values():
            weight.hold()
        for activation in self.activations.values():
            activation.hold()
        self._hold_zeros()

    def follow_weights(self) -> None:
        """Measure the ranges of weights with fixed scales again (STE), from their present values."""
        for site in self.network.weight_sites:
            weight = self.weights.get(site.id)
            if isinstance(weight, WeightQuantizer) and weight.scale is None:
                encoding = weight_encoding(self.encodings.schemes[site.id], site, weight.float_values())
                if encoding is not None:
                    weight.move_to(encoding)

    def pact_penalty(self) -> Tensor | None:
        """Return the sum of squares of PACT's clips, None where there are none."""
        clips = [q.alpha.value() for q in self.activations.values() if q.alpha is not None]
        return torch.stack(clips).square().sum() if clips else None

    def learned_encodings(self) -> Encodings:
        """Return the encodings as they are now."""
        return Encodings(
            {site: quantizer.encoding() for site, quantizer in self.activations.items()},
            {site: weight.encoding() for site, weight in self.weights.items()},
            self.encodings.schemes,
        )

    def float_values(self) -> dict[str, NDArray[np.float32]]:
        """Return weights and biases before rounding, as simulation and export take them."""
        return {
            **{name: leaf.detach().cpu().numpy().copy() for name, leaf in self.plain.items()},
            **{site: weight.float_values() for site, weight in self.weights.items()},
        }

    def latent_values(self) -> dict[str, NDArray[np.float32]]:
        """Return weights and biases as the next stage starts from them."""
        return {**self.float_values(), **{site: weight.latent_values() for site, weight in self.weights.items()}}

    def scales(self) -> tuple[tuple[str, float], ...]:
        """Return (site, scale) of every quantizer, the geometric mean where channels have their own."""

        def mean(encoding: Encoding) -> float:
            return float(np.exp(np.log(np.maximum(encoding.scale.astype(np.float64), 1e-300)).mean()))

        now = self.learned_encodings()
        return tuple(
            (site, mean(encoding)) for part in (now.activations, now.weights) for site, encoding in part.items()
        )
