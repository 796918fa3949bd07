"""GPTQ: round a layer's weights one input at a time, and let those not yet rounded make up for the error."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qstudio.core.affine import spread
from qstudio.graph.ops.common import pad_with, window_pads
from qstudio.graph.ops.conv import Conv, ConvTranspose
from qstudio.quant.network import Network
from qstudio.quant.refine.march import March, refining, start_march
from qstudio.quant.refine.state import RefineState
from qstudio.quant.refine.task import Refined, Task
from qstudio.quant.refine.units import Unit, layer_units

BLOCK = 128
"""Columns whose updates are collected before the rest of the matrix is touched."""

LARGEST_INNER = 8192
"""Longest inner dimension: the Hessian of 8,192 inputs takes 512 MiB in float64."""


def gptq(network: Network, task: Task, refined: Refined) -> Refined:
    """Choose the rounding of each layer by second-order error compensation.

    Frantar et al., GPTQ, 2023: H = 2 X X^T + damping mean(diag H) I over the layer's quantized inputs, columns in
    blocks of 128, the error of each spread over the columns to come by the Cholesky factor of H^-1. Convolutions are
    matrices over their unfolded inputs, one for each group.

    Raises:
        JobCancelled: The run was stopped.
    """
    state = RefineState(network, refined)
    units = layer_units(network)
    with refining(network):
        march = start_march(network, units, task, "GPTQ", state.notes)
        for number, unit in enumerate(units):
            task.ctx.report(number, len(units), f"GPTQ: {unit.name}")
            for name in state.open_weights(unit):
                _round_layer(state, march, unit, name, task)
            march.advance(unit, state.parameters, state.rounding)
    return state.finish()


def _round_layer(state: RefineState, march: March, unit: Unit, name: str, task: Task) -> None:
    step = unit.steps[0]
    module: nn.Module | None = None
    if step.node.op == "call_module":
        module = state.network.executor.module.get_submodule(str(step.node.target))
    values, encoding = state.float_value(name), state.weights[name]
    axis = encoding.axis if encoding.axis is not None else state.layer_of[name].weight.channel_axis  # type: ignore[union-attr]
    inner = values.size // values.shape[axis or 0]
    if module is None or isinstance(module, ConvTranspose) or values.ndim < 2 or axis is None or inner > LARGEST_INNER:
        state.notes.append(f"GPTQ: {unit.name} is of a kind it does not treat; it is rounded to nearest.")
        return
    groups = int(module.geometry.get("groups", 1)) if isinstance(module, Conv) else 1
    hessians: Tensor | None = None
    for _, quantized, count in march.pairs(unit):
        task.ctx.check()
        node = unit.inputs[0]
        x = state.rounding(unit.tensors[node], quantized[node])[:count]
        columns = _columns(module, x, values.shape, groups)
        part = (columns @ columns.transpose(1, 2)).double()
        hessians = part if hessians is None else hessians + part
    if hessians is None:
        return
    rows = np.moveaxis(values, axis, 0).reshape(groups, values.shape[axis] // groups, inner)
    scales = _rows_of(spread(encoding.scale, values.shape, encoding), values.shape, axis).reshape(rows.shape)
    zeros = _rows_of(spread(encoding.zero_point, values.shape, encoding), values.shape, axis).reshape(rows.shape)
    steps = np.stack(
        [
            compensated_steps(
                torch.tensor(rows[g], dtype=torch.float64),
                torch.tensor(scales[g], dtype=torch.float64),
                torch.tensor(encoding.qmin - zeros[g], dtype=torch.float64),
                torch.tensor(encoding.qmax - zeros[g], dtype=torch.float64),
                2.0 * hessians[g].cpu(),
                task.settings["damping"],
                bool(task.settings["act_order"]),
            ).numpy()
            for g in range(groups)
        ]
    )
    moved = [values.shape[axis], *(n for i, n in enumerate(values.shape) if i != axis)]
    whole = np.moveaxis(steps.reshape(moved), 0, axis).astype(np.int64)
    state.take_steps(name, whole, encoding)


def compensated_steps(
    weight: Tensor, scale: Tensor, low: Tensor, high: Tensor, hessian: Tensor, damping: float, act_order: bool
) -> Tensor:
    """Return the codes (without zero point) that GPTQ gives a matrix, [N, K] float64.

    Args:
        weight: [N, K].
        scale: [N, K]; the step of each element.
        low: [N, K]; smallest code minus zero point.
        high: [N, K]; largest code minus zero point.
        hessian: [K, K]; 2 X X^T.
        damping: Share of the diagonal's mean that is added to it.
        act_order: Go through the columns by falling diagonal.
    """
    weight = weight.clone()
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    dead = diagonal <= 0
    diagonal[dead] = 1.0
    order = torch.argsort(diagonal, descending=True, stable=True) if act_order else torch.arange(len(diagonal))
    weight, scale, low, high = (t[:, order] for t in (weight, scale, low, high))
    hessian = hessian[order][:, order]
    hessian.diagonal().add_(damping * float(hessian.diagonal().mean()))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    steps = torch.empty_like(weight)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        errors = torch.zeros(weight.shape[0], end - start, dtype=weight.dtype)
        for k in range(start, end):
            column = weight[:, k]
            code = torch.minimum(torch.maximum((column / scale[:, k]).round(), low[:, k]), high[:, k])
            steps[:, k] = code
            error = (column - code * scale[:, k]) / factor[k, k]
            weight[:, k + 1 : end] -= error[:, None] * factor[k, k + 1 : end]
            errors[:, k - start] = error
        weight[:, end:] -= errors @ factor[start:end, end:]
    result = torch.empty_like(steps)
    result[:, order] = steps
    return result


def _columns(module: nn.Module, x: Tensor, weight_shape: tuple[int, ...], groups: int) -> Tensor:
    """Return what each row of the weight matrix meets, [groups, K, places]."""
    if not isinstance(module, Conv):
        if getattr(module, "trans_a", 0):
            x = x.t()
        return x.reshape(-1, x.shape[-1]).t()[None]
    geometry, rank = module.geometry, len(weight_shape) - 2
    kernel = list(weight_shape[2:])
    stride, dilation = geometry.get("stride") or [1] * rank, geometry.get("dilation") or [1] * rank
    pads = window_pads(
        list(x.shape[2:]), kernel, stride, dilation, geometry.get("pads") or [], geometry.get("auto_pad", "NOTSET")
    )
    x = pad_with(x, pads)
    if rank == 1:
        x, kernel, stride, dilation = x.unsqueeze(2), [1, *kernel], [1, *stride], [1, *dilation]
    if rank == 3:
        return _columns_3d(x, kernel, stride, dilation, groups)
    unfolded = F.unfold(x, tuple(kernel), tuple(dilation), 0, tuple(stride))
    return unfolded.reshape(len(x), groups, -1, unfolded.shape[-1]).permute(1, 2, 0, 3).flatten(2)


def _columns_3d(x: Tensor, kernel: list[int], stride: list[int], dilation: list[int], groups: int) -> Tensor:
    for axis in range(3):
        x = _windows(x, 2 + axis, kernel[axis], stride[axis], dilation[axis])
    # [B, C, d, h, w, kd, kh, kw] -> [groups, C/groups * kd * kh * kw, B * d * h * w]
    moved = x.permute(1, 5, 6, 7, 0, 2, 3, 4)
    return moved.reshape(groups, -1, moved.shape[4] * moved.shape[5] * moved.shape[6] * moved.shape[7])


def _windows(x: Tensor, axis: int, size: int, stride: int, dilation: int) -> Tensor:
    return x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]


def _rows_of(spread_values: NDArray[np.generic], shape: tuple[int, ...], axis: int) -> NDArray[np.float64]:
    full = np.broadcast_to(spread_values, shape).astype(np.float64)
    return np.moveaxis(full, axis, 0)
