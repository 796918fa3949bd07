"""Convolutions and products whose float sums are taken in onnxruntime's order.

Sums of float32 depend on their order in the last bit. Between two quantizers that is enough to move a value over a
rounding boundary once in about a million; the one step that follows moves others in the next layer, and after twenty
layers of a ResNet several percent of the codes differ, although both sides compute the same formula. (Measured on
ResNet-20 W8A8 with torch's own convolutions: 0.6 % of the codes differ, by up to 5 steps, and 0.16 % of the argmaxes.)

Onnxruntime's float kernels (MLAS) unfold the image and add the products of each output one after the other with fused
multiply-add, in blocks along the inner dimension K whose size follows from K and the number of columns N; the sums of
the blocks are added up in order, then the bias. Depthwise convolutions have a kernel of their own. The layers here
do the same with whatever matrix product of this machine's torch adds in sequence too. Which one does is not assumed:
the first batch is also run in onnxruntime, and a candidate counts only if it gives the same bits. Where none does, the
layer stays torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from qstudio.backends.ort import make_session
from qstudio.graph.ops.common import window_pads
from qstudio.graph.ops.conv import Conv, ConvTranspose
from qstudio.graph.ops.linear import Gemm, MatMul

Product = Callable[[Tensor, Tensor], Tensor]
"""([G, M, K] weights, [B, G, K, N] columns) -> [B, G, M, N]."""

_CACHED_ELEMENTS = 2**19
"""Unfolded elements computed with at a time: 2 MiB."""


class OrderedLayer:
    """Stands in for a layer whose weights are fixed, on the CPU.

    Args:
        module: The layer; used as it is where no candidate gives onnxruntime's bits.
        weight: The weight to compute with, as ONNX stores it.
        bias: The bias, or None.
        threads: Of the onnxruntime session compared with; 0 = all cores.
    """

    def __init__(self, module: nn.Module, weight: Tensor, bias: Tensor | None, threads: int = 0) -> None:
        self._module = module
        self._weight = weight
        self._bias = bias
        self._threads = threads
        self._chosen: dict[tuple[int, ...], tuple[int, Product] | None] = {}

    @staticmethod
    def suits(module: nn.Module) -> bool:
        """Return whether the layer is of a kind that is known here."""
        if isinstance(module, Conv):
            return not isinstance(module, ConvTranspose) and module.weight.dim() == 4
        if isinstance(module, Gemm):
            return module.alpha == module.beta == 1.0 and not module.trans_a
        return isinstance(module, MatMul) and module.weight.dim() == 2

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        key = (min(x.shape[0], 2), *x.shape[1:])
        if key not in self._chosen:
            self._chosen[key] = self._choose(x[:2])
        chosen = self._chosen[key]
        return self._plain(x) if chosen is None else self._compute(x, *chosen)

    def is_ordered(self) -> bool:
        """Return whether every shape seen so far is computed in onnxruntime's order."""
        return all(chosen is not None for chosen in self._chosen.values())

    def _plain(self, x: Tensor) -> Tensor:
        parameters = {"weight": self._weight} if self._bias is None else {"weight": self._weight, "bias": self._bias}
        return torch.func.functional_call(self._module, parameters, (x,))

    def _choose(self, x: Tensor) -> tuple[int, Product] | None:
        wanted = torch.from_numpy(_in_onnxruntime(self._module, self._weight, self._bias, x, self._threads))
        for block, product in self._candidates(x):
            if torch.equal(self._compute(x, block, product), wanted):
                return block, product
        return None

    def _candidates(self, x: Tensor) -> Iterator[tuple[int, Product]]:
        if isinstance(self._module, Conv):
            inner = int(np.prod(self._weight.shape[1:]))
            size = _output_size(x, self._weight, self._module.geometry)
            columns = size[0] * size[1]
        else:
            columns, inner = self._matrix().shape
        products = [_plain_product, _onednn_product]
        if isinstance(self._module, Conv) and self._module.geometry.get("groups", 1) == self._weight.shape[0]:
            products = [_one_row_product]
        blocks = [stride_k(columns, inner)]
        # With one sample the columns are dealt out to threads, and the rule sees fewer of them.
        blocks += [b for b in (32, 64, 128, 256, 512, 1024) if b not in blocks and b < 2 * inner]
        for block in blocks:
            for product in products:
                yield block, product

    def _matrix(self) -> Tensor:
        """Return the weight of a product as [N, K]."""
        if isinstance(self._module, Gemm) and self._module.trans_b:
            return self._weight
        return self._weight.t()

    def _compute(self, x: Tensor, block: int, product: Product) -> Tensor:
        if isinstance(self._module, Conv):
            return self._convolve(x, self._module.geometry, block, product)
        # A product of rows: x [..., K] times [K, N] is [N, K] times the columns of x.
        rows = x.reshape(-1, x.shape[-1])
        sums = _in_blocks(self._matrix()[None], rows.t()[None, None], block, product)
        result = sums[0, 0].t().reshape(*x.shape[:-1], -1)
        return result if self._bias is None else result + self._bias

    def _convolve(self, x: Tensor, geometry: dict, block: int, product: Product) -> Tensor:
        """Unfold a few samples at a time: columns that stay in the processor's cache cost a third of the time."""
        groups = geometry.get("groups", 1)
        weight = self._weight.reshape(groups, self._weight.shape[0] // groups, -1)
        size = _output_size(x, self._weight, geometry)
        view = _windows(x, self._weight, geometry, size)
        together = max(_CACHED_ELEMENTS // max(view[:1].numel(), 1), 1)
        results = []
        for part in view.split(together):
            columns = part.reshape(len(part), groups, weight.shape[2], -1)
            results.append(_in_blocks(weight, columns, block, product).reshape(len(part), -1, *size))
        result = results[0] if len(results) == 1 else torch.cat(results)
        return result if self._bias is None else result.add_(self._bias.reshape(1, -1, 1, 1))


def stride_k(columns: int, inner: int) -> int:
    """Return how many products MLAS adds up before it starts a new sum (its SgemmStrideN and SgemmStrideK rule).

    Both strides start at 128; a short inner dimension gives room to the columns, few columns give room to the inner
    dimension.
    """
    stride_n, stride = 128, 128
    if columns >= inner:
        while stride // 2 >= inner:
            stride //= 2
        return stride
    while stride_n > 16 and stride_n // 2 >= columns:
        stride_n //= 2
        stride *= 2
    return stride


def _in_blocks(weight: Tensor, columns: Tensor, block: int, product: Product) -> Tensor:
    total: Tensor | None = None
    for start in range(0, weight.shape[2], block):
        part = product(weight[:, :, start : start + block], columns[:, :, start : start + block])
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def _plain_product(weight: Tensor, columns: Tensor) -> Tensor:
    """Multiply with the BLAS that torch has."""
    return torch.matmul(weight, columns)


def _onednn_product(weight: Tensor, columns: Tensor) -> Tensor:
    """Multiply with oneDNN's inner product, which keeps one running sum for any K."""
    batch, groups, inner, count = columns.shape
    results = []
    for group in range(groups):
        rows = columns[:, group].transpose(1, 2).reshape(-1, inner).contiguous()
        out = F.linear(rows.to_mkldnn(), weight[group].contiguous().to_mkldnn()).to_dense()
        results.append(out.reshape(batch, count, -1).transpose(1, 2))
    return torch.stack(results, 1)


def _one_row_product(weight: Tensor, columns: Tensor) -> Tensor:
    """Add as the kernel for a single row does: four products among themselves, then to the sum; no fused multiply-add.

    Depthwise convolutions are such products: each channel's kernel is one row.
    """
    inner = weight.shape[2]

    def term(k: int) -> Tensor:
        return weight[None, :, :, k, None] * columns[:, :, None, k]

    total: Tensor | None = None
    start = 0
    while start < inner:
        count = 4 if start + 4 <= inner else min(2, inner - start)
        part = term(start)
        for k in range(start + 1, start + count):
            part = part.add_(term(k))
        total = part if total is None else total.add_(part)
        start += count
    assert total is not None
    return total


def _windows(x: Tensor, weight: Tensor, geometry: dict, size: tuple[int, int]) -> Tensor:
    """Return a view [B, C, kh, kw, H, W] of what each place of the kernel meets at each place of the output."""
    stride, dilation = geometry.get("stride") or [1, 1], geometry.get("dilation") or [1, 1]
    top, left, bottom, right = _pads(x, weight, geometry)
    padded = F.pad(x, (left, right, top, bottom)) if any((top, left, bottom, right)) else x.contiguous()
    batch, channel, row, column = padded.stride()
    return padded.as_strided(
        (x.shape[0], x.shape[1], *weight.shape[2:], *size),
        (batch, channel, row * dilation[0], column * dilation[1], row * stride[0], column * stride[1]),
    )


def _pads(x: Tensor, weight: Tensor, geometry: dict) -> tuple[int, int, int, int]:
    stride, dilation = geometry.get("stride") or [1, 1], geometry.get("dilation") or [1, 1]
    top, left, bottom, right = window_pads(
        list(x.shape[2:]),
        list(weight.shape[2:]),
        stride,
        dilation,
        geometry.get("pads") or [],
        geometry.get("auto_pad", "NOTSET"),
    )
    return top, left, bottom, right


def _output_size(x: Tensor, weight: Tensor, geometry: dict) -> tuple[int, int]:
    stride, dilation = geometry.get("stride") or [1, 1], geometry.get("dilation") or [1, 1]
    top, left, bottom, right = _pads(x, weight, geometry)
    height = (x.shape[2] + top + bottom - dilation[0] * (weight.shape[2] - 1) - 1) // stride[0] + 1
    width = (x.shape[3] + left + right - dilation[1] * (weight.shape[3] - 1) - 1) // stride[1] + 1
    return height, width


def _in_onnxruntime(module: nn.Module, weight: Tensor, bias: Tensor | None, x: Tensor, threads: int) -> np.ndarray:
    """Return what onnxruntime's float kernel gives for a layer."""
    names = ["x", "w"] + ([] if bias is None else ["b"])
    if isinstance(module, Conv):
        top, left, bottom, right = _pads(x, weight, module.geometry)
        node = helper.make_node(
            "Conv",
            names,
            ["y"],
            strides=module.geometry.get("stride") or [1, 1],
            dilations=module.geometry.get("dilation") or [1, 1],
            pads=[top, left, bottom, right],
            group=module.geometry.get("groups", 1),
        )
    elif isinstance(module, Gemm):
        node = helper.make_node("Gemm", names, ["y"], transB=module.trans_b)
    else:
        node = helper.make_node("MatMul", names, ["y"])
    constants = [onnx.numpy_helper.from_array(weight.detach().numpy(), "w")]
    if bias is not None:
        constants.append(onnx.numpy_helper.from_array(bias.detach().numpy(), "b"))
    tensor = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", tensor, [None] * x.dim())],
        [onnx.ValueInfoProto(name="y")],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = make_session(proto, threads=threads, optimize=False)
    return session.run(None, {"x": x.numpy()})[0]
