"""Which panels the window has and where each stands: the one table that the workspace is made from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from PySide6.QtWidgets import QWidget

from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge

Area = Literal["graph", "tabs", "beside", "explore", "tune", "compare", "compare-left", "bottom"]
"""Where a panel stands.

"graph": left of everything in Explore where there is room, else a tab. "tabs": a tab of Explore and Tune. "beside": at
the right of the tab that names it. "explore", "tune", "compare": at the right of that perspective. "compare-left": at
the left of Compare. "bottom": below everything in Tune.
"""


@dataclass(frozen=True)
class PanelSpec:
    """One panel: a class that is made with (session, bridge)."""

    id: str
    title: str
    area: Area
    factory: str
    """"package.module:Class", imported when the panel is built."""
    beside: str = ""
    """Of a tab: id of the panel at its right; "-" = the tab takes the whole width; empty = what the perspective
    shows."""
    help: str = ""
    """Tooltip of the tab."""
    only: str = ""
    """Of a tab: the perspective that has it; empty = Explore and Tune."""

    def build(self, session: Session, bridge: SessionBridge) -> QWidget:
        """Import and make the panel (ImportError, AttributeError)."""
        module, _, name = self.factory.partition(":")
        panel: QWidget = getattr(import_module(module), name)(session, bridge)
        return panel


P = PanelSpec

PANELS: tuple[PanelSpec, ...] = (
    P("layer_table", "Layers", "tabs", "qstudio.ui.table.layer_table:LayerTable"),
    P("graph", "Graph", "graph", "qstudio.ui.graph.panel:GraphPanel", help="The network, coloured by a figure"),
    P(
        "findings",
        "Findings",
        "tabs",
        "qstudio.ui.findings.panel:FindingsPanel",
        help="What hurts, why, and what to do about it; and a diagnosis step by step",
        only="explore",
    ),
    P(
        "overview",
        "Overview",
        "tabs",
        "qstudio.ui.overview.panel:OverviewPanel",
        help="Ranges and noise of all layers",
        only="explore",
    ),
    P(
        "sensitivity",
        "Sensitivity",
        "tabs",
        "qstudio.ui.sensitivity.panel:SensitivityPanel",
        help="Which layers hurt: each width tried on each layer",
    ),
    P(
        "bits",
        "Bits",
        "tabs",
        "qstudio.ui.search.bits_panel:BitsPanel",
        help="Bits of every layer, to be painted over",
        only="tune",
    ),
    P(
        "search",
        "Search",
        "tabs",
        "qstudio.ui.search.panel:SearchPanel",
        help="The best bits for each layer under limits",
        only="tune",
    ),
    P(
        "refinements",
        "Refinements",
        "tabs",
        "qstudio.ui.refinements.panel:RefinementsPanel",
        help="What is done to the network so that rounding costs less",
        only="tune",
    ),
    P(
        "training_panel",
        "Training",
        "tabs",
        "qstudio.ui.training.panel:TrainingPanel",
        beside="curves",
        help="QAT: train on with quantizers in the network",
        only="tune",
    ),
    P(
        "data_panel",
        "Data",
        "tabs",
        "qstudio.ui.data.data_panel:DataPanel",
        beside="-",
        help="The samples as stored and as the network sees them, and how they are read",
        only="explore",
    ),
    P("inspector", "Inspector", "explore", "qstudio.ui.inspector.panel:InspectorPanel"),
    P("chart", "Chart", "tune", "qstudio.ui.runs.run_chart:RunChart"),
    P("detail", "Selected run", "tune", "qstudio.ui.runs.run_detail:RunDetail"),
    P("compared_runs", "Timeline", "compare-left", "qstudio.ui.compare.runs_panel:ComparedRunsPanel"),
    P(
        "difference",
        "Difference",
        "compare",
        "qstudio.ui.compare.difference_panel:DifferencePanel",
        help="Figures, options and layers in which two runs differ",
    ),
    P(
        "flips",
        "Flips",
        "compare",
        "qstudio.ui.compare.flips_panel:FlipsPanel",
        help="Samples whose answer changed, and which classes are confused more often",
    ),
    P(
        "latency",
        "Latency",
        "compare",
        "qstudio.ui.compare.latency_panel:LatencyPanel",
        help="What was timed how, and why it is not faster",
    ),
    P("compare_detail", "Selected run", "compare", "qstudio.ui.runs.run_detail:RunDetail"),
    P("runs_table", "Runs", "bottom", "qstudio.ui.runs.runs_table:RunsTable"),
    P("curves", "Curves", "beside", "qstudio.ui.training.curves:TrainingCurves"),
)
"""In the order in which tabs stand; the layers are built first, the others once the window is shown."""

PERSPECTIVES = tuple(name for name in ("explore", "tune", "compare") if any(spec.area == name for spec in PANELS))
"""Arrangements of the panels, in the order of their buttons."""
