"""Run the refinements of a recipe, in their order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qstudio.core.context import JobContext
from qstudio.core.errors import JobCancelled, UserError
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, Refinement
from qstudio.core.registry import resolve
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings
from qstudio.quant.network import Network
from qstudio.quant.refine.edited import with_biases
from qstudio.quant.refine.task import Refined, Task
from qstudio.quant.simulate import SimulatedModel

_WANT_BIASES = ("bias_correction", "brecq")
"""Refinements for which layers without a bias are given one."""


def refine_network(
    network: Network, recipe: Recipe, split: Split, indices: NDArray[np.int64], seed: int, ctx: JobContext
) -> Network:
    """Run what comes before calibration; the function of the network stays the same.

    Args:
        network: The prepared float model, not changed.
        recipe: Names the refinements.
        split: Where the calibration samples are.
        indices: Which samples.
        seed: For what is drawn at random.
        ctx: Told the progress; raises to stop.

    Raises:
        JobCancelled: The run was stopped.
        UserError: A plug-in failed.
    """
    chosen = _chosen(recipe, "network")
    for number, (refinement, text) in enumerate(chosen):
        task = Task(split, indices, seed, refinement.settings(text), _Part(ctx, number, len(chosen)))
        network = _called(refinement, network, task)
    if any(text.partition(":")[0] in _WANT_BIASES for text in recipe.refinements):
        network = with_biases(network)
    return network


def refine_values(
    network: Network,
    recipe: Recipe,
    encodings: Encodings,
    split: Split,
    indices: NDArray[np.int64],
    seed: int,
    ctx: JobContext,
) -> Refined:
    """Run what comes after calibration: codes of weights, biases, scales.

    Args:
        network: From `refine_network`.
        recipe: Names the refinements.
        encodings: From calibration.
        split: Where the calibration samples are.
        indices: Which samples.
        seed: For what is drawn at random.
        ctx: Told the progress; raises to stop.

    Returns:
        What `SimulatedModel` and `export_qdq` take in the place of the original encodings and values.

    Raises:
        JobCancelled: The run was stopped.
        UserError: A plug-in failed.
    """
    chosen = _chosen(recipe, "values")
    refined = Refined(encodings, {})
    for number, (refinement, text) in enumerate(chosen):
        task = Task(split, indices, seed, refinement.settings(text), _Part(ctx, number, len(chosen)))
        refined = _called(refinement, network, task, refined)
    return refined


def simulated(network: Network, refined: Refined, *, ordered: bool = False, threads: int = 0) -> SimulatedModel:
    """Return the simulation of a refined network."""
    return SimulatedModel(network, refined.encodings, refined.weight_values, ordered=ordered, threads=threads)


def _chosen(recipe: Recipe, stage: str) -> list[tuple[Refinement, str]]:
    found = [(REFINEMENTS[text.partition(":")[0]], text) for text in recipe.refinements]
    return [(refinement, text) for refinement, text in found if refinement.stage == stage]


def _called(refinement: Refinement, *arguments: object) -> Any:
    try:
        return resolve(refinement.target)(*arguments)
    except (JobCancelled, UserError):
        raise
    except Exception as error:
        if refinement.target.startswith("qstudio."):
            raise  # a fault of ours is reported as one; a plug-in may fail in any way
        where = f"refinement {refinement.id}"
        raise UserError(f"it failed ({error})", where, "Leave it out of the recipe") from error


class _Part:
    """The context of one refinement among several."""

    def __init__(self, ctx: JobContext, number: int, count: int) -> None:
        self._ctx, self._number, self._count = ctx, number, count

    def report(self, done: float, total: float, note: str = "") -> None:
        """Tell the progress of all refinements."""
        self._ctx.report((self._number + done / max(total, 1e-9)) / self._count, 1.0, note)

    def partial(self, value: object) -> None:
        """Stream a value."""
        self._ctx.partial(value)

    def check(self) -> None:
        """Raise JobCancelled if the run was stopped."""
        self._ctx.check()
