"""BatchNormalization that is kept while a network is trained, and folded into its layer at every moment that counts.

With w the weight, gamma and beta the normalisation's scale and shift, mu and sigma its running statistics, a layer is
deployed as

    y = conv(x, Q(w gamma / sigma)) + beta - mu gamma / sigma,   sigma = sqrt(variance + epsilon),

Q being the weight's quantizer: its scales fit the weight that will be folded. While batches are normalised with their
own statistics mu_B and sigma_B, the same rounded weight is used and the result is corrected by sigma / sigma_B
(Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018, section 3.2.2 and figure 8):

    y = sigma / sigma_B conv(x, Q(w gamma / sigma)) + beta - mu_B gamma / sigma_B.

That is the usual normalisation of conv(x, Q(w gamma / sigma) sigma / gamma), and so it is computed: one convolution,
one normalisation. The statistics are those of the rounded weight (as in torch.ao.nn.intrinsic.qat), which is the one
that is deployed.

Measured with LSQ, distillation and two seeds, top-1 in percent, folded / live: digits_resnet W2A2, 40 epochs, 98.3 and
97.8 / 98.8 and 98.3; digits_mobilenet W2A2, 15 epochs, 76.9 and 63.0 / 75.9 and 77.6 (301 test samples, so that one
point is within chance); ResNet-20 W2A2, 3 epochs of 3,600 images, one seed, 26.9 / 36.8 (3,000 test images). A step
takes 1.15 times that of a folded network (ResNet-20, batch 64, one thread).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qstudio.core.errors import UserError
from qstudio.graph.prepare import initializer_array, prepare
from qstudio.quant.executor import Step
from qstudio.quant.network import Network

Values = Mapping[str, NDArray[np.floating]]

UNFOLDED = "unfolded"
"""Name of a weight before folding among the values that a stage starts from: "site:unfolded"."""

_SMALLEST_GAIN = 1e-12
"""gamma / sigma of a channel is never nearer to 0, so that it can be divided by."""


@dataclass(frozen=True, eq=False)
class FileNorm:
    """A BatchNormalization as the file has it, beside the layer it is folded into.

    weight: before folding, in the layer's shape. gamma, beta, mean, variance: [C]. mean: of the layer without its bias,
    which a normalisation takes out again.
    """

    layer: str
    weight_site: str
    bias_site: str
    weight: NDArray[np.float32]
    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    epsilon: float
    momentum: float
    """Share of the old running statistics that stays at each step, as ONNX has it."""


def file_norms(proto: onnx.ModelProto, network: Network) -> tuple[dict[str, FileNorm], tuple[str, ...]]:
    """Return the normalisations that were folded into a network's layers, by weight site, and notes on those left out.

    Args:
        proto: The model before it was prepared.
        network: Made from it, BatchNormalization folded.
    """
    pairs = prepare(proto).folded
    unfolded = prepare(proto, fold_batchnorm=False).proto
    nodes = {node.name: node for node in unfolded.graph.node}
    layers = {layer.name: layer for layer in network.layers}
    times = Counter(target for _, target in pairs)
    found: dict[str, FileNorm] = {}
    notes: list[str] = []
    for name, target in pairs:
        layer = layers[target]
        if layer.weight is None or layer.bias is None or times[target] > 1:
            notes.append(f"{name} is folded while training: {target} has no bias of its own to fold it into")
            continue
        found[layer.weight.id] = _file_norm(unfolded, nodes[name], nodes[target], layer.weight.id, layer.bias.id)
    return found, tuple(notes)


def _file_norm(
    proto: onnx.ModelProto, norm: onnx.NodeProto, target: onnx.NodeProto, weight_site: str, bias_site: str
) -> FileNorm:
    gamma, beta, mean, variance = (initializer_array(proto, name).astype(np.float64) for name in norm.input[1:5])
    chosen = {a.name: onnx.helper.get_attribute_value(a) for a in (*norm.attribute, *target.attribute)}
    if len(target.input) > 2 and target.input[2]:
        mean = mean - initializer_array(proto, target.input[2]).astype(np.float64) * chosen.get("beta", 1.0)
    return FileNorm(
        layer=target.name,
        weight_site=weight_site,
        bias_site=bias_site,
        weight=initializer_array(proto, target.input[1]).astype(np.float32),
        gamma=gamma.astype(np.float32),
        beta=beta.astype(np.float32),
        mean=mean.astype(np.float32),
        variance=variance.astype(np.float32),
        epsilon=float(chosen.get("epsilon", 1e-5)),
        momentum=float(chosen.get("momentum", 0.9)),
    )


class KeptNorm:
    """A BatchNormalization in training.

    Args:
        start: As the file has it.
        axis: Of the weight: along its channels.
        values: Where scale, shift and statistics start, by the names of `state`; the file's own where one is missing.
        device: Where the tensors are.
    """

    def __init__(self, start: FileNorm, axis: int, values: Values, device: torch.device) -> None:
        self.start = start

        def tensor(name: str) -> Tensor:
            known = values.get(f"{start.weight_site}:{name}")
            return torch.tensor(np.asarray(getattr(start, name) if known is None else known), device=device)

        self.gamma, self.beta = tensor("gamma").requires_grad_(), tensor("beta").requires_grad_()
        self.mean, self.variance = tensor("mean"), tensor("variance")
        self._axis = axis

    def leaves(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""
        return {"gamma": self.gamma, "beta": self.beta}

    def statistics(self) -> dict[str, Tensor]:
        """Return the running statistics by name."""
        return {"mean": self.mean, "variance": self.variance}

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of everything that another stage of training starts from, by "site:name"."""
        tensors = self.leaves() | self.statistics()
        return {f"{self.start.weight_site}:{n}": t.detach().cpu().numpy().copy() for n, t in tensors.items()}

    def gain(self) -> Tensor:
        """Return gamma / sqrt(variance + epsilon), [C], never 0."""
        gain = self.gamma / (self.variance + self.start.epsilon).sqrt()
        return torch.where(gain.abs() < _SMALLEST_GAIN, _SMALLEST_GAIN, gain)

    def spread(self, gain: Tensor) -> Tensor:
        """Return a gain so that it broadcasts against the weight."""
        return gain.reshape([-1 if i == self._axis else 1 for i in range(self.start.weight.ndim)])

    def bias(self, gain: Tensor) -> Tensor:
        """Return the bias that is folded into the layer, [C]."""
        return self.beta - self.mean * gain

    def normalise(self, y: Tensor) -> Tensor:
        """Normalise what the layer puts out, [N, C, ...], with its own statistics, which move the running ones."""
        running = self.start
        return F.batch_norm(
            y, self.mean, self.variance, self.gamma, self.beta, True, 1.0 - running.momentum, running.epsilon
        )

    def live_layer(
        self, module: nn.Module, step: Step, weight: Tensor, gain: Tensor, bias: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """Return what stands in for a layer while batches are normalised with their own statistics.

        Args:
            module: The layer, folded.
            step: Of the layer in the executor; names the module's parameters.
            weight: Rounded as folded.
            gain: What was folded into it.
            bias: That of the folded layer, for a batch of one value in each channel, which has no deviation.
        """
        sites = {self.start.weight_site: weight / self.spread(gain), self.start.bias_site: torch.zeros_like(bias)}
        live = {attribute: sites[name] for attribute, name in step.parameters}
        folded = {self.start.weight_site: weight, self.start.bias_site: bias}

        def layer(x: Tensor) -> Tensor:
            y = torch.func.functional_call(module, live, (x,))
            if y.numel() > y.shape[1]:
                return self.normalise(y)
            return torch.func.functional_call(module, {a: folded[name] for a, name in step.parameters}, (x,))

        return layer


def check_granularity(norm: FileNorm, axis: int | None) -> None:
    """Refuse a weight whose rounding cannot take the gain of a normalisation.

    Raises:
        UserError: DoReFa rounds the weight with one scale for all channels.
    """
    if axis is None:
        raise UserError(
            "DoReFa's weights take the gain of a BatchNormalization as a scale of each channel, and here is one scale",
            norm.layer,
            "Choose a scale per channel, the method lsq, or BatchNorm folded",
        )
