"""Matrix products: Gemm, MatMul, Einsum, and their integer forms."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn import functional as F

from qstudio.graph.ops.common import aligned
from qstudio.graph.ops.conv import centred
from qstudio.graph.translation import NodeView, translates


def gemm(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    trans_a: int = 0,
    trans_b: int = 0,
) -> torch.Tensor:
    """Compute ONNX's Gemm: alpha * a' @ b' + beta * c, with c broadcast to [M, N]."""
    a = a.t() if trans_a else a
    columns = b.shape[0 if trans_b else 1]
    plain = alpha == 1.0 and beta == 1.0 and a.is_floating_point()
    if plain and (c is None or c.shape == (columns,)):
        return F.linear(a, b if trans_b else b.t(), c)
    y = a @ (b.t() if trans_b else b)
    if alpha != 1.0:
        y = (alpha * y).to(y.dtype)
    return y if c is None else y + (c if beta == 1.0 else (beta * c).to(y.dtype))


class Gemm(nn.Module):
    """A fully connected layer with its weight as ONNX stores it ([N, K] with transB, else [K, N])."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, alpha: float, beta: float, trans_a: int, trans_b: int) -> None:
        super().__init__()
        self.alpha, self.beta, self.trans_a, self.trans_b = alpha, beta, trans_a, trans_b
        self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply x [M, K] by the weight and add the bias."""
        return gemm(x, self.weight, self.bias, self.alpha, self.beta, self.trans_a, self.trans_b)

    def extra_repr(self) -> str:
        """Show the weight's shape when printed."""
        return f"{tuple(self.weight.shape)}, trans_b={self.trans_b}"


@translates("Gemm")
def translate_gemm(view: NodeView) -> fx.Node:
    """Make a layer of a Gemm with constant weights, and a plain call of any other."""
    alpha, beta = float(view.attribute("alpha", 1.0)), float(view.attribute("beta", 1.0))
    trans_a, trans_b = view.attribute("transA", 0), view.attribute("transB", 0)
    if view.is_layer_weight(1) and (not view.has(2) or view.is_layer_weight(2)):
        weights = {"weight": 1, "bias": 2} if view.has(2) else {"weight": 1}
        return view.layer(Gemm(alpha, beta, trans_a, trans_b), weights, view.tensor(0))
    return view.call(gemm, view.tensor(0), view.tensor(1), view.optional(2), alpha, beta, trans_a, trans_b)


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute numpy's matmul, for integers too."""
    a, b = aligned(a, b)
    if a.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return torch.matmul(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)
    return torch.matmul(a, b)


class MatMul(nn.Module):
    """A product with a constant right-hand side, its weight [..., K, N] as ONNX stores it."""

    weight: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply x [..., K] by the weight."""
        return torch.matmul(x, self.weight)

    def extra_repr(self) -> str:
        """Show the weight's shape when printed."""
        return str(tuple(self.weight.shape))


@translates("MatMul")
def translate_matmul(view: NodeView) -> fx.Node:
    """Make a layer of a product with a constant right-hand side, and a plain call of any other."""
    if view.is_layer_weight(1):
        return view.layer(MatMul(), {"weight": 1}, view.tensor(0))
    return view.call(matmul, view.tensor(0), view.tensor(1))


def einsum(equation: str, *operands: torch.Tensor) -> torch.Tensor:
    """Compute ONNX's Einsum; the letters may be spaced out."""
    return torch.einsum(equation.replace(" ", ""), *aligned(*operands))


@translates("Einsum")
def translate_einsum(view: NodeView) -> fx.Node:
    """Translate Einsum."""
    return view.call(einsum, view.attribute("equation"), *[view.tensor(i) for i in range(len(view.inputs))])


def matmul_integer(
    a: torch.Tensor,
    b: torch.Tensor,
    a_zero_point: torch.Tensor | None = None,
    b_zero_point: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute ONNX's MatMulInteger: int32 sums of (a - za) * (b - zb), zero points per row of a, per column of b."""
    return torch.matmul(centred(a, a_zero_point, -2), centred(b, b_zero_point, -1)).to(torch.int32)


@translates("Det")
def determinant(view: NodeView) -> fx.Node:
    """Translate Det."""
    return view.call(torch.linalg.det, view.tensor(0))


@translates("MatMulInteger")
def translate_matmul_integer(view: NodeView) -> fx.Node:
    """Translate MatMulInteger."""
    return view.call(matmul_integer, view.tensor(0), view.tensor(1), view.optional(2), view.optional(3))


def matmul_quantized(
    a: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero_point: torch.Tensor,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero_point: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
) -> torch.Tensor:
    """Compute ONNX's QLinearMatMul: dequantized sums, requantized to y's scale with rounding half to even."""
    total = torch.matmul(centred(a, a_zero_point, -2), centred(b, b_zero_point, -1))
    scale_a = a_scale.double().reshape(-1, 1) if a_scale.dim() == 1 and a_scale.numel() > 1 else a_scale.double()
    limits = torch.iinfo(y_zero_point.dtype)
    codes = torch.round(total * (scale_a * b_scale.double() / y_scale.double())) + y_zero_point
    return torch.clamp(codes, limits.min, limits.max).to(y_zero_point.dtype)


@translates("QLinearMatMul")
def translate_qlinear_matmul(view: NodeView) -> fx.Node:
    """Translate QLinearMatMul."""
    return view.call(matmul_quantized, *[view.tensor(i) for i in range(8)])
