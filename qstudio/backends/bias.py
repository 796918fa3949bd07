"""The int32 bias of a quantized layer: its scale is decided by the input's and the weight's.

Integer kernels add the bias to the int32 accumulator, so its scale has to be s_x * s_w[c] and its zero point 0. Both
the simulation and the export call these functions, so that they agree on every bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding

BIAS_QMAX = 2**31 - 1
"""Narrow int32 range [-(2^31-1), 2^31-1], as in onnxruntime's quantize_static."""

_MARGIN = 1.0001


def takes_int32_bias(activation: Encoding | None, weight: Encoding | None) -> bool:
    """Return whether a layer's bias is quantized: input and weight both are, and one scale serves a whole channel.

    With groups there are several weight scales per output channel and so no common accumulator: the bias stays float.
    """
    return activation is not None and weight is not None and weight.scale.ndim < 2


def adjust_weight_scale(weight: Encoding, activation: Encoding, bias: NDArray[np.floating]) -> Encoding:
    """Return the weight's encoding with its scales raised where the bias would not fit into int32.

    The smallest usable bias scale is 1.0001 * 2 |b| / (2^32 - 2), the rule of onnxruntime's quantize_static. An
    encoding that needs no change is returned as it is.

    Args:
        weight: Encoding of the weight, per tensor or per channel.
        activation: Encoding of the layer's input (per tensor).
        bias: Float bias with one value per output channel.
    """
    if not takes_int32_bias(activation, weight) or not bias.size:
        return weight
    magnitude = np.abs(np.asarray(bias, np.float64)).reshape(-1)
    if weight.scale.ndim == 0:
        magnitude = magnitude.max()
    smallest = _MARGIN * 2.0 * magnitude / (2.0**32 - 2.0)
    scale = weight.scale.astype(np.float64)
    candidate = scale * float(activation.scale)
    short = (candidate < smallest) & (candidate > 0.0)
    if not np.any(short):
        return weight
    raised = np.where(short, smallest / float(activation.scale), scale)
    return replace(weight, scale=np.asarray(raised, np.float32))


def bias_encoding(activation: Encoding, weight: Encoding) -> Encoding:
    """Return the int32 encoding of a bias: s_b = s_x * s_w[c] in float32, z = 0.

    The scale is [] or [C]; `axis` counts from the end of the bias's own shape as 0, the layout of Conv and Gemm.
    Call `adjust_weight_scale` first; `takes_int32_bias` must hold.
    """
    scale = np.asarray(np.float32(activation.scale) * weight.scale, np.float32)
    axis = None if scale.ndim == 0 else 0
    return Encoding(scale, np.zeros(scale.shape, np.int32), -BIAS_QMAX, BIAS_QMAX, axis)
