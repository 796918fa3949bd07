"""Evaluation that computes only what a change touches: the fx graph node by node, each value kept by its content.

A value's key is a hash of the step, of the parameters and the rounding that act on it, and of the keys of its inputs.
After a change of one layer everything before it and on other branches is found; only what depends on it runs. The
figures are those of a full run to the last bit, whatever was evaluated before: kept values are the very tensors that
the full run computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from qstudio.core.results import Metrics
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import Report, batch_size, feeds, metrics_of, run_in_words
from qstudio.quant.evaluation.keys import is_own, size_bytes, step_keys
from qstudio.quant.evaluation.plan import Plan
from qstudio.quant.evaluation.steps import called_with, overwritten, rounded
from qstudio.quant.evaluation.store import Store
from qstudio.quant.executor import Parameters, Step
from qstudio.quant.network import Network
from qstudio.quant.simulate import SimulatedModel

BYTE_BUDGET = 2**30
"""Memory for kept values; ResNet-20 with 1,000 images takes 1.1 GB."""

FLOAT = Encodings({}, {}, {})
"""Nothing is rounded."""

Check = Callable[[], None]
"""Called between steps; raises to stop. Other evaluations may run inside it."""

Rows = Callable[[NDArray[np.float32]], None]
"""Called with the scores of the samples that are done, [n, K]."""


@dataclass
class Work:
    """What one evaluation computed and what it found."""

    computed: int = 0
    """Steps that ran, over all batches."""
    found: int = 0
    """Values taken from the store."""
    steps: int = 0
    """Steps of a full run, over all batches."""


@dataclass(frozen=True, eq=False)
class _Pass:
    """What is the same for all batches of one evaluation."""

    model: SimulatedModel
    keys: Mapping[fx.Node, bytes]
    wanted: tuple[fx.Node, ...]
    keep: bool
    generation: int
    check: Check | None
    work: Work = field(default_factory=Work)


class CachedEvaluator:
    """Evaluates one network on fixed samples under changing encodings.

    Not for several threads at a time, but one evaluation may wait inside its `check` while another runs. The number of
    torch threads must stay the same, as for any two runs that are to agree to the last bit.

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
        self.work = Work()
        """Of the last evaluation."""
        self._plan = Plan(network.executor, network.description)
        size = batch_size(network, split)
        self._batches = [self.indices[start : start + size] for start in range(0, len(self.indices), size)]
        self._seconds: dict[fx.Node, float] = {}
        """Least time that each step was seen to take on a batch."""
        self._generation = 0
        self._float_scores: NDArray[np.float32] | None = None

    def scores(
        self,
        encodings: Encodings,
        weight_values: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        keep: bool = True,
        report: Report | None = None,
        check: Check | None = None,
        rows: Rows | None = None,
    ) -> NDArray[np.float32]:
        """Return the first output for every sample as [N, K], as `qstudio.quant.evaluate.predict` does.

        Args:
            encodings: Of all quantized sites.
            weight_values: Float values that replace initializers before rounding, by name.
            keep: Keep what is computed. Without it only what is there is used: for a change that is tried once, which
                would push out what the next one needs.
            report: Told (samples done, all samples) between batches; raises to stop.
            check: Called between steps; raises to stop.
            rows: Told the scores so far after every batch.

        Raises:
            UserError: The samples do not fit the model.
        """
        parts: list[NDArray[np.float32]] = []

        def on_batch(values: list[Any]) -> None:
            parts.append(_rows(values[0]))
            if rows is not None:
                rows(np.concatenate(parts))

        first = self._plan.outputs[:1]
        self.each(encodings, first, on_batch, weight_values, keep=keep, report=report, check=check)
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def outputs(
        self,
        encodings: Encodings,
        weight_values: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        keep: bool = True,
        report: Report | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Return every output by name as [N, K], further axes flattened.

        Args:
            encodings: As in `scores`.
            weight_values: As in `scores`.
            keep: As in `scores`.
            report: As in `scores`.

        Raises:
            UserError: The samples do not fit the model.
        """
        parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.network.outputs}

        def on_batch(values: list[Any]) -> None:
            for name, value in zip(parts, values, strict=True):
                parts[name].append(_rows(value))

        self.each(encodings, self._plan.outputs, on_batch, weight_values, keep=keep, report=report)
        return {name: np.concatenate(rows) if rows else np.zeros((0, 0), np.float32) for name, rows in parts.items()}

    def node_of(self, tensor: str) -> fx.Node:
        """Return the node that computes an ONNX tensor (KeyError when none does)."""
        return self._plan.node_of[tensor]

    @property
    def first_output(self) -> fx.Node:
        """The node whose value is the first output."""
        return self._plan.outputs[0]

    def each(
        self,
        encodings: Encodings,
        wanted: Sequence[fx.Node],
        on_batch: Callable[[list[Any]], None],
        weight_values: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        keep: bool = True,
        report: Report | None = None,
        check: Check | None = None,
    ) -> None:
        """Compute some nodes on every batch, in order.

        Args:
            encodings: As in `scores`.
            wanted: Nodes of the graph.
            on_batch: Called with their values (rounded where they are) on each batch, without surplus samples. They
                must not be changed.
            weight_values: As in `scores`.
            keep: As in `scores`.
            report: As in `scores`.
            check: As in `scores`.

        Raises:
            UserError: The samples do not fit the model.
        """
        model = SimulatedModel(self.network, encodings, weight_values)
        keys = step_keys(self.network.executor, model)
        if keep:
            self._generation += 1
            for node in self._plan.kept:
                for number in range(len(self._batches)):
                    self.store.touch((keys[node], number), self._generation)
        whole = _Pass(model, keys, tuple(wanted), keep, self._generation, check)
        done = 0
        with self.network.executor.evaluating():
            for number, batch in enumerate(self._batches):
                if report is not None:
                    report(done, len(self.indices))
                values = self._batch(whole, number)
                on_batch([self._cut(values[node], len(batch)) for node in wanted])
                done += len(batch)
        if report is not None:
            report(done, len(self.indices))
        whole.work.steps = len(self._plan.steps) * len(self._batches)
        self.work = whole.work

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

    def _batch(self, whole: _Pass, number: int) -> dict[fx.Node, Any]:
        """Return the values of the wanted nodes on one batch (and of what else is still held)."""
        values: dict[fx.Node, Any] = {}
        needed: set[fx.Node] = set()
        stack = list(whole.wanted)
        while stack:
            node = stack.pop()
            if node in needed or node in values:
                continue
            if node in self._plan.kept and (key := (whole.keys[node], number)) in self.store:
                values[node] = self.store[key]
            else:
                needed.add(node)
                stack.extend(self._plan.inputs[node])
        whole.work.found += len(values)
        whole.work.computed += len(needed)
        if not needed:
            return values
        if any(node.op == "placeholder" for node in needed):
            read = next(feeds(self.network, self.split, self._batches[number]))[1]
        else:
            read = {}
        inputs, parameters = whole.model.as_computed(read)

        def run(fed: Mapping[str, Tensor]) -> dict[str, Tensor]:
            self._run(whole, number, needed, values, fed, parameters)
            return {}

        if inputs:
            run_in_words(run, inputs)
        else:
            run(inputs)
        return values

    def _run(
        self,
        whole: _Pass,
        number: int,
        needed: set[fx.Node],
        values: dict[fx.Node, Any],
        inputs: Mapping[str, Tensor],
        parameters: Parameters,
    ) -> None:
        """Run the needed steps in order; values that nothing more reads are let go."""
        kept, quantizers, wanted = self._plan.kept, whole.model.quantizers, set(whole.wanted)
        readers = dict.fromkeys((*values, *needed), 0)
        for node in needed:
            for used in self._plan.inputs[node]:
                readers[used] += 1
        owned: set[fx.Node] = set()
        """Computed here, in memory that nothing else looks at."""
        for step in self._plan.steps:
            node = step.node
            if node not in needed:
                continue
            if whole.check is not None:
                whole.check()
            began = time.perf_counter()
            used_nodes = self._plan.inputs[node]
            free = {
                used
                for used in used_nodes
                if used in owned and readers[used] == 1 and used not in wanted and not (whole.keep and used in kept)
            }
            value: Any = overwritten(node, values, free) if free else None
            own = value is not None
            if value is None:
                value = self._computed(step, values, inputs, parameters)
                own = bool(used_nodes) and is_own(value, [values[used] for used in used_nodes])
                if not own:
                    owned.difference_update(used_nodes)  # it may be a view of them
            if step.tensor in quantizers and isinstance(value, Tensor) and node.op != "get_attr":
                value = rounded(quantizers[step.tensor], value, own)
            values[node] = value
            if own:
                owned.add(node)
            seconds = time.perf_counter() - began
            self._seconds[node] = min(seconds, self._seconds.get(node, seconds))
            if whole.keep and node in kept:
                self._keep(whole, number, node, value)
            for used in used_nodes:
                readers[used] -= 1
                if not readers[used] and used not in wanted:
                    del values[used]

    def _computed(
        self, step: Step, values: Mapping[fx.Node, Any], inputs: Mapping[str, Tensor], parameters: Parameters
    ) -> Any:
        executor = self.network.executor
        if step.node.op == "placeholder":
            return inputs[step.tensor]
        replaced = executor.replaced(step, parameters) if step.node.op == "call_module" else {}
        if not replaced:
            return executor.execute(step, values, parameters)
        if step.node in self._plan.layers:
            module, source = self._plan.layers[step.node]
            return called_with(module, replaced, (values[source],), {})
        module = executor.module.get_submodule(str(step.node.target))
        args = fx.map_arg(step.node.args, values.__getitem__)
        return called_with(module, replaced, args, fx.map_arg(step.node.kwargs, values.__getitem__))

    def _keep(self, whole: _Pass, number: int, node: fx.Node, value: Any) -> None:
        size = max(size_bytes(value), 64)
        seconds = sum(self._seconds.get(part, 0.0) for part in self._plan.chains[node])
        self.store.put((whole.keys[node], number), value, size, whole.generation, seconds / size)

    def _cut(self, value: Any, count: int) -> Any:
        """Return a batch's value without the samples that only fill it up to the size which the file demands."""
        size = self.network.fixed_batch
        fills = size is not None and count < size and isinstance(value, Tensor) and value.dim() > 0
        return value[:count] if fills and value.shape[0] == size else value


def _rows(value: Tensor) -> NDArray[np.float32]:
    return np.asarray(value.reshape(len(value), -1).float().cpu().numpy())
