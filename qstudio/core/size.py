"""Bytes a quantized model needs, from shapes and schemes alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import LayerSettings
from qstudio.core.scheme import Granularity, Scheme

SCALE_BYTES = 4
"""A scale is a float32."""


def scale_count(shape: tuple[int | None, ...], channel_axis: int | None, granularity: Granularity) -> int:
    """Return how many scales a weight of `shape` carries: 1, C, or C x ceil(N / C / group_size)."""
    if granularity.kind == "tensor" or channel_axis is None:
        return 1
    channels = int(shape[channel_axis] or 1)
    if granularity.kind == "channel":
        return channels
    per_channel = math.prod(int(n or 1) for n in shape) // max(channels, 1)
    return channels * -(-per_channel // granularity.group_size)


def weight_bytes(shape: tuple[int | None, ...], channel_axis: int | None, scheme: Scheme) -> int:
    """Return the packed bytes of a weight: codes, scales, and zero points where they are not all zero."""
    elements = math.prod(int(n or 1) for n in shape)
    if scheme.is_float:
        return 4 * elements
    scales = scale_count(shape, channel_axis, scheme.granularity)
    zero_points = 0 if scheme.symmetric else -(-scales * scheme.bits // 8)
    return -(-elements * scheme.bits // 8) + scales * SCALE_BYTES + zero_points


def layer_bytes(layer: LayerInfo, settings: LayerSettings) -> int:
    """Return the bytes of a layer's weight under its settings and of the activation encoding it carries.

    Biases are int32 or float32, 4 bytes a value either way, and are not counted here.
    """
    total = 0
    if layer.weight is not None:
        total += weight_bytes(layer.weight.shape, layer.weight.channel_axis, settings.weight_scheme())
    scheme = settings.activation_scheme()
    if layer.activation is not None and not scheme.is_float:
        total += SCALE_BYTES + -(-scheme.bits // 8)
    return total


def quantized_bytes(model: ModelInfo, settings: Callable[[str], LayerSettings]) -> int:
    """Return bits x parameters + scales + zero points + what stays float, for the whole model."""
    total = model.float_size_bytes
    for layer in model.layers:
        if layer.weight is not None:
            total -= 4 * math.prod(int(n or 1) for n in layer.weight.shape)
        total += layer_bytes(layer, settings(layer.name))
    return total
