"""What the nodes of the graph are coloured by: each layer's figure under the present recipe. No Qt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from qstudio.core.inspection import DepthErrors, LayerNoise
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.core.scheme import FLOAT_BITS, Scheme
from qstudio.core.sensitivity import MEASURES, Candidate, SensitivityResult
from qstudio.core.size import layer_bytes
from qstudio.session.readout import inspect
from qstudio.session.session import Session

Worse = Literal["low", "high", ""]
"""Which end of a metric is bad; empty where neither is."""


@dataclass(frozen=True)
class GraphMetric:
    """A figure by which layers are coloured."""

    id: str
    title: str
    unit: str
    help: str
    """What it is, and what is a good value."""
    worse: Worse = ""
    bounds: tuple[float, float] | None = None
    """Ends of the colour scale; None = the smallest and the largest figure of the model. Fixed ones let an edit cool
    its own node without moving the others."""
    log: bool = False
    """Whether colours follow the logarithm."""
    sums: bool = False
    """Whether a block shows the sum of its layers instead of the worst one."""


METRICS: tuple[GraphMetric, ...] = (
    GraphMetric(
        "weight_sqnr",
        "Weight SQNR",
        "dB",
        "Signal to quantization noise of the layer's weights, 10 log10(sum w^2 / sum (w - Q(w))^2), in dB; 6.02 dB for "
        "each bit. 30 and more is good, under 20 is bad. ~ = estimated from the histogram.",
        "low",
        (10.0, 50.0),
    ),
    GraphMetric(
        "accumulated",
        "Output SQNR, all quantized",
        "dB",
        "Signal to noise of the layer's output with everything quantized as the recipe says, in dB: the error that has "
        "accumulated down to here. 30 and more is good, under 20 is bad.",
        "low",
        (10.0, 50.0),
    ),
    GraphMetric(
        "isolated",
        "Output SQNR, this layer only",
        "dB",
        "Signal to noise of the layer's output with only this layer quantized, in dB: the error it makes itself. "
        "30 and more is good, under 20 is bad.",
        "low",
        (10.0, 50.0),
    ),
    GraphMetric(
        "downstream",
        "Contribution downstream",
        "dB",
        "Signal to noise of the model's output with only this layer quantized, in dB: what this layer costs the whole. "
        "The lowest figure is the layer to repair first.",
        "low",
        (10.0, 60.0),
    ),
    GraphMetric(
        "sensitivity",
        "Sensitivity",
        "",
        "Figure of the last sensitivity sweep, for the candidate with the fewest bits.",
        "high",
    ),
    GraphMetric(
        "share",
        "Size share",
        "%",
        "Share of the quantized model's bytes that the layer takes, in percent: where fewer bits save most.",
        sums=True,
    ),
    GraphMetric(
        "macs",
        "MACs",
        "",
        "Multiply-accumulates for one sample: where fewer bits can save most time. Colours are logarithmic.",
        log=True,
        sums=True,
    ),
    GraphMetric("weight_bits", "W bits", "bits", "Bits of each weight code.", bounds=(2.0, 8.0)),
    GraphMetric(
        "activation_bits", "A bits", "bits", "Bits of each code of the tensor the layer puts out.", bounds=(2.0, 8.0)
    ),
    GraphMetric("none", "No colour", "", "Nodes are not coloured."),
)

METRIC: dict[str, GraphMetric] = {metric.id: metric for metric in METRICS}
OF_DEPTH = frozenset({"accumulated", "isolated", "downstream"})
"""Metrics that the error over depth brings."""


@dataclass(frozen=True)
class Figure:
    """A layer's figure."""

    value: float
    """Infinite where there is no error at all."""
    estimated: bool = False
    """From histograms, not yet from the values themselves."""
    stale: bool = False
    """Of an earlier recipe; the present one's is on its way."""


