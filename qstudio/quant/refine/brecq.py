"""BRECQ with QDrop: learn rounding and activation steps block by block."""

from __future__ import annotations

from qstudio.quant.network import Network
from qstudio.quant.refine.learning import Learns, learn_rounding
from qstudio.quant.refine.reconstruct import Schedule
from qstudio.quant.refine.task import Refined, Task
from qstudio.quant.refine.units import block_units, layer_units

MOST_LAYERS = 8
"""Layers of one block; with more, each layer is a block."""

TOGETHER = 2
"""Layers of a plain chain that make a block: a depthwise convolution and the pointwise one behind it."""


def brecq(network: Network, task: Task, refined: Refined) -> Refined:
    """Learn rounding, activation steps, weight scales and biases so that each block's output stays close.

    Blocks lie between places where one tensor carries everything, residual blocks whole (Li et al., BRECQ, 2021); a
    block learns the steps of the tensors it reads, by LSQ's gradient, with half of the activations left unrounded at
    random in each step (Wei et al., QDrop, 2022). The error is the plain squared one.

    Raises:
        JobCancelled: The run was stopped.
    """
    settings = task.settings
    schedule = Schedule(
        int(settings["iterations"]),
        int(settings["batch"]),
        settings["rate"],
        regularizer=settings["regularizer"],
        drop=bool(settings["drop"]),
    )
    learns = Learns(*(bool(settings[name]) for name in ("search", "steps", "scales", "biases")))
    # In a network that demands a batch size, a Reshape may hold it; single layers take any number of samples.
    fixed = network.fixed_batch is not None
    units = layer_units(network) if fixed else block_units(network, MOST_LAYERS, TOGETHER)
    return learn_rounding(network, task, refined, units, schedule, learns, "BRECQ")
