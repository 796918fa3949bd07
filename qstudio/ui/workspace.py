"""Where the panels stand: Explore and Tune are two arrangements of the same widgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QSettings, Qt
from PySide6.QtWidgets import QSplitter, QStackedWidget, QTabWidget, QVBoxLayout, QWidget

from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.folding_pair import FoldingPair
from qstudio.ui.log_drawer import LogDrawer
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

PERSPECTIVES = ("explore", "tune")
SIDE_BY_SIDE_PX = 900
"""Chart and run detail stand beside each other from this width on, in tabs below it."""

LEFT_SHARE = {"explore": 0.54, "tune": 0.42}
RUNS_SHARE = 0.24


def _place() -> QWidget:
    """Return a widget that a panel is put into later."""
    place = QWidget()
    layout = QVBoxLayout(place)
    layout.setContentsMargins(0, 0, 0, 0)
    return place


def _fill(place: QWidget, panel: QWidget) -> None:
    layout = place.layout()
    if layout is not None:
        layout.addWidget(panel)


class Workspace(QWidget):
    """Layers, refinements, training and data at the left, what belongs to them at the right, runs below in Tune.

    At the right stand the inspector (Explore) or chart and run (Tune), or the learning curves beside the training.
    """

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._bridge = bridge
        self.perspective = "explore"
        self._sizes: dict[str, tuple[QByteArray, QByteArray]] = {}
        self._late: list[Callable[[], None]] = [
            self._build_data,
            self._build_runs,
            self._build_inspector,
            self._build_charts,
            self._build_refinements,
            self._build_training,
            self._build_curves,
        ]
        self._arranged = False
        self.layer_table = LayerTable(session, bridge)
        self.data_panel: DataPanel | None = None
        self.runs_table: RunsTable | None = None
        self.log = LogDrawer(bridge)
        self.inspector: InspectorPanel | None = None
        self.chart: RunChart | None = None
        self.detail: RunDetail | None = None
        self.refinements: RefinementsPanel | None = None
        self.training_panel: TrainingPanel | None = None
        self.curves: TrainingCurves | None = None
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.addTab(self.layer_table, tr("Layers"))
        self._data_place = _place()
        self._refinements_place, self._training_place = _place(), _place()
        self.tabs.addTab(self._refinements_place, tr("Refinements"))
        self.tabs.addTab(self._training_place, tr("Training"))
        self.tabs.addTab(self._data_place, tr("Data"))
        self._right = QStackedWidget()
        self._top = QSplitter(Qt.Orientation.Horizontal)
        self._top.setChildrenCollapsible(False)
        self._top.addWidget(self.tabs)
        self._top.addWidget(self._right)
        self._all = QSplitter(Qt.Orientation.Vertical)
        self._all.setChildrenCollapsible(False)
        self._all.addWidget(self._top)
        self._runs_place = _place()
        self._all.addWidget(self._runs_place)
        self._all.addWidget(self.log)
        for number, share in enumerate((3, 1, 0)):
            self._all.setStretchFactor(number, share)
        self.tabs.currentChanged.connect(self._on_tab_changed)
        self._places = {name: _place() for name in PERSPECTIVES}
        self._curves_place = _place()
        for place in (*self._places.values(), self._curves_place):
            self._right.addWidget(place)
        self._runs_place.hide()
        self.log.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._all)

    def build_next(self) -> bool:
        """Build one of the panels that the first picture does not need; return whether there are more."""
        if self._late:
            self._late.pop(0)()
        return bool(self._late)

    def build_all(self) -> None:
        """Build every panel now."""
        while self.build_next():
            pass

    def _build_data(self) -> None:
        from qstudio.ui.data.data_panel import DataPanel

        self.data_panel = DataPanel(self._session, self._bridge)
        _fill(self._data_place, self.data_panel)

    def _build_runs(self) -> None:
        from qstudio.ui.runs.runs_table import RunsTable

        self.runs_table = RunsTable(self._session, self._bridge)
        _fill(self._runs_place, self.runs_table)

    def _build_inspector(self) -> None:
        from qstudio.ui.inspector.panel import InspectorPanel

        self.inspector = InspectorPanel(self._session, self._bridge)
        _fill(self._places["explore"], self.inspector)

    def _build_charts(self) -> None:
        from qstudio.ui.runs.run_chart import RunChart
        from qstudio.ui.runs.run_detail import RunDetail

        self.chart = RunChart(self._session, self._bridge)
        self.detail = RunDetail(self._session, self._bridge)
        pair = FoldingPair((tr("Chart"), self.chart), (tr("Selected run"), self.detail), SIDE_BY_SIDE_PX)
        _fill(self._places["tune"], pair)

    def _build_refinements(self) -> None:
        from qstudio.ui.refinements.panel import RefinementsPanel

        self.refinements = RefinementsPanel(self._session, self._bridge)
        _fill(self._refinements_place, self.refinements)

    def _build_training(self) -> None:
        from qstudio.ui.training.panel import TrainingPanel

        self.training_panel = TrainingPanel(self._session, self._bridge)
        _fill(self._training_place, self.training_panel)

    def _build_curves(self) -> None:
        from qstudio.ui.training.curves import TrainingCurves

        self.curves = TrainingCurves(self._session, self._bridge)
        _fill(self._curves_place, self.curves)

    def show_training(self) -> None:
        """Bring the training and its curves to the front."""
        self.build_all()
        self.tabs.setCurrentWidget(self._training_place)

    def show_refinements(self) -> None:
        """Bring the refinements to the front."""
        self.build_all()
        self.tabs.setCurrentWidget(self._refinements_place)

    def show_data(self) -> None:
        """Bring the samples to the front."""
        self.build_all()
        self.tabs.setCurrentWidget(self._data_place)

    def _on_tab_changed(self, _index: int) -> None:
        """Show at the right what belongs to the tab: the samples take the whole width."""
        current = self.tabs.currentWidget()
        self._right.setVisible(current is not self._data_place)
        self._show_right()

    def _show_right(self) -> None:
        training = self.tabs.currentWidget() is self._training_place
        self._right.setCurrentWidget(self._curves_place if training else self._places[self.perspective])

    def show_perspective(self, name: str) -> None:
        """Arrange the panels for Explore or Tune; each keeps the sizes it was given."""
        # Charts and inspector stand beside the layers only: who asks for a perspective wants to see them.
        self.tabs.setCurrentWidget(self.layer_table)
        if name == self.perspective or name not in PERSPECTIVES:
            return
        self._keep_sizes()
        self.perspective = name
        self._show_right()
        self._runs_place.setVisible(name == "tune")
        self._restore_sizes()

    def _keep_sizes(self) -> None:
        if self._arranged:
            self._sizes[self.perspective] = (self._top.saveState(), self._all.saveState())

    def _restore_sizes(self) -> None:
        kept = self._sizes.get(self.perspective)
        if kept is not None and self._top.restoreState(kept[0]) and self._all.restoreState(kept[1]):
            return
        self._spread()

    def _spread(self) -> None:
        """Give the panels their usual shares of the window."""
        width, height = max(self.width(), 400), max(self.height(), 300)
        left = round(width * LEFT_SHARE[self.perspective])
        self._top.setSizes([left, width - left])
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
            store.setValue(f"layout/{name}/top", top)
            store.setValue(f"layout/{name}/all", whole)
        chosen = self.layer_table.view.chosen_columns
        store.setValue("columns", ",".join(chosen) if chosen is not None else "")

    def load(self, store: QSettings) -> None:
        """Read sizes and columns."""
        for name in PERSPECTIVES:
            top, whole = store.value(f"layout/{name}/top"), store.value(f"layout/{name}/all")
            if isinstance(top, QByteArray) and isinstance(whole, QByteArray):
                self._sizes[name] = (top, whole)
        columns = str(store.value("columns", "") or "")
        self.layer_table.view.choose_columns(tuple(columns.split(",")) if columns else None)
