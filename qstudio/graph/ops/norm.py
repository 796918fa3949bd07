"""Normalisation: batch, layer, instance, group, RMS, local response, Lp; and Softmax with its relatives."""

from __future__ import annotations

import math

import torch
from torch import fx, nn
from torch.nn import functional as F

from qstudio.graph.ops.common import as_ints
from qstudio.graph.translation import NodeView, Unsupported, translates


def batch_normalization(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Normalise x [N, C, ...] with given statistics, each [C]."""
    return F.batch_norm(
        x, mean.to(x.dtype), variance.to(x.dtype), weight.to(x.dtype), bias.to(x.dtype), False, 0.0, epsilon
    )


def batch_normalization_training(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    epsilon: float,
    momentum: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalise x [N, C, ...] with its own statistics; return y and the updated mean and (population) variance."""
    axes = [a for a in range(x.dim()) if a != 1]
    batch_mean, batch_variance = x.mean(axes), x.var(axes, unbiased=False)
    y = batch_normalization(x, weight, bias, batch_mean, batch_variance, epsilon)
    return (
        y,
        mean * momentum + batch_mean * (1 - momentum),
        variance * momentum + batch_variance * (1 - momentum),
    )


class BatchNormalization(nn.Module):
    """Batch normalisation with trainable weight and bias [C] and running statistics [C].

    ONNX's momentum weighs the old statistics, torch's the new ones: torch = 1 - ONNX.
    """

    buffer_names = ("running_mean", "running_var")
    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x [N, C, ...]; in training mode with the batch's statistics, which also move the running ones."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 1 - self.momentum, self.eps
        )

    def extra_repr(self) -> str:
        """Show the number of channels when printed."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


@translates("BatchNormalization")
def translate_batch_normalization(view: NodeView) -> fx.Node | tuple[fx.Node | None, ...]:
    """Make a layer of a BatchNormalization with constant statistics, and a plain call of any other."""
    epsilon, momentum = float(view.attribute("epsilon", 1e-5)), float(view.attribute("momentum", 0.9))
    if view.attribute("spatial", 1) != 1:
        raise Unsupported("spatial=0 (statistics per activation)")
    if view.opset >= 14 and view.attribute("training_mode", 0):
        node = view.call(batch_normalization_training, *[view.tensor(i) for i in range(5)], epsilon, momentum)
        return view.items(node)
    constants = [view.constant(i) for i in range(1, 5)]
    shapes = {c.shape for c in constants if c is not None}
    if all(view.is_layer_weight(i) for i in range(1, 5)) and len(shapes) == 1:
        weights = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4}
        return view.layer(BatchNormalization(epsilon, momentum), weights, view.tensor(0))
    return view.call(batch_normalization, *[view.tensor(i) for i in range(5)], epsilon)


def layer_normalization(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, axis: int, epsilon: float
) -> torch.Tensor:
    """Normalise x over the axes from `axis` on."""
    shape = x.shape[axis % x.dim() if x.dim() else 0 :]
    if (weight is None or weight.shape == shape) and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, weight, bias, epsilon)
    y = F.layer_norm(x, shape, None, None, epsilon)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layer_normalization_statistics(x: torch.Tensor, axis: int, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return LayerNormalization's second and third output: the mean and 1 / sqrt(variance + epsilon)."""
    axes = list(range(axis % x.dim(), x.dim()))
    mean = x.float().mean(axes, keepdim=True)
    variance = x.float().var(axes, unbiased=False, keepdim=True)
    return mean, torch.rsqrt(variance + epsilon)


class LayerNormalization(nn.Module):
    """Layer normalisation with its weight and bias as ONNX stores them."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, axis: int, eps: float) -> None:
        super().__init__()
        self.axis, self.eps = axis, eps
        self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x over the axes from `axis` on."""
        return layer_normalization(x, self.weight, self.bias, self.axis, self.eps)


