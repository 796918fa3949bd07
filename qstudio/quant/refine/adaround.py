"""AdaRound: learn for each weight whether it is rounded up or down, layer by layer."""

from __future__ import annotations

from qstudio.quant.network import Network
from qstudio.quant.refine.learning import Learns, learn_rounding
from qstudio.quant.refine.reconstruct import Schedule
from qstudio.quant.refine.task import Refined, Task
from qstudio.quant.refine.units import layer_units


def adaround(network: Network, task: Task, refined: Refined) -> Refined:
    """Choose the rounding of each layer so that its output, after its activation, stays close to the float one.

    Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, 2020: asymmetric reconstruction (inputs
    as the quantized layers before put them out, target from the float network), stretched sigmoid, annealed
    regulariser.

    Raises:
        JobCancelled: The run was stopped.
    """
    settings = task.settings
    schedule = Schedule(
        int(settings["iterations"]), int(settings["batch"]), settings["rate"], regularizer=settings["regularizer"]
    )
    learns = Learns(bool(settings["search"]))
    return learn_rounding(network, task, refined, layer_units(network), schedule, learns, "AdaRound")
