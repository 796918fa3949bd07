"""How important weights and filters are: by their size, or by what the loss would lose (Taylor)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from qstudio.core.errors import UserError
from qstudio.data.dataset import Split
from qstudio.quant.evaluate import Report, feeds, predict
from qstudio.quant.network import Network

Values = Mapping[str, NDArray[np.floating]]


def norms(weight: NDArray[np.floating], axis: int, method: str) -> NDArray[np.float64]:
    """Return the size of each slice of a weight along an axis, for one weight of it, float64.

    L1: mean |w|; L2: sqrt(mean w^2). Within a layer that orders as the sum does (Li et al., 2017); for layers of
    different shape, coupled or ranked together, it compares like with like.

    Args:
        weight: Any shape.
        axis: 0 <= axis < weight.ndim.
        method: "l1_filter", "l2_channel", ...
    """
    rows = np.moveaxis(np.asarray(weight, np.float64), axis, 0).reshape(weight.shape[axis], -1)
    return np.abs(rows).mean(1) if method.startswith("l1") else np.sqrt(np.square(rows).mean(1))


def taylor_scores(
    network: Network,
    names: Iterable[str],
    split: Split,
    indices: NDArray[np.int64],
    reduce: Callable[[str, NDArray[np.float64]], NDArray[np.float64]],
    values: Values | None = None,
    report: Report | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return the importance of weights by the loss's first-order change: mean over batches of reduce(w dL/dw)^2.

    Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, equation 8. L is the cross entropy of the
    labels; where there are none, of the network's own decisions. The network runs in eval mode.

    Args:
        network: The float network.
        names: Initializers.
        split: Where the samples are.
        indices: Which samples.
        reduce: Called with (initializer, w dL/dw of its shape); what it returns is squared.
        values: Weights and biases that take the place of the network's own.
        report: Told the progress between batches; raises to stop.

    Raises:
        UserError: The network does not put out class scores.
    """
    if not network.gives_class_scores:
        raise UserError("Taylor pruning needs class scores", network.outputs[0], "Choose a method by magnitude or norm")
    device = network.executor.device
    replaced = {name: torch.tensor(np.asarray(v, np.float32), device=device) for name, v in (values or {}).items()}
    leaves = {name: replaced[name] if name in replaced else _own(network, name) for name in names}
    for leaf in leaves.values():
        leaf.requires_grad_()
    parameters: dict[str | tuple[str, str], torch.Tensor] = {}
    parameters.update(replaced)
    parameters.update(leaves)
    labels = _labels(network, split, indices)
    sums: dict[str, NDArray[np.float64]] = {}
    done = batches = 0
    network.executor.module.eval()
    with torch.enable_grad():
        for batch, inputs, _ in feeds(network, split, indices):
            if report is not None:
                report(done, len(indices))
            count = len(batch.indices)
            scores = network.executor.run(inputs, parameters=parameters)[network.outputs[0]][:count]
            wanted = torch.from_numpy(labels[done : done + count]).to(device)
            loss = F.cross_entropy(scores.reshape(count, -1), wanted)
            slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            for (name, leaf), slope in zip(leaves.items(), slopes, strict=True):
                change = (leaf.detach() * slope).double().cpu().numpy()
                sums[name] = sums.get(name, np.zeros(1)) + np.square(reduce(name, change))
            done += count
            batches += 1
    return {name: total / max(batches, 1) for name, total in sums.items()}


def _own(network: Network, name: str) -> torch.Tensor:
    return torch.tensor(network.value(name), device=network.executor.device)


def _labels(network: Network, split: Split, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels of samples, or the network's decisions where labels are missing or no classes of it."""
    if split.labels is not None:
        found = np.asarray(split.labels[indices], np.int64)
        classes = np.prod([size or 1 for size in (network.description.tensors[network.outputs[0]].shape or (1,))[1:]])
        if found.size and found.min() >= 0 and (found.max() < classes or classes <= 1):
            return found
    return predict(network, network.executor.run, split, indices).argmax(axis=1)
