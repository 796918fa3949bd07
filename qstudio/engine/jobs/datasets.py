"""Jobs that look at data: open it, show samples as the network sees them."""

from __future__ import annotations

import numpy as np

from qstudio.core.context import JobContext
from qstudio.core.dataset_types import DatasetInfo
from qstudio.core.errors import UserError
from qstudio.core.model_info import ModelInfo
from qstudio.data.checks import check_against_model
from qstudio.data.dataset import Dataset, Split
from qstudio.engine.jobs.resident import opened_dataset, opened_model
from qstudio.engine.messages import LookAtSamples, OpenDataset, SamplePage

_NUMPY_NAMES = {"float": "float32", "double": "float64"}
"""ONNX's words for types that numpy calls otherwise."""


def open_dataset(request: OpenDataset, ctx: JobContext) -> DatasetInfo:
    """Read data, check it against the model if one is named, and describe it.

    Raises:
        UserError: The data cannot be read, or does not fit the model.
    """
    dataset = opened_dataset(request.data)
    if request.model:
        check_fit(dataset, opened_model(request.model).info)
    return dataset.describe()


def check_fit(dataset: Dataset, model: ModelInfo) -> None:
    """Refuse data that the model cannot take.

    Raises:
        UserError: Names what does not fit and what to do.
    """
    if len(model.inputs) != 1:
        raise UserError(
            f"the model has {len(model.inputs)} inputs, the data is for one", model.name, "Open a model with one input"
        )
    tensors = model.graph.tensors
    given, answered = tensors.get(model.inputs[0]), tensors.get(model.outputs[0]) if model.outputs else None
    check_against_model(
        dataset,
        model.input_shape,
        _NUMPY_NAMES.get(given.dtype, given.dtype) if given is not None else "float32",
        (answered.shape or ()) if answered is not None else (),
    )


def look_at_samples(request: LookAtSamples, ctx: JobContext) -> SamplePage:
    """Return samples of the evaluation split, as stored and as the network sees them, with the float model's answers.

    Indices beyond the end are left out. A model that cannot run, or whose answer is not a row of class scores, gives no
    predictions.

    Raises:
        UserError: The data or the model cannot be read, or do not fit.
    """
    dataset = opened_dataset(request.data)
    split = dataset.test
    indices = tuple(i for i in request.indices if 0 <= i < len(split))
    network = split.batch(indices) if indices else ()
    classes, confidences = _answers(request.model, dataset, indices)
    return SamplePage(
        indices,
        tuple(split.raw(i) for i in indices),
        tuple(network),
        tuple(_label(split, i) for i in indices),
        classes,
        confidences,
        dataset.class_names,
    )


def _label(split: Split, index: int) -> int | None:
    if split.labels is None or split.labels.ndim != 1:
        return None
    return int(split.labels[index])


def _answers(
    path: str, dataset: Dataset, indices: tuple[int, ...]
) -> tuple[tuple[int | None, ...], tuple[float | None, ...]]:
    """Return the float model's class and its softmax score for each sample; None where there are none."""
    nothing = (None,) * len(indices)
    if not path or not indices:
        return nothing, nothing
    model = opened_model(path)
    if not model.info.runnable:
        return nothing, nothing
    check_fit(dataset, model.info)
    from qstudio.quant.evaluate import predict
    from qstudio.quant.network import network_for

    network = network_for(model.loaded)
    scores = predict(network, network.executor.run, dataset.test, np.asarray(indices, np.int64)).astype(np.float64)
    if scores.shape[1] < 2:
        return nothing, nothing
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = powers.max(axis=1) / powers.sum(axis=1)
    return tuple(int(best) for best in scores.argmax(axis=1)), tuple(float(share) for share in shares)
