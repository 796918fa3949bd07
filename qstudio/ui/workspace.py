"""Where the panels stand: the perspectives are arrangements of the same widgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QSettings, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QSplitter, QStackedWidget, QTabWidget, QVBoxLayout, QWidget

from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.folding_group import FoldingGroup
from qstudio.ui.log_drawer import LogDrawer
from qstudio.ui.panels import PANELS, PERSPECTIVES, PanelSpec
from qstudio.ui.table.layer_table import LayerTable
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

if TYPE_CHECKING:
    from qstudio.ui.data.data_panel import DataPanel
    from qstudio.ui.inspector.panel import InspectorPanel
    from qstudio.ui.refinements.panel import RefinementsPanel
    from qstudio.ui.runs.run_chart import RunChart
    from qstudio.ui.runs.run_detail import RunDetail
    from qstudio.ui.runs.runs_table import RunsTable
    from qstudio.ui.training.curves import TrainingCurves
    from qstudio.ui.training.panel import TrainingPanel

SIDE_BY_SIDE_PX = 900
"""The panels of Tune stand beside each other from this width on, in tabs below it."""
GRAPH_BESIDE_PX = 1500
"""The graph stands beside the layers from this width of the window on, in a tab below it."""

LEFT_SHARE = {"explore": 0.54, "tune": 0.42, "compare": 0.4}
GRAPH_SHARE = 0.2
RUNS_SHARE = 0.24


def _place() -> QWidget:
    """Return a widget that a panel is put into later."""
    place = QWidget()
    layout = QVBoxLayout(place)
    layout.setContentsMargins(0, 0, 0, 0)
    return place


class Workspace(QWidget):
    """The panels of `PANELS`, each at its place; all but the layers are built once the window stands."""

    data_panel: DataPanel | None = None
    runs_table: RunsTable | None = None
    inspector: InspectorPanel | None = None
    chart: RunChart | None = None
    detail: RunDetail | None = None
    refinements: RefinementsPanel | None = None
    training_panel: TrainingPanel | None = None
    curves: TrainingCurves | None = None

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._bridge = bridge
        self.perspective = "explore"
        self._sizes: dict[str, tuple[QByteArray, QByteArray]] = {}
        self._arranged = False
        self._panels: dict[str, QWidget] = {}
        self._specs = {spec.id: spec for spec in PANELS}
        self._places = {spec.id: _place() for spec in PANELS}
        self._late = [spec for spec in PANELS if spec.id != "layer_table"]
        self.layer_table = LayerTable(session, bridge)
        self._fill("layer_table", self.layer_table)
        self.log = LogDrawer(bridge)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        for spec in self._of("tabs"):
            self.tabs.setTabToolTip(self.tabs.addTab(self._places[spec.id], tr(spec.title)), tr(spec.help))
        self._left = QStackedWidget()
        self._left.addWidget(self.tabs)
        self._groups = {
            area: self._group(area, SIDE_BY_SIDE_PX if area == "tune" else None)
            for area in ("explore", "tune", "compare", "compare-left")
        }
        self._left.addWidget(self._groups["compare-left"])
        self._right = QStackedWidget()
        for area in ("explore", "tune", "compare"):
            self._right.addWidget(self._groups[area])
        for spec in self._of("beside"):
            self._right.addWidget(self._places[spec.id])
        self._top = QSplitter(Qt.Orientation.Horizontal)
        self._graph_place = _place()
        for widget in (self._graph_place, self._left, self._right):
            self._top.addWidget(widget)
        self._below = _place()
        for spec in self._of("bottom"):
            self._put(self._below, self._places[spec.id])
        self._all = QSplitter(Qt.Orientation.Vertical)
        for widget in (self._top, self._below, self.log):
            self._all.addWidget(widget)
        for splitter in (self._top, self._all):
            splitter.setChildrenCollapsible(False)
        for number, share in enumerate((3, 1, 0)):
            self._all.setStretchFactor(number, share)
        self._graph_folded: bool | None = None
        self._fold_graph()
        self._show_tabs()
        self.tabs.currentChanged.connect(self._on_tab_changed)
        self._below.hide()
        self.log.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._all)

    # ---- building

    def _of(self, area: str) -> list[PanelSpec]:
        return [spec for spec in PANELS if spec.area == area]

    def _group(self, area: str, side_by_side_px: int | None) -> FoldingGroup:
        panels = [(tr(spec.title), tr(spec.help), self._places[spec.id]) for spec in self._of(area)]
        return FoldingGroup(panels, side_by_side_px)

    @staticmethod
    def _put(place: QWidget, panel: QWidget) -> None:
        layout = place.layout()
        if layout is not None:
            layout.addWidget(panel)

    def _fill(self, name: str, panel: QWidget) -> None:
        self._panels[name] = panel
        self._put(self._places[name], panel)

    @property
    def is_waiting(self) -> bool:
        """Whether there are panels to build."""
        return bool(self._late)

    def build_next(self) -> bool:
        """Build one of the panels that the first picture does not need; return whether there are more."""
        if self._late:
            spec = self._late.pop(0)
            panel = spec.build(self._session, self._bridge)
            self._fill(spec.id, panel)
            if spec.id in Workspace.__annotations__:
                setattr(self, spec.id, panel)
        return bool(self._late)

    def build_all(self) -> None:
        """Build every panel now."""
        while self.build_next():
            pass

    def panel(self, name: str) -> QWidget | None:
        """Return a panel by its id in `PANELS`; None where it is not built yet."""
        return self._panels.get(name)

    # ---- showing

    def show_panel(self, name: str) -> None:
        """Bring a panel to the front, in a perspective that has it (KeyError when there is no such panel)."""
        if name not in self._panels:
            self.build_all()
        area = self._specs[name].area
        if area in PERSPECTIVES:
            self.show_perspective(area)
            self._groups[area].show_panel(self._places[name])
        elif area == "compare-left":
            self.show_perspective("compare")
            self._groups[area].show_panel(self._places[name])
        elif area == "bottom":
            self.show_perspective("tune")
        elif area == "beside":
            self.show_panel(next(spec.id for spec in PANELS if spec.beside == name))
        elif area in ("tabs", "graph"):
            only = self._specs[name].only
            if self.perspective == "compare" or only not in ("", self.perspective):
                self.show_perspective(only or "explore")
            if self.tabs.indexOf(self._places[name]) >= 0:
                self.tabs.setCurrentWidget(self._places[name])

    def is_shown(self, name: str) -> bool:
        """Return whether a panel can be seen now."""
        return self._places[name].isVisible()

    def _on_tab_changed(self, _index: int) -> None:
        self._show_right()

    def _show_tabs(self) -> None:
        """Show the tabs of the perspective; Compare has none of them."""
        for spec in self._of("tabs"):
            here = spec.only in ("", self.perspective)
            self.tabs.setTabVisible(self.tabs.indexOf(self._places[spec.id]), here)

    def _show_right(self) -> None:
        """Show at the right what belongs to the perspective or to the tab."""
        compare = self.perspective == "compare"
        self._left.setCurrentWidget(self._groups["compare-left"] if compare else self.tabs)
        current = self.tabs.currentWidget()
        beside = next((spec.beside for spec in self._of("tabs") if self._places[spec.id] is current), "")
        if compare:
            beside = ""
        self._right.setVisible(beside != "-")
        named = self._places.get(beside)
        self._right.setCurrentWidget(named if named is not None else self._groups[self.perspective])

    def show_perspective(self, name: str) -> None:
        """Arrange the panels for a perspective; each keeps the sizes it was given."""
        # Charts and inspector stand beside the layers only: who asks for a perspective wants to see them.
        self.tabs.setCurrentWidget(self._places["layer_table"])
        if name == self.perspective or name not in PERSPECTIVES:
            return
        self._keep_sizes()
        self.perspective = name
        self._show_tabs()
        self._fold_graph()
        self._show_right()
        self._below.setVisible(name == "tune")
        self._restore_sizes()

    # ---- the graph's place

    def _fold_graph(self) -> None:
        """Put the graph beside the layers where there is room, else into a tab after them."""
        specs = self._of("graph")
        folded = not specs or self.perspective != "explore" or self.width() < theme().px(GRAPH_BESIDE_PX)
        if folded == self._graph_folded:
            return
        self._graph_folded = folded
        for spec in specs:
            place = self._places[spec.id]
            if folded:
                current = self.tabs.currentWidget()
                self.tabs.setTabToolTip(self.tabs.insertTab(1, place, tr(spec.title)), tr(spec.help))
                self.tabs.setCurrentWidget(current)
            else:
                self._put(self._graph_place, place)
                place.show()
        self._graph_place.setVisible(not folded)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Move the graph when there is room for it, or no more."""
        super().resizeEvent(event)
        before = self._graph_folded
        self._fold_graph()
        if before != self._graph_folded and self._arranged:
            self._spread()

    # ---- sizes

    def _key(self) -> str:
        return self.perspective if self._graph_folded else f"{self.perspective}-graph"

    def _keep_sizes(self) -> None:
        if self._arranged:
            self._sizes[self._key()] = (self._top.saveState(), self._all.saveState())

    def _restore_sizes(self) -> None:
        kept = self._sizes.get(self._key())
        if kept is not None and self._top.restoreState(kept[0]) and self._all.restoreState(kept[1]):
            return
        self._spread()

    def _spread(self) -> None:
        """Give the panels their usual shares of the window."""
        width, height = max(self.width(), 400), max(self.height(), 300)
        graph = 0 if self._graph_folded else round(width * GRAPH_SHARE)
        left = round((width - graph) * LEFT_SHARE[self.perspective])
        self._top.setSizes([graph, left, width - graph - left])
        runs = round(height * RUNS_SHARE) if self.perspective == "tune" else 0
        log = theme().px(140) if self.log.isVisible() else 0
        self._all.setSizes([height - runs - log, runs, log])

    def showEvent(self, event: object) -> None:
        """Arrange the panels once their room is known."""
        super().showEvent(event)  # type: ignore[arg-type]
        if not self._arranged:
            self._arranged = True
            self._restore_sizes()

    def reset_layout(self) -> None:
        """Forget all sizes and columns."""
        self._sizes.clear()
        self.layer_table.view.choose_columns(None)
        self.log.hide()
        self._spread()

    def toggle_log(self) -> None:
        """Show or hide the log."""
        self.log.setVisible(not self.log.isVisible())
        if self.log.isVisible() and self._all.sizes()[2] < theme().px(80):
            sizes = self._all.sizes()
            self._all.setSizes([sizes[0] - theme().px(140), sizes[1], theme().px(140)])

    def save(self, store: QSettings) -> None:
        """Write sizes and columns."""
        self._keep_sizes()
        for name, (top, whole) in self._sizes.items():
            store.setValue(f"sizes/{name}/top", top)
            store.setValue(f"sizes/{name}/all", whole)
        chosen = self.layer_table.view.chosen_columns
        store.setValue("columns", ",".join(chosen) if chosen is not None else "")

    def load(self, store: QSettings) -> None:
        """Read sizes and columns."""
        for name in (*PERSPECTIVES, "explore-graph"):
            top, whole = store.value(f"sizes/{name}/top"), store.value(f"sizes/{name}/all")
            if isinstance(top, QByteArray) and isinstance(whole, QByteArray):
                self._sizes[name] = (top, whole)
        columns = str(store.value("columns", "") or "")
        self.layer_table.view.choose_columns(tuple(columns.split(",")) if columns else None)
        if self._arranged:
            self._restore_sizes()
