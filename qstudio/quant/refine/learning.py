"""Go through a network and learn how each unit's weights are rounded: what AdaRound and BRECQ share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qstudio.quant.network import Network
from qstudio.quant.refine.march import March, refining, start_march
from qstudio.quant.refine.reconstruct import Problem, Schedule, reconstruct
from qstudio.quant.refine.scale_search import least_error
from qstudio.quant.refine.soft_rounding import SoftWeight
from qstudio.quant.refine.state import RefineState
from qstudio.quant.refine.task import Refined, Task
from qstudio.quant.refine.units import Unit


@dataclass(frozen=True)
class Learns:
    """What is learned besides the rounding of weights."""

    search: bool = False
    """Start each weight scale where rounding to nearest costs the least (see `scale_search`)."""
    activation_steps: bool = False
    weight_scales: bool = False
    biases: bool = False


def learn_rounding(
    network: Network,
    task: Task,
    refined: Refined,
    units: Sequence[Unit],
    schedule: Schedule,
    learns: Learns,
    title: str,
) -> Refined:
    """Learn the rounding of all units in order, each on what the refined units before it put out.

    Args:
        network: The float model.
        task: Data, seed, context.
        refined: Where to start; weights in `refined.rounded` stay as they are.
        units: All units of the network, in running order.
        schedule: For every unit.
        learns: What else is learned.
        title: Of the refinement, for progress and notes.

    Raises:
        JobCancelled: The run was stopped.
    """
    state = RefineState(network, refined)
    with refining(network):
        march = start_march(network, units, task, title, state.notes)
        costs = [_cost(state, unit, learns) for unit in units]
        total, done = sum(costs), 0.0
        for number, (unit, cost) in enumerate(zip(units, costs, strict=True)):
            if cost:

                def check(share: float, done: float = done, cost: float = cost, unit: Unit = unit) -> None:
                    task.ctx.report(done + share * cost, total, f"{title}: {unit.name}")

                _learn_unit(state, march, unit, schedule, learns, task.seed + number, check)
                done += cost
            else:
                task.ctx.check()
            march.advance(unit, state.parameters, state.rounding)
    return state.finish()


def _learn_unit(
    state: RefineState,
    march: March,
    unit: Unit,
    schedule: Schedule,
    learns: Learns,
    seed: int,
    check: Callable[[float], None],
) -> None:
    """Learn one unit and keep what was learned, unless rounding to nearest is better."""
    target = march.float_output(unit)
    inputs = {node: march.samples(node) for node in unit.inputs}
    found = {node: pair for node, pair in inputs.items() if pair is not None}
    if target is None or len(found) < len(inputs) or any(len(pair[0]) != len(target) for pair in found.values()):
        state.notes.append(f"{unit.name}: its values are not laid out sample by sample; it is rounded to nearest.")
        return
    device = state.network.executor.device
    weights = {}
    for name in state.open_weights(unit):
        values, encoding = state.float_value(name), state.weights[name]
        free = state.scales_freely(name)
        start = least_error(values, encoding) if learns.search and free else encoding
        weights[name] = SoftWeight(values, start, device, learns.weight_scales and free)
    problem = Problem(
        unit,
        state.network.executor,
        {node: (_laid_out(exact), _laid_out(rounded)) for node, (exact, rounded) in found.items()},
        _laid_out(target),
        state.parameters,
        weights,
        state.learned_biases(unit) if learns.biases else {},
        state.steps_in(unit, learns.activation_steps),
    )
    before, after = reconstruct(problem, schedule, seed, check)
    if after < before:
        state.keep(problem)


def _cost(state: RefineState, unit: Unit, learns: Learns) -> float:
    """Return the share of work a unit stands for: its multiply-accumulates, 0 where nothing is to be learned."""
    steps = state.steps_in(unit, learns.activation_steps).values() if unit.weights else ()
    if not state.open_weights(unit) and not any(step.logarithm is not None for step in steps):
        return 0.0
    return float(sum(state.layer_of[name].macs or 1 for name in unit.weights))


def _laid_out(values: Tensor) -> Tensor:
    """Return images with their channels last in memory: convolutions of few channels take half the time."""
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values
