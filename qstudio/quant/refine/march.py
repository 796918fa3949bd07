"""Run the float and the quantized network side by side, unit by unit, over all calibration samples.

Refinements work from the first layer to the last: each sees what the layers before it, already refined, really put
out. Only the values that later units still read are held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from qstudio.quant.evaluate import batch_size
from qstudio.quant.executor import Parameters
from qstudio.quant.network import Network
from qstudio.quant.refine.task import Task
from qstudio.quant.refine.units import Round, Unit

BUDGET_BYTES = 2**31
"""Held at most for the values between units; with large networks fewer samples are used."""


@contextlib.contextmanager
def refining(network: Network) -> Iterator[None]:
    """Hold the network in eval mode, with gradients off but possible (unlike `Executor.evaluating`)."""
    with network.executor.evaluating(), torch.inference_mode(False), torch.no_grad():
        yield


class March:
    """Two tracks of values, advanced together. Use inside `refining`.

    Args:
        network: The float model.
        units: All its units in running order.
        batches: Executor inputs, batch by batch.
        counts: Samples of each batch; surplus rows (fixed batch sizes) are carried along and dropped by `samples`.
    """

    def __init__(
        self, network: Network, units: Sequence[Unit], batches: Sequence[dict[str, Tensor]], counts: Sequence[int]
    ) -> None:
        self._network = network
        self._counts = tuple(counts)
        self._rows = tuple(len(next(iter(inputs.values()))) for inputs in batches)
        self._left: dict[fx.Node, int] = {}
        for unit in units:
            for node in unit.inputs:
                self._left[node] = self._left.get(node, 0) + 1
        self._float: list[dict[fx.Node, Any]] = [{} for _ in batches]
        self._quantized: list[dict[fx.Node, Any]] = [{} for _ in batches]
        for step in network.executor.steps:
            if step.node.op == "placeholder":
                for at, inputs in enumerate(batches):
                    self._float[at][step.node] = self._quantized[at][step.node] = inputs[step.tensor]

    def advance(self, unit: Unit, parameters: Parameters, rounding: Round) -> None:
        """Run a unit on both tracks and forget what nothing reads any more."""
        executor = self._network.executor
        for values in self._float:
            values.update(unit.run(executor, values))
        for values in self._quantized:
            values.update(unit.run(executor, values, parameters, rounding))
        for node in unit.inputs:
            self._left[node] -= 1
            if not self._left[node]:
                for values in (*self._float, *self._quantized):
                    values.pop(node, None)

    def float_output(self, unit: Unit) -> Tensor | None:
        """Return the float output of a unit over all samples; None unless it is one tensor, samples first."""
        if len(unit.outputs) != 1:
            return None
        executor = self._network.executor
        parts = [unit.run(executor, values)[unit.outputs[0]] for values in self._float]
        return self._joined(parts)

    def samples(self, node: fx.Node) -> tuple[Tensor, Tensor] | None:
        """Return (float, quantized but not yet rounded) values of a node over all samples, or None as above."""
        found = [self._joined([values[node] for values in track]) for track in (self._float, self._quantized)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    def pairs(self, unit: Unit) -> Iterator[tuple[dict[fx.Node, Any], dict[fx.Node, Any], int]]:
        """Yield (float inputs, quantized inputs, samples) batch by batch."""
        for values, quantized, count in zip(self._float, self._quantized, self._counts, strict=True):
            yield {n: values[n] for n in unit.inputs}, {n: quantized[n] for n in unit.inputs}, count

    def held_bytes(self) -> int:
        """Return the bytes of all values held between units."""
        held = (v for track in (*self._float, *self._quantized) for v in track.values())
        return sum(v.numel() * v.element_size() for v in held if isinstance(v, Tensor))

    def _joined(self, parts: Sequence[Any]) -> Tensor | None:
        if not all(isinstance(p, Tensor) and p.dim() > 0 and p.is_floating_point() for p in parts):
            return None
        if len({p.shape[1:] for p in parts}) != 1 or any(
            len(p) != rows for p, rows in zip(parts, self._rows, strict=True)
        ):
            return None
        return torch.cat([p[:count] for p, count in zip(parts, self._counts, strict=True)])


def start_march(network: Network, units: Sequence[Unit], task: Task, title: str, notes: list[str]) -> March:
    """Return a march at the network's inputs, over as many calibration samples as fit into memory.

    Args:
        network: The float model.
        units: All its units in running order.
        task: Says which samples.
        title: Of the refinement, for the note.
        notes: Told when samples were left out.
    """
    rows = batch_size(network, task.split)
    inputs, counts = task.batches(network, rows)
    probe = March(network, units, inputs, counts)
    peak = probe.held_bytes()
    for unit in units:
        probe.advance(unit, {}, lambda tensor, values: values)
        peak = max(peak, probe.held_bytes())
    affordable = max(BUDGET_BYTES * rows // max(peak, 1), 1)
    if affordable < len(task.indices):
        notes.append(f"{title}: {affordable} of {len(task.indices)} calibration samples fit into memory and were used.")
    return March(network, units, *task.batches(network, affordable))
