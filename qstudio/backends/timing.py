"""Measure latency: wall time of one inference, float and exported model in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from qstudio.backends.feeds import random_feed as random_feed
from qstudio.backends.optimized import optimized_graph
from qstudio.backends.ort import Model, make_session
from qstudio.backends.profile import operator_times
from qstudio.backends.speed_reasons import note_of, speed_reasons, threads_reason, timed_reasons
from qstudio.core.context import JobContext, SilentContext
from qstudio.core.errors import UserError
from qstudio.core.processor import processor, usable_cores
from qstudio.core.results import Latency, LatencyPair, OperatorTime, SpeedReason

RUNS, WARMUP = 50, 10

_TURN_SECONDS = 0.02
"""Each model runs this long before the other has its turn, so that a slow moment of the machine meets both."""
_AGAIN = 30
"""Runs with one thread, and with all."""
_LONG_MS = 20.0
"""A model that takes longer is not timed with one thread besides: threads help it."""


def measure_latency(
    model: Model,
    batch: int = 1,
    threads: int = 1,
    runs: int = RUNS,
    warmup: int = WARMUP,
    ctx: JobContext | None = None,
) -> Latency:
    """Return the latency of one model on random data of its input's shape.

    Args:
        model: Path, bytes or ModelProto.
        batch: Samples per run; a model with a fixed batch is timed at its own.
        threads: Intra-op threads.
        runs: Timed runs.
        warmup: Runs before them that do not count.
        ctx: To report progress to and to be cancelled by.

    Raises:
        UserError: The model does not load or run, or a number is not positive.
    """
    return measure_in_turns([model], batch, threads, runs, warmup, ctx)[0]


def measure_pair(
    float_model: Model,
    exported_model: Model,
    batch: int = 1,
    threads: int = 1,
    runs: int = RUNS,
    warmup: int = WARMUP,
    ctx: JobContext | None = None,
) -> LatencyPair:
    """Return the latencies of a float model and its export, run in turns, with the reasons if the export is not faster.

    Arguments and errors as for `measure_latency`.
    """
    original, exported = measure_in_turns([float_model, exported_model], batch, threads, runs, warmup, ctx)
    return latency_pair(original, exported, exported_model)


def latency_pair(
    original: Latency,
    exported: Latency,
    exported_model: Model,
    *,
    float_model: Model | None = None,
    macs: Mapping[str, int] | None = None,
    simulated: Latency | None = None,
    ctx: JobContext | None = None,
) -> LatencyPair:
    """Return two latencies measured in turns with what keeps the exported model from being faster.

    Args:
        original: Of the float model.
        exported: Of its export.
        exported_model: The export.
        float_model: The float model with the layers' names, to profile its operators beside the export's; None =
            nothing is profiled.
        macs: Multiply-accumulates of each layer by name.
        simulated: Latency of the simulation, to be shown beside.
        ctx: To be cancelled by.

    Raises:
        UserError: A model does not load or run.
    """
    name, instructions = processor()
    operators: tuple[OperatorTime, ...] = ()
    if float_model is not None:
        operators = operator_times(float_model, exported_model, exported.batch, exported.threads, ctx)
    # Below this the export is clearly faster and nothing needs explaining.
    slow = exported.median > 0.9 * original.median
    reasons = speed_reasons(optimized_graph(exported_model), instructions, macs)
    reasons += timed_reasons(operators, original.median, macs)
    if slow:
        threads = _threads(exported, exported_model, ctx)
        reasons += () if threads is None else (threads,)
    notes = (_verdict(original, exported), *map(note_of, reasons)) if slow else ()
    return LatencyPair(original, exported, name, instructions, notes, simulated, reasons, operators)


def _threads(exported: Latency, model: Model, ctx: JobContext | None) -> SpeedReason | None:
    """Time a quick model with one thread, and with its own once more right before; the best of two is compared."""
    together, single = exported.median, None
    if exported.threads > 1 and exported.median <= _LONG_MS:
        again, alone = (measure_latency(model, exported.batch, n, _AGAIN, ctx=ctx) for n in (exported.threads, 1))
        together, single = min(together, again.median), alone.median
    return threads_reason(together, exported.threads, usable_cores(), single)


def _verdict(original: Latency, exported: Latency) -> str:
    ratio = exported.median / original.median
    if ratio <= 1.1:
        return f"The exported model is about as fast as float here ({ratio:.2f} of its time)"
    return f"The exported model is slower than float here ({ratio:.2f} times its time)"


def measure_in_turns(
    models: Sequence[Model],
    batch: int = 1,
    threads: int = 1,
    runs: int = RUNS,
    warmup: int = WARMUP,
    ctx: JobContext | None = None,
) -> list[Latency]:
    """Return the latency of each of several models, run in turns so that a slow moment of the machine meets all.

    Arguments and errors as for `measure_latency`.
    """
    for word, number, least in (("batch", batch, 1), ("threads", threads, 1), ("runs", runs, 1), ("warmup", warmup, 0)):
        if number < least:
            raise UserError(f"{word} is {number}", "benchmark", f"Choose {least} or more")
    ctx = ctx or SilentContext()
    sessions = [make_session(model, threads=threads) for model in models]
    feeds = [random_feed(session, batch) for session in sessions]
    for session, feed in zip(sessions, feeds, strict=True):
        for _ in range(warmup):
            ctx.check()
            _timed(session, feed)
    times: list[list[float]] = [[] for _ in sessions]
    while any(len(column) < runs for column in times):
        for session, feed, column in zip(sessions, feeds, times, strict=True):
            end = time.perf_counter() + _TURN_SECONDS
            while len(column) < runs:
                column.append(_timed(session, feed))
                if time.perf_counter() >= end:
                    break
        ctx.report(sum(map(len, times)), runs * len(times), "timing")
    found = []
    for feed, column in zip(feeds, times, strict=True):
        p10, median, p90 = (float(value) for value in np.percentile(column, (10, 50, 90)))
        size = len(next(iter(feed.values())))
        found.append(Latency(median, p10, p90, threads, size, len(column), warmup))
    return found


def _timed(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    try:
        session.run(None, feed)
    except Exception as error:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the model cannot run on {shapes} ({reason})", "benchmark", "Check its inputs") from error
    return (time.perf_counter() - start) * 1e3


def file_size_bytes(path: str | Path) -> int:
    """Return the bytes of a model on disk, external data included.

    Raises:
        UserError: The file cannot be read.
    """
    path = Path(path)
    try:
        total = path.stat().st_size
        proto = onnx.load(str(path), load_external_data=False)
        places = {
            entry.value
            for tensor in proto.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        return int(total + sum((path.parent / place).stat().st_size for place in places))
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror or error})", str(path)) from error
