"""The trace of the loss's Hessian along each layer's weight, by Hutchinson's estimator and without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.model_info import SiteInfo
from qstudio.core.sensitivity import HessianTrace, are_probabilities
from qstudio.data.dataset import Split
from qstudio.quant.evaluate import Report, feeds, run_in_words
from qstudio.quant.network import Network

PROBES = 4
"""Rademacher vectors for each sample."""

_AT_ONCE = 4
"""Samples of one backward pass. Gradients of different samples point alike, so a pass over many of them has hardly
less spread than one over few: the same work in small passes gives a standard error smaller by the root of their number.
"""


def hessian_traces(
    network: Network,
    sites: Sequence[SiteInfo],
    split: Split,
    indices: NDArray[np.int64],
    *,
    probes: int = PROBES,
    seed: int = 0,
    report: Report | None = None,
) -> dict[str, HessianTrace]:
    """Return the trace of each weight's block of the Hessian, by site id.

    The loss is the mean cross entropy with the float model's own probabilities p as targets. There its gradient is
    zero, so that its Hessian is exactly J^T A J / N with J the Jacobian of the logits and A = diag(p) - p p^T of each
    sample (it is also the Fisher information). With A = S S^T, S = diag(sqrt p) - p sqrt(p)^T, and u of independent
    signs, E |J_i^T S u|^2 = Tr(J_i^T A J_i): Hutchinson's estimator with Rademacher probes, taken at the outputs, so
    that one backward pass serves all layers, no second derivative is needed, and layers do not mix. (Hutchinson, 1990;
    HAWQ-V2, Dong et al., 2020, takes its probes at the weights; the expectation is the same.)

    A network without class scores is judged by half its squared error, whose A is 1.

    Args:
        network: The float model.
        sites: Weights.
        split: Where the samples are.
        indices: Which samples.
        probes: Rademacher vectors for each sample.
        seed: Of the probes.
        report: Told (samples done, all samples) between batches; raises to stop.

    Raises:
        UserError: The samples do not fit the model.
    """
    executor = network.executor
    draw = torch.Generator(device="cpu").manual_seed(seed)
    total, variance = np.zeros(len(sites)), np.zeros(len(sites))
    done = 0
    with executor.evaluating(), torch.inference_mode(False), torch.enable_grad():
        leaves: dict[str | tuple[str, str], Tensor] = {
            site.id: torch.tensor(network.value(site.id), device=executor.device, requires_grad=True) for site in sites
        }
        for batch, whole, _ in feeds(network, split, indices):
            for inputs, count in _passes(network, whole, len(batch.indices)):
                if report is not None:
                    report(done, len(indices))

                def run(fed: Mapping[str, Tensor]) -> dict[str, Tensor]:
                    return executor.run(fed, parameters=leaves)

                scores = run_in_words(run, inputs)[network.outputs[0]][:count].reshape(count, -1)
                root = _root(scores.detach(), network.gives_class_scores)
                found = np.zeros((probes, len(sites)))
                for probe in range(probes):
                    signs = torch.randint(0, 2, scores.shape, generator=draw).to(scores) * 2 - 1
                    gradients = torch.autograd.grad(
                        scores, list(leaves.values()), root(signs), retain_graph=probe + 1 < probes, allow_unused=True
                    )
                    found[probe] = [0.0 if g is None else float((g.double() ** 2).sum()) for g in gradients]
                total += found.mean(axis=0)
                variance += found.var(axis=0, ddof=1) / probes if probes > 1 else 0.0
                done += count
    if report is not None:
        report(done, len(indices))
    samples = max(len(indices), 1)
    return {
        site.id: HessianTrace(
            site.layer,
            float(total[place] / samples),
            float(np.sqrt(variance[place]) / samples),
            int(np.prod(network.value(site.id).shape)),
        )
        for place, site in enumerate(sites)
    }


def _passes(network: Network, inputs: Mapping[str, Tensor], count: int) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield the samples of a batch in small parts, or whole where the file fixes the batch."""
    if network.fixed_batch is not None:
        yield dict(inputs), count
        return
    for start in range(0, count, _AT_ONCE):
        yield {name: values[start : start + _AT_ONCE] for name, values in inputs.items()}, min(_AT_ONCE, count - start)


class _Root:
    """Multiplies by S, a root of the loss's second derivative by the outputs: S S^T = A."""

    def __init__(self, scale: Tensor, p: Tensor | None) -> None:
        self._scale, self._p = scale, p

    def __call__(self, signs: Tensor) -> Tensor:
        """Return S u for every sample, [N, K]."""
        scaled = self._scale * signs
        return scaled if self._p is None else scaled - self._p * scaled.sum(dim=1, keepdim=True)


def _root(scores: Tensor, is_class_scores: bool) -> _Root:
    if not is_class_scores or scores.shape[1] < 2:
        return _Root(torch.ones_like(scores), None)
    if are_probabilities(scores.cpu().numpy()):
        # The output of a Softmax: the second derivative of -sum p log y at y = p is 1 / p.
        return _Root(scores.clamp_min(1e-12).rsqrt(), None)
    p = torch.softmax(scores, dim=1)
    return _Root(p.sqrt(), p)
