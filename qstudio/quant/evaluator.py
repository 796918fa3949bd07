"""Evaluation that computes only what a change touches: the fx graph node by node, each value kept by its content.

A value's key is a hash of the step, of the parameters and the rounding that act on it, and of the keys of its inputs.
After a change of one layer everything before it and on other branches is found; only what depends on it runs. The
figures are those of a full run to the last bit, whatever was evaluated before: kept values are the very tensors that
the full run computes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from qstudio.core.results import Metrics
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import Report, batch_size, feeds, metrics_of, run_in_words
from qstudio.quant.evaluation.keys import is_own, size_bytes, step_keys
from qstudio.quant.evaluation.plan import Plan
from qstudio.quant.evaluation.store import Store
from qstudio.quant.executor import Parameters
from qstudio.quant.network import Network
from qstudio.quant.quantizer import Quantizer, Rounder
from qstudio.quant.simulate import SimulatedModel

BYTE_BUDGET = 2**30
"""Memory for kept values; ResNet-20 with 1,000 images takes 1.1 GB."""

FLOAT = Encodings({}, {}, {})
"""Nothing is rounded."""


@dataclass(frozen=True)
class Work:
    """What one evaluation computed and what it found."""

    computed: int
    """Steps that ran, over all batches."""
    found: int
    """Values taken from the store."""
    steps: int
    """Steps of a full run, over all batches."""


class CachedEvaluator:
    """Evaluates one network on fixed samples under changing encodings.

    Not for several threads at a time. The number of torch threads must stay the same, as for any two runs that are to
    agree to the last bit.

    Args:
        network: The prepared float model.
        split: Where the samples are.
        indices: Which samples.
        byte_budget: Most memory that kept values take; a smaller one costs time, never exactness.
    """

    def __init__(
        self, network: Network, split: Split, indices: NDArray[np.int64], *, byte_budget: int = BYTE_BUDGET
    ) -> None:
        self.network, self.split = network, split
        self.indices = np.asarray(indices, np.int64)
        self.store = Store(byte_budget)
        self.work = Work(0, 0, 0)
        """Of the last evaluation."""
        self._plan = Plan(network.executor, network.description)
        size = batch_size(network, split)
        self._batches = [self.indices[start : start + size] for start in range(0, len(self.indices), size)]
        self._seconds: dict[fx.Node, float] = {}
        """Least time that each step was seen to take on a batch."""
        self._generation = 0
        self._computed = self._found = 0
        self._float_scores: NDArray[np.float32] | None = None

    def scores(
        self,
        encodings: Encodings,
        weight_values: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        keep: bool = True,
        report: Report | None = None,
    ) -> NDArray[np.float32]:
        """Return the first output for every sample as [N, K], as `qstudio.quant.evaluate.predict` does.

        Args:
            encodings: Of all quantized sites.
            weight_values: Float values that replace initializers before rounding, by name.
            keep: Keep what is computed. Without it only what is there is used: for a change that is tried once, which
                would push out what the next one needs.
            report: Told (samples done, all samples) between batches; raises to stop.

        Raises:
            UserError: The samples do not fit the model.
        """
        return self.outputs(encodings, weight_values, keep=keep, report=report, first_only=True)[
            self.network.outputs[0]
        ]

    def outputs(
        self,
        encodings: Encodings,
        weight_values: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        keep: bool = True,
        report: Report | None = None,
        first_only: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        """Return every output (or the first) by name as [N, K], further axes flattened.

        Args:
            encodings: As in `scores`.
            weight_values: As in `scores`.
            keep: As in `scores`.
            report: As in `scores`.
            first_only: Compute nothing that only other outputs need.

        Raises:
            UserError: The samples do not fit the model.
        """
        model = SimulatedModel(self.network, encodings, weight_values)
        keys = step_keys(self.network.executor, model)
        names = self.network.outputs[:1] if first_only else self.network.outputs
        wanted = list(self._plan.outputs[: len(names)])
        self._computed = self._found = 0
        if keep:
            self._generation += 1
            for node in self._plan.kept:
                for number in range(len(self._batches)):
                    self.store.touch((keys[node], number), self._generation)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        done = 0
        with self.network.executor.evaluating():
            for number, batch in enumerate(self._batches):
                if report is not None:
                    report(done, len(self.indices))
                values = self._batch(model, keys, number, wanted, keep)
                for name, node in zip(names, wanted, strict=True):
                    rows = values[node][: len(batch)].reshape(len(batch), -1)
                    parts[name].append(rows.float().cpu().numpy())
                done += len(batch)
        if report is not None:
            report(done, len(self.indices))
        self.work = Work(self._computed, self._found, len(self._plan.steps) * len(self._batches))
        return {name: np.concatenate(rows) if rows else np.zeros((0, 0), np.float32) for name, rows in parts.items()}

    def float_scores(self, report: Report | None = None, *, keep: bool = True) -> NDArray[np.float32]:
        """Return the scores of the float model, computed as the simulation computes: equal where nothing is rounded.

        They are computed once.

        Args:
            report: As in `scores`.
            keep: Keep the values behind them too: what sweeps need that quantize one layer of a float network.
        """
        if self._float_scores is None:
            self._float_scores = self.scores(FLOAT, keep=keep, report=report)
        return self._float_scores

    def metrics(
        self,
        encodings: Encodings,
        weight_values: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        keep: bool = True,
        report: Report | None = None,
    ) -> Metrics:
        """Return the metrics of the quantized network beside the float one.

        Args:
            encodings: As in `scores`.
            weight_values: As in `scores`.
            keep: As in `scores`.
            report: As in `scores`.

        Raises:
            UserError: There are no samples, or they do not fit the model.
        """
        float_scores = self.float_scores(keep=False)
        scores = self.scores(encodings, weight_values, keep=keep, report=report)
        return metrics_of(self.network, scores, self.split, self.indices, float_scores)

    # ---- one batch

    def _batch(
        self, model: SimulatedModel, keys: Mapping[fx.Node, bytes], number: int, wanted: list[fx.Node], keep: bool
    ) -> dict[fx.Node, Any]:
        """Return the values of the wanted nodes on one batch (and of what else is still held)."""
        values: dict[fx.Node, Any] = {}
        needed: set[fx.Node] = set()
        stack = list(wanted)
        while stack:
            node = stack.pop()
            if node in needed or node in values:
                continue
            if node in self._plan.kept and (key := (keys[node], number)) in self.store:
                values[node] = self.store[key]
            else:
                needed.add(node)
                stack.extend(node.all_input_nodes)
        self._found += len(values)
        self._computed += len(needed)
        if not needed:
            return values
        if any(node.op == "placeholder" for node in needed):
            read = next(feeds(self.network, self.split, self._batches[number]))[1]
        else:
            read = {}
        inputs, parameters = model.as_computed(read)

        def run(fed: Mapping[str, Tensor]) -> dict[str, Tensor]:
            self._run(model, keys, number, needed, set(wanted), keep, values, fed, parameters)
            return {}

        if inputs:
            run_in_words(run, inputs)
        else:
            run(inputs)
        return values

    def _run(
        self,
        model: SimulatedModel,
        keys: Mapping[fx.Node, bytes],
        number: int,
        needed: set[fx.Node],
        wanted: set[fx.Node],
        keep: bool,
        values: dict[fx.Node, Any],
        inputs: Mapping[str, Tensor],
        parameters: Parameters,
    ) -> None:
        """Run the needed steps in order; values that nothing more reads are let go."""
        executor = self.network.executor
        readers = dict.fromkeys((*values, *needed), 0)
        for node in needed:
            for used in node.all_input_nodes:
                readers[used] += 1
        for step in self._plan.steps:
            node = step.node
            if node not in needed:
                continue
            began = time.perf_counter()
            value: Any = inputs[step.tensor] if node.op == "placeholder" else executor.execute(step, values, parameters)
            if step.tensor in model.quantizers and isinstance(value, Tensor) and node.op != "get_attr":
                read = [values[used] for used in node.all_input_nodes]
                own = bool(read) and is_own(value, read)
                value = _rounded(model.quantizers[step.tensor], value, own)
            values[node] = value
            seconds = time.perf_counter() - began
            self._seconds[node] = min(seconds, self._seconds.get(node, seconds))
            if keep and node in self._plan.kept:
                self._keep(keys[node], number, node, value)
            for used in node.all_input_nodes:
                readers[used] -= 1
                if not readers[used] and used not in wanted:
                    del values[used]

    def _keep(self, key: bytes, number: int, node: fx.Node, value: Any) -> None:
        size = max(size_bytes(value), 64)
        seconds = sum(self._seconds.get(part, 0.0) for part in self._plan.chains[node])
        self.store.put((key, number), value, size, self._generation, seconds / size)


def _rounded(quantizer: Rounder, value: Tensor, own: bool) -> Tensor:
    """Return a value rounded, in place where nothing else looks at it: a third faster than into new memory."""
    if not own or not isinstance(quantizer, Quantizer) or value.dtype != torch.float32 or quantizer.scale.dim():
        return quantizer(value)
    # The four operations of `Quantizer`, the first one in place too: the same bits.
    return value.div_(quantizer.scale).round_().clamp_(quantizer.low, quantizer.high).mul_(quantizer.scale)  # type: ignore[arg-type]
