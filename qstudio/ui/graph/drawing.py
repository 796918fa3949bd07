"""A view of the model with its places on the plane, and what each node says: what painter, map and mouse work on."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QLineF, QPointF, QRectF
from PySide6.QtGui import QPainterPath

from qstudio.core.graph_layout import GraphLayout
from qstudio.session.graph_view import GraphBlock, GraphView
from qstudio.ui.graph.colors import PLAIN

NODE_WIDTH = 184.0
NODE_HEIGHT = 42.0
FRAME_SIDE = 8.0
FRAME_TOP = 19.0
"""Room above the first node of an open block, for its name."""
FRAME_BOTTOM = 6.0


@dataclass(frozen=True)
class Frame:
    """The ground under an open block."""

    rect: QRectF
    block: GraphBlock


@dataclass
class NodeLook:
    """What a node says; made anew when one of its figures changes."""

    weight: str = ""
    """ "W4" """
    activation: str = ""
    """ "A8" """
    weight_set: bool = False
    """Whether it was set here: bold."""
    activation_set: bool = False
    value: str = ""


class Drawing:
    """Nodes, edges and frames on a plane; unit: pixels at zoom 1. Positions never change, looks do."""

    def __init__(self, view: GraphView, layout: GraphLayout) -> None:
        self.view = view
        self.layout = layout
        self.width = max(layout.width, NODE_WIDTH)
        self.height = max(layout.height, NODE_HEIGHT)
        self.left: NDArray[np.float64] = layout.x - NODE_WIDTH / 2
        self.top: NDArray[np.float64] = layout.y - NODE_HEIGHT / 2
        count = len(view.items)
        self.colors: NDArray[np.int64] = np.full(count, PLAIN, np.int64)
        self.selected: NDArray[np.bool_] = np.zeros(count, bool)
        """All of a node's layers are selected."""
        self.touched: NDArray[np.bool_] = np.zeros(count, bool)
        """Some of a block's layers are selected."""
        self.widths: NDArray[np.int64] = np.zeros(len(view.edges), np.int64)
        """[E] class of each edge's width, 0 the thinnest."""
        self.looks: list[NodeLook] = [NodeLook() for _ in range(count)]
        self.index = {item.key: number for number, item in enumerate(view.items)}
        self.of_layer = {name: number for number, item in enumerate(view.items) for name in item.layers}
        self.before: list[list[int]] = [[] for _ in range(count)]
        self.after: list[list[int]] = [[] for _ in range(count)]
        for source, target in view.edges:
            self.after[source].append(target)
            self.before[target].append(source)
        self._rects: list[QRectF | None] = [None] * count
        self._paths: dict[int, QPainterPath] = {}
        self._lines: dict[int, list[QLineF]] = {}
        self._edge_boxes = self._boxes()
        self.frames: tuple[Frame, ...] = ()
        """Under open blocks, once `frame_steps` has run."""

    # ---- places

    def rect(self, node: int) -> QRectF:
        """Return where a node stands."""
        found = self._rects[node]
        if found is None:
            found = QRectF(float(self.left[node]), float(self.top[node]), NODE_WIDTH, NODE_HEIGHT)
            self._rects[node] = found
        return found

    def bounds(self) -> QRectF:
        """Return everything there is, with a margin."""
        return QRectF(0.0, 0.0, self.width, self.height).adjusted(-16, -FRAME_TOP - 4, 16, 16)

    def nodes_in(self, area: QRectF) -> NDArray[np.intp]:
        """Return the nodes that an area meets."""
        inside = (self.left < area.right()) & (self.left + NODE_WIDTH > area.left())
        inside &= (self.top < area.bottom()) & (self.top + NODE_HEIGHT > area.top())
        return np.flatnonzero(inside)

    def edges_in(self, area: QRectF) -> NDArray[np.intp]:
        """Return the edges whose surroundings an area meets."""
        boxes = self._edge_boxes
        inside = (boxes[:, 0] <= area.right()) & (boxes[:, 2] >= area.left())
        inside &= (boxes[:, 1] <= area.bottom()) & (boxes[:, 3] >= area.top())
        return np.flatnonzero(inside)

    def node_at(self, x: float, y: float) -> int | None:
        """Return the node at a point."""
        found = self.nodes_in(QRectF(x, y, 0.01, 0.01))
        return int(found[0]) if found.size else None

    def frame_at(self, x: float, y: float) -> Frame | None:
        """Return the frame whose name stands at a point."""
        for frame in self.frames:
            rect = frame.rect
            if rect.left() <= x <= rect.right() and rect.top() <= y <= rect.top() + FRAME_TOP:
                return frame
        return None

    def path(self, edge: int) -> QPainterPath:
        """Return an edge as a smooth line through its points, upright at each."""
        found = self._paths.get(edge)
        if found is None:
            points = self.layout.routes[edge]
            found = QPainterPath(QPointF(*points[0]))
            for (x0, y0), (x1, y1) in pairwise(points):
                if abs(x1 - x0) < 0.5:
                    found.lineTo(x1, y1)
                else:
                    middle = (y0 + y1) / 2
                    found.cubicTo(x0, middle, x1, middle, x1, y1)
            self._paths[edge] = found
        return found

    def lines(self, edge: int) -> list[QLineF]:
        """Return an edge as straight lines, for when it is small."""
        found = self._lines.get(edge)
        if found is None:
            points = self.layout.routes[edge]
            kept = [points[0]]
            for before, here, after in zip(points, points[1:], points[2:], strict=False):
                if here[0] != before[0] or here[0] != after[0]:
                    kept.append(here)
            kept.append(points[-1])
            found = [QLineF(*start, *end) for start, end in pairwise(kept)]
            self._lines[edge] = found
        return found

    def _boxes(self) -> NDArray[np.float64]:
        """Return [E, 4] left, top, right, bottom of the edges."""
        routes = self.layout.routes
        if not routes:
            return np.zeros((0, 4))
        points = np.array([point for route in routes for point in route])
        starts = np.cumsum([0, *(len(route) for route in routes[:-1])])
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        return np.concatenate([low, high], axis=1)

    def frame_steps(self) -> Generator[None, None, None]:
        """Make a frame for each open block, unless strangers stand in it; in short steps."""
        found = []
        for number, block in enumerate(self.view.blocks):
            if number % 64 == 0:
                yield
            members = [self.index[key] for key in block.members if key in self.index]
            if len(members) < len(block.members):
                continue
            left, top = float(self.left[members].min()), float(self.top[members].min())
            right, bottom = float(self.left[members].max()) + NODE_WIDTH, float(self.top[members].max()) + NODE_HEIGHT
            rect = QRectF(left, top, right - left, bottom - top)
            if len(self.nodes_in(rect)) == len(members):
                found.append(Frame(rect.adjusted(-FRAME_SIDE, -FRAME_TOP, FRAME_SIDE, FRAME_BOTTOM), block))
        self.frames = tuple(found)

    # ---- selection

    def select(self, layers: tuple[str, ...]) -> None:
        """Mark the nodes of the selected layers."""
        chosen = set(layers)
        self.selected[:] = False
        self.touched[:] = False
        for node in {self.of_layer[name] for name in layers if name in self.of_layer}:
            own = self.view.items[node].layers
            whole = all(name in chosen for name in own)
            self.selected[node] = whole
            self.touched[node] = not whole

    def step(self, node: int, direction: str) -> int | None:
        """Return the node that an arrow key leads to: along an edge up or down, to the neighbour left or right."""
        if direction in ("up", "down"):
            near = self.before[node] if direction == "up" else self.after[node]
            if not near:
                return None
            rank = self.layout.rank
            return min(
                near, key=lambda n: (abs(int(rank[n] - rank[node])), abs(self.layout.x[n] - self.layout.x[node]))
            )
        beside = np.flatnonzero(self.layout.rank == self.layout.rank[node])
        gaps = self.layout.x[beside] - self.layout.x[node]
        wanted = beside[gaps < 0] if direction == "left" else beside[gaps > 0]
        if not wanted.size:
            return None
        return int(wanted[np.argmin(abs(self.layout.x[wanted] - self.layout.x[node]))])
