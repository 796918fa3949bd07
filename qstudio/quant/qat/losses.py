"""What training minimises: labels, the float model's answers, and its features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qstudio.core.training import Training
from qstudio.quant.evaluate import predict
from qstudio.quant.network import Network
from qstudio.quant.qat.samples import TrainingSamples


class Teacher:
    """The float model's answers to training samples.

    Args:
        network: The float model.
        samples: What is trained on; where they never vary, all answers are computed once.
        training: Says what is needed.
        student: The network that is trained, where that is another: features of pruned layers are not compared.
    """

    def __init__(
        self, network: Network, samples: TrainingSamples, training: Training, student: Network | None = None
    ) -> None:
        self._network = network
        self.features = feature_tensors(network) if training.feature_weight else ()
        if student is not None:
            own, other = network.description.tensors, student.description.tensors
            self.features = tuple(t for t in self.features if t in other and own[t].shape == other[t].shape)
        self.needed = bool(training.distill or training.feature_weight or samples.split.labels is None)
        self._scores: Tensor | None = None
        if self.needed and not self.features and not samples.varied:
            scores = predict(network, network.executor.run, samples.split, samples.trained)
            self._scores = torch.from_numpy(scores).to(network.executor.device)

    def answer(self, positions: np.ndarray, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (scores [N, K], features by tensor) of one batch."""
        if self._scores is not None:
            return self._scores[torch.from_numpy(positions).to(self._scores.device)], {}
        seen = Seen(self.features)
        with torch.no_grad():
            outputs = self._network.executor.run(inputs, observe=seen)
        scores = outputs[self._network.outputs[0]]
        return scores.reshape(len(scores), -1), seen.values


class Seen:
    """Keeps some tensors of a run; an `observe` hook."""

    def __init__(self, tensors: tuple[str, ...]) -> None:
        self._tensors = frozenset(tensors)
        self.values: dict[str, Tensor] = {}

    def __call__(self, tensor: str, values: Tensor) -> None:
        """Keep the tensor if it is one of those."""
        if tensor in self._tensors:
            self.values[tensor] = values


def feature_tensors(network: Network) -> tuple[str, ...]:
    """Return the tensors whose likeness to the float model's is trained for.

    The ends of residual blocks (what an Add puts out), and what the last layer with a weight reads.
    """
    weighted = [layer for layer in network.layers if layer.weight is not None]
    feeding = weighted[-1].inputs if weighted else ()
    found = []
    for layer in network.layers:
        if layer.activation is not None and (layer.op_type == "Add" or layer.name in feeding):
            found.append((layer.activation.quantized_at or (layer.activation.id,))[0])
    return tuple(found)


def loss_of(
    scores: Tensor,
    labels: Tensor | None,
    teacher_scores: Tensor | None,
    features: Mapping[str, Tensor],
    teacher_features: Mapping[str, Tensor],
    training: Training,
) -> Tensor:
    """Return the loss of one batch, a scalar.

    (1 - d) CE(scores, labels) + d T^2 KL(softmax(teacher / T) | softmax(scores / T)) + f mean(|h - h_t|^2 / |h_t|^2),
    with d the share of distillation (1 without labels), T its temperature (Hinton et al., 2015), f the feature weight.
    """
    share = 1.0 if labels is None else training.distill
    total = scores.new_zeros(())
    if labels is not None and share < 1.0:
        total = total + (1.0 - share) * F.cross_entropy(scores, labels)
    if share and teacher_scores is not None:
        warm = training.temperature
        total = total + share * warm**2 * divergence(scores / warm, teacher_scores / warm)
    for name, wanted in teacher_features.items():
        difference = (features[name] - wanted).square().sum() / wanted.square().sum().clamp_min(1e-12)
        total = total + training.feature_weight / len(teacher_features) * difference
    return total


def divergence(scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the softmaxes, teacher first, in nats."""
    return F.kl_div(
        F.log_softmax(scores, dim=1), F.log_softmax(teacher_scores, dim=1), reduction="batchmean", log_target=True
    )
