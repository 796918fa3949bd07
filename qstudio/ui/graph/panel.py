"""The graph panel: what nodes are coloured by, search, and the canvas; it follows the session."""

from __future__ import annotations

from collections.abc import Callable, Generator

from PySide6.QtCore import QSignalBlocker, Qt, QTimer
from PySide6.QtGui import QAction, QHideEvent, QShowEvent
from PySide6.QtWidgets import QMenu, QVBoxLayout, QWidget

from qstudio.core.graph_layout import layout_steps
from qstudio.core.recipe import Recipe
from qstudio.session.graph_metrics import METRIC, OF_DEPTH, GraphFigures
from qstudio.session.graph_view import GraphView, fold, view_steps
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.graph.canvas import GraphCanvas
from qstudio.ui.graph.drawing import NODE_HEIGHT, NODE_WIDTH, Drawing
from qstudio.ui.graph.edit_menu import add_edits
from qstudio.ui.graph.head import GraphHead
from qstudio.ui.graph.looks import Dresser
from qstudio.ui.graph.slices import Slices
from qstudio.ui.graph.weight_errors import WeightErrors
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

MOST_OPEN = 150
"""Models with more nodes start with their repeated blocks closed."""
MOST_AT_ONCE = 1500
"""Nodes that get new looks at once (10 ms a thousand); more do so in slices."""
REPAINT_MS = 60
"""Figures that arrive one by one are painted together."""


