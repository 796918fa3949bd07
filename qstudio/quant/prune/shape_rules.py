"""How channels go through everything that is not a layer: value by value, joined, moved, flattened."""

from __future__ import annotations

import math

import numpy as np
import onnx

from qstudio.quant.prune.tracer import Tracer, attribute


def follow_pass(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through what treats every value by itself."""
    channels = tracer.of(node.input[0])
    return channels is None or tracer.put(node.output[0], channels.axis, channels.labels)


def follow_spatial(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a pooling."""
    channels = tracer.of(node.input[0])
    if channels is None:
        return True
    if channels.axis != 1 or any(node.output[1:]):
        return False
    return tracer.put(node.output[0], 1, channels.labels)


def follow_paired(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Join the channels of all operands, which broadcasting aligns at the right."""
    known = {name: tracer.of(name) for name in node.input if name}
    if not any(known.values()):
        return True
    shapes = {name: tracer.shape(name) for name in known}
    ranks = {name: len(shape) for name, shape in shapes.items() if shape is not None}
    if len(ranks) < len(known):
        return False
    places = {c.axis - ranks[name] for name, c in known.items() if c is not None}
    first = next(c for c in known.values() if c is not None)
    if len(places) != 1:
        return False
    place, count = places.pop(), len(first.labels)
    for name, channels in known.items():
        sizes = shapes[name]
        assert sizes is not None
        size = sizes[place] if len(sizes) >= -place else 1
        if channels is not None:
            if len(channels.labels) != count:
                return False
        elif size == 1:
            continue
        elif tracer.dims(name) is None or size != count:
            return False
    for name, channels in known.items():
        sizes = shapes[name]
        assert sizes is not None
        if channels is not None:
            tracer.map.join(first.labels, channels.labels)
        elif len(sizes) >= -place and sizes[place] != 1:
            tracer.attach(name, len(sizes) + place, first.labels)
    return tracer.put(node.output[0], max(ranks.values()) + place, first.labels)


def follow_concat(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a Concat: one after the other along their own axis, else they are the same."""
    known = [tracer.of(name) for name in node.input]
    shapes = [tracer.shape(name) for name in node.input]
    ranks = {len(shape) for shape in shapes if shape is not None}
    axes = {channels.axis for channels in known if channels is not None}
    if not axes:
        return True
    if len(ranks) != 1 or len(axes) != 1:
        return False
    axis = axes.pop()
    if attribute(node, "axis", 0) % ranks.pop() != axis:
        found = [channels for channels in known if channels is not None]
        if len(found) < len(known):
            return False
        for other in found[1:]:
            tracer.map.join(found[0].labels, other.labels)
        return tracer.put(node.output[0], axis, found[0].labels)
    parts = []
    for channels, shape in zip(known, shapes, strict=True):
        size = shape[axis] if shape is not None else None
        if channels is None and size is None:
            return False
        if channels is None:
            labels = tracer.map.fresh(size or 0)
            tracer.map.fix(labels, f"{node.name} joins them with what no layer makes")
            parts.append(labels)
        else:
            parts.append(channels.labels)
    return tracer.put(node.output[0], axis, np.concatenate(parts))


def follow_transpose(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels to another axis."""
    channels, shape = tracer.of(node.input[0]), tracer.shape(node.input[0])
    if channels is None:
        return True
    order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
    if order is None and shape is not None:
        order = list(reversed(range(len(shape))))
    return order is not None and tracer.put(node.output[0], order.index(channels.axis), channels.labels)


def follow_flatten(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels into a matrix whose rows are the samples: each takes a block of columns, or columns apart."""
    channels, shape = tracer.of(node.input[0]), tracer.shape(node.input[0])
    if channels is None:
        return True
    if shape is None or any(size is None for size in shape[1:]):
        return False
    sizes = [int(size or 0) for size in shape]
    if node.op_type == "Reshape":
        result, target = tracer.shape(node.output[0]), tracer.constant(node, 1)
        if target is not None and target.size == len(sizes) and result is not None and result[1:] == shape[1:]:
            return False  # it changes nothing, and what it names would have to be cut: rare enough
        columns = None if result is None or len(result) != 2 else result[1]
        if target is None or target.size != 2 or columns != math.prod(sizes[1:]):
            return False
    elif attribute(node, "axis", 1) % len(sizes) != 1:
        return False
    if channels.axis == 0:
        return False
    outer, inner = math.prod(sizes[1 : channels.axis]), math.prod(sizes[channels.axis + 1 :])
    labels = np.tile(np.repeat(channels.labels, inner), outer)
    if node.op_type == "Reshape":
        tracer.map.flattened.append((node, labels))
    return tracer.put(node.output[0], 1, labels)


def follow_reduce(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a sum or mean over other axes."""
    channels, shape = tracer.of(node.input[0]), tracer.shape(node.input[0])
    if channels is None:
        return True
    axes = None if shape is None else tracer.axes(node, 1, len(shape))
    if not axes or channels.axis in axes:
        return False
    gone = 0 if attribute(node, "keepdims", 1) else sum(axis < channels.axis for axis in axes)
    return tracer.put(node.output[0], channels.axis - gone, channels.labels)


def follow_squeeze(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through Squeeze and Unsqueeze."""
    channels, shape = tracer.of(node.input[0]), tracer.shape(node.input[0])
    if channels is None:
        return True
    rank = len(shape or ()) + (len(tracer.axes(node, 1, 99) or ()) if node.op_type == "Unsqueeze" else 0)
    axes = None if shape is None else tracer.axes(node, 1, rank)
    if not axes:
        return False
    if node.op_type == "Squeeze":
        return channels.axis not in axes and tracer.put(
            node.output[0], channels.axis - sum(a < channels.axis for a in axes), channels.labels
        )
    kept = [axis for axis in range(rank) if axis not in axes]
    return tracer.put(node.output[0], kept[channels.axis], channels.labels)


def follow_slice(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a Slice of other axes."""
    channels, shape = tracer.of(node.input[0]), tracer.shape(node.input[0])
    if channels is None:
        return True
    if shape is None:
        return False
    axes = tracer.axes(node, 3, len(shape))
    return axes is not None and channels.axis not in axes and follow_pass(tracer, node)


def follow_split(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a Split of another axis."""
    channels, shape = tracer.of(node.input[0]), tracer.shape(node.input[0])
    if channels is None:
        return True
    if shape is None or attribute(node, "axis", 0) % len(shape) == channels.axis:
        return False
    return all(tracer.put(name, channels.axis, channels.labels) for name in node.output if name)


def follow_pad(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a Pad; those it adds (a residual network's shortcut) are channels that may go too."""
    channels, pads = tracer.of(node.input[0]), tracer.constant(node, 1)
    if channels is None:
        return True
    if pads is None or (len(node.input) > 3 and node.input[3]):
        return False
    rank = pads.size // 2
    before, after = (int(pads[channels.axis + side * rank]) for side in (0, 1))
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    if min(before, after) < 0 or (max(before, after) > 0 and mode != b"constant"):
        return False
    parts = []
    for place, count in ((channels.axis, before), (channels.axis + rank, after)):
        labels = tracer.map.fresh(count)
        if count:
            tracer.map.pads.append((node, place, labels))
        parts.append(labels)
    return tracer.put(node.output[0], channels.axis, np.concatenate([parts[0], channels.labels, parts[1]]))


def follow_resize(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Let channels pass where factors are given and theirs is 1; sizes would name the number of channels."""
    channels, scales = tracer.of(node.input[0]), tracer.constant(node, 1 if node.op_type == "Upsample" else 2)
    if channels is None:
        return True
    if scales is None or any(a.name == "axes" for a in node.attribute):
        return False
    if channels.axis >= scales.size or float(scales[channels.axis]) != 1.0:
        return False
    return follow_pass(tracer, node)


def follow_softmax(tracer: Tracer, node: onnx.NodeProto) -> bool:
    """Follow channels through a Softmax over another axis."""
    channels, shape = tracer.of(node.input[0]), tracer.shape(node.input[0])
    if channels is None:
        return True
    return shape is not None and attribute(node, "axis", -1) % len(shape) != channels.axis and follow_pass(tracer, node)
