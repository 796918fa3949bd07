"""What each operator takes: onnxruntime's own profile of the float and the exported model, side by side."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qstudio.backends.feeds import random_feed
from qstudio.backends.optimized import as_proto
from qstudio.backends.origins import Origins, own_name
from qstudio.backends.ort import Model, make_session
from qstudio.core.context import JobContext, SilentContext
from qstudio.core.errors import UserError
from qstudio.core.results import OperatorTime

RUNS, WARMUP = 20, 3
_SECONDS = 1.0
"""After so long no further run begins."""


@dataclass(frozen=True)
class KernelTime:
    """One node of the optimised graph."""

    name: str
    """As in the model, or the tensor that the node puts out."""
    operator: str
    ms: float
    """Median over the runs."""


def kernel_times(
    model: Model, batch: int = 1, threads: int = 1, runs: int = RUNS, ctx: JobContext | None = None
) -> tuple[KernelTime, ...]:
    """Return what each kernel takes, in the order in which they run, on random data.

    The profiler itself takes some microseconds a node and rounds to whole ones: figures are for comparing operators,
    not for adding up to the latency. Its file is removed.

    Raises:
        UserError: The model does not load or run.
    """
    ctx = ctx or SilentContext()
    with tempfile.TemporaryDirectory(prefix="qstudio-") as folder:
        session = make_session(model, threads=threads, profile_prefix=str(Path(folder) / "profile"))
        feed = random_feed(session, batch)
        end = time.perf_counter() + _SECONDS
        done = 0
        while done < WARMUP + runs and (done <= WARMUP or time.perf_counter() < end):
            ctx.check()
            try:
                session.run(None, feed)
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"the model cannot run ({reason})", "benchmark", "Check its inputs") from error
            done += 1
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            values = event["args"]
            key = (event["name"].removesuffix("_kernel_time"), values.get("op_name", ""), values.get("node_index", ""))
            times[key].append(event["dur"] / 1e3)
    return tuple(
        KernelTime(own_name(name), operator, float(np.median(column[WARMUP:] or column)))
        for (name, operator, _), column in times.items()
    )


def operator_times(
    float_model: Model,
    exported_model: Model,
    batch: int = 1,
    threads: int = 1,
    ctx: JobContext | None = None,
) -> tuple[OperatorTime, ...]:
    """Return what each operator takes in float and exported.

    Nodes that onnxruntime computes together in either model (Conv, Add and Relu in float) stand in one row. What only
    one model has (conversions, reordering) comes last, one row for each operator.

    Arguments and errors as for `kernel_times`.
    """
    kernels = [kernel_times(model, batch, threads, ctx=ctx) for model in (float_model, exported_model)]
    protos = [as_proto(float_model), as_proto(exported_model)]
    mine = {node.name for node in protos[0].graph.node if node.name}
    rows: dict[str, set[str]] = {}
    placed: list[list[tuple[tuple[str, ...], KernelTime]]] = []
    for proto, found in zip(protos, kernels, strict=True):
        origins = Origins(proto)
        placed.append(
            [(tuple(n for n in origins.of(kernel.name, kernel.operator) if n in mine), kernel) for kernel in found]
        )
    for names, _ in (item for side in placed for item in side):
        joined = set(names).union(*(rows[name] for name in names if name in rows))
        rows.update(dict.fromkeys(joined, joined))
    order = {node.name: number for number, node in enumerate(protos[0].graph.node)}
    groups: dict[tuple[str, ...], _Row] = {}
    for side, found_side in enumerate(placed):
        for names, kernel in found_side:
            key = tuple(sorted(rows[names[0]], key=lambda n: order[n])) if names else ("", kernel.operator)
            groups.setdefault(key, _Row()).add(side, kernel)
    keyed = [(key if key[0] else (), row) for key, row in groups.items()]
    keyed.sort(key=lambda item: order[item[0][0]] if item[0] else len(order))
    return tuple(row.told(layers) for layers, row in keyed)


class _Row:
    """Sums up the kernels of one row."""

    def __init__(self) -> None:
        self._kernels: tuple[list[KernelTime], list[KernelTime]] = ([], [])

    def add(self, side: int, kernel: KernelTime) -> None:
        """Add a kernel of the float (0) or the exported (1) model."""
        self._kernels[side].append(kernel)

    def told(self, layers: tuple[str, ...]) -> OperatorTime:
        """Return the row as a value."""
        names = [tuple(dict.fromkeys(kernel.operator for kernel in side)) for side in self._kernels]
        times = [sum(kernel.ms for kernel in side) if side else None for side in self._kernels]
        return OperatorTime(layers, names[0], names[1], times[0], times[1])
