"""Run a network, float or simulated, over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.errors import UserError
from qstudio.core.metrics import classification_metrics
from qstudio.core.results import Metrics
from qstudio.data.dataset import Batch, Split
from qstudio.quant.keep import Kept
from qstudio.quant.network import Network

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
Report = Callable[[int, int], None]
"""Called with (samples done, all samples) between batches; raises to stop."""

LARGEST_BATCH = 64
"""Samples computed at a time; fixed, because sums of floats depend on it in the last bit."""
_BATCH_ELEMENTS = 2**18
"""Input elements of a batch: 64 images of 3x32x32, one of 3x224x224 and more of what lies between."""

_float_scores: Kept[NDArray[np.float32]] = Kept(8, 2**28, lambda scores: scores.nbytes)


def batch_size(network: Network, split: Split) -> int:
    """Return the samples of one batch: what the file demands, else a power of two by the size of a sample."""
    if network.fixed_batch is not None:
        return network.fixed_batch
    elements = int(np.prod(split.sample_shape)) or 1
    fitting = max(_BATCH_ELEMENTS // elements, 1)
    return min(LARGEST_BATCH, 1 << (fitting.bit_length() - 1))


def feeds(network: Network, split: Split, indices: NDArray[np.int64]) -> Iterator[tuple[Batch, dict[str, Tensor], int]]:
    """Yield (batch, inputs for the executor, rows) for all samples, in order.

    A model with a fixed batch size gets its last batch filled up with its last sample: `rows` then exceeds the
    batch's number of samples, and what the surplus rows bring is to be dropped.

    Raises:
        UserError: The model has more than one input, or a sample cannot be read.
    """
    if len(network.inputs) != 1:
        names = ", ".join(network.inputs)
        raise UserError(f"the model has {len(network.inputs)} inputs ({names})", "data", "Choose a one-input model")
    size = batch_size(network, split)
    for batch in split.batches(indices, size):
        values = batch.inputs
        if network.fixed_batch is not None and len(values) < size:
            values = np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(network.executor.device)
        yield batch, {network.inputs[0]: tensor}, len(values)


def predict(
    network: Network, run: Run, split: Split, indices: NDArray[np.int64], report: Report | None = None
) -> NDArray[np.float32]:
    """Return the first output for every sample as [N, K] (further axes are flattened).

    Args:
        network: Says which inputs and outputs there are.
        run: `network.executor.run` or `SimulatedModel.run`.
        split: Where the samples are.
        indices: Which samples.
        report: Told the progress between batches.

    Raises:
        UserError: The samples do not fit the model.
    """
    rows: list[NDArray[Any]] = []
    done = 0
    with network.executor.evaluating():
        for batch, inputs, _ in feeds(network, split, indices):
            if report is not None:
                report(done, len(indices))
            output = run_in_words(run, inputs)[network.outputs[0]]
            rows.append(output[: len(batch.indices)].reshape(len(batch.indices), -1).float().cpu().numpy())
            done += len(batch.indices)
    if report is not None:
        report(done, len(indices))
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def run_in_words(run: Run, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run one batch, and say in words when the data do not fit the model."""
    try:
        return run(inputs)
    except RuntimeError as error:
        (values,) = inputs.values()
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"the model cannot run on data of shape {list(values.shape)} ({reason})", "data", "Choose fitting data"
        ) from error


def float_predictions(
    network: Network, split: Split, indices: NDArray[np.int64], key: str, report: Report | None = None
) -> NDArray[np.float32]:
    """Return the float model's outputs, computed once for a model, data and device.

    Args:
        network: The model.
        split: Where the samples are.
        indices: Which samples.
        key: From `qstudio.quant.keep.samples_key`.
        report: Told the progress between batches.
    """
    full_key = (network.sha256, network.device, key)
    known = _float_scores.get(full_key)
    if known is not None:
        return known
    return _float_scores.put(full_key, predict(network, network.executor.run, split, indices, report))


def keep_float_predictions(network: Network, key: str, scores: NDArray[np.float32]) -> None:
    """Let `float_predictions` know what `predict` has given for the float model and all samples of a key."""
    _float_scores.put((network.sha256, network.device, key), scores)


def metrics_of(
    network: Network,
    scores: NDArray[np.floating],
    split: Split,
    indices: NDArray[np.int64],
    float_scores: NDArray[np.floating] | None,
) -> Metrics:
    """Return the metrics of [N, K] scores; labels count where they can be classes of these scores.

    Raises:
        UserError: There are no samples.
    """
    if not len(indices):
        raise UserError("there are no samples to evaluate", "data", "Choose more samples")
    labels = None if split.labels is None or not network.gives_class_scores else split.labels[indices]
    if labels is not None and (scores.shape[1] < 2 or labels.min() < 0 or labels.max() >= scores.shape[1]):
        labels = None
    return classification_metrics(scores, labels, float_scores)
