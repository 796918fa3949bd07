"""Look into a .pt2 archive before torch does, because torch.export.load runs what hostile archives bring.

What torch 2.13 does with a .pt2 (torch/export/pt2_archive/_package.py, torch/_export/serde/serialize.py):
weights and constants marked `use_pickle` go through torch.load(weights_only=False); sample inputs that the restricted
unpickler refuses are loaded without restriction; opaque and custom objects are unpickled; compiled parts
(data/aotinductor) are shared libraries that are loaded; symbolic sizes go through sympy.sympify, which evaluates text;
and call targets are any attribute reachable from the `torch` module. So only a plain archive is accepted: JSON, raw
tensor bytes, and sample inputs that the restricted unpickler takes. What is handed to torch is a new archive made from
exactly what was checked.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from typing import Any

import torch

from qstudio.core.errors import UserError

_AGAIN = "Save it again with torch.export.save"
_LARGEST_JSON_BYTES = 256 * 2**20
_LARGEST_UNPACKED_BYTES = 16 * 2**30
_PLAIN_RECORDS = re.compile(
    r"(archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id|\.format_version"
    r"|models/model\.json|data/weights/weight_\d+|data/weights/model_weights_config\.json"
    r"|data/constants/tensor_\d+|data/constants/model_constants_config\.json|data/sample_inputs/model\.pt)"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|_c10d_functional|higher_order)\.[A-Za-z_]\w*(\.[A-Za-z_]\w*)?"
    r"|torch\.ops\.higher_order\.\w+|torch\.sym_\w+|torch\._sym_sqrt"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)"
)
_SYMBOLIC_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Call, ast.Name, ast.Constant, ast.Load,
    ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.keyword,
)  # fmt: skip
_SYMBOLIC_CALLS = {
    "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv", "ModularIndexing", "Where", "CleanDiv", "Eq", "Ne", "Lt",
    "Le", "Gt", "Ge", "And", "Or", "Not", "Abs", "floor", "ceiling", "sqrt", "IntTrueDiv", "FloatTrueDiv", "ToFloat",
    "FloorToInt", "CeilToInt", "TruncToInt", "RoundToInt", "Identity", "Integer", "Symbol",
    "Add", "Mul", "Pow", "Rational", "Float", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan",
    "Equality", "Unequality",
}  # fmt: skip


def checked_archive(data: bytes, where: str) -> io.BytesIO:
    """Return a clean archive with the same model, or refuse.

    Args:
        data: The file's bytes.
        where: The file's name, for messages.

    Raises:
        UserError: when the archive is damaged or carries anything that loading would execute.
    """
    records = _records(data, where)
    model = _json(records, "models/model.json", where)
    _check_program(model, where)
    clean = dict(records)
    clean["models/model.json"] = json.dumps(model).encode()
    for folder in ("weights", "constants"):
        name = f"data/{folder}/model_{folder}_config.json"
        config = _json(records, name, where)
        _check_payloads(config, folder, records, where)
        clean[name] = json.dumps(config).encode()
    _check_sample_inputs(records["data/sample_inputs/model.pt"], where)
    return _written(clean)


def _records(data: bytes, where: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sum(i.file_size for i in infos) > _LARGEST_UNPACKED_BYTES:
                raise UserError("the archive unpacks to more than 16 GB", where, _AGAIN)
            names = [i.filename for i in infos]
            if len(names) != len(set(names)):
                raise UserError("the archive lists a record twice", where, _AGAIN)
            if any(i.file_size > max(len(data), 1) * 1100 for i in infos):
                raise UserError("the archive is packed implausibly tightly", where, _AGAIN)
            roots = {n.split("/", 1)[0] for n in names}
            if len(roots) != 1:
                raise UserError("this zip archive is not a torch.export archive", where, _AGAIN)
            records = {n.split("/", 1)[1]: archive.read(n) for n in names if "/" in n and not n.endswith("/")}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        raise UserError("this is not a .pt2 archive, or it is truncated", where, _AGAIN) from error
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError("the archive cannot be unpacked", where, _AGAIN) from error
    for name in records:
        if name.startswith("data/aotinductor"):
            raise UserError("the archive holds compiled code, which is not run", where, _AGAIN)
        if not _PLAIN_RECORDS.fullmatch(name):
            raise UserError(
                f"the archive holds {name[:80]!r}, which loading would have to unpickle or run", where, _AGAIN
            )
    for needed in (
        "archive_version",
        "models/model.json",
        "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json",
        "data/sample_inputs/model.pt",
    ):
        if needed not in records:
            raise UserError(
                f"the archive lacks {needed!r}; it was not saved by torch.export (2.9 or newer)", where, _AGAIN
            )
    return records


def _json(records: dict[str, bytes], name: str, where: str) -> Any:
    if len(records[name]) > _LARGEST_JSON_BYTES:
        raise UserError(f"{name!r} is implausibly large", where, _AGAIN)
    try:
        return json.loads(records[name])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name!r} in the archive is damaged", where, _AGAIN) from error


def _check_payloads(config: Any, folder: str, records: dict[str, bytes], where: str) -> None:
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise UserError(f"the list of {folder} in the archive is damaged", where, _AGAIN)
    prefix = "weight_" if folder == "weights" else "tensor_"
    for name, entry in entries.items():
        path = entry.get("path_name") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not path.startswith(prefix) or entry.get("use_pickle") is not False:
            raise UserError(f"{name[:80]!r} is stored as a pickle, which could run code", where, _AGAIN)
        if f"data/{folder}/{path}" not in records:
            raise UserError(f"the data of {name[:80]!r} is missing", where, _AGAIN)
        _check_extent(name, entry.get("tensor_meta"), len(records[f"data/{folder}/{path}"]), where)


def _check_extent(name: str, meta: Any, stored_bytes: int, where: str) -> None:
    """Check that a tensor's declared strides stay inside its bytes, before torch makes a view of them."""
    try:
        sizes = [int(s["as_int"]) for s in meta["sizes"]]
        strides = [int(s["as_int"]) for s in meta["strides"]]
        last = int(meta["storage_offset"]["as_int"])
        if any(v < 0 for v in (*sizes, *strides, last)) or len(sizes) != len(strides):
            raise ValueError("negative extent")
        last += sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) if 0 not in sizes else -1
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the shape of {name[:80]!r} is damaged", where, _AGAIN) from error
    if last >= 0 and last + 1 > stored_bytes:  # an element has a byte or more; torch checks the exact size
        raise UserError(f"{name[:80]!r} declares more values than are stored", where, _AGAIN)


