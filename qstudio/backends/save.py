"""Write a model to disk: completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from pathlib import Path
from typing import Any

import onnx

from qstudio.core.errors import UserError

_PROTOBUF_LIMIT_BYTES = 2**31 - 1
_LARGE_TENSOR_BYTES = 1024


def save_model(model: onnx.ModelProto, path: str | Path, *, largest_bytes: int = _PROTOBUF_LIMIT_BYTES) -> int:
    """Write a model and return the bytes on disk, external data included.

    The file is written under a temporary name in the same folder and then renamed, so that a failure leaves what was
    there before. A model too large for protobuf gets its weights in a file beside it ("NAME.onnx.data").

    Args:
        model: Not changed.
        path: Where to write; an existing file is replaced.
        largest_bytes: Size from which weights go into their own file.

    Raises:
        UserError: The folder does not exist or cannot be written, the disk is full, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError("this is a folder", str(path), "Choose a file name that ends in .onnx")
    if not path.parent.is_dir():
        raise UserError("the folder does not exist", str(path.parent), "Create it or choose another one")
    # Unguessable, so that two programs writing the same model never meet.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    data = path.with_name(f"{path.name}.data")
    written = [temporary]
    try:
        size = model.ByteSize()
        if size < largest_bytes:
            _write(temporary, model.SerializeToString())
            os.replace(temporary, path)
            return path.stat().st_size
        temporary_data = data.with_name(f".{data.name}.{uuid.uuid4().hex[:8]}.tmp")
        written.append(temporary_data)
        slim = _without_weights(model, temporary_data, data.name)
        _write(temporary, slim.SerializeToString())
        os.replace(temporary_data, data)
        os.replace(temporary, path)
        return path.stat().st_size + data.stat().st_size
    except OSError as error:
        raise UserError(*_in_words(error, path)) from error
    finally:
        for leftover in written:
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _without_weights(model: onnx.ModelProto, place: Path, location: str) -> onnx.ModelProto:
    """Write the large initializers to `place` and return the model with references to `location` in their stead."""
    slim = onnx.ModelProto()
    with open(place, "wb") as file:
        _copy_fields(model, slim, leave="graph")
        _copy_fields(model.graph, slim.graph, leave="initializer")
        for tensor in model.graph.initializer:
            if not tensor.HasField("raw_data") or len(tensor.raw_data) < _LARGE_TENSOR_BYTES:
                slim.graph.initializer.add().CopyFrom(tensor)
                continue
            reference = slim.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            reference.data_location = onnx.TensorProto.EXTERNAL
            for key, text in (("location", location), ("offset", file.tell()), ("length", len(tensor.raw_data))):
                reference.external_data.add(key=key, value=str(text))
            file.write(tensor.raw_data)
        file.flush()
        os.fsync(file.fileno())
    return slim


def _copy_fields(source: Any, target: Any, leave: str) -> None:
    for field, value in source.ListFields():
        if field.name == leave:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def _in_words(error: OSError, path: Path) -> tuple[str, str, str]:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "the disk is full", str(path.parent), "Free some space or choose another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the folder cannot be written to", str(path.parent), "Choose a folder that is yours"
    if error.errno == errno.ENAMETOOLONG:
        return "the file name is too long", str(path.name)[:40], "Choose a shorter name"
    return f"the file cannot be written ({error.strerror or error})", str(path), "Choose another place"
