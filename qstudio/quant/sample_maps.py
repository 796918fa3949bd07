"""Layer outputs as pictures: a few channels, averaged down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.inspection import LayerMaps
from qstudio.core.metrics import sqnr_db
from qstudio.core.model_info import LayerInfo
from qstudio.quant.class_flips import Values, output_tensor
from qstudio.quant.network import Network
from qstudio.quant.weight_pictures import averaged

VECTOR_VALUES = 4096
"""Values of a vector that are kept one by one."""

_LONG = 4
"""Times as long as wide, and more: such a picture would be averaged away across."""

STORED_SIDE = 512
"""Pixels of the stored sample along a side; larger ones are thinned out."""


@dataclass(frozen=True)
class MapSize:
    """How much of a layer's output is shown, the fields of `qstudio.engine.messages.TraceSample`."""

    max_channels: int = 16
    max_side: int = 64


@dataclass(frozen=True, eq=False)
class LayerValues:
    """What one layer puts out for the sample, whole."""

    layer: LayerInfo
    tensor: str
    sqnr_db: float
    float: NDArray[np.float32]
    """Without the batch axis."""
    quantized: NDArray[np.float32]
    channel_axis: int | None
    """Of these values; None where they have no channels."""


def layer_values(network: Network, floats: Values, quantized: Values, rows: int) -> tuple[LayerValues, ...]:
    """Return what each layer puts out for the first sample of a batch, layers without floats left out.

    Args:
        network: That ran.
        floats: Value of every node, float.
        quantized: Value of every node, simulated.
        rows: Samples in the batch.
    """
    nodes = {step.tensor: step.node for step in network.executor.steps if step.tensor and step.node.op != "get_attr"}
    found = []
    for layer in network.layers:
        tensor = output_tensor(network, layer)
        node = nodes.get(tensor)
        first, second = (floats.get(node), quantized.get(node)) if node is not None else (None, None)
        if not isinstance(first, Tensor) or not isinstance(second, Tensor):
            continue
        if not first.is_floating_point() or first.shape != second.shape or not first.numel():
            continue
        axis = _batch_axis(first, rows)
        before, after = (_of_sample(value, axis) for value in (first, second))
        channel = layer.activation.channel_axis if layer.activation is not None else None
        if channel is None and first.dim() == 4:
            channel = 1
        if channel is not None and (axis is None or channel == axis or channel >= first.dim()):
            channel = None
        if channel is not None and axis is not None and channel > axis:
            channel -= 1
        found.append(LayerValues(layer, tensor, sqnr_db(before, after), before, after, channel))
    return tuple(found)


def _batch_axis(value: Tensor, rows: int) -> int | None:
    """Return the axis along which samples lie: the first, or the first that is as long as the batch (LSTM)."""
    return next((axis for axis, size in enumerate(value.shape) if size == rows), None)


def _of_sample(value: Tensor, axis: int | None) -> NDArray[np.float32]:
    row = value if axis is None else value.select(axis, 0)
    # A copy of its own: a view would hold the whole batch.
    return np.array(row.float().cpu().numpy(), np.float32, order="C", copy=True)


def as_planes(values: NDArray[np.float32], channel_axis: int | None) -> NDArray[np.float32]:
    """Return an output as [C, H, W]: [1, 1, N] of a vector, [1, H, W] of a matrix.

    Axes of length 1 are dropped; of more than three the first ones become channels.
    """
    if values.ndim >= 3 and channel_axis:
        values = np.moveaxis(values, channel_axis, 0)
    kept = values.reshape([size for size in values.shape if size > 1])
    if kept.ndim <= 1:
        return kept.reshape(1, 1, -1)
    return kept.reshape(1, *kept.shape) if kept.ndim == 2 else kept.reshape(-1, *kept.shape[-2:])


def maps_of(row: LayerValues, size: MapSize) -> LayerMaps:
    """Return a layer's output as pictures: its first channels, averaged down where they are large."""
    pair = []
    for values in (row.float, row.quantized):
        planes = as_planes(values, row.channel_axis)
        channels = len(planes)
        down, across = _steps(planes.shape[1], planes.shape[2], size.max_side)
        pair.append(averaged(planes[: size.max_channels], down, across))
    return LayerMaps(row.layer.name, row.tensor, row.float.shape, pair[0], pair[1], row.sqnr_db, channels)


def _steps(height: int, width: int, most: int) -> tuple[int, int]:
    """Return how many rows and columns are averaged: as many, so that a picture keeps its shape, unless it is long."""
    if height == 1:
        return 1, -(-width // VECTOR_VALUES)
    down, across = -(-height // most), -(-width // most)
    return (down, across) if max(height, width) > _LONG * min(height, width) else (max(down, across),) * 2


def without_maps(row: LayerValues) -> LayerMaps:
    """Return what is known of a layer besides its pictures."""
    nothing = np.zeros((0, 0, 0), np.float32)
    channels = len(as_planes(row.float, row.channel_axis))
    return LayerMaps(row.layer.name, row.tensor, row.float.shape, nothing, nothing, row.sqnr_db, channels)


def thinned(stored: NDArray[Any]) -> NDArray[Any]:
    """Return a stored sample for looking, pictures with at most `STORED_SIDE` pixels a side."""
    if stored.ndim < 2:
        return stored
    channels_first = stored.ndim == 3 and stored.shape[0] in (1, 3) and stored.shape[2] not in (1, 3, 4)
    first, second = (1, 2) if channels_first or stored.ndim > 3 else (0, 1)
    cut = [slice(None)] * stored.ndim
    for axis in (first, second):
        cut[axis] = slice(None, None, max(-(-stored.shape[axis] // STORED_SIDE), 1))
    return np.ascontiguousarray(stored[tuple(cut)])
