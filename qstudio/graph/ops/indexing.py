"""Indexing: gather, scatter, top-k, one-hot, non-zero, unique."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from qstudio.graph.ops.common import aligned, as_ints
from qstudio.graph.translation import NodeView, translates


def _places(indices: torch.Tensor, size: int, like: torch.Tensor) -> torch.Tensor:
    """Return int64 indices on like's device, with negative ones counted from the end."""
    places = indices.to(device=like.device, dtype=torch.int64)
    return torch.where(places < 0, places + size, places)


def gather(x: torch.Tensor, indices: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Take slices of x along an axis; the indices' shape replaces the axis (numpy's take)."""
    axis = axis % x.dim()
    places = _places(indices, x.shape[axis], x)
    taken = x.index_select(axis, places.reshape(-1))
    return taken.reshape([*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])


class Gather(nn.Module):
    """A table of constant vectors (an embedding) as ONNX stores it."""

    weight: torch.Tensor

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Look the indices up."""
        return gather(self.weight, indices, self.axis)


@translates("Gather")
def translate_gather(view: NodeView) -> fx.Node:
    """Make a layer of a lookup in a constant float table, and a plain call of any other."""
    axis = view.attribute("axis", 0)
    table = view.constant(0)
    if view.is_layer_weight(0) and table is not None and table.ndim >= 2 and view.constant(1) is None:
        return view.layer(Gather(axis), {"weight": 0}, view.tensor(1))
    return view.call(gather, view.tensor(0), view.tensor(1), axis)


def gather_elements(x: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
    """Take single elements along an axis."""
    return torch.gather(x, axis, _places(indices, x.shape[axis], x))


@translates("GatherElements")
def translate_gather_elements(view: NodeView) -> fx.Node:
    """Translate GatherElements."""
    return view.call(gather_elements, view.tensor(0), view.tensor(1), view.attribute("axis", 0))


def gather_nd(x: torch.Tensor, indices: torch.Tensor, batch_dims: int) -> torch.Tensor:
    """Take the slices that index tuples (the last axis of indices) point to."""
    depth = indices.shape[-1]
    batch = x.shape[:batch_dims]
    grids = torch.meshgrid(*[torch.arange(s, device=x.device) for s in batch], indexing="ij") if batch_dims else ()
    extra = indices.dim() - 1 - batch_dims
    key = [g.reshape([*batch, *[1] * extra]) for g in grids]
    key += [_places(indices[..., i], x.shape[batch_dims + i], x) for i in range(depth)]
    return x[tuple(key)]


@translates("GatherND")
def translate_gather_nd(view: NodeView) -> fx.Node:
    """Translate GatherND."""
    return view.call(gather_nd, view.tensor(0), view.tensor(1), view.attribute("batch_dims", 0))


_SCATTER = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter_elements(
    x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, axis: int, reduction: str
) -> torch.Tensor:
    """Write (or accumulate) single elements along an axis."""
    places = _places(indices, x.shape[axis], x)
    x, updates = aligned(x, updates)
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _SCATTER[reduction])


@translates("ScatterElements", "Scatter")
def translate_scatter_elements(view: NodeView) -> fx.Node:
    """Translate ScatterElements."""
    tensors = [view.tensor(i) for i in range(3)]
    return view.call(scatter_elements, *tensors, view.attribute("axis", 0), view.attribute("reduction", "none"))


def scatter_nd(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, reduction: str) -> torch.Tensor:
    """Write (or accumulate) the slices that index tuples point to."""
    depth = indices.shape[-1]
    inner = list(x.shape[depth:])
    rows = x.reshape([-1, *inner])
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for i in range(depth):
        flat = flat * x.shape[i] + _places(indices[..., i], x.shape[i], x)
    flat = flat.reshape(-1)
    x, updates = aligned(x, updates)
    values = updates.reshape([-1, *inner])
    if reduction == "none":
        return rows.index_put((flat,), values).reshape(x.shape)
    places = flat.reshape([-1] + [1] * len(inner)).expand(values.shape)
    return rows.scatter_reduce(0, places, values, _SCATTER[reduction]).reshape(x.shape)


@translates("ScatterND")
def translate_scatter_nd(view: NodeView) -> fx.Node:
    """Translate ScatterND."""
    return view.call(scatter_nd, *[view.tensor(i) for i in range(3)], view.attribute("reduction", "none"))


def tensor_scatter(
    past: torch.Tensor, update: torch.Tensor, write_indices: torch.Tensor | None, axis: int, circular: bool
) -> torch.Tensor:
    """Write `update` into a cache [B, ...] along an axis, from a place of its own for each sample."""
    axis = axis % past.dim()
    batch, length = past.shape[0], update.shape[axis]
    start = torch.zeros(batch, dtype=torch.int64) if write_indices is None else write_indices.to(torch.int64)
    place = start.to(past.device).unsqueeze(1) + torch.arange(length, device=past.device)
    if circular:
        place = place % past.shape[axis]
    shape = [1] * past.dim()
    shape[0], shape[axis] = batch, length
    return past.scatter(axis, place.reshape(shape).expand(update.shape), update)