def _check_program(value: Any, where: str, depth: int = 0) -> None:
    """Walk the program: call targets must be operators, sizes must be arithmetic."""
    if depth > 200:
        raise UserError("the program in the archive is nested too deeply", where, _AGAIN)
    if isinstance(value, list):
        for item in value:
            _check_program(item, where, depth + 1)
        return
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key == "target" and isinstance(item, str) and "inputs" in value:
            if not _TARGET.fullmatch(item):
                raise UserError(f"the program calls {item[:80]!r}, which is not an operator of torch", where, _AGAIN)
        elif key == "expr_str" and isinstance(item, str):
            _check_expression(item, where)
        elif key in ("as_custom_obj", "as_script_object") and item is not None:
            raise UserError("the program carries custom objects, which would have to be unpickled", where, _AGAIN)
        elif key in ("in_spec", "out_spec") and isinstance(item, str) and "." in item and "collections" not in item:
            _check_tree(item, where)
        _check_program(item, where, depth + 1)


def _check_tree(text: str, where: str) -> None:
    """Accept containers of plain Python only: named tuples and registered classes are imported by name."""
    for word in re.findall(r'"type": "([^"]+)"', text):
        if word not in ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"):
            raise UserError(
                f"inputs of the type {word[:80]!r} are not supported", where, "Use tensors, tuples and lists"
            )


def _check_expression(text: str, where: str) -> None:
    """Accept arithmetic on names and numbers; sympify would evaluate anything else as Python."""
    try:
        tree = ast.parse(text, mode="eval") if len(text) < 4096 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or not all(_is_arithmetic(node) for node in ast.walk(tree)):
        raise UserError(f"the program has the size {text[:60]!r}, which is not plain arithmetic", where, _AGAIN)
    # Text occurs as the name of a Symbol and nowhere else: sympy evaluates text that it meets as a number.
    named = sum(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "Symbol" for n in ast.walk(tree)
    )
    texts = sum(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(tree))
    if named != texts:
        raise UserError(f"the program has the size {text[:60]!r}, which is not plain arithmetic", where, _AGAIN)


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool)
    if not isinstance(node, _SYMBOLIC_NODES):
        return False
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _SYMBOLIC_CALLS:
            return False
        if node.func.id == "Symbol":
            return len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and _is_name(node.args[0].value)
        if node.func.id == "Pow":
            return len(node.args) == 2 and ast.unparse(node.args[1]) in (
                "Integer(-1)",
                "Integer(2)",
                "Integer(3)",
                "-1",
                "2",
            )
        return True
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float, bool)) or _is_name(node.value)
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return isinstance(node.right, ast.Constant) and node.right.value in (2, 3, 4)
    return True


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z]\w{0,60}", value) is not None


def _check_sample_inputs(data: bytes, where: str) -> None:
    """Refuse sample inputs that the restricted unpickler refuses: torch would then unpickle them without limits."""
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        raise UserError("the sample inputs in the archive hold more than tensors", where, _AGAIN) from error


def _written(records: dict[str, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(stream)
    for name, content in records.items():
        if name not in (".data/version", ".data/serialization_id", "version", "byteorder", ".format_version"):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    stream.seek(0)
    return stream
