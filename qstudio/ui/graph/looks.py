"""What each node says under the present recipe and metric: bits, figure, colour, tooltip, row of the table."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable

import numpy as np

from qstudio.core.formats import scheme_text
from qstudio.core.model_info import LayerInfo, ModelInfo
from qstudio.core.scheme import FLOAT_BITS
from qstudio.session.graph_metrics import METRIC, METRICS, Figure, GraphFigures
from qstudio.session.graph_view import BLOCK, GraphItem
from qstudio.session.session import Session
from qstudio.ui.graph.colors import PLAIN, ColorScale, full_text, make_scale
from qstudio.ui.graph.drawing import Drawing
from qstudio.ui.table.cells import sqnr_grade
from qstudio.ui.table.choices import not_applicable
from qstudio.ui.text import format_count, format_large, tr

MARKS = {"worse": "■ ", "watch": "▲ ", "": ""}
"""Before an SQNR, as in the table: square = under 20 dB, triangle = under 30 dB."""
NODES_PER_STEP = 128
"""Nodes written between two chances to stop."""
NOISE_STEPS_DB = (40.0, 30.0, 20.0, 10.0)
"""An edge is one class thicker below each of these SQNRs."""


def bits_text(letter: str, bits: Iterable[int | None]) -> str:
    """Return "W4", "Af" for float, "W4–8" for several; empty where there are none."""
    known = sorted({width for width in bits if width is not None})
    if not known:
        return ""
    words = ["f" if width == FLOAT_BITS else str(width) for width in (known[0], known[-1])]
    return f"{letter}{words[0]}" if len(known) == 1 else f"{letter}{words[0]}–{words[1]}"


class Dresser:
    """Gives the nodes of a drawing their looks."""

    def __init__(self, session: Session, figures: GraphFigures) -> None:
        self._session = session
        self._figures = figures
        self.metric = METRICS[0].id
        self.scale: ColorScale | None = None
        self._values = np.zeros(0)
        self._widened: tuple[Drawing | None, object] = (None, None)

    def layers_of(self, item: GraphItem) -> tuple[LayerInfo, ...]:
        """Return the layers an item stands for."""
        model = self._session.model
        return tuple(model.layer(name) for name in item.layers) if model is not None else ()

    @property
    def known(self) -> bool:
        """Whether any node has a figure."""
        return not bool(np.isnan(self._values).all())

    # ---- looks

    def dress(self, drawing: Drawing, layers: Iterable[str] | None = None) -> None:
        """Make the looks of the nodes of some layers anew; None = of all."""
        if layers is None or len(self._values) != len(drawing.view.items):
            for _ in self.dress_steps(drawing):
                pass
            return
        nodes = {drawing.of_layer[name] for name in layers if name in drawing.of_layer}
        self._write(drawing, nodes)
        self._color(drawing)

    def dress_steps(self, drawing: Drawing) -> Generator[None, None, None]:
        """Make all looks anew in short steps, so that a window stays alive meanwhile."""
        count = len(drawing.view.items)
        self._values = np.full(count, np.nan)
        for first in range(0, count, NODES_PER_STEP):
            self._write(drawing, range(first, min(first + NODES_PER_STEP, count)))
            yield
        self._color(drawing)

    def _write(self, drawing: Drawing, nodes: Iterable[int]) -> None:
        """Write bits and figures of nodes."""
        overrides = dict(self._session.recipe.overrides)
        chosen = list(nodes)
        for node in chosen:
            look, own = drawing.looks[node], self.layers_of(drawing.view.items[node])
            widths = [self._figures.bits(layer) for layer in own]
            look.weight = bits_text("W", (weight for weight, _ in widths))
            look.activation = bits_text("A", (activation for _, activation in widths))
            fields = [dict(overrides.get(layer.name, ())) for layer in own]
            look.weight_set = any("weight_bits" in values for values in fields)
            look.activation_set = any("activation_bits" in values for values in fields)
        self._measure(drawing, chosen)

    def _measure(self, drawing: Drawing, nodes: Iterable[int]) -> None:
        """Write the figures of nodes."""
        unit = self._figures.unit(self.metric)
        for node in nodes:
            look = drawing.looks[node]
            figure = self.figure(drawing.view.items[node])
            self._values[node] = math.nan if figure is None else figure.value
            look.value = ""
            if figure is not None:
                mark = MARKS[sqnr_grade(figure.value)] if unit == "dB" else ""
                look.value = mark + full_text(figure, unit)

    def figure(self, item: GraphItem, metric: str = "") -> Figure | None:
        """Return an item's figure: a layer's own, a block's worst or sum."""
        own = self.layers_of(item)
        metric = metric or self.metric
        if not own or metric == "none":
            return None
        return self._figures.figure(metric, own[0]) if len(own) == 1 else self._figures.together(metric, own)

    def _color(self, drawing: Drawing) -> None:
        spec = METRIC[self.metric]
        values = self._values.copy()
        if self.metric in ("weight_bits", "activation_bits"):
            values[values == FLOAT_BITS] = np.nan  # a float layer is not quantized to 32 bits
        self.scale = None
        if self.metric != "none":
            self.scale = make_scale(values, spec.bounds, self._figures.worse(self.metric), spec.log)
        if self.scale is None:
            drawing.colors[:] = PLAIN
            return
        drawing.colors[:] = self.scale.steps(values)

    def widen(self, drawing: Drawing) -> None:
        """Give each edge the width of the noise it carries, unless nothing else is known than before."""
        source = (drawing, self._figures.depth)
        if source[0] is self._widened[0] and source[1] is self._widened[1]:
            return
        self._widened = source
        classes = np.zeros(len(drawing.view.edges), np.int64)
        for edge, layer in enumerate(drawing.view.carriers):
            noise = self._figures.noise(layer) if layer else None
            if noise is not None:
                classes[edge] = sum(noise.accumulated_sqnr_db < limit for limit in NOISE_STEPS_DB)
        drawing.widths[:] = classes

    # ---- words

    def tooltip(self, item: GraphItem) -> str:
        """Return everything about a node in a few lines."""
        own = self.layers_of(item)
        head = item.title
        if item.type == BLOCK:
            lines = [f"{head}: {item.nodes} {tr('nodes')}, {len(own)} {tr('layers')}", ", ".join(_names(own))]
        else:
            lines = [head, f"{item.type} {item.detail}".rstrip()]
        if len(own) == 1:
            lines += self._layer_lines(own[0])
        elif own:
            lines.append(f"{format_count(sum(layer.parameters for layer in own))} {tr('parameters')}")
            lines.append(f"{format_large(sum(layer.macs for layer in own))} {tr('MACs')}")
        unit = self._figures.unit(self.metric)
        figure = self.figure(item)
        if figure is not None and self.metric not in ("weight_bits", "activation_bits"):
            how = f" ({tr('worst of the block')})" if len(own) > 1 and not METRIC[self.metric].sums else ""
            lines.append(f"{tr(METRIC[self.metric].title)}{how}: {full_text(figure, unit)}")
        if item.type == BLOCK:
            lines.append(tr("Double-click or Enter opens the block."))
        return "\n".join(lines)

    def _layer_lines(self, layer: LayerInfo) -> list[str]:
        lines = []
        if layer.unsupported:
            return [layer.unsupported]
        if layer.weight is not None and layer.weight.id != f"{layer.name}.weight":
            lines.append(f"{tr('Weight')}: {layer.weight.id}")
        site = layer.activation
        if site is not None and site.shape:
            shape = " x ".join("?" if size is None else str(size) for size in site.shape)
            lines.append(f"{tr('Output shape')}: {shape}")
        if layer.parameters:
            lines.append(f"{format_count(layer.parameters)} {tr('parameters')}")
        if layer.macs:
            lines.append(f"{format_large(layer.macs)} {tr('MACs')}")
        settings = self._session.settings(layer.name)
        if layer.weight is not None:
            lines.append(f"{tr('Weights')}: {scheme_text(settings.weight_scheme())}")
        reason = not_applicable(layer, "activation_bits")
        lines.append(f"{tr('Output')}: {reason or scheme_text(settings.activation_scheme())}")
        for metric in ("weight_sqnr", "accumulated"):
            figure = self._figures.figure(metric, layer)
            if figure is not None and metric != self.metric:
                lines.append(f"{tr(METRIC[metric].title)}: {full_text(figure, 'dB')}")
        return lines

    def columns(self, drawing: Drawing, model: ModelInfo) -> tuple[tuple[str, list[object]], ...]:
        """Return one row for each layer of the model: what it is, its bits, and the metric."""
        unit = self._figures.unit(self.metric)
        title = tr(METRIC[self.metric].title) + (f", {unit}" if unit else "")
        rows = []
        for layer in model.layers:
            node = drawing.of_layer.get(layer.name)
            block = drawing.view.items[node].block if node is not None else ""
            weight, activation = self._figures.bits(layer)
            figure = None if self.metric == "none" else self._figures.figure(self.metric, layer)
            noise = self._figures.noise(layer.name)
            rows.append(
                (
                    layer.name,
                    layer.op_type,
                    layer.title,
                    block.removeprefix("block "),
                    layer.parameters,
                    layer.macs,
                    "" if weight is None else "float" if weight == FLOAT_BITS else weight,
                    "" if activation is None else "float" if activation == FLOAT_BITS else activation,
                    "" if figure is None else f"{figure.value:.6g}",
                    "" if noise is None else f"{noise.accumulated:.6g}",
                )
            )
        first = ("layer", "type", "shape", "block", "parameters", "macs", "weight_bits", "activation_bits")
        heads = (*first, title, tr("noise power at the output"))
        return tuple((head, [row[place] for row in rows]) for place, head in enumerate(heads))


def _names(layers: tuple[LayerInfo, ...]) -> list[str]:
    names = [layer.name for layer in layers[:6]]
    return [*names, f"… {len(layers) - 6} {tr('more')}"] if len(layers) > 6 else names
