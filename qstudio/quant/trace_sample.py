"""One sample through the layers: what each puts out, float beside quantized, and where its class flips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qstudio.core.context import JobContext, SilentContext
from qstudio.core.errors import UserError
from qstudio.core.inspection import SampleTrace
from qstudio.data.dataset import Split
from qstudio.quant.class_flips import Flips, Values, find_flips, first_scores
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import feeds, run_in_words
from qstudio.quant.evaluator import FLOAT
from qstudio.quant.executor import Parameters
from qstudio.quant.network import Network
from qstudio.quant.predictions import are_probabilities
from qstudio.quant.sample_maps import LayerValues, MapSize, layer_values, maps_of, thinned, without_maps
from qstudio.quant.simulate import SimulatedModel

MAPS_BYTES = 4 * 2**20
"""Most of the maps that are sent without being asked for by name: 20 layers of ResNet-20."""

SHOWN_SCORES = 4096
"""Most outputs of a model that are sent."""


@dataclass(frozen=True, eq=False)
class Traced:
    """All values of one sample, from which traces are cut."""

    layers: tuple[LayerValues, ...]
    """In topological order."""
    float_scores: NDArray[np.float32]
    """[K] the first output of the float model."""
    quantized_scores: NDArray[np.float32]
    """[K] of the simulated one."""
    flips: Flips | None = None
    """None until they have been looked for, and where the outputs are no class scores."""
    notes: tuple[str, ...] = ()
    """One sentence each."""

    @property
    def size_bytes(self) -> int:
        """Memory of the values."""
        return sum(row.float.nbytes + row.quantized.nbytes for row in self.layers)


OnTraced = Callable[[Traced], None]


def run_sample(
    network: Network,
    encodings: Encodings,
    split: Split,
    index: int,
    *,
    weight_values: Mapping[str, NDArray[np.floating]] | None = None,
    ctx: JobContext | None = None,
    on_values: OnTraced | None = None,
) -> Traced:
    """Run one sample through the float and the simulated model, and find the layer at which its class flips.

    The values are those of `SimulatedModel.run`, with `encodings` and without any. The class after a layer is that of
    the network in which this layer and all before it are simulated and the rest is float; each is computed from the
    kept values of the simulation, so that only what follows the layer runs.

    Args:
        network: The prepared float model.
        encodings: Of all quantized sites.
        split: Where the sample is.
        index: Its place there.
        weight_values: Float values that replace initializers before rounding, by name.
        ctx: Told the progress; stops between layers.
        on_values: Told the values before the flips are looked for.

    Raises:
        UserError: There is no sample of that index, or it does not fit the model.
        JobCancelled: Asked to stop.
    """
    ctx = ctx or SilentContext()
    check_index(split, index)
    quantized_model = SimulatedModel(network, encodings, weight_values)
    float_model = SimulatedModel(network, FLOAT)
    _, inputs, rows = next(feeds(network, split, np.array([index], np.int64)))
    with network.executor.evaluating():
        floats, parameters = _run(network, float_model, inputs)
        ctx.check()
        quantized, _ = _run(network, quantized_model, inputs)
        found = Traced(
            layer_values(network, floats, quantized, rows),
            first_scores(network, floats),
            first_scores(network, quantized),
        )
        if not network.gives_class_scores or len(found.float_scores) < 2 or not found.layers:
            return replace(found, notes=("The outputs are no class scores: there is no class that could flip",))
        if on_values is not None:
            on_values(found)
        names = tuple(row.layer.name for row in found.layers)
        flips = find_flips(network, names, floats, quantized, parameters, ctx)
    return replace(found, flips=flips, notes=flips.notes)


def check_index(split: Split, index: int) -> None:
    """Refuse a sample that is not there.

    Raises:
        UserError: Says which there are.
    """
    if not 0 <= index < len(split):
        raise UserError(
            f"there is no sample {index:,}", "sample", f"Choose 0 to {len(split) - 1:,} of the evaluation split"
        )


def sample_trace(
    traced: Traced,
    network: Network,
    split: Split,
    index: int,
    recipe_hash: str,
    *,
    wanted: Sequence[str] = (),
    size: MapSize | None = None,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> SampleTrace:
    """Return what the window shows of a traced sample.

    Args:
        traced: Of this sample.
        network: That it was traced through.
        split: Where the sample is.
        index: Its place there.
        recipe_hash: Of the recipe.
        wanted: Layers whose maps are sent for certain; the others have them as far as `MAPS_BYTES` reach, and empty
            ones beyond.
        size: How much of a map is sent.
        class_names: Of the data; left out where there are not as many as scores.
        notes: What else there is to say.
    """
    size = size or MapSize()
    there = {row.layer.name for row in traced.layers}
    missing = [name for name in wanted if name not in there]
    if missing:
        notes = (*notes, f"{missing[0]} puts out nothing that can be shown")
    made = {row.layer.name: maps_of(row, size) for row in traced.layers if row.layer.name in wanted}
    left = MAPS_BYTES
    for row in traced.layers:
        name = row.layer.name
        if name not in made:
            made[name] = maps_of(row, size) if left > 0 else without_maps(row)
            left -= made[name].float.nbytes + made[name].quantized.nbytes
    flips = traced.flips or Flips((False,) * len(traced.layers))
    label = None
    if split.labels is not None and split.labels.ndim == 1:
        label = int(split.labels[index])
    first, second = class_probabilities(traced.float_scores, traced.quantized_scores, network.gives_class_scores)
    shown = first[:SHOWN_SCORES], second[:SHOWN_SCORES]
    if len(first) > SHOWN_SCORES:
        notes = (*notes, f"The first {SHOWN_SCORES:,} of {len(first):,} outputs")
    return SampleTrace(
        index=index,
        label=label,
        stored=thinned(split.raw(index)),
        layers=tuple(
            replace(made[row.layer.name], argmax_flips=flip)
            for row, flip in zip(traced.layers, flips.changed, strict=True)
        ),
        float_scores=shown[0],
        quantized_scores=shown[1],
        recipe_hash=recipe_hash,
        flips_at=flips.at,
        class_names=class_names if len(class_names) == len(first) else (),
        notes=(*notes, *traced.notes),
    )


def class_probabilities(
    float_scores: NDArray[np.floating], quantized_scores: NDArray[np.floating], are_scores: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return [K] probabilities of both: the softmax, unless the float ones are probabilities already.

    What is no class scores (boxes, pixels, a single number) is returned as it is.
    """
    first, second = np.asarray(float_scores, np.float64), np.asarray(quantized_scores, np.float64)
    if are_scores and len(first) > 1 and not are_probabilities(first[None]):
        first, second = _softmax(first), _softmax(second)
    return first.astype(np.float32), second.astype(np.float32)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


# ---- running


def _run(network: Network, model: SimulatedModel, inputs: Mapping[str, Tensor]) -> tuple[Values, Parameters]:
    """Return the value of every node, and the parameters it was computed with."""
    values: Values = {}
    given, parameters = model.as_computed(inputs)

    def run(fed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for step in network.executor.steps:
            placeholder = step.node.op == "placeholder"
            value = fed[step.tensor] if placeholder else network.executor.execute(step, values, parameters)
            if step.tensor and isinstance(value, Tensor) and step.node.op != "get_attr":
                value = model.transform(step.tensor, value)
            values[step.node] = value
        return {}

    run_in_words(run, given)
    return values, parameters
