"""Reductions, index of extremes, cumulative sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from qstudio.graph.ops.common import as_ints
from qstudio.graph.translation import NodeView, translates

Reduction = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return x.mean(axes, keepdim=keep) if x.is_floating_point() else x.double().mean(axes, keepdim=keep).to(x.dtype)


def _prod(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(x: torch.Tensor, axes: list[int], keep: bool, largest: bool) -> torch.Tensor:
    if x.dtype == torch.bool:
        return _extreme(x.to(torch.uint8), axes, keep, largest).to(torch.bool)
    if any(x.shape[a] == 0 for a in axes):
        shape = [(1 if a in [b % x.dim() for b in axes] else s) for a, s in enumerate(x.shape)]
        limits = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
        edge: float = float("inf") if x.is_floating_point() else limits.max
        low: float = -edge if x.is_floating_point() else limits.min
        full = torch.full(shape, low if largest else edge, dtype=x.dtype, device=x.device)
        return full if keep else full.squeeze(tuple(axes))
    return x.amax(axes, keepdim=keep) if largest else x.amin(axes, keepdim=keep)


def _max(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return _extreme(x, axes, keep, True)


def _min(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return _extreme(x, axes, keep, False)


def _l1(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return _sum(x.abs(), axes, keep)


def _l2(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if not x.is_floating_point():
        return torch.sqrt(_sum(x.double().square(), axes, keep)).to(x.dtype)
    return torch.sqrt(_sum(x.square(), axes, keep))


def _log_sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return torch.log(_sum(x, axes, keep)).to(x.dtype)


def _log_sum_exp(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if not x.is_floating_point():
        return torch.logsumexp(x.double(), axes, keepdim=keep).to(x.dtype)
    return torch.logsumexp(x, axes, keepdim=keep)


def _sum_square(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return _sum(x.square(), axes, keep)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": _prod,
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _sum_square,
}


def reduce_axes(
    x: torch.Tensor, kind: str, axes: Any = None, keepdims: bool = True, empty_means_none: bool = False
) -> torch.Tensor:
    """Reduce x over axes; without axes over all of them, or over none where noop_with_empty_axes says so."""
    over = [] if axes is None else as_ints(axes)
    if not over:
        over = [] if empty_means_none else list(range(x.dim()))
    if not over:
        # No axis: each element is its own group, which the elementwise part of the operator still applies to.
        return _REDUCTIONS[kind](x.unsqueeze(0), [0], False)
    return _REDUCTIONS[kind](x, over, keepdims)


@translates(*_REDUCTIONS)
def translate_reduction(view: NodeView) -> fx.Node:
    """Translate a reduction; the axes are an attribute in older opsets and an input in newer ones."""
    axes = view.numbers(1) if view.has(1) else view.attribute("axes")
    keepdims, noop = bool(view.attribute("keepdims", 1)), bool(view.attribute("noop_with_empty_axes", 0))
    return view.call(reduce_axes, view.tensor(0), view.op_type, axes, keepdims, noop)


def arg_extreme(x: torch.Tensor, axis: int, keepdims: bool, last: bool, largest: bool) -> torch.Tensor:
    """Return the index of the first (or last) maximum or minimum along an axis, as int64."""
    best = x.amax(axis, keepdim=True) if largest else x.amin(axis, keepdim=True)
    hits = (x == best).to(torch.int8)
    if last:
        return x.shape[axis] - 1 - hits.flip(axis).argmax(axis, keepdim=keepdims)
    return hits.argmax(axis, keepdim=keepdims)


@translates("ArgMax", "ArgMin")
def translate_arg_extreme(view: NodeView) -> fx.Node:
    """Translate ArgMax and ArgMin."""
    return view.call(
        arg_extreme,
        view.tensor(0),
        view.attribute("axis", 0),
        bool(view.attribute("keepdims", 1)),
        bool(view.attribute("select_last_index", 0)),
        view.op_type == "ArgMax",
    )


def cumulate(x: torch.Tensor, axis: Any, exclusive: bool, reverse: bool, product: bool) -> torch.Tensor:
    """Compute the running sum (or product) along an axis; exclusive leaves the own element out."""
    along = as_ints(axis)[0] % x.dim()
    x = x.flip(along) if reverse else x
    y = torch.cumprod(x, along, dtype=x.dtype) if product else torch.cumsum(x, along, dtype=x.dtype)
    if exclusive:
        first = torch.full_like(y.narrow(along, 0, 1), 1 if product else 0)
        y = torch.cat([first, y.narrow(along, 0, y.shape[along] - 1)], along)
    return y.flip(along) if reverse else y


@translates("CumSum", "CumProd")
def translate_cumulate(view: NodeView) -> fx.Node:
    """Translate CumSum and CumProd."""
    exclusive, reverse = bool(view.attribute("exclusive", 0)), bool(view.attribute("reverse", 0))
    return view.call(cumulate, view.tensor(0), view.numbers(1), exclusive, reverse, view.op_type == "CumProd")
