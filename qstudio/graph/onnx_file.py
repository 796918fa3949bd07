"""Read .onnx files that nobody has checked yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from qstudio.core.errors import UserError
from qstudio.graph.dtypes import onnx_name, packed_size_bytes, tensor_shape
from qstudio.graph.structure import sorted_nodes

OPSET_RANGE = (7, 25)
_AGAIN = "Export or download the model again"
_DEEPEST_SUBGRAPH = 16
_TYPED_FIELD_OF: dict[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
}


def read_onnx(data: bytes, file: Path) -> tuple[onnx.ModelProto, list[bytes]]:
    """Parse and check a model, and take its external data into memory.

    Args:
        data: The file's bytes.
        file: Where they came from; external data is looked for in its folder only.

    Returns:
        The model and the external parts in the order in which they were read.

    Raises:
        UserError: when the bytes are no model, or the model is damaged.
    """
    where = file.name
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf has its own error types, which differ between its implementations
        raise UserError("this is not an ONNX model, or it is truncated", where, _AGAIN) from error
    try:
        _check_header(proto, where)
        external = [_fetch(tensor, file) for tensor in tensors_of(proto.graph) if _is_external(tensor)]
        for tensor in tensors_of(proto.graph):
            check_tensor(tensor, where)
        check_structure(proto, where)
    except UserError:
        raise
    except (ValueError, TypeError, OverflowError, MemoryError, RecursionError, UnicodeError) as error:
        raise UserError(f"the model is damaged ({type(error).__name__})", where, _AGAIN) from error
    return proto, external


def _check_header(proto: onnx.ModelProto, where: str) -> None:
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise UserError("there is no graph in this file; it is not an ONNX model", where, _AGAIN)
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    if not versions and not proto.opset_import:
        raise UserError("the model does not say which operator set it uses; the file is damaged", where, _AGAIN)
    for version in versions:
        if not OPSET_RANGE[0] <= version <= OPSET_RANGE[1]:
            raise UserError(
                f"the model uses ONNX operator set {version}; {OPSET_RANGE[0]} to {OPSET_RANGE[1]} can be opened",
                where,
                "Export it again with another opset_version",
            )
    if not proto.graph.output:
        raise UserError("the model has no output", where, _AGAIN)


def tensors_of(graph: onnx.GraphProto, depth: int = 0) -> Iterator[TensorProto]:
    """Yield every tensor stored in a graph: initializers, attributes, and those of subgraphs."""
    if depth > _DEEPEST_SUBGRAPH:
        raise UserError("subgraphs are nested too deeply", graph.name, "Simplify the model")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from tensors_of(attribute.g, depth + 1)
            for inner in attribute.graphs:
                yield from tensors_of(inner, depth + 1)


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _fetch(tensor: TensorProto, file: Path) -> bytes:
    """Read a tensor's external bytes and put them into the tensor."""
    label = f"tensor {tensor.name!r}"
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if not location:
        raise UserError(f"{label} is stored outside the file, but it does not say where", file.name, _AGAIN)
    folder = file.resolve().parent
    try:
        source = (folder / location).resolve()
        inside = not Path(location).is_absolute() and source.is_relative_to(folder)
        present = inside and source.is_file()
    except (OSError, ValueError):
        inside, present = False, False
    if not inside:
        text = f"{label} points outside the model's folder ({location!r}), which is not followed"
        raise UserError(text, file.name, "Put model and data into one folder and export again")
    if not present:
        text = f"the external data file {location!r} is missing ({label})"
        raise UserError(text, file.name, "Put it beside the model")
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries["length"]) if entries.get("length") else source.stat().st_size - offset
    except ValueError as error:
        raise UserError(f"{label} has an offset or length that is no number", file.name, _AGAIN) from error
    expected = packed_size_bytes(tensor.data_type, tensor_shape(tensor))
    if offset < 0 or length < 0 or offset + length > source.stat().st_size:
        text = f"the external data file {location!r} is too short ({label} needs {offset + length} bytes)"
        raise UserError(text, file.name, "Copy it again; it is probably truncated")
    if expected is None or expected != length:
        raise UserError(f"{label} declares {expected} bytes but {length} are stored", file.name, _AGAIN)
    try:
        with source.open("rb") as stream:
            stream.seek(offset)
            part = stream.read(length)
    except OSError as error:
        raise UserError(f"the external data file {location!r} cannot be read ({error.strerror})", file.name) from error
    tensor.raw_data = part
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    return part


def check_tensor(tensor: TensorProto, where: str) -> None:
    """Compare a tensor's declared type and shape with the bytes that are there, before anything is allocated.

    Raises:
        UserError: when they do not belong together.
    """
    label = f"tensor {tensor.name!r}" if tensor.name else "a constant"
    shape = tensor_shape(tensor)
    if any(size < 0 for size in shape) or len(shape) > 64:
        raise UserError(f"{label} has the impossible shape {list(shape)[:8]}", where, _AGAIN)
    elements = 1
    for size in shape:
        elements *= size
    if tensor.data_type == TensorProto.STRING:
        if len(tensor.string_data) != elements:
            raise UserError(
                f"{label} declares {elements} texts but {len(tensor.string_data)} are stored", where, _AGAIN
            )
        return
    expected = packed_size_bytes(tensor.data_type, shape)
    if expected is None:
        raise UserError(f"{label} has the unknown element type {onnx_name(tensor.data_type)}", where, _AGAIN)
    if tensor.HasField("raw_data"):
        stored = len(tensor.raw_data)
        if stored != expected:
            raise UserError(f"{label} declares {expected} bytes but {stored} are stored", where, _AGAIN)
        return
    field, per_element = _TYPED_FIELD_OF.get(tensor.data_type, ("int32_data", 1))
    count = len(getattr(tensor, field))
    # Types below 8 bits are packed into the entries of int32_data, one byte to each.
    wanted = expected if field == "int32_data" and expected < elements else elements * per_element
    if count != wanted:
        raise UserError(f"{label} declares {wanted} values but {count} are stored", where, _AGAIN)


def _check_text(graph: onnx.GraphProto, where: str) -> None:
    """Refuse names that are no text: protobuf reads them from a damaged file, but cannot write them again."""
    words = [graph.name, *(t.name for t in graph.initializer)]
    words += [value.name for value in (*graph.input, *graph.output, *graph.value_info)]
    for node in graph.node:
        words += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    try:
        "".join(words).encode("utf-8")
    except (UnicodeError, TypeError) as error:  # protobuf hands invalid text out as bytes
        raise UserError("a name in the model is not valid text; the file is damaged", where, _AGAIN) from error


def check_structure(proto: onnx.ModelProto, where: str) -> None:
    """Check that the nodes can be put in order and that outputs and names make sense.

    Raises:
        UserError: naming the node or tensor that is at fault.
    """
    graph = proto.graph
    names = [t.name for t in graph.initializer]
    _check_text(graph, where)
    if len(names) != len(set(names)):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"the initializer {twice!r} is stored twice", where, _AGAIN)
    for node in graph.node:
        if not node.op_type:
            raise UserError("a node has no operator", f"{where}, node {node.name!r}", _AGAIN)
    order = sorted_nodes(graph)
    known = set(names) | {i.name for i in graph.input}
    known |= {o for node in order for o in node.output} | {s.values.name for s in graph.sparse_initializer}
    for output in graph.output:
        if output.name not in known:
            raise UserError(f"the output {output.name!r} is computed by no node", where, _AGAIN)
