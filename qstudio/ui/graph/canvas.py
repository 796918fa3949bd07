"""The surface the graph is painted on: zoom, pan, mouse, keys, and its picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QFocusEvent,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QMenu, QToolTip, QWidget

from qstudio.session.graph_view import BLOCK
from qstudio.ui.graph.drawing import Drawing, Frame
from qstudio.ui.graph.keys import ARROWS, OWN_KEYS
from qstudio.ui.graph.minimap import Minimap
from qstudio.ui.graph.painter import GraphPainter
from qstudio.ui.graph.pictures import Key, whole_picture, whole_svg
from qstudio.ui.graph.viewport import Viewport
from qstudio.ui.plots.take_away import Column, TakeAway
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

WHEEL_FACTOR = 1.2
"""Zoom of one notch."""
DRAG_PX = 4
MAP_MARGIN = 8


class GraphCanvas(TakeAway, Viewport):
    """Shows a `Drawing`; what the person does comes out as signals."""

    notice_posted = Signal(object)
    picked = Signal(object, bool)
    """Keys of items, and whether they are added to (or taken from) the selection."""
    toggled = Signal(str)
    """Key of a block to open or close."""
    search_wanted = Signal()
    next_wanted = Signal(int)
    """1 for the next item found, -1 for the one before."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = tr("Graph")
        self.can_zoom = True
        self.current: str = ""
        """Key of the item that arrow keys start from."""
        self.words = ""
        """Shown instead of a graph."""
        self.tell: Callable[[int], str] = lambda _node: ""
        """Tooltip of a node."""
        self.table: Callable[[], tuple[Column, ...]] = tuple
        """The nodes as columns."""
        self.key: Key = lambda _painter, _area, _zoom: None
        """Draws the key of the colours into pictures."""
        self.extend_menu: Callable[[QMenu], None] = lambda _menu: None
        """Puts what can be done with the selection at the top of the context menu."""
        self._painter = GraphPainter()
        self._press: QPointF | None = None
        self._grab = QPointF()
        self._mode = ""
        self._band = QRectF()
        self._theme_zoom = theme().zoom
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAccessibleName(tr("Graph"))
        self.map = Minimap(self)
        self.map.centred.connect(self._on_map_centred)
        self.moved.connect(self._show_map)

    # ---- content

    def show_drawing(self, drawing: Drawing | None, words: str = "", anchor: str = "") -> None:
        """Show a drawing, or words instead.

        Args:
            drawing: What is shown; None for words.
            words: Why there is nothing, and what to do.
            anchor: Key of an item that stays where it is on the screen (its block or member, where it is gone);
                empty = a new graph, shown from its start.
        """
        before = self._place_of(anchor)
        self.drawing, self.words = drawing, words
        self.setAccessibleDescription(words)
        after = self._place_of(anchor)
        if drawing is not None and before is not None and after is not None:
            self.origin += before - after
        elif drawing is not None:
            self._fitted = False
            self.show_start()
        self.map.show_drawing(drawing)
        self._show_map()
        self.restyle()

    def _show_map(self) -> None:
        """Show the map while a part of the graph is out of sight."""
        drawing = self.drawing
        parts = drawing is not None and not self.seen().adjusted(-1, -1, 1, 1).contains(drawing.bounds())
        if self.map.isHidden() == parts:
            self.map.setVisible(parts)
        self.map.update()

    def _place_of(self, key: str) -> QPointF | None:
        """Return where an item is seen; that of its block where the block is closed."""
        drawing = self.drawing
        if drawing is None or not key:
            return None
        node = drawing.index.get(key)
        if node is None:
            block = drawing.view.block(key)
            names = block.members if block is not None else ()
            node = next((drawing.index[name] for name in names if name in drawing.index), None)
        if node is None:
            owner = next((block.key for block in drawing.view.blocks if key in block.members), "")
            node = drawing.index.get(owner)
        return None if node is None else self.to_screen(drawing.rect(node).center())

    def restyle(self) -> None:
        """Take over colours, fonts and zoom of the theme."""
        self._painter.forget()
        if theme().zoom != self._theme_zoom:
            fitted = self._fitted
            self.zoom_by(theme().zoom / self._theme_zoom)
            self._fitted = fitted
            self._theme_zoom = theme().zoom
            self._place_map()
        self.refresh()

    def refresh(self) -> None:
        """Paint again: looks or selection have changed."""
        self.map.refresh()
        self.update()

    @property
    def message(self) -> str:
        """The words shown instead of a graph."""
        return "" if self.drawing is not None else self.words or tr("No model is open")

    # ---- painting

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the part that is seen."""
        painter = QPainter(self)
        painter.fillRect(event.rect(), QColor(theme().palette.surface))
        if self.drawing is None:
            painter.setPen(QColor(theme().palette.muted))
            margin = theme().px(24)
            inner = self.rect().adjusted(margin, 0, -margin, 0)
            painter.drawText(inner, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self.message)
            return
        area = QRectF(event.rect())
        plane = QRectF(self.to_plane(area.topLeft()), self.to_plane(area.bottomRight()))
        self._painter.paint(painter, self.drawing, plane, self.scale, self.origin)
        if self._mode == "band":
            painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
            accent = QColor(theme().palette.accent)
            painter.setPen(QPen(accent, 1, Qt.PenStyle.DashLine))
            accent.setAlpha(30)
            painter.setBrush(accent)
            painter.drawRect(self._band.normalized())
        if self.hasFocus():
            painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
            painter.setPen(QPen(QColor(theme().palette.accent), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep what is in the middle there, and the map in its corner."""
        super().resizeEvent(event)
        self._place_map()
        if self._fitted:
            self.show_start()
        elif event.oldSize().isValid():
            grown = event.size() - event.oldSize()
            self.pan_by(grown.width() / 2, grown.height() / 2)
        self._show_map()

    def _place_map(self) -> None:
        size = self.map.sizeHint()
        self.map.setGeometry(
            QRect(QPoint(self.width() - size.width() - MAP_MARGIN, self.height() - size.height() - MAP_MARGIN), size)
        )

    def minimumSizeHint(self) -> QSize:
        """Let layouts make it small."""
        return QSize(theme().px(160), theme().px(120))

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Show the focus."""
        super().focusInEvent(event)
        self.update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Show the focus no more."""
        super().focusOutEvent(event)
        self.update()

    # ---- the mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Pick a node, or start to pan or to draw a rectangle."""
        drawing = self.drawing
        if drawing is None or event.button() not in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
            return
        self._press = event.position()
        self._grab = QPointF(self.origin)
        node = self._node_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton:
            if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
                self._mode = "band"
                self._band = QRectF(event.position(), event.position())
                return
            if node is not None:
                self.pick(node, bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier))
        self._mode = "wait"

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Pan, or draw the rectangle."""
        if self._press is None:
            return
        way = event.position() - self._press
        if self._mode == "band":
            self._band.setBottomRight(event.position())
            self.update()
            return
        if self._mode == "wait" and way.manhattanLength() > DRAG_PX:
            self._mode = "pan"
            self.setCursor(Qt.CursorShape.ClosedHandCursor)
        if self._mode == "pan":
            self.origin = self._grab + way
            self._keep_in_sight()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End what was started."""
        if self._mode == "band" and self.drawing is not None:
            band = self._band.normalized()
            area = QRectF(self.to_plane(band.topLeft()), self.to_plane(band.bottomRight()))
            nodes = self.drawing.nodes_in(area)
            add = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
            self._pick_many(nodes, add)
        self._press = None
        self._mode = ""
        self.unsetCursor()
        self.update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Open a closed block; close an open one at its name."""
        if self.drawing is None or event.button() != Qt.MouseButton.LeftButton:
            return
        node = self._node_at(event.position())
        if node is not None and self.drawing.view.items[node].type == BLOCK:
            self.toggled.emit(self.drawing.view.items[node].key)
            return
        frame = self._frame_at(event.position())
        if node is None and frame is not None:
            self.toggled.emit(frame.block.key)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom about the pointer; with Shift move sideways."""
        notches = event.angleDelta().y() / 120 or event.angleDelta().x() / 120
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.pan_by(notches * 60, 0)
        else:
            self.zoom_by(WHEEL_FACTOR**notches, event.position())
        event.accept()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Open the menu of the node under the pointer, which becomes selected, or of the selection."""
        if event.reason() == QContextMenuEvent.Reason.Mouse and self.drawing is not None:
            node = self._node_at(QPointF(event.pos()))
            if node is not None and not self.drawing.selected[node]:
                self.pick(node, False)
        menu = self.menu()
        self.extend_menu(menu)
        menu.popup(event.globalPos())
        event.accept()

    def event(self, event: QEvent) -> bool:
        """Show the tooltip of a node, and keep the keys that mean the graph while it has the focus."""
        if event.type() == QEvent.Type.ToolTip:
            position = QPointF(event.pos())  # type: ignore[attr-defined]
            node = self._node_at(position)
            frame = self._frame_at(position) if node is None else None
            if node is not None:
                QToolTip.showText(event.globalPos(), self.tell(node), self)  # type: ignore[attr-defined]
            elif frame is not None:
                words = f"{frame.block.title}: {tr('double-click closes the block')}"
                QToolTip.showText(event.globalPos(), words, self)  # type: ignore[attr-defined]
            else:
                QToolTip.hideText()
            return True
        if event.type() == QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
            if (Qt.Key(event.key()), control) in OWN_KEYS:
                event.accept()
                return True
        return super().event(event)

    def _node_at(self, position: QPointF) -> int | None:
        point = self.to_plane(position)
        return None if self.drawing is None else self.drawing.node_at(point.x(), point.y())

    def _frame_at(self, position: QPointF) -> Frame | None:
        point = self.to_plane(position)
        return None if self.drawing is None else self.drawing.frame_at(point.x(), point.y())

    # ---- picking

    def pick(self, node: int, add: bool) -> None:
        """Select a node as a click does."""
        if self.drawing is None:
            return
        key = self.drawing.view.items[node].key
        self.current = key
        self.setAccessibleDescription(self.tell(node))
        self.picked.emit((key,), add)

    def _pick_many(self, nodes: np.ndarray, add: bool) -> None:
        if self.drawing is not None and len(nodes):
            keys = tuple(self.drawing.view.items[node].key for node in nodes.tolist())
            self.current = keys[0]
            self.picked.emit(keys, add)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move along edges, zoom, open and close blocks, search."""
        key, drawing = Qt.Key(event.key()), self.drawing
        if drawing is None:
            super().keyPressEvent(event)
        elif key in ARROWS:
            self._on_arrow(ARROWS[key], bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier))
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            self.zoom_by(WHEEL_FACTOR)
        elif key == Qt.Key.Key_Minus:
            self.zoom_by(1 / WHEEL_FACTOR)
        elif key == Qt.Key.Key_0:
            self.show_everything()
        elif key == Qt.Key.Key_Slash:
            self.search_wanted.emit()
        elif key == Qt.Key.Key_N:
            self.next_wanted.emit(-1 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            node = drawing.index.get(self.current)
            if node is not None and drawing.view.items[node].block:
                self.toggled.emit(drawing.view.items[node].block)
        else:
            super().keyPressEvent(event)

    def _on_arrow(self, direction: str, add: bool) -> None:
        drawing = self.drawing
        if drawing is None:
            return
        node = drawing.index.get(self.current)
        step = 0 if node is None else drawing.step(node, direction)
        if step is not None:
            self.pick(step, add)
            self.bring_into_view(step)

    def _on_map_centred(self, point: QPointF) -> None:
        self.center_on(point)

    # ---- taking it away

    def show_everything(self) -> None:
        """Zoom so that everything is seen."""
        self.fit()

    def columns(self) -> tuple[Column, ...]:
        """Return the nodes with their figures."""
        return self.table()

    def picture(self) -> QImage:
        """Return the whole graph as an image, twice as large as at zoom 1."""
        assert self.drawing is not None
        return whole_picture(self.drawing, self.key)

    def svg(self) -> bytes:
        """Return the whole graph as an SVG document."""
        assert self.drawing is not None
        return whole_svg(self.drawing, self.key, self.name)