@translates("LayerNormalization")
def translate_layer_normalization(view: NodeView) -> fx.Node | tuple[fx.Node | None, ...]:
    """Make a layer of a LayerNormalization with constant weights, and a plain call of any other."""
    axis, epsilon = view.attribute("axis", -1), float(view.attribute("epsilon", 1e-5))
    x = view.tensor(0)
    if view.is_layer_weight(1) and (not view.has(2) or view.is_layer_weight(2)):
        weights = {"weight": 1, "bias": 2} if view.has(2) else {"weight": 1}
        y = view.layer(LayerNormalization(axis, epsilon), weights, x)
    else:
        y = view.call(layer_normalization, x, view.tensor(1), view.optional(2), axis, epsilon)
    if not (view.wants(1) or view.wants(2)):
        return y
    statistics = view.call(layer_normalization_statistics, x, axis, epsilon)
    mean = view.call(_item, statistics, 0) if view.wants(1) else None
    deviation = view.call(_item, statistics, 1) if view.wants(2) else None
    return (y, mean, deviation)


def _item(values: tuple[torch.Tensor, ...], index: int) -> torch.Tensor:
    return values[index]


def rms_normalization(x: torch.Tensor, weight: torch.Tensor, axis: int, epsilon: float) -> torch.Tensor:
    """Divide x by its root mean square over the axes from `axis` on, and scale."""
    axes = list(range(axis % x.dim(), x.dim()))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    y = wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
    return y.to(x.dtype) * weight


class RmsNormalization(nn.Module):
    """Root-mean-square normalisation with its weight as ONNX stores it."""

    weight: torch.Tensor

    def __init__(self, axis: int, eps: float) -> None:
        super().__init__()
        self.axis, self.eps = axis, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x over the axes from `axis` on."""
        return rms_normalization(x, self.weight, self.axis, self.eps)


@translates("RMSNormalization")
def translate_rms_normalization(view: NodeView) -> fx.Node:
    """Translate RMSNormalization."""
    axis, epsilon = view.attribute("axis", -1), float(view.attribute("epsilon", 1e-5))
    if view.is_layer_weight(1):
        return view.layer(RmsNormalization(axis, epsilon), {"weight": 1}, view.tensor(0))
    return view.call(rms_normalization, view.tensor(0), view.tensor(1), axis, epsilon)


def instance_normalization(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Normalise each sample and channel of x [N, C, ...] by its own statistics."""
    axes = list(range(2, x.dim()))
    shape = [1, -1] + [1] * (x.dim() - 2)
    mean = x.mean(axes, keepdim=True)
    variance = x.var(axes, unbiased=False, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + epsilon) * weight.reshape(shape) + bias.reshape(shape)


class InstanceNormalization(nn.Module):
    """Instance normalisation with weight and bias [C]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x [N, C, ...]."""
        return instance_normalization(x, self.weight, self.bias, self.eps)


@translates("InstanceNormalization")
def translate_instance_normalization(view: NodeView) -> fx.Node:
    """Translate InstanceNormalization."""
    epsilon = float(view.attribute("epsilon", 1e-5))
    if view.is_layer_weight(1) and view.is_layer_weight(2):
        return view.layer(InstanceNormalization(epsilon), {"weight": 1, "bias": 2}, view.tensor(0))
    return view.call(instance_normalization, view.tensor(0), view.tensor(1), view.tensor(2), epsilon)


