"""Which layers can go wrong on x86 processors without VNNI: 16-bit saturation of pairs of products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.affine import Encoding, quantize
from qstudio.core.model_info import LayerInfo

_INT16_MAX = 32767


@dataclass(frozen=True)
class SaturatingLayer:
    """A layer in which two neighbouring products can exceed 16 bits."""

    layer: str
    pairs_percent: float
    """Share of neighbouring weight pairs that can saturate, for the largest activation codes in use."""
    safe_bits: int
    """Widest weight at which none can."""


def saturating_layers(
    layers: tuple[LayerInfo, ...],
    inputs: Mapping[str, str],
    activations: Mapping[str, Encoding],
    weights: Mapping[str, Encoding],
    values: Mapping[str, NDArray[np.floating]],
) -> tuple[SaturatingLayer, ...]:
    """Return the layers that can saturate on x86 processors with AVX2 or AVX-512 but no VNNI.

    VPMADDUBSW multiplies u8 activations by i8 weights and adds neighbouring products in 16 bits with saturation:
    a1 w1 + a2 w2 is wrong beyond +-32767, which with a = 255 happens from |w1| + |w2| > 128. Pairs are taken along the
    inputs of one output channel; onnxruntime's own order in memory (channels last) decides which really meet, so the
    share is an estimate and 0 is certain only where no two weights of a channel can do it.

    Args:
        layers: Rows with their sites.
        inputs: Layer name -> id of the activation site of its input (`qstudio.backends.qdq.layer_inputs`).
        activations: Encodings by site id.
        weights: Encodings by site id.
        values: Float weights by site id.
    """
    found = []
    for layer in layers:
        activation = activations.get(inputs.get(layer.name, ""))
        weight = weights.get(layer.weight.id) if layer.weight is not None else None
        if layer.weight is None or activation is None or weight is None:
            continue
        if activation.levels > 256 or weight.levels > 256 or weight.scale.ndim == 2:
            continue
        signed = activation.qmin < 0
        largest = 128 + activation.qmax if signed else activation.qmax
        codes = np.moveaxis(quantize(values[layer.weight.id], weight), layer.weight.channel_axis or 0, 0)
        # Channels last, as the kernels see them.
        rows = np.moveaxis(codes, 1, -1).reshape(codes.shape[0], -1) if codes.ndim > 2 else codes
        positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
        if not _exceeds(_two_largest(positive), largest) and not _exceeds(_two_largest(-negative), largest):
            continue
        count = rows.shape[1] // 2 * 2
        pairs = rows[:, :count].reshape(len(rows), -1, 2)
        reach = np.maximum(np.maximum(pairs, 0).sum(-1), -np.minimum(pairs, 0).sum(-1)) * largest
        share = 100.0 * float((reach > _INT16_MAX).mean()) if reach.size else 0.0
        safe = int(np.floor(np.log2(_INT16_MAX / largest / 2 + 1))) + 1
        found.append(SaturatingLayer(layer.name, share, safe))
    return tuple(found)


def _two_largest(rows: NDArray[np.int32]) -> int:
    """Return the largest sum of two codes of one channel."""
    if rows.shape[1] < 2:
        return 0
    return int(np.partition(rows, -2, axis=1)[:, -2:].sum(axis=1).max())


def _exceeds(pair: int, largest: int) -> bool:
    return pair * largest > _INT16_MAX
