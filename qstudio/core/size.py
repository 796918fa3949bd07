"""Bytes a quantized model needs, from shapes and schemes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from qstudio.core.affine import is_symmetric
from qstudio.core.formats import format_of
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.recipe import LayerSettings
from qstudio.core.scheme import Granularity, Scheme

SCALE_BYTES = 4
"""A scale is a float32."""

EXPONENT_BYTES = 1
"""A scale that is a power of two is an exponent (E8M0)."""

OUTLIER_BYTES = 8
"""A weight kept in float: its int32 position and its float32 value."""


def outlier_count(elements: int, percent: float) -> int:
    """Return how many values of a weight stay float."""
    return round(elements * percent / 100.0)


def scale_count(shape: tuple[int | None, ...], channel_axis: int | None, granularity: Granularity) -> int:
    """Return how many scales a weight of `shape` carries: 1, C, or C x ceil(N / C / group_size)."""
    if granularity.kind == "tensor" or channel_axis is None:
        return 1
    channels = int(shape[channel_axis] or 1)
    if granularity.kind == "channel":
        return channels
    per_channel = math.prod(int(n or 1) for n in shape) // max(channels, 1)
    return channels * -(-per_channel // granularity.group_size)


@lru_cache(maxsize=16384)  # asked for every layer at every edit
def weight_bytes(shape: tuple[int | None, ...], channel_axis: int | None, scheme: Scheme) -> int:
    """Return the packed bytes of a weight: codes, scales (or levels), zero points where not all zero, kept outliers."""
    elements = math.prod(int(n or 1) for n in shape)
    if scheme.is_float:
        return 4 * elements
    rows = scale_count(shape, channel_axis, scheme.granularity)
    number_format, variant = format_of(scheme.format)
    parameters = number_format.parameters if number_format.parameters >= 0 else 2**scheme.bits
    shared_exponent = number_format.id == "bfp" or variant == "mx"
    beside = rows * parameters * (EXPONENT_BYTES if shared_exponent else SCALE_BYTES)
    if number_format.id == "int" and not is_symmetric(scheme):
        beside += -(-rows * scheme.bits // 8)
    kept = outlier_count(elements, scheme.outliers)
    return -(-elements * scheme.bits // 8) + beside + kept * OUTLIER_BYTES


def sparse_saving_bytes(elements: int, nonzero: int, scheme: Scheme) -> int:
    """Return the bytes a weight would shrink by if its zeros were left out: one bit a weight says where codes are.

    A weight that would grow that way is stored as it is: 0. No backend of ours reads such files; the figure is what a
    format for sparse weights would take.

    Args:
        elements: Weights.
        nonzero: Those whose code does not stand for zero.
        scheme: Of the weight; a float weight has 32 bits.
    """
    bits = 32 if scheme.is_float else scheme.bits
    return max(-(-elements * bits // 8) - -(-elements // 8) - -(-nonzero * bits // 8), 0)


def layer_bytes(layer: LayerInfo, settings: LayerSettings) -> int:
    """Return the bytes of a layer's weight under its settings and of the activation encoding it carries.

    Biases are int32 or float32, 4 bytes a value either way, and are not counted here.
    """
    total = 0
    if layer.weight is not None:
        total += weight_bytes(layer.weight.shape, layer.weight.channel_axis, settings.weight_scheme())
    scheme = settings.activation_scheme()
    if layer.activation is not None and scheme.is_affine and not scheme.is_float:
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