def group_normalization(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, epsilon: float
) -> torch.Tensor:
    """Normalise x [N, C, ...] by groups of channels; weight and bias are [C], or [groups] before opset 21."""
    channels = x.shape[1]
    if weight.shape[0] == groups != channels:
        weight = weight.repeat_interleave(channels // groups)
        bias = bias.repeat_interleave(channels // groups)
    return F.group_norm(x, groups, weight, bias, epsilon)


class GroupNormalization(nn.Module):
    """Group normalisation with weight and bias as ONNX stores them."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x [N, C, ...]."""
        return group_normalization(x, self.weight, self.bias, self.groups, self.eps)


@translates("GroupNormalization")
def translate_group_normalization(view: NodeView) -> fx.Node:
    """Translate GroupNormalization."""
    groups, epsilon = view.attribute("num_groups"), float(view.attribute("epsilon", 1e-5))
    if view.is_layer_weight(1) and view.is_layer_weight(2):
        return view.layer(GroupNormalization(groups, epsilon), {"weight": 1, "bias": 2}, view.tensor(0))
    return view.call(group_normalization, view.tensor(0), view.tensor(1), view.tensor(2), groups, epsilon)


def local_response(x: torch.Tensor, size: int, alpha: float, beta: float, bias: float) -> torch.Tensor:
    """Divide x by (bias + alpha/size * sum of squares over `size` neighbouring channels) ** beta."""
    before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
    squares = x.square().flatten(2) if x.dim() > 2 else x.square().unsqueeze(-1)
    padded = F.pad(squares, [0, 0, before, after])
    total = padded.unfold(1, size, 1).sum(-1).reshape(x.shape)
    return x / (bias + alpha / size * total) ** beta


@translates("LRN")
def translate_local_response(view: NodeView) -> fx.Node:
    """Translate LRN."""
    numbers = [float(view.attribute(n, d)) for n, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))]
    return view.call(local_response, view.tensor(0), view.attribute("size"), *numbers)


def lp_normalization(x: torch.Tensor, axis: int, p: int) -> torch.Tensor:
    """Divide x by its Lp norm along an axis; where the norm is 0 the result is 0."""
    norm = torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


@translates("LpNormalization")
def translate_lp_normalization(view: NodeView) -> fx.Node:
    """Translate LpNormalization."""
    return view.call(lp_normalization, view.tensor(0), view.attribute("axis", -1), view.attribute("p", 2))


def mean_variance_normalization(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    """Subtract the mean and divide by (deviation + 1e-9), as ONNX's function body does."""
    centre = x - x.mean(axes, keepdim=True)
    deviation = torch.sqrt(x.square().mean(axes, keepdim=True) - x.mean(axes, keepdim=True).square())
    return centre / (deviation + 1e-9)


@translates("MeanVarianceNormalization")
def translate_mean_variance(view: NodeView) -> fx.Node:
    """Translate MeanVarianceNormalization."""
    return view.call(mean_variance_normalization, view.tensor(0), as_ints(view.attribute("axes", [0, 2, 3])))


def softmax_flat(x: torch.Tensor, axis: int, logarithm: bool) -> torch.Tensor:
    """Compute opset 12's softmax: over all axes from `axis` on, taken as one."""
    rows = math.prod(x.shape[: axis % x.dim() if axis != x.dim() else axis])
    flat = x.reshape(rows, -1)
    return (torch.log_softmax(flat, 1) if logarithm else torch.softmax(flat, 1)).reshape(x.shape)


@translates("Softmax", "LogSoftmax")
def softmax(view: NodeView) -> fx.Node:
    """Translate Softmax and LogSoftmax, which flatten the axes before opset 13 (there the default axis is 1)."""
    logarithm = view.op_type == "LogSoftmax"
    if view.opset < 13:
        return view.call(softmax_flat, view.tensor(0), view.attribute("axis", 1), logarithm)
    return view.call(torch.log_softmax if logarithm else torch.softmax, view.tensor(0), view.attribute("axis", -1))


def hardmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return 1 at the first maximum along an axis, 0 elsewhere."""
    first = (x == x.amax(axis, keepdim=True)).to(torch.int8).argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, torch.ones_like(first, dtype=x.dtype))


def hardmax_flat(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Compute opset 12's hardmax: over all axes from `axis` on, taken as one."""
    return hardmax(x.reshape(math.prod(x.shape[: axis % x.dim()]), -1), 1).reshape(x.shape)


@translates("Hardmax")
def translate_hardmax(view: NodeView) -> fx.Node:
    """Translate Hardmax, which flattens the axes before opset 13."""
    if view.opset < 13:
        return view.call(hardmax_flat, view.tensor(0), view.attribute("axis", 1))
    return view.call(hardmax, view.tensor(0), view.attribute("axis", -1))
