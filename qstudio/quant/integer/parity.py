"""Compare the integer simulation with onnxruntime's fused run, and find the layers that saturate without VNNI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qstudio.backends.ort import make_session, with_outputs
from qstudio.backends.qdq import layer_inputs
from qstudio.backends.saturation import saturating_layers
from qstudio.core.processor import processor
from qstudio.core.results import IntegerParity
from qstudio.data.dataset import Split
from qstudio.quant.evaluate import feeds
from qstudio.quant.integer.model import IntegerModel
from qstudio.quant.simulate import SimulatedModel

INTEGER_SAMPLES = 128
"""Most samples on which the codes of the fused run are compared."""

SATURATION_SAMPLES = 32
"""Most samples on which saturation is simulated."""

_MULTIPLICATIONS = 10**10
"""Multiplications a comparison may take, about 3 s of one core; large models are compared on fewer samples."""

_SATURATION_COST = 8
"""How many times longer the saturating simulation takes for the same sample."""


def has_integer_formulas() -> bool:
    """Return whether the formulas here are those of this processor's kernels: x86 only."""
    return processor()[1][:1] == ("x86",)


def integer_parity(
    exported: onnx.ModelProto,
    model: SimulatedModel,
    split: Split,
    indices: NDArray[np.int64],
    *,
    threads: int = 0,
    check: Callable[[], None] | None = None,
) -> IntegerParity | None:
    """Compare every code of the fused run with integer arithmetic; None where nothing computes in integers.

    Args:
        exported: The QDQ model.
        model: The simulation it was made from.
        split: Where the samples are.
        indices: Which samples; the first of them are used, 128 at most.
        threads: Of onnxruntime; 0 = all cores.
        check: Called between batches; raises to stop.
    """
    integer = IntegerModel(exported, threads=threads)
    if not integer.steps or not has_integer_formulas():
        return None
    # With every code put out onnxruntime fuses as before: what it fuses writes these very tensors.
    session = make_session(with_outputs(exported, integer.codes), threads=threads, precise=True)
    names = [*integer.codes, *(name for name in integer.outputs if name not in integer.codes)]
    compared = different = worst = 0
    differing: dict[str, None] = {}
    equal = True
    some = indices[: affordable(model, INTEGER_SAMPLES, 1)]
    for _, inputs, _ in feeds(model.network, split, some):
        if check is not None:
            check()
        cpu = {name: values.cpu() for name, values in inputs.items()}
        results = session.run(names, {name: values.numpy() for name, values in cpu.items()})
        wanted = dict(zip(names, results, strict=True))
        seen: dict[str, NDArray[Any]] = {}
        outputs = integer.run(cpu, observe=seen.__setitem__)
        for name in integer.codes:
            steps = np.abs(seen[name].astype(np.int16) - wanted[name])
            count = int(np.count_nonzero(steps))
            compared, different = compared + steps.size, different + count
            if count:
                differing[name] = None
                worst = max(worst, int(steps.max()))
        equal = equal and all(np.array_equal(values.numpy(), wanted[name]) for name, values in outputs.items())
    return IntegerParity(
        codes_equal=100.0 * (1 - different / compared) if compared else 100.0,
        max_lsb=worst,
        outputs_equal=equal,
        samples=len(some),
        operators=len(integer.steps),
        float_layers=integer.float_layers,
        differing=tuple(differing),
    )


def saturation_shares(
    exported: onnx.ModelProto,
    model: SimulatedModel,
    split: Split,
    indices: NDArray[np.int64],
    *,
    threads: int = 0,
    check: Callable[[], None] | None = None,
) -> tuple[tuple[str, float], ...]:
    """Return the layers that saturate on x86 without VNNI, each with the percent of its sums that changes.

    Layers whose weights cannot do it are known from the weights alone; the others are simulated, each layer on what
    the saturating layers before it put out. Largest share first.

    Args:
        exported: The QDQ model.
        model: The simulation it was made from.
        split: Where the samples are.
        indices: Which samples; the first of them are used, 32 at most.
        threads: Of onnxruntime; 0 = all cores.
        check: Called between batches; raises to stop.
    """
    network = model.network
    values = {site: model.float_value(site) for site in model.weights}
    inputs_of = layer_inputs(network.proto, network.layers)
    if not saturating_layers(network.layers, inputs_of, model.activations, model.weights, values):
        return ()
    integer = IntegerModel(exported, saturating=True, threads=threads)
    some = indices[: affordable(model, SATURATION_SAMPLES, _SATURATION_COST)]
    for _, inputs, _ in feeds(network, split, some):
        if check is not None:
            check()
        integer.run({name: values.cpu() for name, values in inputs.items()})
    shares = {node: 100.0 * counted.changed / counted.sums for node, counted in integer.saturated().items()}
    return tuple(sorted(shares.items(), key=lambda item: -item[1]))


def affordable(model: SimulatedModel, most: int, cost: int) -> int:
    """Return how many samples a comparison takes: `most`, fewer for large models, never none."""
    multiplications = cost * max(sum(layer.macs for layer in model.network.layers), 1)
    return max(min(most, _MULTIPLICATIONS // multiplications), 1)
