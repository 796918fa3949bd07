"""Weight errors of the nodes: estimated in the window at once, exact ones asked of the engine for what is seen."""

from __future__ import annotations

from collections.abc import Generator

from PySide6.QtCore import QObject, QTimer, Signal

from qstudio.core.scheme import Scheme
from qstudio.session.graph_metrics import GraphFigures
from qstudio.session.session import Session
from qstudio.ui.graph.canvas import GraphCanvas
from qstudio.ui.graph.slices import Slices

DELAY_MS = 150
"""Exact errors are asked for when nothing has moved for this long, so that panning does not flood the engine."""
MOST_ASKED = 100
"""Exact errors asked for at a time: 2 ms of the engine each."""


class WeightErrors(QObject):
    """Finds what is not known of the layers of a canvas, those seen first."""

    learnt = Signal(str)
    """Name of a layer whose estimate is new."""

    def __init__(self, session: Session, figures: GraphFigures, canvas: GraphCanvas) -> None:
        super().__init__(canvas)
        self._session, self._figures, self._canvas = session, figures, canvas
        self._asked: dict[str, Scheme] = {}
        """Schemes that exact errors were asked for."""
        self._slices = Slices(self)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(DELAY_MS)
        self._rest.timeout.connect(self._ask)

    @property
    def busy(self) -> bool:
        """Whether there is something left to do."""
        return self._slices.busy or self._rest.isActive()

    def start(self) -> None:
        """Estimate what is not known, in slices; then ask for what is seen."""
        self._slices.start(self._estimates(), self._on_estimated)

    def ask_soon(self) -> None:
        """Ask for the exact errors of what is seen, once nothing moves any more."""
        self._rest.start()

    def stop(self) -> None:
        """Leave what is not done."""
        self._slices.stop()
        self._rest.stop()

    def forget(self) -> None:
        """Start anew: another model is shown."""
        self.stop()
        self._asked.clear()

    def _seen(self) -> list[str]:
        drawing = self._canvas.drawing
        if drawing is None:
            return []
        nodes = drawing.nodes_in(self._canvas.seen()).tolist()
        return [name for node in nodes for name in drawing.view.items[node].layers]

    def _estimates(self) -> Generator[None, None, None]:
        drawing, model = self._canvas.drawing, self._session.model
        if drawing is None or model is None:
            return
        for number, name in enumerate((*self._seen(), *drawing.of_layer)):
            layer = model.layer(name)
            if self._figures.needs(layer):
                self._figures.learn(layer)
                self.learnt.emit(name)
                yield
            elif number % 64 == 0:
                yield

    def _on_estimated(self, _value: object) -> None:
        self.ask_soon()

    def _ask(self) -> None:
        model = self._session.model
        if model is None:
            return
        for name in self._seen()[:MOST_ASKED]:
            layer = model.layer(name)
            scheme = self._session.settings(name).weight_scheme()
            if layer.weight is not None and not layer.unsupported and self._asked.get(name) != scheme:
                self._asked[name] = scheme
                self._session.request_preview(name)