class GraphPanel(QWidget):
    """The model as a graph; selection and edits go through the session."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.figures = GraphFigures(session)
        self.dresser = Dresser(session, self.figures)
        self.closed: set[str] = set()
        """Keys of the blocks that are closed."""
        self._whole: GraphView | None = None
        self._anchor = ""
        self._stale = True
        self._dressed = True
        self._following = False
        self._withdraw: Callable[[], None] | None = None
        self._building = Slices(self)
        self._dressing = Slices(self)
        self._repaint = QTimer(self)
        self._repaint.setSingleShot(True)
        self._repaint.setInterval(REPAINT_MS)
        self._repaint.timeout.connect(self._on_repaint)
        self._pending: set[str] | None = set()
        """Layers with new figures that are not painted yet; None = all."""
        self.canvas = GraphCanvas(self)
        self.errors = WeightErrors(session, self.figures, self.canvas)
        self.errors.learnt.connect(self._dress_soon)
        self.head = GraphHead(self.canvas)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.head)
        layout.addWidget(self.canvas, 1)
        self.head.metric_chosen.connect(self._on_metric_chosen)
        self.head.search.found.connect(self._go_to)
        self.head.operators.toggled.connect(self._on_operators_toggled)
        self.head.blocks.clicked.connect(self._on_blocks_clicked)
        self.setFocusProxy(self.canvas)
        self.canvas.tell = self._tooltip
        self.canvas.table = self._columns
        self.canvas.key = self.head.draw_key
        self.canvas.extend_menu = self._extend_menu
        self.canvas.picked.connect(self._on_picked)
        self.canvas.toggled.connect(self.toggle)
        self.canvas.moved.connect(self._on_moved)
        self.canvas.search_wanted.connect(self.head.search.begin)
        self.canvas.next_wanted.connect(self.head.search.step)
        self.canvas.notice_posted.connect(session.notice_posted.emit)
        bridge.model_changed.connect(self._on_model_changed)
        bridge.recipe_changed.connect(self._on_recipe_changed)
        bridge.selection_changed.connect(self._on_selection_changed)
        bridge.statistics_changed.connect(self._on_statistics_changed)
        bridge.preview_changed.connect(self._on_preview_changed)
        bridge.dataset_changed.connect(self._on_figures_changed)
        bridge.depth_changed.connect(self._on_figures_changed)
        bridge.sensitivity_changed.connect(self._on_figures_changed)
        theme().changed.connect(self._on_theme_changed)
        self._show_scale()

    # ---- building

    @property
    def drawing(self) -> Drawing | None:
        """What is shown; None while there is nothing."""
        return self.canvas.drawing

    @property
    def working(self) -> bool:
        """Whether the graph is being laid out, or figures are being computed or wait to be painted."""
        slices = (self._building, self._dressing, self.errors)
        return self._repaint.isActive() or any(work.busy for work in slices)

    def rebuild(self, anchor: str = "") -> None:
        """Lay the model out anew, in slices; the item named by `anchor` stays where it is on the screen."""
        self._anchor = anchor
        if not self.isVisible():
            self._stale = True
            return
        self._stale = False
        model = self._session.model
        if model is None:
            self._building.stop()
            self.canvas.show_drawing(None, tr("No model is open"))
            return
        if not model.layers:
            self._building.stop()
            self.canvas.show_drawing(None, tr("The model has no layers"))
            return
        self._dressed = True
        if self.canvas.drawing is None:
            self.canvas.show_drawing(None, tr("Laying the graph out…"))
        self._building.start(self._steps(), self._on_built, at_once=True)

    def _steps(self) -> Generator[None, None, Drawing]:
        model = self._session.model
        assert model is not None
        if self._whole is None:
            self._whole = yield from view_steps(model, self.head.operators.isChecked())
            many = len(self._whole.items) > MOST_OPEN
            self.closed = {block.key for block in self._whole.blocks} if many else set()
            yield
        view = fold(self._whole, self.closed)
        yield
        layout = yield from layout_steps([(NODE_WIDTH, NODE_HEIGHT)] * len(view.items), view.edges)
        yield
        drawing = Drawing(view, layout)
        yield from drawing.frame_steps()
        yield from self.dresser.dress_steps(drawing)
        return drawing

    def _on_built(self, drawing: Drawing) -> None:
        self._dressing.stop()
        self.dresser.widen(drawing)
        drawing.select(self._session.selection)
        self.canvas.show_drawing(drawing, anchor=self._anchor)
        if not self._anchor:
            self._follow_selection()
        if not self._dressed:  # recipe or metric have changed meanwhile
            self._dress()
        self._show_scale()
        self.head.tell_blocks(len(self._whole.blocks) if self._whole is not None else 0)
        self._learn()

    def toggle(self, block: str) -> None:
        """Open a closed block, or close an open one."""
        self.closed ^= {block}
        self.canvas.current = block if block in self.closed else self.canvas.current
        self.rebuild(anchor=block)

    def open_all(self) -> None:
        """Open every block."""
        self.closed = set()
        self.rebuild(anchor=self._middle())

    def close_all(self) -> None:
        """Close every block."""
        if self._whole is not None:
            self.closed = {block.key for block in self._whole.blocks}
            self.rebuild(anchor=self._middle())

    def _middle(self) -> str:
        """Return the key of the node nearest to the middle of what is seen."""
        drawing = self.drawing
        if drawing is None:
            return ""
        center = self.canvas.seen().center()
        gaps = abs(drawing.layout.x - center.x()) + abs(drawing.layout.y - center.y())
        return drawing.view.items[int(gaps.argmin())].key

    # ---- looks

    def set_metric(self, metric: str) -> None:
        """Colour the nodes by a metric (its id in `METRICS`)."""
        self.head.choose(metric)

    def _on_metric_chosen(self, metric: str) -> None:
        self.dresser.metric = metric
        self._want_depth()
        self._dress()
        self._learn()

    def _want_depth(self) -> None:
        """Want the error over depth while it is seen: it colours the nodes and widens the edges."""
        wanted = self.isVisible() and self.dresser.metric in OF_DEPTH
        if wanted and self._withdraw is None:
            self._withdraw = self._session.preview.request_depth()
        elif not wanted and self._withdraw is not None:
            self._withdraw()
            self._withdraw = None

    def _dress(self, layers: frozenset[str] | None = None) -> None:
        drawing = self.drawing
        if drawing is None or self._building.busy or not self.isVisible():
            self._dressed = False
            return
        self._dressed = True
        if layers is None and len(drawing.view.items) > MOST_AT_ONCE:
            self._dressing.start(self.dresser.dress_steps(drawing), self._on_dressed)
            return
        self.dresser.dress(drawing, layers)
        self._on_dressed()

    def _on_dressed(self, _value: object = None) -> None:
        if self.drawing is not None:
            self.dresser.widen(self.drawing)
            self._show_scale()
            self.canvas.refresh()

    def _show_scale(self) -> None:
        metric = self.dresser.metric
        words = tr(self.figures.missing(metric)) if self._session.model is not None else ""
        if not words and not self.dresser.known and metric != "none" and self.drawing is not None:
            coming = metric in OF_DEPTH or self.working
            words = tr("Being computed…") if coming else tr("No layer has this figure")
        scale = None if words else self.dresser.scale
        told = [tr(METRIC[metric].help)]
        if metric == "sensitivity" and self.figures.sweep_candidate() is not None:
            candidate = self.figures.sweep_candidate()
            told.append(f"{self.figures.sweep_measure()}, {candidate.text if candidate else ''}")
        told.append(
            tr("Edge width: noise power of what runs along it, a step for each 10 dB below 40 dB SQNR; thin = unknown.")
        )
        self.head.scale.setToolTip("\n".join([words, *told] if words else told))
        self.head.scale.show_scale(scale, self.figures.unit(metric), words)

    def _learn(self) -> None:
        """Find the weight errors that are not known, where they are looked at."""
        if self.dresser.metric == "weight_sqnr" and self.isVisible():
            self.errors.start()

    def _on_moved(self) -> None:
        if self.dresser.metric == "weight_sqnr" and self.isVisible():
            self.errors.ask_soon()

    def _dress_soon(self, layer: str = "") -> None:
        """Show a layer's new figure (all where it is not named), together with others that arrive soon."""
        if not layer:
            self._pending = None
        elif self._pending is not None:
            self._pending.add(layer)
        if not self.isVisible():
            self._dressed = False
        elif not self._repaint.isActive():
            self._repaint.start()

    def _on_repaint(self) -> None:
        pending, self._pending = self._pending, set()
        if pending is None or pending:
            self._dress(None if pending is None else frozenset(pending))

    # ---- following the session

    def _on_model_changed(self, _model: object) -> None:
        self.figures.forget()
        self.errors.forget()
        self._whole = None
        self._dressing.stop()
        self.canvas.current = ""
        self.canvas.show_drawing(None)
        with QSignalBlocker(self.head.search):
            self.head.search.clear()
        self.rebuild()

    def _on_recipe_changed(self, recipe: Recipe) -> None:
        changed = self.figures.follow(recipe)
        self._dress(changed)
        if changed and self.dresser.metric == "share":
            self._dress_soon()  # the sum of all has changed; the edited layer is shown at once
        if changed is None or changed:
            self._learn()

    def _on_selection_changed(self, _selection: object) -> None:
        if self.drawing is None:
            return
        self.drawing.select(self._session.selection)
        self.canvas.refresh()
        if not self._following:
            self._follow_selection()

    def _follow_selection(self) -> None:
        """Bring what was selected elsewhere into view."""
        drawing = self.drawing
        if drawing is None or not self._session.selection:
            return
        node = drawing.of_layer.get(self._session.selection[0])
        if node is not None:
            self.canvas.current = drawing.view.items[node].key
            self.canvas.bring_into_view(node)

    def _on_statistics_changed(self, kind: str) -> None:
        if kind == "weights":
            self._learn()

    def _on_preview_changed(self, layer: str) -> None:
        if self.dresser.metric == "weight_sqnr":
            self._dress_soon(layer)

    def _on_figures_changed(self, _value: object) -> None:
        self._dress_soon()

    def _on_theme_changed(self, _palette: object) -> None:
        if self.isVisible():
            self.head.load_icons()
        self.canvas.restyle()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what happened while it was hidden."""
        super().showEvent(event)
        self.head.load_icons()
        self._want_depth()
        if self._stale:
            self.rebuild()
        elif not self._dressed:
            self._dress()
            self._learn()

    def hideEvent(self, event: QHideEvent) -> None:
        """Do nothing while hidden."""
        super().hideEvent(event)
        self._want_depth()
        self.errors.stop()
        self._dressing.stop()
        self._repaint.stop()
        self._dressed = False
        if self._building.busy:
            self._building.stop()
            self._stale = True

    # ---- the person

    def _on_picked(self, keys: tuple[str, ...], add: bool) -> None:
        drawing = self.drawing
        if drawing is None:
            return
        layers = tuple(name for key in keys for name in drawing.view.items[drawing.index[key]].layers)
        if add:
            before = self._session.selection
            if layers and set(layers) <= set(before):
                layers = tuple(name for name in before if name not in layers)
            else:
                layers = (*layers, *(name for name in before if name not in layers))
        if not layers:
            self.canvas.refresh()
            return
        self._following = True
        try:
            self._session.select(layers)
        finally:
            self._following = False

    def _go_to(self, node: int) -> None:
        self.canvas.pick(node, False)
        self.canvas.bring_into_view(node)

    def _on_operators_toggled(self, _on: bool) -> None:
        self._whole = None
        self.rebuild(anchor=self._middle())

    def _on_blocks_clicked(self) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._add_block_actions(menu)
        menu.popup(self.head.blocks.mapToGlobal(self.head.blocks.rect().bottomLeft()))

    def _add_block_actions(self, menu: QMenu) -> None:
        count = len(self._whole.blocks) if self._whole is not None else 0
        close = menu.addAction(tr("Close all blocks"), self.close_all)
        close.setEnabled(len(self.closed) < count)
        menu.addAction(tr("Open all blocks"), self.open_all).setEnabled(bool(self.closed))

    def _extend_menu(self, menu: QMenu) -> None:
        """Put edits of the selection and of blocks above the ways to take the picture away."""
        first = menu.actions()[0]
        top = QMenu(menu)
        drawing = self.drawing
        node = drawing.index.get(self.canvas.current) if drawing is not None else None
        add_edits(top, self._session)
        block = drawing.view.items[node].block if drawing is not None and node is not None else ""
        if block:
            words = tr("Open this block") if block in self.closed else tr("Close this block")
            action = top.addAction(words)
            action.setData(block)
            action.triggered.connect(self._on_block_chosen)
        self._add_block_actions(top)
        top.addSeparator()
        menu.insertActions(first, top.actions())

    def _on_block_chosen(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self.toggle(str(action.data()))

    def _tooltip(self, node: int) -> str:
        return "" if self.drawing is None else self.dresser.tooltip(self.drawing.view.items[node])

    def _columns(self) -> tuple[tuple[str, list[object]], ...]:
        model = self._session.model
        return () if self.drawing is None or model is None else self.dresser.columns(self.drawing, model)