class GraphFigures:
    """Figures of a session's layers; cheap ones at once, weight errors after `learn`."""

    def __init__(self, session: Session) -> None:
        self._session, self._depth, self._sweeps = session, session.preview, session.sensitivity
        self._weights: dict[str, tuple[Scheme, Figure | None]] = {}
        self._learnt: set[str] = set()
        """Layers whose weight error under the present recipe is known."""
        self._recipe = session.recipe
        self._bits: dict[str, tuple[int | None, int | None]] = {}
        self._own_bytes: dict[str, int] = {}
        self._total_bytes: int | None = None
        self._noise: tuple[DepthErrors | None, dict[str, LayerNoise]] = (None, {})
        self._swept: tuple[SensitivityResult | None, str, Candidate | None, dict[str, float]] = (None, "", None, {})

    def forget(self) -> None:
        """Forget everything; another model is shown, or its weights' statistics have come."""
        self._weights.clear()
        self._forget_settings()
        self._recipe = self._session.recipe

    def _forget_settings(self) -> None:
        self._learnt.clear()
        self._bits.clear()
        self._own_bytes.clear()
        self._total_bytes = None

    def follow(self, recipe: Recipe) -> frozenset[str] | None:
        """Turn to another recipe; return the layers whose settings it changes, None where it may be all."""
        before, self._recipe = self._recipe, recipe
        model = self._session.model
        if model is None or before.default != recipe.default or before.rules != recipe.rules:
            self._forget_settings()
            return None
        changed = frozenset(name for name, _ in set(before.overrides) ^ set(recipe.overrides))
        known = {layer.name for layer in model.layers} if changed else set()
        self._learnt -= changed
        for name in changed:
            self._bits.pop(name, None)
            old = self._own_bytes.pop(name, None)
            if self._total_bytes is None or name not in known:
                continue
            if old is None:
                self._total_bytes = None
            else:
                self._total_bytes += self._bytes_of(model.layer(name)) - old
        return changed

    # ---- one layer

    def figure(self, metric: str, layer: LayerInfo) -> Figure | None:
        """Return a layer's figure; None where it has none or it is not known yet."""
        if metric in OF_DEPTH:
            return self._of_depth(metric, layer.name)
        if metric == "weight_sqnr":
            return self._weight(layer)
        if metric == "sensitivity":
            value = self._sweep()[3].get(layer.name)
            return None if value is None else Figure(value, stale=bool(self._sweeps.stale))
        if metric == "share":
            if self._total_bytes is None:
                self._total_bytes = self._session.quantized_size_bytes()
            own = self._bytes_of(layer)
            return Figure(100.0 * own / self._total_bytes) if own and self._total_bytes else None
        if metric == "macs":
            return Figure(float(layer.macs)) if layer.macs else None
        if metric in ("weight_bits", "activation_bits"):
            bits = self.bits(layer)[0 if metric == "weight_bits" else 1]
            return None if bits is None else Figure(float(bits))
        return None

    def bits(self, layer: LayerInfo) -> tuple[int | None, int | None]:
        """Return the bits of a layer's weight and output as applied; None where it has none."""
        found = self._bits.get(layer.name)
        if found is None:
            settings = self._session.settings(layer.name)
            found = (
                settings.weight_scheme().bits if layer.weight is not None else None,
                settings.activation_scheme().bits if layer.activation is not None else None,
            )
            self._bits[layer.name] = found
        return found

    def _bytes_of(self, layer: LayerInfo) -> int:
        found = self._own_bytes.get(layer.name)
        if found is None:
            found = self._own_bytes[layer.name] = layer_bytes(layer, self._session.settings(layer.name))
        return found

    @property
    def depth(self) -> DepthErrors | None:
        """The error over depth of the present recipe, else the one known last."""
        return self._depth.depth or self._depth.latest_depth

    def noise(self, layer: str) -> LayerNoise | None:
        """Return the quantization noise at a layer's output as known last."""
        depth = self.depth
        if depth is not self._noise[0]:
            self._noise = (depth, {} if depth is None else {noise.layer: noise for noise in depth.layers})
        return self._noise[1].get(layer)

    def _of_depth(self, metric: str, layer: str) -> Figure | None:
        noise = self.noise(layer)
        if noise is None:
            return None
        value = {
            "accumulated": noise.accumulated_sqnr_db,
            "isolated": noise.isolated_sqnr_db,
            "downstream": noise.downstream_sqnr_db,
        }[metric]
        return None if value is None else Figure(value, stale=self._depth.depth is None)

    def _weight(self, layer: LayerInfo) -> Figure | None:
        if layer.weight is None:
            return None
        scheme = self._session.settings(layer.name).weight_scheme()
        if scheme.is_float:
            return None
        preview = self._session.previews.get(layer.name)
        if preview is not None and preview.scheme == scheme:
            return Figure(float(preview.sqnr_db))
        known = self._weights.get(layer.name)
        if known is None or known[1] is None:
            return None
        return known[1] if known[0] == scheme else Figure(known[1].value, True, True)

    def needs(self, layer: LayerInfo) -> bool:
        """Return whether `learn` would bring a weight error that is not known yet."""
        if layer.name in self._learnt or layer.weight is None or layer.unsupported:
            return False
        if layer.weight.id not in self._session.weight_statistics:
            return False
        if self.bits(layer)[0] != FLOAT_BITS:
            return True
        self._learnt.add(layer.name)
        return False

    def learn(self, layer: LayerInfo) -> None:
        """Estimate a layer's weight error under its present scheme (1 to 7 ms)."""
        readout = inspect(self._session, layer.name, "weight")
        figure = None if readout is None else Figure(float(readout.sqnr_db), readout.exact is None)
        self._learnt.add(layer.name)
        self._weights[layer.name] = (self._session.settings(layer.name).weight_scheme(), figure)

    # ---- the sweep

    def sweep_measure(self) -> str:
        """Return the measure of `MEASURES` that the sweep is coloured by; empty without a sweep."""
        return self._sweep()[1]

    def sweep_candidate(self) -> Candidate | None:
        """Return the candidate that the sweep is coloured by."""
        return self._sweep()[2]

    def _sweep(self) -> tuple[SensitivityResult | None, str, Candidate | None, dict[str, float]]:
        result = self._sweeps.result
        if result is not self._swept[0]:
            self._swept = (result, *_one_column(result))
        return self._swept

    # ---- many layers

    def together(self, metric: str, layers: Iterable[LayerInfo]) -> Figure | None:
        """Return the figure of a block: the worst of its layers, or their sum where that is what counts."""
        spec = METRIC[metric]
        found = [figure for layer in layers if (figure := self.figure(metric, layer)) is not None]
        if not found:
            return None
        values = [figure.value for figure in found]
        worse = self.worse(metric)
        value = sum(values) if spec.sums else max(values) if worse == "high" else min(values)
        return Figure(value, any(f.estimated for f in found), any(f.stale for f in found))

    def worse(self, metric: str) -> Worse:
        """Return which end of a metric is bad now: that of a sensitivity depends on its measure and mode."""
        if metric != "sensitivity":
            return METRIC[metric].worse
        result, measure, _, _ = self._sweep()
        if result is None or not measure:
            return "high"
        # Sparing one layer of a quantized network: the best figure names the layer that hurts.
        spares = result.mode == "disable" and measure != "hessian"
        return "high" if MEASURES[measure].high_is_bad != spares else "low"

    def unit(self, metric: str) -> str:
        """Return the unit of a metric's figures now."""
        if metric == "sensitivity":
            measure = self.sweep_measure()
            return MEASURES[measure].unit if measure else ""
        return METRIC[metric].unit

    def missing(self, metric: str) -> str:
        """Return why a metric has no figures at all, and what to do about it; empty when it has some or will have."""
        session = self._session
        if metric in OF_DEPTH and self._depth.depth is None and self._depth.latest_depth is None:
            return (session.run_blocked if session.dataset is None else "") or self._depth.depth_problem
        if metric == "sensitivity" and not self.sweep_measure():
            return "Not measured yet: run a sensitivity sweep"
        return ""


def _one_column(result: SensitivityResult | None) -> tuple[str, Candidate | None, dict[str, float]]:
    """Return the finest measure of a sweep, its candidate with the fewest bits, and the figures by layer."""
    if result is None or not result.cells:
        return "", None, {}

    def width(candidate: Candidate) -> float:
        widths = [bits for bits in (candidate.weight_bits, candidate.activation_bits) if bits is not None]
        return min((math.inf if bits == FLOAT_BITS else bits for bits in widths), default=math.inf)

    candidate = min(result.candidates, key=width)
    cells = [cell for cell in result.cells if cell.candidate == candidate]
    for measure in ("kl", "sqnr", "loss", "hessian", "agreement"):
        found = {cell.layer: value for cell in cells if (value := cell.value(measure)) is not None}
        if found:
            return measure, candidate, found
    return "", None, {}
