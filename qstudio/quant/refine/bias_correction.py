"""Bias correction: take the mean shift that rounding causes out of every layer's output."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from qstudio.quant.network import Network
from qstudio.quant.refine.march import March, refining, start_march
from qstudio.quant.refine.state import RefineState
from qstudio.quant.refine.task import Refined, Task
from qstudio.quant.refine.units import Unit, layer_units


def bias_correction(network: Network, task: Task, refined: Refined) -> Refined:
    """Correct biases from the first layer to the last, each on what the corrected layers before it put out.

    b -= E[W^ x^] - E[W x] for each output channel, x^ the quantized network's own input of the layer (Nagel et al.,
    Data-Free Quantization, 2019, section 4.2 and appendix D, empirical form). Layers that share their bias with
    others, and products without a place for a bias, are left alone and named in the notes.

    Raises:
        JobCancelled: The run was stopped.
    """
    state = RefineState(network, refined)
    shared = Counter(layer.bias.id for layer in network.layers if layer.bias is not None)
    units = layer_units(network)
    layers = {layer.name: layer for layer in network.layers}
    skipped: list[str] = []
    with refining(network):
        march = start_march(network, units, task, "Bias correction", state.notes)
        for number, unit in enumerate(units):
            task.ctx.report(number, len(units), f"Bias correction: {unit.name}")
            layer = layers.get(unit.steps[0].onnx_node)
            if layer is not None and layer.weight is not None:
                if layer.bias is None or shared[layer.bias.id] > 1:
                    skipped.append(layer.name)
                else:
                    shift = _mean_shift(state, march, unit, 1 if "Conv" in layer.op_type else -1)
                    if shift is not None and shift.any():
                        bias = np.asarray(state.float_value(layer.bias.id) - shift, np.float32)
                        state.values[layer.bias.id] = bias
                        fixed = torch.tensor(bias, device=network.executor.device)
                        state.parameters[(layer.name, layer.bias.id)] = fixed
            march.advance(unit, state.parameters, state.rounding)
    if skipped:
        some = ", ".join(skipped[:4]) + ("..." if len(skipped) > 4 else "")
        state.notes.append(f"Bias correction left {len(skipped)} layers alone that have no bias of their own: {some}")
    return state.finish()


def _mean_shift(state: RefineState, march: March, unit: Unit, axis: int) -> np.ndarray | None:
    """Return E[W^ x^] - E[W x] per channel of the unit's first step, before its activation; float64 means."""
    first = Unit(
        unit.steps[:1],
        unit.constants,
        tuple(n for n in unit.inputs if n in unit.steps[0].node.all_input_nodes),
        (unit.steps[0].node,),
        unit.weights,
        unit.name,
        unit.tensors,
    )
    executor = state.network.executor
    total: np.ndarray | None = None
    samples = 0
    for exact, quantized, count in march.pairs(first):
        y = first.run(executor, exact)[unit.steps[0].node]
        rounded = first.run(executor, quantized, state.parameters, state.rounding)[unit.steps[0].node]
        if not isinstance(y, Tensor):
            return None
        difference = (rounded - y)[:count].double()
        others = [a for a in range(difference.dim()) if a not in (0, axis % difference.dim())]
        sums = (difference.mean(others) if others else difference).sum(0).cpu().numpy()
        total = sums if total is None else total + sums
        samples += count
    return None if total is None else total / max(samples, 1)
