"""Turn a .pt2 (torch.export) into ONNX, once, without folding BatchNormalization."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from tqdm import tqdm

from qstudio.core.errors import UserError
from qstudio.graph.pt2_archive import checked_archive


def read_pt2(data: bytes, where: str) -> onnx.ModelProto:
    """Load an exported program from bytes and export it to ONNX.

    Args:
        data: The archive's bytes; nothing in them is executed (see `pt2_archive`).
        where: The file's name, for messages.

    Raises:
        UserError: when the archive is damaged or refused, or an operator in it has no ONNX form.
    """
    archive = checked_archive(data, where)
    with _quiet():
        try:
            program = torch.export.load(archive)
        except Exception as error:
            text = f"torch cannot read this archive ({type(error).__name__}: {_first_line(error)})"
            raise UserError(text, where, "Save it again with torch.export.save of torch 2.9 or newer") from error
        return export_program(program, where)


def export_program(program: Any, where: str) -> onnx.ModelProto:
    """Export a torch.export.ExportedProgram to ONNX; BatchNormalization stays, names and dynamic axes too.

    Raises:
        UserError: when the program was captured in training mode or cannot be expressed in ONNX.
    """
    from onnxscript import ir

    _refuse_training(program, where)
    with _quiet():
        try:
            exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
            if exported is None:
                raise RuntimeError("the exporter returned nothing")
            model = _tidied(exported.model)
            return _named(ir.serde.serialize_model(model), where)
        except Exception as error:
            text = f"the program cannot be expressed in ONNX ({type(error).__name__}: {_first_line(error)})"
            raise UserError(text, where, "Export it to .onnx yourself, where the model's code is at hand") from error


def _tidied(model: Any) -> Any:
    """Fold constants and drop no-ops, as torch.onnx does by default, but leave BatchNormalization as it stands."""
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules import common

    kept = [
        rule
        for name in common.__all__
        for rule in _rules_of(getattr(common, name))
        if not any(word in name for word in ("batchnorm", "affine", "gemm", "matmul", "hardswish"))
    ]
    for _ in range(2):
        optimizer.fold_constants(model)
        model = rewriter.rewrite(model, pattern_rewrite_rules=kept)
        optimizer.remove_unused_nodes(model)
    return model


def _rules_of(value: Any) -> list[Any]:
    return list(value.rules) if hasattr(value, "rules") else [value]


def _named(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Name the graph after the file and the dynamic batch axis in words."""
    proto.graph.name = where.rsplit(".", 1)[0]
    for value in (*proto.graph.input, *proto.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) and sizes[0].WhichOneof("value") == "dim_param":
            sizes[0].dim_param = "batch"
    del proto.graph.value_info[:]
    return proto


def _refuse_training(program: Any, where: str) -> None:
    """Refuse a program captured in training mode, in which its statistics would follow each batch.

    It cannot be set right afterwards: `ExportedProgram.module().eval()` raises.
    """
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target)
        training_norm = name.startswith("aten._native_batch_norm_legit.default") or (
            name.startswith(("aten.batch_norm", "aten.native_batch_norm"))
            and len(node.args) > 5
            and node.args[5] is True
        )
        dropout = name.startswith("aten.dropout") and len(node.args) > 2 and node.args[2] is True
        if training_norm or dropout:
            raise UserError(
                "the program was captured in training mode", where, "Call model.eval() before torch.export.export"
            )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [""])[0][:160]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and advice away from stdout, which belongs to --json."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch")]
    levels = [logger.level for logger in loggers]
    interval = tqdm.monitor_interval
    tqdm.monitor_interval = 0  # a progress bar of torch would otherwise leave a thread behind for good
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.monitor_interval = interval
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