@translates("TensorScatter")
def translate_tensor_scatter(view: NodeView) -> fx.Node:
    """Translate TensorScatter."""
    circular = view.attribute("mode", "linear") == "circular"
    return view.call(
        tensor_scatter, view.tensor(0), view.tensor(1), view.optional(2), view.attribute("axis", -2), circular
    )


def top_k(x: torch.Tensor, k: Any, axis: int, largest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest (or smallest) values along an axis and their indices; ties go to the lower index."""
    count = as_ints(k)[0]
    wide = x.to(torch.int64) if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x
    values, indices = torch.sort(wide, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count).to(x.dtype), indices.narrow(axis, 0, count)


@translates("TopK")
def translate_top_k(view: NodeView) -> tuple[fx.Node | None, ...]:
    """Translate TopK; k is an attribute before opset 10."""
    k = view.numbers(1) if view.has(1) else view.attribute("k")
    largest = bool(view.attribute("largest", 1))
    return view.items(view.call(top_k, view.tensor(0), k, view.attribute("axis", -1), largest))


def one_hot(indices: torch.Tensor, depth: Any, values: torch.Tensor, axis: int) -> torch.Tensor:
    """Insert an axis of `depth` places: values[1] where the index points, else values[0]."""
    count = as_ints(depth)[0]
    indices, values = aligned(indices, values)
    places = indices.to(torch.int64)
    axis = axis % (places.dim() + 1)
    # Indices outside [-depth, depth) give no hot place (ONNX OneHot-11).
    wrapped = torch.where(places < 0, places + count, places).unsqueeze(axis)
    shape = [1] * (places.dim() + 1)
    shape[axis] = count
    hot = wrapped == torch.arange(count, device=places.device).reshape(shape)
    return torch.where(hot, values[1], values[0])


@translates("OneHot")
def translate_one_hot(view: NodeView) -> fx.Node:
    """Translate OneHot."""
    return view.call(one_hot, view.tensor(0), view.numbers(1), view.tensor(2), view.attribute("axis", -1))


def non_zero(x: torch.Tensor) -> torch.Tensor:
    """Return the indices of the elements that are not zero, one row for each axis."""
    return torch.nonzero(x).t().contiguous()


@translates("NonZero")
def translate_non_zero(view: NodeView) -> fx.Node:
    """Translate NonZero."""
    return view.call(non_zero, view.tensor(0))


def compress(x: torch.Tensor, condition: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Keep the slices whose condition holds; without an axis x is flattened."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, torch.nonzero(condition.to(x.device)).reshape(-1))


@translates("Compress")
def translate_compress(view: NodeView) -> fx.Node:
    """Translate Compress."""
    return view.call(compress, view.tensor(0), view.tensor(1), view.attribute("axis"))


def reverse_sequence(x: torch.Tensor, lengths: torch.Tensor, time_axis: int, batch_axis: int) -> torch.Tensor:
    """Turn the first `length` steps of each sample around."""
    steps = x.shape[time_axis]
    order = torch.arange(steps, device=x.device).unsqueeze(0)
    bound = lengths.to(x.device).unsqueeze(1)
    place = torch.where(order < bound, bound - 1 - order, order)
    if time_axis < batch_axis:
        place = place.t()
    shape = [1] * x.dim()
    shape[time_axis], shape[batch_axis] = steps, x.shape[batch_axis]
    return torch.gather(x, time_axis, place.reshape(shape).expand(x.shape))


@translates("ReverseSequence")
def translate_reverse_sequence(view: NodeView) -> fx.Node:
    """Translate ReverseSequence."""
    time_axis, batch_axis = view.attribute("time_axis", 0), view.attribute("batch_axis", 1)
    return view.call(reverse_sequence, view.tensor(0), view.tensor(1), time_axis, batch_axis)


def unique(
    x: torch.Tensor, axis: int | None, in_order: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the distinct elements (or slices), their first places, the way back, and their counts."""
    flat = x.reshape(-1) if axis is None else x
    along = 0 if axis is None else axis % x.dim()
    values, inverse, counts = torch.unique(flat, sorted=True, return_inverse=True, return_counts=True, dim=along)
    order = torch.arange(inverse.shape[0], device=x.device)
    first = torch.full((counts.shape[0],), inverse.shape[0], dtype=torch.int64, device=x.device)
    first = first.scatter_reduce(0, inverse, order, "amin")
    if in_order:
        rank = torch.argsort(first)
        back = torch.argsort(rank)
        values, first, counts = values.index_select(along, rank), first[rank], counts[rank]
        inverse = back[inverse]
    return values, first, inverse, counts


@translates("Unique")
def translate_unique(view: NodeView) -> tuple[fx.Node | None, ...]:
    """Translate Unique."""
    return view.items(view.call(unique, view.tensor(0), view.attribute("axis"), not view.attribute("sorted", 1)))
