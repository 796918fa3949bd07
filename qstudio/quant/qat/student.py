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
from qstudio.quant.qat.batchnorm import UNFOLDED, FileNorm, KeptNorm, check_granularity
from qstudio.quant.qat.quantizers import ActivationQuantizer, DorefaWeight, WeightQuantizer
from qstudio.quant.weight_ranges import weight_encoding

Values = Mapping[str, NDArray[np.floating]]
"""Float parameters by initializer name."""


class Student:
    """A network in training. Its parameters are leaves of its own; the network itself is not changed.

    Weights and biases of the layers are trained. A BatchNormalization was folded before: its statistics are those of
    the float model from the first step on, and what its scales would adapt, the steps of each output channel do. One
    that is kept instead is trained as what it is (see `qstudio.quant.qat.batchnorm`). One that could not be folded
    keeps its statistics and its parameters.

    Args:
        network: The prepared float model.
        encodings: Where the quantizers start.
        values: Where weights and biases start; the network's own where a name is missing.
        training: Method and optimiser.
        norms: Of each BatchNormalization that is kept, by the site of the weight it is folded into.

    Raises:
        UserError: A weight's rounding cannot take the gain of a normalisation.
    """

    def __init__(
        self,
        network: Network,
        encodings: Encodings,
        values: Values,
        training: Training,
        norms: Mapping[str, FileNorm] | None = None,
    ) -> None:
        self.network = network
        self.encodings = encodings
        device = network.executor.device
        relative = training.optimizer == "adam"

        def start(name: str) -> Tensor:
            known = values.get(name)
            return torch.tensor(np.asarray(network.value(name) if known is None else known, np.float32), device=device)

        self.norms: dict[str, KeptNorm] = {}
        """BatchNormalization that is kept, by weight site."""
        for site in network.weight_sites:
            if norms is not None and site.id in norms and site.channel_axis is not None:
                self.norms[site.id] = KeptNorm(norms[site.id], site.channel_axis, values, device)

        def start_weight(name: str) -> Tensor:
            if name not in self.norms:
                return start(name)
            known = values.get(f"{name}:{UNFOLDED}")
            return torch.tensor(self.norms[name].start.weight if known is None else known, device=device)

        self.weights: dict[str, WeightQuantizer | DorefaWeight] = {}
        self.plain: dict[str, Tensor] = {}
        """Leaves without a quantizer: biases, and weights that stay float."""
        for site in network.weight_sites:
            encoding = encodings.weights.get(site.id)
            scheme = encodings.schemes[site.id]
            if encoding is None:
                self.plain[site.id] = start_weight(site.id).requires_grad_()
            elif training.method in ("dorefa", "pact") and DorefaWeight.suits(scheme.bits):
                if site.id in self.norms:
                    check_granularity(self.norms[site.id].start, encoding.axis)
                self.weights[site.id] = DorefaWeight(encoding, start_weight(site.id), scheme.bits)
            else:
                learned = training.method in ("lsq", "lsq+") and scheme.calibration != "manual"
                norm = self.norms.get(site.id)
                gain = None if norm is None else norm.spread(norm.gain())
                self.weights[site.id] = WeightQuantizer(encoding, start_weight(site.id), learned, relative, gain)
        normalised = {norm.start.bias_site for norm in self.norms.values()}
        for layer in network.layers:
            if layer.bias is not None and layer.bias.id not in self.plain and layer.bias.id not in normalised:
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
        """Return the rounded weights and the biases as the executor takes them, differentiable by the leaves.

        BatchNormalization that is kept is folded into them, as it is deployed.
        """
        return self._folded(self._gains())

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
            inputs, observe=observe, rounders=self._at, parameters=parameters or self.parameters()
        )

    def run_live(self, inputs: Mapping[str, Tensor], observe: Observe | None = None) -> dict[str, Tensor]:
        """Compute the outputs of one batch as `run` does, normalised with the batch's own statistics.

        The running statistics of each BatchNormalization that is kept move.
        """
        executor, gains = self.network.executor, self._gains()
        parameters = self._folded(gains)
        by_layer = {norm.start.layer: (site, norm) for site, norm in self.norms.items()}
        layers = {}
        for step in executor.steps:
            if step.node.op == "call_module" and step.onnx_node in by_layer:
                site, norm = by_layer[step.onnx_node]
                module = executor.module.get_submodule(str(step.node.target))
                bias = parameters[norm.start.bias_site]
                layers[step.onnx_node] = norm.live_layer(module, step, parameters[site], gains[site], bias)
        return executor.run(inputs, observe=observe, rounders=self._at, parameters=parameters, layers=layers)

    def _gains(self) -> dict[str, Tensor]:
        """Return what the weights of layers with a BatchNormalization are multiplied by, [C], by site."""
        return {site: norm.gain() for site, norm in self.norms.items()}

    def _folded(self, gains: Mapping[str, Tensor]) -> Parameters:
        found: dict[str | tuple[str, str], Tensor] = {name: leaf for name, leaf in self.plain.items()}  # noqa: C416
        found.update({site: weight.values(self._gain(site, gains)) for site, weight in self.weights.items()})
        for site, norm in self.norms.items():
            if site in self.plain:
                found[site] = self.plain[site] * norm.spread(gains[site])
            found[norm.start.bias_site] = norm.bias(gains[site])
        return found

    def _gain(self, site: str, gains: Mapping[str, Tensor]) -> Tensor | None:
        return self.norms[site].spread(gains[site]) if site in gains else None

    def weight_leaves(self) -> list[Tensor]:
        """Return the leaves that weight decay applies to."""
        kept = [self.plain[site.id] for site in self.network.weight_sites if site.id in self.plain]
        return [weight.leaf for weight in self.weights.values()] + kept

    def scale_leaves(self) -> list[Tensor]:
        """Return learned scales, clips and offsets."""
        others = ("weight", "plain", "gamma", "beta")
        return [leaf for name, leaf in self.leaves().items() if name.rpartition(":")[2] not in others]

    def bias_leaves(self) -> list[Tensor]:
        """Return the biases, and scales and shifts of BatchNormalization."""
        weights = {site.id for site in self.network.weight_sites}
        normed = [leaf for norm in self.norms.values() for leaf in norm.leaves().values()]
        return [leaf for name, leaf in self.plain.items() if name not in weights] + normed

    def leaves(self) -> dict[str, Tensor]:
        """Return everything that is learned, by a name that stays the same."""
        found = {f"{name}:plain": leaf for name, leaf in self.plain.items()}
        for owners in (self.weights, self.activations, self.norms):
            for site, owner in owners.items():
                found |= {f"{site}:{name}": leaf for name, leaf in owner.leaves().items()}
        return found

    def _statistics(self) -> dict[str, Tensor]:
        return {f"{site}:{name}": t for site, norm in self.norms.items() for name, t in norm.statistics().items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to hold: what is learned, running statistics, the masks of pruned weights."""
        return self.leaves() | self._statistics() | {f"{site}:mask": mask for site, mask in self.masks.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` returned."""
        with torch.no_grad():
            for name, leaf in (self.leaves() | self._statistics()).items():
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
        gains = self._gains()
        for site in self.network.weight_sites:
            weight = self.weights.get(site.id)
            if isinstance(weight, WeightQuantizer) and weight.scale is None:
                gain = self._gain(site.id, gains)
                encoding = weight_encoding(self.encodings.schemes[site.id], site, weight.float_values(gain))
                if encoding is not None:
                    weight.move_to(encoding, gain)

    def pact_penalty(self) -> Tensor | None:
        """Return the sum of squares of PACT's clips, None where there are none."""
        clips = [q.alpha.value() for q in self.activations.values() if q.alpha is not None]
        return torch.stack(clips).square().sum() if clips else None

    def learned_encodings(self) -> Encodings:
        """Return the encodings as they are now."""
        gains = self._gains()
        return Encodings(
            {site: quantizer.encoding() for site, quantizer in self.activations.items()},
            {site: weight.encoding(self._gain(site, gains)) for site, weight in self.weights.items()},
            self.encodings.schemes,
        )

    def float_values(self) -> dict[str, NDArray[np.float32]]:
        """Return weights and biases before rounding, as simulation and export take them: all folded."""
        gains = self._gains()
        return {
            **self._plain_values(gains),
            **{site: weight.float_values(self._gain(site, gains)) for site, weight in self.weights.items()},
        }

    def latent_values(self) -> dict[str, NDArray[np.float32]]:
        """Return weights and biases as the next stage starts from them, beside them what each is folded from."""
        gains = self._gains()
        found = self._plain_values(gains)
        for site, weight in self.weights.items():
            found[site] = weight.latent_values(self._gain(site, gains))
        for site, norm in self.norms.items():
            found |= norm.state()
            unfolded = self.weights[site].latent_values() if site in self.weights else _copied(self.plain[site])
            found[f"{site}:{UNFOLDED}"] = unfolded
        return found

    def _plain_values(self, gains: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        found = {name: _copied(leaf) for name, leaf in self.plain.items()}
        for site, norm in self.norms.items():
            if site in self.plain:
                found[site] = _copied(self.plain[site] * norm.spread(gains[site]))
            found[norm.start.bias_site] = _copied(norm.bias(gains[site]))
        return found

    def scales(self) -> tuple[tuple[str, float], ...]:
        """Return (site, scale) of every quantizer, the geometric mean where channels have their own."""

        def mean(encoding: Encoding) -> float:
            return float(np.exp(np.log(np.maximum(encoding.scale.astype(np.float64), 1e-300)).mean()))

        now = self.learned_encodings()
        return tuple(
            (site, mean(encoding)) for part in (now.activations, now.weights) for site, encoding in part.items()
        )


def _copied(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().cpu().numpy().copy()
