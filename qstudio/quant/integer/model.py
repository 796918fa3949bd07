"""A quantized model run in integers, as onnxruntime's fused kernels compute it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from qstudio.backends.unpacked import with_unpacked_weights
from qstudio.core.storage import INT8
from qstudio.quant.integer.graph import QdqGraph
from qstudio.quant.integer.operators import Saturated
from qstudio.quant.integer.plan import IntegerStep, integer_steps
from qstudio.quant.integer.written import AsWritten, reads
from qstudio.quant.simulate import SimulatedModel
from qstudio.quant.storage import exported_model

ObserveCodes = Callable[[str, NDArray[Any]], None]

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Einsum")


class IntegerModel:
    """A QDQ model with int32 accumulators and onnxruntime's requantization.

    Conv, Gemm, MatMul, Add, Mul, average pooling and Softmax between 8-bit tensors are computed here; operators that
    only move or compare codes, those whose kernels are tables of their float function (Sigmoid, LeakyRelu, Concat), and
    everything that is not quantized, run as written.

    Args:
        exported: From `qstudio.backends.qdq.export_qdq`, or any model of that form; not changed.
        saturating: Compute as x86 processors with AVX2 or AVX-512 but without VNNI do, whose 8-bit products saturate in
            pairs at 16 bits. False = exact sums: VNNI, or session.x64quantprecision=1.
        threads: For what runs as written; 0 = all cores.
    """

    def __init__(self, exported: onnx.ModelProto, *, saturating: bool = False, threads: int = 0) -> None:
        exported = with_unpacked_weights(exported)
        graph = QdqGraph(exported)
        found = integer_steps(graph, saturating)
        self.steps: tuple[IntegerStep, ...] = tuple(found.values())
        """The operators computed in integers, in order."""
        self.inputs = tuple(i.name for i in exported.graph.input if i.name not in graph.constants)
        self.outputs = tuple(output.name for output in exported.graph.output)
        replaced = {index for step in self.steps for index in step.replaced}
        self.float_layers: tuple[str, ...] = tuple(
            node.name for i, node in enumerate(graph.nodes) if node.op_type in _HEAVY and i not in replaced
        )
        """Names of Conv, Gemm, MatMul and the like that compute in float."""
        read = {name for step in self.steps for name in step.inputs} | set(self.outputs)
        self._constants = {name: graph.array(name) for name in read if name in graph.constants}
        parts = _in_order(graph, found, set(self.outputs))
        self._plan = _with_lifetimes(exported, graph, parts, set(self.outputs), threads)
        self.codes: tuple[str, ...] = tuple(
            name
            for part, _ in self._plan
            for name in ((part.output,) if isinstance(part, IntegerStep) else part.outputs)
            if graph.holds_codes(name)
        )
        """Tensors of 8-bit codes that `observe` is called with."""

    @classmethod
    def of(cls, simulated: SimulatedModel, *, saturating: bool = False, threads: int = 0) -> IntegerModel:
        """Return the integer form of a simulation: its export, with weights stored in int8.

        Args:
            simulated: What was calibrated; its `run` takes and gives the same tensors.
            saturating: As x86 without VNNI.
            threads: For what runs as written; 0 = all cores.
        """
        return cls(exported_model(simulated, INT8), saturating=saturating, threads=threads)

    def run(self, inputs: Mapping[str, Tensor], observe: ObserveCodes | None = None) -> dict[str, Tensor]:
        """Compute the outputs on one batch.

        Args:
            inputs: Model input to values.
            observe: Called with (tensor, codes) of every quantized tensor.

        Returns:
            Model output to values.
        """
        values: dict[str, NDArray[Any]] = {name: inputs[name].detach().cpu().numpy() for name in self.inputs}
        values.update(self._constants)
        watched = set(self.codes) if observe is not None else set()
        with torch.inference_mode():
            for part, frees in self._plan:
                if isinstance(part, IntegerStep):
                    codes = [torch.from_numpy(np.require(values[n], requirements=["C", "W"])) for n in part.inputs]
                    written = {part.output: part.compute(*codes).numpy()}
                else:
                    written = part(values)
                values.update(written)
                if observe is not None:
                    for name in watched.intersection(written):
                        observe(name, written[name])
                for name in frees:
                    del values[name]
        return {name: torch.from_numpy(np.array(values[name])) for name in self.outputs}

    def saturated(self) -> dict[str, Saturated]:
        """Return, by node, how many sums of all runs so far saturated; only operators in which any did."""
        return {step.node: step.compute.saturated for step in self.steps if step.compute.saturated.changed}


def _in_order(
    graph: QdqGraph, found: Mapping[int, IntegerStep], outputs: set[str]
) -> list[IntegerStep | list[onnx.NodeProto]]:
    """Return integer operators and the stretches of other nodes between them; nodes that nothing needs are left out.

    Nodes that write codes stay in any case, so that all codes can be seen.
    """
    of_node = {index: step for step in found.values() for index in step.replaced}
    needed = outputs | {name for step in found.values() for name in step.inputs}
    kept = set()
    for index in reversed(range(len(graph.nodes))):
        node = graph.nodes[index]
        if index not in of_node and (needed.intersection(node.output) or any(map(graph.holds_codes, node.output))):
            kept.add(index)
            needed.update(reads(node))
    order: list[IntegerStep | list[onnx.NodeProto]] = []
    stretch: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.nodes):
        step = of_node.get(index)
        if step is not None and index == max(step.replaced):
            if stretch:
                order.append(stretch)
            order.append(step)
            stretch = []
        elif index in kept:
            stretch.append(node)
    return [*order, stretch] if stretch else order


def _with_lifetimes(
    model: onnx.ModelProto,
    graph: QdqGraph,
    order: list[IntegerStep | list[onnx.NodeProto]],
    outputs: set[str],
    threads: int,
) -> list[tuple[IntegerStep | AsWritten, tuple[str, ...]]]:
    """Return the parts, each with the tensors that nothing needs after it."""
    alive = set(outputs)
    plan: list[tuple[IntegerStep | AsWritten, tuple[str, ...]]] = []
    for part in reversed(order):
        if isinstance(part, IntegerStep):
            ready: IntegerStep | AsWritten = part
            written = {part.output}
        else:
            made = [name for node in part for name in node.output if name]
            written = {name for name in made if name in alive or graph.holds_codes(name)}
            read = dict.fromkeys(name for node in part for name in reads(node))
            inputs = tuple(name for name in read if name not in made and name not in graph.constants)
            ready = AsWritten(model, part, inputs, tuple(sorted(written)), threads)
        used = {name for name in (*ready.inputs, *written) if name not in graph.constants}
        plan.append((ready, tuple(sorted(used - alive))))
        alive = (alive - written) | set(ready.inputs) | outputs
    return plan[::-1]
