"""Convolutions: Conv, ConvTranspose, and their integer forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from qstudio.graph.ops.common import aligned, pad_with, window_pads
from qstudio.graph.translation import NodeView, Unsupported, translates

_CONV = (F.conv1d, F.conv2d, F.conv3d)
_CONV_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: list[int] | None = None,
    pads: list[int] | None = None,
    dilation: list[int] | None = None,
    groups: int = 1,
    auto_pad: str = "NOTSET",
) -> torch.Tensor:
    """Compute ONNX's Conv: x [N, C, *size], weight [M, C/groups, *kernel], asymmetric pads and auto_pad included."""
    rank = weight.dim() - 2
    stride = stride or [1] * rank
    dilation = dilation or [1] * rank
    explicit = window_pads(list(x.shape[2:]), list(weight.shape[2:]), stride, dilation, pads or [], auto_pad)
    if explicit[:rank] == explicit[rank:] and min(explicit, default=0) >= 0:
        padding = explicit[:rank]
    else:
        x, padding = pad_with(x, explicit), [0] * rank
    return _CONV[rank - 1](x, weight, bias, stride, padding, dilation, groups)


def convolve_transposed(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: list[int] | None = None,
    pads: list[int] | None = None,
    dilation: list[int] | None = None,
    groups: int = 1,
    auto_pad: str = "NOTSET",
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
) -> torch.Tensor:
    """Compute ONNX's ConvTranspose: x [N, C, *size], weight [C, M/groups, *kernel].

    The full result (no padding) is computed and then cropped, which expresses output_shape, auto_pad and asymmetric
    pads alike: size = stride*(in-1) + output_padding + (kernel-1)*dilation + 1 - pad_begin - pad_end.
    """
    rank = weight.dim() - 2
    stride = stride or [1] * rank
    dilation = dilation or [1] * rank
    extra = output_padding or [0] * rank
    full = [
        stride[a] * (x.shape[2 + a] - 1) + extra[a] + (weight.shape[2 + a] - 1) * dilation[a] + 1 for a in range(rank)
    ]
    explicit = list(pads or [0] * (2 * rank))
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        target = list(output_shape)[-rank:] if output_shape else [x.shape[2 + a] * stride[a] for a in range(rank)]
        total = [full[a] - target[a] for a in range(rank)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        # ONNX: SAME_UPPER puts the larger half at the end; NOTSET with output_shape puts it at the beginning.
        explicit = small + large if auto_pad == "SAME_UPPER" else large + small
    elif auto_pad == "VALID":
        explicit = [0] * (2 * rank)
    direct = explicit[:rank] == explicit[rank:] and min(explicit, default=0) >= 0
    if direct and all(extra[a] < max(stride[a], dilation[a]) for a in range(rank)):
        return _CONV_TRANSPOSE[rank - 1](x, weight, bias, stride, explicit[:rank], extra, groups, dilation)
    y = _CONV_TRANSPOSE[rank - 1](x, weight, bias, stride, 0, 0, groups, dilation)
    # Output padding adds places that no input reaches (zero, plus the bias); pads crop.
    grow = [max(0, extra[a] - explicit[rank + a]) for a in range(rank)]
    crop_end = [max(0, explicit[rank + a] - extra[a]) for a in range(rank)]
    if any(grow) and bias is not None:
        y = _CONV_TRANSPOSE[rank - 1](x, weight, None, stride, 0, 0, groups, dilation)
    y = pad_with(y, [-p for p in explicit[:rank]] + [g - c for g, c in zip(grow, crop_end, strict=True)])
    if any(grow) and bias is not None:
        y = y + bias.reshape([1, -1] + [1] * rank)
    return y


class Conv(nn.Module):
    """A convolution with its weight [M, C/groups, *kernel] and bias [M] as ONNX stores them."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, **geometry: Any) -> None:
        super().__init__()
        self.geometry = geometry
        self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve x [N, C, *size]."""
        return convolve(x, self.weight, self.bias, **self.geometry)

    def extra_repr(self) -> str:
        """Show the shape and the geometry when printed."""
        return f"{tuple(self.weight.shape)}, {self.geometry}"


class ConvTranspose(Conv):
    """A transposed convolution with its weight [C, M/groups, *kernel] and bias [M] as ONNX stores them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve x [N, C, *size] backwards."""
        return convolve_transposed(x, self.weight, self.bias, **self.geometry)


def _geometry(view: NodeView) -> dict[str, Any]:
    geometry: dict[str, Any] = {
        "stride": view.attribute("strides"),
        "pads": view.attribute("pads"),
        "dilation": view.attribute("dilations"),
        "groups": view.attribute("group", 1),
        "auto_pad": view.attribute("auto_pad", "NOTSET"),
    }
    if view.op_type == "ConvTranspose":
        geometry["output_padding"] = view.attribute("output_padding")
        geometry["output_shape"] = view.attribute("output_shape")
    weight = view.constant(1)
    if weight is not None and not 3 <= weight.ndim <= 5:
        raise Unsupported(f"a {weight.ndim}-dimensional kernel tensor; 1, 2 and 3 spatial axes are supported")
    return {k: v for k, v in geometry.items() if v is not None}


@translates("Conv", "ConvTranspose")
def conv(view: NodeView) -> fx.Node:
    """Make a layer of a convolution with constant weights, and a plain call of any other."""
    geometry = _geometry(view)
    transposed = view.op_type == "ConvTranspose"
    if view.is_layer_weight(1) and (not view.has(2) or view.is_layer_weight(2)):
        weights = {"weight": 1, "bias": 2} if view.has(2) else {"weight": 1}
        return view.layer((ConvTranspose if transposed else Conv)(**geometry), weights, view.tensor(0))
    function = convolve_transposed if transposed else convolve
    return view.call(function, view.tensor(0), view.tensor(1), view.optional(2), **geometry)


def centred(x: torch.Tensor, zero_point: torch.Tensor | None, axis: int) -> torch.Tensor:
    """Return integer codes minus their zero point as float64, in which sums of products below 2^53 are exact."""
    if zero_point is None:
        return x.to(torch.float64)
    if zero_point.dim() == 1 and zero_point.numel() > 1 and x.dim() > 1:
        zero_point = zero_point.reshape([-1 if a == axis % x.dim() else 1 for a in range(x.dim())])
    x, zero_point = aligned(x, zero_point)
    return x.to(torch.float64) - zero_point.to(torch.float64)


def convolve_integer(
    x: torch.Tensor,
    weight: torch.Tensor,
    x_zero_point: torch.Tensor | None = None,
    weight_zero_point: torch.Tensor | None = None,
    **geometry: Any,
) -> torch.Tensor:
    """Compute ONNX's ConvInteger: int32 sums of (x - zx) * (w - zw)."""
    return convolve(centred(x, x_zero_point, 1), centred(weight, weight_zero_point, 0), **geometry).to(torch.int32)


@translates("ConvInteger")
def conv_integer(view: NodeView) -> fx.Node:
    """Translate ConvInteger."""
    return view.call(
        convolve_integer, view.tensor(0), view.tensor(1), view.optional(2), view.optional(3), **_geometry(view)
    )


def convolve_quantized(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    weight_zero_point: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    bias: torch.Tensor | None = None,
    **geometry: Any,
) -> torch.Tensor:
    """Compute ONNX's QLinearConv: dequantized sums, requantized to y's scale with rounding half to even."""
    total = convolve(
        centred(x, x_zero_point, 1),
        centred(weight, weight_zero_point, 0),
        None if bias is None else bias.to(torch.float64),
        **geometry,
    )
    scale = (x_scale.double() * weight_scale.double() / y_scale.double()).reshape([1, -1] + [1] * (total.dim() - 2))
    limits = torch.iinfo(y_zero_point.dtype)
    return torch.clamp(torch.round(total * scale) + y_zero_point, limits.min, limits.max).to(y_zero_point.dtype)


@translates("QLinearConv")
def qlinear_conv(view: NodeView) -> fx.Node:
    """Translate QLinearConv."""
    tensors = [view.tensor(i) for i in range(8)]
    return view.call(convolve_quantized, *tensors, view.optional(8), **_geometry(view))
