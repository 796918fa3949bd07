"""Input and output channels of a layer's weight, whatever the operator: views and per-channel scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qstudio.core.graph_types import GraphNode

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WeightLayout:
    """How a weight's axes are channels.

    Attributes:
        op_type: Conv, ConvTranspose, Gemm or MatMul (weight on the right).
        groups: Of a convolution.
        transposed: Gemm's transB.
    """

    op_type: str
    groups: int = 1
    transposed: bool = False

    @classmethod
    def of(cls, node: GraphNode) -> WeightLayout:
        """Return the layout of a node's weight."""
        attributes = dict(node.attributes)
        return cls(node.op_type, int(attributes.get("group", "1")), attributes.get("transB", "0") == "1")

    def outputs_first(self, weight: NDArray[np.floating]) -> Array:
        """Return the weight as [output channels, everything else]."""
        if self.op_type == "Conv":
            return np.asarray(weight, np.float64).reshape(weight.shape[0], -1)
        if self.op_type == "ConvTranspose":
            split = np.asarray(weight, np.float64).reshape(self.groups, -1, weight.shape[1], *weight.shape[2:])
            return np.moveaxis(split, 2, 1).reshape(self.groups * weight.shape[1], -1)
        matrix = np.asarray(weight, np.float64)
        return matrix if self.op_type == "Gemm" and self.transposed else matrix.T

    def inputs_first(self, weight: NDArray[np.floating]) -> Array:
        """Return the weight as [input channels, everything else]."""
        if self.op_type == "Conv":
            split = np.asarray(weight, np.float64).reshape(self.groups, -1, *weight.shape[1:])
            return np.moveaxis(split, 2, 1).reshape(self.groups * weight.shape[1], -1)
        if self.op_type == "ConvTranspose":
            return np.asarray(weight, np.float64).reshape(weight.shape[0], -1)
        matrix = np.asarray(weight, np.float64)
        return matrix.T if self.op_type == "Gemm" and self.transposed else matrix

    def scale_outputs(self, weight: NDArray[np.floating], factor: Array) -> Array:
        """Return the weight with each output channel multiplied by its factor."""
        values = np.asarray(weight, np.float64)
        if self.op_type == "Conv":
            return values * factor.reshape(-1, *[1] * (values.ndim - 1))
        if self.op_type == "ConvTranspose":
            split = values.reshape(self.groups, -1, *values.shape[1:])
            shaped = factor.reshape(self.groups, 1, -1, *[1] * (values.ndim - 2))
            return (split * shaped).reshape(values.shape)
        return values * (factor[:, None] if self.op_type == "Gemm" and self.transposed else factor[None, :])

    def scale_inputs(self, weight: NDArray[np.floating], factor: Array) -> Array:
        """Return the weight with what each input channel meets multiplied by its factor."""
        values = np.asarray(weight, np.float64)
        if self.op_type == "Conv":
            split = values.reshape(self.groups, -1, *values.shape[1:])
            shaped = factor.reshape(self.groups, 1, -1, *[1] * (values.ndim - 2))
            return (split * shaped).reshape(values.shape)
        if self.op_type == "ConvTranspose":
            return values * factor.reshape(-1, *[1] * (values.ndim - 1))
        return values * (factor[None, :] if self.op_type == "Gemm" and self.transposed else factor[:, None])

    def input_sums(self, weight: NDArray[np.floating], offset: Array) -> Array:
        """Return what a constant offset of each input channel adds to each output channel (no padding)."""
        scaled = self.scale_inputs(weight, offset)
        return np.asarray(self.outputs_first(scaled).sum(axis=1))
