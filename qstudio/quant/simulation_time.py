"""How long the simulation takes, beside the latencies of the models it stands for."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray

from qstudio.core.context import JobContext
from qstudio.core.results import Latency
from qstudio.data.dataset import Split
from qstudio.quant.simulate import SimulatedModel

RUNS, WARMUP = 10, 1
_SECONDS = 1.0
"""After so long no further run begins."""


def simulation_latency(
    simulated: SimulatedModel, split: Split, indices: NDArray[np.int64], batch: int, ctx: JobContext
) -> Latency:
    """Return the wall time of one simulated batch, as the run has simulated it: sums in onnxruntime's order.

    Args:
        simulated: The run's simulation.
        split: Where samples are.
        indices: Samples to choose from; the first `batch`, repeated where there are fewer.
        batch: Samples in a run; a model with a fixed batch is timed at its own.
        ctx: Stops the measurement between runs.
    """
    network = simulated.network
    size = network.fixed_batch or batch
    values = np.ascontiguousarray(split.batch(np.resize(indices, size)))
    inputs = {network.inputs[0]: torch.from_numpy(values).to(network.executor.device)}
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    with network.executor.evaluating():
        while len(times) < WARMUP + RUNS and (len(times) <= WARMUP or time.perf_counter() < end):
            ctx.check()
            start = time.perf_counter()
            _finished(simulated.run(inputs))
            times.append((time.perf_counter() - start) * 1e3)
    column = times[WARMUP:]
    p10, median, p90 = (float(value) for value in np.percentile(column, (10, 50, 90)))
    return Latency(median, p10, p90, torch.get_num_threads(), size, len(column), WARMUP)


def _finished(outputs: dict[str, torch.Tensor]) -> None:
    """Wait for the first output: other devices compute after the call has returned."""
    next(iter(outputs.values())).cpu()
