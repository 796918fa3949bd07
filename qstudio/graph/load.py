"""Open a model file, whatever it is, without running any code from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from qstudio.core.errors import UserError
from qstudio.graph.onnx_file import read_onnx

_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar")
_ZIP_MAGIC = b"PK\x03\x04"
PT2_RECIPE = (
    "Save it as .pt2 where the model's code is at hand: "
    "model.eval(); program = torch.export.export(model, (example_input,)); torch.export.save(program, 'model.pt2')"
)


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was opened.

    Attributes:
        path: Where it was read from.
        proto: The model, untouched as read (external data in memory); for a .pt2 what the exporter made of it.
        sha256: Hex digest of the file's bytes (and of external data, where there is any).
        format: How it was stored.
    """

    path: str
    proto: onnx.ModelProto
    sha256: str
    format: Literal["onnx", "pt2"]


def load_model(path: str | Path) -> LoadedModel:
    """Open an .onnx or .pt2 file; other names are told apart by content.

    Raises:
        UserError: for anything that cannot be opened: missing, empty, truncated, damaged or pickled files, operator
            sets outside 7 to 25, external data that is missing or lies outside the model's folder.
    """
    file = Path(path)
    data = _read(file)
    suffix = file.suffix.lower()
    kind = _sniff(data)
    if kind == "pickle" or (suffix in _PICKLE_SUFFIXES and kind != "pt2"):
        raise UserError(
            "this is a pickled checkpoint, and loading one can run code hidden in it", file.name, PT2_RECIPE
        )
    if kind == "pt2" or suffix == ".pt2":
        from qstudio.graph.pt2_file import read_pt2  # the exporter takes a second to import

        return LoadedModel(str(file), read_pt2(data, file.name), hashlib.sha256(data).hexdigest(), "pt2")
    proto, external = read_onnx(data, file)
    digest = hashlib.sha256(data)
    for part in external:
        digest.update(part)
    return LoadedModel(str(file), proto, digest.hexdigest(), "onnx")


def _read(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise UserError("this is a folder, not a model file", str(file), "Choose an .onnx or .pt2 file")
        if not file.exists():
            raise UserError("there is no such file", str(file), "Check the path")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"the file cannot be read ({reason})", str(file), "Check the path and its permissions"
        ) from error
    if not data:
        raise UserError("the file is empty", file.name, "Export or download the model again")
    return data


def _sniff(data: bytes) -> Literal["pt2", "pickle", "other"]:
    """Tell formats apart by their first bytes (and, for zip archives, by the names inside)."""
    if data.startswith(_ZIP_MAGIC):
        if b"models/" in data and b".json" in data:
            return "pt2"
        return "pickle" if b"data.pkl" in data or b".pkl" in data else "pt2"
    # Protocol 2 to 5 pickles begin with 0x80 and the protocol; protobuf never does (wire type 0 of field 16).
    if len(data) > 1 and data[0] == 0x80 and 2 <= data[1] <= 5:
        return "pickle"
    return "other"
