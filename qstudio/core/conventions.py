"""Scale and zero point as other tools compute them, for comparison, and with scales that are powers of two.

Every function takes ranges (elementwise over channels), qmin, qmax and whether zero_point is the codes' middle, and
returns float32 scales and int32 zero points. Ranges are widened to hold zero first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ends = NDArray[np.floating] | float
ScaleZeroPoint = tuple[NDArray[np.float32], NDArray[np.int32]]

TORCH_EPSILON = np.float32(2.0**-23)
"""Smallest scale of torch.ao's observers (torch.finfo(torch.float32).eps)."""


def torch_scale_zero_point(low: Ends, high: Ends, qmin: int, qmax: int, symmetric: bool) -> ScaleZeroPoint:
    """Return what torch.ao.quantization's UniformQuantizationObserverBase computes, in float32 like it.

    Symmetric: s = max(-rmin, rmax) / ((qmax - qmin) / 2), z = 0 for signed codes and the middle for unsigned ones.
    Asymmetric: s = (rmax - rmin) / (qmax - qmin), z = qmin - round(rmin / s). Scales are at least 2^-23.
    """
    rmin = np.minimum(np.asarray(low, np.float32), np.float32(0))
    rmax = np.maximum(np.asarray(high, np.float32), np.float32(0))
    if symmetric:
        scale = np.maximum(np.maximum(-rmin, rmax) / np.float32((qmax - qmin) / 2), TORCH_EPSILON)
        middle = 0 if qmin < 0 else (qmin + qmax + 1) // 2
        return np.asarray(scale, np.float32), np.full(np.shape(scale), middle, np.int32)
    scale = np.maximum((rmax - rmin) / np.float32(qmax - qmin), TORCH_EPSILON)
    zero = np.clip(qmin - np.rint(rmin / scale), qmin, qmax)
    return np.asarray(scale, np.float32), np.asarray(zero, np.int32)


def aimet_scale_zero_point(low: Ends, high: Ends, qmin: int, qmax: int, symmetric: bool) -> ScaleZeroPoint:
    """Return what aimet_torch's (AIMET 2) MinMaxEncodingAnalyzer and affine quantizer compute, in float32 like them.

    Symmetric: s = max(rmax / floor(n / 2), -rmin / ceil(n / 2)) with n = qmax - qmin steps, z = 0, so that neither end
    saturates. Asymmetric: s = (rmax - rmin) / n, z = qmin - round(rmin / s). A range whose steps would be below 2^-23
    is widened by n steps of that size, upward where asymmetric.
    """
    steps = qmax - qmin
    above, below = np.float32(steps // 2), np.float32(steps - steps // 2)
    rmin = np.minimum(np.asarray(low, np.float32), np.float32(0))
    rmax = np.maximum(np.asarray(high, np.float32), np.float32(0))
    with np.errstate(over="ignore"):
        narrow = (rmax - rmin) / np.float32(steps) < TORCH_EPSILON
        if symmetric:
            rmax = rmax + np.where(narrow, above * TORCH_EPSILON, np.float32(0))
            rmin = rmin - np.where(narrow, below * TORCH_EPSILON, np.float32(0))
            delta = np.maximum(rmax / above, -rmin / below)
            rmin, rmax = np.maximum(-below * delta, -_LARGEST), np.minimum(above * delta, _LARGEST)
        else:
            rmax = rmax + np.where(narrow, np.float32(steps) * TORCH_EPSILON, np.float32(0))
        scale = np.asarray(np.minimum((rmax - rmin) / np.float32(steps), _LARGEST), np.float32)
    if symmetric:
        return scale, np.zeros(scale.shape, np.int32)
    return scale, np.asarray(np.clip(qmin - np.rint(rmin / scale), qmin, qmax), np.int32)


def block_floating_point(low: Ends, high: Ends, qmin: int, qmax: int, symmetric: bool) -> ScaleZeroPoint:
    """Return power-of-two scales: the block's largest exponent is shared, the rest of the code is mantissa.

    s = 2^(floor(log2 a) - (b - 2)) with a = max|x| and 2^(b-1) - 1 = qmax: the largest value has its leading one in
    the mantissa's first bit. The exponent is kept within a byte's, -126..127 (E8M0).
    """
    reach = np.maximum(np.abs(np.asarray(low, np.float64)), np.abs(np.asarray(high, np.float64)))
    mantissa = int(qmax + 1).bit_length() - 1
    _, exponent = np.frexp(np.where(reach > 0, reach, 1.0))
    power = np.clip(exponent - mantissa, -126, 127)
    scale = np.where(reach > 0, np.ldexp(1.0, power), 1.0).astype(np.float32)
    return scale, np.zeros(scale.shape, np.int32)


_LARGEST = np.finfo(np.float32).max

CONVENTIONS: dict[str, Callable[[Ends, Ends, int, int, bool], ScaleZeroPoint]] = {
    "int:torch": torch_scale_zero_point,
    "int:aimet": aimet_scale_zero_point,
    "bfp": block_floating_point,
}
"""By format; the others use `qstudio.core.affine.scale_zero_point`'s own formula, which is onnxruntime's."""
