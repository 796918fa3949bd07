"""Figures of a run that can be plotted against each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qstudio.core.bit_operations import Settings, average_bits, bit_operations
from qstudio.core.model_info import ModelInfo
from qstudio.session.options import Run
from qstudio.ui.runs.figures import best_metrics, drop, rate
from qstudio.ui.text import NO_VALUE, format_bytes, format_large, format_ms, format_percent, format_points, tr


@dataclass(frozen=True)
class RunFigure:
    """One figure: what it is called, what is good, and how it is read off a run."""

    id: str
    title: str
    unit: str
    help: str
    """What it is and what a good value is."""
    value: Callable[[Run], float | None]
    text: Callable[[float | None], str]
    per_unit: float = 1.0
    """What a value is divided by on an axis: 1024 for bytes shown in KB."""
    better: int = 0
    """1 where more is better, -1 where less is, 0 where neither."""

    @property
    def axis(self) -> str:
        """The axis label with its unit."""
        return f"{tr(self.title)}, {self.unit}" if self.unit else tr(self.title)


def _size(run: Run, name: str) -> float | None:
    sizes = run.result.size_bytes if run.result else None
    value = getattr(sizes, name) if sizes is not None else None
    return None if value is None else float(value)


def _latency(run: Run) -> float | None:
    pair = run.result.latency_ms if run.result else None
    return None if pair is None else pair.exported.median


def _speed_up(run: Run) -> float | None:
    pair = run.result.latency_ms if run.result else None
    return None if pair is None or not pair.exported.median else pair.float.median / pair.exported.median


def _metric(name: str) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        metrics = best_metrics(run.result)
        return None if metrics is None else getattr(metrics, name)

    return value


def _mean_sqnr(run: Run) -> float | None:
    values = [layer.sqnr_db for layer in run.result.layers] if run.result else []
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _epochs(run: Run) -> float | None:
    return float(run.training.epochs_done) if run.training is not None else 0.0


def _plain(digits: int, unit: str = "") -> Callable[[float | None], str]:
    def text(value: float | None) -> str:
        return NO_VALUE if value is None else f"{value:,.{digits}f}{unit}"

    return text


class BitCosts:
    """Average bits and bit operations of runs of the open model; each recipe is counted once."""

    def __init__(self) -> None:
        self._model: ModelInfo | None = None
        self._known: dict[tuple[str, str], float] = {}

    def follow(self, model: ModelInfo | None) -> None:
        """Count for this model; figures of another one are forgotten."""
        if model is not self._model:
            self._model = model
            self._known.clear()

    def average_bits(self, run: Run) -> float | None:
        """Return the mean bits of the weights; None for another model than the open one."""
        return self._counted("bits", run, average_bits)

    def operations(self, run: Run) -> float | None:
        """Return the bit operations of one sample; None for another model than the open one."""
        return self._counted("operations", run, bit_operations)

    def _counted(self, what: str, run: Run, count: Callable[[ModelInfo, Settings], float | None]) -> float | None:
        model = self._model
        if model is None or run.request is None or run.model_sha256 != model.sha256:
            return None
        key = (what, run.recipe_hash)
        if key not in self._known:
            self._known[key] = count(model, run.request.recipe.settings) or 0.0
        return self._known[key]


def run_figures(costs: BitCosts) -> tuple[RunFigure, ...]:
    """Return all figures, in the order in which they are offered."""
    points: Callable[[float | None], str] = format_points
    return (
        RunFigure(
            "accuracy",
            "accuracy",
            "%",
            "Top-1 of the exported file (of the simulation where there is none; agreement without labels). More is "
            "better.",
            lambda run: rate(best_metrics(run.result)),
            format_percent,
            better=1,
        ),
        RunFigure(
            "drop",
            "difference to float",
            "points",
            "Top-1 minus that of the float network. 0 and more is good.",
            lambda run: drop(run.result),
            points,
            better=1,
        ),
        RunFigure(
            "agreement",
            "agreement",
            "%",
            "Share of samples with float's answer. 99 and more is good.",
            _metric("agreement"),
            format_percent,
            better=1,
        ),
        RunFigure(
            "loss",
            "loss",
            "nats",
            "Mean cross entropy of the answers. Less is better.",
            _metric("loss"),
            _plain(4),
            better=-1,
        ),
        RunFigure(
            "size",
            "size",
            "KB",
            "Packed codes, scales, zero points and what stays float. Less is better.",
            lambda run: _size(run, "quantized"),
            format_bytes,
            1024.0,
            -1,
        ),
        RunFigure(
            "file",
            "file",
            "KB",
            "The exported file on disk. Less is better.",
            lambda run: _size(run, "file"),
            format_bytes,
            1024.0,
            -1,
        ),
        RunFigure(
            "sparse",
            "size without zeros",
            "KB",
            "The packed size if zeros of pruned weights were left out; only of runs that prune single weights.",
            lambda run: _size(run, "sparse"),
            format_bytes,
            1024.0,
            -1,
        ),
        RunFigure(
            "sparsity",
            "sparsity",
            "%",
            "Share of weights that pruning removed or left zero; only of runs that prune.",
            lambda run: run.result.sparsity if run.result else None,
            format_percent,
        ),
        RunFigure(
            "latency",
            "latency",
            "ms",
            "Median time of one inference of the exported file, measured here. Less is better.",
            _latency,
            format_ms,
            better=-1,
        ),
        RunFigure(
            "speed_up",
            "speed-up",
            "x",
            "Float latency over exported latency, measured in turns. Above 1 is faster than float.",
            _speed_up,
            _plain(2, "x"),
            better=1,
        ),
        RunFigure(
            "bits",
            "average weight bits",
            "bits",
            "Mean over all weights, those in float counted with 32. Less is smaller.",
            costs.average_bits,
            _plain(2),
            better=-1,
        ),
        RunFigure(
            "bops",
            "bit operations",
            "G",
            "Multiply-accumulates times weight bits times activation bits, of one sample (HAWQ-V3). Less is less work.",
            costs.operations,
            format_large,
            1e9,
            -1,
        ),
        RunFigure(
            "sqnr",
            "mean SQNR",
            "dB",
            "Mean over layers of the output's signal to noise, everything quantized. 30 and more is good.",
            _mean_sqnr,
            _plain(1, " dB"),
            better=1,
        ),
        RunFigure(
            "seconds",
            "run time",
            "s",
            "How long the run took.",
            lambda run: run.result.seconds if run.result else None,
            _plain(1, " s"),
            better=-1,
        ),
        RunFigure("epochs", "epochs", "", "Epochs trained; 0 after PTQ.", _epochs, _plain(0)),
        RunFigure("number", "run", "", "Number of the run, in the order of time.", lambda r: float(r.id), _plain(0)),
    )
