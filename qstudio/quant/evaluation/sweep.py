"""Measure the cells of a sweep, each from what the ones before have left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from qstudio.core.context import JobContext
from qstudio.core.metrics import sqnr_db
from qstudio.core.sensitivity import Candidate, Figures, SensitivityCell, kl_divergence
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluate import Report, metrics_of
from qstudio.quant.evaluation.cells import CellBook
from qstudio.quant.evaluation.keys import digest
from qstudio.quant.evaluation.schemes import Schemes, content
from qstudio.quant.evaluator import FLOAT, CachedEvaluator
from qstudio.quant.network import Network

OnCell = Callable[[SensitivityCell], None]

_SAVE_S = 5.0
"""Seconds between two writes of the file that a sweep can be resumed from."""


class Sweep:
    """Measures cells in an order in which each finds the most of what it needs."""

    def __init__(
        self,
        network: Network,
        split: Split,
        indices: NDArray[np.int64],
        data_key: str,
        schemes: Schemes,
        book: CellBook,
        ctx: JobContext,
        candidates: Sequence[Candidate],
        byte_budget: int,
    ) -> None:
        self.network, self.split, self.indices = network, split, indices
        self.layers = {layer.name: layer for layer in network.layers}
        self.order = {layer.name: place for place, layer in enumerate(network.layers)}
        self.float_figures: Figures | None = None
        self.bases: dict[Candidate, Figures] = {}
        self.computed = 0
        self.data_key = data_key
        self.book, self.ctx, self._schemes, self._candidates = book, ctx, schemes, tuple(candidates)
        self._evaluator = CachedEvaluator(network, split, indices, byte_budget=byte_budget)
        self._float_scores: NDArray[np.float32] | None = None
        self._saved = time.monotonic()

    def key(self, *parts: object) -> str:
        """Return the key of what depends on the network, the samples, torch and some more."""
        # Bits depend on torch's version and on how many threads share a sum.
        place = (self.network.device, torch.__version__, torch.get_num_threads())
        return digest((self.network.sha256, self.data_key, place, parts)).hex()

    def measure(self, cells: Sequence[SensitivityCell], on_cell: OnCell | None) -> list[SensitivityCell]:
        """Return the cells with their figures; each is told as soon as it is known, those known already first."""
        found: dict[tuple[str, Candidate], Figures] = {}
        encodings = {
            (cell.layer, cell.candidate): self._schemes.cell(self.layers[cell.layer], cell.candidate) for cell in cells
        }
        keys = {place: self.key(content(made)) for place, made in encodings.items()}

        def tell(cell: SensitivityCell, figures: Figures) -> None:
            found[(cell.layer, cell.candidate)] = figures
            if on_cell is not None:
                on_cell(replace(cell, figures=figures))

        missing = []
        for cell in cells:
            figures = self.book.figures(keys[(cell.layer, cell.candidate)])
            if figures is None:
                missing.append(cell)
            else:
                tell(cell, figures)
        enables = self._schemes.mode == "enable"
        steps = len(missing) + 2
        self.float_figures = self._figures(FLOAT, enables, bool(missing), self._report(0, steps, "the float model"))
        # From the last layer to the first, so that even with little memory what is before a layer is there.
        missing.sort(key=lambda cell: -self.order[cell.layer])
        if self._schemes.mode == "disable":
            missing.sort(key=lambda cell: self._candidates.index(cell.candidate))
        there = list(dict.fromkeys(cell.candidate for cell in cells))
        left = {candidate: sum(cell.candidate == candidate for cell in missing) for candidate in there}
        for candidate in left:
            if self._schemes.mode != "disable" or not left[candidate]:
                self._base(candidate, sum(left.values()) > 0, self._report(1, steps, "the base"))
        for done, cell in enumerate(missing):
            if cell.candidate not in self.bases:
                self._base(cell.candidate, True, self._report(done + 1, steps, f"all at {cell.candidate.text}"))
            place = (cell.layer, cell.candidate)
            note = f"{cell.layer} {cell.candidate.text}"
            figures = self.book.figures(keys[place])
            if figures is None:
                figures = self._evaluate(encodings[place], False, self._report(done + 2, steps, note))
                self.computed += 1
                self._learn(keys[place], figures)
            tell(cell, figures)
        return [replace(cell, figures=found[(cell.layer, cell.candidate)]) for cell in cells]

    def _base(self, candidate: Candidate, needed: bool, report: Report) -> None:
        encodings = self._schemes.base(candidate)
        if encodings is FLOAT:
            assert self.float_figures is not None
            self.bases[candidate] = self.float_figures
        else:
            self.bases[candidate] = self._figures(encodings, True, needed, report)

    def _figures(self, encodings: Encodings, keep: bool, needed: bool, report: Report) -> Figures:
        """Return the figures of a base; where cells are still to be measured its values are computed and kept too."""
        key = self.key(content(encodings))
        figures = None if needed else self.book.figures(key)
        if figures is None:
            figures = self._evaluate(encodings, keep, report)
            self._learn(key, figures)
        return figures

    def _evaluate(self, encodings: Encodings, keep: bool, report: Report) -> Figures:
        if self._float_scores is None:
            keeps = self._schemes.mode == "enable"
            self._float_scores = self._evaluator.scores(FLOAT, keep=keeps, report=report)
        if encodings is FLOAT:
            return figures_of(self.network, self._float_scores, self.split, self.indices, self._float_scores)
        scores = self._evaluator.scores(encodings, keep=keep, report=report)
        return figures_of(self.network, scores, self.split, self.indices, self._float_scores)

    def _learn(self, key: str, figures: Figures) -> None:
        self.book.put_figures(key, figures)
        if time.monotonic() - self._saved > _SAVE_S:
            self.book.save()
            self._saved = time.monotonic()

    def _report(self, step: int, steps: int, note: str) -> Report:
        return lambda done, total: self.ctx.report(
            0.05 + 0.95 * (step + done / max(total, 1)) / steps, 1.0, f"Measuring {note}"
        )


def figures_of(
    network: Network,
    scores: NDArray[np.floating],
    split: Split,
    indices: NDArray[np.int64],
    float_scores: NDArray[np.floating],
) -> Figures:
    """Return the figures of [N, K] scores beside the float model's.

    Raises:
        UserError: There are no samples.
    """
    metrics = metrics_of(network, scores, split, indices, float_scores)
    classes = network.gives_class_scores and scores.shape[1] > 1
    return Figures(
        samples=metrics.samples,
        agreement=100.0 if metrics.agreement is None else metrics.agreement,
        sqnr_db=sqnr_db(float_scores, scores),
        kl=kl_divergence(float_scores, scores) if classes else None,
        top1=metrics.top1,
        top1_interval=None if metrics.top1 is None else metrics.top1_interval,
        loss=metrics.loss,
    )
