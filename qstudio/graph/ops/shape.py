"""Shape operators: they move or copy values and change none."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from qstudio.graph.ops.common import aligned, as_ints, torch_pad_order
from qstudio.graph.torch_dtypes import TORCH_OF_ONNX
from qstudio.graph.translation import NodeView, Unsupported, translates


def reshape(x: torch.Tensor, shape: Any, allow_zero: bool = False) -> torch.Tensor:
    """Reshape x; 0 copies the input's size at that place unless allow_zero, -1 is inferred."""
    target = as_ints(shape)
    if not allow_zero:
        target = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


@translates("Reshape")
def translate_reshape(view: NodeView) -> fx.Node:
    """Translate Reshape."""
    shape = view.numbers(1) if view.has(1) else view.attribute("shape")
    return view.call(reshape, view.tensor(0), shape, bool(view.attribute("allowzero", 0)))


def flatten(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Make a matrix of x: the axes before `axis` are the rows."""
    axis = axis if axis >= 0 else axis + x.dim()
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    if rows == 0 or x.numel() == 0:
        columns = 1
        for size in x.shape[axis:]:
            columns *= size
        return x.reshape(rows, columns)
    return x.reshape(rows, -1)


@translates("Flatten")
def translate_flatten(view: NodeView) -> fx.Node:
    """Translate Flatten."""
    return view.call(flatten, view.tensor(0), view.attribute("axis", 1))


def squeeze(x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    """Drop axes of size 1; without axes all of them."""
    return x.squeeze() if axes is None else x.squeeze(tuple(as_ints(axes)))


def unsqueeze(x: torch.Tensor, axes: Any) -> torch.Tensor:
    """Insert axes of size 1 at the given places of the result."""
    places = as_ints(axes)
    rank = x.dim() + len(places)
    for axis in sorted(a % rank for a in places):
        x = x.unsqueeze(axis)
    return x


@translates("Squeeze", "Unsqueeze")
def translate_squeeze(view: NodeView) -> fx.Node:
    """Translate Squeeze and Unsqueeze; the axes are an attribute before opset 13."""
    axes = view.numbers(1) if view.has(1) else view.attribute("axes")
    return view.call(squeeze if view.op_type == "Squeeze" else unsqueeze, view.tensor(0), axes)


def transpose(x: torch.Tensor, order: list[int] | None = None) -> torch.Tensor:
    """Permute the axes; without an order reverse them."""
    return x.permute(order if order is not None else list(reversed(range(x.dim()))))


@translates("Transpose")
def translate_transpose(view: NodeView) -> fx.Node:
    """Translate Transpose."""
    return view.call(transpose, view.tensor(0), view.attribute("perm"))


def concatenate(axis: int, *tensors: torch.Tensor) -> torch.Tensor:
    """Join tensors along an axis."""
    return torch.cat(aligned(*tensors), axis)


@translates("Concat")
def translate_concat(view: NodeView) -> fx.Node:
    """Translate Concat."""
    return view.call(concatenate, view.attribute("axis", 1), *[view.tensor(i) for i in range(len(view.inputs))])


def split(x: torch.Tensor, axis: int, sizes: Any = None, parts: int = 1) -> tuple[torch.Tensor, ...]:
    """Cut x along an axis into the given sizes, or into equal parts of which the last may be smaller."""
    if sizes is not None:
        return torch.split(x, as_ints(sizes), axis)
    length = x.shape[axis]
    each = -(-length // parts)
    return torch.split(x, [min(each, max(0, length - i * each)) for i in range(parts)], axis)


@translates("Split")
def translate_split(view: NodeView) -> tuple[fx.Node | None, ...]:
    """Translate Split; the sizes are an attribute before opset 13."""
    sizes = view.numbers(1) if view.has(1) else view.attribute("split")
    parts = view.attribute("num_outputs", len(view.outputs))
    return view.items(view.call(split, view.tensor(0), view.attribute("axis", 0), sizes, parts))


def slice_axes(x: torch.Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> torch.Tensor:
    """Cut x as Python slices do, on several axes at once, negative steps included."""
    begin, end = as_ints(starts), as_ints(ends)
    along = list(range(len(begin))) if axes is None else as_ints(axes)
    stride = [1] * len(begin) if steps is None else as_ints(steps)
    for first, last, axis, step in zip(begin, end, along, stride, strict=True):
        size = x.shape[axis]
        if step < 0 and last < -size:
            chosen = range(size)[slice(first, None, step)]
        else:
            chosen = range(size)[slice(first, last, step)]
        if step > 0:
            index = [slice(None)] * (axis % x.dim()) + [slice(chosen.start, chosen.stop, step)]
            x = x[tuple(index)]
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


@translates("Slice")
def translate_slice(view: NodeView) -> fx.Node:
    """Translate Slice; everything is an attribute before opset 10."""
    if view.opset < 10:
        return view.call(
            slice_axes, view.tensor(0), view.attribute("starts"), view.attribute("ends"), view.attribute("axes")
        )
    return view.call(slice_axes, view.tensor(0), *[view.numbers(i) for i in range(1, 5)])


def pad(x: torch.Tensor, pads: Any, mode: str = "constant", value: Any = None, axes: Any = None) -> torch.Tensor:
    """Pad (or with negative numbers crop) x by ONNX pads: all begins, then all ends."""
    amounts = as_ints(pads)
    if axes is not None:
        along = [a % x.dim() for a in as_ints(axes)]
        full = [0] * (2 * x.dim())
        for place, axis in enumerate(along):
            full[axis], full[axis + x.dim()] = amounts[place], amounts[place + len(along)]
        amounts = full
    if mode == "constant":
        if isinstance(value, torch.Tensor):
            value = value.reshape(-1)[0].item() if value.numel() else 0
        elif isinstance(value, list):
            value = value[0] if value else 0
        if x.dtype == torch.bool:
            return F.pad(x.to(torch.uint8), torch_pad_order(amounts), value=float(bool(value))).to(torch.bool)
        return F.pad(x, torch_pad_order(amounts), value=0 if value is None else value)
    for axis in range(x.dim()):
        before, after = amounts[axis], amounts[axis + x.dim()]
        if before == 0 and after == 0:
            continue
        index = torch.arange(-before, x.shape[axis] + after, device=x.device)
        size = x.shape[axis]
        if mode == "edge":
            index = index.clamp(0, size - 1)
        elif mode == "wrap":
            index = index % size
        else:
            period = max(1, 2 * (size - 1))
            index = index % period
            index = torch.minimum(index, period - index)
        x = x.index_select(axis, index)
    return x


@translates("Pad")
def translate_pad(view: NodeView) -> fx.Node:
    """Translate Pad; pads and value are attributes before opset 11."""
    mode = view.attribute("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise Unsupported(f"the mode {mode!r}")
    if view.opset < 11:
        return view.call(pad, view.tensor(0), view.attribute("pads"), mode, view.attribute("value", 0.0))
    return view.call(pad, view.tensor(0), view.numbers(1), mode, view.numbers(2), view.numbers(3))


def expand(x: torch.Tensor, shape: Any) -> torch.Tensor:
    """Broadcast x with a shape, both ways."""
    return x.expand(torch.broadcast_shapes(x.shape, as_ints(shape)))


@translates("Expand")
def translate_expand(view: NodeView) -> fx.Node:
    """Translate Expand."""
    return view.call(expand, view.tensor(0), view.numbers(1))


def tile(x: torch.Tensor, repeats: Any) -> torch.Tensor:
    """Repeat x along each axis."""
    return x.repeat(as_ints(repeats))


@translates("Tile")
def translate_tile(view: NodeView) -> fx.Node:
    """Translate Tile."""
    return view.call(tile, view.tensor(0), view.numbers(1))


def shape_of(x: torch.Tensor, start: int = 0, end: int | None = None) -> torch.Tensor:
    """Return x's sizes as an int64 tensor on the host."""
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@translates("Shape")
def translate_shape(view: NodeView) -> fx.Node:
    """Translate Shape."""
    return view.call(shape_of, view.tensor(0), view.attribute("start", 0), view.attribute("end"))


def size_of(x: torch.Tensor) -> torch.Tensor:
    """Return x's number of elements as an int64 scalar on the host."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@translates("Size")
def translate_size(view: NodeView) -> fx.Node:
    """Translate Size."""
    return view.call(size_of, view.tensor(0))


def constant_of_shape(shape: Any, value: float | int | bool, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of one value."""
    return torch.full(as_ints(shape), value, dtype=dtype)


@translates("ConstantOfShape")
def translate_constant_of_shape(view: NodeView) -> fx.Node:
    """Translate ConstantOfShape."""
    attribute = next((a.t for a in view.node.attribute if a.name == "value"), None)
    if attribute is None:
        return view.call(constant_of_shape, view.numbers(0), 0.0, torch.float32)
    value = view.attribute("value").reshape(-1)[0].item()
    return view.call(constant_of_shape, view.numbers(0), value, TORCH_OF_ONNX[attribute.data_type])


def arange(start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Count from start to limit (left out) by delta."""
    count = max(0, int(torch.ceil((limit - start).double() / delta.double()).item()))
    return start + torch.arange(count, device=start.device).to(start.dtype) * delta


@translates("Range")
def translate_range(view: NodeView) -> fx.Node:
    """Translate Range."""
    return view.call(arange, view.tensor(0), view.tensor(1), view.tensor(2))


def depth_to_space(x: torch.Tensor, block: int, mode: str) -> torch.Tensor:
    """Move blocks of channels of x [N, C, H, W] into space; DCR takes the block index from the outer channels."""
    n, c, h, w = x.shape
    if mode == "DCR":
        parts = x.reshape(n, block, block, c // (block * block), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // (block * block), block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // (block * block), h * block, w * block)


def space_to_depth(x: torch.Tensor, block: int, mode: str) -> torch.Tensor:
    """Move blocks of space of x [N, C, H, W] into channels."""
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return parts.permute(order).reshape(n, c * block * block, h // block, w // block)


@translates("DepthToSpace", "SpaceToDepth")
def translate_depth_to_space(view: NodeView) -> fx.Node:
    """Translate DepthToSpace and SpaceToDepth."""
    function = depth_to_space if view.op_type == "DepthToSpace" else space_to_depth
    return view.call(function, view.tensor(0), view.attribute("blocksize"), view.attribute("mode", "DCR"))


def triangle(x: torch.Tensor, k: Any = None, upper: bool = True) -> torch.Tensor:
    """Keep the upper (or lower) triangle of the last two axes."""
    diagonal = 0 if k is None else as_ints(k)[0]
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@translates("Trilu")
def translate_trilu(view: NodeView) -> fx.Node:
    """Translate Trilu."""
    return view.call(triangle, view.tensor(0), view.numbers(1), bool(view.attribute("upper", 1)))


def eye_like(x: torch.Tensor, k: int, dtype: torch.dtype | None) -> torch.Tensor:
    """Return ones on the k-th diagonal of a matrix of x's shape."""
    rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    columns = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    return (columns - rows == k).to(dtype or x.dtype)


@translates("EyeLike")
def translate_eye_like(view: NodeView) -> fx.Node:
    """Translate EyeLike."""
    number = view.attribute("dtype")
    return view.call(
        eye_like, view.tensor(0), view.attribute("k", 0), None if number is None else TORCH_OF_ONNX[number]
    )


def center_crop_pad(x: torch.Tensor, shape: Any, axes: list[int] | None) -> torch.Tensor:
    """Crop or pad x around its centre to a shape."""
    along = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes]
    for axis, target in zip(along, as_ints(shape), strict=True):
        size = x.shape[axis]
        if target < size:
            x = x.narrow(axis, (size - target) // 2, target)
        elif target > size:
            before = (target - size) // 2
            pads = [0] * (2 * x.dim())
            pads[axis], pads[axis + x.dim()] = before, target - size - before
            x = F.pad(x, torch_pad_order(pads))
    return x


@translates("CenterCropPad")
def translate_center_crop_pad(view: NodeView) -> fx.Node:
    """Translate CenterCropPad."""
    return view.call(center_crop_pad, view.tensor(0), view.numbers(1), view.attribute("axes"))
