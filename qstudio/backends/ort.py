"""Run ONNX models in onnxruntime on the CPU: sessions, batches, inner tensors, and errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from qstudio.core.errors import UserError

Model = onnx.ModelProto | bytes | str | Path

PROVIDERS = ("CPUExecutionProvider",)

_LONGEST_REASON = 300


def make_session(
    model: Model,
    *,
    threads: int = 0,
    optimize: bool = True,
    precise: bool = False,
    optimized_path: str = "",
    profile_prefix: str = "",
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU.

    Args:
        model: ModelProto, its bytes, or a path (needed for external data).
        threads: Intra-op threads; 0 = onnxruntime's own choice (all cores).
        optimize: True = default optimisation with integer kernels; False = every node runs as written.
        precise: On x86 without VNNI, take integer kernels that cannot saturate in 16 bits (slower, up to 2x). Has no
            effect elsewhere.
        optimized_path: Where to write the optimised graph; empty = nowhere.
        profile_prefix: Begin of the path that the profile goes to; empty = nothing is profiled.

    Raises:
        UserError: onnxruntime does not take the model; the sentence carries its reason.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized_path:
        options.optimized_model_filepath = optimized_path
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    where = str(model) if isinstance(model, (str, Path)) else "model"
    with _in_words(where, "onnxruntime cannot load the model"):
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        return onnxruntime.InferenceSession(
            str(source) if isinstance(source, Path) else source, options, providers=list(PROVIDERS)
        )


def with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a model that also puts out the given inner tensors, after its own outputs, for comparison.

    Raises:
        UserError: A tensor is neither computed nor an input of the model.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {output.name for output in copy.graph.output}
    written = {name for node in copy.graph.node for name in node.output}
    for name in tensors:
        if name in present:
            continue
        if name not in written:
            raise UserError(f"there is no tensor '{name}' to compare", "model", "Choose a tensor that a node puts out")
        copy.graph.output.append(onnx.ValueInfoProto(name=name))
        present.add(name)
    return copy


def run_batches(
    session: onnxruntime.InferenceSession,
    batches: Iterator[NDArray[Any]] | Sequence[NDArray[Any]],
    check: Callable[[], None] | None = None,
    outputs: Sequence[str] | None = None,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Run batches of the first input and yield the outputs of each batch by name.

    A model with a fixed batch size is run in pieces of that size (the last piece filled up with its last sample and cut
    again), so that the caller never sees it.

    Args:
        session: From `make_session`.
        batches: Arrays [N, ...] for the first input, cast to the input's type.
        check: Called before every run; raises to stop.
        outputs: Names to compute; None = all.

    Raises:
        UserError: The data do not fit the input, or the model fails on them.
    """
    first = session.get_inputs()[0]
    if len(session.get_inputs()) != 1:
        listed = ", ".join(i.name for i in session.get_inputs())
        raise UserError(
            f"the model has {len(session.get_inputs())} inputs ({listed})", "data", "Choose a one-input model"
        )
    dtype = input_dtype(first.type)
    fixed = first.shape[0] if first.shape and isinstance(first.shape[0], int) else 0
    names = list(outputs) if outputs is not None else [o.name for o in session.get_outputs()]
    for batch in batches:
        if not names:  # onnxruntime takes an empty list for "all"
            yield {}
            continue
        values = np.ascontiguousarray(batch, dtype=dtype)
        pieces = []
        for piece, size in _pieces(values, fixed):
            if check is not None:
                check()
            with _in_words("data", f"the model cannot run on data of shape {list(values.shape)}"):
                results = session.run(names, {first.name: piece})
            pieces.append([r[:size] if fixed and np.ndim(r) and len(r) == fixed else r for r in results])
        joined = pieces[0] if len(pieces) == 1 else [_joined(column) for column in zip(*pieces, strict=True)]
        yield dict(zip(names, joined, strict=True))


def check_finite(values: Mapping[str, NDArray[Any]]) -> None:
    """Name the first tensor that holds NaN or infinity.

    Raises:
        UserError: There is such a tensor.
    """
    for name, array in values.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise UserError(
                f"{count} of {array.size} values are NaN or infinite",
                name,
                "Check the model's weights and the data's range",
            )


def input_dtype(onnxruntime_type: str) -> np.dtype[Any]:
    """Return the numpy type for onnxruntime's "tensor(float)".

    Raises:
        UserError: The input is not a tensor of numbers.
    """
    numpy_names = {"float": "float32", "double": "float64"}
    match = re.fullmatch(r"tensor\((\w+)\)", onnxruntime_type)
    kind = numpy_names.get(match.group(1), match.group(1)) if match else ""
    try:
        return np.dtype(kind) if kind else np.dtype("O")
    except TypeError:
        raise UserError(f"the model's input is {onnxruntime_type}", "data", "Choose a model of numbers") from None


def _pieces(values: NDArray[Any], fixed: int) -> Iterator[tuple[NDArray[Any], int]]:
    if not fixed or len(values) == fixed:
        yield values, len(values)
        return
    for start in range(0, len(values), fixed):
        piece = values[start : start + fixed]
        size = len(piece)
        if size < fixed:
            piece = np.concatenate([piece, np.repeat(piece[-1:], fixed - size, axis=0)])
        yield piece, size


def _joined(pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(pieces) if np.ndim(pieces[0]) else np.asarray(pieces[-1])


@contextmanager
def _in_words(where: str, what: str) -> Iterator[None]:
    """Turn onnxruntime's exceptions into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # onnxruntime's exception classes have no common base; bindings and protobuf raise Python's own.
        if not (type(error).__module__.startswith("onnxruntime") or isinstance(error, (ValueError, RuntimeError))):
            raise
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
        raise UserError(
            f"{what} ({text[:_LONGEST_REASON]})", where, "Check that the model runs in onnxruntime"
        ) from error
