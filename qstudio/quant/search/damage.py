"""How much a change of bits hurts: measured on samples with everything else float, and known by content afterwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.sensitivity import Figures
from qstudio.data.dataset import Split
from qstudio.quant.encodings import Encodings
from qstudio.quant.evaluation.cells import CellBook
from qstudio.quant.evaluation.hessian import PROBES, hessian_traces
from qstudio.quant.evaluation.keys import digest
from qstudio.quant.evaluation.schemes import content
from qstudio.quant.evaluation.sweep import figures_of
from qstudio.quant.evaluator import FLOAT, CachedEvaluator
from qstudio.quant.network import Network
from qstudio.quant.simulate import SimulatedModel

Check = Callable[[], None]


class DamageMeter:
    """Measures or predicts damage on fixed samples.

    Args:
        network: The prepared float model.
        split: Where the samples are.
        indices: Which samples.
        key: From `qstudio.quant.keep.samples_key`.
        measure: Of `qstudio.core.search_settings.DAMAGES`.
        book: Where figures are found and kept.
        seed: Of the Hessian's probes.

    Raises:
        UserError: The measure needs labels, or class scores, that are not there.
    """

    def __init__(
        self,
        network: Network,
        split: Split,
        indices: NDArray[np.int64],
        key: str,
        measure: str,
        book: CellBook,
        seed: int = 0,
    ) -> None:
        check_measure(network, split.labels is not None, measure)
        self.network, self.split, self.indices = network, split, indices
        self.measure, self.book, self.seed = measure, book, seed
        self.computed = 0
        """Evaluations that were run; the others were known."""
        self._place = (network.sha256, key, (network.device, torch.__version__, torch.get_num_threads()))
        self._evaluator = CachedEvaluator(network, split, indices)
        self._traces: dict[str, float] = {}

    def damage(self, encodings: Encodings, check: Check) -> float:
        """Return the damage of encodings.

        Args:
            encodings: Sites that are absent stay float.
            check: Called between batches; raises to stop.
        """
        if self.measure == "hessian":
            return self._predicted(encodings, check)
        return damage_from(self.measure, self._figures(encodings, check), self._figures(FLOAT, check))

    def _figures(self, encodings: Encodings, check: Check) -> Figures:
        key = self._key(content(encodings))
        known = self.book.figures(key)
        if known is None:
            reference = self._evaluator.float_scores(report=lambda done, total: check())
            scores = self._evaluator.scores(encodings, keep=False, report=lambda done, total: check())
            known = figures_of(self.network, scores, self.split, self.indices, reference)
            self.book.put_figures(key, known)
            self.computed += 1
        return known

    def _predicted(self, encodings: Encodings, check: Check) -> float:
        """Return the sum over weights of Tr(H) / n x ||Q(W) - W||^2; activations count as nothing."""
        if not encodings.weights and not encodings.others:
            return 0.0
        if not self._traces:
            self._traces = self._mean_traces(check)
        model = SimulatedModel(self.network, encodings)
        total = 0.0
        for site in self.network.weight_sites:
            if site.id in encodings.weights or site.id in encodings.others:
                error = model.rounded_weight(site.id).astype(np.float64) - model.float_value(site.id)
                total += self._traces[site.id] * float(np.square(error).sum())
        return total

    def _mean_traces(self, check: Check) -> dict[str, float]:
        sites = self.network.weight_sites
        keys = {site.id: self._key("trace", site.id, len(self.indices), PROBES, self.seed) for site in sites}
        known = {site.id: self.book.trace(keys[site.id]) for site in sites}
        if any(trace is None for trace in known.values()):
            found = hessian_traces(
                self.network,
                sites,
                self.split,
                self.indices,
                seed=self.seed,
                report=lambda done, total: check(),
            )
            for name, trace in found.items():
                self.book.put_trace(keys[name], trace)
            self.computed += 1
            known = {**found}
        return {name: trace.trace / trace.parameters for name, trace in known.items() if trace is not None}

    def _key(self, *parts: object) -> str:
        sha256, key, place = self._place
        return digest((sha256, key, place, parts)).hex()


def check_measure(network: Network, has_labels: bool, measure: str) -> None:
    """Refuse a measure that cannot be taken.

    Raises:
        UserError: There are no labels, or the output is not class scores.
    """
    if measure in ("kl", "loss", "agreement") and not network.gives_class_scores:
        raise UserError("the model's output is not one row of class scores", f"damage {measure}", "Choose sqnr")
    if measure == "loss" and not has_labels:
        raise UserError("the calibration data have no labels", "damage loss", "Choose kl, agreement or sqnr")


def damage_from(measure: str, figures: Figures, reference: Figures) -> float:
    """Return the damage that figures stand for; predictions by the Hessian are judged by the divergence.

    Args:
        measure: Of `qstudio.core.search_settings.DAMAGES`.
        figures: Of the quantized network.
        reference: Of the float model on the same samples.
    """
    if measure == "agreement":
        return 100.0 - figures.agreement
    if measure == "loss" and figures.loss is not None and reference.loss is not None:
        return figures.loss - reference.loss
    if measure in ("kl", "hessian") and figures.kl is not None:
        return figures.kl
    return float(10.0 ** (-figures.sqnr_db / 10.0))
