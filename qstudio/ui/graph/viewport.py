"""Which part of a drawing is seen, and how large."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Signal
from PySide6.QtWidgets import QWidget

from qstudio.ui.graph.drawing import Drawing
from qstudio.ui.theme import theme

LARGEST_ZOOM = 3.0
SMALLEST_TOP = 0.85
"""Zoom of the beginning of a graph that is too wide; its text is still easy to read."""
SMALLEST_START = 0.62
"""A graph that would have to be smaller than this to fit is shown from its top instead, so that it can be read."""


class Viewport(QWidget):
    """A widget that looks at a part of a drawing: zoom and place, and from one plane to the other."""

    moved = Signal()
    """Another part of the drawing is seen."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.drawing: Drawing | None = None
        self.scale = 1.0
        """Pixels for one unit of the drawing."""
        self.origin = QPointF()
        """Where the drawing's origin is seen."""
        self._fitted = False
        """Whether zoom and place are those the graph was first shown with: a resize then shows it anew."""

    def to_screen(self, point: QPointF) -> QPointF:
        """Return where a point of the drawing is seen."""
        return QPointF(point.x() * self.scale + self.origin.x(), point.y() * self.scale + self.origin.y())

    def to_plane(self, point: QPointF) -> QPointF:
        """Return the point of the drawing at a place of the widget."""
        return QPointF((point.x() - self.origin.x()) / self.scale, (point.y() - self.origin.y()) / self.scale)

    def seen(self) -> QRectF:
        """Return the part of the drawing that is seen."""
        return QRectF(self.to_plane(QPointF()), self.to_plane(QPointF(self.width(), self.height())))

    def fitting_scale(self) -> float:
        """Return the zoom at which everything is seen."""
        if self.drawing is None:
            return 1.0
        bounds = self.drawing.bounds()
        return min(self.width() / bounds.width(), self.height() / bounds.height(), LARGEST_ZOOM)

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Zoom about a place of the widget (its middle by default)."""
        at = at if at is not None else QPointF(self.width() / 2, self.height() / 2)
        fixed = self.to_plane(at)
        low = min(self.fitting_scale(), 0.1)
        self.scale = min(max(self.scale * factor, low), LARGEST_ZOOM)
        self.origin = QPointF(at.x() - fixed.x() * self.scale, at.y() - fixed.y() * self.scale)
        self._keep_in_sight()

    def pan_by(self, dx: float, dy: float) -> None:
        """Move the drawing by pixels."""
        self.origin += QPointF(dx, dy)
        self._keep_in_sight()

    def center_on(self, point: QPointF) -> None:
        """Bring a point of the drawing into the middle."""
        self.origin = QPointF(self.width() / 2 - point.x() * self.scale, self.height() / 2 - point.y() * self.scale)
        self._keep_in_sight()

    def _keep_in_sight(self) -> None:
        """Never lose the drawing: a part of it stays within the widget."""
        if self.drawing is not None:
            bounds, room = self.drawing.bounds(), 60.0
            left, right = bounds.left() * self.scale, bounds.right() * self.scale
            top, bottom = bounds.top() * self.scale, bounds.bottom() * self.scale
            x = min(max(self.origin.x(), room - right), self.width() - room - left)
            y = min(max(self.origin.y(), room - bottom), self.height() - room - top)
            self.origin = QPointF(x, y)
        self._fitted = False
        self.moved.emit()
        self.update()

    def fit(self) -> None:
        """Zoom so that everything is seen."""
        if self.drawing is not None:
            self.scale = self.fitting_scale()
            self.center_on(self.drawing.bounds().center())
            self._fitted = True

    def show_start(self) -> None:
        """Show everything if it can be read then, else the beginning."""
        if self.drawing is None:
            return
        bounds, fit = self.drawing.bounds(), self.fitting_scale()
        readable = SMALLEST_START * theme().zoom
        if fit >= readable:
            self.scale = min(fit, 1.0 * theme().zoom)
            self.center_on(bounds.center())
        else:
            least = SMALLEST_TOP * theme().zoom
            self.scale = min(max(self.width() / bounds.width(), least), 1.0 * theme().zoom)
            start = self.drawing.rect(0)
            self.center_on(QPointF(start.center().x(), bounds.top() + self.height() / 2 / self.scale))
        self._fitted = True

    def bring_into_view(self, node: int) -> None:
        """Move the drawing no farther than needed to see a node with something around it."""
        if self.drawing is None:
            return
        rect = self.drawing.rect(node).adjusted(-24, -40, 24, 40)
        seen = self.seen()
        dx = max(seen.left() - rect.left(), 0) + min(seen.right() - rect.right(), 0)
        dy = max(seen.top() - rect.top(), 0) + min(seen.bottom() - rect.bottom(), 0)
        if dx or dy:
            fitted = self._fitted
            self.pan_by(dx * self.scale, dy * self.scale)
            self._fitted = fitted
