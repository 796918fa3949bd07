"""One layer at a time: what each candidate does to the network's output, measured or predicted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qstudio.core.context import JobContext, SilentContext
from qstudio.core.errors import UserError
from qstudio.core.model_info import LayerInfo
from qstudio.core.pruning import prunes
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import REFINEMENTS, check_refinements
from qstudio.core.sensitivity import (
    Candidate,
    HessianTrace,
    SensitivityCell,
    SensitivityResult,
    make_candidates,
)
from qstudio.core.statistics import SiteStatistics
from qstudio.data.dataset import Dataset
from qstudio.data.samples import choose_samples
from qstudio.graph.load import LoadedModel
from qstudio.quant.calibrate import activation_statistics
from qstudio.quant.evaluation.cells import CellBook
from qstudio.quant.evaluation.hessian import PROBES, hessian_traces
from qstudio.quant.evaluation.schemes import Schemes, joined
from qstudio.quant.evaluation.sweep import OnCell, Sweep
from qstudio.quant.evaluator import BYTE_BUDGET, FLOAT
from qstudio.quant.keep import samples_key
from qstudio.quant.network import Network, network_for
from qstudio.quant.ptq import check_network
from qstudio.quant.refine.run import refine_network
from qstudio.quant.simulate import SimulatedModel

HESSIAN_SAMPLES = 256
"""Samples the curvature is averaged over."""

known = CellBook()
"""What this process has measured."""


@dataclass(frozen=True)
class SensitivityOptions:
    """What a sweep needs besides model, data and recipe; the fields of `qstudio.engine.messages.Sensitivity`."""

    candidates: tuple[Candidate, ...] = field(default_factory=lambda: make_candidates((8, 4, 2)))
    mode: str = "enable"
    """Of `qstudio.core.sensitivity.MODES`."""
    layers: tuple[str, ...] = ()
    """Only these; empty = all."""
    measured: bool = True
    """Evaluate the network for every cell."""
    hessian: bool = False
    """Predict every cell that changes a weight from the Hessian."""
    calibration_samples: int = 512
    eval_samples: int | None = 1000
    """None = all."""
    seed: int = 0
    device: str = "cpu"
    resume: str = ""
    """JSON file that figures are read from and written to; empty = none."""
    calibration_choice: str = "random"
    """One of `qstudio.core.sample_choice.CHOICES`."""
    byte_budget: int = BYTE_BUDGET
    """Memory for values that are computed once."""


def measure_sensitivity(
    model: LoadedModel,
    dataset: Dataset,
    recipe: Recipe,
    options: SensitivityOptions | None = None,
    *,
    calibration_dataset: Dataset | None = None,
    ctx: JobContext | None = None,
    on_cell: OnCell | None = None,
) -> SensitivityResult:
    """Return what each candidate does on each layer.

    Every figure is kept by the content of all it depends on (network, samples, encodings, torch's version), in this
    process and, where asked for, in a file: a sweep that was stopped goes on where it was.

    Args:
        model: The opened model; not changed.
        dataset: What is evaluated on, and calibrated with unless there is a calibration dataset.
        recipe: How layers are quantized besides the candidate's widths: formats, calibrators, granularity.
        options: Candidates, mode, samples.
        calibration_dataset: Other data to calibrate with.
        ctx: Told the progress; stops the sweep between batches.
        on_cell: Told each cell as it is known.

    Raises:
        UserError: Model, data, recipe or options cannot be used.
        JobCancelled: The sweep was stopped; the file has what was measured until then.
    """
    options, ctx = options or SensitivityOptions(), ctx or SilentContext()
    if not options.candidates:
        raise UserError("there is no bit width to try", "bits", "Give at least one, such as 8,4,2")
    began = time.perf_counter()
    recipe = replace(recipe, refinements=check_refinements(recipe.refinements))
    network = network_for(model, "fold" in recipe.refinements, options.device)
    check_network(network, dataset)
    book = CellBook(options.resume, known)
    samples = choose_samples(
        dataset,
        options.calibration_samples,
        options.eval_samples,
        options.seed,
        calibration_dataset,
        options.calibration_choice,
    )
    network = refine_network(
        network, recipe, samples.calibration, samples.calibration_indices, options.seed, _Quiet(ctx)
    )
    chosen = _chosen_layers(network, options)
    statistics: dict[str, SiteStatistics] = {}
    if options.measured and (options.mode != "enable" or any(c.activation_bits for c in options.candidates)):
        key = samples_key(calibration_dataset or dataset, samples.calibration, samples.calibration_indices)
        statistics = activation_statistics(
            network,
            samples.calibration,
            samples.calibration_indices,
            key,
            lambda done, total: ctx.report(0.05 * done / max(total, 1), 1.0, "Collecting statistics"),
        )
    split, indices = samples.evaluation, samples.evaluation_indices
    data_key = samples_key(dataset, split, indices)
    schemes = Schemes(network, recipe, statistics, options.mode)
    cells = [
        SensitivityCell(layer.name, candidate)
        for layer in chosen
        for candidate in options.candidates
        if schemes.own_sites(layer, candidate)
    ]
    if not cells:
        raise UserError("no layer has what the candidates change", "layers", "Choose other layers or another side")
    sweep = Sweep(network, split, indices, data_key, schemes, book, ctx, options.candidates, options.byte_budget)
    try:
        traces = _traces(sweep, chosen, options) if options.hessian else {}
        predicted = {
            (cell.layer, cell.candidate): _predicted(schemes, sweep.layers[cell.layer], cell.candidate, traces)
            for cell in cells
        }
        cells = [replace(cell, hessian=predicted[(cell.layer, cell.candidate)]) for cell in cells]
        if options.measured:
            cells = sweep.measure(cells, on_cell)
        elif on_cell is not None:
            for cell in cells:
                on_cell(cell)
    finally:
        book.save()
    ctx.report(1.0, 1.0, "Done")
    return SensitivityResult(
        mode=options.mode,
        candidates=options.candidates,
        cells=tuple(cells),
        recipe=recipe,
        model_hash=model.sha256,
        data_hash=data_key,
        seed=options.seed,
        float=sweep.float_figures,
        bases=tuple(sweep.bases.items()),
        traces=tuple(traces.values()),
        computed=sweep.computed,
        seconds=time.perf_counter() - began,
        notes=(*network.notes, *samples.notes, *_notes(recipe)),
    )


def _notes(recipe: Recipe) -> Iterable[str]:
    left = [text for text in recipe.refinements if REFINEMENTS[text.partition(":")[0]].stage == "values"]
    if left:
        yield f"{', '.join(left)} would have to run anew for every cell and is left out of the sweep"
    if prunes(recipe):
        yield "the sweep quantizes the network as it was opened: what the recipe prunes is still in it"


def _chosen_layers(network: Network, options: SensitivityOptions) -> tuple[LayerInfo, ...]:
    there = {layer.name: layer for layer in network.layers}
    missing = [name for name in options.layers if name not in there]
    if missing:
        raise UserError("the model has no layer of this name", missing[0], "Choose one that 'qstudio inspect' lists")
    wanted = set(options.layers) or set(there)
    return tuple(layer for layer in network.layers if layer.name in wanted)


def _traces(sweep: Sweep, layers: Sequence[LayerInfo], options: SensitivityOptions) -> dict[str, HessianTrace]:
    """Return the trace of every weight of some layers by site, from the book where it is known."""
    network, indices = sweep.network, sweep.indices[:HESSIAN_SAMPLES]
    sites = {layer.weight.id: layer.weight for layer in layers if layer.weight is not None}
    keys = {site: sweep.key("trace", site, len(indices), PROBES, options.seed) for site in sites}
    found = {site: trace for site, key in keys.items() if (trace := sweep.book.trace(key)) is not None}
    missing = [site for site in network.weight_sites if site.id in sites and site.id not in found]
    if missing:
        # All at once, whatever is known: the probes serve every layer.
        every = hessian_traces(
            network,
            network.weight_sites,
            sweep.split,
            indices,
            seed=options.seed,
            report=lambda done, total: sweep.ctx.report(0.05, 1.0, f"Curvature of the loss, {done:,} of {total:,}"),
        )
        for site, key in keys.items():
            sweep.book.put_trace(key, every[site])
        found = {site: every[site] for site in sites}
    return {site: found[site] for site in sites}


def _predicted(
    schemes: Schemes, layer: LayerInfo, candidate: Candidate, traces: dict[str, HessianTrace]
) -> float | None:
    """Return Tr(H) / n x ||Q(W) - W||^2 of a cell, in nats; None where no weight changes."""
    if layer.weight is None or layer.weight.id not in traces or candidate.weight_bits is None:
        return None
    if layer.weight.id not in schemes.own_sites(layer, candidate):
        return None
    site = layer.weight.id
    rounded = SimulatedModel(schemes.network, joined(FLOAT, schemes.whole(candidate), frozenset((site,))))
    change = rounded.rounded_weight(site).astype(np.float64) - rounded.float_value(site)
    trace = traces[site]
    return trace.trace / trace.parameters * float(np.square(change).sum())


class _Quiet:
    """A context whose progress is not shown, but which stops when the sweep is stopped."""

    def __init__(self, ctx: JobContext) -> None:
        self._ctx = ctx

    def report(self, done: float, total: float, note: str = "") -> None:
        """Tell what is being done at the start of the sweep."""
        self._ctx.report(0.0, 1.0, note)

    def partial(self, value: object) -> None:
        """Drop the value."""

    def check(self) -> None:
        """Check for cancellation."""
        self._ctx.check()
